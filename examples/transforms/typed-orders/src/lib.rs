//! Orders as typed rows, whatever they were encoded in: the e-mail address masked, test orders left out, large orders
//! apart, and columns added.

use gristmill_transform::{
    Columns, Config, Context, Reject, Row, RowEdit, RowOutcome, TimestampMillis, metrics,
};
use serde::Deserialize;

/// What the pipeline file may say.
#[derive(Debug, Deserialize, Config)]
pub struct Settings {
    /// Orders of this amount and above go to the output high_value.
    #[config(minimum = 0)]
    high_value_cents: i64,
}

/// What is read of an order.
#[derive(Debug, Row)]
pub struct Order<'a> {
    amount_cents: i64,
    #[row(path = "customer.email")]
    email: Option<&'a str>,
    #[row(optional)]
    test: Option<bool>,
    /// The record's own time; a pipeline offers it to whoever names it.
    #[row(path = "_kafka_timestamp", optional)]
    received_at: Option<TimestampMillis>,
}

/// What is computed.
#[derive(Debug, Columns)]
pub struct Masked<'a> {
    #[column(replace = "customer.email")]
    email: Option<String>,
    /// Who runs the customer's mailbox.
    #[column(add)]
    email_domain: Option<&'a str>,
    /// When Kafka got the order.
    #[column(add)]
    received_at: Option<TimestampMillis>,
}

/// Masks e-mail addresses but for their domains, drops test orders, and sends large ones to an output of their own.
#[gristmill_transform::row(
    config = Settings,
    outputs(high_value = "orders of a large amount"),
    remove("customer.card"),
    rename("created_at" = "ordered_at")
)]
pub fn typed_orders<'a>(
    order: &Order<'a>,
    ctx: &Context<Settings>,
    out: &mut RowEdit<Masked<'a>>,
) -> Result<RowOutcome<Masked<'a>>, Reject> {
    if order.test == Some(true) {
        metrics::count("test_orders", 1);
        return Ok(RowOutcome::Drop);
    }
    if order.amount_cents < 0 {
        return Err(Reject::new("NEGATIVE_AMOUNT", "amount_cents is below 0"));
    }
    if order.amount_cents >= ctx.config.high_value_cents {
        out.route(typed_orders::HIGH_VALUE);
    }
    let domain = order.email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain);
    let email = order.email.map(|_| format!("***@{}", domain.unwrap_or("***")));
    Ok(RowOutcome::Keep(Masked { email, email_domain: domain, received_at: order.received_at }))
}

#[cfg(test)]
mod tests {
    use gristmill_transform::testing::RowHarness;
    use serde_json::json;

    use super::typed_orders;

    #[test]
    fn addresses_are_masked_test_orders_dropped_and_large_ones_routed() {
        let mut harness =
            RowHarness::<typed_orders::Transform>::new(json!({"high_value_cents": 1000})).unwrap();
        let answers = harness.apply(&[
            json!({"amount_cents": 999, "customer": {"email": "ada@example.org"}, "_kafka_timestamp": 7}),
            json!({"amount_cents": 1000, "customer": {"email": "nobody"}}),
            json!({"amount_cents": 1, "test": true}),
            json!({"amount_cents": -1}),
            json!({"amount_cents": 0, "customer": null}),
        ]);
        let first = answers[0].kept().unwrap();
        assert_eq!((first.output, &first.computed["email"]), ("main", &json!("***@example.org")));
        assert_eq!(first.computed["email_domain"], "example.org");
        assert_eq!(first.computed["received_at"], 7);
        let second = answers[1].kept().unwrap();
        assert_eq!((second.output, &second.computed["email"]), ("high_value", &json!("***@***")));
        assert!(answers[2].is_dropped());
        assert_eq!(answers[3].rejected().unwrap().code(), "NEGATIVE_AMOUNT");
        assert_eq!(answers[4].kept().unwrap().computed["email"], json!(null));
        assert_eq!(harness.counters()["test_orders"], 1);
    }
}
