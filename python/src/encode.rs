//! Columns as values and keys of records.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use gristmill_codec::{AvroEncoder, avro_schema_of, encode_json};
use gristmill_pipeline::KAFKA_COLUMNS;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrow;
use crate::blocking::detached;
use crate::error::Failure;

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

/// Values of rows, as Avro by a schema and its id or as JSON, and keys from a column of them. `stream` is anything with
/// `__arrow_c_stream__`.
#[pyfunction]
#[pyo3(signature = (stream, avro, key))]
pub(crate) fn encode<'py>(
    py: Python<'py>,
    stream: &Bound<'py, PyAny>,
    avro: Option<(String, u32)>,
    key: Option<&str>,
) -> PyResult<Encoded<'py>> {
    let (schema, batches) = arrow::import(stream)?;
    let kept: Vec<usize> = (0..schema.fields().len())
        .filter(|i| !KAFKA_COLUMNS.contains(&schema.field(*i).name().as_str()))
        .collect();
    let mut encoder = match &avro {
        Some((text, id)) => Some(AvroEncoder::new(&own(&schema), text, *id).map_err(Failure::from)?),
        None => None,
    };
    let key_column =
        key.map(|name| schema.index_of(name).map_err(|_| no_column(name, &schema))).transpose()?;
    let (mut values, mut keys) = (Vec::new(), key.map(|_| Vec::new()));
    for batch in batches {
        let made = detached(py, || {
            let rows = batch.project(&kept).map_err(|e| Failure::new("other", e.to_string()))?;
            Ok::<_, Failure>(match &mut encoder {
                Some(encoder) => encoder.encode(&rows)?,
                None => encode_json(&rows)?,
            })
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
