//! Records of one partition, and their verdicts.

use std::sync::{Arc, Mutex, PoisonError};

use gristmill::{GroupBatch, Rejection};
use gristmill_records::{NO_TIMESTAMP, RawBatch, RawBatchBuilder};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyList};
use tokio::sync::OnceCell;

use crate::awaiting::{Awaited, Task};
use crate::blocking::wait;
use crate::consumer::Decoding;
use crate::error::Failure;
use crate::frame::{Frame, Undecodable};
use crate::process::OfProcess;
use crate::record::Record;

/// See `gristmill/batch.py`. When the last reference goes, rows without a verdict are delivered again.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Batch {
    inner: Arc<Inner>,
}

struct Inner {
    /// None once it was given back.
    batch: Shared,
    records: RawBatch,
    /// For each row its row in the batch, where it has others too.
    rows: Option<Vec<usize>>,
    decoding: Arc<Decoding>,
    decoded: OnceCell<Frame>,
}

/// A batch, and the parts of it that are looked at by themselves.
type Shared = Arc<Mutex<Option<Arc<OfProcess<GroupBatch>>>>>;

impl Batch {
    pub(crate) fn new(batch: GroupBatch, decoding: Arc<Decoding>) -> Self {
        let records = batch.records().clone();
        let batch = Arc::new(Mutex::new(Some(Arc::new(OfProcess::new(batch)))));
        Batch { inner: Arc::new(Inner { batch, records, rows: None, decoding, decoded: OnceCell::new() }) }
    }

    pub(crate) fn records(&self) -> &RawBatch {
        &self.inner.records
    }
}

impl Inner {
    fn batch(&self) -> Result<Arc<OfProcess<GroupBatch>>, Failure> {
        let batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        batch.ok_or_else(|| {
            Failure::new("closed", "the batch was given back by nack(); its rows are delivered again")
        })
    }

    /// The batch's rows, of rows of this part of it.
    fn rows(&self, rows: &[usize]) -> Result<Vec<usize>, Failure> {
        let Some(of) = &self.rows else { return Ok(rows.to_vec()) };
        let found = rows.iter().map(|row| {
            of.get(*row).copied().ok_or_else(|| {
                Failure::invalid_argument(format!("there is no row {row} in a batch of {}", of.len()))
            })
        });
        found.collect()
    }

    /// Decodes it once.
    async fn decoded(&self) -> Result<&Frame, Failure> {
        let decode = async || {
            let decoded = self.decoding.decode(&self.records).await?;
            let undecodable = Undecodable::of(&self.records, &decoded);
            Ok(Frame::of_records(decoded.rows, undecodable))
        };
        self.decoded.get_or_try_init(decode).await
    }
}

/// Rows as people give them: no masks, which would be taken for rows 0 and 1.
struct Rows(Vec<usize>);

impl<'a, 'py> FromPyObject<'a, 'py> for Rows {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let row = |row: Bound<'py, PyAny>| {
            if row.is_instance_of::<PyBool>() {
                let text = "rows are numbers, not a mask: [row for row, wanted in enumerate(mask) if wanted]";
                return Err(PyTypeError::new_err(text));
            }
            let number: i64 = row.extract()?;
            usize::try_from(number)
                .map_err(|_| Failure::invalid_argument(format!("there is no row {number}")).into())
        };
        Ok(Rows(given.try_iter()?.map(|given| row(given?)).collect::<PyResult<_>>()?))
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
        Ok(self.inner.batch()?.get()?.times_delivered())
    }

    #[getter]
    fn rows_left(&self) -> Result<usize, Failure> {
        Ok(self.inner.batch()?.get()?.rows_left())
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

    /// The rows as columns, decoded once for all calls; those that do not decode are an error.
    fn decoded(&self, py: Python<'_>) -> PyResult<Frame> {
        const ADVICE: &str = "reject the rows in `batch.undecodable`, and go on with `batch.decodable()`";
        let frame = wait(py, self.inner.decoded())??;
        match Undecodable::failure(&frame.undecodable, self.topic(), ADVICE) {
            Some(failure) => Err(failure.into()),
            None => Ok(frame.clone()),
        }
    }

    fn undecodable(&self, py: Python<'_>) -> PyResult<Vec<Undecodable>> {
        Ok(wait(py, self.inner.decoded())??.undecodable.clone())
    }

    /// The rows that decode, as a batch of their own.
    fn decodable(&self, py: Python<'_>) -> PyResult<Batch> {
        let frame = wait(py, self.inner.decoded())??;
        let records = &self.inner.records;
        let mut kept =
            RawBatchBuilder::new(records.topic().clone(), records.partition()).topic_id(records.topic_id());
        let (mut rows, mut bad) = (Vec::new(), frame.undecodable.iter().map(Undecodable::row).peekable());
        for record in records.iter() {
            if bad.next_if_eq(&record.row()).is_some() {
                continue;
            }
            rows.push(record.row());
            let timestamp = record.timestamp().unwrap_or(NO_TIMESTAMP);
            kept.push(record.offset(), timestamp, record.key(), record.value(), record.headers())
                .map_err(|e| Failure::new("other", e.to_string()))?;
        }
        let rows = self.inner.rows(&rows)?;
        let inner = Inner {
            batch: self.inner.batch.clone(),
            records: kept.build(),
            rows: Some(rows),
            decoding: self.inner.decoding.clone(),
            decoded: OnceCell::new_with(Some(Frame { undecodable: Vec::new(), ..frame.clone() })),
        };
        Ok(Batch { inner: Arc::new(inner) })
    }

    /// Decodes it ahead, for asyncio.
    fn decode_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>) -> Task {
        let inner = self.inner.clone();
        let decoding = async move { inner.decoded().await.map(drop) };
        Awaited::new(call_soon, future).settle(decoding, |py, ()| Ok(py.None()))
    }

    /// Of all rows that are left, or of some.
    #[pyo3(signature = (rows=None))]
    fn ack(&self, rows: Option<Rows>) -> PyResult<bool> {
        let batch = self.inner.batch()?;
        let batch = batch.get()?;
        let rows = match (rows, &self.inner.rows) {
            (None, None) => return Ok(batch.ack()),
            (None, Some(all)) => all.clone(),
            (Some(Rows(rows)), _) => self.inner.rows(&rows)?,
        };
        Ok(batch.ack_rows(&rows).map_err(Failure::from)?)
    }

    /// Gives the rows without a verdict back, to be delivered again.
    fn nack(&self) {
        let given_back = self.inner.batch.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(given_back);
    }

    fn reject(&self, py: Python<'_>, rows: Rows, code: &str, reason: &str) -> PyResult<bool> {
        let (batch, rejections) = (self.inner.batch()?, self.rejections(&rows.0, code, reason)?);
        Ok(wait(py, async { Ok::<_, Failure>(batch.get()?.reject(&rejections).await?) })??)
    }

    fn reject_async(
        &self,
        call_soon: Py<PyAny>,
        future: Py<PyAny>,
        rows: Rows,
        code: &str,
        reason: &str,
    ) -> PyResult<Task> {
        let (batch, rejections) = (self.inner.batch()?, self.rejections(&rows.0, code, reason)?);
        let rejecting = async move { Ok(batch.get()?.reject(&rejections).await?) };
        Ok(Awaited::new(call_soon, future).settle(rejecting, crate::awaiting::bool))
    }

    /// Rejects what does not decode, each with its own reason.
    fn reject_undecodable(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner.clone();
        wait(py, reject_undecodable(inner))??;
        Ok(())
    }

    fn reject_undecodable_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>) -> Task {
        let rejecting = reject_undecodable(self.inner.clone());
        Awaited::new(call_soon, future).settle(rejecting, |py, ()| Ok(py.None()))
    }
}

impl Batch {
    fn rejections(&self, rows: &[usize], code: &str, reason: &str) -> Result<Vec<Rejection>, Failure> {
        let rows = self.inner.rows(rows)?;
        Ok(rows.into_iter().map(|row| Rejection::new(row, code, reason)).collect())
    }
}

async fn reject_undecodable(inner: Arc<Inner>) -> Result<(), Failure> {
    let undecodable = &inner.decoded().await?.undecodable;
    let rejections = undecodable.iter().map(|bad| Rejection::new(bad.row(), &bad.code, &bad.reason));
    let rejections: Vec<Rejection> = rejections.collect();
    inner.batch()?.get()?.reject(&rejections).await?;
    Ok(())
}
