//! Arrow's columns as lists of plain values.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt64Array, downcast_temporal_array};
use arrow_buffer::NullBuffer;
use arrow_json::writer::LineDelimited;
use arrow_schema::{ArrowError, DataType, Field, FieldRef};
use gristmill_codec::times_without_text;

use super::{VALUE, schema_of};
use crate::contract::simple::Values;

/// The rows of an array; its nulls are those given, not its own.
///
/// # Errors
/// A value that JSON cannot say.
pub(in super::super) fn given(
    (array, nulls): &(ArrayRef, Option<NullBuffer>),
    rows: &Range<usize>,
    wide_as_texts: bool,
) -> Result<Values, ArrowError> {
    let array = array.slice(rows.start, rows.len());
    let nulls = nulls.as_ref().map(|nulls| nulls.slice(rows.start, rows.len()));
    let is_valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    let all = 0..array.len();
    let values = match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean();
            Values::Booleans(all.map(|row| is_valid(row).then(|| values.value(row))).collect())
        }
        DataType::Int8 => integers::<Int8Type>(&array, is_valid),
        DataType::Int16 => integers::<Int16Type>(&array, is_valid),
        DataType::Int32 => integers::<Int32Type>(&array, is_valid),
        DataType::Int64 => integers::<Int64Type>(&array, is_valid),
        DataType::UInt8 => integers::<UInt8Type>(&array, is_valid),
        DataType::UInt16 => integers::<UInt16Type>(&array, is_valid),
        DataType::UInt32 => integers::<UInt32Type>(&array, is_valid),
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            Values::Numbers(all.map(|row| is_valid(row).then(|| f64::from(values.value(row)))).collect())
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            Values::Numbers(all.map(|row| is_valid(row).then(|| values.value(row))).collect())
        }
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>();
            Values::Texts(all.map(|row| is_valid(row).then(|| values.value(row).to_string())).collect())
        }
        DataType::Decimal128(..) => {
            let values = array.as_primitive::<Decimal128Type>();
            Values::Texts(all.map(|row| is_valid(row).then(|| values.value_as_string(row))).collect())
        }
        DataType::Decimal256(..) => {
            let values = array.as_primitive::<Decimal256Type>();
            Values::Texts(all.map(|row| is_valid(row).then(|| values.value_as_string(row))).collect())
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            Values::Texts(all.map(|row| is_valid(row).then(|| values.value(row).to_owned())).collect())
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            Values::Blobs(all.map(|row| is_valid(row).then(|| values.value(row).to_vec())).collect())
        }
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            Values::Blobs(all.map(|row| is_valid(row).then(|| values.value(row).to_vec())).collect())
        }
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => {
            // A slice of a list has all its values still.
            let rows = UInt64Array::from_iter_values(0..array.len() as u64);
            let mut texts = json(&arrow_select::take::take(&array, &rows, None)?)?;
            texts
                .iter_mut()
                .enumerate()
                .filter(|(row, _)| !is_valid(*row))
                .for_each(|(_, text)| *text = None);
            Values::Texts(texts)
        }
        _ => times(&array, is_valid),
    };
    let is_wide = array.data_type().primitive_width() == Some(8);
    Ok(match values {
        Values::Integers(values) if wide_as_texts && is_wide => {
            Values::Texts(values.into_iter().map(|value| value.map(|value| value.to_string())).collect())
        }
        values => values,
    })
}

fn integers<T>(array: &ArrayRef, is_valid: impl Fn(usize) -> bool) -> Values
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    let values = array.as_primitive::<T>();
    Values::Integers((0..array.len()).map(|row| is_valid(row).then(|| values.value(row).into())).collect())
}

/// The type with texts in the place of decimals, whose digits a number of JSON would lose in most languages.
fn with_texts(data_type: &DataType) -> DataType {
    let inside = |field: &FieldRef| {
        let data_type = with_texts(field.data_type());
        Arc::new(field.as_ref().clone().with_data_type(data_type))
    };
    match data_type {
        DataType::Decimal128(..) | DataType::Decimal256(..) => DataType::Utf8,
        DataType::Struct(members) => DataType::Struct(members.iter().map(inside).collect()),
        DataType::List(item) => DataType::List(inside(item)),
        DataType::Map(entries, sorted) => DataType::Map(inside(entries), *sorted),
        other => other.clone(),
    }
}

/// Dates, times and timestamps.
#[expect(clippy::useless_conversion, reason = "there are those of 32 bits")]
fn times(array: &ArrayRef, is_valid: impl Fn(usize) -> bool) -> Values {
    let array: &dyn Array = array;
    downcast_temporal_array!(
        array => {
            let value = |row: usize| i64::from(array.value(row));
            Values::Integers((0..array.len()).map(|row| is_valid(row).then(|| value(row))).collect())
        },
        // No other type is offered to transforms.
        _ => Values::Absent,
    )
}

/// Each value as JSON, decimals as the texts of their digits; null where it is null.
fn json(array: &ArrayRef) -> Result<Vec<Option<String>>, ArrowError> {
    if !times_without_text(array).is_empty() {
        return Err(ArrowError::JsonError("it holds a time that is beyond what JSON can say".into()));
    }
    let data_type = with_texts(array.data_type());
    let array = arrow_cast::cast(array, &data_type)?;
    let field = Field::new(VALUE, data_type, true);
    let batch = RecordBatch::try_new(schema_of(&field), vec![array])?;
    let mut lines = Vec::new();
    let mut writer =
        arrow_json::WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut lines);
    writer.write(&batch)?;
    writer.finish()?;
    drop(writer);
    let (before, after) = (format!("{{\"{VALUE}\":"), "}");
    let text = String::from_utf8(lines).map_err(|e| ArrowError::JsonError(e.to_string()))?;
    let values = text.lines().map(|line| line.strip_prefix(&before)?.strip_suffix(after));
    Ok(values.map(|value| value.filter(|value| *value != "null").map(str::to_owned)).collect())
}
