//! Makes a stream of JSON orders fit to be shared: personal data masked, test orders left out, large orders
//! apart, broken ones rejected.

mod mask;

use gristmill_transform::{Config, Context, Edit, Outcome, Record, Reject, metrics};
use mask::{Fields, Order};
use serde::Deserialize;

/// What the pipeline file may say.
#[derive(Debug, Deserialize, Config)]
pub struct Settings {
    /// Fields whose text is replaced, as dotted paths.
    #[serde(default)]
    fields: Fields,
    /// What it is replaced by.
    #[serde(default = "stars")]
    mask: String,
    /// Orders of this amount and above go to the output high_value.
    #[config(minimum = 0)]
    high_value_cents: i64,
    /// What happens to records without a value.
    #[serde(default)]
    tombstones: Tombstones,
}

/// What happens to records without a value.
#[derive(Debug, Clone, Copy, Default, Deserialize, Config)]
#[serde(rename_all = "lowercase")]
pub enum Tombstones {
    /// They are rejected.
    #[default]
    Reject,
    /// They are left out.
    Drop,
}

fn stars() -> String {
    "***".to_owned()
}

/// Masks personal data in JSON orders, drops test orders, and sends large ones to an output of their own.
#[gristmill_transform::record(reads(values), config = Settings, outputs(high_value = "orders of a large amount"))]
pub fn orders(record: &Record<'_>, ctx: &Context<Settings>, out: &mut Edit<'_>) -> Result<Outcome, Reject> {
    let Some(value) = record.value() else {
        return match ctx.config.tombstones {
            Tombstones::Reject => Err(Reject::new("NULL_VALUE", "the value is null")),
            Tombstones::Drop => Ok(Outcome::Drop),
        };
    };
    let json =
        std::str::from_utf8(value).map_err(|_| Reject::new("MALFORMED_JSON", "the value is not UTF-8"))?;
    let config = &ctx.config;
    let order = out
        .write_value(|buffer| mask::copy(json, &config.fields, &config.mask, buffer))
        .map_err(|e| malformed(&e))?;
    let amount = check(&order)?;
    if order.test {
        metrics::count("test_orders", 1);
        return Ok(Outcome::Drop);
    }
    if amount >= config.high_value_cents {
        out.route(orders::HIGH_VALUE);
    }
    Ok(Outcome::Keep)
}

/// Gives back the amount.
fn check(order: &Order) -> Result<i64, Reject> {
    if !order.has_id {
        return Err(Reject::new("MISSING_FIELD", "order_id is missing or not a text"));
    }
    match order.amount_cents {
        None => Err(Reject::new("MISSING_FIELD", "amount_cents is missing or not a whole number")),
        Some(amount) if amount < 0 => Err(Reject::new("NEGATIVE_AMOUNT", "amount_cents is below 0")),
        Some(amount) => Ok(amount),
    }
}

/// Where it went wrong, not what is there: that may be personal.
fn malformed(e: &serde_json::Error) -> Reject {
    let what = match e.classify() {
        serde_json::error::Category::Eof => "the JSON ends too early",
        serde_json::error::Category::Syntax => "not JSON",
        _ => "not a JSON object",
    };
    Reject::new("MALFORMED_JSON", format!("{what}: line {}, column {}", e.line(), e.column()))
}

#[cfg(test)]
mod tests {
    use gristmill_transform::testing::{Answer, Harness, TestRecord};
    use serde_json::{Value, json};

    use super::orders;

    fn order() -> Value {
        json!({
            "order_id": "o-000123",
            "customer": {"name": "Ada", "email": "ada@example.com", "card": "4111111111111111"},
            "country": "DE", "currency": "EUR", "amount_cents": 1234, "created_at": 1_700_000_000_000_i64,
            "test": false, "items": [{"sku": "a-1", "qty": 2}],
        })
    }

    fn with(change: impl FnOnce(&mut Value)) -> TestRecord {
        let mut order = order();
        change(&mut order);
        TestRecord::value(order.to_string())
    }

    fn apply(config: Value, records: &[TestRecord]) -> Vec<Answer> {
        Harness::<orders::Transform>::new(config).unwrap().apply(records)
    }

    #[test]
    fn personal_data_is_masked_and_the_rest_is_untouched() {
        let answers = apply(json!({"high_value_cents": 100_000}), &[with(|_| {})]);
        let out = answers[0].kept().unwrap();
        let mut wanted = order();
        wanted["customer"]["email"] = "***".into();
        wanted["customer"]["card"] = "***".into();
        assert_eq!(out.value_json(), wanted);
        assert_eq!(out.output, "main");
    }

    #[test]
    fn bytes_that_are_not_masked_are_copied_as_they_are() {
        let json = r#"{ "amount_cents":1e0 , "a\u0062\"" : 1.50, "order_id":"\u00e9", "amount_cents":7,"customer":null}"#;
        let answers = apply(json!({"high_value_cents": 8}), &[TestRecord::value(json)]);
        let wanted =
            r#"{"amount_cents":1e0,"ab\"":1.50,"order_id":"\u00e9","amount_cents":7,"customer":null}"#;
        assert_eq!(answers[0].kept().unwrap().value_text(), wanted);
    }

    #[test]
    fn the_configuration_says_what_is_masked_with_what() {
        let config = json!({"high_value_cents": 8, "fields": ["country", "items.sku", "customer.name"], "mask": "\"x"});
        let answers = apply(config, &[with(|_| {})]);
        let out = answers[0].kept().unwrap().value_json();
        assert_eq!(out["country"], "\"x");
        assert_eq!(out["customer"]["name"], "\"x");
        assert_eq!(out["customer"]["email"], "ada@example.com");
        assert_eq!(out["items"][0]["sku"], "\"x", "a path goes through lists");
        assert_eq!(out["items"][0]["qty"], 2);
    }

    #[test]
    fn large_orders_go_to_an_output_of_their_own() {
        let amounts = [99, 100, 101].map(|n| with(|o| o["amount_cents"] = n.into()));
        let answers = apply(json!({"high_value_cents": 100}), &amounts);
        let outputs: Vec<_> = answers.iter().map(|a| a.kept().unwrap().output).collect();
        assert_eq!(outputs, ["main", "high_value", "high_value"]);
    }

    #[test]
    fn test_orders_are_left_out_and_counted() {
        let mut harness = Harness::<orders::Transform>::new(json!({"high_value_cents": 100})).unwrap();
        let answers = harness.apply(&[with(|o| o["test"] = true.into())]);
        assert!(answers[0].is_dropped());
        assert_eq!(harness.counters()["test_orders"], 1);
    }

    #[test]
    fn broken_orders_are_rejected_with_a_code_and_without_their_content() {
        let broken = [
            (TestRecord::value("{\"customer\": {\"email\": \"ada"), "MALFORMED_JSON"),
            (TestRecord::value("[1]"), "MALFORMED_JSON"),
            (TestRecord::value("{} {}"), "MALFORMED_JSON"),
            (TestRecord::value([0xff]), "MALFORMED_JSON"),
            (TestRecord::value("{\"customer\": {\"email\": ada}}"), "MALFORMED_JSON"),
            (with(|o| o["order_id"] = Value::Null), "MISSING_FIELD"),
            (with(|o| o["order_id"] = "".into()), "MISSING_FIELD"),
            (with(|o| o["amount_cents"] = "12".into()), "MISSING_FIELD"),
            (with(|o| o["amount_cents"] = (-1).into()), "NEGATIVE_AMOUNT"),
            (TestRecord::tombstone(), "NULL_VALUE"),
        ];
        let records: Vec<_> = broken.iter().map(|(r, _)| r.clone()).collect();
        let answers = apply(json!({"high_value_cents": 100}), &records);
        for (answer, (record, code)) in answers.iter().zip(&broken) {
            let reject = answer.rejected().unwrap_or_else(|| panic!("{record:?} gave {answer:?}"));
            assert_eq!(reject.code(), *code, "{record:?}");
            assert!(!reject.message().contains("ada"), "{}", reject.message());
        }
    }

    #[test]
    fn tombstones_are_dropped_where_the_configuration_says_so() {
        let answers = apply(json!({"high_value_cents": 1, "tombstones": "drop"}), &[TestRecord::tombstone()]);
        assert!(answers[0].is_dropped());
    }
}
