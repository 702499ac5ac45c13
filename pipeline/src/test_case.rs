//! `gristmill pipeline test`: records in; rows and dead letters out, compared with what is expected.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{FieldRef, Schema, SchemaRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gristmill_codec::{JsonDecoder, JsonOptions, rows_as_json};
use gristmill_records::{Header, NO_TIMESTAMP, RawBatch, RawBatchBuilder};
use gristmill_sinks::{CHANGE_SEQUENCE_NUMBER, MAIN_OUTPUT};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::check::Checked;
use crate::document::{Document, Problems};
use crate::error::{Error, NO_REGISTRY};
use crate::prepare;
use crate::stages::{Processed, StagePlan};
use crate::value_encoder::{ValueEncoder, WriteFormat};

/// A file of test cases for a pipeline.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    /// The cases; each starts with a fresh instance of the transform.
    #[schemars(length(min = 1))]
    cases: Vec<Case>,
}

/// Records, and what has to become of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the case shows.
    name: String,
    /// The records of one partition, from offset 0 on.
    records: Vec<TestRecord>,
    /// What has to become of them.
    expect: Expect,
}

/// One record. At most one of `value`, `value_json` and `value_base64`; none of them is a null value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TestRecord {
    /// The key as text; none is null.
    #[serde(default)]
    key: Option<String>,
    /// The value as text.
    #[serde(default)]
    value: Option<String>,
    /// The value as JSON. With `format: avro` or `protobuf` it is written by the schema of the columns, the latest of the subject: fields
    /// that are left out are null.
    #[serde(default)]
    value_json: Option<Value>,
    /// The value as bytes in base64.
    #[serde(default)]
    value_base64: Option<String>,
    /// Headers.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// The record's time, such as `2026-11-01T12:00:00Z`.
    #[serde(default)]
    timestamp: Option<String>,
}

/// What has to become of a case's records.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// Rows by output, in order. Columns that begin with `_kafka_`, and `_CHANGE_SEQUENCE_NUMBER`, are compared only where they are
    /// named. Of `mode: cdc` each row says what it does: `_CHANGE_TYPE: UPSERT` or `DELETE`.
    /// An output that is not named has to be empty.
    #[serde(default)]
    rows: BTreeMap<String, Vec<Map<String, Value>>>,
    /// Dead letters, in order.
    #[serde(default)]
    dead_letters: Vec<ExpectedDeadLetter>,
    /// Records that the transform drops.
    #[serde(default)]
    dropped: u64,
}

/// A record that has to be rejected.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectedDeadLetter {
    /// The record's place among the case's records, from 0.
    offset: i64,
    /// The reject's code; where the value does not decode `DECODE_MALFORMED`, `DECODE_MISMATCH`,
    /// `DECODE_NULL_VALUE`, `DECODE_UNKNOWN_SCHEMA` or `DECODE_INCOMPATIBLE_SCHEMA`; where a row has no directory
    /// `DIRECTORY_VALUE`.
    code: String,
    /// Text that the message has to contain.
    #[serde(default)]
    message: Option<String>,
}

/// What came of the cases; prints as a report.
#[derive(Debug)]
pub struct TestReport {
    cases: Vec<(String, Vec<String>)>,
}

impl TestReport {
    /// Whether every case came out as expected.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(|(_, differences)| differences.is_empty())
    }
}

impl fmt::Display for TestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, differences) in &self.cases {
            writeln!(f, "{} {name}", if differences.is_empty() { "ok  " } else { "FAIL" })?;
            for difference in differences {
                writeln!(f, "     {difference}")?;
            }
        }
        let failed = self.cases.iter().filter(|(_, d)| !d.is_empty()).count();
        writeln!(f, "{} passed, {failed} failed", self.cases.len() - failed)
    }
}

/// Runs the cases of `cases` through the transform and the decoder of a pipeline. Kafka is not contacted.
///
/// # Errors
/// [`ErrorKind::Config`] for mistakes in the case file; otherwise as for
/// [`Pipeline::prepare`](crate::Pipeline::prepare). A difference is not an error but part of the report.
pub async fn test(checked: Checked, cases: &Path) -> Result<TestReport, Error> {
    let file = read_cases(cases)?;
    let topic = checked.pipeline.source.kafka.topics[0].clone();
    let (plan, registry) = prepare::plan(&checked).await?;
    let mut report = TestReport { cases: Vec::new() };
    let writing = match file.cases.iter().flat_map(|case| &case.records).any(|r| r.value_json.is_some()) {
        true => prepare::writing(&checked, registry.as_ref()).await?,
        false => None,
    };
    for case in file.cases {
        let about =
            |e: &dyn fmt::Display| Error::config(format!("{}: case `{}`: {e}", cases.display(), case.name));
        let mut written = Vec::with_capacity(case.records.len());
        for (offset, record) in case.records.iter().enumerate() {
            let value = match &record.value_json {
                Some(value) => written_as(value, writing.as_ref()).await,
                None => Ok(None),
            };
            written.push(value.map_err(|e| about(&format!("record {offset}: `value_json`: {e}")))?);
        }
        let batch = batch(&topic, &case.records, written).map_err(|e| about(&e))?;
        let processed = process(&plan, registry.as_ref(), batch).await?;
        report.cases.push((case.name, differences(&case.expect, &processed)?));
    }
    Ok(report)
}

fn read_cases(path: &Path) -> Result<CaseFile, Problems> {
    Document::load(path)?.typed(&Value::from(schemars::schema_for!(CaseFile)))
}

async fn process(
    plan: &StagePlan,
    registry: Option<&gristmill::SchemaRegistry>,
    batch: RawBatch,
) -> Result<Processed, Error> {
    let mut stages = plan.open(batch.topic(), batch.partition())?;
    let transformed = tokio::task::block_in_place(|| stages.transform(batch))?;
    for missing in stages.missing_schemas(&transformed) {
        let registry = registry.ok_or_else(|| Error::config(NO_REGISTRY))?;
        if let Some(schema) = prepare::writer_schema(registry, missing.id, missing.language).await?.text() {
            stages.add_schema(missing, &schema);
        }
    }
    stages.decode(transformed)
}

/// A value that is given as JSON, as the pipeline reads it.
async fn written_as(
    value: &Value,
    writing: Option<&(WriteFormat, SchemaRef)>,
) -> Result<Option<Vec<u8>>, Error> {
    let Some((format, all)) = writing else { return Ok(Some(value.to_string().into_bytes())) };
    let Some(given) = value.as_object() else {
        return Err(Error::config(format!("{value} is no object; `value_base64` takes any bytes")));
    };
    let mut fields = Vec::new();
    for name in given.keys() {
        let field = all.fields().find(name).ok_or_else(|| {
            let names: Vec<&str> = all.fields().iter().map(|field| field.name().as_str()).collect();
            Error::config(format!("the schema has no field `{name}`; it has {}", names.join(", ")))
        })?;
        fields.push(field.1.clone());
    }
    let given = match fields.is_empty() {
        true => None,
        false => {
            let columns = Arc::new(Schema::new(fields));
            let decoder = JsonDecoder::new(columns, JsonOptions::default());
            let mut decoder = decoder.map_err(|e| Error::config(format!("{e}; or use `value_base64`")))?;
            let text = value.to_string();
            let decoded = decoder.decode([(0, Some(text.as_bytes()))]).map_err(Error::decode)?;
            if let Some(bad) = decoded.undecodable.first() {
                return Err(Error::config(bad.reason.clone()));
            }
            Some(decoded.batch)
        }
    };
    // What is not said is null where it may be.
    let row = all.fields().iter().filter_map(|field| {
        let column = given.as_ref().and_then(|given| given.column_by_name(field.name()).cloned());
        let column = column.or_else(|| field.is_nullable().then(|| new_null_array(field.data_type(), 1)));
        Some((field.clone(), column?))
    });
    let (fields, row): (Vec<FieldRef>, Vec<ArrayRef>) = row.unzip();
    let columns = Arc::new(Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(columns.clone(), row, &options).map_err(Error::arrow)?;
    let mut encoder = ValueEncoder::open(format.clone(), &columns).await?;
    Ok(encoder.encode(&row)?.pop())
}

fn batch(topic: &str, records: &[TestRecord], written: Vec<Option<Vec<u8>>>) -> Result<RawBatch, String> {
    let mut builder = RawBatchBuilder::new(topic, 0);
    for (offset, (record, written)) in records.iter().zip(written).enumerate() {
        let value = match (&record.value, &record.value_json, &record.value_base64) {
            (None, None, None) => None,
            (Some(text), None, None) => Some(text.clone().into_bytes()),
            (None, Some(_), None) => written,
            (None, None, Some(text)) => {
                Some(BASE64.decode(text).map_err(|e| format!("record {offset}: `value_base64`: {e}"))?)
            }
            _ => return Err(format!("record {offset}: keep one of `value`, `value_json`, `value_base64`")),
        };
        let timestamp = match &record.timestamp {
            None => NO_TIMESTAMP,
            Some(text) => text
                .parse::<jiff::Timestamp>()
                .map_err(|e| format!("record {offset}: `timestamp`: {e}"))?
                .as_millisecond(),
        };
        let headers = record.headers.iter().map(|(name, value)| Header {
            name: name.as_bytes(),
            value: value.as_deref().map(str::as_bytes),
        });
        builder
            .push(
                offset as i64,
                timestamp,
                record.key.as_deref().map(str::as_bytes),
                value.as_deref(),
                headers,
            )
            .map_err(|e| e.to_string())?;
    }
    Ok(builder.build())
}

fn differences(expect: &Expect, got: &Processed) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    let none = Vec::new();
    let mut outputs: BTreeMap<&str, Vec<Map<String, Value>>> = BTreeMap::new();
    for part in &got.outputs {
        outputs.entry(&part.output).or_default().extend(rows_as_json(&part.rows).map_err(Error::decode)?);
    }
    let mut names: Vec<&str> =
        expect.rows.keys().map(String::as_str).chain(outputs.keys().copied()).collect();
    // `main` first, as people think of it.
    names.sort_by_key(|name| (*name != MAIN_OUTPUT, *name));
    names.dedup();
    for name in names {
        let expected = expect.rows.get(name).unwrap_or(&none);
        let got = outputs.get(name).unwrap_or(&none);
        for i in 0..expected.len().max(got.len()) {
            match (expected.get(i), got.get(i)) {
                (Some(expected), Some(got)) => row_differences(name, i, expected, got, &mut out),
                (Some(expected), None) => {
                    out.push(format!("{name}: row {i} is missing: {}", Value::Object(expected.clone())));
                }
                (None, Some(got)) => {
                    let shown: Map<_, _> = got
                        .iter()
                        .filter(|(k, _)| !is_beside(k))
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect();
                    out.push(format!("{name}: row {i} was not expected: {}", Value::Object(shown)));
                }
                (None, None) => {}
            }
        }
    }
    for i in 0..expect.dead_letters.len().max(got.rejects.len()) {
        match (expect.dead_letters.get(i), got.rejects.get(i)) {
            (Some(e), Some(g)) => {
                if (e.offset, &e.code) != (g.offset, &g.code) {
                    out.push(format!(
                        "dead letter {i}: expected record {} with {}, got record {} with {} ({})",
                        e.offset, e.code, g.offset, g.code, g.message
                    ));
                } else if let Some(text) = &e.message
                    && !g.message.contains(text.as_str())
                {
                    out.push(format!(
                        "dead letter {i}: expected a message with `{text}`, got `{}`",
                        g.message
                    ));
                }
            }
            (Some(e), None) => {
                out.push(format!("dead letter {i} is missing: record {} with {}", e.offset, e.code))
            }
            (None, Some(g)) => out.push(format!(
                "dead letter {i} was not expected: record {} with {} ({})",
                g.offset, g.code, g.message
            )),
            (None, None) => {}
        }
    }
    if expect.dropped != got.dropped {
        out.push(format!("dropped: expected {}, got {}", expect.dropped, got.dropped));
    }
    Ok(out)
}

/// Whether a column has to be named to be compared.
fn is_beside(column: &str) -> bool {
    column.starts_with("_kafka_") || column == CHANGE_SEQUENCE_NUMBER
}

/// A number is the same however it is written: `-1` and `-1.0`.
fn is_same(want: &Value, have: &Value) -> bool {
    match (want, have) {
        (Value::Number(want), Value::Number(have)) if want.is_f64() || have.is_f64() => {
            want.as_f64() == have.as_f64()
        }
        (Value::Array(want), Value::Array(have)) => {
            want.len() == have.len() && want.iter().zip(have).all(|(want, have)| is_same(want, have))
        }
        (Value::Object(want), Value::Object(have)) => {
            want.len() == have.len()
                && want.iter().all(|(name, want)| have.get(name).is_some_and(|have| is_same(want, have)))
        }
        _ => want == have,
    }
}

fn row_differences(
    output: &str,
    row: usize,
    expected: &Map<String, Value>,
    got: &Map<String, Value>,
    out: &mut Vec<String>,
) {
    for (column, want) in expected {
        // A null and a missing column mean the same in a row of JSON.
        let have = got.get(column).unwrap_or(&Value::Null);
        if !is_same(want, have) {
            out.push(format!("{output}: row {row}: {column}: expected {want}, got {have}"));
        }
    }
    for (column, have) in got {
        if !expected.contains_key(column) && !have.is_null() && !is_beside(column) {
            out.push(format!("{output}: row {row}: {column}: not expected, got {have}"));
        }
    }
}
