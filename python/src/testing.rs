//! Stand-ins for tests: see `gristmill/testing.py`.

use std::time::Duration;

use gristmill::{EmbeddedRegistry, MockCluster};
use pyo3::prelude::*;

use crate::blocking::wait;
use crate::error::Failure;
use crate::process::OfProcess;

/// librdkafka's mock cluster, in this process.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Cluster(OfProcess<MockCluster>);

#[pymethods]
impl Cluster {
    #[new]
    fn new(brokers: i32) -> PyResult<Self> {
        let cluster = MockCluster::start(brokers).map_err(Failure::from)?;
        cluster.set_group_rebalance_delay(Duration::from_millis(50));
        Ok(Cluster(OfProcess::new(cluster)))
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
