//! Transforms of records, one after the other, before values are decoded.

use std::collections::HashMap;

use gristmill_codec::Value;
use gristmill_records::{Headers, NO_TIMESTAMP, PushError, RawBatch, RawBatchBuilder, Record};
use gristmill_smt::{Applied, Instance, OutputRecord};

use super::Report;
use crate::error::{Error, ErrorKind};
use crate::predicate::Predicate;

/// A record, or a row, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The record of Kafka that it comes from: its row in the batch.
    pub(crate) row: usize,
    /// 0 for what became of that record itself, 1 and above for what was emitted for it.
    pub(crate) sub: u32,
    /// The output of the pipeline that it goes to.
    pub(crate) output: usize,
}

/// What a transform refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) row: usize,
    pub(crate) sub: u32,
    /// The transform's place in the pipeline file.
    pub(crate) transform: Option<u32>,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// What became of a row, by [Debezium's letters](https://debezium.io/documentation/reference/stable/transformations/event-flattening.html).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Op {
    #[default]
    Create,
    Update,
    Delete,
    /// It was there when a snapshot was taken.
    Read,
}

impl Op {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Op::Create => "c",
            Op::Update => "u",
            Op::Delete => "d",
            Op::Read => "r",
        }
    }
}

/// A record that leaves the transforms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving<'a> {
    pub(crate) row: usize,
    pub(crate) sub: u32,
    pub(crate) output: usize,
    pub(crate) offset: i64,
    pub(crate) timestamp: Option<i64>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
    /// What was done to the row, where records say it.
    pub(crate) op: Op,
}

impl<'a> Leaving<'a> {
    /// What is decoded.
    pub(crate) fn value_to_decode(&self) -> Option<Value<'a>> {
        value_of(self.value, self.headers)
    }

    /// What keys are decoded from.
    pub(crate) fn key_to_decode(&self) -> Option<Value<'a>> {
        let bytes = self.key?;
        Some(Value { bytes, schema_header: schema_header(self.headers, "__key_schema_id") })
    }
}

/// A value with the header that may name its schema.
pub(crate) fn value_of<'a>(value: Option<&'a [u8]>, headers: Headers<'a>) -> Option<Value<'a>> {
    Some(Value { bytes: value?, schema_header: schema_header(headers, "__value_schema_id") })
}

fn schema_header<'a>(headers: Headers<'a>, name: &str) -> Option<&'a [u8]> {
    if headers.is_empty() {
        return None;
    }
    headers.last_named(name)?.value
}

/// Follows what comes out of a transform back to the records of Kafka, and numbers what is emitted: a record's own
/// successor stays number 0 through all transforms, what is emitted for it gets the next number, once.
#[derive(Debug)]
pub(crate) struct Trail {
    /// By row of the transform's input; none if that is the batch itself.
    places: Option<Vec<Place>>,
    /// The highest number in use, of the records for which something was emitted.
    emitted: HashMap<usize, u32>,
    /// Where what was emitted comes from; kept for who delivers dead letters again.
    births: Option<Births>,
}

/// By row of the batch and number: of which number it was emitted, and by which transform.
pub(crate) type Births = HashMap<(usize, u32), Birth>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth {
    pub(crate) from: u32,
    /// Its place in the pipeline file.
    pub(crate) transform: u32,
}

impl Trail {
    /// Of a batch as it came from Kafka.
    pub(crate) fn new() -> Self {
        Trail { places: None, emitted: HashMap::new(), births: None }
    }

    /// The same, that keeps where what is emitted comes from.
    pub(crate) fn with_births() -> Self {
        Trail { births: Some(Births::new()), ..Trail::new() }
    }

    pub(crate) fn into_births(self) -> Births {
        self.births.unwrap_or_default()
    }

    pub(crate) fn of(&self, row: usize) -> Place {
        match &self.places {
            None => Place { row, sub: 0, output: 0 },
            Some(places) => places[row],
        }
    }

    /// What comes out of row `row` of a transform as number `sub` of its own, going to its output `output`.
    pub(crate) fn follow(&mut self, row: usize, sub: u32, output: u16, step: Step<'_>) -> Place {
        let from = self.of(row);
        // Its `main` is where the record was going anyhow.
        let output = match output {
            0 => from.output,
            output => step.outputs[usize::from(output)],
        };
        if sub == 0 {
            return Place { output, ..from };
        }
        let last = self.emitted.entry(from.row).or_default();
        *last += 1;
        if let Some(births) = &mut self.births {
            births.insert((from.row, *last), Birth { from: from.sub, transform: step.transform });
        }
        Place { row: from.row, sub: *last, output }
    }

    /// The numbers that are in use, for other places.
    pub(crate) fn numbers(&self) -> Self {
        Trail { places: None, emitted: self.emitted.clone(), births: self.births.clone() }
    }

    /// The same for what comes after the transform.
    pub(crate) fn then(self, places: Vec<Place>) -> Self {
        Trail { places: Some(places), ..self }
    }

    /// How many of Kafka's records were dropped: those of `rows` whose own successors, of which `kept` go on, are not
    /// `refused` either.
    pub(crate) fn dropped(&self, rows: usize, kept: usize, refused: &[Refused]) -> u64 {
        let own = match &self.places {
            None => rows,
            Some(places) => places.iter().filter(|place| place.sub == 0).count(),
        };
        let refused = refused.iter().filter(|refused| refused.sub == 0).count();
        own.saturating_sub(kept + refused) as u64
    }
}

/// Which transform something comes out of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// Its place in the pipeline file.
    pub(crate) transform: u32,
    /// Where its outputs go.
    pub(crate) outputs: &'a [usize],
}

/// A transform of records at work, and where its outputs go.
#[derive(Debug)]
pub(crate) struct RecordStep {
    pub(crate) name: String,
    /// Which records it is given; none: all.
    pub(crate) when: Option<Predicate>,
    pub(crate) instance: Instance,
    pub(crate) outputs: Vec<usize>,
}

/// A batch after the transforms of records; nothing is decoded yet.
#[derive(Debug)]
pub(crate) struct Transformed {
    /// As it came from Kafka.
    pub(crate) origin: RawBatch,
    left: Left,
    /// Of what leaves.
    pub(crate) trail: Trail,
    pub(crate) refused: Vec<Refused>,
    pub(crate) dropped: u64,
    pub(crate) reports: Vec<Report>,
}

/// What the last transform left.
#[derive(Debug)]
enum Left {
    /// All of this batch, in order.
    Batch(RawBatch),
    Applied(Box<Applied>),
}

/// Runs the transforms. CPU only; they may take as long as their limits allow.
pub(crate) fn transform(
    steps: &mut [RecordStep],
    origin: RawBatch,
    trail: Trail,
) -> Result<Transformed, Error> {
    let mut transformed = Transformed {
        origin: origin.clone(),
        left: Left::Batch(origin),
        trail,
        refused: Vec::new(),
        dropped: 0,
        reports: Vec::new(),
    };
    for (step, number) in steps.iter_mut().zip(0..) {
        let batch = match &transformed.left {
            Left::Batch(batch) => batch.clone(),
            Left::Applied(applied) => {
                let mut builder = builder_like(&transformed.origin);
                applied.records().try_for_each(|record| push_output(&mut builder, &record))?;
                builder.build()
            }
        };
        // The rows that it is given, if it is not given all.
        let given: Option<Vec<usize>> = match &step.when {
            None => None,
            Some(when) => {
                let given: Vec<usize> =
                    batch.iter().filter(|record| when.holds(record)).map(|record| record.row()).collect();
                (given.len() < batch.len()).then_some(given)
            }
        };
        let of_given = |row: usize| given.as_ref().map_or(row, |given| given[row]);
        let applied = match &given {
            None => step.instance.apply(&batch),
            Some(rows) => step.instance.apply(&selected(&batch, rows)?),
        };
        let applied = applied.map_err(Error::transform)?;
        let mut trail = std::mem::replace(&mut transformed.trail, Trail::new());
        let refused: Vec<Refused> = applied
            .rejects()
            .iter()
            .map(|r| {
                let place = trail.of(of_given(r.row));
                let (row, sub, transform) = (place.row, place.sub, Some(number));
                Refused { row, sub, transform, code: r.code.clone(), message: r.message.clone() }
            })
            .collect();
        let passed_by = batch.len() - given.as_ref().map_or(batch.len(), Vec::len);
        let (mut places, mut kept) = (Vec::with_capacity(applied.kept() + applied.emitted() + passed_by), 0);
        let mut follow = |trail: &mut Trail, row: usize, sub: u32, output: u16| {
            let step = Step { transform: number, outputs: &step.outputs };
            let place = trail.follow(row, sub, output, step);
            kept += usize::from(sub == 0 && place.sub == 0);
            places.push(place);
        };
        transformed.reports.push(Report::of_records(&step.name, &applied, passed_by));
        transformed.left = match &given {
            None => {
                applied.records().for_each(|r| follow(&mut trail, r.row, r.sub, r.output));
                Left::Applied(Box::new(applied))
            }
            Some(given) => {
                let mut builder = builder_like(&batch);
                let (mut outputs, mut next) = (applied.records().peekable(), 0);
                for record in batch.iter() {
                    if given.get(next) != Some(&record.row()) {
                        follow(&mut trail, record.row(), 0, 0);
                        push(&mut builder, &record)?;
                        continue;
                    }
                    while let Some(output) = outputs.next_if(|output| output.row == next) {
                        follow(&mut trail, record.row(), output.sub, output.output);
                        push_output(&mut builder, &output)?;
                    }
                    next += 1;
                }
                Left::Batch(builder.build())
            }
        };
        transformed.dropped += trail.dropped(batch.len(), kept, &refused);
        transformed.refused.extend(refused);
        transformed.trail = trail.then(places);
    }
    Ok(transformed)
}

/// For what a transform left of a batch.
fn builder_like(batch: &RawBatch) -> RawBatchBuilder {
    RawBatchBuilder::new(batch.topic().clone(), batch.partition()).with_repeated_offsets()
}

fn selected(batch: &RawBatch, rows: &[usize]) -> Result<RawBatch, Error> {
    let mut builder = builder_like(batch);
    for record in rows.iter().filter_map(|row| batch.get(*row)) {
        push(&mut builder, &record)?;
    }
    Ok(builder.build())
}

fn push(builder: &mut RawBatchBuilder, record: &Record<'_>) -> Result<(), Error> {
    let timestamp = record.timestamp().unwrap_or(NO_TIMESTAMP);
    let pushed = builder.push(record.offset(), timestamp, record.key(), record.value(), record.headers());
    pushed.map_err(does_not_fit)
}

fn push_output(builder: &mut RawBatchBuilder, record: &OutputRecord<'_>) -> Result<(), Error> {
    let timestamp = record.timestamp.unwrap_or(NO_TIMESTAMP);
    let pushed = builder.push(record.offset, timestamp, record.key, record.value, record.headers);
    pushed.map_err(does_not_fit)
}

fn does_not_fit(error: PushError) -> Error {
    let text = format!("what a transform made of the batch does not fit the next one's: {error}");
    Error::new(ErrorKind::Transform, text)
}

impl Transformed {
    pub(crate) fn leaving(&self) -> Vec<Leaving<'_>> {
        match &self.left {
            Left::Applied(applied) => applied
                .records()
                .enumerate()
                .map(|(i, r)| {
                    let Place { row, sub, output } = self.trail.of(i);
                    let (offset, timestamp) = (r.offset, r.timestamp);
                    Leaving {
                        row,
                        sub,
                        output,
                        offset,
                        timestamp,
                        key: r.key,
                        value: r.value,
                        headers: r.headers,
                        op: Op::default(),
                    }
                })
                .collect(),
            Left::Batch(batch) => batch
                .iter()
                .map(|r| {
                    let Place { row, sub, output } = self.trail.of(r.row());
                    let (offset, timestamp) = (r.offset(), r.timestamp());
                    Leaving {
                        row,
                        sub,
                        output,
                        offset,
                        timestamp,
                        key: r.key(),
                        value: r.value(),
                        headers: r.headers(),
                        op: Op::default(),
                    }
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(row: usize, sub: u32, output: usize) -> Place {
        Place { row, sub, output }
    }

    #[test]
    fn a_record_stays_number_0_and_what_is_emitted_for_it_is_numbered_once() {
        let mut trail = Trail::with_births();
        // Row 0 is kept and emits twice, row 1 is dropped and emits once, row 2 is routed.
        let outputs = Step { transform: 0, outputs: &[0, 1] };
        let first = vec![
            trail.follow(0, 0, 0, outputs),
            trail.follow(0, 1, 0, outputs),
            trail.follow(0, 2, 1, outputs),
            trail.follow(1, 1, 0, outputs),
            trail.follow(2, 0, 1, outputs),
        ];
        let expected = [place(0, 0, 0), place(0, 1, 0), place(0, 2, 1), place(1, 1, 0), place(2, 0, 1)];
        assert_eq!(first, expected);
        assert_eq!(trail.dropped(3, 2, &[]), 1);
        let mut trail = trail.then(first);
        // The next transform keeps all but the last, and emits for the first two rows that it is given; its output 1
        // is the pipeline's 2.
        let outputs = Step { transform: 1, outputs: &[0, 2] };
        let second = vec![
            trail.follow(0, 0, 0, outputs),
            trail.follow(0, 1, 1, outputs),
            trail.follow(1, 0, 0, outputs),
            trail.follow(1, 1, 0, outputs),
            trail.follow(2, 0, 0, outputs),
            trail.follow(3, 0, 1, outputs),
        ];
        let expected =
            [place(0, 0, 0), place(0, 3, 2), place(0, 1, 0), place(0, 4, 0), place(0, 2, 1), place(1, 1, 2)];
        assert_eq!(second, expected);
        // Of Kafka's records, only that of row 2 was there to be dropped: what was emitted is none.
        assert_eq!(trail.dropped(5, 1, &[]), 1);
        let refused = Refused { row: 2, sub: 0, transform: None, code: "X".into(), message: String::new() };
        assert_eq!(trail.dropped(5, 1, &[refused]), 0);
        let mut births: Vec<_> = trail.into_births().into_iter().collect();
        births.sort_unstable_by_key(|(of, _)| *of);
        let birth = |row, sub, from, transform| ((row, sub), Birth { from, transform });
        let expected =
            [birth(0, 1, 0, 0), birth(0, 2, 0, 0), birth(0, 3, 0, 1), birth(0, 4, 1, 1), birth(1, 1, 0, 0)];
        assert_eq!(births, expected);
    }
}
