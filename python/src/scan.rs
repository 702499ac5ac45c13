//! Reading a range once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_schema::SchemaRef;
use gristmill::{ConsumerConfig, PartitionRange, Place, RangeReader, Topics};
use gristmill_pipeline::{ValueDecoder, When};
use pyo3::prelude::*;
use tokio::sync::mpsc;

use crate::blocking::{OfProcess, wait, wait_on_thread};
use crate::error::Failure;
use crate::frame::{Frame, Undecodable};
use crate::settings;
use crate::value_format::Format;

/// Batches that wait for who reads them.
const AHEAD: usize = 8;

type Read = Result<Part, Failure>;

struct Part {
    batch: arrow_array::RecordBatch,
    undecodable: Vec<Undecodable>,
}

/// A range of a topic, decoded as it is read. Ends once.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Scan {
    topic: String,
    schema: SchemaRef,
    parts: OfProcess<tokio::sync::Mutex<mpsc::Receiver<Read>>>,
    total: u64,
    done: Arc<AtomicU64>,
    /// Why it ended, if it failed: told again.
    failed: Mutex<Option<Failure>>,
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
        let format = format.get().of(&topic)?;
        let (decoder, ranges) = wait(py, async {
            let decoder = ValueDecoder::open(format).await?;
            let ranges = Topics::connect(&config)?.ranges(&topic, start, end).await?;
            Ok::<_, Failure>((decoder, ranges))
        })??;
        let schema = decoder.schema().clone();
        let total = ranges.iter().map(|range| range.end.abs_diff(range.first)).sum();
        let (sender, parts) = mpsc::channel(AHEAD);
        let done = Arc::new(AtomicU64::new(0));
        let reading = Reading { config, ranges, decoder, sender, done: done.clone() };
        // Reading blocks, and so does ending it.
        std::thread::Builder::new()
            .name("gristmill-scan".into())
            .spawn(move || reading.run())
            .map_err(|e| Failure::new("other", format!("cannot start a thread: {e}")))?;
        let parts = OfProcess::new(tokio::sync::Mutex::new(parts));
        Ok(Scan { topic, schema, parts, total, done, failed: Mutex::default() })
    }

    /// The next columns; `None` at the end. Of several threads, each part goes to one.
    #[pyo3(signature = (keep_undecodable))]
    fn next(&self, py: Python<'_>, keep_undecodable: bool) -> PyResult<Option<Frame>> {
        if let Some(failure) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(failure.into());
        }
        let parts = self.parts.get()?;
        match wait(py, async { parts.lock().await.recv().await })? {
            None => Ok(None),
            Some(Err(failure)) => Err(self.fail(failure)),
            Some(Ok(Part { batch, undecodable })) => {
                const ADVICE: &str = "`undecodable=\"keep\"` reads on and lists such records";
                if !keep_undecodable
                    && let Some(failure) = Undecodable::failure(&undecodable, &self.topic, ADVICE)
                {
                    return Err(self.fail(failure));
                }
                Ok(Some(Frame { schema: self.schema.clone(), batches: vec![batch], undecodable }))
            }
        }
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
        Ok(Frame { schema: self.schema.clone(), batches, undecodable })
    }

    /// Offsets that were read, and of how many.
    #[getter]
    fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed).min(self.total), self.total)
    }

    /// The columns, as a frame without rows.
    #[getter]
    fn schema(&self) -> Frame {
        Frame { schema: self.schema.clone(), batches: Vec::new(), undecodable: Vec::new() }
    }
}

impl Scan {
    fn fail(&self, failure: Failure) -> PyErr {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
        failure.into()
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
        if let Err(failure) = self.read() {
            // Nobody may be left to hear it.
            let _ = self.sender.blocking_send(Err(failure));
        }
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut reader = RangeReader::open(&self.config, std::mem::take(&mut self.ranges))?;
        while let Some(batch) = reader.next_batch()? {
            let decoded = wait_on_thread(self.decoder.decode(&batch))?;
            let offsets =
                batch.last_offset().zip(batch.first_offset()).map_or(0, |(last, first)| last - first + 1);
            self.done.fetch_add(offsets as u64, Ordering::Relaxed);
            let part = Part { undecodable: Undecodable::of(&batch, &decoded), batch: decoded.rows };
            if self.sender.blocking_send(Ok(part)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
