//! Columns to Python by Arrow's C interface, in capsules: <https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>.
//! What goes to Python is not copied.

use std::sync::Arc;

use arrow_array::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use arrow_array::{RecordBatch, RecordBatchIterator, RecordBatchOptions, RecordBatchReader};
use arrow_cast::cast;
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods};

use crate::error::Failure;

/// For `__arrow_c_stream__`.
pub(crate) fn stream<'py>(
    py: Python<'py>,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> PyResult<Bound<'py, PyCapsule>> {
    export(py, RecordBatchIterator::new(batches.into_iter().map(Ok), schema))
}

/// A stream of batches as they come.
pub(crate) fn export<'py>(
    py: Python<'py>,
    reader: impl RecordBatchReader + Send + 'static,
) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), c"arrow_array_stream")
}

/// For `__arrow_c_schema__`.
pub(crate) fn schema<'py>(py: Python<'py>, schema: &SchemaRef) -> PyResult<Bound<'py, PyCapsule>> {
    let exported = FFI_ArrowSchema::try_from(schema.as_ref())
        .map_err(|e| Failure::new("decode", format!("the schema cannot cross to Python: {e}")))?;
    PyCapsule::new_with_value(py, exported, c"arrow_schema")
}

/// Takes the columns of anything with `__arrow_c_stream__`, texts, bytes and lists in their plain form: polars has views.
pub(crate) fn import(source: &Bound<'_, PyAny>) -> PyResult<(SchemaRef, Vec<RecordBatch>)> {
    let reader = reader(source)?;
    let schema = Arc::new(plain_schema(&reader.schema()));
    let plain = |batch: RecordBatch| {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns =
            columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(schema.clone(), columns, &rows)
    };
    let batches = reader.map(|batch| batch.and_then(plain)).collect::<Result<_, _>>();
    Ok((schema.clone(), batches.map_err(|e| unreadable(&e))?))
}

fn reader(source: &Bound<'_, PyAny>) -> PyResult<RecordBatchStreamReader> {
    let capsule = source.call_method0("__arrow_c_stream__")?;
    let capsule = capsule.cast::<PyCapsule>()?;
    let stream = capsule.pointer_checked(Some(c"arrow_array_stream"))?;
    // SAFETY: by the name it is a stream of Arrow's C interface, and it lives as long as the capsule. It is moved out; what
    // is left there says that it was, as the interface asks.
    let reader = unsafe { RecordBatchStreamReader::from_raw(stream.cast::<FFI_ArrowArrayStream>().as_ptr()) };
    Ok(reader.map_err(|e| unreadable(&e))?)
}

fn unreadable(error: &ArrowError) -> Failure {
    Failure::invalid_argument(format!("the columns cannot be read: {error}"))
}

fn plain_schema(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| plain_field(field)).collect::<Vec<_>>();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn plain_field(field: &Field) -> Field {
    field.clone().with_data_type(plain_type(field.data_type()))
}

fn plain_type(data_type: &DataType) -> DataType {
    use DataType as T;
    let inner = |field: &Field| Arc::new(plain_field(field));
    match data_type {
        T::Utf8View | T::LargeUtf8 => T::Utf8,
        T::BinaryView | T::LargeBinary => T::Binary,
        T::List(item) | T::LargeList(item) | T::ListView(item) | T::LargeListView(item) => {
            T::List(inner(item))
        }
        T::Struct(fields) => T::Struct(fields.iter().map(|field| inner(field)).collect()),
        T::Map(entries, sorted) => T::Map(inner(entries), *sorted),
        T::Dictionary(_, values) => plain_type(values),
        other => other.clone(),
    }
}

/// The columns of anything that has some: by `__arrow_c_schema__`, or by its stream.
pub(crate) fn import_schema(source: &Bound<'_, PyAny>) -> PyResult<Schema> {
    if !source.hasattr("__arrow_c_schema__")? {
        return Ok(plain_schema(&reader(source)?.schema()));
    }
    let capsule = source.call_method0("__arrow_c_schema__")?;
    let capsule = capsule.cast::<PyCapsule>()?;
    let pointer = capsule.pointer_checked(Some(c"arrow_schema"))?;
    // SAFETY: by the name it is a schema of Arrow's C interface, and it lives as long as the capsule.
    let exported = unsafe { pointer.cast::<FFI_ArrowSchema>().as_ref() };
    Ok(plain_schema(&Schema::try_from(exported).map_err(|e| unreadable(&e))?))
}
