//! Lists of plain values as Arrow's columns. Nothing of them is trusted.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, PrimitiveArray, StringArray,
};
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use gristmill_codec::{JsonDecoder, JsonOptions};
use serde_json::value::RawValue;

use super::{VALUE, schema_of};
use crate::contract::simple::Values;

/// Arrays of `rows` rows for the fields.
///
/// # Errors
/// The first thing that is wrong, with the column.
pub(in super::super) fn arrays(
    fields: &[FieldRef],
    rows: usize,
    computed: Vec<Values>,
) -> Result<Vec<ArrayRef>, String> {
    if computed.len() != fields.len() {
        return Err(format!("{} columns, it computes {}", computed.len(), fields.len()));
    }
    let pairs = fields.iter().zip(computed);
    pairs
        .map(|(field, values)| {
            let wrong = |what: String| format!("column {}: {what}", field.name());
            let given = len(&values);
            if given != rows {
                return Err(wrong(format!("{given} values, {rows} rows go on")));
            }
            let array = array(field, values).map_err(wrong)?;
            match array.null_count() {
                nulls if nulls > 0 && !field.is_nullable() => {
                    Err(wrong(format!("{nulls} nulls where none may be")))
                }
                _ => Ok(array),
            }
        })
        .collect()
}

fn len(values: &Values) -> usize {
    match values {
        Values::Booleans(v) => v.len(),
        Values::Integers(v) => v.len(),
        Values::Numbers(v) => v.len(),
        Values::Texts(v) => v.len(),
        Values::Blobs(v) => v.len(),
        Values::Absent => 0,
    }
}

fn array(field: &Field, values: Values) -> Result<ArrayRef, String> {
    let values = match (field.data_type(), values) {
        (DataType::UInt64, values) => values,
        (plain, Values::Texts(texts)) if plain.is_integer() || plain.is_temporal() => {
            Values::Integers(parsed(texts, field)?)
        }
        (_, values) => values,
    };
    Ok(match (field.data_type(), values) {
        (DataType::Boolean, Values::Booleans(v)) => Arc::new(BooleanArray::from(v)),
        (DataType::Int8, Values::Integers(v)) => Arc::new(integers::<Int8Type>(v)?),
        (DataType::Int16, Values::Integers(v)) => Arc::new(integers::<Int16Type>(v)?),
        (DataType::Int32, Values::Integers(v)) => Arc::new(integers::<Int32Type>(v)?),
        (DataType::Int64, Values::Integers(v)) => Arc::new(integers::<Int64Type>(v)?),
        (DataType::UInt8, Values::Integers(v)) => Arc::new(integers::<UInt8Type>(v)?),
        (DataType::UInt16, Values::Integers(v)) => Arc::new(integers::<UInt16Type>(v)?),
        (DataType::UInt32, Values::Integers(v)) => Arc::new(integers::<UInt32Type>(v)?),
        (DataType::Date32, Values::Integers(v)) => Arc::new(integers::<Date32Type>(v)?),
        (DataType::Timestamp(unit, zone), Values::Integers(v)) => {
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => {
                    Arc::new(integers::<TimestampSecondType>(v)?.with_timezone_opt(zone)) as ArrayRef
                }
                TimeUnit::Millisecond => {
                    Arc::new(integers::<TimestampMillisecondType>(v)?.with_timezone_opt(zone))
                }
                TimeUnit::Microsecond => {
                    Arc::new(integers::<TimestampMicrosecondType>(v)?.with_timezone_opt(zone))
                }
                TimeUnit::Nanosecond => {
                    Arc::new(integers::<TimestampNanosecondType>(v)?.with_timezone_opt(zone))
                }
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "the column is of that width")]
        (DataType::Float32, Values::Numbers(v)) => {
            Arc::new(v.into_iter().map(|v| v.map(|v| v as f32)).collect::<Float32Array>())
        }
        (DataType::Float64, Values::Numbers(v)) => Arc::new(Float64Array::from(v)),
        (DataType::Utf8, Values::Texts(v)) => Arc::new(StringArray::from(v)),
        (DataType::Binary, Values::Blobs(v)) => Arc::new(BinaryArray::from_iter(v)),
        (DataType::UInt64, Values::Texts(v)) => {
            Arc::new(PrimitiveArray::<UInt64Type>::from(parsed::<u64>(v, field)?))
        }
        (DataType::Decimal128(..), Values::Texts(v)) => {
            through_json(field, &v, |text| Ok(serde_json::Value::from(text).to_string()))?
        }
        (DataType::List(_) | DataType::Map(..), Values::Texts(v)) => {
            through_json(field, &v, |text| match serde_json::from_str::<&RawValue>(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(e) => Err(format!("is not JSON: {e}")),
            })?
        }
        (data_type, values) => {
            let case = match values {
                Values::Booleans(_) => "booleans",
                Values::Integers(_) => "integers",
                Values::Numbers(_) => "numbers",
                Values::Texts(_) => "texts",
                Values::Blobs(_) => "blobs",
                Values::Absent => "absent",
            };
            return Err(format!("{case} for {}", super::type_name(data_type)));
        }
    })
}

/// Digits as integers.
fn parsed<T: std::str::FromStr>(texts: Vec<Option<String>>, field: &Field) -> Result<Vec<Option<T>>, String> {
    let parse = |(i, text): (usize, Option<String>)| match text {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            let shown: String = text.chars().take(60).collect();
            format!("value {i}: {shown:?} is no {}", super::type_name(field.data_type()))
        }),
    };
    texts.into_iter().enumerate().map(parse).collect()
}

fn integers<T>(values: Vec<Option<i64>>) -> Result<PrimitiveArray<T>, String>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i64>,
{
    let narrow = |(i, value): (usize, Option<i64>)| match value {
        None => Ok(None),
        Some(value) => T::Native::try_from(value)
            .map(Some)
            .map_err(|_| format!("value {i}: {value} does not fit {}", super::type_name(&T::DATA_TYPE))),
    };
    let values: Result<Vec<_>, String> = values.into_iter().enumerate().map(narrow).collect();
    Ok(values?.into_iter().collect())
}

/// By way of the decoder of JSON values, which is exact about what fits.
fn through_json(
    field: &Field,
    texts: &[Option<String>],
    json: impl Fn(&str) -> Result<String, String>,
) -> Result<ArrayRef, String> {
    let nullable = field.clone().with_nullable(true);
    let mut decoder =
        JsonDecoder::new(schema_of(&nullable), JsonOptions::default()).map_err(|e| e.to_string())?;
    let mut documents = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let value = match text {
            None => "null".to_owned(),
            Some(text) => json(text).map_err(|e| format!("value {i} {e}"))?,
        };
        documents.push(format!("{{\"{VALUE}\":{value}}}"));
    }
    let rows = documents.iter().enumerate().map(|(i, document)| (i as u64, Some(document.as_bytes())));
    let decoded = decoder.decode(rows).map_err(|e| e.to_string())?;
    match decoded.undecodable.first() {
        Some(bad) => Err(format!("value {}: {}", bad.row, bad.reason)),
        None => Ok(decoded.batch.column(0).clone()),
    }
}
