//! What becomes of each row, of either kind of transform, in a form to be shown and compared.

use std::collections::BTreeMap;
use std::fmt;

use arrow_array::RecordBatch;
use gristmill_smt::{
    ColumnInstance, Histogram, Instance, LogLine, Metrics, Reject, Stats, Stream, Transform,
};
use serde_json::{Map, Value, json};

use super::input::{Chunk, Columns, Input};
use crate::exit::Exit;

/// What became of a row.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// 0 for the row itself, 1 and above for what was emitted for it.
    pub(crate) sub: u32,
    pub(crate) output: String,
    /// The columns; of a record `key`, `value`, `headers` and `timestamp`.
    pub(crate) fields: Map<String, Value>,
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

/// The topic that a transform is told of where it is tried.
pub(crate) const TOPIC: &str = "run";

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

/// A transform at work.
pub(crate) enum Running {
    Records(Transform, Box<Instance>),
    Columns(Transform, Box<ColumnInstance>),
}

impl Running {
    pub(crate) fn start(transform: &Transform, input: &Input, config: &Value) -> Result<Self, Exit> {
        let stream = Stream { topic: TOPIC.into(), partition: 0 };
        let transform = transform.clone();
        match input.schema() {
            None => {
                let instance = transform.instantiate(&stream, config).map_err(Exit::mistake)?;
                Ok(Running::Records(transform, Box::new(instance)))
            }
            Some(schema) => {
                let instance = transform.instantiate_columns(&stream, config, &schema);
                Ok(Running::Columns(transform, Box::new(instance.map_err(Exit::mistake)?)))
            }
        }
    }

    /// The numbers of the fields that it reads.
    pub(crate) fn reads(&self) -> Vec<u32> {
        match self {
            Running::Records(..) => Vec::new(),
            Running::Columns(_, instance) => instance.reads().into_iter().map(|(number, _)| number).collect(),
        }
    }

    /// What becomes of each row of the chunk.
    pub(crate) fn apply(&mut self, chunk: &Chunk) -> Result<Outcome, Exit> {
        let mut fates = vec![Fate::Dropped; chunk.raw.len()];
        let (stats, said) = match self {
            Running::Records(transform, instance) => {
                let applied = instance.apply(&chunk.raw).map_err(Exit::failed)?;
                for record in applied.records() {
                    let mut fields = Map::new();
                    if let Some(key) = record.key {
                        fields.insert("key".into(), bytes(Some(key)));
                    }
                    fields.insert("value".into(), bytes(record.value));
                    let headers: Vec<Value> = (record.headers.into_iter())
                        .map(|header| json!([String::from_utf8_lossy(header.name), bytes(header.value)]))
                        .collect();
                    if !headers.is_empty() {
                        fields.insert("headers".into(), headers.into());
                    }
                    if let Some(timestamp) = record.timestamp {
                        fields.insert("timestamp".into(), timestamp.into());
                    }
                    add(&mut fates[record.row], transform, record.sub, record.output, fields);
                }
                applied.rejects().iter().for_each(|reject| fates[reject.row] = rejected(reject));
                (applied.stats(), Said::new(applied.logs(), applied.metrics(), applied.warnings()))
            }
            Running::Columns(transform, instance) => {
                let none = || Exit::failed("the rows were not decoded");
                let Columns { rows, records, undecodable } = chunk.columns.as_ref().ok_or_else(none)?;
                let offset = |row: &usize| chunk.raw.get(*row).map_or(-1, |record| record.offset());
                let offsets: Vec<i64> = records.iter().map(offset).collect();
                let applied = instance.apply(rows, &offsets).map_err(Exit::failed)?;
                for (fields, at) in objects(applied.batch())?.into_iter().zip(applied.rows()) {
                    add(&mut fates[records[at.row]], transform, at.sub, at.output, fields);
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
        match self {
            Running::Records(_, instance) => {
                instance.apply(&chunk.raw).map(|applied| applied.stats()).map_err(Exit::failed)
            }
            Running::Columns(_, instance) => {
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
        match self {
            Running::Records(_, instance) => instance.fuel(&chunk.raw).map_err(Exit::failed),
            Running::Columns(_, instance) => {
                let Some(Columns { rows, .. }) = &chunk.columns else {
                    return Err(Exit::failed("the rows were not decoded"));
                };
                instance.fuel(rows).map_err(Exit::failed)
            }
        }
    }
}

fn add(fate: &mut Fate, transform: &Transform, sub: u32, output: u16, fields: Map<String, Value>) {
    let output = transform.manifest().output_name(output).unwrap_or("?").to_owned();
    let row = Row { sub, output, fields };
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
    let mut bytes = Vec::new();
    let mut writer = arrow_json::LineDelimitedWriter::new(&mut bytes);
    let shown = writer.write(batch).and_then(|()| writer.finish());
    shown.map_err(|e| Exit::failed(format!("rows cannot be shown as JSON: {e}")))?;
    let rows = serde_json::Deserializer::from_slice(&bytes).into_iter();
    rows.collect::<Result<_, _>>().map_err(Exit::failed)
}
