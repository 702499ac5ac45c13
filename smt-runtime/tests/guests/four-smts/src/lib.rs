//! What four transforms of Kafka Connect do one after the other to JSON objects, in one pass: `Filter` with the
//! predicate `HasHeaderKey`, `ReplaceField`, `MaskField` and `InsertField`. For `make bench-sink`, which runs
//! those four beside it.

use std::borrow::Cow;
use std::fmt;

use gristmill_transform::{Config, Context, Edit, Outcome, Record, Reject};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// What the pipeline file may say. Fields are those of the object itself, as in Connect.
#[derive(Debug, Deserialize, Config)]
pub struct Settings {
    /// Records with a header of this name are dropped.
    drop_header: String,
    /// What becomes of fields that do not stay as they are.
    fields: Fields,
    /// The field that the record's time goes into.
    timestamp_field: String,
}

/// By name: `null` leaves the field out, `""` masks it, another text is its new name.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Fields(Vec<(String, Option<String>)>);

impl Config for Fields {
    fn schema() -> Value {
        serde_json::json!({"type": "array", "items": {"type": "array"}})
    }
}

/// Drops records by a header; leaves out, renames and masks fields of the others, and adds the record's time.
#[gristmill_transform::record(reads(headers, timestamps, values), config = Settings)]
pub fn four_smts(
    record: &Record<'_>,
    ctx: &Context<Settings>,
    out: &mut Edit<'_>,
) -> Result<Outcome, Reject> {
    let config = &ctx.config;
    if record.headers().last_named(&config.drop_header).is_some() {
        return Ok(Outcome::Drop);
    }
    let Some(value) = record.value() else { return Err(Reject::new("NULL_VALUE", "the value is null")) };
    let json =
        std::str::from_utf8(value).map_err(|_| Reject::new("MALFORMED_JSON", "the value is not UTF-8"))?;
    out.write_value(|buffer| {
        let mut source = serde_json::Deserializer::from_str(json);
        source.deserialize_map(Copy { fields: &config.fields.0, out: buffer })?;
        source.end()?;
        if let Some(time) = record.timestamp() {
            buffer.pop();
            member(&config.timestamp_field, &time.to_string(), buffer);
            buffer.push(b'}');
        }
        Ok(Outcome::Keep)
    })
    .map_err(|_: serde_json::Error| Reject::new("MALFORMED_JSON", "not a JSON object"))
}

struct Copy<'a> {
    fields: &'a [(String, Option<String>)],
    out: &'a mut Vec<u8>,
}

/// A name, without a copy where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Copy<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.out.push(b'{');
        while let Some(Name(name)) = map.next_key()? {
            let raw: &RawValue = map.next_value()?;
            match self.fields.iter().find(|(of, _)| *of == name) {
                None => member(&name, raw.get(), self.out),
                Some((_, None)) => {}
                Some((of, Some(mask))) if mask.is_empty() => member(of, masked(raw.get()), self.out),
                Some((_, Some(new))) => member(new, raw.get(), self.out),
            }
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// The nothing of the value's type, as Connect's `MaskField` writes it.
fn masked(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "\"\"",
        Some(b't' | b'f') => "false",
        Some(b'{') => "{}",
        Some(b'[') => "[]",
        Some(b'n') | None => "null",
        Some(_) => "0",
    }
}

/// Writes a member after those that are there; most names need no escapes.
fn member(name: &str, json: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    if name.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(&mut *out, name).expect("a text is written to memory");
    }
    out.push(b':');
    out.extend_from_slice(json.as_bytes());
}

#[cfg(test)]
mod tests {
    use gristmill_transform::testing::{Harness, TestRecord};
    use serde_json::json;

    use super::four_smts;

    #[test]
    fn the_four_steps_are_done_in_one_pass() {
        let config = json!({"drop_header": "test", "timestamp_field": "at",
            "fields": [["ip", null], ["card", ""], ["order_id", "id"]]});
        let mut harness = Harness::<four_smts::Transform>::new(config).unwrap();
        let json = r#"{"order_id":"o-1", "ip":"::1","card":"4111","items":[{"ip":1}],"a\"b":1}"#;
        let answers = harness.apply(&[
            TestRecord::value(json).timestamp(7),
            TestRecord::value(json).header("test", "true"),
            TestRecord::value("[]"),
            TestRecord::value("{} {}"),
        ]);
        let wanted = r#"{"id":"o-1","card":"","items":[{"ip":1}],"a\"b":1,"at":7}"#;
        assert_eq!(answers[0].kept().unwrap().value_text(), wanted);
        assert!(answers[1].is_dropped());
        assert_eq!(answers[2].rejected().unwrap().code(), "MALFORMED_JSON");
        assert_eq!(answers[3].rejected().unwrap().code(), "MALFORMED_JSON");
    }
}
