//! `await`: a future of asyncio's that a task of ours settles.

use std::sync::mpsc::{Sender, channel};

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::blocking::runtime;
use crate::error::Failure;
use crate::interpreter;
use crate::process::PerProcess;

/// A future of asyncio's, and how its loop is told.
pub(crate) struct Awaited {
    /// `loop.call_soon_threadsafe`.
    call_soon: Py<PyAny>,
    future: Py<PyAny>,
}

/// A task that settles a future; see `gristmill/_asyncio.py`.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Task(AbortHandle);

#[pymethods]
impl Task {
    /// Ends it, if it has not ended. What it waited for is not taken.
    fn cancel(&self) {
        self.0.abort();
    }
}

type Job = Box<dyn FnOnce(Python<'_>) + Send>;

/// Of the thread that tells. No thread of the runtime runs Python: what Python does there, a finaliser that waits for
/// instance, would block the runtime that it waits for.
static JOBS: PerProcess<Sender<Job>> = PerProcess::new();

fn jobs() -> &'static Sender<Job> {
    JOBS.get().unwrap_or_else(|| {
        let (sender, jobs) = channel::<Job>();
        let (sender, is_ours) = JOBS.set(sender);
        if is_ours {
            let tell = move || {
                while let Ok(first) = jobs.recv() {
                    let told = interpreter::enter(|py| {
                        first(py);
                        jobs.try_iter().for_each(|job| job(py));
                    });
                    if told.is_none() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name("gristmill-await".into()).spawn(tell);
            thread.expect("a process that cannot start threads cannot go on");
        }
        sender
    })
}

impl Awaited {
    pub(crate) fn new(call_soon: Py<PyAny>, future: Py<PyAny>) -> Self {
        Awaited { call_soon, future }
    }

    /// Settles it with what comes of `work`, which runs on the runtime.
    pub(crate) fn settle<T, W, C>(self, work: W, convert: C) -> Task
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Failure>> + Send + 'static,
        C: for<'py> FnOnce(Python<'py>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        if interpreter::is_closed() {
            let late = Failure::new(
                "closed",
                "the interpreter is ending; what is awaited now would not be answered",
            );
            Python::attach(|py| self.tell(py, Err(late), convert));
            return Task(runtime().spawn(async {}).abort_handle());
        }
        let jobs = jobs();
        let task = runtime().spawn(async move {
            let result = work.await;
            // Once the interpreter has ended, nobody is told.
            let _ = jobs.send(Box::new(move |py| self.tell(py, result, convert)));
        });
        Task(task.abort_handle())
    }

    fn tell<T, C>(&self, py: Python<'_>, result: Result<T, Failure>, convert: C)
    where
        C: for<'py> FnOnce(Python<'py>, T) -> PyResult<Py<PyAny>>,
    {
        let (value, error) = match result.map_err(PyErr::from).and_then(|value| convert(py, value)) {
            Ok(value) => (value, py.None()),
            Err(error) => (py.None(), error.into_value(py).into_any()),
        };
        let settle = py.import("gristmill._asyncio").and_then(|module| module.getattr("settle"));
        // A loop that was closed meanwhile has nobody who waits.
        let _ = settle.and_then(|settle| self.call_soon.call1(py, (settle, &self.future, value, error)));
    }
}

/// `True` or `False`.
pub(crate) fn bool(py: Python<'_>, value: bool) -> PyResult<Py<PyAny>> {
    value.into_py_any(py)
}
