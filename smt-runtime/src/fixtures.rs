//! Tests of a transform as files: records in, and what is to become of them.
//!
//! Every `*.json` file of a folder is a fixture:
//!
//! ```json
//! {
//!   "description": "large orders go to an output of their own",
//!   "config": {"high_value_cents": 100000},
//!   "input": [
//!     {"value": {"json": {"order_id": "o-1", "amount_cents": 100000}}, "key": "o-1"},
//!     {"value": "{\"order_id\":", "timestamp": 1700000000000},
//!     {"value": null, "headers": [{"name": "source", "value": "shop"}]}
//!   ],
//!   "expected": {
//!     "records": [{"row": 0, "output": "high_value"}],
//!     "rejects": [{"row": 1, "code": "MALFORMED_JSON"}],
//!     "dropped": [2]
//!   }
//! }
//! ```
//!
//! Keys, values and header values are a text, `null`, `{"base64": ".."}` for other bytes, or `{"json": ..}`,
//! which is compared as JSON. What an expected record leaves out is as in its input row (for an extra record,
//! `"sub": 1` and above: null, no headers, no timestamp); its output is `main`; a reject's message is compared
//! where it is given. Offsets count from 0 unless given.
//!
//! For a transform of columns a fixture has `fields`, typed as in a pipeline file, and `rows` of them:
//!
//! ```json
//! {
//!   "config": {"high_value_cents": 100000},
//!   "fields": {"amount_cents": "int64 not null", "customer": {"email": "string"}},
//!   "rows": [{"amount_cents": 100000, "customer": {"email": "ada@example.org"}}, {"amount_cents": -1}],
//!   "expected": {
//!     "rows": [{"row": 0, "output": "high_value", "columns": {"amount_cents": 100000, "customer": {"email": "***"}}}],
//!     "rejects": [{"row": 1, "code": "NEGATIVE_AMOUNT"}]
//!   }
//! }
//! ```
//!
//! `columns` are all of the row that came out, those that are null left out; without it they are not compared.
//!
//! `expected.metrics` is compared where it is given: `{"counters": {"test_orders": 1}, "observed": {"bytes": 2}}`, which are
//! sums of counters and numbers of observations over the whole fixture.
//!
//! A fixture runs as one batch, then cut into random batches, then with a fresh instance for each of them.
//! Where these differ the transform remembers something between batches, which fails the fixture.

mod columns;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gristmill_records::{Header, NO_TIMESTAMP, RawBatch, RawBatchBuilder};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::{Applied, Error, Instance, Kind, Metrics, Stream, Transform};

/// How fixtures are run.
#[derive(Debug, Clone)]
pub struct FixtureOptions {
    update: bool,
    seed: u64,
    splits: u32,
}

impl Default for FixtureOptions {
    /// Compare, with 20 random cuts into batches.
    fn default() -> Self {
        FixtureOptions { update: false, seed: 1, splits: 20 }
    }
}

impl FixtureOptions {
    /// Writes what came out as what is expected, instead of comparing. Look at the difference before you
    /// commit it.
    #[must_use]
    pub fn with_update(mut self, update: bool) -> Self {
        self.update = update;
        self
    }

    /// Where the random cuts begin; the same seed gives the same cuts.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How often the input is cut into random batches.
    #[must_use]
    pub fn with_splits(mut self, splits: u32) -> Self {
        self.splits = splits;
        self
    }
}

/// What became of a fixture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixtureResult {
    /// The file.
    pub path: PathBuf,
    /// What happened.
    pub outcome: FixtureOutcome,
}

/// What happened to a fixture.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FixtureOutcome {
    /// All as expected.
    Passed,
    /// Not as expected: what differs, to be shown as it is.
    Failed(String),
    /// The file was written anew. These rows failed in the runtime, which is then what is expected: row, code, message.
    Updated(Vec<String>),
}

impl FixtureResult {
    /// Whether it did not fail, and was not written anew to expect what failed in the runtime.
    pub fn is_ok(&self) -> bool {
        match &self.outcome {
            FixtureOutcome::Passed => true,
            FixtureOutcome::Updated(faults) => faults.is_empty(),
            FixtureOutcome::Failed(_) => false,
        }
    }
}

impl fmt::Display for FixtureResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.outcome {
            FixtureOutcome::Passed => write!(f, "ok       {path}"),
            FixtureOutcome::Updated(faults) => {
                write!(f, "updated  {path}")?;
                faults.iter().try_for_each(|fault| {
                    write!(
                        f,
                        "\n  it expects a fault of the transform now: {fault}; mend it, then --update again"
                    )
                })
            }
            FixtureOutcome::Failed(why) => write!(f, "FAILED   {path}\n{why}"),
        }
    }
}

/// Runs every fixture of the folder, in the order of their names.
///
/// # Errors
/// Kind `Load` where the folder cannot be read or holds no fixture. A file that is no fixture fails alone.
pub fn run_fixtures(
    transform: &Transform,
    folder: impl AsRef<Path>,
    options: &FixtureOptions,
) -> Result<Vec<FixtureResult>, Error> {
    let folder = folder.as_ref();
    let at = |e: std::io::Error| Error::load(format!("{}: {e}", folder.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Error::load(format!("{}: there is no fixture (*.json) in it", folder.display())));
    }
    paths.sort();
    let run = |path: PathBuf| {
        let outcome = run_file(transform, &path, options).unwrap_or_else(FixtureOutcome::Failed);
        FixtureResult { path, outcome }
    };
    Ok(paths.into_iter().map(run).collect())
}

fn run_file(transform: &Transform, path: &Path, options: &FixtureOptions) -> Result<FixtureOutcome, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("  {e}"))?;
    if transform.kind() == Kind::Columns {
        return columns::run_file(transform, path, &text, options);
    }
    let fixture: Fixture =
        serde_json::from_str(&text).map_err(|e| format!("  this is not a fixture: {e}"))?;
    let stream = Stream { topic: fixture.topic.clone(), partition: fixture.partition };
    let config = fixture.config.clone().unwrap_or_else(|| json!({}));
    let mut instance = transform.instantiate(&stream, &config).map_err(|e| format!("  {e}"))?;
    let whole = fixture.run(&mut instance, &[fixture.input.len()], false)?;
    let mut random = options.seed;
    for _ in 0..options.splits {
        let sizes = cut(fixture.input.len(), &mut random);
        for fresh in [false, true] {
            let parts = fixture.run(&mut instance, &sizes, fresh)?;
            if let Some(diff) = diff(&whole.lines(&fixture, None), &parts.lines(&fixture, None)) {
                let how = if fresh { ", each on a fresh instance" } else { "" };
                return Err(format!(
                    "  the answer depends on how records are cut into batches: - as one batch, + in batches of \
                     {sizes:?}{how} (seed {})\n{diff}",
                    options.seed
                ));
            }
        }
    }
    if options.update {
        write_expected(path, &text, &whole.expected(&fixture))?;
        return Ok(FixtureOutcome::Updated(faults(&whole.rejects)));
    }
    let Some(expected) = &fixture.expected else {
        return Err(NOTHING_EXPECTED.into());
    };
    let wanted = expected.outcome(&fixture)?;
    match diff(&wanted.lines(&fixture, Some(expected)), &whole.lines(&fixture, Some(expected))) {
        Some(diff) => Err(format!("  - expected, + came out\n{diff}")),
        None => Ok(FixtureOutcome::Passed),
    }
}

/// Writes a fixture with what came out. The rest stays as its author wrote it: a number may have more digits than a float.
fn write_expected(path: &Path, text: &str, expected: &Value) -> Result<(), String> {
    let failed = |e: &dyn std::fmt::Display| format!("  {e}");
    let order: Map<String, Value> = serde_json::from_str(text).map_err(|e| failed(&e))?;
    let written: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(|e| failed(&e))?;
    let expected = serde_json::to_string_pretty(expected).map_err(|e| failed(&e))?.replace('\n', "\n  ");
    let mut members: Vec<(&str, &str)> = order
        .keys()
        .filter(|name| *name != EXPECTED)
        .filter_map(|name| Some((name.as_str(), written.get(name)?.get())))
        .collect();
    // Where it was, or behind all others.
    let at = order.keys().position(|name| name == EXPECTED).unwrap_or(members.len());
    members.insert(at, (EXPECTED, &expected));
    let members: Vec<String> =
        members.iter().map(|(name, value)| format!("  {}: {value}", json!(name))).collect();
    std::fs::write(path, format!("{{\n{}\n}}\n", members.join(",\n"))).map_err(|e| failed(&e))
}

const EXPECTED: &str = "expected";

/// Those that the runtime gives, and the SDKs of scripts for what a function throws.
const RUNTIME_CODES: &str = "TRANSFORM_";
const NOTHING_EXPECTED: &str =
    "  there is no `expected`: `gristmill transform test --update` writes what comes out";

/// Rejects that no function asked for, in words.
fn faults(rejects: &[(usize, String, Option<String>)]) -> Vec<String> {
    let by_runtime = rejects.iter().filter(|(_, code, _)| code.starts_with(RUNTIME_CODES));
    let said = |(row, code, message): &(usize, String, Option<String>)| {
        format!("row {row}: {code}: {}", message.as_deref().unwrap_or_default())
    };
    by_runtime.map(said).collect()
}

/// Random sizes of batches that add up to `rows`.
fn cut(mut rows: usize, random: &mut u64) -> Vec<usize> {
    let mut sizes = Vec::new();
    while rows > 0 {
        // SplitMix64.
        *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let size = 1 + ((z ^ (z >> 31)) % rows as u64) as usize;
        sizes.push(size);
        rows -= size;
    }
    sizes
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    #[serde(rename = "description", default)]
    _description: String,
    config: Option<Value>,
    #[serde(default = "topic")]
    topic: String,
    #[serde(default)]
    partition: u32,
    input: Vec<Input>,
    expected: Option<Expected>,
}

fn topic() -> String {
    "fixture".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    offset: Option<i64>,
    timestamp: Option<i64>,
    #[serde(default)]
    key: Cell,
    #[serde(default)]
    value: Cell,
    #[serde(default)]
    headers: Vec<NamedCell>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct NamedCell {
    name: String,
    #[serde(default)]
    value: Cell,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    records: Vec<ExpectedRecord>,
    #[serde(default)]
    rejects: Vec<ExpectedReject>,
    #[serde(default)]
    dropped: Vec<usize>,
    metrics: Option<Counted>,
}

/// What a transform counted, and how often it observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Counted {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    counters: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    observed: BTreeMap<String, u64>,
}

impl Counted {
    fn add(&mut self, metrics: &Metrics) {
        for (name, by) in &metrics.counters {
            *self.counters.entry(name.clone()).or_default() += by;
        }
        for (name, histogram) in &metrics.histograms {
            *self.observed.entry(name.clone()).or_default() += histogram.count;
        }
    }

    /// After all rows.
    fn lines(&self) -> impl Iterator<Item = ((usize, u32), String)> {
        let counters = self.counters.iter().map(|(name, n)| format!("counter {name} {n}"));
        let observed = self.observed.iter().map(|(name, n)| format!("observed {name} {n} times"));
        counters.chain(observed).map(|line| ((usize::MAX, 0), line))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedRecord {
    row: usize,
    #[serde(default)]
    sub: u32,
    output: Option<String>,
    #[serde(default, deserialize_with = "given")]
    key: Option<Cell>,
    #[serde(default, deserialize_with = "given")]
    value: Option<Cell>,
    headers: Option<Vec<NamedCell>>,
    #[serde(default, deserialize_with = "given")]
    timestamp: Option<Option<i64>>,
}

/// Tells `null` from what is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedReject {
    row: usize,
    code: String,
    message: Option<String>,
}

/// A key or a value as it is written in a fixture.
#[derive(Clone, Default)]
enum Cell {
    #[default]
    Null,
    Bytes(Vec<u8>),
    Json(Value),
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wrong = "expected a text, null, {\"base64\": \"..\"} or {\"json\": ..}";
        match Value::deserialize(from)? {
            Value::Null => Ok(Cell::Null),
            Value::String(text) => Ok(Cell::Bytes(text.into_bytes())),
            Value::Object(mut fields) if fields.len() == 1 => {
                match (fields.remove("json"), fields.remove("base64")) {
                    (Some(json), _) => Ok(Cell::Json(json)),
                    (_, Some(Value::String(text))) => {
                        STANDARD.decode(text).map(Cell::Bytes).map_err(D::Error::custom)
                    }
                    _ => Err(D::Error::custom(wrong)),
                }
            }
            _ => Err(D::Error::custom(wrong)),
        }
    }
}

impl Cell {
    fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Cell::Null => None,
            Cell::Bytes(bytes) => Some(bytes.clone()),
            Cell::Json(value) => Some(value.to_string().into_bytes()),
        }
    }

    /// As it is written by an update: objects and lists as JSON, since that is what one wants to read.
    fn written(bytes: Option<&[u8]>) -> Value {
        let Some(bytes) = bytes else { return Value::Null };
        match serde_json::from_slice(bytes) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => json!({"json": value}),
            _ => Cell::exact(Some(bytes)),
        }
    }

    /// The same of what is compared byte by byte, as keys are, which decide on partitions.
    fn exact(bytes: Option<&[u8]>) -> Value {
        let Some(bytes) = bytes else { return Value::Null };
        match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({"base64": STANDARD.encode(bytes)}),
        }
    }
}

/// What a batch became, in owned parts.
#[derive(Default)]
struct Seen {
    records: Vec<SeenRecord>,
    rejects: Vec<(usize, String, Option<String>)>,
    dropped: Vec<usize>,
    counted: Counted,
}

struct SeenRecord {
    row: usize,
    sub: u32,
    output: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    timestamp: Option<i64>,
    /// Compared as JSON.
    is_json: bool,
}

impl Fixture {
    fn batch(&self, rows: std::ops::Range<usize>) -> Result<RawBatch, String> {
        let mut builder = RawBatchBuilder::new(self.topic.as_str(), self.partition as i32);
        let mut offset = -1;
        for (row, input) in self.input.iter().enumerate() {
            offset = match input.offset {
                Some(offset) => offset,
                None => i64::checked_add(offset, 1)
                    .ok_or("  an offset is the largest there is, and a row follows it")?,
            };
            if !rows.contains(&row) {
                continue;
            }
            let headers: Vec<_> =
                input.headers.iter().map(|h| (h.name.as_bytes(), h.value.bytes())).collect();
            let headers = headers.iter().map(|(name, value)| Header { name, value: value.as_deref() });
            let (key, value) = (input.key.bytes(), input.value.bytes());
            builder
                .push(
                    offset,
                    input.timestamp.unwrap_or(NO_TIMESTAMP),
                    key.as_deref(),
                    value.as_deref(),
                    headers,
                )
                .map_err(|e| format!("  input row {row}: {e}"))?;
        }
        Ok(builder.build())
    }

    fn run(&self, instance: &mut Instance, sizes: &[usize], fresh: bool) -> Result<Seen, String> {
        instance.reset();
        let mut seen = Seen::default();
        let mut start = 0;
        for size in sizes {
            if fresh {
                instance.reset();
            }
            let batch = self.batch(start..start + size)?;
            let applied = instance.apply(&batch).map_err(|e| format!("  {e}"))?;
            seen.add(&applied, start, instance.transform());
            start += size;
        }
        Ok(seen)
    }

    fn input_record(&self, row: usize) -> SeenRecord {
        let input = &self.input[row];
        SeenRecord {
            row,
            sub: 0,
            output: "main".into(),
            key: input.key.bytes(),
            value: input.value.bytes(),
            headers: own_headers(&input.headers),
            timestamp: input.timestamp,
            is_json: false,
        }
    }

    /// What a record is where nothing is said of it.
    fn unchanged(&self, row: usize, sub: u32) -> SeenRecord {
        if sub == 0 {
            return self.input_record(row);
        }
        SeenRecord {
            sub,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
            ..self.input_record(row)
        }
    }
}

fn own_headers(headers: &[NamedCell]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    headers.iter().map(|h| (h.name.clone().into_bytes(), h.value.bytes())).collect()
}

impl Expected {
    fn outcome(&self, fixture: &Fixture) -> Result<Seen, String> {
        let rows = fixture.input.len();
        let all = self.records.iter().map(|r| r.row).chain(self.rejects.iter().map(|r| r.row));
        if let Some(row) = all.chain(self.dropped.iter().copied()).find(|row| *row >= rows) {
            return Err(format!("  expected: there is no row {row}, the input has {rows}"));
        }
        let mut seen = Seen::default();
        for e in &self.records {
            let mut record = fixture.unchanged(e.row, e.sub);
            if let Some(output) = &e.output {
                record.output.clone_from(output);
            }
            if let Some(key) = &e.key {
                record.key = key.bytes();
            }
            if let Some(value) = &e.value {
                record.value = value.bytes();
                record.is_json = matches!(value, Cell::Json(_));
            }
            if let Some(headers) = &e.headers {
                record.headers = own_headers(headers);
            }
            if let Some(timestamp) = e.timestamp {
                record.timestamp = timestamp;
            }
            seen.records.push(record);
        }
        seen.rejects = self.rejects.iter().map(|r| (r.row, r.code.clone(), r.message.clone())).collect();
        seen.dropped.clone_from(&self.dropped);
        seen.counted = self.metrics.clone().unwrap_or_default();
        Ok(seen)
    }
}

impl Seen {
    fn add(&mut self, applied: &Applied, first: usize, transform: &Transform) {
        let mut gone = vec![true; applied.rows()];
        for r in applied.records() {
            if r.sub == 0 {
                gone[r.row] = false;
            }
            self.records.push(SeenRecord {
                row: first + r.row,
                sub: r.sub,
                output: transform.manifest().output_name(r.output).unwrap_or_default().to_owned(),
                key: r.key.map(<[u8]>::to_vec),
                value: r.value.map(<[u8]>::to_vec),
                headers: r.headers.map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect(),
                timestamp: r.timestamp,
                is_json: false,
            });
        }
        for reject in applied.rejects() {
            gone[reject.row] = false;
            self.rejects.push((first + reject.row, reject.code.clone(), Some(reject.message.clone())));
        }
        self.counted.add(applied.metrics());
        self.dropped.extend(gone.iter().enumerate().filter(|(_, gone)| **gone).map(|(row, _)| first + row));
    }

    /// One line for each record, reject and drop, in order of row and sub. What `like` compares loosely is
    /// written loosely.
    fn lines(&self, fixture: &Fixture, like: Option<&Expected>) -> Vec<((usize, u32), String)> {
        let mut lines = Vec::new();
        for r in &self.records {
            let plain = fixture.unchanged(r.row, r.sub);
            let wanted = like.and_then(|l| l.records.iter().find(|e| (e.row, e.sub) == (r.row, r.sub)));
            let loose = r.is_json || wanted.is_some_and(|e| matches!(e.value, Some(Cell::Json(_))));
            let mut line = format!("row {}{} -> {}", r.row, sub(r.sub), r.output);
            line += &format!(" value {}", text(r.value.as_deref(), loose));
            if r.key != plain.key {
                line += &format!(" key {}", text(r.key.as_deref(), false));
            }
            if r.headers != plain.headers {
                let headers = r
                    .headers
                    .iter()
                    .map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), text(v.as_deref(), false)));
                line += &format!(" headers [{}]", headers.collect::<Vec<_>>().join(", "));
            }
            if r.timestamp != plain.timestamp {
                line += &r.timestamp.map_or(" no timestamp".into(), |t| format!(" timestamp {t}"));
            }
            lines.push(((r.row, r.sub), line));
        }
        for (row, code, message) in &self.rejects {
            let wanted = like.and_then(|l| l.rejects.iter().find(|e| e.row == *row));
            let message = message.as_ref().filter(|_| wanted.is_none_or(|e| e.message.is_some()));
            let message = message.map_or(String::new(), |m| format!(": {m}"));
            lines.push(((*row, 0), format!("row {row} rejected {code}{message}")));
        }
        for row in &self.dropped {
            lines.push(((*row, 0), format!("row {row} dropped")));
        }
        if like.is_some_and(|like| like.metrics.is_some()) {
            lines.extend(self.counted.lines());
        }
        lines.sort();
        lines
    }

    /// For a file: what is as in the input is left out.
    fn expected(&self, fixture: &Fixture) -> Value {
        let record = |r: &SeenRecord| {
            let plain = fixture.unchanged(r.row, r.sub);
            let mut out = Map::new();
            out.insert("row".into(), r.row.into());
            if r.sub > 0 {
                out.insert("sub".into(), r.sub.into());
            }
            if r.output != "main" {
                out.insert("output".into(), r.output.clone().into());
            }
            if r.key != plain.key {
                out.insert("key".into(), Cell::exact(r.key.as_deref()));
            }
            if r.value != plain.value {
                out.insert("value".into(), Cell::written(r.value.as_deref()));
            }
            if r.headers != plain.headers {
                let headers = r.headers.iter().map(
                    |(n, v)| json!({"name": String::from_utf8_lossy(n), "value": Cell::exact(v.as_deref())}),
                );
                out.insert("headers".into(), headers.collect());
            }
            if r.timestamp != plain.timestamp {
                out.insert("timestamp".into(), r.timestamp.into());
            }
            Value::Object(out)
        };
        let reject = |(row, code, message): &(usize, String, Option<String>)| json!({"row": row, "code": code, "message": message});
        let mut expected = json!({
            "records": self.records.iter().map(record).collect::<Vec<_>>(),
            "rejects": self.rejects.iter().map(reject).collect::<Vec<_>>(),
            "dropped": self.dropped,
        });
        if self.counted != Counted::default() {
            expected["metrics"] = json!(self.counted);
        }
        expected
    }
}

fn sub(sub: u32) -> String {
    if sub == 0 { String::new() } else { format!(" extra {sub}") }
}

/// Bytes for people; JSON with sorted names where it is compared as JSON.
fn text(bytes: Option<&[u8]>, as_json: bool) -> String {
    let Some(bytes) = bytes else { return "null".into() };
    if as_json && let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        return sorted(value).to_string();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("base64 {}", STANDARD.encode(bytes)),
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            fields.into_iter().map(|(n, v)| (n, sorted(v))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// The lines that are on one side only; none where there are none.
fn diff(wanted: &[((usize, u32), String)], got: &[((usize, u32), String)]) -> Option<String> {
    let mut lines: Vec<_> = wanted.iter().filter(|l| !got.contains(l)).map(|l| (l.0, '-', &l.1)).collect();
    lines.extend(got.iter().filter(|l| !wanted.contains(l)).map(|l| (l.0, '+', &l.1)));
    if lines.is_empty() {
        // The same lines, but not the same number of each.
        return (wanted.len() != got.len()).then(|| "  a line is there twice".to_owned());
    }
    lines.sort();
    Some(lines.iter().map(|(_, sign, line)| format!("  {sign} {line}")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_writes_what_is_expected_and_leaves_the_rest_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let text = r#"{"rows": [{"price": 12345678901234567890.12}], "expected": {"old": 1}, "config": {"b": 1, "a": 2.50}}"#;
        write_expected(&path, text, &json!({"rows": [1]})).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        let expected = "{\n  \"rows\": [{\"price\": 12345678901234567890.12}],\n  \"expected\": {\n    \"rows\": [\n      1\n    ]\n  },\n  \
                        \"config\": {\"b\": 1, \"a\": 2.50}\n}\n";
        assert_eq!(written, expected);
    }
}
