//! The one place that detaches from the interpreter and blocks, and the runtime that everything runs on.

use std::pin::pin;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::error::Failure;
use crate::{interpreter, logs};

/// How long a signal waits for its handler.
const TICK: Duration = Duration::from_millis(50);

struct Held {
    process: u32,
    runtime: Runtime,
}

/// No lock: a fork while another thread holds one would leave it locked in the child for ever.
static RUNTIME: AtomicPtr<Held> = AtomicPtr::new(std::ptr::null_mut());

/// The runtime of this process. A fork has none of its parent's threads, so it gets one of its own; the parent's is left
/// as it is, never dropped.
pub(crate) fn runtime() -> &'static Runtime {
    let process = std::process::id();
    let there = RUNTIME.load(Ordering::Acquire);
    // SAFETY: what is stored comes from `Box::leak`, and is never freed.
    if let Some(held) = unsafe { there.as_ref() }
        && held.process == process
    {
        return &held.runtime;
    }
    let fresh = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("gristmill")
        .enable_all()
        .build()
        .expect("a process that cannot start threads cannot go on");
    let ours = Box::into_raw(Box::new(Held { process, runtime: fresh }));
    match RUNTIME.compare_exchange(there, ours, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            interpreter::begin();
            logs::forward();
            // SAFETY: as above.
            unsafe { &(*ours).runtime }
        }
        Err(_) => {
            // Another thread of this process was first. SAFETY: nobody else has seen it.
            drop(unsafe { Box::from_raw(ours) });
            runtime()
        }
    }
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

/// Waits for a future on a thread of ours, which is attached to nothing.
pub(crate) fn wait_on_thread<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// Runs what computes without waiting, detached.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(work)
}

/// Something with threads behind it, which a fork does not have.
pub(crate) struct OfProcess<T: Send + 'static> {
    process: u32,
    inner: Option<T>,
}

impl<T: Send + 'static> OfProcess<T> {
    pub(crate) fn new(inner: T) -> Self {
        OfProcess { process: std::process::id(), inner: Some(inner) }
    }

    /// # Errors
    /// If the process was forked since.
    pub(crate) fn get(&self) -> Result<&T, Failure> {
        match &self.inner {
            Some(inner) if self.process == std::process::id() => Ok(inner),
            _ => Err(Failure::new(
                "closed",
                "this was made before the process forked, and its threads are not here; make one in this process",
            )),
        }
    }
}

impl<T: Send + 'static> Drop for OfProcess<T> {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if self.process == std::process::id() {
            // Dropping may start tasks, which needs a runtime.
            let _in = runtime().enter();
            drop(inner);
        } else {
            // It would wait for threads that are the parent's.
            std::mem::forget(inner);
        }
    }
}
