//! Values that a column's type has and BigQuery has not: found before they are sent, row by row.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTimestampType, Date32Type, Date64Type, Float32Type, Float64Type,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, TimeUnit};

use super::columns::is_json;
use super::rows::{Form, MAX_MESSAGE, RowsEncoder};

/// Days since 1970 of 0001-01-01 and of 9999-12-31, both of which DATE, DATETIME and TIMESTAMP have.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;
const MICROS: i128 = 86_400_000_000;

/// A row that a table of BigQuery cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misfit {
    /// Which row.
    pub row: usize,
    /// A code for the kind of reason.
    pub code: &'static str,
    /// Which column, and why.
    pub why: String,
}

/// The rows that BigQuery would refuse, each once, in order: times before the year 1 or after 9999, or that no day has, null elements of lists,
/// numbers that JSON has not in what becomes JSON, and more bytes than a request may have. What is not found here BigQuery finds itself.
/// `changes` says that they end with [`CHANGE_TYPE`](super::CHANGE_TYPE) and [`CHANGE_SEQUENCE_NUMBER`](super::CHANGE_SEQUENCE_NUMBER).
///
/// # Errors
/// As [`table_columns`](super::table_columns), in one sentence.
pub fn misfits(rows: &RecordBatch, changes: bool) -> Result<Vec<Misfit>, String> {
    let mut found = BTreeMap::new();
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        for (row, code, why) in of_array(field.name(), column, false) {
            found.entry(row).or_insert(Misfit { row, code, why });
        }
    }
    let most = rows.columns().iter().map(|column| {
        column.get_array_memory_size().saturating_mul(growth(column.data_type(), changes, false))
    });
    if most.fold(0, usize::saturating_add) > MAX_MESSAGE {
        let form = if changes { Form::Changes } else { Form::Arrow };
        let mut encoder = RowsEncoder::new(&rows.schema(), form).map_err(|e| e.to_string())?;
        drop(encoder.take(0));
        let mut size = |from: usize, len: usize| encoder.size_of(&rows.slice(from, len));
        let mut parts = vec![(0, rows.num_rows())];
        while let Some((from, len)) = parts.pop() {
            let (code, why) = match size(from, len) {
                _ if len == 0 => continue,
                Ok(size) if size <= MAX_MESSAGE => continue,
                Ok(_) => {
                    let most = MAX_MESSAGE >> 20;
                    ("ROW_TOO_LARGE", format!("the row has more than the {most} MiB that a request may have"))
                }
                Err(e) => ("NOT_CONVERTED", e.to_string()),
            };
            if len == 1 {
                found.entry(from).or_insert(Misfit { row: from, code, why });
                continue;
            }
            parts.extend([(from, len / 2), (from + len / 2, len - len / 2)]);
        }
    }
    Ok(found.into_values().collect())
}

/// How many times as large values may become on their way: texts of JSON, and protobuf in place of Arrow.
fn growth(data_type: &DataType, changes: bool, in_json: bool) -> usize {
    let in_json = in_json || is_json(data_type);
    match data_type {
        DataType::Struct(fields) => {
            fields.iter().map(|field| growth(field.data_type(), changes, in_json)).max().unwrap_or(1)
        }
        DataType::List(item) | DataType::Map(item, _) => growth(item.data_type(), changes, in_json),
        // A bit as `false,`; a byte as `-128,`, or as `\u0001`.
        DataType::Boolean if in_json => 48,
        DataType::Int8 | DataType::UInt8 | DataType::Utf8 if in_json => 6,
        DataType::Boolean if changes => 16,
        // Ten bytes of a negative number, and its key.
        DataType::Int8 | DataType::UInt8 if changes => 12,
        _ if in_json || changes => 6,
        // Into 64 bits.
        DataType::Int8 | DataType::UInt8 => 8,
        DataType::Int16 | DataType::UInt16 => 4,
        DataType::Int32 | DataType::UInt32 | DataType::UInt64 | DataType::Float32 | DataType::Time32(_) => 2,
        _ => 1,
    }
}

type Found = Vec<(usize, &'static str, String)>;

fn of_array(path: &str, array: &dyn Array, in_json: bool) -> Found {
    let in_json = in_json || is_json(array.data_type());
    match array.data_type() {
        DataType::Float32 if in_json => {
            let values = array.as_primitive::<Float32Type>();
            outside(path, array, NOT_IN_JSON, |row| values.value(row).is_finite())
        }
        DataType::Float64 if in_json => {
            let values = array.as_primitive::<Float64Type>();
            outside(path, array, NOT_IN_JSON, |row| values.value(row).is_finite())
        }
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>();
            outside(path, array, OUT_OF_RANGE, |row| {
                (FIRST_DAY..=LAST_DAY).contains(&i64::from(days.value(row)))
            })
        }
        DataType::Date64 => {
            let millis = array.as_primitive::<Date64Type>();
            outside(path, array, OUT_OF_RANGE, |row| {
                (FIRST_DAY..=LAST_DAY).contains(&millis.value(row).div_euclid(86_400_000))
            })
        }
        DataType::Time32(TimeUnit::Second) => clock::<Time32SecondType>(path, array, 1),
        DataType::Time32(_) => clock::<Time32MillisecondType>(path, array, 1_000),
        DataType::Time64(TimeUnit::Microsecond) => clock::<Time64MicrosecondType>(path, array, 1_000_000),
        DataType::Time64(_) => clock::<Time64NanosecondType>(path, array, 1_000_000_000),
        DataType::Timestamp(TimeUnit::Second, _) => times::<TimestampSecondType>(path, array, 1_000_000, 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            times::<TimestampMillisecondType>(path, array, 1_000, 1)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => times::<TimestampMicrosecondType>(path, array, 1, 1),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            times::<TimestampNanosecondType>(path, array, 1, 1_000)
        }
        DataType::Struct(fields) => {
            let parent = array.as_struct();
            let members = fields.iter().zip(parent.columns());
            let found = members
                .flat_map(|(field, member)| of_array(&format!("{path}.{}", field.name()), member, in_json));
            found.filter(|(row, ..)| parent.is_valid(*row)).collect()
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let mut found = of_array(path, list.values(), in_json);
            if let Some(nulls) = list.values().logical_nulls().filter(|_| !in_json) {
                let null = (0..nulls.len()).filter(|at| nulls.is_null(*at));
                let why = format!("a list in column {path} has a null element, which BigQuery has none of");
                found.extend(null.map(|at| (at, "NULL_IN_LIST", why.clone())));
            }
            let rows = found.into_iter().filter_map(|(at, code, why)| {
                let row = row_of(list.offsets(), at)?;
                list.is_valid(row).then_some((row, code, why))
            });
            rows.collect()
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let found = of_array(path, map.entries(), true).into_iter();
            let rows = found.filter_map(|(at, code, why)| Some((row_of(map.offsets(), at)?, code, why)));
            rows.filter(|(row, ..)| map.is_valid(*row)).collect()
        }
        _ => Found::new(),
    }
}

/// Of times of a day, so many of which are a second.
fn clock<T>(path: &str, array: &dyn Array, second: i64) -> Found
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    let values = array.as_primitive::<T>();
    let day = 0..86_400 * second;
    outside(path, array, NO_TIME, |row| day.contains(&values.value(row).into()))
}

fn times<T: ArrowTimestampType>(path: &str, array: &dyn Array, times: i128, over: i128) -> Found {
    let values = array.as_primitive::<T>();
    let days = i128::from(FIRST_DAY) * MICROS..(i128::from(LAST_DAY) + 1) * MICROS;
    outside(path, array, OUT_OF_RANGE, |row| {
        days.contains(&(i128::from(values.value(row)) * times).div_euclid(over))
    })
}

/// A code, and what a column holds.
type Reason = (&'static str, &'static str);

const OUT_OF_RANGE: Reason =
    ("TIME_OUT_OF_RANGE", "a time that is not in the years 1 to 9999, which BigQuery has");
const NO_TIME: Reason = ("TIME_OUT_OF_RANGE", "a time that no day has");
const NOT_IN_JSON: Reason = ("NOT_IN_JSON", "a number that JSON has not");

fn outside(path: &str, array: &dyn Array, reason: Reason, fits: impl Fn(usize) -> bool) -> Found {
    let (code, what) = reason;
    let bad = (0..array.len()).filter(|row| array.is_valid(*row) && !fits(*row));
    bad.map(|row| (row, code, format!("column {path} holds {what}"))).collect()
}

/// The list that holds an element.
fn row_of(offsets: &OffsetBuffer<i32>, at: usize) -> Option<usize> {
    let behind = offsets.partition_point(|offset| *offset as usize <= at);
    (1..offsets.len()).contains(&behind).then(|| behind - 1)
}
