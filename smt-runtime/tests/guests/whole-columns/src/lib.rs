//! Does what `column-orders` does, all rows of a call at once.

use gristmill_transform::{Columns, Config, Context, Reject, Row, Rows, RowsEdit, metrics};

#[derive(serde::Deserialize, Config)]
pub struct Settings {
    /// What e-mail addresses become.
    #[serde(default)]
    mask: Option<String>,
    /// Rows that are emitted a row, where that is what is to be done.
    #[serde(default)]
    emits: u32,
}

#[derive(Row)]
pub struct Order<'a> {
    id: i64,
    r#do: Option<&'a str>,
    #[row(path = "customer.email")]
    email: Option<&'a str>,
}

#[derive(Columns)]
pub struct Masked<'a> {
    #[column(replace = "customer.email")]
    email: Option<&'a str>,
    #[column(add)]
    twice: i64,
}

/// Masks e-mail addresses, and does what each row asks for.
#[gristmill_transform::columns(
    config = Settings,
    outputs(large = "large orders"),
    remove("internal_note", "customer.phone"),
    rename("order_no" = "number")
)]
pub fn whole_columns<'a>(
    orders: &Rows<'a, Order<'a>>,
    ctx: &'a Context<Settings>,
    out: &mut RowsEdit<'_, Masked<'a>>,
) {
    metrics::count("rows", orders.len() as u64);
    let columns = orders.columns();
    // A loop without branches over plain numbers.
    let twice: Vec<i64> = columns.id.values().iter().map(|id| id * 2).collect();
    for (row, order) in orders.iter().enumerate() {
        assert_eq!(columns.email.is_valid(row), order.email.is_some());
        let masked = |twice: i64| Masked {
            email: order.email.map(|email| ctx.config.mask.as_deref().unwrap_or(email)),
            twice,
        };
        let reject = || Reject::new("NOT_WANTED", "it asks to be rejected");
        match columns.r#do.get(row).unwrap_or("keep") {
            "drop" => out.drop_row(),
            "route" => out.route(whole_columns::LARGE, masked(twice[row])),
            "reject" => out.reject(reject()),
            "reject after emit" => {
                out.emit(whole_columns::LARGE, masked(-1));
                out.reject(reject());
            }
            "emit" => {
                (1..=i64::from(ctx.config.emits)).for_each(|n| out.emit(whole_columns::LARGE, masked(-n)));
                out.keep(masked(twice[row]));
            }
            "drop and emit" => {
                out.emit(whole_columns::LARGE, masked(-1));
                out.drop_row();
            }
            "forget" => {}
            "twice" => (0..2).for_each(|_| out.keep(masked(0))),
            _ => out.keep(masked(twice[row])),
        }
    }
}
