//! Rows as protobuf messages, which [change data capture](https://cloud.google.com/bigquery/docs/change-data-capture) takes alone;
//! types after [the conversions](https://cloud.google.com/bigquery/docs/supported-data-types) that Google lists.
//!
//! | BigQuery | protobuf |
//! |---|---|
//! | BOOL, INT64, FLOAT64, STRING, BYTES | `bool`, `int64`, `double`, `string`, `bytes` |
//! | NUMERIC, BIGNUMERIC | `string`: a decimal number |
//! | DATE | `int32`: days since 1970 |
//! | TIMESTAMP | `int64`: microseconds since 1970 |
//! | TIME, DATETIME | `string`, as ISO 8601 writes them |
//! | JSON | `string` |
//! | STRUCT | a nested message |
//!
//! What is null is left out.

use std::fmt;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Decimal256Type, DecimalType, Float64Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use arrow_array::{
    Array, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float64Array,
    Int64Array, RecordBatch, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field};
use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};

/// The message of rows with those fields, which are of the types that BigQuery takes.
pub(super) fn descriptor<'a>(
    name: &str,
    fields: impl Iterator<Item = &'a Field>,
) -> Result<DescriptorProto, ArrowError> {
    let mut message = DescriptorProto { name: Some(name.to_owned()), ..Default::default() };
    for (field, number) in fields.zip(1..) {
        let (label, of) = match field.data_type() {
            DataType::List(item) => (Label::Repeated, item.data_type()),
            of => (Label::Optional, of),
        };
        let mut described = FieldDescriptorProto {
            name: Some(field.name().clone()),
            number: Some(number),
            label: Some(label as i32),
            ..Default::default()
        };
        let kind = match of {
            DataType::Boolean => Type::Bool,
            DataType::Int64 | DataType::Timestamp(_, Some(_)) => Type::Int64,
            DataType::Float64 => Type::Double,
            DataType::Date32 => Type::Int32,
            DataType::Binary => Type::Bytes,
            DataType::Utf8
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
            | DataType::Time64(_)
            | DataType::Timestamp(_, None) => Type::String,
            DataType::Struct(members) => {
                // No column may have such a name.
                let nested = format!("_CHANGE_F{number}");
                message.nested_type.push(descriptor(&nested, members.iter().map(AsRef::as_ref))?);
                described.type_name = Some(nested);
                Type::Message
            }
            other => return Err(ArrowError::NotYetImplemented(format!("{other} as protobuf"))),
        };
        described.r#type = Some(kind as i32);
        message.field.push(described);
    }
    Ok(message)
}

/// The columns of a batch, ready to be read row by row.
pub(super) struct Columns<'a>(Vec<Values<'a>>);

enum Values<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int64Array),
    Double(&'a Float64Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray),
    DateTime(&'a TimestampMicrosecondArray),
    Decimal128(&'a Decimal128Array),
    Decimal256(&'a Decimal256Array),
    Struct(Vec<Values<'a>>, Option<&'a NullBuffer>),
    List(Box<Values<'a>>, &'a OffsetBuffer<i32>, Option<&'a NullBuffer>),
}

impl<'a> Columns<'a> {
    pub(super) fn of(rows: &'a RecordBatch) -> Result<Self, ArrowError> {
        Ok(Columns(rows.columns().iter().map(|column| Values::of(column)).collect::<Result<_, _>>()?))
    }

    /// Appends a row.
    ///
    /// # Errors
    /// A null in a list, a time that has no text.
    pub(super) fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        put_all(&self.0, row, out)
    }
}

fn put_all(values: &[Values<'_>], row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    for (values, number) in values.iter().zip(1..) {
        if let Values::List(elements, offsets, nulls) = values {
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            for at in offsets[row]..offsets[row + 1] {
                if !elements.put(number, at as usize, out)? {
                    return Err(ArrowError::InvalidArgumentError("a list has a null element".to_owned()));
                }
            }
        } else {
            values.put(number, row, out)?;
        }
    }
    Ok(())
}

/// Appends something with its length in front.
pub(super) fn delimited<E>(
    number: u32,
    out: &mut Vec<u8>,
    put: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    encode_key(number, WireType::LengthDelimited, out);
    let from = out.len();
    put(out)?;
    let len = (out.len() - from) as u64;
    // Most are short: the place of one byte is right.
    let mut prefix = Vec::with_capacity(10);
    encode_varint(len, &mut prefix);
    out.splice(from..from, prefix);
    Ok(())
}

impl<'a> Values<'a> {
    fn of(array: &'a dyn Array) -> Result<Self, ArrowError> {
        Ok(match array.data_type() {
            DataType::Boolean => Values::Bool(array.as_boolean()),
            DataType::Int64 => Values::Int(array.as_primitive::<Int64Type>()),
            DataType::Float64 => Values::Double(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => Values::Text(array.as_string()),
            DataType::Binary => Values::Bytes(array.as_binary()),
            DataType::Date32 => Values::Date(array.as_primitive::<Date32Type>()),
            DataType::Time64(_) => Values::Time(array.as_primitive::<Time64MicrosecondType>()),
            DataType::Timestamp(_, Some(_)) => {
                Values::Timestamp(array.as_primitive::<TimestampMicrosecondType>())
            }
            DataType::Timestamp(_, None) => {
                Values::DateTime(array.as_primitive::<TimestampMicrosecondType>())
            }
            DataType::Decimal128(..) => Values::Decimal128(array.as_primitive::<Decimal128Type>()),
            DataType::Decimal256(..) => Values::Decimal256(array.as_primitive::<Decimal256Type>()),
            DataType::Struct(_) => {
                let parent = array.as_struct();
                let members = parent.columns().iter().map(|member| Values::of(member));
                Values::Struct(members.collect::<Result<_, _>>()?, parent.nulls())
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Values::List(Box::new(Values::of(list.values())?), list.offsets(), list.nulls())
            }
            other => return Err(ArrowError::NotYetImplemented(format!("{other} as protobuf"))),
        })
    }

    /// Appends one value, if it is not null.
    fn put(&self, number: u32, row: usize, out: &mut Vec<u8>) -> Result<bool, ArrowError> {
        let varint = |value: u64, out: &mut Vec<u8>| {
            encode_key(number, WireType::Varint, out);
            encode_varint(value, out);
        };
        match self {
            Values::Bool(values) if values.is_valid(row) => varint(u64::from(values.value(row)), out),
            Values::Int(values) if values.is_valid(row) => varint(values.value(row) as u64, out),
            // A negative one is extended to 64 bits, as protobuf wants it.
            Values::Date(values) if values.is_valid(row) => varint(i64::from(values.value(row)) as u64, out),
            Values::Timestamp(values) if values.is_valid(row) => varint(values.value(row) as u64, out),
            Values::Double(values) if values.is_valid(row) => {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend_from_slice(&values.value(row).to_le_bytes());
            }
            Values::Text(values) if values.is_valid(row) => bytes(number, values.value(row).as_bytes(), out),
            Values::Bytes(values) if values.is_valid(row) => bytes(number, values.value(row), out),
            Values::Time(values) if values.is_valid(row) => {
                let micros = values.value(row);
                let time = Time::midnight().checked_add(SignedDuration::from_micros(micros));
                let time = time.map_err(|_| no_text(micros, "time of a day"))?;
                bytes(number, time.to_string().as_bytes(), out);
            }
            Values::DateTime(values) if values.is_valid(row) => {
                let micros = values.value(row);
                let time = Timestamp::from_microsecond(micros).map_err(|_| no_text(micros, "time"))?;
                let time = jiff::tz::Offset::UTC.to_datetime(time);
                bytes(number, time.to_string().as_bytes(), out);
            }
            Values::Decimal128(values) if values.is_valid(row) => {
                let (precision, scale) = (values.precision(), values.scale());
                let text = Decimal128Type::format_decimal(values.value(row), precision, scale);
                bytes(number, text.as_bytes(), out);
            }
            Values::Decimal256(values) if values.is_valid(row) => {
                let (precision, scale) = (values.precision(), values.scale());
                let text = Decimal256Type::format_decimal(values.value(row), precision, scale);
                bytes(number, text.as_bytes(), out);
            }
            Values::Struct(members, nulls) if nulls.is_none_or(|nulls| nulls.is_valid(row)) => {
                delimited(number, out, |out| put_all(members, row, out))?;
            }
            // Lists of lists are JSON.
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn no_text(micros: i64, what: impl fmt::Display) -> ArrowError {
    ArrowError::InvalidArgumentError(format!("{micros} microseconds are no {what}"))
}
