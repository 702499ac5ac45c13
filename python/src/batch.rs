//! Records of one partition, and their verdicts.

use std::sync::Arc;

use gristmill::GroupBatch;
use gristmill_records::RawBatch;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use tokio::sync::OnceCell;

use crate::awaiting::{Awaited, Task};
use crate::blocking::{OfProcess, wait};
use crate::consumer::Decoding;
use crate::error::Failure;
use crate::frame::{Frame, Undecodable};
use crate::record::Record;

/// See `gristmill/batch.py`. When the last reference goes, rows without a verdict are delivered again.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Batch {
    inner: Arc<Inner>,
}

struct Inner {
    batch: OfProcess<GroupBatch>,
    records: RawBatch,
    decoding: Arc<Decoding>,
    decoded: OnceCell<Frame>,
}

impl Batch {
    pub(crate) fn new(batch: GroupBatch, decoding: Arc<Decoding>) -> Self {
        let records = batch.records().clone();
        let inner = Inner { batch: OfProcess::new(batch), records, decoding, decoded: OnceCell::new() };
        Batch { inner: Arc::new(inner) }
    }
}

impl Inner {
    /// Decodes it once.
    async fn decoded(&self) -> Result<&Frame, Failure> {
        let decode = async || {
            let decoded = self.decoding.decode(&self.records).await?;
            let undecodable = Undecodable::of(&self.records, &decoded);
            Ok(Frame { schema: decoded.rows.schema(), batches: vec![decoded.rows], undecodable })
        };
        self.decoded.get_or_try_init(decode).await
    }
}

#[pymethods]
impl Batch {
    #[getter]
    fn topic(&self) -> &str {
        self.inner.records.topic()
    }

    #[getter]
    fn partition(&self) -> i32 {
        self.inner.records.partition()
    }

    #[getter]
    fn first_offset(&self) -> i64 {
        self.inner.records.first_offset().unwrap_or(-1)
    }

    #[getter]
    fn last_offset(&self) -> i64 {
        self.inner.records.last_offset().unwrap_or(-1)
    }

    #[getter]
    fn times_delivered(&self) -> Result<u32, Failure> {
        Ok(self.inner.batch.get()?.times_delivered())
    }

    #[getter]
    fn rows_left(&self) -> Result<usize, Failure> {
        Ok(self.inner.batch.get()?.rows_left())
    }

    fn __len__(&self) -> usize {
        self.inner.records.len()
    }

    fn record(&self, row: usize) -> Option<Record> {
        Record::new(self.inner.records.clone(), row)
    }

    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let values: Vec<_> =
            self.inner.records.iter().map(|r| r.value().map(|value| PyBytes::new(py, value))).collect();
        PyList::new(py, values)
    }

    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let keys: Vec<_> =
            self.inner.records.iter().map(|r| r.key().map(|key| PyBytes::new(py, key))).collect();
        PyList::new(py, keys)
    }

    /// The rows that decode, once for all calls.
    fn decoded(&self, py: Python<'_>, keep_undecodable: bool) -> PyResult<Frame> {
        let frame = wait(py, self.inner.decoded())??;
        if !keep_undecodable {
            const ADVICE: &str = "reject the rows in `batch.undecodable`, and take the others with \
                                  `keep_undecodable=True`";
            if let Some(failure) = Undecodable::failure(&frame.undecodable, self.topic(), ADVICE) {
                return Err(failure.into());
            }
        }
        Ok(Frame {
            schema: frame.schema.clone(),
            batches: frame.batches.clone(),
            undecodable: frame.undecodable.clone(),
        })
    }

    /// Decodes it ahead, for asyncio.
    fn decode_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>) -> Task {
        let inner = self.inner.clone();
        let decoding = async move { inner.decoded().await.map(drop) };
        Awaited::new(call_soon, future).settle(decoding, |py, ()| Ok(py.None()))
    }

    /// Of all rows, or of some.
    #[pyo3(signature = (rows=None))]
    fn ack(&self, rows: Option<Vec<usize>>) -> PyResult<bool> {
        let batch = self.inner.batch.get()?;
        Ok(match rows {
            None => batch.ack(),
            Some(rows) => batch.ack_rows(&rows).map_err(Failure::from)?,
        })
    }

    fn reject(&self, py: Python<'_>, rows: Vec<usize>, code: &str, reason: &str) -> PyResult<bool> {
        let batch = self.inner.batch.get()?;
        Ok(wait(py, batch.reject(&rows, code, reason))?.map_err(Failure::from)?)
    }

    fn reject_async(
        &self,
        call_soon: Py<PyAny>,
        future: Py<PyAny>,
        rows: Vec<usize>,
        code: String,
        reason: String,
    ) -> Task {
        let inner = self.inner.clone();
        let rejecting = async move { Ok(inner.batch.get()?.reject(&rows, &code, &reason).await?) };
        Awaited::new(call_soon, future).settle(rejecting, crate::awaiting::bool)
    }
}
