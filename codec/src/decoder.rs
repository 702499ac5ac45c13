//! One type for every format, for callers that take the format from a file.

use arrow_schema::SchemaRef;

use crate::avro::AvroDecoder;
use crate::decoded::Decoded;
use crate::error::Result;
use crate::framing::{SchemaId, Value};
use crate::json::JsonDecoder;
use crate::protobuf::ProtobufDecoder;
use crate::raw::RawDecoder;

/// A decoder of any format.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decoder {
    /// JSON objects against declared fields.
    Json(JsonDecoder),
    /// Avro with schema ids. Boxed, as the next: they are large.
    Avro(Box<AvroDecoder>),
    /// Protobuf messages.
    Protobuf(Box<ProtobufDecoder>),
    /// Bytes or text as they are.
    Raw(RawDecoder),
}

impl Decoder {
    /// The Arrow schema of every batch this decoder makes.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Decoder::Json(decoder) => decoder.schema(),
            Decoder::Avro(decoder) => decoder.schema(),
            Decoder::Protobuf(decoder) => decoder.schema(),
            Decoder::Raw(decoder) => decoder.schema(),
        }
    }

    /// The ids of writer schemas that have to be given with [`add_writer_schema`](Self::add_writer_schema)
    /// before these values can be decoded, ascending.
    pub fn missing_schemas<'a, V: Into<Value<'a>>>(
        &self,
        values: impl IntoIterator<Item = Option<V>>,
    ) -> Vec<SchemaId> {
        match self {
            Decoder::Json(decoder) => decoder.missing_schemas(values),
            Decoder::Avro(decoder) => decoder.missing_schemas(values),
            Decoder::Protobuf(decoder) => decoder.missing_schemas(values),
            Decoder::Raw(_) => Vec::new(),
        }
    }

    /// Gives the decoder a writer schema that stands by itself; see [`AvroDecoder::add_writer_schema`] and
    /// [`ProtobufDecoder::add_writer_schema`].
    ///
    /// # Errors
    ///
    /// Those of the format's decoder.
    pub fn add_writer_schema(&mut self, id: impl Into<SchemaId>, schema: &str) -> Result<()> {
        match self {
            Decoder::Json(decoder) => {
                decoder.add_writer_schema(id);
                Ok(())
            }
            Decoder::Avro(decoder) => decoder.add_writer_schema(id, schema),
            Decoder::Protobuf(decoder) => decoder.add_writer_schema(id, schema),
            Decoder::Raw(_) => Ok(()),
        }
    }

    /// Decodes rows of (tag, value): every row is decoded or undecodable, in order, and none costs
    /// another.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) if the columns could grow beyond 2 GiB: decode
    /// fewer rows at once.
    pub fn decode<'a, V: Into<Value<'a>>>(
        &mut self,
        rows: impl IntoIterator<Item = (u64, Option<V>)>,
    ) -> Result<Decoded> {
        match self {
            Decoder::Json(decoder) => decoder.decode(rows),
            Decoder::Avro(decoder) => decoder.decode(rows),
            Decoder::Protobuf(decoder) => decoder.decode(rows),
            Decoder::Raw(decoder) => decoder.decode(rows),
        }
    }
}

impl From<JsonDecoder> for Decoder {
    fn from(decoder: JsonDecoder) -> Self {
        Decoder::Json(decoder)
    }
}

impl From<AvroDecoder> for Decoder {
    fn from(decoder: AvroDecoder) -> Self {
        Decoder::Avro(Box::new(decoder))
    }
}

impl From<ProtobufDecoder> for Decoder {
    fn from(decoder: ProtobufDecoder) -> Self {
        Decoder::Protobuf(Box::new(decoder))
    }
}

impl From<RawDecoder> for Decoder {
    fn from(decoder: RawDecoder) -> Self {
        Decoder::Raw(decoder)
    }
}
