//! A record as Python sees it.

use gristmill_records::{Headers, RawBatch, Record as RawRecord};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

/// One record of a batch. Its fields are made when they are read.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Record {
    batch: RawBatch,
    row: usize,
}

impl Record {
    pub(crate) fn new(batch: RawBatch, row: usize) -> Option<Record> {
        (row < batch.len()).then_some(Record { batch, row })
    }

    fn get(&self) -> RawRecord<'_> {
        self.batch.get(self.row).expect("checked when it was made")
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
