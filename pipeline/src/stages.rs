//! From raw records to rows: transform, then decode. No I/O; `run` and `test` share it.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use gristmill_codec::{AvroDecoder, Decoder, JsonDecoder, JsonOptions, RawDecoder};
use gristmill_records::RawBatch;
use gristmill_sinks::{DirectoryTemplate, MAIN_OUTPUT, RejectedRecord, RowCoord, Stage};
use gristmill_smt::{Applied, Instance, Stream, Transform};

use crate::error::Error;

/// How values become columns; each partition has a decoder of its own.
#[derive(Clone, Debug)]
pub(crate) enum DecoderPlan {
    Json(SchemaRef),
    /// The reader schema.
    Avro(Arc<str>),
    Bytes,
}

impl DecoderPlan {
    pub(crate) fn open(&self) -> Result<Decoder, Error> {
        let decoder = match self {
            DecoderPlan::Json(schema) => {
                JsonDecoder::new(schema.clone(), JsonOptions::default()).map(Decoder::from)
            }
            DecoderPlan::Avro(schema) => AvroDecoder::new(schema).map(Decoder::from),
            DecoderPlan::Bytes => Ok(Decoder::from(RawDecoder::bytes())),
        };
        decoder.map_err(Error::decode)
    }
}

/// What is the same for every partition of a pipeline.
#[derive(Clone, Debug)]
pub(crate) struct StagePlan {
    pub(crate) transform: Option<(Transform, Arc<serde_json::Value>)>,
    pub(crate) decoder: DecoderPlan,
    pub(crate) kafka_columns: bool,
    pub(crate) directories: Option<DirectoryTemplate>,
}

impl StagePlan {
    /// Names of the outputs, `main` first.
    pub(crate) fn outputs(&self) -> Vec<String> {
        let declared = self.transform.iter().flat_map(|(t, _)| &t.manifest().outputs);
        std::iter::once(MAIN_OUTPUT.to_owned()).chain(declared.map(|o| o.name.clone())).collect()
    }

    /// The stages of one partition, with an instance of the transform of their own.
    pub(crate) fn open(&self, topic: &str, partition: i32) -> Result<Stages, Error> {
        let instance = match &self.transform {
            None => None,
            Some((transform, config)) => {
                let stream = Stream { topic: topic.to_owned(), partition: partition.unsigned_abs() };
                Some(transform.instantiate(&stream, config).map_err(Error::transform)?)
            }
        };
        Ok(Stages {
            instance,
            decoder: self.decoder.open()?,
            kafka_columns: self.kafka_columns,
            directories: self.directories.clone(),
            outputs: self.outputs(),
        })
    }
}

/// The stages of one partition.
#[derive(Debug)]
pub(crate) struct Stages {
    instance: Option<Instance>,
    decoder: Decoder,
    kafka_columns: bool,
    directories: Option<DirectoryTemplate>,
    outputs: Vec<String>,
}

/// A batch after the transform; nothing is decoded yet.
#[derive(Debug)]
pub(crate) struct Transformed {
    batch: RawBatch,
    applied: Option<Applied>,
}

/// Rows of one output.
#[derive(Debug)]
pub(crate) struct OutputRows {
    pub(crate) output: String,
    pub(crate) rows: RecordBatch,
    pub(crate) coords: Vec<RowCoord>,
}

/// What became of a batch. Every record of it is in `outputs`, in `rejects` or in `dropped`.
#[derive(Debug, Default)]
pub(crate) struct Processed {
    pub(crate) outputs: Vec<OutputRows>,
    pub(crate) rejects: Vec<RejectedRecord>,
    pub(crate) dropped: u64,
}

/// A record that leaves the transform.
struct Leaving<'a> {
    row: usize,
    sub: u32,
    output: usize,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl Stages {
    /// Runs the transform. CPU only; it may take as long as the transform's limits allow.
    pub(crate) fn transform(&mut self, batch: RawBatch) -> Result<Transformed, Error> {
        let applied = match &mut self.instance {
            Some(instance) => Some(instance.apply(&batch).map_err(Error::transform)?),
            None => None,
        };
        Ok(Transformed { batch, applied })
    }

    /// Ids of Avro schemas that decoding needs and does not have yet.
    pub(crate) fn missing_schemas(&self, transformed: &Transformed) -> Vec<u32> {
        self.decoder.missing_schemas(transformed.leaving().iter().map(|r| r.value))
    }

    /// Hands over a schema that was asked for. Records of one that cannot be read as the columns' schema are
    /// undecodable from here on.
    pub(crate) fn add_schema(&mut self, id: u32, schema: &str) {
        if let Err(error) = self.decoder.add_writer_schema(id, schema) {
            tracing::warn!(id, %error, "records of this schema are rejected");
        }
    }

    /// Decodes what the transform left, output by output.
    pub(crate) fn decode(&mut self, transformed: &Transformed) -> Result<Processed, Error> {
        let batch = &transformed.batch;
        let leaving = transformed.leaving();
        let mut processed = Processed::default();
        if let Some(applied) = &transformed.applied {
            processed.dropped = applied.dropped() as u64;
            for reject in applied.rejects() {
                processed.rejects.push(rejected(
                    batch,
                    reject.row,
                    0,
                    Stage::Transform,
                    &reject.code,
                    &reject.message,
                ));
            }
        }
        for (number, output) in self.outputs.iter().enumerate() {
            let of_output = leaving.iter().enumerate().filter(|(_, r)| r.output == number);
            let decoded =
                self.decoder.decode(of_output.map(|(i, r)| (i as u64, r.value))).map_err(Error::decode)?;
            for bad in &decoded.undecodable {
                let record = &leaving[bad.row as usize];
                let code = format!("DECODE_{}", bad.cause.as_str().to_uppercase());
                processed.rejects.push(rejected(
                    batch,
                    record.row,
                    record.sub,
                    Stage::Decode,
                    &code,
                    &bad.reason,
                ));
            }
            if decoded.rows.is_empty() {
                continue;
            }
            let mut kept: Vec<&Leaving<'_>> = decoded.rows.iter().map(|i| &leaving[*i as usize]).collect();
            let mut rows = decoded.batch;
            if let Some(template) = &self.directories {
                let unfit = template.unfit(&rows).map_err(Error::sink)?;
                for (row, why) in &unfit {
                    let record = kept[*row];
                    let code = "DIRECTORY_VALUE";
                    processed.rejects.push(rejected(batch, record.row, record.sub, Stage::Write, code, why));
                }
                rows = without(rows, &mut kept, &unfit)?;
                if kept.is_empty() {
                    continue;
                }
            }
            if self.kafka_columns {
                rows = with_kafka_columns(rows, batch, &kept)?;
            }
            let coords = kept
                .iter()
                .map(|r| RowCoord { offset: r.offset, sub: r.sub, timestamp: r.timestamp })
                .collect();
            processed.outputs.push(OutputRows { output: output.clone(), rows, coords });
        }
        processed.rejects.sort_by_key(|r| (r.offset, r.sub));
        Ok(processed)
    }
}

impl Transformed {
    pub(crate) fn applied(&self) -> Option<&Applied> {
        self.applied.as_ref()
    }

    fn leaving(&self) -> Vec<Leaving<'_>> {
        match &self.applied {
            Some(applied) => applied
                .records()
                .map(|r| Leaving {
                    row: r.row,
                    sub: r.sub,
                    output: usize::from(r.output),
                    offset: r.offset,
                    timestamp: r.timestamp,
                    key: r.key,
                    value: r.value,
                })
                .collect(),
            None => self
                .batch
                .iter()
                .map(|r| Leaving {
                    row: r.row(),
                    sub: 0,
                    output: 0,
                    offset: r.offset(),
                    timestamp: r.timestamp(),
                    key: r.key(),
                    value: r.value(),
                })
                .collect(),
        }
    }
}

/// Takes out the rows that have no directory.
fn without(
    rows: RecordBatch,
    kept: &mut Vec<&Leaving<'_>>,
    unfit: &[(usize, String)],
) -> Result<RecordBatch, Error> {
    if unfit.is_empty() {
        return Ok(rows);
    }
    let mut fits = vec![true; kept.len()];
    unfit.iter().for_each(|(row, _)| fits[*row] = false);
    let mut of_row = fits.iter();
    kept.retain(|_| *of_row.next().expect("one for each row"));
    filter_record_batch(&rows, &BooleanArray::from(fits)).map_err(Error::arrow)
}

/// A dead letter carries the record as it came from Kafka, not what a transform made of it.
fn rejected(
    batch: &RawBatch,
    row: usize,
    sub: u32,
    stage: Stage,
    code: &str,
    message: &str,
) -> RejectedRecord {
    let record = batch.get(row).expect("rows come from this batch");
    let copy = Bytes::copy_from_slice;
    RejectedRecord {
        offset: record.offset(),
        sub,
        stage,
        code: code.to_owned(),
        message: message.to_owned(),
        key: record.key().map(copy),
        value: record.value().map(copy),
        headers: record.headers().map(|h| (copy(h.name), h.value.map(copy))).collect(),
        timestamp: record.timestamp(),
    }
}

/// `schema` with Kafka's columns after its own.
pub(crate) fn kafka_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.extend([
        Arc::new(Field::new("_kafka_partition", DataType::Int32, false)),
        Arc::new(Field::new("_kafka_offset", DataType::Int64, false)),
        Arc::new(Field::new("_kafka_sub", DataType::Int32, false)),
        Arc::new(Field::new(
            "_kafka_timestamp",
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            true,
        )),
        Arc::new(Field::new("_kafka_key", DataType::Binary, true)),
    ]);
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn with_kafka_columns(
    rows: RecordBatch,
    batch: &RawBatch,
    of: &[&Leaving<'_>],
) -> Result<RecordBatch, Error> {
    let schema = kafka_schema(&rows.schema());
    let mut columns = rows.columns().to_vec();
    let added: [ArrayRef; 5] = [
        Arc::new(Int32Array::from_value(batch.partition(), of.len())),
        Arc::new(Int64Array::from_iter_values(of.iter().map(|r| r.offset))),
        Arc::new(Int32Array::from_iter_values(of.iter().map(|r| i32::try_from(r.sub).unwrap_or(i32::MAX)))),
        Arc::new(TimestampMillisecondArray::from_iter(of.iter().map(|r| r.timestamp)).with_timezone("UTC")),
        Arc::new(BinaryArray::from_iter(of.iter().map(|r| r.key))),
    ];
    columns.extend(added);
    RecordBatch::try_new(schema, columns).map_err(Error::arrow)
}
