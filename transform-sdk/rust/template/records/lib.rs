//! Says in a sentence what the transform is for.

use gristmill_transform::{Config, Context, Edit, Outcome, Record, Reject};
use serde::Deserialize;

/// What the pipeline file may say under `config`.
#[derive(Debug, Deserialize, Config)]
pub struct Settings {
    /// Values longer than this are refused.
    most_bytes: usize,
}

/// Drops tombstones, refuses what is too long, and puts what is left in brackets.
#[gristmill_transform::record(reads(values), config = Settings)]
pub fn {{function}}(
    record: &Record<'_>,
    ctx: &Context<Settings>,
    out: &mut Edit<'_>,
) -> Result<Outcome, Reject> {
    let Some(value) = record.value() else { return Ok(Outcome::Drop) };
    if value.len() > ctx.config.most_bytes {
        return Err(Reject::new("TOO_LONG", format!("{} bytes", value.len())));
    }
    out.set_value([b"[", value, b"]"].concat());
    Ok(Outcome::Keep)
}

#[cfg(test)]
mod tests {
    use gristmill_transform::testing::{Harness, TestRecord};
    use serde_json::json;

    use super::{{function}};

    #[test]
    fn values_get_brackets_and_long_ones_are_refused() {
        let mut harness = Harness::<{{function}}::Transform>::new(json!({"most_bytes": 5})).unwrap();
        let answers = harness.apply(&[TestRecord::value("short"), TestRecord::value("longer")]);
        assert_eq!(answers[0].kept().unwrap().value_text(), "[short]");
        assert_eq!(answers[1].rejected().unwrap().code(), "TOO_LONG");
    }
}
