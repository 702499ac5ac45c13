//! Says in a sentence what the transform is for.

use gristmill_transform::{Columns, Config, Context, Reject, Row, RowEdit, RowOutcome};
use serde::Deserialize;

/// What the pipeline file may say under `config`.
#[derive(Debug, Deserialize, Config)]
pub struct Settings {
    /// Amounts above this are refused.
    most: i64,
}

/// What is read: columns by name, members of structs by path.
#[derive(Debug, Row)]
pub struct Order<'a> {
    amount: i64,
    #[row(path = "customer.email")]
    email: Option<&'a str>,
}

/// What is computed. All other columns go on as they are.
#[derive(Debug, Columns)]
pub struct Masked<'a> {
    #[column(replace = "customer.email")]
    email: Option<&'a str>,
    #[column(add)]
    email_domain: Option<&'a str>,
}

/// Replaces e-mail addresses by their domains, and refuses amounts that cannot be.
#[gristmill_transform::row(config = Settings)]
pub fn {{function}}<'a>(
    order: &Order<'a>,
    ctx: &Context<Settings>,
    _: &mut RowEdit<Masked<'a>>,
) -> Result<RowOutcome<Masked<'a>>, Reject> {
    if order.amount > ctx.config.most {
        return Err(Reject::new("AMOUNT_TOO_LARGE", "the amount is above what is allowed"));
    }
    let email_domain = order.email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain);
    Ok(RowOutcome::Keep(Masked { email: None, email_domain }))
}

#[cfg(test)]
mod tests {
    use gristmill_transform::testing::RowHarness;
    use serde_json::json;

    use super::{{function}};

    #[test]
    fn addresses_become_domains_and_large_amounts_are_refused() {
        let mut harness = RowHarness::<{{function}}::Transform>::new(json!({"most": 100})).unwrap();
        let answers = harness.apply(&[
            json!({"amount": 100, "customer": {"email": "ada@example.org"}}),
            json!({"amount": 101}),
        ]);
        assert_eq!(answers[0].kept().unwrap().computed["email_domain"], "example.org");
        assert_eq!(answers[1].rejected().unwrap().code(), "AMOUNT_TOO_LARGE");
    }
}
