//! Decoding whole batches: mixes of good and bad rows, and Avro against an independent implementation.

mod avro;
mod avro_differential;
mod avro_json;
mod encode;
mod json;
mod json_schema;
mod protobuf;
mod protobuf_decimal;
mod protobuf_differential;
