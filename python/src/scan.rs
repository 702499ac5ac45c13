//! Reading a range once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use gristmill::{ConsumerConfig, PartitionRange, Place, RangeReader, Topics};
use gristmill_pipeline::{ValueDecoder, When};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use tokio::sync::{Mutex, mpsc};

use crate::arrow;
use crate::blocking::{wait, wait_on_thread};
use crate::error::Failure;
use crate::frame::{Frame, Undecodable, own_columns};
use crate::process::OfProcess;
use crate::settings;
use crate::value_format::Format;

/// Batches that wait for who reads them.
const AHEAD: usize = 8;

/// `None` is the end: a thread that just went away is not.
type Read = Result<Option<Part>, Failure>;

/// What comes, and how it ended, which is told again: `Ok` is the end.
struct Parts {
    receiver: mpsc::Receiver<Read>,
    ended: Option<Result<(), Failure>>,
}

struct Part {
    batch: RecordBatch,
    undecodable: Vec<Undecodable>,
}

/// A range of a topic, decoded as it is read. Ends once.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Scan {
    topic: String,
    schema: SchemaRef,
    parts: Arc<OfProcess<Mutex<Parts>>>,
    total: u64,
    done: Arc<AtomicU64>,
}

#[pymethods]
impl Scan {
    /// Looks up the range and begins to read.
    #[new]
    fn new(
        py: Python<'_>,
        topic: String,
        settings: settings::Kafka,
        format: Py<Format>,
        start: Option<&str>,
        end: Option<&str>,
    ) -> PyResult<Self> {
        let (start, end) = (place("start", start)?, place("end", end)?);
        let config = settings.consumer("gristmill", &[topic.as_str()]).build().map_err(Failure::from)?;
        let format = format.get().described().of(&topic);
        let (decoder, ranges) = wait(py, async {
            let decoder = ValueDecoder::open(format).await?;
            let ranges = Topics::connect(&config)?.ranges(&topic, start, end).await?;
            Ok::<_, Failure>((decoder, ranges))
        })??;
        let schema = decoder.schema().clone();
        let total = ranges.iter().map(|range| range.end.abs_diff(range.first)).sum();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let done = Arc::new(AtomicU64::new(0));
        let reading = Reading { config, ranges, decoder, sender, done: done.clone() };
        // Reading blocks, and so does ending it.
        std::thread::Builder::new()
            .name("gristmill-scan".into())
            .spawn(move || reading.run())
            .map_err(|e| Failure::new("other", format!("cannot start a thread: {e}")))?;
        let parts = Arc::new(OfProcess::new(Mutex::new(Parts { receiver, ended: None })));
        Ok(Scan { topic, schema, parts, total, done })
    }

    /// The next columns; `None` at the end. Of several threads, each part goes to one.
    #[pyo3(signature = (keep_undecodable))]
    fn next(&self, py: Python<'_>, keep_undecodable: bool) -> PyResult<Option<Frame>> {
        let reader = self.reader(keep_undecodable);
        match wait(py, reader.next())?? {
            None => Ok(None),
            Some(Part { batch, undecodable }) => Ok(Some(Frame::of_records(batch, undecodable))),
        }
    }

    /// What is left as a stream of Arrow's, read as it is asked for; a signal waits until it asks again.
    #[pyo3(signature = (keep_undecodable))]
    fn stream<'py>(&self, py: Python<'py>, keep_undecodable: bool) -> PyResult<Bound<'py, PyCapsule>> {
        arrow::export(py, self.reader(keep_undecodable))
    }

    /// All that is left, as one.
    fn rest(
        &self,
        py: Python<'_>,
        keep_undecodable: bool,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Frame> {
        let (mut batches, mut undecodable) = (Vec::new(), Vec::new());
        while let Some(part) = self.next(py, keep_undecodable)? {
            batches.extend(part.batches);
            undecodable.extend(part.undecodable);
            if let Some(progress) = &progress {
                progress.call1((self.progress(),))?;
            }
        }
        Ok(self.frame(batches, undecodable))
    }

    /// Offsets that were read, and of how many.
    #[getter]
    fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed).min(self.total), self.total)
    }

    /// The columns, as a frame without rows.
    #[getter]
    fn schema(&self) -> Frame {
        self.frame(Vec::new(), Vec::new())
    }
}

impl Scan {
    fn frame(&self, batches: Vec<RecordBatch>, undecodable: Vec<Undecodable>) -> Frame {
        Frame { own: own_columns(&self.schema), schema: self.schema.clone(), batches, undecodable }
    }

    fn reader(&self, keep_undecodable: bool) -> Reader {
        Reader {
            topic: self.topic.clone(),
            schema: self.schema.clone(),
            parts: self.parts.clone(),
            keep_undecodable,
        }
    }
}

/// Takes the parts; several may.
struct Reader {
    topic: String,
    schema: SchemaRef,
    parts: Arc<OfProcess<Mutex<Parts>>>,
    keep_undecodable: bool,
}

impl Reader {
    /// Cancel safe: a part is taken only when this returns it.
    async fn next(&self) -> Read {
        const ADVICE: &str = "`undecodable=\"keep\"` reads on and lists such records";
        let mut parts = self.parts.get()?.lock().await;
        if let Some(ended) = parts.ended.clone() {
            return ended.map(|()| None);
        }
        let gone =
            || Failure::new("other", "the thread that reads ended by itself; this is a fault of gristmill");
        let mut read = parts.receiver.recv().await.unwrap_or_else(|| Err(gone()));
        if let Ok(Some(part)) = &read
            && !self.keep_undecodable
            && let Some(failure) = Undecodable::failure(&part.undecodable, &self.topic, ADVICE)
        {
            read = Err(failure);
        }
        // Before another thread that waits finds that nothing comes any more.
        match &read {
            Ok(Some(_)) => {}
            Ok(None) => parts.ended = Some(Ok(())),
            Err(failure) => parts.ended = Some(Err(failure.clone())),
        }
        read
    }
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = wait_on_thread(Reader::next(self)).transpose()?;
        Some(
            read.map(|part| part.batch)
                .map_err(|failure| ArrowError::ExternalError(failure.to_string().into())),
        )
    }
}

impl RecordBatchReader for Reader {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

fn place(name: &str, text: Option<&str>) -> Result<Option<Place>, Failure> {
    let parse = |text: &str| text.parse::<When>().map(|when| when.now());
    text.map(parse).transpose().map_err(|e| Failure::invalid_argument(format!("{name}: {e}")))
}

/// The thread's part.
struct Reading {
    config: ConsumerConfig,
    ranges: Vec<PartitionRange>,
    decoder: ValueDecoder,
    sender: mpsc::Sender<Read>,
    done: Arc<AtomicU64>,
}

impl Reading {
    fn run(mut self) {
        let end = self.read().map(|()| None);
        // Nobody may be left to hear it.
        let _ = self.sender.blocking_send(end);
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut reader = RangeReader::open(&self.config, std::mem::take(&mut self.ranges))?;
        while let Some(batch) = reader.next_batch()? {
            let decoded = wait_on_thread(self.decoder.decode(&batch))?;
            let offsets =
                batch.last_offset().zip(batch.first_offset()).map_or(0, |(last, first)| last - first + 1);
            self.done.fetch_add(offsets as u64, Ordering::Relaxed);
            let part = Part { undecodable: Undecodable::of(&batch, &decoded), batch: decoded.rows };
            if self.sender.blocking_send(Ok(Some(part))).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
