//! Stand-ins for tests: see `gristmill/testing.py`.

use gristmill::{EmbeddedRegistry, MockCluster};
use pyo3::prelude::*;

use crate::blocking::{OfProcess, wait};
use crate::error::Failure;

/// librdkafka's mock cluster, in this process.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Cluster(OfProcess<MockCluster>);

#[pymethods]
impl Cluster {
    #[new]
    fn new(brokers: i32) -> PyResult<Self> {
        Ok(Cluster(OfProcess::new(MockCluster::start(brokers).map_err(Failure::from)?)))
    }

    #[getter]
    fn bootstrap_servers(&self) -> Result<String, Failure> {
        Ok(self.0.get()?.bootstrap_servers())
    }

    fn create_topic(&self, topic: &str, partitions: i32) -> PyResult<()> {
        Ok(self.0.get()?.create_topic(topic, partitions).map_err(Failure::from)?)
    }
}

/// A Schema Registry in this process.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct TestRegistry(OfProcess<EmbeddedRegistry>);

#[pymethods]
impl TestRegistry {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let started = wait(py, EmbeddedRegistry::start())?;
        Ok(TestRegistry(OfProcess::new(
            started.map_err(|e| Failure::new("other", format!("cannot listen: {e}")))?,
        )))
    }

    #[getter]
    fn url(&self) -> Result<String, Failure> {
        Ok(self.0.get()?.url())
    }
}
