//! A record as Python sees it.

use gristmill_records::{Header, Headers, NO_TIMESTAMP, RawBatch, RawBatchBuilder, Record as RawRecord};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::error::Failure;

/// One record of a batch. Its fields are made when they are read.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Record {
    batch: RawBatch,
    /// Its place in `batch`.
    at: usize,
    /// Its place in the batch that it came with.
    row: usize,
}

/// Topic, partition, place in its batch, offset, timestamp, key, value, and headers with their names as bytes.
type Parts<'py> = (
    String,
    i32,
    usize,
    i64,
    Option<i64>,
    Option<Bound<'py, PyBytes>>,
    Option<Bound<'py, PyBytes>>,
    Vec<(Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>)>,
);

impl Record {
    pub(crate) fn new(batch: RawBatch, row: usize) -> Option<Record> {
        (row < batch.len()).then_some(Record { batch, at: row, row })
    }

    fn get(&self) -> RawRecord<'_> {
        self.batch.get(self.at).expect("checked when it was made")
    }
}

#[pymethods]
impl Record {
    #[getter]
    fn topic(&self) -> &str {
        self.batch.topic()
    }

    #[getter]
    fn partition(&self) -> i32 {
        self.batch.partition()
    }

    /// Its place in its batch.
    #[getter]
    fn row(&self) -> usize {
        self.row
    }

    #[getter]
    fn offset(&self) -> i64 {
        self.get().offset()
    }

    /// Milliseconds since the Unix epoch.
    #[getter]
    fn timestamp_ms(&self) -> Option<i64> {
        self.get().timestamp()
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.get().key().map(|key| PyBytes::new(py, key))
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.get().value().map(|value| PyBytes::new(py, value))
    }

    /// Names and values; a name may come more than once.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        headers(py, self.get().headers())
    }

    /// What `__reduce__` gives.
    #[staticmethod]
    fn from_parts(parts: Parts<'_>) -> PyResult<Record> {
        let (topic, partition, row, offset, timestamp, key, value, headers) = parts;
        let bytes = |bytes: &Option<Bound<'_, PyBytes>>| bytes.as_ref().map(|b| b.as_bytes().to_vec());
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), bytes(value))).collect();
        let headers = headers.iter().map(|(name, value)| Header { name, value: value.as_deref() });
        let mut batch = RawBatchBuilder::new(topic, partition);
        batch
            .push(
                offset,
                timestamp.unwrap_or(NO_TIMESTAMP),
                bytes(&key).as_deref(),
                bytes(&value).as_deref(),
                headers,
            )
            .map_err(|e| Failure::invalid_argument(format!("this is no record: {e}")))?;
        Ok(Record { batch: batch.build(), at: 0, row })
    }

    /// For pickle.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Parts<'py>,))> {
        let record = self.get();
        let bytes = |bytes: Option<&[u8]>| bytes.map(|bytes| PyBytes::new(py, bytes));
        let headers = record.headers().map(|h| (PyBytes::new(py, h.name), bytes(h.value))).collect();
        let of = py.get_type::<Record>().getattr("from_parts")?;
        let parts = (
            self.batch.topic().to_string(),
            self.batch.partition(),
            self.row,
            record.offset(),
            record.timestamp(),
            bytes(record.key()),
            bytes(record.value()),
            headers,
        );
        Ok((of, (parts,)))
    }

    fn __repr__(&self) -> String {
        let record = self.get();
        let size = |bytes: Option<&[u8]>| bytes.map_or("null".to_owned(), |b| format!("{} bytes", b.len()));
        format!(
            "<Record {}-{} offset {}: key {}, value {}>",
            self.batch.topic(),
            self.batch.partition(),
            record.offset(),
            size(record.key()),
            size(record.value())
        )
    }
}

/// Headers as a list of names and values.
pub(crate) fn headers<'py>(py: Python<'py>, headers: Headers<'_>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for header in headers {
        let name = match std::str::from_utf8(header.name) {
            Ok(name) => PyString::new(py, name).into_any(),
            // Brokers do not check names: what is not UTF-8 keeps its bytes, as in file names.
            Err(_) => PyBytes::new(py, header.name).call_method1("decode", ("utf-8", "surrogateescape"))?,
        };
        list.append((name, header.value.map(|value| PyBytes::new(py, value))))?;
    }
    Ok(list)
}
