use arrow_array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_buffer::BooleanBufferBuilder;
use arrow_schema::ArrowError;
use arrow_select::concat::concat;
use arrow_select::filter::FilterBuilder;
use arrow_select::take::take;
use gristmill_records::{Edit, Edits};

use super::binding::Bound;
use crate::applied::{Outcome, Stats};
use crate::{Error, LogLine, Metrics, Reject};

/// What became of a batch of columns: every input row is in it exactly once, as a row that goes on (with the extra
/// rows that belong to it), as dropped, or as a [`Reject`].
#[derive(Debug)]
pub struct AppliedColumns {
    batch: RecordBatch,
    rows: Vec<OutputRow>,
    outcome: Outcome,
}

/// Where a row of the output comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputRow {
    /// The input row it comes from.
    pub row: usize,
    /// 0 for the row itself, 1 and above for the extra rows that belong to it, in order.
    pub sub: u32,
    /// The output; 0 is `main`.
    pub output: u16,
}

impl AppliedColumns {
    pub(super) fn new(bound: &Bound, input: &RecordBatch, outcome: Outcome) -> Result<Self, ArrowError> {
        let rows = output_rows(&outcome);
        let mut computed: Vec<ArrayRef> = Vec::with_capacity(bound.computed.len());
        for k in 0..bound.computed.len() {
            let parts: Vec<_> = outcome.segments.iter().map(|s| s.columns[k].as_ref()).collect();
            computed.push(match parts.len() {
                0 => arrow_array::new_empty_array(bound.computed[k].data_type()),
                1 => outcome.segments[0].columns[k].clone(),
                _ => concat(&parts)?,
            });
        }
        let mut columns = input.columns().to_vec();
        if outcome.emitted > 0 {
            let indices = UInt32Array::from_iter_values(rows.iter().map(|r| r.row as u32));
            for i in bound.passes() {
                columns[i] = take(&columns[i], &indices, None)?;
            }
        } else if rows.len() < input.num_rows() {
            let mut goes_on = BooleanBufferBuilder::new(input.num_rows());
            goes_on.append_n(input.num_rows(), false);
            rows.iter().for_each(|r| goes_on.set_bit(r.row, true));
            let filter = FilterBuilder::new(&BooleanArray::new(goes_on.finish(), None)).optimize().build();
            for i in bound.passes() {
                columns[i] = filter.filter(&columns[i])?;
            }
        }
        let batch = bound.output(&columns, &computed, rows.len())?;
        Ok(AppliedColumns { batch, rows, outcome })
    }

    /// The rows that go on, in the transform's output schema: by input row, and for each by `sub`.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// For each row of [`batch`](Self::batch), where it comes from and goes to.
    pub fn rows(&self) -> &[OutputRow] {
        &self.rows
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

    /// Extra rows that go on.
    pub fn emitted(&self) -> usize {
        self.outcome.emitted
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

    /// Limits that were reached without harm to any row, as in [`Applied::warnings`](crate::Applied::warnings).
    pub fn warnings(&self) -> &[Error] {
        &self.outcome.warnings
    }
}

fn output_rows(outcome: &Outcome) -> Vec<OutputRow> {
    let mut rows = Vec::with_capacity(outcome.kept + outcome.emitted);
    for segment in &outcome.segments {
        let mut row = segment.first_row;
        // Of the row before: extra rows so far, and whether it was rejected.
        let (mut sub, mut is_void) = (0, false);
        for edit in Edits::new(&segment.operations, &segment.data) {
            match edit {
                Edit::Keep(n) => {
                    rows.extend((row..row + n).map(|row| OutputRow { row, sub: 0, output: 0 }));
                    row += n;
                }
                Edit::Change(change) => {
                    rows.push(OutputRow { row, sub: 0, output: change.output as u16 });
                    row += 1;
                }
                Edit::Drop(n) => row += n,
                Edit::Reject { .. } => row += 1,
                Edit::Emit(_) if is_void => continue,
                Edit::Emit(emit) => {
                    sub += 1;
                    rows.push(OutputRow { row: row - 1, sub, output: emit.output as u16 });
                    continue;
                }
            }
            (sub, is_void) = (0, matches!(edit, Edit::Reject { .. }));
        }
    }
    rows
}
