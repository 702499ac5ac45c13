//! Writing records.

use gristmill::{Compression, ProducerConfig, ProducerRecord, SendReport};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyString};

use crate::awaiting::{Awaited, Task};
use crate::blocking::{runtime, wait};
use crate::error::Failure;
use crate::process::OfProcess;
use crate::settings::Kafka;
use crate::value_format::seconds;

/// See `gristmill/producer.py`.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Producer(OfProcess<gristmill::Producer>);

/// What became of records, by their index.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Report(SendReport);

#[pymethods]
impl Report {
    fn __len__(&self) -> usize {
        self.0.outcomes().len()
    }

    #[getter]
    fn delivered(&self) -> usize {
        self.0.outcomes().iter().filter(|outcome| outcome.is_ok()).count()
    }

    /// Partition and offset, of a record that was delivered.
    fn place(&self, index: usize) -> Option<(i32, i64)> {
        let delivered = self.0.outcomes().get(index)?.as_ref().ok()?;
        Some((delivered.partition, delivered.offset))
    }

    /// Exceptions by index.
    #[getter]
    fn errors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let errors = PyDict::new(py);
        for (index, error) in self.0.failures() {
            errors.set_item(index, Failure::from(error.clone()).exception(py)?)?;
        }
        Ok(errors)
    }
}

/// Key or value.
pub(crate) struct Payload(Option<Vec<u8>>);

impl Payload {
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Payload {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if given.is_none() {
            return Ok(Payload(None));
        }
        if let Ok(bytes) = given.cast::<PyBytes>() {
            return Ok(Payload(Some(bytes.as_bytes().to_vec())));
        }
        if let Ok(text) = given.cast::<PyString>() {
            return Ok(Payload(Some(text.to_cow()?.into_owned().into_bytes())));
        }
        if let Ok(bytes) = given.cast::<PyByteArray>() {
            return Ok(Payload(Some(bytes.to_vec())));
        }
        if let Ok(view) = given.cast::<PyMemoryView>() {
            let bytes = view.call_method0("tobytes")?;
            return Ok(Payload(Some(bytes.cast::<PyBytes>()?.as_bytes().to_vec())));
        }
        let class = given.get_type().name()?;
        Err(PyTypeError::new_err(format!(
            "a key, value or header is bytes, str or None, not {class}; encode it, for example by json.dumps"
        )))
    }
}

type Headers = Vec<(String, Payload)>;

/// One record: topic, value, key, headers, partition, timestamp in milliseconds.
struct Given(String, Payload, Payload, Headers, Option<i32>, Option<i64>);

impl<'a, 'py> FromPyObject<'a, 'py> for Given {
    type Error = PyErr;

    /// By hand, so that the error is the payload's and not the tuple's.
    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        type Six<'py> = (String, Any<'py>, Any<'py>, Vec<(String, Any<'py>)>, Option<i32>, Option<i64>);
        type Any<'py> = Bound<'py, PyAny>;
        let (topic, value, key, headers, partition, timestamp): Six<'py> = given.extract()?;
        let headers = headers.into_iter().map(|(name, value)| Ok((name, value.extract()?)));
        let headers = headers.collect::<PyResult<_>>()?;
        Ok(Given(topic, value.extract()?, key.extract()?, headers, partition, timestamp))
    }
}

impl From<Given> for ProducerRecord {
    fn from(Given(topic, value, key, headers, partition, timestamp): Given) -> Self {
        let record = ProducerRecord::to(topic).key_value(key.0, value.0);
        let record = match partition {
            Some(partition) => record.partition(partition),
            None => record,
        };
        let record = match timestamp {
            Some(timestamp) => record.timestamp(timestamp),
            None => record,
        };
        headers.into_iter().fold(record, |record, (name, value)| match value.0 {
            Some(value) => record.header(name, value),
            None => record.null_header(name),
        })
    }
}

#[pymethods]
impl Producer {
    #[new]
    #[pyo3(signature = (settings, *, linger, compression, delivery_timeout, max_buffered_bytes, client_id))]
    fn new(
        settings: Kafka,
        linger: Option<f64>,
        compression: &str,
        delivery_timeout: Option<f64>,
        max_buffered_bytes: Option<usize>,
        client_id: Option<String>,
    ) -> PyResult<Self> {
        let mut config = ProducerConfig::builder().bootstrap_servers(&settings.0);
        config = config.compression(match compression {
            "none" => Compression::None,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => {
                let text = format!("compression: {compression:?} is not one of none, lz4, zstd");
                return Err(Failure::new("invalid_config", text).into());
            }
        });
        if let Some(linger) = linger {
            config = config.linger(seconds(linger)?);
        }
        if let Some(timeout) = delivery_timeout {
            config = config.delivery_timeout(seconds(timeout)?);
        }
        if let Some(bytes) = max_buffered_bytes {
            config = config.max_buffered_bytes(bytes);
        }
        if let Some(id) = client_id {
            config = config.client_id(id);
        }
        for (name, value) in &settings.1 {
            config = config.property(name, value);
        }
        let _in = runtime().enter();
        let producer =
            gristmill::Producer::new(config.build().map_err(Failure::from)?).map_err(Failure::from)?;
        Ok(Producer(OfProcess::new(producer)))
    }

    /// Waits until each has its report.
    fn send(&self, py: Python<'_>, records: Vec<Given>) -> PyResult<Report> {
        let producer = self.0.get()?;
        let records: Vec<ProducerRecord> = records.into_iter().map(ProducerRecord::from).collect();
        wait(py, producer.send_all(records)).map(Report)
    }

    fn send_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>, records: Vec<Given>) -> PyResult<Task> {
        let producer = self.0.get()?.clone();
        let records: Vec<ProducerRecord> = records.into_iter().map(ProducerRecord::from).collect();
        let sending = async move { Ok(producer.send_all(records).await) };
        Ok(Awaited::new(call_soon, future)
            .settle(sending, |py, report| Ok(Py::new(py, Report(report))?.into_any())))
    }

    #[getter]
    fn buffered(&self) -> Result<usize, Failure> {
        Ok(self.0.get()?.buffered())
    }

    fn flush(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let deadline = seconds(timeout)?;
        Ok(wait(py, self.0.get()?.flush(deadline))?.map_err(Failure::from)?)
    }

    fn flush_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>, timeout: f64) -> PyResult<Task> {
        let (producer, deadline) = (self.0.get()?.clone(), seconds(timeout)?);
        let flushing = async move { Ok(producer.flush(deadline).await?) };
        Ok(Awaited::new(call_soon, future).settle(flushing, |py, ()| Ok(py.None())))
    }

    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let deadline = seconds(timeout)?;
        Ok(wait(py, self.0.get()?.clone().close(deadline))?.map_err(Failure::from)?)
    }

    fn close_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>, timeout: f64) -> PyResult<Task> {
        let (producer, deadline) = (self.0.get()?.clone(), seconds(timeout)?);
        let closing = async move { Ok(producer.close(deadline).await?) };
        Ok(Awaited::new(call_soon, future).settle(closing, |py, ()| Ok(py.None())))
    }
}
