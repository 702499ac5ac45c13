use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_records::{Edit, EditCounts, Edits, RawBatch};

use crate::applied::Segment;
use crate::call::{Failure, Terms, Worker, row_bytes};
use crate::engine::ticks;
use crate::transform::Seed;
use crate::{Applied, Error, ErrorKind, Reject, Transform};

/// Bytes of records in one call: more gains nothing and leaves the caches of the processor.
const CALL_BYTES: u64 = 512 * 1024;

/// The shortest deadline of a call during a search, however few rows it has.
const SHORTEST_DEADLINE: Duration = Duration::from_millis(50);

/// A transform at work on one stream. Not for two threads at a time; `apply` does not wait for anything
/// but the guest.
///
/// The WebAssembly instance inside is used for batch after batch, and replaced after a failed call and
/// when it has grown over three quarters of its memory limit.
pub struct Instance {
    transform: Transform,
    seed: Seed,
    worker: Option<Worker>,
    breaker: Breaker,
    outputs: u32,
    call_ticks: u64,
    scratch: Vec<u32>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("transform", &self.transform)
            .field("stream", &self.seed.stream)
            .finish_non_exhaustive()
    }
}

/// Counts rows and rejects; the past fades so that it stays about the last rows.
#[derive(Default)]
struct Breaker {
    rows: u64,
    rejects: u64,
}

impl Breaker {
    fn is_open(&self, rows: u64, rejects: u64, ratio: f64, least: u32) -> bool {
        let rows = (self.rows + rows).max(u64::from(least));
        ratio < 1.0 && (self.rejects + rejects) as f64 > ratio * rows as f64
    }

    fn add(&mut self, rows: u64, rejects: u64, least: u32) {
        self.rows += rows;
        self.rejects += rejects;
        if self.rows > 2 * u64::from(least) {
            self.rows /= 2;
            self.rejects /= 2;
        }
    }
}

impl Instance {
    pub(crate) fn new(transform: Transform, seed: Seed, worker: Worker) -> Self {
        let outputs = transform.manifest().outputs.len() as u32 + 1;
        let call_ticks = ticks(transform.limits().call_time());
        Instance {
            transform,
            seed,
            worker: Some(worker),
            breaker: Breaker::default(),
            outputs,
            call_ticks,
            scratch: Vec::new(),
        }
    }

    /// The transform.
    pub fn transform(&self) -> &Transform {
        &self.transform
    }

    /// Gives the transform a schema that it may ask for by id. Kept for this instance's life.
    pub fn add_schema(&mut self, id: u32, text: impl Into<Arc<str>>) {
        let schemas: &mut BTreeMap<_, _> = Arc::make_mut(&mut self.seed.schemas);
        schemas.insert(id, text.into());
        if let Some(worker) = &mut self.worker {
            worker.store.data_mut().schemas = self.seed.schemas.clone();
        }
    }

    /// Throws the WebAssembly instance away, and what the breaker has counted; the next batch gets a fresh
    /// one. For tests of transforms that should not remember anything.
    pub fn reset(&mut self) {
        self.worker = None;
        self.breaker = Breaker::default();
    }

    /// Gives a batch to the transform. Every row is accounted for in the answer.
    ///
    /// A call that fails is searched for the rows that make it fail: these are rejected with a code of the
    /// runtime, the others go on, in order.
    ///
    /// # Errors
    /// Then nothing of the batch counts, and the next one gets a fresh instance. Kind `Limit`: the search
    /// took longer than [`Limits::search_time`](crate::Limits::search_time). Kind `Breaker`: too large a
    /// share of rows is rejected. Kind `Configure`: a fresh instance refused the configuration that an
    /// earlier one accepted. Kind `Host`: our own trouble.
    pub fn apply(&mut self, batch: &RawBatch) -> Result<Applied, Error> {
        let started = Instant::now();
        let mut out = Applied::new(batch.clone());
        if let Err(e) = self.apply_all(batch, &mut out) {
            self.worker = None;
            self.breaker = Breaker::default();
            return Err(e);
        }
        out.stats.guest_time = started.elapsed();
        Ok(out)
    }

    fn apply_all(&mut self, batch: &RawBatch, out: &mut Applied) -> Result<(), Error> {
        let reads = self.transform.manifest().reads;
        let room = CALL_BYTES.min(self.transform.limits().memory() / 4);
        let mut deadline = None;
        if batch.byte_size() as u64 <= room {
            if !batch.is_empty() {
                self.range(batch, 0..batch.len(), out, &mut deadline)?;
            }
        } else {
            let mut start = 0;
            while start < batch.len() {
                let mut bytes = row_bytes(batch, start, reads);
                let mut end = start + 1;
                while end < batch.len() {
                    bytes += row_bytes(batch, end, reads);
                    if bytes > room {
                        break;
                    }
                    end += 1;
                }
                self.range(batch, start..end, out, &mut deadline)?;
                start = end;
            }
        }
        let (rows, rejects) = (batch.len() as u64, out.rejects.len() as u64);
        self.check_breaker(batch, out)?;
        self.breaker.add(rows, rejects, self.transform.limits().breaker_rows());
        Ok(())
    }

    fn check_breaker(&self, batch: &RawBatch, out: &Applied) -> Result<(), Error> {
        let limits = self.transform.limits();
        let (rows, rejects) = (batch.len() as u64, out.rejects.len() as u64);
        let (ratio, least) = (limits.breaker_ratio(), limits.breaker_rows());
        if rejects == 0 || !self.breaker.is_open(rows, rejects, ratio, least) {
            return Ok(());
        }
        let last = &out.rejects[out.rejects.len() - 1];
        let seen = self.breaker.rejects + rejects;
        Err(self.error(
            ErrorKind::Breaker,
            format!(
                "limit breaker_ratio of {ratio}: {seen} of the last {} rows were rejected, so the transform or its \
                 configuration is broken, not the data; the last one, offset {}: {}: {}; nothing of this batch was \
                 passed on",
                self.breaker.rows + rows,
                last.offset,
                last.code,
                last.message
            ),
        ))
    }

    /// One call, and a search where it fails.
    fn range(
        &mut self,
        batch: &RawBatch,
        rows: Range<usize>,
        out: &mut Applied,
        deadline: &mut Option<Instant>,
    ) -> Result<(), Error> {
        let time = self.transform.limits().call_time();
        match self.call(batch, rows.clone(), time, self.call_ticks, out)? {
            None => Ok(()),
            Some(_) => {
                let end =
                    *deadline.get_or_insert_with(|| Instant::now() + self.transform.limits().search_time());
                self.search(batch, rows, out, end)
            }
        }
    }

    /// One call on the instance at hand, or on a fresh one. A failure leaves none behind.
    fn call(
        &mut self,
        batch: &RawBatch,
        rows: Range<usize>,
        time: Duration,
        ticks: u64,
        out: &mut Applied,
    ) -> Result<Option<Failure>, Error> {
        out.stats.calls += 1;
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => {
                out.stats.instances += 1;
                self.transform.worker(&self.seed)?
            }
        };
        let limits = self.transform.limits();
        let terms = Terms { reads: self.transform.manifest().reads, outputs: self.outputs, limits };
        match worker.call(&terms, batch, rows, time, ticks, &mut self.scratch) {
            Ok((segment, counts)) => {
                worker.store.data_mut().accept(&mut out.telemetry);
                let full = worker.store.data().memory > limits.memory() / 4 * 3;
                if !full {
                    self.worker = Some(worker);
                }
                self.accept(batch, segment, counts, out);
                Ok(None)
            }
            Err(failure) => {
                out.stats.failed_calls += 1;
                Ok(Some(failure))
            }
        }
    }

    #[inline]
    fn accept(&self, batch: &RawBatch, segment: Segment, counts: EditCounts, out: &mut Applied) {
        out.kept += counts.kept as usize;
        out.dropped += counts.dropped as usize;
        out.emitted += counts.emitted as usize;
        if counts.rejected > 0 {
            self.collect_rejects(batch, &segment, out);
        }
        out.push(segment);
    }

    fn collect_rejects(&self, batch: &RawBatch, segment: &Segment, out: &mut Applied) {
        let mut row = segment.first_row;
        let mut rejected = false;
        for edit in Edits::new(&segment.operations, &segment.data) {
            match edit {
                Edit::Keep(n) | Edit::Drop(n) => {
                    row += n;
                    rejected = false;
                }
                Edit::Change(_) => {
                    row += 1;
                    rejected = false;
                }
                // The list counts them; they are void.
                Edit::Emit(_) => out.emitted -= usize::from(rejected),
                Edit::Reject { code, message } => {
                    let redact = |text: &str| self.seed.redactor.redact(text.to_owned());
                    let (code, message) = (redact(code), redact(message));
                    out.rejects.push(Reject { row, offset: offset(batch, row), code, message });
                    row += 1;
                    rejected = true;
                }
            }
        }
    }

    /// Cuts a range that fails in two, and these, until what fails is one row; that is judged alone.
    fn search(
        &mut self,
        batch: &RawBatch,
        rows: Range<usize>,
        out: &mut Applied,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (call_time, all) = (self.transform.limits().call_time(), rows.len() as u32);
        // Last in, first out, the left half on top: rows come out in order.
        let mut open = Vec::new();
        let mut failed = Some(rows);
        loop {
            if let Some(rows) = failed.take() {
                if rows.len() == 1 {
                    self.judge(batch, rows.start, out, deadline)?;
                    self.check_breaker(batch, out)?;
                } else {
                    out.stats.bisections += 1;
                    let middle = rows.start + rows.len() / 2;
                    open.push(middle..rows.end);
                    open.push(rows.start..middle);
                }
            }
            let Some(rows) = open.pop() else { return Ok(()) };
            if rows.len() == 1 {
                failed = Some(rows);
                continue;
            }
            self.check_deadline(batch, &rows, out, deadline)?;
            // Too short a deadline costs a cut too many, never a wrong verdict.
            let share = call_time * rows.len() as u32 / all;
            let time = share.max(SHORTEST_DEADLINE).min(call_time);
            if self.call(batch, rows.clone(), time, ticks(time), out)?.is_some() {
                failed = Some(rows);
            }
        }
    }

    fn check_deadline(
        &self,
        batch: &RawBatch,
        rows: &Range<usize>,
        out: &Applied,
        deadline: Instant,
    ) -> Result<(), Error> {
        if Instant::now() < deadline {
            return Ok(());
        }
        Err(self.error(
            ErrorKind::Limit,
            format!(
                "limit search_time of {:?}: the search for records that break the transform is not done at row {} \
                 (offset {}) of {}, after {} calls of which {} failed; nothing of this batch was passed on; raise \
                 search_time or mend the transform",
                self.transform.limits().search_time(),
                rows.start,
                offset(batch, rows.start),
                batch.len(),
                out.stats.calls,
                out.stats.failed_calls
            ),
        ))
    }

    /// The verdict on a row: alone, on a fresh instance, by fuel.
    fn judge(
        &mut self,
        batch: &RawBatch,
        row: usize,
        out: &mut Applied,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.check_deadline(batch, &(row..row + 1), out, deadline)?;
        let mut worker = self.transform.judge(&self.seed)?;
        out.stats.instances += 1;
        out.stats.calls += 1;
        let limits = self.transform.limits();
        worker
            .store
            .set_fuel(limits.record_fuel())
            .map_err(|e| self.error(ErrorKind::Host, format!("fuel was not set: {e:#}")))?;
        let terms = Terms { reads: self.transform.manifest().reads, outputs: self.outputs, limits };
        let left = deadline.saturating_duration_since(Instant::now());
        match worker.call(&terms, batch, row..row + 1, left, ticks(left), &mut self.scratch) {
            Ok((segment, counts)) => {
                worker.store.data_mut().accept(&mut out.telemetry);
                self.accept(batch, segment, counts, out);
            }
            // Wall time is no verdict. Fuel does not count what one instruction does to megabytes.
            Err(Failure::Time(_)) => {
                out.stats.failed_calls += 1;
                self.check_deadline(batch, &(row..row + 1), out, Instant::now())?;
            }
            Err(failure) => {
                out.stats.failed_calls += 1;
                out.rejects.push(Reject {
                    row,
                    offset: offset(batch, row),
                    code: failure.code().to_owned(),
                    message: failure.message(),
                });
            }
        }
        Ok(())
    }

    fn error(&self, kind: ErrorKind, text: String) -> Error {
        let stream = &self.seed.stream;
        let name = &self.transform.manifest().name;
        Error::new(kind, format!("transform {name} on {}-{}: {text}", stream.topic, stream.partition))
    }
}

fn offset(batch: &RawBatch, row: usize) -> i64 {
    batch.rows().offsets.get(row).copied().unwrap_or(-1)
}
