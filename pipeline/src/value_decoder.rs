//! The values of records as columns, by themselves: what a pipeline does between its source and its sink, without both.

use std::fmt;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use gristmill::{SchemaRegistry, SchemaType};
use gristmill_codec::{AvroOptions, Decoder, ProtobufOptions, SchemaSpec, Value};
use gristmill_records::RawBatch;

use crate::error::{Error, NO_REGISTRY};
use crate::prepare::{self, Reading};
use crate::stages::{DecoderPlan, decode_code, kafka_schema, value_of, with_kafka_columns_of};

/// How values become columns.
#[derive(Clone, Debug)]
pub enum ValueFormat {
    /// Any bytes, into the one column `value`.
    Bytes,
    /// JSON objects with these fields.
    Json(SchemaSpec),
    /// Avro with a schema id in front, as the Schema Registry's serialisers write it.
    Avro {
        /// Where the schemas of the records are.
        registry: SchemaRegistry,
        /// The schema whose fields are the columns.
        columns: ColumnsSchema,
        /// What becomes of what has no column.
        options: AvroOptions,
    },
    /// Protobuf messages with a schema id and indexes in front, or, without a registry, bare.
    Protobuf {
        /// Where the schemas of the records are.
        registry: Option<SchemaRegistry>,
        /// The schema whose message is the columns.
        columns: ColumnsSchema,
        /// Which message, and what becomes of one that contains itself; whether values are bare is the registry's to say.
        options: ProtobufOptions,
    },
    /// JSON objects, with a schema id in front or without, whose columns a JSON Schema says.
    JsonSchema {
        /// Where the schema is; values are read without it.
        registry: Option<SchemaRegistry>,
        /// The schema whose properties are the columns.
        columns: ColumnsSchema,
        /// What has no column of one type becomes a text of JSON; else it is refused.
        recursive_as_json: bool,
    },
}

/// The schema that says which columns there are.
#[derive(Clone, Debug)]
pub enum ColumnsSchema {
    /// The latest of a subject, when the decoder is opened.
    Latest(String),
    /// This one, which stands by itself.
    Schema(String),
}

/// Decodes the values of records to Arrow columns, and puts beside them where each row comes from (`_kafka_partition`,
/// `_kafka_offset`, `_kafka_timestamp`, `_kafka_key`; `_kafka_sub` is 0).
///
/// One record never costs another: each is a row, or undecodable with a reason.
pub struct ValueDecoder {
    decoder: Decoder,
    /// Of the schemas that records name.
    language: &'static SchemaType,
    /// Of the decoded columns and Kafka's.
    schema: SchemaRef,
    registry: Option<SchemaRegistry>,
}

impl fmt::Debug for ValueDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueDecoder").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// What the records of a batch decoded to.
#[derive(Debug)]
#[non_exhaustive]
pub struct DecodedRecords {
    /// The columns, and those that say where a row comes from.
    pub rows: RecordBatch,
    /// For each row, its record in the batch.
    pub records: Vec<usize>,
    /// Records that do not decode, in order.
    pub undecodable: Vec<UndecodableRecord>,
}

/// A record that does not decode.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UndecodableRecord {
    /// Which of the batch.
    pub record: usize,
    /// The class of the fault, as in the code of a dead letter: `DECODE_MALFORMED`.
    pub code: String,
    /// Why, without a piece of the record.
    pub reason: String,
}

/// What is decoded of a batch's records, by their place.
fn values(batch: &RawBatch) -> impl Iterator<Item = (u64, Option<Value<'_>>)> {
    batch.iter().map(|record| (record.row() as u64, value_of(record.value(), record.headers())))
}

/// How values become columns by a schema.
async fn plan(
    registry: Option<&SchemaRegistry>,
    columns: ColumnsSchema,
    reading: Reading,
) -> Result<DecoderPlan, Error> {
    match (columns, registry) {
        (ColumnsSchema::Schema(text), _) => reading.plan(&text, &[]),
        (ColumnsSchema::Latest(subject), Some(registry)) => {
            prepare::latest_columns(registry, &subject, &reading).await
        }
        (ColumnsSchema::Latest(subject), None) => Err(Error::config(format!(
            "the columns are to be of subject {subject}, and there is no registry"
        ))),
    }
}

impl ValueDecoder {
    /// Prepares to decode; with [`ColumnsSchema::Latest`] it asks the registry.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaRegistry`], [`ErrorKind::Decode`] for a schema that has no columns, [`ErrorKind::Config`].
    pub async fn open(format: ValueFormat) -> Result<ValueDecoder, Error> {
        let (plan, registry) = match format {
            ValueFormat::Bytes => (DecoderPlan::Bytes, None),
            ValueFormat::Json(fields) => {
                let mistakes = |mistakes: Vec<gristmill_codec::SpecMistake>| {
                    let told = mistakes.iter().map(|m| format!("fields.{}: {}", m.path, m.message));
                    Error::config(told.collect::<Vec<_>>().join("; "))
                };
                (DecoderPlan::Json(fields.arrow_schema().map_err(mistakes)?), None)
            }
            ValueFormat::Avro { registry, columns, options } => {
                (plan(Some(&registry), columns, Reading::Avro(options)).await?, Some(registry))
            }
            ValueFormat::Protobuf { registry, columns, mut options } => {
                options.bare = registry.is_none();
                (plan(registry.as_ref(), columns, Reading::Protobuf(options)).await?, registry)
            }
            ValueFormat::JsonSchema { registry, columns, recursive_as_json } => {
                // Its columns stay as they are, so that ids of new schemas say nothing.
                let reading = Reading::JsonSchema { recursive_as_json, has_registry: false };
                (plan(registry.as_ref(), columns, reading).await?, None)
            }
        };
        ValueDecoder::new(&plan, registry)
    }

    pub(crate) fn new(plan: &DecoderPlan, registry: Option<SchemaRegistry>) -> Result<ValueDecoder, Error> {
        let decoder = plan.open()?;
        let own = decoder.schema();
        let schema = kafka_schema(&own);
        if let Some(field) =
            schema.fields()[own.fields().len()..].iter().find(|f| own.index_of(f.name()).is_ok())
        {
            let text =
                format!("a column is named `{}`, as the one that says where a row comes from", field.name());
            return Err(Error::config(text));
        }
        Ok(ValueDecoder { decoder, language: plan.language(), schema, registry })
    }

    /// The columns of [`decode`](Self::decode)'s rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Decodes the values of a batch. Writer schemas that are new are asked of the registry.
    ///
    /// Cancel safe: what was asked is remembered.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaRegistry`] if it does not answer, [`ErrorKind::Decode`] if columns would grow beyond 2 GiB.
    pub async fn decode(&mut self, batch: &RawBatch) -> Result<DecodedRecords, Error> {
        for id in self.decoder.missing_schemas(values(batch).map(|(_, value)| value)) {
            let registry = self.registry.as_ref();
            let registry = registry.ok_or_else(|| Error::config(NO_REGISTRY))?;
            // Without it the records that name it do not decode, each with the reason.
            if let Some(schema) = prepare::writer_schema(registry, id, self.language).await?.text()
                && let Err(error) = self.decoder.add_writer_schema(id, &schema)
            {
                tracing::warn!(%id, %error, "records of this schema do not decode");
            }
        }
        let decoded = self.decoder.decode(values(batch)).map_err(Error::decode)?;
        let records: Vec<usize> = decoded.rows.iter().map(|row| *row as usize).collect();
        let rows = with_kafka_columns_of(&decoded.batch, batch, &records)?;
        let undecodable = decoded.undecodable.into_iter().map(|bad| UndecodableRecord {
            record: bad.row as usize,
            code: decode_code(bad.cause),
            reason: bad.reason,
        });
        Ok(DecodedRecords { rows, records, undecodable: undecodable.collect() })
    }
}
