//! `gristmill transform run`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use arrow_array::RecordBatch;
use gristmill_codec::{JsonDecoder, JsonOptions, SchemaSpec};
use gristmill_records::{NO_TIMESTAMP, RawBatchBuilder};
use gristmill_smt::{Kind, Reject, Stats, Stream, Transform};
use serde_json::{Map, Value, json};

use crate::exit::Exit;

/// Lines that go through at once.
const BATCH: usize = 500;
/// The longest line.
const MAX_LINE: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, or the folder of a crate, which is compiled first.
    what: PathBuf,
    /// The configuration: a JSON object, or the path of a file that holds one.
    #[arg(long, value_name = "JSON|FILE", default_value = "{}")]
    config: String,
    /// Values, one a line; standard input by default.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Of a transform of columns, the fields of the values, which are JSON objects: as `decode.fields` of a pipeline file,
    /// as JSON, or the path of a file that holds it. Such as `{"id": "int64 not null", "customer": {"email": "string"}}`.
    #[arg(long, value_name = "JSON|FILE")]
    fields: Option<String>,
}

#[derive(Default)]
struct Counts {
    rows: usize,
    kept: usize,
    emitted: usize,
    dropped: usize,
    rejected: usize,
    undecodable: usize,
    calls: u64,
    seconds: f64,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let component = match args.what.is_dir() {
        true => super::build_component(&args.what).map_err(Exit::failed)?,
        false => args.what.clone(),
    };
    let transform = super::load(&component)?;
    let config = json_of(&args.config, "--config")?;
    let input: Box<dyn Read> = match &args.input {
        Some(path) => {
            Box::new(fs::File::open(path).map_err(|e| Exit::mistake(format!("{}: {e}", path.display())))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let mut lines = Lines { input: BufReader::new(input), number: 0 };
    let counts = match transform.kind() {
        Kind::Records => {
            if args.fields.is_some() {
                return Err(Exit::mistake(
                    "--fields is for transforms of columns, and this one is of records",
                ));
            }
            records(&transform, &config, &mut lines)?
        }
        Kind::Columns => {
            let Some(fields) = &args.fields else {
                let needs: Vec<String> = transform
                    .manifest()
                    .columns
                    .iter()
                    .map(|need| format!("{} ({})", need.path, need.data_type))
                    .collect();
                return Err(Exit::mistake(format!(
                    "this is a transform of columns: say with --fields what the values hold, such as '{{\"id\": \"int64 not \
                     null\"}}'; it reads {}",
                    needs.join(", ")
                )));
            };
            columns(&transform, &config, &json_of(fields, "--fields")?, &mut lines)?
        }
    };
    let Counts { rows, kept, emitted, dropped, rejected, undecodable, calls, seconds } = counts;
    let mut text =
        format!("{rows} in: {kept} kept, {emitted} emitted, {dropped} dropped, {rejected} rejected");
    if undecodable > 0 {
        text += &format!(", {undecodable} not decoded");
    }
    eprintln!("{text}; {calls} calls, {:.2} ms in the sandbox", seconds * 1e3);
    Ok(())
}

/// JSON that is given as such or lies in a file.
fn json_of(text: &str, option: &str) -> Result<Value, Exit> {
    let (text, place) = match text.trim_start().starts_with('{') {
        true => (text.to_owned(), option.to_owned()),
        false => {
            let read = fs::read_to_string(text);
            (read.map_err(|e| Exit::mistake(format!("{option} {text}: {e}")))?, format!("{option} {text}"))
        }
    };
    serde_json::from_str(&text).map_err(|e| Exit::mistake(format!("{place}: {e}")))
}

struct Lines {
    input: BufReader<Box<dyn Read>>,
    /// Lines so far.
    number: usize,
}

impl Lines {
    /// The next lines; none at the end. Empty ones are left out.
    fn next(&mut self) -> Result<Vec<Vec<u8>>, Exit> {
        let mut lines = Vec::new();
        while lines.len() < BATCH {
            let mut line = Vec::new();
            let failed = |e: std::io::Error| Exit::failed(format!("the input: {e}"));
            let read = (&mut self.input).take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                break;
            }
            if read as u64 == MAX_LINE && line.last() != Some(&b'\n') {
                return Err(Exit::mistake(format!(
                    "line {} has more than {MAX_LINE} bytes",
                    self.number + 1
                )));
            }
            while line.last().is_some_and(|b| b"\r\n".contains(b)) {
                line.pop();
            }
            if !line.is_empty() {
                lines.push(line);
                self.number += 1;
            }
        }
        Ok(lines)
    }
}

fn stream() -> Stream {
    Stream { topic: "run".into(), partition: 0 }
}

fn print(lines: &mut [((usize, u32), Value)]) -> Result<(), Exit> {
    lines.sort_by_key(|(place, _)| *place);
    let mut out = std::io::stdout().lock();
    for (_, line) in lines {
        writeln!(out, "{line}").map_err(|e| Exit::failed(format!("standard output: {e}")))?;
    }
    Ok(())
}

impl Counts {
    fn add(&mut self, stats: Stats) {
        self.calls += stats.calls;
        self.seconds += stats.guest_time.as_secs_f64();
    }
}

fn rejects(rejects: &[Reject], first: usize, lines: &mut Vec<((usize, u32), Value)>) {
    for reject in rejects {
        let row = first + reject.row;
        let line = json!({"row": row, "rejected": reject.code, "message": reject.message});
        lines.push(((row, 0), line));
    }
}

/// The rows that nothing is said of yet were dropped.
fn drops(seen: &[bool], first: usize, lines: &mut Vec<((usize, u32), Value)>) {
    let gone = seen.iter().enumerate().filter(|(_, seen)| !**seen).map(|(row, _)| first + row);
    lines.extend(gone.map(|row| ((row, 0), json!({"row": row, "dropped": true}))));
}

fn place(row: usize, sub: u32, output: &str) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("row".into(), row.into());
    if sub > 0 {
        line.insert("sub".into(), sub.into());
    }
    line.insert("output".into(), output.into());
    line
}

fn bytes(value: Option<&[u8]>) -> Value {
    match value.map(|bytes| (serde_json::from_slice(bytes), bytes)) {
        None => Value::Null,
        Some((Ok(json), _)) => json,
        Some((Err(_), bytes)) => String::from_utf8_lossy(bytes).into(),
    }
}

fn records(transform: &Transform, config: &Value, lines: &mut Lines) -> Result<Counts, Exit> {
    let mut instance = transform.instantiate(&stream(), config).map_err(Exit::mistake)?;
    let mut counts = Counts::default();
    loop {
        let values = lines.next()?;
        if values.is_empty() {
            return Ok(counts);
        }
        let first = lines.number - values.len();
        let mut batch = RawBatchBuilder::new("run", 0);
        for (i, value) in values.iter().enumerate() {
            let pushed = batch.push((first + i) as i64, NO_TIMESTAMP, None, Some(value), []);
            pushed.map_err(|e| Exit::failed(format!("line {}: {e}", first + i + 1)))?;
        }
        let applied = instance.apply(&batch.build()).map_err(Exit::failed)?;
        let mut shown = Vec::new();
        let mut seen = vec![false; values.len()];
        for record in applied.records() {
            seen[record.row] |= record.sub == 0;
            let output = transform.manifest().output_name(record.output).unwrap_or("?");
            let mut line = place(first + record.row, record.sub, output);
            if let Some(key) = record.key {
                line.insert("key".into(), bytes(Some(key)));
            }
            line.insert("value".into(), bytes(record.value));
            shown.push(((first + record.row, record.sub), line.into()));
        }
        applied.rejects().iter().for_each(|r| seen[r.row] = true);
        rejects(applied.rejects(), first, &mut shown);
        drops(&seen, first, &mut shown);
        print(&mut shown)?;
        counts.rows += values.len();
        counts.kept += applied.kept();
        counts.emitted += applied.emitted();
        counts.dropped += applied.dropped();
        counts.rejected += applied.rejects().len();
        counts.add(applied.stats());
    }
}

fn columns(transform: &Transform, config: &Value, fields: &Value, lines: &mut Lines) -> Result<Counts, Exit> {
    let spec: SchemaSpec =
        serde_json::from_value(fields.clone()).map_err(|e| Exit::mistake(format!("--fields: {e}")))?;
    let schema = spec.arrow_schema().map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(|m| format!("--fields: {m}")).collect();
        Exit::mistake(lines.join("\n"))
    })?;
    let mut decoder = JsonDecoder::new(schema.clone(), JsonOptions::default())
        .map_err(|e| Exit::mistake(format!("--fields: {e}")))?;
    let mut instance = transform.instantiate_columns(&stream(), config, &schema).map_err(Exit::mistake)?;
    let mut counts = Counts::default();
    loop {
        let values = lines.next()?;
        if values.is_empty() {
            return Ok(counts);
        }
        let first = lines.number - values.len();
        let of = values.iter().enumerate().map(|(i, value)| ((first + i) as u64, Some(value.as_slice())));
        let decoded = decoder.decode(of).map_err(Exit::failed)?;
        let mut shown = Vec::new();
        for bad in &decoded.undecodable {
            let line = json!({"row": bad.row, "not decoded": bad.cause.as_str(), "message": bad.reason});
            shown.push(((bad.row as usize, 0), line));
        }
        let rows: Vec<usize> = decoded.rows.iter().map(|row| *row as usize).collect();
        let offsets: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let applied = instance.apply(&decoded.batch, &offsets).map_err(Exit::failed)?;
        let mut seen = vec![false; rows.len()];
        for (columns, at) in objects(applied.batch())?.into_iter().zip(applied.rows()) {
            seen[at.row] |= at.sub == 0;
            let output = transform.manifest().output_name(at.output).unwrap_or("?");
            let mut line = place(rows[at.row], at.sub, output);
            line.insert("columns".into(), columns.into());
            shown.push(((rows[at.row], at.sub), line.into()));
        }
        for reject in applied.rejects() {
            seen[reject.row] = true;
            let line = json!({"row": rows[reject.row], "rejected": reject.code, "message": reject.message});
            shown.push(((rows[reject.row], 0), line));
        }
        let gone = seen.iter().zip(&rows).filter(|(seen, _)| !**seen);
        shown.extend(gone.map(|(_, row)| ((*row, 0), json!({"row": row, "dropped": true}))));
        print(&mut shown)?;
        counts.rows += values.len();
        counts.undecodable += decoded.undecodable.len();
        counts.kept += applied.kept();
        counts.emitted += applied.emitted();
        counts.dropped += applied.dropped();
        counts.rejected += applied.rejects().len();
        counts.add(applied.stats());
    }
}

fn objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, Exit> {
    let mut bytes = Vec::new();
    let mut writer = arrow_json::LineDelimitedWriter::new(&mut bytes);
    let shown = writer.write(batch).and_then(|()| writer.finish());
    shown.map_err(|e| Exit::failed(format!("rows cannot be shown as JSON: {e}")))?;
    let rows = serde_json::Deserializer::from_slice(&bytes).into_iter();
    rows.collect::<Result<_, _>>().map_err(Exit::failed)
}
