//! The one place that detaches from the interpreter and blocks, and the runtime that everything runs on.

use std::pin::pin;
use std::time::Duration;

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::process::PerProcess;
use crate::{interpreter, logs};

/// How long a signal waits for its handler.
const TICK: Duration = Duration::from_millis(50);

static RUNTIME: PerProcess<Runtime> = PerProcess::new();

/// The runtime of this process.
pub(crate) fn runtime() -> &'static Runtime {
    RUNTIME.get().unwrap_or_else(|| {
        let fresh =
            Builder::new_multi_thread().worker_threads(2).thread_name("gristmill").enable_all().build();
        let (runtime, is_ours) =
            RUNTIME.set(fresh.expect("a process that cannot start threads cannot go on"));
        if is_ours {
            interpreter::begin();
            logs::forward();
        }
        runtime
    })
}

/// Waits for a future, detached from the interpreter, on this thread; a signal's handler runs meanwhile, and what it raises
/// ends the wait and drops the future.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let mut future = pin!(future);
    let runtime = runtime();
    loop {
        let step = async { tokio::time::timeout(TICK, future.as_mut()).await };
        if let Ok(done) = py.detach(|| runtime.block_on(step)) {
            return Ok(done);
        }
        py.check_signals()?;
    }
}

/// As [`wait`], but a signal does not end the wait: `signalled` is told that it came, and its exception is given at the end.
pub(crate) fn wait_through_signals<T: Send>(
    py: Python<'_>,
    future: impl Future<Output = T> + Send,
    mut signalled: impl FnMut(),
) -> (T, Option<PyErr>) {
    let mut future = pin!(future);
    let runtime = runtime();
    let mut raised = None;
    loop {
        let step = async { tokio::time::timeout(TICK, future.as_mut()).await };
        if let Ok(done) = py.detach(|| runtime.block_on(step)) {
            return (done, raised);
        }
        if let Err(error) = py.check_signals() {
            signalled();
            raised.get_or_insert(error);
        }
    }
}

/// Waits for a future on a thread of ours, which is attached to nothing.
pub(crate) fn wait_on_thread<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// Runs what computes without waiting, detached.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(work)
}
