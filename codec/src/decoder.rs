//! One type for every format, for callers that take the format from a file.

use std::fmt;

use arrow_schema::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::avro::AvroDecoder;
use crate::decoded::Decoded;
use crate::error::Result;
use crate::json::JsonDecoder;
use crate::raw::RawDecoder;

/// The format of a record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// One JSON object a record; the fields are declared.
    Json,
    /// Avro with a schema id in front, as the Schema Registry's serialisers write it.
    Avro,
    /// UTF-8 text, into one column.
    String,
    /// Any bytes, into one column. `raw` is another name for it.
    #[serde(alias = "raw")]
    Bytes,
}

impl Format {
    /// Every format.
    pub const ALL: &'static [Format] = &[Format::Json, Format::Avro, Format::String, Format::Bytes];

    /// The name in a pipeline file.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Avro => "avro",
            Format::String => "string",
            Format::Bytes => "bytes",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A decoder of any format.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decoder {
    /// JSON objects against declared fields.
    Json(JsonDecoder),
    /// Avro with schema ids.
    Avro(AvroDecoder),
    /// Bytes or text as they are.
    Raw(RawDecoder),
}

impl Decoder {
    /// The Arrow schema of every batch this decoder makes.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Decoder::Json(decoder) => decoder.schema(),
            Decoder::Avro(decoder) => decoder.schema(),
            Decoder::Raw(decoder) => decoder.schema(),
        }
    }

    /// The ids of writer schemas that have to be given with [`add_writer_schema`](Self::add_writer_schema)
    /// before these values can be decoded, ascending. Always empty but for Avro.
    pub fn missing_schemas<'a>(&self, values: impl IntoIterator<Item = Option<&'a [u8]>>) -> Vec<u32> {
        match self {
            Decoder::Avro(decoder) => decoder.missing_schemas(values),
            Decoder::Json(_) | Decoder::Raw(_) => Vec::new(),
        }
    }

    /// Gives the decoder a writer schema; see [`AvroDecoder::add_writer_schema`]. Does nothing but for Avro.
    ///
    /// # Errors
    ///
    /// Those of [`AvroDecoder::add_writer_schema`].
    pub fn add_writer_schema(&mut self, id: u32, schema: &str) -> Result<()> {
        match self {
            Decoder::Avro(decoder) => decoder.add_writer_schema(id, schema),
            Decoder::Json(_) | Decoder::Raw(_) => Ok(()),
        }
    }

    /// Decodes rows of (tag, value): every row is decoded or undecodable, in order, and none costs
    /// another.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) if the columns could grow beyond 2 GiB: decode
    /// fewer rows at once.
    pub fn decode<'a>(&mut self, rows: impl IntoIterator<Item = (u64, Option<&'a [u8]>)>) -> Result<Decoded> {
        match self {
            Decoder::Json(decoder) => decoder.decode(rows),
            Decoder::Avro(decoder) => decoder.decode(rows),
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
        Decoder::Avro(decoder)
    }
}

impl From<RawDecoder> for Decoder {
    fn from(decoder: RawDecoder) -> Self {
        Decoder::Raw(decoder)
    }
}
