//! Does what `column-kinds` does, on arrow-rs arrays; and leaves out what it is told to.

#[path = "../../column-kinds/src/kinds.rs"]
mod kinds;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use gristmill_transform::{Config, Context, Rows, RowsEdit};
use kinds::{All, Same};

#[derive(serde::Deserialize, Config)]
pub struct Settings {
    /// Rows whose `i64` is at least this are left out.
    #[serde(default)]
    below: Option<i64>,
    /// Emit a row for each that is the first of a call.
    #[serde(default)]
    emit: bool,
}

/// Answers with the columns that it has read.
#[gristmill_transform::columns(config = Settings, outputs(firsts = "the first row of each call"))]
pub fn arrow_kinds<'a>(
    rows: &Rows<'a, All<'a>>,
    ctx: &'a Context<Settings>,
    out: &mut RowsEdit<'_, Same<'a>>,
) {
    let read = rows.to_arrow();
    let added: [(&str, ArrayRef); 5] = [
        ("sum_of_counts", Arc::new(rows.iter().map(|row| row.sum_of_counts()).collect::<Int64Array>())),
        ("unscaled", Arc::new(rows.iter().map(|row| row.unscaled()).collect::<StringArray>())),
        ("large_low", Arc::new(rows.iter().map(|row| row.large_low()).collect::<arrow_array::UInt64Array>())),
        ("nowhere", read["nowhere"].clone()),
        ("quotient", Arc::new(rows.iter().map(|row| row.quotient()).collect::<Float64Array>())),
    ];
    let replaced = read.schema();
    let replaced = replaced
        .fields()
        .iter()
        .filter(|f| !["nowhere", "large_decimal"].contains(&f.name().as_str()))
        .map(|f| (f.name().as_str(), read[f.name()].clone(), f.is_nullable()));
    let columns = replaced.chain(added.into_iter().map(|(name, array)| (name, array, true)));
    let columns = RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length");
    if ctx.config.emit && !rows.is_empty() {
        out.emit(arrow_kinds::FIRSTS, rows.get(0).into());
    }
    match ctx.config.below {
        None => out.keep_rows(&columns),
        Some(below) => {
            let keep = BooleanArray::from_unary(read["i64"].as_primitive::<Int64Type>(), |n| n < below);
            out.keep_where(&keep, &columns);
        }
    }
}
