//! Transforms of columns, one after the other, after values are decoded.

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use arrow_select::interleave::interleave_record_batch;
use gristmill_smt::ColumnInstance;

use super::Report;
use super::kafka_columns::{with_kafka_columns, without_kafka_columns};
use super::records::{Births, Leaving, Place, Refused, Step, Trail};
use crate::error::Error;
use crate::predicate::Predicate;

/// A transform of columns at work, and where its outputs go.
#[derive(Debug)]
pub(crate) struct ColumnStep {
    pub(crate) name: String,
    /// Which rows it is given; none: all.
    pub(crate) when: Option<Predicate>,
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
    /// Of all that was emitted, also before.
    pub(crate) births: Births,
}

/// Runs the transforms, of which `before` are of records. `numbers` are in use already.
pub(crate) fn transform<'a>(
    steps: &mut [ColumnStep],
    before: usize,
    mut rows: Rows<'a>,
    partition: i32,
    numbers: &Trail,
) -> Result<(Rows<'a>, Aside), Error> {
    let mut aside = Aside::default();
    let mut numbers = numbers.numbers();
    for (step, number) in steps.iter_mut().zip(u32::try_from(before).unwrap_or(u32::MAX)..) {
        let input = match step.reads_kafka {
            true => with_kafka_columns(&rows.rows, partition, &rows.of)?,
            false => rows.rows.clone(),
        };
        let given = given(step.when.as_ref(), &rows.rows)?;
        let of_given = |row: usize| given.as_ref().map_or(row, |given| given.rows[row]);
        let crosses = match &given {
            None => input.clone(),
            Some(given) => filter_record_batch(&input, &given.mask).map_err(Error::arrow)?,
        };
        let offsets: Vec<i64> = (0..crosses.num_rows()).map(|row| rows.of[of_given(row)].offset).collect();
        let applied = step.instance.apply(&crosses, &offsets).map_err(Error::transform)?;
        let place = |r: &Leaving<'_>| Place { row: r.row, sub: r.sub, output: r.output };
        let mut of_step = numbers.then(rows.of.iter().map(place).collect());
        let refused: Vec<Refused> = applied
            .rejects()
            .iter()
            .map(|r| {
                let Place { row, sub, .. } = of_step.of(of_given(r.row));
                Refused {
                    row,
                    sub,
                    transform: Some(number),
                    code: r.code.clone(),
                    message: r.message.clone(),
                }
            })
            .collect();
        let passed_by = input.num_rows() - crosses.num_rows();
        let (mut of, mut kept) = (Vec::with_capacity(applied.rows().len() + passed_by), 0);
        let mut follow = |row: usize, sub: u32, output: u16| {
            let of_output = Step { transform: number, outputs: &step.outputs };
            let place = of_step.follow(row, sub, output, of_output);
            kept += usize::from(sub == 0 && place.sub == 0);
            let Place { row: origin, sub, output } = place;
            of.push(Leaving { row: origin, sub, output, ..rows.of[row] });
        };
        let batch = match &given {
            None => {
                applied.rows().iter().for_each(|out| follow(out.row, out.sub, out.output));
                applied.batch().clone()
            }
            Some(given) => {
                let past = BooleanArray::new(!given.mask.values(), None);
                let past = filter_record_batch(&input, &past).map_err(Error::arrow)?;
                let past = step.instance.pass_by(&past).map_err(Error::transform)?;
                let mut order = Vec::with_capacity(applied.rows().len() + passed_by);
                let mut outputs = applied.rows().iter().enumerate().peekable();
                let (mut next, mut next_past) = (0, 0);
                for row in 0..input.num_rows() {
                    if given.rows.get(next) != Some(&row) {
                        follow(row, 0, 0);
                        order.push((1, next_past));
                        next_past += 1;
                        continue;
                    }
                    while let Some((at, out)) = outputs.next_if(|(_, out)| out.row == next) {
                        follow(row, out.sub, out.output);
                        order.push((0, at));
                    }
                    next += 1;
                }
                interleave_record_batch(&[applied.batch(), &past], &order).map_err(Error::arrow)?
            }
        };
        aside.dropped += of_step.dropped(input.num_rows(), kept, &refused);
        aside.refused.extend(refused);
        aside.reports.push(Report::of_columns(&step.name, &applied, passed_by));
        numbers = of_step.numbers();
        let left = match step.reads_kafka {
            true => without_kafka_columns(&batch)?,
            false => batch,
        };
        rows = Rows { rows: left, of };
    }
    aside.births = numbers.into_births();
    Ok((rows, aside))
}

/// Which rows a transform is given.
struct Given {
    mask: BooleanArray,
    rows: Vec<usize>,
}

/// None if it is given all.
fn given(when: Option<&Predicate>, rows: &RecordBatch) -> Result<Option<Given>, Error> {
    let Some(when) = when else { return Ok(None) };
    let mask = when.rows(rows).map_err(Error::arrow)?;
    if mask.count_set_bits() == mask.len() {
        return Ok(None);
    }
    let rows = mask.set_indices().collect();
    Ok(Some(Given { mask: BooleanArray::new(mask, None), rows }))
}
