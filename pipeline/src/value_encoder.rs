//! Columns as the values of records, by themselves.

use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::Schema as Columns;
use gristmill::{Schema, SchemaRegistry, SchemaType};
use gristmill_codec::{AvroEncoder, JsonEncoder, ProtobufEncoder};

use crate::error::Error;
use crate::prepare;

/// How rows become values.
#[derive(Clone, Debug)]
pub enum WriteFormat {
    /// JSON objects.
    Json,
    /// JSON objects by a JSON Schema that stands by itself.
    JsonBySchema(String),
    /// Protobuf messages with nothing in front, by a schema that stands by itself.
    BareProtobuf {
        /// As [`ProtobufEncoder::new`] takes it.
        schema: String,
        /// Which message of it.
        message: Option<String>,
    },
    /// As the Schema Registry's serialisers write them, with the id of a schema in front.
    Registered {
        /// Where the schema is.
        registry: SchemaRegistry,
        /// Under which subject.
        subject: String,
        /// What it is written in.
        language: SchemaType,
        /// Which schema.
        schema: WriteSchema,
        /// Of Protobuf, which message.
        message: Option<String>,
    },
}

/// The schema that rows are written with.
#[derive(Clone, Debug)]
pub enum WriteSchema {
    /// The latest of the subject.
    Latest,
    /// This one, which the subject has.
    Known(String),
    /// This one, which is registered if the subject does not have it.
    New(String),
}

/// Encodes rows as values of records.
pub struct ValueEncoder(Encoder);

enum Encoder {
    Json(JsonEncoder),
    Avro(Box<AvroEncoder>),
    Protobuf(ProtobufEncoder),
}

impl fmt::Debug for ValueEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueEncoder").finish_non_exhaustive()
    }
}

impl ValueEncoder {
    /// Prepares to encode rows with these columns; the registry is asked, and told, as the format says.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaRegistry`](crate::ErrorKind::SchemaRegistry); [`ErrorKind::Encode`](crate::ErrorKind::Encode) for columns that do not fit the schema, with the column.
    pub async fn open(format: WriteFormat, columns: &Columns) -> Result<ValueEncoder, Error> {
        let encoder = match format {
            WriteFormat::Json => Encoder::Json(JsonEncoder::plain()),
            WriteFormat::JsonBySchema(schema) => {
                Encoder::Json(JsonEncoder::of_schema(columns, &schema, [], None).map_err(Error::encode)?)
            }
            WriteFormat::BareProtobuf { schema, message } => {
                let encoder = ProtobufEncoder::new(columns, &schema, message.as_deref(), None);
                Encoder::Protobuf(encoder.map_err(Error::encode)?)
            }
            WriteFormat::Registered { registry, subject, language, schema, message } => {
                let about = |e: gristmill_codec::Error| Error::encode(e).about(&format!("subject {subject}"));
                let open =
                    |found: &Found| encoder_of(&language, columns, found, message.as_deref()).map_err(about);
                if let WriteSchema::New(text) = &schema {
                    // What does not fit registers nothing.
                    open(&Found { id: 0, whole: text.clone(), latest: None })?;
                }
                open(&found(&registry, &subject, &language, schema).await?)?
            }
        };
        Ok(ValueEncoder(encoder))
    }

    /// A value for each row.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) for a value that the schema has no form for; nothing of the batch counts then.
    pub fn encode(&mut self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>, Error> {
        match &mut self.0 {
            Encoder::Json(encoder) => encoder.encode(rows),
            Encoder::Avro(encoder) => encoder.encode(rows),
            Encoder::Protobuf(encoder) => encoder.encode(rows),
        }
        .map_err(Error::encode)
    }
}

fn encoder_of(
    language: &SchemaType,
    columns: &Columns,
    schema: &Found,
    message: Option<&str>,
) -> gristmill_codec::Result<Encoder> {
    let id = schema.id;
    Ok(match language {
        SchemaType::Avro => Encoder::Avro(Box::new(AvroEncoder::new(columns, &schema.whole, id)?)),
        SchemaType::Protobuf => {
            Encoder::Protobuf(ProtobufEncoder::new(columns, &schema.whole, message, Some(id))?)
        }
        _ => {
            let references = schema.latest.as_deref().map(prepare::references).unwrap_or_default();
            Encoder::Json(JsonEncoder::of_schema(columns, &schema.whole, references, Some(id))?)
        }
    })
}

/// A schema to write with.
struct Found {
    id: u32,
    /// The text; of Avro and Protobuf it stands by itself.
    whole: String,
    /// Of the registry, with what it refers to.
    latest: Option<Arc<Schema>>,
}

async fn found(
    registry: &SchemaRegistry,
    subject: &str,
    language: &SchemaType,
    schema: WriteSchema,
) -> Result<Found, Error> {
    let (text, is_new) = match schema {
        WriteSchema::Latest => {
            let schema = registry.latest(subject).await.map_err(|e| prepare::no_columns(subject, e))?;
            let whole = prepare::whole_text(&schema, language, &format!("subject {subject}"))?;
            return Ok(Found { id: schema.id, whole, latest: Some(schema) });
        }
        WriteSchema::Known(text) => (text, false),
        WriteSchema::New(text) => (text, true),
    };
    let found = match is_new {
        true => registry.register(subject, language, &text, &[]).await,
        false => registry.id_of(subject, language, &text, &[]).await,
    };
    let id = found.map_err(|e| prepare::no_columns(subject, e))?.id;
    Ok(Found { id, whole: text, latest: None })
}
