//! Threads that are not Python's, and the interpreter: how they come in, and how they are kept out once it ends.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How long the end of the interpreter waits for a thread of ours that runs Python.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process whose threads are counted: a fork inherits the count, but not the threads.
static PROCESS: AtomicU32 = AtomicU32::new(0);
static CLOSED: AtomicBool = AtomicBool::new(false);
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Runs `with` attached to the interpreter, on a thread of ours; `None` once it ends. A thread that waited to attach while
/// it is finalised would be ended by it in the middle of Rust.
pub(crate) fn enter<T>(with: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    INSIDE.fetch_add(1, Ordering::SeqCst);
    let result = match CLOSED.load(Ordering::SeqCst) {
        true => None,
        false => Python::try_attach(with),
    };
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    result
}

/// Before there are threads of ours in this process.
pub(crate) fn begin() {
    INSIDE.store(0, Ordering::SeqCst);
    PROCESS.store(std::process::id(), Ordering::SeqCst);
}

/// Whether nobody is let in any more.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::SeqCst)
}

/// Lets nobody in any more, and waits for those who are; for `atexit`. Not for ever: a handler of log lines may be stuck.
#[pyfunction]
pub(crate) fn close_interpreter(py: Python<'_>) -> PyResult<()> {
    if PROCESS.load(Ordering::SeqCst) != std::process::id() {
        return Ok(());
    }
    crate::logs::drain(py);
    CLOSED.store(true, Ordering::SeqCst);
    let until = Instant::now() + PATIENCE;
    while INSIDE.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        py.check_signals()?;
    }
    Ok(())
}
