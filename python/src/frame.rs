//! Decoded records: columns, and what did not decode.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};
use gristmill_pipeline::{DecodedRecords, KAFKA_COLUMNS};
use gristmill_records::RawBatch;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyList};

use crate::error::Failure;
use crate::{arrow, values};

/// Columns of records, in batches.
#[pyclass(frozen, module = "gristmill._lib")]
#[derive(Clone)]
pub(crate) struct Frame {
    /// How many columns are the rows' own; Kafka's come behind them.
    pub(crate) own: usize,
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) undecodable: Vec<Undecodable>,
}

/// A record that did not decode.
#[pyclass(frozen, get_all, from_py_object, module = "gristmill._lib")]
#[derive(Clone, Debug)]
pub(crate) struct Undecodable {
    /// Its place in its batch.
    row: usize,
    partition: i32,
    offset: i64,
    /// The class of fault, as in the code of a dead letter.
    pub(crate) code: String,
    pub(crate) reason: String,
}

/// What an [`Undecodable`] is made of again.
type Parts = (usize, i32, i64, String, String);

#[pymethods]
impl Undecodable {
    #[new]
    fn new(row: usize, partition: i32, offset: i64, code: String, reason: String) -> Self {
        Undecodable { row, partition, offset, code, reason }
    }

    /// For pickle.
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyAny>, Parts) {
        let Undecodable { row, partition, offset, code, reason } = self.clone();
        (py.get_type::<Undecodable>().into_any(), (row, partition, offset, code, reason))
    }

    fn __repr__(&self) -> String {
        let Undecodable { partition, offset, code, reason, .. } = self;
        format!("Undecodable(partition={partition}, offset={offset}, code={code:?}, reason={reason:?})")
    }
}

impl Undecodable {
    pub(crate) fn of(batch: &RawBatch, decoded: &DecodedRecords) -> Vec<Undecodable> {
        let bad = decoded.undecodable.iter();
        bad.map(|bad| Undecodable {
            row: bad.record,
            partition: batch.partition(),
            offset: batch.get(bad.record).map_or(-1, |record| record.offset()),
            code: bad.code.clone(),
            reason: bad.reason.clone(),
        })
        .collect()
    }

    pub(crate) fn row(&self) -> usize {
        self.row
    }

    /// As an error that names the first of several.
    pub(crate) fn failure(all: &[Undecodable], topic: &str, advice: &str) -> Option<Failure> {
        let first = all.first()?;
        let Undecodable { partition, offset, reason, .. } = first;
        let others = match all.len() {
            1 => String::new(),
            count => format!(" ({} more like this)", count - 1),
        };
        let message =
            format!("topic {topic}, partition {partition}, offset {offset}: {reason}{others}; {advice}");
        // The codec's sentence begins with the field, where it is about one.
        let field =
            reason.strip_prefix("field ").and_then(|rest| rest.split_once(": ")).map(|(name, _)| name);
        let failure = Failure::new("decode", message).at(topic, *partition, *offset);
        Some(failure.with_field(field.map(str::to_owned)))
    }
}

type Reduced<'py> = (Bound<'py, PyBytes>, usize, Vec<Undecodable>);

impl Frame {
    /// Of decoded records.
    pub(crate) fn of_records(rows: RecordBatch, undecodable: Vec<Undecodable>) -> Frame {
        let schema = rows.schema();
        Frame { own: own_columns(&schema), schema, batches: vec![rows], undecodable }
    }
}

/// How many columns come before Kafka's.
pub(crate) fn own_columns(schema: &SchemaRef) -> usize {
    schema.fields().len() - KAFKA_COLUMNS.len()
}

#[pymethods]
impl Frame {
    fn __len__(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Bytes of the columns in memory.
    #[getter]
    fn nbytes(&self) -> usize {
        // Of the rows that there are: batches may be parts of larger columns.
        let columns = self.batches.iter().flat_map(RecordBatch::columns);
        columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or_default()).sum()
    }

    #[getter]
    fn undecodable(&self) -> Vec<Undecodable> {
        self.undecodable.clone()
    }

    /// What `__reduce__` gives: the columns as an Arrow IPC stream, how many are the rows' own, and what did not decode.
    #[staticmethod]
    fn from_ipc(ipc: &[u8], own: usize, undecodable: Vec<Undecodable>) -> PyResult<Frame> {
        let read = || {
            let reader = StreamReader::try_new(ipc, None)?;
            let schema = reader.schema();
            Ok((schema, reader.collect::<Result<Vec<_>, ArrowError>>()?))
        };
        let (schema, batches) =
            read().map_err(|e: ArrowError| Failure::invalid_argument(format!("this is no frame: {e}")))?;
        if own > schema.fields().len() {
            return Err(Failure::invalid_argument(format!("there are no {own} columns")).into());
        }
        Ok(Frame { own, schema, batches, undecodable })
    }

    /// For pickle.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Reduced<'py>)> {
        let write = || {
            let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
            self.batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.into_inner()
        };
        let ipc =
            py.detach(write).map_err(|e| Failure::new("other", format!("a frame cannot be written: {e}")))?;
        let of = py.get_type::<Frame>().getattr("from_ipc")?;
        Ok((of, (PyBytes::new(py, &ipc), self.own, self.undecodable.clone())))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        arrow::schema(py, &self.schema)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // A wish, which the protocol lets us pass over.
        let _ = requested_schema;
        arrow::stream(py, self.schema.clone(), self.batches.clone())
    }

    /// The rows as dicts, or as objects of a class that takes the columns as keywords.
    #[pyo3(signature = (kafka_columns, shape=None))]
    fn rows<'py>(
        &self,
        py: Python<'py>,
        kafka_columns: bool,
        shape: Option<values::Shape>,
    ) -> PyResult<Bound<'py, PyList>> {
        let rows = PyList::empty(py);
        for batch in &self.batches {
            let shown: Vec<usize> = (0..if kafka_columns { batch.num_columns() } else { self.own }).collect();
            let part = batch.project(&shown).map_err(|e| Failure::new("decode", e.to_string()))?;
            if let Err(error) =
                values::append_rows(py, &StructArray::from(part.clone()), shape.as_ref(), &rows)
            {
                return Err(self.place(py, batch, &part, shape.as_ref(), error));
            }
        }
        Ok(rows)
    }
}

impl Frame {
    /// The error again, with the place of the first row that it comes from. A place is looked for only now that it is needed.
    fn place(
        &self,
        py: Python<'_>,
        batch: &RecordBatch,
        part: &RecordBatch,
        shape: Option<&values::Shape>,
        error: PyErr,
    ) -> PyErr {
        if self.own == batch.num_columns() || !error.value(py).hasattr("offset").unwrap_or(false) {
            return error;
        }
        let fails = |row: &usize| {
            let alone = StructArray::from(part.slice(*row, 1));
            values::append_rows(py, &alone, shape, &PyList::empty(py)).is_err()
        };
        if let Some(row) = (0..part.num_rows()).find(fails) {
            let partition = batch.column(self.own).as_primitive::<Int32Type>().value(row);
            let offset = batch.column(self.own + 1).as_primitive::<Int64Type>().value(row);
            let value = error.value(py);
            let placed = value.setattr("partition", partition).and_then(|()| value.setattr("offset", offset));
            let message = format!("partition {partition}, offset {offset}: {value}");
            if let Err(error) = placed.and_then(|()| value.setattr("args", (message,))) {
                return error;
            }
        }
        error
    }
}
