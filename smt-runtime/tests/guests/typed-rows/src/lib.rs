//! A function on a typed row that does next to nothing with what it reads, for `make bench-transform`.

use gristmill_transform::{Columns, Context, Reject, Row, RowEdit, RowOutcome};

#[derive(Row)]
pub struct Order<'a> {
    amount_cents: i64,
    #[row(path = "customer.email")]
    email: Option<&'a str>,
    test: Option<bool>,
}

#[derive(Columns)]
pub struct Computed<'a> {
    #[column(add)]
    email_domain: Option<&'a str>,
    #[column(add)]
    is_large: bool,
}

/// Adds the domain of the e-mail address, and whether the amount is large; drops test orders.
#[gristmill_transform::row]
pub fn typed_rows<'a>(
    order: &Order<'a>,
    _: &Context,
    _: &mut RowEdit<Computed<'a>>,
) -> Result<RowOutcome<Computed<'a>>, Reject> {
    if order.test == Some(true) {
        return Ok(RowOutcome::Drop);
    }
    let email_domain = order.email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain);
    Ok(RowOutcome::Keep(Computed { email_domain, is_large: order.amount_cents >= 90_000 }))
}
