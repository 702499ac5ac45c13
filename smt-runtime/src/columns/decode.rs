//! Computed columns out of the words that a guest answered. Nothing of them is trusted.

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Decimal256Type};
use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::Buffer;
use arrow_data::{ArrayData, ArrayDataBuilder};
use arrow_schema::{DataType, Field, FieldRef};

/// Arrays of `rows` rows for the fields, checked in full. The buffers of all have `most` bytes at most, also where they
/// overlap.
///
/// # Errors
/// The first thing that is wrong, with the field.
pub(super) fn decode(
    fields: &[FieldRef],
    rows: usize,
    layout: &[u32],
    buffers: Vec<u64>,
    most: u64,
) -> Result<Vec<ArrayRef>, String> {
    let mut answer = Answer { layout: layout.iter(), buffers: Buffer::from_vec(buffers), most, room: most };
    let mut arrays = Vec::with_capacity(fields.len());
    for field in fields {
        let data = answer.node(field, Some(rows)).map_err(|e| format!("column {}: {e}", field.name()))?;
        if !field.is_nullable() && data.null_count() > 0 {
            return Err(format!("column {}: {} nulls where none may be", field.name(), data.null_count()));
        }
        let array = make_array(data);
        check_values(&array).map_err(|e| format!("column {}: {e}", field.name()))?;
        arrays.push(array);
    }
    match answer.layout.len() {
        0 => Ok(arrays),
        more => Err(format!("{more} words of layout after the last column")),
    }
}

struct Answer<'a> {
    layout: std::slice::Iter<'a, u32>,
    buffers: Buffer,
    most: u64,
    room: u64,
}

impl Answer<'_> {
    /// A field and what is in it; `rows` where the length is known.
    fn node(&mut self, field: &Field, rows: Option<usize>) -> Result<ArrayData, String> {
        let (len, nulls) = (self.word()?, self.word()?);
        if rows.is_some_and(|rows| rows != len) {
            return Err(format!("{len} rows, {} go on", rows.unwrap_or_default()));
        }
        let bitmap = len.div_ceil(8);
        let validity = self.buffer_of(bitmap)?;
        if validity.is_empty() && nulls > 0 {
            return Err(format!("{nulls} nulls and no bitmap"));
        }
        let mut data = ArrayDataBuilder::new(field.data_type().clone()).len(len).align_buffers(true);
        if !validity.is_empty() {
            data = data.null_bit_buffer(Some(validity)).null_count(nulls);
        }
        let data = match field.data_type() {
            DataType::Utf8 | DataType::Binary => {
                data.add_buffer(self.buffer_of((len + 1) * 4)?).add_buffer(self.buffer()?)
            }
            DataType::List(child) | DataType::Map(child, _) => {
                data.add_buffer(self.buffer_of((len + 1) * 4)?).add_child_data(self.node(child, None)?)
            }
            DataType::Struct(members) => {
                let members: Result<Vec<_>, _> = members.iter().map(|m| self.node(m, Some(len))).collect();
                data.child_data(members?)
            }
            DataType::Boolean => data.add_buffer(self.buffer_of(bitmap)?),
            DataType::FixedSizeBinary(width) => data.add_buffer(self.buffer_of(len * *width as usize)?),
            plain => data.add_buffer(self.buffer_of(len * plain.primitive_width().unwrap_or_default())?),
        };
        data.build().map_err(|e| e.to_string())
    }

    fn word(&mut self) -> Result<usize, String> {
        let word = self.layout.next().ok_or("the layout ends inside a column")?;
        Ok(*word as usize)
    }

    /// Exactly so many bytes of a buffer, or none: Arrow panics on a part of a value at its end.
    fn buffer_of(&mut self, bytes: usize) -> Result<Buffer, String> {
        let buffer = self.buffer()?;
        match buffer.len() {
            0 => Ok(buffer),
            len if len < bytes => Err(format!("a buffer of {len} bytes that should have {bytes}")),
            _ => Ok(buffer.slice_with_length(0, bytes)),
        }
    }

    fn buffer(&mut self) -> Result<Buffer, String> {
        let (word, len) = (self.word()?, self.word()?);
        let start = word.saturating_mul(8);
        if start.checked_add(len).is_none_or(|end| end > self.buffers.len()) {
            return Err(format!(
                "{len} bytes at word {word} are not inside the {} words of buffers",
                self.buffers.len() / 8
            ));
        }
        self.room = self.room.checked_sub(len as u64).ok_or_else(|| {
            format!(
                "limit output_bytes of {}: its buffers overlap, and are more than that together",
                self.most
            )
        })?;
        Ok(self.buffers.slice_with_length(start, len))
    }
}

/// What Arrow's own checks leave out: decimals of more digits than their type has.
fn check_values(array: &ArrayRef) -> Result<(), String> {
    match array.data_type() {
        DataType::Decimal128(precision, _) => {
            array.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)
        }
        DataType::Decimal256(precision, _) => {
            array.as_primitive::<Decimal256Type>().validate_decimal_precision(*precision)
        }
        DataType::Struct(_) => return array.as_struct().columns().iter().try_for_each(check_values),
        DataType::List(_) => return check_values(array.as_list::<i32>().values()),
        DataType::Map(..) => return array.as_map().entries().columns().iter().try_for_each(check_values),
        _ => Ok(()),
    }
    .map_err(|e| e.to_string())
}
