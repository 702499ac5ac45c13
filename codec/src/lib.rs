//! JSON, Avro, Protobuf and raw values of Kafka records, decoded straight to Arrow columns; and the same formats of
//! columns.
//!
//! # What is promised
//!
//! - **One bad record never costs another.** Every row that goes in comes out in exactly one of two
//!   lists: as a row of the [`RecordBatch`](arrow_array::RecordBatch), or as [`Undecodable`] with a
//!   [`Cause`] and a reason. Both keep the order of the input, and a row decodes to the same whatever is
//!   around it.
//! - **Nothing is lost without a word.** A fraction is never cut off an integer, a decimal never rounded,
//!   trailing bytes never skipped.
//! - **Nothing panics** on what a producer or a registry wrote, and work and memory are bounded by the
//!   size of the input.
//! - **Reasons do not quote records**, unless the decoder is told to.
//!
//! Decoders are pure: no I/O, no clock. A decoder that needs writer schemas says which
//! ([`Decoder::missing_schemas`]), and is given them ([`Decoder::add_writer_schema`]).
//!
//! ```
//! use gristmill_codec::{Decoder, JsonDecoder, JsonOptions, SchemaSpec};
//!
//! let spec: SchemaSpec = serde_json::from_str(r#"{"id": "int64 not null", "name": "string"}"#)?;
//! let mut decoder = Decoder::from(JsonDecoder::new(spec.arrow_schema().unwrap(), JsonOptions::default())?);
//!
//! // The tag is whatever finds the record again: here its row in a batch.
//! let rows: [(u64, Option<&[u8]>); 3] = [
//!     (0, Some(br#"{"id": 1, "name": "Ada"}"#)),
//!     (1, Some(br#"{"id": "one"}"#)),
//!     (2, Some(br#"{"id": 3}"#)),
//! ];
//! let decoded = decoder.decode(rows)?;
//! assert_eq!(decoded.rows, [0, 2]);
//! assert_eq!(decoded.batch.num_rows(), 2);
//! assert_eq!(decoded.undecodable[0].row, 1);
//! assert_eq!(
//!     decoded.undecodable[0].reason,
//!     "field id: expected int64, got a string that does not fit it exactly",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Signatures show Arrow's `SchemaRef` and `RecordBatch`: a new major version of Arrow is one of this
//! crate.
#![deny(missing_docs)]

mod avro;
mod decoded;
mod decoder;
mod encode;
mod error;
mod field_spec;
mod framing;
mod json;
mod json_schema;
mod protobuf;
mod raw;
mod shown;
mod times;

pub use avro::{AvroDecoder, AvroOptions, avro_descriptions, inline_avro_references};
pub use decoded::{Cause, Decoded, Undecodable};
pub use decoder::Decoder;
pub use encode::{AvroEncoder, JsonEncoder, avro_schema_of};
pub use error::{Error, ErrorKind, Result};
pub use field_spec::{FieldSpec, SchemaSpec, SpecMistake};
pub use framing::{SchemaId, Value};
pub use json::{JsonDecoder, JsonOptions};
pub use json_schema::{json_schema_columns, json_schema_descriptions};
pub use protobuf::{
    ProtobufDecoder, ProtobufEncoder, ProtobufOptions, inline_protobuf_imports, protobuf_descriptions,
    protobuf_imports,
};
pub use raw::RawDecoder;
pub use shown::rows_as_json;
pub use times::times_without_text;
