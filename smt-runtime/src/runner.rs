use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_records::{Edit, EditCounts, Edits};

use crate::applied::{Outcome, Segment};
use crate::call::{Call, Failure, Input, Terms, Worker};
use crate::engine::ticks;
use crate::transform::Seed;
use crate::{Error, ErrorKind, Reject, Transform};

/// Bytes of records in one call: more gains nothing and leaves the caches of the processor.
const CALL_BYTES: u64 = 512 * 1024;

/// The shortest deadline of a call during a search, however few rows it has.
const SHORTEST_DEADLINE: Duration = Duration::from_millis(50);

/// A transform at work on one stream, whatever it is given: calls, the search for what breaks it, the breaker.
///
/// The WebAssembly instance inside is used for batch after input, and replaced after a failed call and
/// when it has grown over three quarters of its memory limit.
pub(crate) struct Runner {
    transform: Transform,
    seed: Seed,
    worker: Option<Worker>,
    breaker: Breaker,
    outputs: u32,
    call_ticks: u64,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
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

impl Runner {
    pub(crate) fn new(transform: Transform, seed: Seed, worker: Worker) -> Self {
        let outputs = transform.manifest().outputs.len() as u32 + 1;
        let call_ticks = ticks(transform.limits().call_timeout());
        Runner { transform, seed, worker: Some(worker), breaker: Breaker::default(), outputs, call_ticks }
    }

    pub(crate) fn transform(&self) -> &Transform {
        &self.transform
    }

    pub(crate) fn add_schema(&mut self, id: u32, text: Arc<str>) {
        let schemas: &mut BTreeMap<_, _> = Arc::make_mut(&mut self.seed.schemas);
        schemas.insert(id, text);
        if let Some(worker) = &mut self.worker {
            worker.store.data_mut().schemas = self.seed.schemas.clone();
        }
    }

    pub(crate) fn reset(&mut self) {
        self.worker = None;
        self.breaker = Breaker::default();
    }

    /// Gives all rows of `input` to the transform. After an error nothing counts, and the next one gets a fresh
    /// instance.
    pub(crate) fn run(&mut self, input: &mut impl Input) -> Result<Outcome, Error> {
        let started = Instant::now();
        let mut out = Outcome::default();
        match self.run_all(input, &mut out) {
            Ok(()) => {
                out.stats.guest_time = started.elapsed();
                out.warnings = out.telemetry.warnings(self.transform.limits());
                Ok(out)
            }
            Err(e) => {
                self.reset();
                Err(e)
            }
        }
    }

    /// The fuel that all rows burn, in the build that counts it: the same on every machine. Nothing of it counts.
    ///
    /// # Errors
    /// Kind `Limit` for what fails or is over a limit.
    pub(crate) fn fuel(&mut self, input: &mut impl Input) -> Result<u64, Error> {
        const ALL: u64 = u64::MAX / 2;
        let limits = self.transform.limits();
        let room = CALL_BYTES.min(limits.memory() / 4);
        let reads = self.transform.manifest().reads;
        let terms = Terms { reads, outputs: self.outputs, limits };
        let failed = |e: wasmtime::Error| self.error(ErrorKind::Host, format!("fuel is not counted: {e:#}"));
        let (mut start, mut fuel) = (0, 0);
        while start < input.rows() {
            let end = input.end_of_call(start, room, reads).max(start + 1);
            // A fresh one for each call: what a call costs must not depend on those before it.
            let mut worker = self.transform.judge(&self.seed)?;
            worker.store.set_fuel(ALL).map_err(failed)?;
            let time = limits.search_timeout();
            worker
                .call(input, &terms, Call { rows: start..end, time, ticks: ticks(time) })
                .map_err(|failure| self.error(ErrorKind::Limit, failure.message()))?;
            fuel += ALL - worker.store.get_fuel().map_err(failed)?;
            start = end;
        }
        Ok(fuel)
    }

    fn run_all(&mut self, input: &mut impl Input, out: &mut Outcome) -> Result<(), Error> {
        let room = CALL_BYTES.min(self.transform.limits().memory() / 4);
        let reads = self.transform.manifest().reads;
        let mut deadline = None;
        let mut start = 0;
        while start < input.rows() {
            let end = input.end_of_call(start, room, reads).max(start + 1);
            self.range(input, start..end, out, &mut deadline)?;
            start = end;
        }
        let (rows, rejects) = (input.rows() as u64, out.rejects.len() as u64);
        self.check_breaker(input, out)?;
        self.breaker.add(rows, rejects, self.transform.limits().breaker_rows());
        Ok(())
    }

    fn check_breaker(&self, input: &mut impl Input, out: &Outcome) -> Result<(), Error> {
        let limits = self.transform.limits();
        let (rows, rejects) = (input.rows() as u64, out.rejects.len() as u64);
        let (ratio, least) = (limits.max_reject_ratio(), limits.breaker_rows());
        if rejects == 0 || !self.breaker.is_open(rows, rejects, ratio, least) {
            return Ok(());
        }
        let last = &out.rejects[out.rejects.len() - 1];
        let seen = self.breaker.rejects + rejects;
        Err(self.error(
            ErrorKind::Breaker,
            format!(
                "limit max_reject_ratio of {ratio}: {seen} of the last {} rows were rejected, so the transform or its \
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
        input: &mut impl Input,
        rows: Range<usize>,
        out: &mut Outcome,
        deadline: &mut Option<Instant>,
    ) -> Result<(), Error> {
        let time = self.transform.limits().call_timeout();
        match self.call(input, rows.clone(), time, self.call_ticks, out)? {
            None => Ok(()),
            Some(_) => {
                let end = *deadline
                    .get_or_insert_with(|| Instant::now() + self.transform.limits().search_timeout());
                self.search(input, rows, out, end)
            }
        }
    }

    /// One call on the instance at hand, or on a fresh one. A failure leaves none behind.
    fn call(
        &mut self,
        input: &mut impl Input,
        rows: Range<usize>,
        time: Duration,
        ticks: u64,
        out: &mut Outcome,
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
        match worker.call(input, &terms, Call { rows, time, ticks }) {
            Ok((segment, counts)) => {
                worker.store.data_mut().accept(&mut out.telemetry);
                let memory = worker.store.data().memory;
                out.stats.memory = out.stats.memory.max(memory);
                let full = memory > limits.memory() / 4 * 3;
                if !full {
                    self.worker = Some(worker);
                }
                self.accept(input, segment, counts, out)?;
                Ok(None)
            }
            Err(failure) => {
                out.stats.failed_calls += 1;
                Ok(Some(failure))
            }
        }
    }

    #[inline]
    fn accept(
        &self,
        input: &mut impl Input,
        segment: Segment,
        counts: EditCounts,
        out: &mut Outcome,
    ) -> Result<(), Error> {
        out.bytes += segment.bytes;
        let limit = self.transform.limits().batch_output_bytes();
        if out.bytes > limit {
            return Err(self.error(
                ErrorKind::Limit,
                format!(
                    "limit batch_output_bytes of {limit}: the answers to a batch of {} rows hold more than that at row \
                     {} (offset {}); nothing of this batch was passed on",
                    input.rows(),
                    segment.first_row,
                    input.offset(segment.first_row),
                ),
            ));
        }
        out.kept += counts.kept as usize;
        out.dropped += counts.dropped as usize;
        out.emitted += counts.emitted as usize;
        if counts.rejected > 0 {
            self.collect_rejects(input, &segment, out);
        }
        out.segments.push(segment);
        Ok(())
    }

    fn collect_rejects(&self, input: &mut impl Input, segment: &Segment, out: &mut Outcome) {
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
                    out.rejects.push(Reject { row, offset: input.offset(row), code, message });
                    row += 1;
                    rejected = true;
                }
            }
        }
    }

    /// Cuts a range that fails in two, and these, until what fails is one row; that is judged alone.
    fn search(
        &mut self,
        input: &mut impl Input,
        rows: Range<usize>,
        out: &mut Outcome,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (call_timeout, all) = (self.transform.limits().call_timeout(), rows.len() as u32);
        // Last in, first out, the left half on top: rows come out in order.
        let mut open = Vec::new();
        let mut failed = Some(rows);
        loop {
            if let Some(rows) = failed.take() {
                if rows.len() == 1 {
                    self.judge(input, rows.start, out, deadline)?;
                    self.check_breaker(input, out)?;
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
            self.check_deadline(input, &rows, out, deadline)?;
            // Too short a deadline costs a cut too many, never a wrong verdict.
            let share = call_timeout.saturating_mul(rows.len() as u32) / all;
            let time = share.max(SHORTEST_DEADLINE).min(call_timeout);
            if self.call(input, rows.clone(), time, ticks(time), out)?.is_some() {
                failed = Some(rows);
            }
        }
    }

    fn check_deadline(
        &self,
        input: &mut impl Input,
        rows: &Range<usize>,
        out: &Outcome,
        deadline: Instant,
    ) -> Result<(), Error> {
        if Instant::now() < deadline {
            return Ok(());
        }
        Err(self.error(
            ErrorKind::Limit,
            format!(
                "limit search_timeout of {:?}: the search for records that break the transform is not done at row {} \
                 (offset {}) of {}, after {} calls of which {} failed; nothing of this batch was passed on; raise \
                 search_timeout or mend the transform",
                self.transform.limits().search_timeout(),
                rows.start,
                input.offset(rows.start),
                input.rows(),
                out.stats.calls,
                out.stats.failed_calls
            ),
        ))
    }

    /// The verdict on a row: alone, on a fresh instance, by fuel.
    fn judge(
        &mut self,
        input: &mut impl Input,
        row: usize,
        out: &mut Outcome,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.check_deadline(input, &(row..row + 1), out, deadline)?;
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
        match worker.call(input, &terms, Call { rows: row..row + 1, time: left, ticks: ticks(left) }) {
            Ok((segment, counts)) => {
                worker.store.data_mut().accept(&mut out.telemetry);
                self.accept(input, segment, counts, out)?;
            }
            // Wall time is no verdict. Fuel does not count what one instruction does to megabytes.
            Err(Failure::Time(_)) => {
                out.stats.failed_calls += 1;
                self.check_deadline(input, &(row..row + 1), out, Instant::now())?;
            }
            Err(failure) => {
                out.stats.failed_calls += 1;
                let failure = match failure.has_places() {
                    true => self.trap_again(input, row, out).unwrap_or(failure),
                    false => failure,
                };
                out.rejects.push(Reject {
                    row,
                    offset: input.offset(row),
                    code: failure.code().to_owned(),
                    message: self.seed.redactor.shown(&failure.message()),
                });
            }
        }
        Ok(())
    }

    /// The same trap in the build that does not count fuel: that one merges what traps alike, and so its places are not
    /// always right.
    fn trap_again(&self, input: &mut impl Input, row: usize, out: &mut Outcome) -> Option<Failure> {
        let mut worker = self.transform.worker(&self.seed).ok()?;
        out.stats.instances += 1;
        out.stats.calls += 1;
        let limits = self.transform.limits();
        let terms = Terms { reads: self.transform.manifest().reads, outputs: self.outputs, limits };
        let time = limits.call_timeout();
        let call = Call { rows: row..row + 1, time, ticks: self.call_ticks };
        let failure = worker.call(input, &terms, call).err().filter(Failure::has_places)?;
        out.stats.failed_calls += 1;
        Some(failure)
    }

    fn error(&self, kind: ErrorKind, text: String) -> Error {
        let stream = &self.seed.stream;
        let name = &self.transform.manifest().name;
        Error::new(kind, format!("transform {name} on {}-{}: {text}", stream.topic, stream.partition))
    }
}
