//! Does with each row what its column `do` says.

use gristmill_transform::{Columns, Config, Context, Reject, Row, RowEdit, RowOutcome, log, metrics};

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
#[gristmill_transform::row(
    config = Settings,
    outputs(large = "large orders"),
    remove("internal_note", "customer.phone"),
    rename("order_no" = "number")
)]
pub fn column_orders<'a>(
    order: &Order<'a>,
    ctx: &'a Context<Settings>,
    out: &mut RowEdit<Masked<'a>>,
) -> Result<RowOutcome<Masked<'a>>, Reject> {
    let masked = |twice: i64| Masked {
        email: order.email.map(|email| ctx.config.mask.as_deref().unwrap_or(email)),
        twice,
    };
    metrics::count("rows", 1);
    match order.r#do.unwrap_or("keep") {
        "drop" => return Ok(RowOutcome::Drop),
        "route" => out.route(column_orders::LARGE),
        "reject" => return Err(Reject::new("NOT_WANTED", "it asks to be rejected")),
        "reject after emit" => {
            out.emit(column_orders::LARGE, masked(-1));
            return Err(Reject::new("NOT_WANTED", "it asks to be rejected"));
        }
        "emit" => (1..=i64::from(ctx.config.emits)).for_each(|n| out.emit(column_orders::LARGE, masked(-n))),
        "drop and emit" => {
            out.emit(column_orders::LARGE, masked(-1));
            return Ok(RowOutcome::Drop);
        }
        "panic" => panic!("it asks for a panic"),
        "loop" => loop {
            std::hint::black_box(0);
        },
        "log" => log::info("it asks for a line"),
        _ => {}
    }
    Ok(RowOutcome::Keep(masked(order.id * 2)))
}
