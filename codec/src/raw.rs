//! Values that are not decoded: one column with the bytes or the text as they came.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::decoded::{Cause, Decoded, Fault};
use crate::error::{Error, ErrorKind, Result};
use crate::framing::Value;

/// Puts each value, as it is, into the one column `value`.
///
/// A null value (a tombstone) becomes a null in the column, so raw decoding can lose nothing. As text,
/// a value that is not UTF-8 is undecodable; as bytes, nothing is.
#[derive(Debug, Clone)]
pub struct RawDecoder {
    schema: SchemaRef,
    text: bool,
}

impl RawDecoder {
    /// The column that the values go to.
    pub const COLUMN: &'static str = "value";

    /// A decoder whose column is `Binary`.
    pub fn bytes() -> Self {
        Self::new(false)
    }

    /// A decoder whose column is `Utf8`.
    pub fn text() -> Self {
        Self::new(true)
    }

    fn new(text: bool) -> Self {
        let data_type = if text { DataType::Utf8 } else { DataType::Binary };
        Self { schema: Arc::new(Schema::new(vec![Field::new(Self::COLUMN, data_type, true)])), text }
    }

    /// The Arrow schema of every batch this decoder makes.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Decodes rows of (tag, value).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] if the values add up to more than 2 GiB.
    pub fn decode<'a, V: Into<Value<'a>>>(
        &mut self,
        rows: impl IntoIterator<Item = (u64, Option<V>)>,
    ) -> Result<Decoded> {
        let mut tags = Vec::new();
        let mut undecodable = Vec::new();
        let mut total = 0u64;
        let mut text = StringBuilder::new();
        let mut bytes = BinaryBuilder::new();
        for (tag, value) in rows {
            let value: Option<&[u8]> = value.map(|value| value.into().bytes);
            total += value.map_or(0, <[u8]>::len) as u64;
            check_total(total)?;
            if self.text {
                match value.map(std::str::from_utf8).transpose() {
                    Ok(value) => text.append_option(value),
                    Err(fault) => {
                        let reason = format!("not UTF-8 text: invalid at byte {}", fault.valid_up_to());
                        undecodable.push(Fault::new(Cause::Malformed, reason).at(tag));
                        continue;
                    }
                }
            } else {
                bytes.append_option(value);
            }
            tags.push(tag);
        }
        let column: ArrayRef = if self.text { Arc::new(text.finish()) } else { Arc::new(bytes.finish()) };
        let batch = RecordBatch::try_new(self.schema.clone(), vec![column]).map_err(|e| {
            Error::new(ErrorKind::Internal, "the raw column does not fit its schema").with_source(e)
        })?;
        Ok(Decoded { batch, rows: tags, undecodable })
    }
}

/// Columns have 32-bit offsets: what goes into one must stay below 2 GiB.
pub(crate) fn check_total(total: u64) -> Result<()> {
    if total > i32::MAX as u64 { Err(too_large()) } else { Ok(()) }
}

pub(crate) fn too_large() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("the values of one batch add up to more than {} bytes; decode fewer rows at once", i32::MAX),
    )
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;

    use super::*;

    #[test]
    fn text_sets_invalid_utf8_aside_and_keeps_nulls_apart_from_empty() {
        let mut decoder = RawDecoder::text();
        let rows: [(u64, Option<&[u8]>); 4] =
            [(3, Some(b"a")), (5, None), (7, Some(b"ok \xff")), (9, Some(b""))];
        let decoded = decoder.decode(rows).unwrap();
        assert_eq!(decoded.rows, [3, 5, 9]);
        let column = decoded.batch.column(0).as_string::<i32>();
        assert_eq!(column.iter().collect::<Vec<_>>(), [Some("a"), None, Some("")]);
        assert_eq!(decoded.undecodable.len(), 1);
        assert_eq!(decoded.undecodable[0].row, 7);
        assert_eq!(decoded.undecodable[0].reason, "not UTF-8 text: invalid at byte 3");
    }

    #[test]
    fn bytes_take_anything() {
        let mut decoder = RawDecoder::bytes();
        let decoded = decoder.decode([(1, Some(&b"\xff\x00"[..])), (2, None)]).unwrap();
        assert_eq!(decoded.batch.column(0).as_binary::<i32>().value(0), b"\xff\x00");
        assert!(decoded.batch.column(0).is_null(1));
    }
}
