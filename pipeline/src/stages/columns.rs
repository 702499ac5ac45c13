//! Transforms of columns, one after the other, after values are decoded.

use arrow_array::RecordBatch;
use gristmill_smt::ColumnInstance;

use super::Report;
use super::kafka_columns::{with_kafka_columns, without_kafka_columns};
use super::records::{Leaving, Place, Refused, Trail};
use crate::error::Error;

/// A transform of columns at work, and where its outputs go.
#[derive(Debug)]
pub(crate) struct ColumnStep {
    pub(crate) name: String,
    pub(crate) instance: ColumnInstance,
    pub(crate) outputs: Vec<usize>,
    /// It reads where rows come from.
    pub(crate) reads_kafka: bool,
}

/// Rows and where each comes from.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) rows: RecordBatch,
    pub(crate) of: Vec<Leaving<'a>>,
}

/// What became of rows besides those that go on.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    pub(crate) refused: Vec<Refused>,
    pub(crate) dropped: u64,
    pub(crate) reports: Vec<Report>,
}

/// Runs the transforms. `trail` is that of the records before they were decoded.
pub(crate) fn transform<'a>(
    steps: &mut [ColumnStep],
    mut rows: Rows<'a>,
    partition: i32,
    trail: &Trail,
) -> Result<(Rows<'a>, Aside), Error> {
    let mut aside = Aside::default();
    let mut numbers = trail.numbers();
    for step in steps {
        let input = match step.reads_kafka {
            true => with_kafka_columns(&rows.rows, partition, &rows.of)?,
            false => rows.rows.clone(),
        };
        let offsets: Vec<i64> = rows.of.iter().map(|r| r.offset).collect();
        let applied = step.instance.apply(&input, &offsets).map_err(Error::transform)?;
        let place = |r: &Leaving<'_>| Place { row: r.row, sub: r.sub, output: r.output };
        let mut of_step = numbers.then(rows.of.iter().map(place).collect());
        let refused: Vec<Refused> = applied
            .rejects()
            .iter()
            .map(|r| {
                let Place { row, sub, .. } = of_step.of(r.row);
                Refused { row, sub, code: r.code.clone(), message: r.message.clone() }
            })
            .collect();
        let (mut of, mut kept) = (Vec::with_capacity(applied.rows().len()), 0);
        for out in applied.rows() {
            let Place { row, sub, output } = of_step.follow(out.row, out.sub, out.output, &step.outputs);
            kept += usize::from(out.sub == 0 && sub == 0);
            of.push(Leaving { row, sub, output, ..rows.of[out.row] });
        }
        aside.dropped += of_step.dropped(input.num_rows(), kept, &refused);
        aside.refused.extend(refused);
        aside.reports.push(Report::of_columns(&step.name, &applied));
        numbers = of_step.numbers();
        let left = match step.reads_kafka {
            true => without_kafka_columns(applied.batch())?,
            false => applied.batch().clone(),
        };
        rows = Rows { rows: left, of };
    }
    Ok((rows, aside))
}
