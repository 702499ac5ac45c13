//! What becomes of each row, of either kind of transform, in a form to be shown and compared.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_schema::SchemaRef;
use gristmill_codec::rows_as_json;
use gristmill_records::Headers;
use gristmill_smt::{
    ColumnInstance, Histogram, Instance, LogLine, Metrics, Reject, Stats, Stream, Transform,
};
use serde_json::{Map, Value, json};

use super::input::{Chunk, Columns, Input};
use crate::exit::Exit;

/// What became of a row.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It goes on, in one or more rows.
    Rows(Vec<Row>),
    Dropped,
    Rejected {
        code: String,
        message: String,
    },
    /// It never reached the transform.
    Undecodable {
        code: String,
        message: String,
    },
}

/// A row that goes on.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// 0 for the row itself, 1 and above for what was emitted for it.
    pub(crate) sub: u32,
    pub(crate) output: String,
    /// The columns as they are shown; of a record `key`, `value`, `headers` and `timestamp`.
    pub(crate) fields: Map<String, Value>,
    /// As they are: what is shown alike may differ.
    parts: Parts,
}

#[derive(Debug, Clone)]
enum Parts {
    Record {
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Vec<u8>,
        timestamp: Option<i64>,
    },
    /// Of one row.
    Columns(RecordBatch),
}

impl Row {
    /// Headers as they are encoded.
    pub(crate) fn of_record(
        sub: u32,
        output: String,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[u8],
        timestamp: Option<i64>,
    ) -> Row {
        let mut fields = Map::new();
        if key.is_some() {
            fields.insert("key".into(), bytes(key));
        }
        fields.insert("value".into(), bytes(value));
        let shown: Vec<Value> = (Headers::from_encoded(headers).into_iter())
            .map(|header| json!([String::from_utf8_lossy(header.name), bytes(header.value)]))
            .collect();
        if !shown.is_empty() {
            fields.insert("headers".into(), shown.into());
        }
        if let Some(timestamp) = timestamp {
            fields.insert("timestamp".into(), timestamp.into());
        }
        let [key, value] = [key, value].map(|part| part.map(<[u8]>::to_vec));
        Row { sub, output, fields, parts: Parts::Record { key, value, headers: headers.to_vec(), timestamp } }
    }

    /// Of a batch of one row.
    #[cfg(test)]
    pub(crate) fn of_columns(sub: u32, output: String, batch: &RecordBatch) -> Result<Row, Exit> {
        let fields = objects(batch)?.remove(0);
        Ok(Row { sub, output, fields, parts: Parts::Columns(batch.clone()) })
    }

    /// The names of the parts that differ. Columns of which the types differ are compared as they are shown.
    pub(crate) fn differing(&self, other: &Row) -> Vec<String> {
        match (&self.parts, &other.parts) {
            (
                Parts::Record { key, value, headers, timestamp },
                Parts::Record {
                    key: other_key,
                    value: other_value,
                    headers: other_headers,
                    timestamp: other_timestamp,
                },
            ) => {
                let same = [
                    ("key", key == other_key),
                    ("value", value == other_value),
                    ("headers", headers == other_headers),
                    ("timestamp", timestamp == other_timestamp),
                ];
                same.iter().filter(|(_, same)| !same).map(|(name, _)| (*name).to_owned()).collect()
            }
            (Parts::Columns(columns), Parts::Columns(others)) => {
                let names = columns
                    .schema_ref()
                    .fields()
                    .iter()
                    .chain(others.schema_ref().fields())
                    .map(|f| f.name());
                let mut differing: Vec<String> = Vec::new();
                for name in names {
                    let same = match (columns.column_by_name(name), others.column_by_name(name)) {
                        (Some(one), Some(other)) if one.data_type() == other.data_type() => one == other,
                        _ => self.fields.get(name) == other.fields.get(name),
                    };
                    if !same && !differing.contains(name) {
                        differing.push(name.clone());
                    }
                }
                differing
            }
            _ => vec!["kind".into()],
        }
    }
}

/// What became of rows, counted.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Counts {
    rows: u64,
    kept: u64,
    emitted: u64,
    dropped: u64,
    /// By code.
    rejected: BTreeMap<String, u64>,
    /// By code.
    not_decoded: BTreeMap<String, u64>,
}

impl Counts {
    pub(crate) fn add(&mut self, fate: &Fate) {
        self.rows += 1;
        match fate {
            Fate::Rows(rows) => {
                let own = rows.iter().filter(|row| row.sub == 0).count() as u64;
                self.kept += own;
                self.dropped += u64::from(own == 0);
                self.emitted += rows.len() as u64 - own;
            }
            Fate::Dropped => self.dropped += 1,
            Fate::Rejected { code, .. } => *self.rejected.entry(code.clone()).or_default() += 1,
            Fate::Undecodable { code, .. } => *self.not_decoded.entry(code.clone()).or_default() += 1,
        }
    }
}

impl Counts {
    /// That a pipeline would stop, if it would.
    pub(crate) fn warn(&self) {
        let rejected: u64 = self.rejected.values().sum();
        let given = self.rows - self.not_decoded.values().sum::<u64>();
        if given > 0 && rejected as f64 >= given as f64 * BREAKER {
            eprintln!(
                "note: {rejected} of {given} rows are rejected: a pipeline stops at a share of {BREAKER}, unless `max_reject_ratio` says otherwise"
            );
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_code = |codes: &BTreeMap<String, u64>| {
            let codes: Vec<String> = codes.iter().map(|(code, count)| format!("{count} {code}")).collect();
            if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) }
        };
        let Counts { rows, kept, emitted, dropped, rejected, not_decoded } = self;
        write!(f, "{rows} in: {kept} kept, {emitted} emitted, {dropped} dropped, ")?;
        write!(f, "{} rejected{}", rejected.values().sum::<u64>(), by_code(rejected))?;
        if !not_decoded.is_empty() {
            write!(f, ", {} not decoded{}", not_decoded.values().sum::<u64>(), by_code(not_decoded))?;
        }
        Ok(())
    }
}

/// The topic that a transform is told of where its rows are of none.
pub(crate) const TOPIC: &str = "run";

/// The share of rejected rows from which on a pipeline's breaker opens, by default.
const BREAKER: f64 = 0.5;

/// What came of a chunk.
pub(crate) struct Outcome {
    /// By row.
    pub(crate) fates: Vec<Fate>,
    pub(crate) stats: Stats,
    pub(crate) said: Said,
}

/// What a transform said besides.
#[derive(Default)]
pub(crate) struct Said {
    /// Log lines, and limits that were reached.
    pub(crate) lines: Vec<String>,
    metrics: Metrics,
}

impl Said {
    fn new(logs: &[LogLine], metrics: &Metrics, warnings: &[gristmill_smt::Error]) -> Self {
        let log =
            |line: &LogLine| format!("{}: {}", format!("{:?}", line.level).to_lowercase(), line.message);
        let lines = logs.iter().map(log).chain(warnings.iter().map(|warning| format!("note: {warning}")));
        Said { lines: lines.collect(), metrics: metrics.clone() }
    }

    /// Takes what was counted and observed; lines are not kept.
    pub(crate) fn add(&mut self, other: &Said) {
        for (name, by) in &other.metrics.counters {
            *self.metrics.counters.entry(name.clone()).or_default() += by;
        }
        for (name, histogram) in &other.metrics.histograms {
            self.metrics.histograms.entry(name.clone()).or_default().merge(histogram);
        }
    }
}

/// A line for each counter and histogram.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.metrics.counters {
            writeln!(f, "counter {name}: {count}")?;
        }
        for (name, Histogram { count, sum, .. }) in &self.metrics.histograms {
            writeln!(f, "histogram {name}: {count} observations, {} on average", sum / *count as f64)?;
        }
        Ok(())
    }
}

/// A transform at work, with an instance for each partition, as a pipeline has them.
pub(crate) struct Running {
    transform: Transform,
    config: Value,
    schema: Option<SchemaRef>,
    instances: BTreeMap<(Arc<str>, i32), Working>,
}

enum Working {
    Records(Box<Instance>),
    Columns(Box<ColumnInstance>),
}

impl Running {
    pub(crate) fn start(transform: &Transform, input: &Input, config: &Value) -> Result<Self, Exit> {
        let mut running = Running {
            transform: transform.clone(),
            config: config.clone(),
            schema: input.schema(),
            instances: BTreeMap::new(),
        };
        // What is wrong with the configuration is told before the first row.
        running.of(&input.topic(), 0)?;
        Ok(running)
    }

    fn of(&mut self, topic: &Arc<str>, partition: i32) -> Result<&mut Working, Exit> {
        let Running { transform, config, schema, instances } = self;
        let entry = match instances.entry((topic.clone(), partition)) {
            Entry::Occupied(there) => return Ok(there.into_mut()),
            Entry::Vacant(entry) => entry,
        };
        let stream = Stream { topic: topic.as_ref().to_owned(), partition: partition.unsigned_abs() };
        let working = match schema {
            None => transform.instantiate(&stream, config).map(|made| Working::Records(Box::new(made))),
            Some(schema) => transform
                .instantiate_columns(&stream, config, schema)
                .map(|made| Working::Columns(Box::new(made))),
        };
        Ok(entry.insert(working.map_err(Exit::mistake)?))
    }

    fn of_chunk(&mut self, chunk: &Chunk) -> Result<&mut Working, Exit> {
        self.of(chunk.raw.topic(), chunk.raw.partition())
    }

    /// One of columns.
    pub(crate) fn columns(&self) -> Option<&ColumnInstance> {
        self.instances.values().find_map(|working| match working {
            Working::Records(_) => None,
            Working::Columns(instance) => Some(&**instance),
        })
    }

    /// The numbers of the fields that it reads.
    pub(crate) fn reads(&self) -> Vec<u32> {
        let reads = self.columns().map(ColumnInstance::reads).unwrap_or_default();
        reads.into_iter().map(|(number, _)| number).collect()
    }

    /// What becomes of each row of the chunk.
    pub(crate) fn apply(&mut self, chunk: &Chunk) -> Result<Outcome, Exit> {
        let mut fates = vec![Fate::Dropped; chunk.raw.len()];
        let transform = self.transform.clone();
        let (stats, said) = match self.of_chunk(chunk)? {
            Working::Records(instance) => {
                let applied = instance.apply(&chunk.raw).map_err(Exit::failed)?;
                for record in applied.records() {
                    let output = output_name(&transform, record.output);
                    let headers = record.headers.as_encoded();
                    let row = Row::of_record(
                        record.sub,
                        output,
                        record.key,
                        record.value,
                        headers,
                        record.timestamp,
                    );
                    add(&mut fates[record.row], row);
                }
                applied.rejects().iter().for_each(|reject| fates[reject.row] = rejected(reject));
                (applied.stats(), Said::new(applied.logs(), applied.metrics(), applied.warnings()))
            }
            Working::Columns(instance) => {
                let none = || Exit::failed("the rows were not decoded");
                let Columns { rows, records, undecodable } = chunk.columns.as_ref().ok_or_else(none)?;
                let offset = |row: &usize| chunk.raw.get(*row).map_or(-1, |record| record.offset());
                let offsets: Vec<i64> = records.iter().map(offset).collect();
                let applied = instance.apply(rows, &offsets).map_err(Exit::failed)?;
                let shown = objects(applied.batch())?.into_iter().zip(applied.rows());
                for (number, (fields, at)) in shown.enumerate() {
                    let parts = Parts::Columns(applied.batch().slice(number, 1));
                    let output = output_name(&transform, at.output);
                    add(&mut fates[records[at.row]], Row { sub: at.sub, output, fields, parts });
                }
                applied.rejects().iter().for_each(|reject| fates[records[reject.row]] = rejected(reject));
                for (row, code, message) in undecodable {
                    fates[*row] = Fate::Undecodable { code: code.clone(), message: message.clone() };
                }
                (applied.stats(), Said::new(applied.logs(), applied.metrics(), applied.warnings()))
            }
        };
        Ok(Outcome { fates, stats, said })
    }

    /// Gives it the chunk and looks at nothing but the cost.
    pub(crate) fn time(&mut self, chunk: &Chunk) -> Result<Stats, Exit> {
        match self.of_chunk(chunk)? {
            Working::Records(instance) => {
                let applied = instance.apply(&chunk.raw).map_err(Exit::failed)?;
                // They are put together as they are asked for.
                applied.records().for_each(|record| {
                    std::hint::black_box(&record);
                });
                Ok(applied.stats())
            }
            Working::Columns(instance) => {
                let Some(Columns { rows, records, .. }) = &chunk.columns else {
                    return Err(Exit::failed("the rows were not decoded"));
                };
                let offsets = vec![-1; records.len()];
                instance.apply(rows, &offsets).map(|applied| applied.stats()).map_err(Exit::failed)
            }
        }
    }

    /// The fuel that the chunk burns.
    pub(crate) fn fuel(&mut self, chunk: &Chunk) -> Result<u64, Exit> {
        match self.of_chunk(chunk)? {
            Working::Records(instance) => instance.fuel(&chunk.raw).map_err(Exit::failed),
            Working::Columns(instance) => {
                let Some(Columns { rows, .. }) = &chunk.columns else {
                    return Err(Exit::failed("the rows were not decoded"));
                };
                instance.fuel(rows).map_err(Exit::failed)
            }
        }
    }
}

fn output_name(transform: &Transform, output: u16) -> String {
    transform.manifest().output_name(output).unwrap_or("?").to_owned()
}

fn add(fate: &mut Fate, row: Row) {
    match fate {
        Fate::Rows(rows) => rows.push(row),
        other => *other = Fate::Rows(vec![row]),
    }
}

fn rejected(reject: &Reject) -> Fate {
    Fate::Rejected { code: reject.code.clone(), message: reject.message.clone() }
}

/// JSON where it is, and otherwise text.
pub(crate) fn bytes(value: Option<&[u8]>) -> Value {
    match value.map(|bytes| (serde_json::from_slice(bytes), bytes)) {
        None => Value::Null,
        Some((Ok(json), _)) => json,
        Some((Err(_), bytes)) => String::from_utf8_lossy(bytes).into(),
    }
}

/// Each row as a JSON object; nulls are left out.
pub(crate) fn objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, Exit> {
    rows_as_json(batch).map_err(Exit::failed)
}
