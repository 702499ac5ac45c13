//! Transforms of typed columns.

mod applied;
mod binding;
mod decode;
mod encode;
mod fields;
#[cfg(any(test, fuzzing))]
#[allow(unreachable_pub, reason = "public where it is fuzzed")]
pub mod fuzzing;
mod simple;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::SchemaRef;
use gristmill_records::{Edit, EditCounts, Edits};

pub use applied::{AppliedColumns, OutputRow};
pub(crate) use binding::{Answer, Bound, Offered};
pub(crate) use encode::Words;

use crate::applied::Segment;
use crate::call::{Call, Failure, Input, Terms, Worker, bytes_of, check_edits};
use crate::contract::simple::Values;
use crate::contract::{Bindings, ColumnBatch, SimpleBatch};
use crate::runner::Runner;
use crate::{Error, Reads, Transform};

/// A transform of columns at work on one stream. Not for two threads at a time; `apply` does not wait for
/// anything but the guest.
#[derive(Debug)]
pub struct ColumnInstance {
    runner: Runner,
    bound: Arc<Bound>,
    words: Words,
}

impl ColumnInstance {
    pub(crate) fn new(runner: Runner, bound: Arc<Bound>) -> Self {
        ColumnInstance { runner, bound, words: Words::default() }
    }

    /// The transform.
    pub fn transform(&self) -> &Transform {
        self.runner.transform()
    }

    /// The schema of what comes out, known before the first row.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.bound.output
    }

    /// The fields that it reads: the contract's number of each, and its dotted name.
    pub fn reads(&self) -> Vec<(u32, String)> {
        self.bound.fields_read()
    }

    /// What the transform would be given of a batch, to give it to its native build.
    pub(crate) fn words_of(&self, batch: &RecordBatch) -> Words {
        let mut words = Words::default();
        words.fill(&self.bound.read(batch), &(0..batch.num_rows()));
        words
    }

    pub(crate) fn input_schema(&self) -> &SchemaRef {
        &self.bound.input
    }

    /// Throws the WebAssembly instance away, and what the breaker has counted; the next batch gets a fresh
    /// one. For tests of transforms that should not remember anything.
    pub fn reset(&mut self) {
        self.runner.reset();
    }

    /// As [`Instance::fuel`](crate::Instance::fuel).
    ///
    /// # Errors
    /// As there.
    pub fn fuel(&mut self, batch: &RecordBatch) -> Result<u64, Error> {
        let bound = self.bound.clone();
        self.runner.fuel(&mut Columns::of(&bound, batch, &[], &mut self.words))
    }

    /// What rows become that are not given to the transform, of an instance that was made by
    /// [`Transform::instantiate_columns_for_some`]: columns that it replaces keep their values, those that it adds are null,
    /// those that it removes or renames are removed or renamed. Nothing is called.
    ///
    /// # Errors
    /// Kind `Host` for another schema, and for an instance that was made otherwise if a null is then where none may be.
    pub fn pass_by(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        self.bound.pass_by(batch).map_err(|e| {
            let name = &self.runner.transform().manifest().name;
            Error::host(format!("rows do not pass by transform {name}: {e}"))
        })
    }

    /// Gives a batch to the transform. Its schema is the one that the instance was made for; `offsets` are those of
    /// its rows, for messages. Every row is accounted for in the answer.
    ///
    /// A call that fails is searched for the rows that make it fail: these are rejected with a code of the
    /// runtime, the others go on, in order.
    ///
    /// # Errors
    /// Then nothing of the batch counts, and the next one gets a fresh instance. Those of
    /// [`Instance::apply`](crate::Instance::apply); kind `Host` also for another schema.
    pub fn apply(&mut self, batch: &RecordBatch, offsets: &[i64]) -> Result<AppliedColumns, Error> {
        let name = &self.runner.transform().manifest().name;
        if batch.schema_ref().fields() != self.bound.input.fields() {
            return Err(Error::host(format!("transform {name} was given columns of another schema")));
        }
        let bound = self.bound.clone();
        let outcome = self.runner.run(&mut Columns::of(&bound, batch, offsets, &mut self.words))?;
        AppliedColumns::new(&bound, batch, outcome).map_err(|e| {
            let name = &self.runner.transform().manifest().name;
            Error::host(format!("the answers of transform {name} do not fit together: {e}"))
        })
    }
}

/// Rows of a call into a transform of plain values.
const SIMPLE_ROWS: usize = 1_000;

/// Columns for a transform of columns.
struct Columns<'a> {
    bound: &'a Bound,
    batch: &'a RecordBatch,
    columns: Vec<(ArrayRef, Option<NullBuffer>)>,
    words: &'a mut Words,
    offsets: &'a [i64],
    rows: usize,
    /// Of all rows.
    bytes: u64,
}

impl<'a> Columns<'a> {
    fn of(bound: &'a Bound, batch: &'a RecordBatch, offsets: &'a [i64], words: &'a mut Words) -> Self {
        let columns = bound.read(batch);
        let (rows, bytes) = (batch.num_rows(), encode::bytes_of(columns.iter().map(|(array, _)| array)));
        Columns { bound, batch, columns, words, offsets, rows, bytes }
    }

    /// What a simple transform reads of the rows, as lists of plain values.
    fn plain(&self, rows: &Range<usize>) -> Result<Vec<Values>, Failure> {
        let columns = self.bound.slots.iter().map(|slot| match slot {
            None => Ok(Values::Absent),
            Some(at) => simple::given(&self.columns[*at], rows, self.bound.wide_as_texts),
        });
        columns
            .collect::<Result<_, _>>()
            .map_err(|e| Failure::Host(format!("a column cannot be given to the transform: {e}")))
    }
}

impl Input for Columns<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn offset(&self, row: usize) -> i64 {
        self.offsets.get(row).copied().unwrap_or(-1)
    }

    /// By the mean size of a row; for a transform of plain values also by their number, since what it does with each takes
    /// microseconds and a call has a time limit. A call that is far larger than that fails by the guest's memory, and is cut.
    fn end_of_call(&self, start: usize, room: u64, _: Reads) -> usize {
        let calls = self.bytes.div_ceil(room).max(1);
        let most = match self.bound.answer {
            Answer::Columns(_) => self.rows,
            Answer::Simple(_) => SIMPLE_ROWS,
        };
        (start + self.rows.div_ceil(calls as usize).min(most)).min(self.rows)
    }

    fn call(
        &mut self,
        worker: &mut Worker,
        terms: &Terms<'_>,
        call: &Call,
    ) -> Result<(Segment, EditCounts), Failure> {
        let rows = call.rows.len();
        let computed = &self.bound.computed;
        let most = terms.limits.output_bytes();
        let repeats = |row: usize| -> u64 {
            self.bound.passes().map(|i| encode::bytes_in(self.batch.column(i), row..row + 1)).sum()
        };
        match &worker.bindings {
            Bindings::Records(_) => Err(Failure::other_kind()),
            Bindings::Columns(bindings) => {
                self.words.fill(&self.columns, &call.rows);
                let (layout, buffers) = (&self.words.layout, &self.words.buffers);
                let batch = ColumnBatch { rows: rows as u32, layout, buffers };
                let answer = bindings
                    .call_apply_columns(&mut worker.store, batch)
                    .map_err(|e| Failure::of(&e, worker.store.data(), terms.limits, call.time))?;
                let held = size_of_val(&answer.buffers[..]) as u64;
                segment(call, terms, (answer.operations, answer.data), held, repeats, |going_on| {
                    decode::decode(computed, going_on, &answer.layout, answer.buffers, most)
                })
            }
            Bindings::Simple(bindings) => {
                let batch = SimpleBatch { rows: rows as u32, columns: self.plain(&call.rows)? };
                let answer = bindings
                    .call_apply_simple(&mut worker.store, &batch)
                    .map_err(|e| Failure::of(&e, worker.store.data(), terms.limits, call.time))?;
                segment(call, terms, simple::edits(&answer.verdicts)?, 0, repeats, |going_on| {
                    simple::arrays(computed, going_on, answer.computed)
                })
            }
        }
    }
}

/// Checks an answer: the edit list, then the columns that `columns` makes of it for so many rows that go on. `repeats` is
/// what an extra row repeats of the row that it belongs to; `held` are the bytes that the columns may share.
fn segment(
    call: &Call,
    terms: &Terms<'_>,
    (operations, data): (Vec<u32>, Vec<u8>),
    held: u64,
    repeats: impl Fn(usize) -> u64,
    columns: impl FnOnce(usize) -> Result<Vec<ArrayRef>, String>,
) -> Result<(Segment, EditCounts), Failure> {
    let edits = Edits::new(&operations, &data);
    let counts = check_edits(&edits, call.rows.len(), terms)?;
    let (going_on, repeated) = going_on(edits, &call.rows, repeats)?;
    let limit = terms.limits.output_bytes();
    if repeated > limit {
        return Err(Failure::Output(format!(
            "limit output_bytes of {limit}: emitted rows repeat more than that of the columns that pass"
        )));
    }
    let columns = columns(going_on).map_err(Failure::InvalidColumns)?;
    let bytes = bytes_of(&operations, &data) + repeated + held.max(encode::bytes_of(&columns));
    Ok((Segment { first_row: call.rows.start, operations, data, columns, bytes }, counts))
}

/// How many rows go on, and the bytes that the extra ones repeat; what belongs to records and not to columns is refused.
fn going_on(
    edits: Edits<'_>,
    rows: &Range<usize>,
    repeats: impl Fn(usize) -> u64,
) -> Result<(usize, u64), Failure> {
    let (mut count, mut row, mut is_void) = (0, 0, false);
    // Of the row before, once it has an extra row.
    let (mut repeated, mut of_row) = (0u64, None);
    let refuse = |row: usize, what: &str| {
        let row = rows.start + row;
        Err(Failure::InvalidEdits(format!("a transform of columns does not set {what} (row {row})")))
    };
    for edit in edits {
        match edit {
            Edit::Keep(n) => (count, row) = (count + n, row + n),
            Edit::Drop(n) => row += n,
            Edit::Reject { .. } => row += 1,
            Edit::Change(change) => {
                let sets_record = change.key.is_some() || change.value.is_some();
                if sets_record || change.headers.is_some() || change.timestamp.is_some() {
                    return refuse(row, "key, value, headers or timestamp of a record");
                }
                (count, row) = (count + 1, row + 1);
            }
            Edit::Emit(emit) => {
                let sets_record = emit.key.is_some() || emit.value.is_some();
                if sets_record || emit.timestamp.is_some() || emit.headers.into_iter().next().is_some() {
                    return refuse(row, "key, value, headers or timestamp of an emitted record");
                }
                if !is_void {
                    count += 1;
                    let bytes = *of_row.get_or_insert_with(|| repeats(rows.start + row - 1));
                    repeated = repeated.saturating_add(bytes);
                }
                continue;
            }
        }
        is_void = matches!(edit, Edit::Reject { .. });
        of_row = None;
    }
    Ok((count, repeated))
}
