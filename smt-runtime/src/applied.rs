use std::time::Duration;

use arrow_array::ArrayRef;
use gristmill_records::{Change, Edit, Edits, Headers, RawBatch, Record};

use crate::telemetry::Telemetry;
use crate::{Error, LogLine, Metrics};

/// What became of a batch: every input row is in it exactly once, as a record that goes on (with the extra
/// records that belong to it), as dropped, or as a [`Reject`].
///
/// It keeps the batch and the checked answers of the guest; records are put together when they are
/// iterated, without a copy.
#[derive(Debug)]
pub struct Applied {
    batch: RawBatch,
    outcome: Outcome,
}

/// What the calls for a batch came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) segments: Vec<Segment>,
    pub(crate) rejects: Vec<Reject>,
    pub(crate) dropped: usize,
    pub(crate) kept: usize,
    pub(crate) emitted: usize,
    pub(crate) stats: Stats,
    pub(crate) telemetry: Telemetry,
    pub(crate) warnings: Vec<Error>,
    /// Of the answers in `segments`.
    pub(crate) bytes: u64,
}

/// The checked answer to one call.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first_row: usize,
    pub(crate) operations: Vec<u32>,
    pub(crate) data: Vec<u8>,
    /// Of a transform of columns: those that it computed.
    pub(crate) columns: Vec<ArrayRef>,
    /// Of all that, and of what emitted rows repeat of the columns that pass.
    pub(crate) bytes: u64,
}

/// A row that the transform, or the runtime in its place, refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The row in the batch.
    pub row: usize,
    /// The record's offset.
    pub offset: i64,
    /// For machines: the transform's own code, or `TRANSFORM_TRAP`, `TRANSFORM_FUEL`, `TRANSFORM_MEMORY`,
    /// `TRANSFORM_OUTPUT`, `TRANSFORM_INVALID_EDITS`, `TRANSFORM_INVALID_COLUMNS` where the runtime judged.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What a batch cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls of `apply`, failed ones too.
    pub calls: u64,
    /// Wall time of these calls, instances and checks included.
    pub guest_time: Duration,
    /// Calls that trapped, went over a limit or answered nonsense.
    pub failed_calls: u64,
    /// Times that a range of rows was cut in two to find what breaks the transform.
    pub bisections: u64,
    /// Instances made.
    pub instances: u64,
    /// The most bytes of linear memory that an instance had after a call that was accepted.
    pub memory: u64,
}

/// A record that comes out of a transform.
#[derive(Debug, Clone, Copy)]
pub struct OutputRecord<'a> {
    /// The input row it comes from.
    pub row: usize,
    /// 0 for the row itself, 1 and above for the extra records that belong to it, in order.
    pub sub: u32,
    /// The input record's offset.
    pub offset: i64,
    /// The output; 0 is `main`.
    pub output: u16,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
    /// Milliseconds since the Unix epoch, if it has a timestamp.
    pub timestamp: Option<i64>,
}

impl Applied {
    pub(crate) fn new(batch: RawBatch, outcome: Outcome) -> Self {
        Applied { batch, outcome }
    }

    /// The records that go on: by row, and for each row by `sub`.
    pub fn records(&self) -> impl Iterator<Item = OutputRecord<'_>> {
        Records {
            applied: self,
            segments: self.outcome.segments.iter(),
            edits: Edits::new(&[], &[]),
            keep: 0,
            row: 0,
            sub: 0,
        }
    }

    /// The rejected rows, in order.
    pub fn rejects(&self) -> &[Reject] {
        &self.outcome.rejects
    }

    /// Rows that were left out.
    pub fn dropped(&self) -> usize {
        self.outcome.dropped
    }

    /// Rows that go on.
    pub fn kept(&self) -> usize {
        self.outcome.kept
    }

    /// Extra records that go on.
    pub fn emitted(&self) -> usize {
        self.outcome.emitted
    }

    /// Rows that came in: `kept + dropped + rejects`.
    pub fn rows(&self) -> usize {
        self.batch.len()
    }

    /// The batch that came in.
    pub fn batch(&self) -> &RawBatch {
        &self.batch
    }

    /// What it cost.
    pub fn stats(&self) -> Stats {
        self.outcome.stats
    }

    /// What the transform logged in calls that were accepted.
    pub fn logs(&self) -> &[LogLine] {
        &self.outcome.telemetry.logs
    }

    /// What the transform counted and observed in calls that were accepted.
    pub fn metrics(&self) -> &Metrics {
        &self.outcome.telemetry.metrics
    }

    /// Limits that were reached without harm to any record (log lines or metrics left out): errors of kind
    /// `Limit` that name the limit, its value and what was seen.
    pub fn warnings(&self) -> &[Error] {
        &self.outcome.warnings
    }
}

struct Records<'a> {
    applied: &'a Applied,
    segments: std::slice::Iter<'a, Segment>,
    edits: Edits<'a>,
    /// Rows of the run at hand that are still to be given out.
    keep: usize,
    /// The next row.
    row: usize,
    /// Extra records of the row before so far; `u32::MAX` where that row was rejected.
    sub: u32,
}

impl<'a> Records<'a> {
    fn record(&mut self, change: Change<'a>) -> Option<OutputRecord<'a>> {
        let source: Record<'a> = self.applied.batch.rows().get(self.row)?;
        let record = OutputRecord {
            row: self.row,
            sub: 0,
            offset: source.offset(),
            output: change.output as u16,
            key: change.key.unwrap_or_else(|| source.key()),
            value: change.value.unwrap_or_else(|| source.value()),
            headers: change.headers.unwrap_or_else(|| source.headers()),
            timestamp: change.timestamp.unwrap_or_else(|| source.timestamp()),
        };
        self.row += 1;
        self.sub = 0;
        Some(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = OutputRecord<'a>;

    fn next(&mut self) -> Option<OutputRecord<'a>> {
        loop {
            if self.keep > 0 {
                self.keep -= 1;
                return self.record(Change::default());
            }
            match self.edits.next() {
                Some(Edit::Keep(rows)) => self.keep = rows,
                Some(Edit::Drop(rows)) => {
                    self.row += rows;
                    self.sub = 0;
                }
                Some(Edit::Change(change)) => return self.record(change),
                Some(Edit::Reject { .. }) => {
                    self.row += 1;
                    self.sub = u32::MAX;
                }
                Some(Edit::Emit(_)) if self.sub == u32::MAX => {}
                Some(Edit::Emit(emit)) => {
                    self.sub += 1;
                    let row = self.row.checked_sub(1)?;
                    return Some(OutputRecord {
                        row,
                        sub: self.sub,
                        offset: self.applied.batch.rows().offsets.get(row).copied()?,
                        output: emit.output as u16,
                        key: emit.key,
                        value: emit.value,
                        headers: emit.headers,
                        timestamp: emit.timestamp,
                    });
                }
                None => {
                    let segment = self.segments.next()?;
                    self.edits = Edits::new(&segment.operations, &segment.data);
                    self.row = segment.first_row;
                    self.sub = 0;
                }
            }
        }
    }
}
