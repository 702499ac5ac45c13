//! A pipeline file, run in this process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use gristmill_pipeline::{Checked, Ended, Metrics, Stop};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::watch;

use crate::awaiting::{Awaited, Task};
use crate::blocking::{detached, wait_through_signals};
use crate::error::Failure;

/// See `gristmill/pipelines.py`.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Pipeline {
    file: PathBuf,
    topic_ids: bool,
    stop: watch::Sender<Stop>,
    metrics: Arc<Mutex<Option<Arc<Metrics>>>>,
}

#[pymethods]
impl Pipeline {
    /// Checks the file.
    #[new]
    fn new(py: Python<'_>, file: PathBuf, topic_ids: bool) -> PyResult<Self> {
        let checked = detached(py, || gristmill_pipeline::check(&file).map(drop));
        checked.map_err(|problems| Failure::new("invalid_config", problems.to_string()))?;
        Ok(Pipeline { file, topic_ids, stop: watch::Sender::new(Stop::No), metrics: Arc::default() })
    }

    /// Runs it until it is stopped. The first Ctrl-C finishes the open checkpoints, the second drops them; then it is
    /// raised. Whether all were finished.
    fn run(&self, py: Python<'_>) -> PyResult<bool> {
        let checked = self.checked()?;
        let run = run(checked, self.topic_ids, self.stop.subscribe(), self.metrics.clone());
        let (ended, interrupted) = wait_through_signals(py, run, || self.hasten());
        let ended = ended?;
        match interrupted {
            Some(interrupt) => Err(interrupt),
            None => Ok(ended),
        }
    }

    fn run_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>) -> PyResult<Task> {
        let checked = self.checked()?;
        let run = run(checked, self.topic_ids, self.stop.subscribe(), self.metrics.clone());
        Ok(Awaited::new(call_soon, future).settle(run, crate::awaiting::bool))
    }

    /// Finish the open checkpoints, or drop them.
    fn stop(&self, drop_open: bool) {
        self.stop.send_replace(if drop_open { Stop::Drop } else { Stop::Finish });
    }

    /// Its counters by name; none before it runs.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(metrics) = self.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(None);
        };
        let status = PyDict::new(py);
        for (name, count) in [
            ("records_in", metrics.records_in.get()),
            ("bytes_in", metrics.bytes_in.get()),
            ("rows_written", metrics.rows_written.get()),
            ("records_dropped", metrics.records_dropped.get()),
            ("dead_letters", metrics.dead_letters.get()),
            ("files", metrics.files.get()),
            ("file_bytes", metrics.file_bytes.get()),
            ("checkpoints", metrics.checkpoints.get()),
        ] {
            status.set_item(name, count)?;
        }
        status.set_item("partitions", metrics.partitions.get())?;
        Ok(Some(status))
    }
}

impl Pipeline {
    /// The file as it is now.
    fn checked(&self) -> Result<Checked, Failure> {
        gristmill_pipeline::check(&self.file)
            .map_err(|problems| Failure::new("invalid_config", problems.to_string()))
    }

    fn hasten(&self) {
        self.stop.send_modify(|stop| *stop = if *stop == Stop::No { Stop::Finish } else { Stop::Drop });
    }
}

async fn run(
    checked: Checked,
    topic_ids: bool,
    stop: watch::Receiver<Stop>,
    metrics: Arc<Mutex<Option<Arc<Metrics>>>>,
) -> Result<bool, Failure> {
    let pipeline = match topic_ids {
        true => gristmill_pipeline::Pipeline::prepare(checked).await?,
        false => gristmill_pipeline::Pipeline::prepare_without_topic_ids(checked).await?,
    };
    *metrics.lock().unwrap_or_else(PoisonError::into_inner) = Some(pipeline.metrics());
    Ok(pipeline.run(stop).await? == Ended::Finished)
}
