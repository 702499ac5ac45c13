//! Columns as values and keys of records.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use gristmill_codec::avro_schema_of;
use gristmill_pipeline::{KAFKA_COLUMNS, ValueEncoder, WriteFormat};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrow;
use crate::blocking::{detached, wait};
use crate::error::Failure;
use crate::value_format::Format;

/// The Avro schema of columns, as JSON.
#[pyfunction]
pub(crate) fn avro_schema(columns: &Bound<'_, PyAny>, name: &str) -> PyResult<String> {
    let schema = own(&arrow::import_schema(columns)?);
    Ok(avro_schema_of(&schema, name).map_err(Failure::from)?)
}

fn own(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().filter(|field| !KAFKA_COLUMNS.contains(&field.name().as_str()));
    Schema::new(fields.cloned().collect::<Vec<_>>())
}

type Encoded<'py> = (Vec<Bound<'py, PyBytes>>, Option<Vec<Option<Bound<'py, PyBytes>>>>);

/// Values of rows, and keys from a column of them. `stream` is anything with `__arrow_c_stream__`; without a format they are JSON.
/// `schema` says which one they are written with, else it is the latest of the subject; `new`: it is registered.
#[pyfunction]
#[pyo3(signature = (stream, format, topic, schema, new, key))]
pub(crate) fn encode<'py>(
    py: Python<'py>,
    stream: &Bound<'py, PyAny>,
    format: Option<&Format>,
    topic: &str,
    schema: Option<String>,
    new: bool,
    key: Option<&str>,
) -> PyResult<Encoded<'py>> {
    let (columns, batches) = arrow::import(stream)?;
    let kept: Vec<usize> = (0..columns.fields().len())
        .filter(|i| !KAFKA_COLUMNS.contains(&columns.field(*i).name().as_str()))
        .collect();
    let written = match format {
        Some(format) => format.described().written(topic, schema, new)?,
        None => WriteFormat::Json,
    };
    let mut encoder = wait(py, ValueEncoder::open(written, &own(&columns)))?.map_err(Failure::from)?;
    let schema = columns;
    let key_column =
        key.map(|name| schema.index_of(name).map_err(|_| no_column(name, &schema))).transpose()?;
    let (mut values, mut keys) = (Vec::new(), key.map(|_| Vec::new()));
    for batch in batches {
        let made = detached(py, || {
            let rows = batch.project(&kept).map_err(|e| Failure::new("other", e.to_string()))?;
            Ok::<_, Failure>(encoder.encode(&rows)?)
        })?;
        values.extend(made.iter().map(|value| PyBytes::new(py, value)));
        if let (Some(keys), Some(column)) = (&mut keys, key_column) {
            append_keys(py, &batch, column, keys)?;
        }
        py.check_signals()?;
    }
    Ok((values, keys))
}

fn no_column(name: &str, schema: &Schema) -> Failure {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Failure::invalid_argument(format!("key: there is no column `{name}`; there are {}", names.join(", ")))
}

/// Texts and bytes as they are, integers as text.
fn append_keys<'py>(
    py: Python<'py>,
    batch: &RecordBatch,
    column: usize,
    keys: &mut Vec<Option<Bound<'py, PyBytes>>>,
) -> Result<(), Failure> {
    let array = batch.column(column);
    let bytes = |value: &[u8]| PyBytes::new(py, value);
    match array.data_type() {
        DataType::Utf8 => {
            keys.extend(array.as_string::<i32>().iter().map(|v| v.map(|v| bytes(v.as_bytes()))))
        }
        DataType::Binary => keys.extend(array.as_binary::<i32>().iter().map(|v| v.map(bytes))),
        DataType::Int32 => keys.extend(
            array.as_primitive::<Int32Type>().iter().map(|v| v.map(|v| bytes(v.to_string().as_bytes()))),
        ),
        DataType::Int64 => keys.extend(
            array.as_primitive::<Int64Type>().iter().map(|v| v.map(|v| bytes(v.to_string().as_bytes()))),
        ),
        other => {
            let name = batch.schema_ref().field(column).name().clone();
            let text =
                format!("key: the column `{name}` is {other}; keys are made of texts, bytes and integers");
            return Err(Failure::invalid_argument(text));
        }
    }
    Ok(())
}
