//! The same by arrow-rs arrays and row by row, for `make bench-transform`.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use gristmill_transform::{Columns, Config, Context, Row, Rows, RowsEdit};

#[derive(serde::Deserialize, Config)]
pub struct Settings {
    /// Whole columns at once, not row by row.
    arrays: bool,
    /// Every other row is left out.
    half: bool,
}

#[derive(Row)]
pub struct Order {
    amount_cents: i64,
    number0: Option<i64>,
}

#[derive(Columns)]
pub struct Computed {
    #[column(add)]
    twice: i64,
    #[column(add)]
    is_large: bool,
}

/// Adds twice the amount, and whether it is large; leaves out odd numbers, if it is told to.
#[gristmill_transform::columns(config = Settings)]
pub fn arrow_rows<'a>(orders: &Rows<'a, Order>, ctx: &'a Context<Settings>, out: &mut RowsEdit<'_, Computed>) {
    if !ctx.config.arrays {
        for order in orders.iter() {
            match ctx.config.half && order.number0.is_none_or(|n| n % 2 != 0) {
                true => out.drop_row(),
                false => out.keep(Computed {
                    twice: order.amount_cents.wrapping_mul(2),
                    is_large: order.amount_cents >= 90_000,
                }),
            }
        }
        return;
    }
    let read = orders.to_arrow();
    let amounts = read["amount_cents"].as_primitive::<Int64Type>();
    let twice: Int64Array = amounts.unary(|cents| cents.wrapping_mul(2));
    let is_large = BooleanArray::from_unary(amounts, |cents| cents >= 90_000);
    let computed: [(&str, ArrayRef); 2] = [("twice", Arc::new(twice)), ("is_large", Arc::new(is_large))];
    let computed = RecordBatch::try_from_iter(computed).expect("columns of one length");
    match ctx.config.half {
        true => {
            let numbers = read["number0"].as_primitive::<Int64Type>();
            out.keep_where(&BooleanArray::from_unary(numbers, |n| n % 2 == 0), &computed);
        }
        false => out.keep_rows(&computed),
    }
}
