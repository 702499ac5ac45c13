//! Works on records of any format, Avro too, by their headers alone; values are not even handed over.

use gristmill_transform::{Context, Edit, Outcome, Record, Reject};

/// Drops records whose header `test` is `true`, sends those with `tier` = `gold` to `gold`, and rejects
/// tombstones.
#[gristmill_transform::record(reads(headers), outputs(gold = "records of gold customers"))]
pub fn headers(record: &Record<'_>, _: &Context, out: &mut Edit<'_>) -> Result<Outcome, Reject> {
    if record.is_tombstone() {
        return Err(Reject::new("NULL_VALUE", "the value is null"));
    }
    let is = |name, value: &[u8]| record.headers().last_named(name).is_some_and(|h| h.value == Some(value));
    if is("test", b"true") {
        return Ok(Outcome::Drop);
    }
    if is("tier", b"gold") {
        out.route(headers::GOLD);
    }
    Ok(Outcome::Keep)
}

#[cfg(test)]
mod tests {
    use gristmill_transform::testing::{Harness, TestRecord};
    use serde_json::json;

    use super::headers;

    #[test]
    fn records_go_where_their_headers_say() {
        let mut harness = Harness::<headers::Transform>::new(json!({})).unwrap();
        let answers = harness.apply(&[
            TestRecord::value([0, 0, 0, 0, 7]),
            TestRecord::value("x").header("tier", "gold"),
            TestRecord::value("x").header("tier", "gold").header("tier", "lead"),
            TestRecord::value("x").header("tier", "gold").header("test", "true"),
            TestRecord::value("x").header("test", "false"),
            TestRecord::tombstone().header("tier", "gold"),
        ]);
        let output = |i: usize| answers[i].kept().unwrap().output;
        assert_eq!(output(0), "main");
        assert_eq!(output(1), "gold");
        assert_eq!(output(2), "main", "the last header of a name counts");
        assert!(answers[3].is_dropped());
        assert_eq!(output(4), "main");
        assert_eq!(answers[5].rejected().unwrap().code(), "NULL_VALUE");
    }
}
