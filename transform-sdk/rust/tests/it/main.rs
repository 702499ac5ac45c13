//! What the macros write, and what a test sees of a transform.

mod arrow;
mod structs;

use gristmill_transform::testing::{Harness, RowHarness, TestRecord, Verdict};
use gristmill_transform::{
    Config, Context, Edit, Emit, Header, Outcome, Output, Record, Reject, Transform, log, metrics, schema,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Every kind of field.
#[derive(Debug, Deserialize, Config)]
#[serde(rename_all = "kebab-case")]
#[config(check = "Settings::consistent")]
#[expect(dead_code, reason = "some are there for the schema")]
struct Settings {
    /// Between the parts,
    /// on one line.
    separator_text: String,
    #[config(minimum = 1, maximum = 9)]
    copies: u8,
    #[serde(default)]
    mode: Mode,
    #[config(secret)]
    token: Option<String>,
    #[serde(default, rename = "LIST")]
    list: Vec<i32>,
    inner: Option<Inner>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Config)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    AsIs,
    #[serde(rename = "UP")]
    UpperCase,
}

#[derive(Debug, Deserialize, Config)]
#[expect(dead_code, reason = "it is there for the schema")]
struct Inner {
    ratio: f64,
}

impl Settings {
    fn consistent(&self) -> Result<(), String> {
        if self.separator_text.is_empty() { Err("separator-text must not be empty".into()) } else { Ok(()) }
    }
}

/// Splits values into copies.
#[gristmill_transform::record(
    name = "split.values",
    version = "2",
    reads(keys, values, headers, timestamps),
    outputs(copies = "the copies", large = "large ones"),
    config = Settings
)]
fn split(record: &Record<'_>, ctx: &Context<Settings>, out: &mut Edit<'_>) -> Result<Outcome, Reject> {
    metrics::count("records", 1);
    let Some(value) = record.value() else {
        log::warn("a tombstone");
        return Ok(Outcome::Drop);
    };
    metrics::observe("bytes", value.len() as f64);
    for _ in 0..ctx.config.copies {
        let headers = [Header::new("copy", b"yes")];
        out.emit(
            split::COPIES,
            Emit { key: record.key(), value: Some(value), headers: &headers, timestamp: Some(7) },
        );
    }
    match value {
        b"drop" => return Ok(Outcome::Drop),
        b"bad" => return Err(Reject::new("BAD", format!("from {}-{}", ctx.topic, ctx.partition))),
        b"large" => out.route(split::LARGE),
        b"null" => {
            out.set_null_value();
            out.set_null_key();
            out.set_timestamp(None);
            out.add_header(record.headers(), Header::new("b", b"2"));
        }
        b"schema" => out.set_value(schema(4).unwrap_or_default()),
        _ => {}
    }
    if ctx.config.mode == Mode::UpperCase {
        out.write_value(|buffer| buffer.extend(value.to_ascii_uppercase()));
        out.set_key(&ctx.config.separator_text);
    }
    Ok(Outcome::Keep)
}

/// Takes no configuration and reads no values.
#[gristmill_transform::record(reads())]
fn keep_all(record: &Record<'_>, _: &Context, _: &mut Edit<'_>) -> Result<Outcome, Reject> {
    assert!(record.value().is_none() && record.headers().is_empty() && record.offset() == -1);
    if record.is_tombstone() { Ok(Outcome::Drop) } else { Ok(Outcome::Keep) }
}

fn harness(more: Value) -> Harness<split::Transform> {
    let mut config = json!({"separator-text": ",", "copies": 1});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Harness::new(config).unwrap()
}

#[test]
fn the_schema_says_what_serde_takes() {
    let inner = json!({
        "type": ["object", "null"],
        "properties": {"ratio": {"type": "number"}},
        "required": ["ratio"],
        "additionalProperties": false,
    });
    assert_eq!(
        Settings::schema(),
        json!({
            "type": "object",
            "description": "Every kind of field.",
            "properties": {
                "separator-text": {"type": "string", "description": "Between the parts, on one line."},
                "copies": {"type": "integer", "minimum": 1, "maximum": 9},
                "mode": {"enum": ["as_is", "UP"]},
                "token": {"type": ["string", "null"], "writeOnly": true},
                "LIST": {"type": "array", "items": {"type": "integer"}},
                "inner": inner,
            },
            "required": ["separator-text", "copies"],
            "additionalProperties": false,
        })
    );
}

#[test]
fn the_manifest_says_what_the_macro_was_told() {
    let manifest = split::Transform::MANIFEST;
    assert_eq!((manifest.name, manifest.version), ("split.values", "2"));
    assert_eq!(manifest.description, "Splits values into copies.");
    assert_eq!(manifest.outputs, [("copies", "the copies"), ("large", "large ones")]);
    assert_eq!((split::COPIES, split::LARGE), (Output::new(1), Output::new(2)));
    assert!(manifest.reads.keys && manifest.reads.timestamps && !manifest.reads.offsets);
    assert_eq!(keep_all::Transform::MANIFEST.name, "keep-all");
    assert_eq!(keep_all::Transform::MANIFEST.version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_configuration_that_the_author_refuses_says_why() {
    let refused = |config| Harness::<split::Transform>::new(config).err().unwrap();
    assert_eq!(refused(json!({"separator-text": "", "copies": 1})), "separator-text must not be empty");
    assert!(refused(json!({"copies": 1})).contains("missing field `separator-text`"));
}

#[test]
fn records_come_out_as_they_were_edited() {
    let mut harness = harness(json!({"mode": "UP", "LIST": [1], "inner": {"ratio": 0.5}}));
    let answers = harness.apply(&[TestRecord::value("plain").key("k").header("a", "1").timestamp(5)]);
    let kept = answers[0].kept().unwrap();
    assert_eq!((kept.value_text(), kept.key.as_deref(), kept.output), ("PLAIN", Some(&b","[..]), "main"));
    assert_eq!((kept.headers.len(), kept.timestamp), (1, Some(5)));
    let [copy] = &answers[0].emitted[..] else { panic!("{answers:?}") };
    assert_eq!((copy.value_text(), copy.key.as_deref(), copy.output), ("plain", Some(&b"k"[..]), "copies"));
    assert_eq!(copy.headers, [("copy".to_owned(), Some(b"yes".to_vec()))]);
    assert_eq!(copy.timestamp, Some(7));
}

#[test]
fn each_record_gets_its_own_verdict() {
    let mut harness = harness(json!({}));
    harness.add_schema(4, "the schema");
    let inputs = ["drop", "bad", "large", "null", "schema", "plain"].map(TestRecord::value);
    let answers = harness.apply(&[&inputs[..], &[TestRecord::tombstone()]].concat());
    assert!(answers[0].is_dropped() && answers[0].emitted.len() == 1, "what was emitted stays");
    let Verdict::Rejected(reject) = &answers[1].verdict else { panic!("{answers:?}") };
    assert_eq!((reject.code(), reject.message()), ("BAD", "from test-0"));
    assert!(answers[1].emitted.is_empty(), "a reject voids it");
    assert_eq!(answers[2].kept().unwrap().output, "large");
    let nulled = answers[3].kept().unwrap();
    assert_eq!((&nulled.key, &nulled.value, nulled.timestamp), (&None, &None, None));
    assert_eq!(nulled.headers, [("b".to_owned(), Some(b"2".to_vec()))]);
    assert_eq!(answers[4].kept().unwrap().value_text(), "the schema");
    assert_eq!(answers[5].kept().unwrap().value_text(), "plain");
    assert!(answers[6].is_dropped() && answers[6].emitted.is_empty());
    assert_eq!(harness.counters()["records"], 7);
    assert_eq!(harness.observations()["bytes"].len(), 6);
    assert_eq!(harness.logs(), [(log::Level::Warn, "a tombstone".to_owned())]);
}

#[test]
fn what_is_not_declared_to_be_read_is_hidden() {
    let mut harness = Harness::<keep_all::Transform>::new(json!({})).unwrap();
    let answers = harness.apply(&[TestRecord::value("v").header("a", "b"), TestRecord::tombstone()]);
    assert_eq!(answers[0].kept().unwrap().value_text(), "v");
    assert!(answers[1].is_dropped());
}

/// Whose rows are read one too far where the first flag is missing.
mod beyond {
    use gristmill_transform::{Context, Row, Rows, RowsEdit};

    #[derive(Row)]
    pub(crate) struct Flag {
        is_set: Option<bool>,
    }

    /// Keeps what is set.
    #[gristmill_transform::columns]
    pub(crate) fn beyond<'a>(rows: &Rows<'a, Flag>, _: &Context, out: &mut RowsEdit<'_>) {
        let more = usize::from(rows.get(0).is_set.is_none());
        for row in 0..rows.len() + more {
            match rows.get(row).is_set {
                Some(true) => out.keep(()),
                _ => out.drop_row(),
            }
        }
    }
}

/// The bits behind the last row are there, and mean nothing.
#[test]
#[should_panic(expected = "row 1 of 1")]
fn a_row_behind_the_last_one_is_a_panic() {
    let mut harness = RowHarness::<beyond::beyond::Transform>::new(json!({})).unwrap();
    assert!(harness.apply(&[json!({"is_set": true})])[0].kept().is_some());
    harness.apply(&[json!({})]);
}
