//! What the commands that try a transform give it: lines, or what is in a pipeline's topics.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;
use gristmill_codec::{JsonDecoder, JsonOptions, SchemaSpec};
use gristmill_pipeline::{Peek, PeekRange};
use gristmill_records::{NO_TIMESTAMP, RawBatch, RawBatchBuilder};
use gristmill_smt::{Kind, Transform};
use serde_json::Value;

use super::outcome::TOPIC;
use crate::exit::Exit;

/// Lines that go through at once.
const BATCH: usize = 500;
/// Bytes at which a batch of lines ends.
const BATCH_BYTES: usize = 8 << 20;
/// The longest line.
const MAX_LINE: u64 = 64 << 20;
/// Records of a topic that are looked at where nobody says how many.
const DEFAULT_LIMIT: u64 = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct InputArgs {
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
    /// Records of the topics of this pipeline file, with its connection, decoding and registry; its transforms and its sink
    /// are not looked at. Nothing is committed, and no group is joined.
    #[arg(long, value_name = "PIPELINE", conflicts_with_all = ["input", "fields"])]
    from_topic: Option<PathBuf>,
    /// Of `--from-topic`: the newest so many offsets, spread evenly over the partitions; 1000 by default. Those that hold no
    /// record count too.
    #[arg(long, value_name = "OFFSETS", requires = "from_topic", conflicts_with = "last")]
    limit: Option<u64>,
    /// Of `--from-topic`: the records of this span up to now, such as `1h`.
    #[arg(long, value_name = "SPAN", requires = "from_topic", value_parser = PeekRange::last)]
    last: Option<PeekRange>,
}

/// Some rows, and what there is to say of them before a transform sees them.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The number of the first row.
    pub(crate) first: usize,
    pub(crate) raw: RawBatch,
    /// For a transform of columns.
    pub(crate) columns: Option<Columns>,
}

/// The rows that decode.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) rows: RecordBatch,
    /// For each, its record in the chunk.
    pub(crate) records: Vec<usize>,
    /// Record, code, and why.
    pub(crate) undecodable: Vec<(usize, String, String)>,
}

pub(crate) struct Input {
    pub(crate) config: Value,
    source: Source,
    topic: Arc<str>,
    /// Rows so far.
    number: usize,
}

enum Source {
    /// `line` lines were read so far, with the empty ones.
    Lines {
        input: BufReader<Box<dyn Read>>,
        line: usize,
        decoder: Option<JsonDecoder>,
    },
    Topic {
        peek: Box<Peek>,
        runtime: tokio::runtime::Runtime,
        decodes: bool,
    },
}

impl InputArgs {
    pub(crate) fn is_from_topic(&self) -> bool {
        self.from_topic.is_some()
    }

    /// Opens what `transform` is given.
    pub(crate) fn open(&self, transform: &Transform) -> Result<Input, Exit> {
        let config = json_of(&self.config, "--config")?;
        let decodes = transform.kind() == Kind::Columns;
        let mut topic = TOPIC.to_owned();
        let source = match &self.from_topic {
            Some(file) => {
                let checked = gristmill_pipeline::check_source(file).map_err(Exit::from)?;
                topic.clone_from(&checked.pipeline.source.kafka.topics[0]);
                let runtime = crate::tokio_runtime()?;
                let range =
                    self.last.clone().unwrap_or(PeekRange::Newest(self.limit.unwrap_or(DEFAULT_LIMIT)));
                let peek = runtime.block_on(Peek::open(&checked, &range)).map_err(Exit::from)?;
                Source::Topic { peek: Box::new(peek), runtime, decodes }
            }
            None => {
                let (decoder, input) = (self.decoder(transform)?, BufReader::new(self.lines()?));
                Source::Lines { input, line: 0, decoder }
            }
        };
        Ok(Input { config, source, topic: topic.into(), number: 0 })
    }

    fn lines(&self) -> Result<Box<dyn Read>, Exit> {
        Ok(match &self.input {
            Some(path) => {
                Box::new(fs::File::open(path).map_err(|e| Exit::mistake(format!("{}: {e}", path.display())))?)
            }
            None => Box::new(std::io::stdin()),
        })
    }

    fn decoder(&self, transform: &Transform) -> Result<Option<JsonDecoder>, Exit> {
        match (transform.kind(), &self.fields) {
            (Kind::Records, None) => Ok(None),
            (Kind::Records, Some(_)) => {
                Err(Exit::mistake("--fields is for transforms of columns, and this one is of records"))
            }
            (Kind::Columns, None) => {
                let needs = transform.manifest().columns.iter();
                let needs: Vec<String> =
                    needs.map(|need| format!("{} ({})", need.path, need.data_type)).collect();
                Err(Exit::mistake(format!(
                    "this is a transform of columns: say with --fields what the values hold, such as '{{\"id\": \"int64 not \
                     null\"}}', or give it --from-topic; it reads {}",
                    needs.join(", ")
                )))
            }
            (Kind::Columns, Some(fields)) => {
                let spec: SchemaSpec = serde_json::from_value(json_of(fields, "--fields")?)
                    .map_err(|e| Exit::mistake(format!("--fields: {e}")))?;
                let schema = spec.arrow_schema().map_err(|mistakes| {
                    let lines: Vec<String> = mistakes.iter().map(|m| format!("--fields: {m}")).collect();
                    Exit::mistake(lines.join("\n"))
                })?;
                let decoder = JsonDecoder::new(schema, JsonOptions::default());
                decoder.map(Some).map_err(|e| Exit::mistake(format!("--fields: {e}")))
            }
        }
    }
}

impl Input {
    /// The columns that a transform of columns gets.
    pub(crate) fn schema(&self) -> Option<arrow_schema::SchemaRef> {
        match &self.source {
            Source::Lines { decoder, .. } => decoder.as_ref().map(JsonDecoder::schema),
            Source::Topic { peek, decodes, .. } => decodes.then(|| peek.schema().clone()),
        }
    }

    /// The topic of the rows, or the first of them.
    pub(crate) fn topic(&self) -> Arc<str> {
        self.topic.clone()
    }

    /// The next rows; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Chunk>, Exit> {
        let first = self.number;
        let chunk = match &mut self.source {
            Source::Lines { input, line, decoder } => {
                let Some(raw) = lines(input, first, line)? else { return Ok(None) };
                let columns = match decoder {
                    None => None,
                    Some(decoder) => {
                        let values = raw.iter().map(|record| (record.row() as u64, record.value()));
                        let decoded = decoder.decode(values).map_err(Exit::failed)?;
                        let undecodable = decoded.undecodable.iter().map(|bad| {
                            (bad.row as usize, bad.cause.as_str().to_owned(), bad.reason.to_string())
                        });
                        Some(Columns {
                            undecodable: undecodable.collect(),
                            records: decoded.rows.iter().map(|row| *row as usize).collect(),
                            rows: decoded.batch,
                        })
                    }
                };
                Chunk { first, raw, columns }
            }
            Source::Topic { peek, runtime, decodes } => {
                let (decodes, runtime) = (*decodes, &*runtime);
                let next = runtime.block_on(async {
                    let Some(raw) = peek.next_batch()? else { return Ok(None) };
                    let columns = match decodes {
                        true => Some(peek.decode(&raw).await?),
                        false => None,
                    };
                    Ok::<_, gristmill_pipeline::Error>(Some((raw, columns)))
                });
                let Some((raw, rows)) = next.map_err(Exit::from)? else { return Ok(None) };
                let columns = rows.map(|rows| Columns {
                    rows: rows.rows,
                    records: rows.records,
                    undecodable: rows
                        .undecodable
                        .into_iter()
                        .map(|bad| (bad.record, bad.code, bad.reason))
                        .collect(),
                });
                Chunk { first, raw, columns }
            }
        };
        self.number += chunk.raw.len();
        Ok(Some(chunk))
    }
}

/// JSON that is given as such or lies in a file.
pub(crate) fn json_of(text: &str, option: &str) -> Result<Value, Exit> {
    if text.trim_start().starts_with(['[', '"', '\'']) {
        return Err(Exit::mistake(format!(
            "{option} is a JSON object, such as '{{\"a\": 1}}', or the path of a file"
        )));
    }
    let (text, place) = match text.trim_start().starts_with('{') {
        true => (text.to_owned(), option.to_owned()),
        false => {
            let read = fs::read_to_string(text);
            (read.map_err(|e| Exit::mistake(format!("{option} {text}: {e}")))?, format!("{option} {text}"))
        }
    };
    serde_json::from_str(&text).map_err(|e| Exit::mistake(format!("{place}: {e}")))
}

/// The next lines; none at the end. Empty ones are left out.
fn lines(
    input: &mut BufReader<Box<dyn Read>>,
    first: usize,
    read_so_far: &mut usize,
) -> Result<Option<RawBatch>, Exit> {
    let mut batch = RawBatchBuilder::new(TOPIC, 0);
    let mut count = 0;
    while count < BATCH && batch.content_bytes() < BATCH_BYTES {
        let mut line = Vec::new();
        let failed = |e: std::io::Error| Exit::failed(format!("the input: {e}"));
        let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            break;
        }
        *read_so_far += 1;
        if read as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            return Err(Exit::mistake(format!("line {read_so_far} has more than {MAX_LINE} bytes")));
        }
        while line.last().is_some_and(|b| b"\r\n".contains(b)) {
            line.pop();
        }
        if !line.is_empty() {
            let pushed = batch.push((first + count) as i64, NO_TIMESTAMP, None, Some(&line), []);
            pushed.map_err(|e| Exit::failed(format!("line {read_so_far}: {e}")))?;
            count += 1;
        }
    }
    Ok((count > 0).then(|| batch.build()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_with_the_empty_ones_and_rows_without() {
        let text = [b"\n\n{}\n\r\n".as_slice(), b"{}\n\n", &vec![b'x'; MAX_LINE as usize + 1]].concat();
        let mut input = BufReader::new(Box::new(std::io::Cursor::new(text)) as Box<dyn Read>);
        let mut read = 0;
        let error = lines(&mut input, 0, &mut read).unwrap_err();
        assert!(error.message.starts_with("line 7 has more than"), "{}", error.message);
        let mut input = BufReader::new(Box::new(&b"\n{}\n\n[]"[..]) as Box<dyn Read>);
        let batch = lines(&mut input, 5, &mut 0).unwrap().unwrap();
        assert_eq!(batch.iter().map(|record| record.offset()).collect::<Vec<_>>(), [5, 6]);
    }
}
