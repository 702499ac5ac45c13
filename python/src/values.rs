//! Arrow's values as Python's: `int`, `float`, `bool`, `str`, `bytes`, `Decimal`, `date`, `time`, `datetime`, `list`, `dict`.

use std::collections::{HashMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::temporal_conversions::{
    as_datetime, date32_to_datetime, time32ms_to_time, time32s_to_time, time64ns_to_time, time64us_to_time,
};
use arrow_array::types::*;
use arrow_array::{Array, ArrowPrimitiveType, StructArray};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, NaiveDateTime, NaiveTime, Timelike, Utc};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyType};

use crate::error::Failure;

/// The class that a struct becomes an object of, and those of its fields.
#[derive(Debug)]
pub(crate) struct Shape {
    class: Py<PyAny>,
    /// The keywords that it takes; other columns are left out.
    takes: HashSet<String>,
    fields: HashMap<String, Shape>,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Shape {
    type Error = PyErr;

    /// A tuple of the class, the names of its fields, and a dict of the shapes of fields that have one.
    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        type Given<'py> = (Py<PyAny>, HashSet<String>, HashMap<String, Bound<'py, PyAny>>);
        let (class, takes, fields): Given<'py> = given.extract()?;
        let fields = fields.into_iter().map(|(name, of)| Ok((name, of.extract()?)));
        Ok(Shape { class, takes, fields: fields.collect::<PyResult<_>>()? })
    }
}

/// Appends each row as a dict, or as an object made with the columns as keywords.
pub(crate) fn append_rows(
    py: Python<'_>,
    rows: &StructArray,
    shape: Option<&Shape>,
    to: &Bound<'_, PyList>,
) -> PyResult<()> {
    // A batch at a time, so that what is converted stays in the caches.
    for row in structs(py, rows, "", shape)? {
        to.append(row)?;
    }
    Ok(())
}

fn structs(
    py: Python<'_>,
    rows: &StructArray,
    path: &str,
    shape: Option<&Shape>,
) -> PyResult<Vec<Py<PyAny>>> {
    let mut columns = Vec::with_capacity(rows.num_columns());
    for (field, column) in rows.fields().iter().zip(rows.columns()) {
        if shape.is_some_and(|shape| !shape.takes.contains(field.name())) {
            continue;
        }
        let path = if path.is_empty() { field.name().clone() } else { format!("{path}.{}", field.name()) };
        let shape = shape.and_then(|shape| shape.fields.get(field.name()));
        columns.push((PyString::intern(py, field.name()), column_of(py, column, &path, shape)?.into_iter()));
    }
    let mut made = Vec::with_capacity(rows.len());
    for row in 0..rows.len() {
        let object = PyDict::new(py);
        for (name, values) in &mut columns {
            let value = values.next().expect("as many values as rows");
            object.set_item(&*name, value)?;
        }
        made.push(match shape {
            _ if rows.is_null(row) => py.None(),
            None => object.into_any().unbind(),
            Some(shape) => shape.class.call(py, (), Some(&object))?,
        });
    }
    Ok(made)
}

fn column_of(
    py: Python<'_>,
    column: &dyn Array,
    path: &str,
    shape: Option<&Shape>,
) -> PyResult<Vec<Py<PyAny>>> {
    use DataType as T;
    let unfit = |what: &str| {
        Failure::new("decode", format!("field {path}: {what}")).with_field(Some(path.to_owned()))
    };
    match column.data_type() {
        T::Null => Ok((0..column.len()).map(|_| py.None()).collect()),
        T::Boolean => each(column.as_boolean().iter(), |v| v.into_py_any(py)),
        T::Int8 => plain::<Int8Type>(py, column),
        T::Int16 => plain::<Int16Type>(py, column),
        T::Int32 => plain::<Int32Type>(py, column),
        T::Int64 => plain::<Int64Type>(py, column),
        T::UInt8 => plain::<UInt8Type>(py, column),
        T::UInt16 => plain::<UInt16Type>(py, column),
        T::UInt32 => plain::<UInt32Type>(py, column),
        T::UInt64 => plain::<UInt64Type>(py, column),
        T::Float32 => plain::<Float32Type>(py, column),
        T::Float64 => plain::<Float64Type>(py, column),
        T::Utf8 => each(column.as_string::<i32>().iter(), |v| v.into_py_any(py)),
        T::LargeUtf8 => each(column.as_string::<i64>().iter(), |v| v.into_py_any(py)),
        T::Binary => each(column.as_binary::<i32>().iter(), |v| bytes(py, v)),
        T::LargeBinary => each(column.as_binary::<i64>().iter(), |v| bytes(py, v)),
        T::FixedSizeBinary(_) => each(column.as_fixed_size_binary().iter(), |v| bytes(py, v)),
        T::Decimal128(..) => {
            decimals(py, column.as_primitive::<Decimal128Type>(), |v, i| v.value_as_string(i))
        }
        T::Decimal256(..) => {
            decimals(py, column.as_primitive::<Decimal256Type>(), |v, i| v.value_as_string(i))
        }
        T::Date32 => each(column.as_primitive::<Date32Type>().iter(), |days| {
            let date =
                date32_to_datetime(days).ok_or_else(|| unfit("a date outside of the years 1 to 9999"))?;
            date.date().into_py_any(py).map_err(|_| unfit("a date outside of the years 1 to 9999").into())
        }),
        T::Time32(TimeUnit::Second) => {
            times(py, column.as_primitive::<Time32SecondType>(), &unfit, time32s_to_time)
        }
        T::Time32(_) => times(py, column.as_primitive::<Time32MillisecondType>(), &unfit, time32ms_to_time),
        T::Time64(TimeUnit::Microsecond) => {
            times(py, column.as_primitive::<Time64MicrosecondType>(), &unfit, time64us_to_time)
        }
        T::Time64(_) => times(py, column.as_primitive::<Time64NanosecondType>(), &unfit, time64ns_to_time),
        T::Timestamp(unit, zone) => {
            let is_utc = zone.is_some();
            match unit {
                TimeUnit::Second => stamps::<TimestampSecondType>(py, column, is_utc, &unfit),
                TimeUnit::Millisecond => stamps::<TimestampMillisecondType>(py, column, is_utc, &unfit),
                TimeUnit::Microsecond => stamps::<TimestampMicrosecondType>(py, column, is_utc, &unfit),
                TimeUnit::Nanosecond => stamps::<TimestampNanosecondType>(py, column, is_utc, &unfit),
            }
        }
        T::Struct(_) => structs(py, column.as_struct(), path, shape),
        T::List(_) => {
            let list = column.as_list::<i32>();
            let items = column_of(py, list.values(), path, shape)?;
            each((0..list.len()).map(|row| list.is_valid(row).then_some(row)), |row| {
                let [begin, end] =
                    [list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize];
                PyList::new(py, &items[begin..end])?.into_py_any(py)
            })
        }
        T::Map(..) => {
            let map = column.as_map();
            let (keys, values) =
                (column_of(py, map.keys(), path, None)?, column_of(py, map.values(), path, shape)?);
            each((0..map.len()).map(|row| map.is_valid(row).then_some(row)), |row| {
                let entries = PyDict::new(py);
                for at in map.value_offsets()[row] as usize..map.value_offsets()[row + 1] as usize {
                    entries.set_item(&keys[at], &values[at])?;
                }
                entries.into_py_any(py)
            })
        }
        other => Err(unfit(&format!("values of {other} have no form in Python here; use to_arrow()")).into()),
    }
}

fn each<T>(
    values: impl Iterator<Item = Option<T>>,
    mut convert: impl FnMut(T) -> PyResult<Py<PyAny>>,
) -> PyResult<Vec<Py<PyAny>>> {
    // The caller is attached.
    Python::attach(|py| values.map(|value| value.map_or_else(|| Ok(py.None()), &mut convert)).collect())
}

fn plain<T: ArrowPrimitiveType>(py: Python<'_>, column: &dyn Array) -> PyResult<Vec<Py<PyAny>>>
where
    T::Native: for<'py> IntoPyObject<'py>,
{
    each(column.as_primitive::<T>().iter(), |v| v.into_py_any(py))
}

fn bytes(py: Python<'_>, value: &[u8]) -> PyResult<Py<PyAny>> {
    PyBytes::new(py, value).into_py_any(py)
}

fn decimals<A: Array>(
    py: Python<'_>,
    column: &A,
    text: impl Fn(&A, usize) -> String,
) -> PyResult<Vec<Py<PyAny>>> {
    static DECIMAL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = DECIMAL.import(py, "decimal", "Decimal")?;
    each((0..column.len()).map(|row| column.is_valid(row).then_some(row)), |row| {
        Ok(class.call1((text(column, row),))?.unbind())
    })
}

fn times<T: ArrowPrimitiveType>(
    py: Python<'_>,
    column: &arrow_array::PrimitiveArray<T>,
    unfit: &dyn Fn(&str) -> Failure,
    convert: impl Fn(T::Native) -> Option<NaiveTime>,
) -> PyResult<Vec<Py<PyAny>>> {
    each(column.iter(), |v| {
        let time = convert(v).ok_or_else(|| unfit("a time of day that no day has"))?;
        whole_microseconds(&time, unfit)?;
        time.into_py_any(py)
    })
}

fn stamps<T: ArrowPrimitiveType<Native = i64>>(
    py: Python<'_>,
    column: &dyn Array,
    is_utc: bool,
    unfit: &dyn Fn(&str) -> Failure,
) -> PyResult<Vec<Py<PyAny>>> {
    let years = || unfit("a timestamp outside of the years 1 to 9999");
    each(column.as_primitive::<T>().iter(), |v| {
        let at: NaiveDateTime = as_datetime::<T>(v).ok_or_else(years)?;
        whole_microseconds(&at, unfit)?;
        let made = match is_utc {
            true => DateTime::<Utc>::from_naive_utc_and_offset(at, Utc).into_py_any(py),
            false => at.into_py_any(py),
        };
        made.map_err(|_| years().into())
    })
}

/// Python's times have no more digits, and none is cut off in silence.
fn whole_microseconds(time: &impl Timelike, unfit: &dyn Fn(&str) -> Failure) -> Result<(), Failure> {
    match time.nanosecond() % 1_000 {
        0 => Ok(()),
        _ => Err(unfit("a time with nanoseconds, which Python's classes do not have; use to_arrow()")),
    }
}
