//! Columns of messages of numbers that mean one value: dates and times.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use arrow_schema::{DataType, TimeUnit};
use prost_reflect::MessageDescriptor;

use super::row::{Bad, Fed, another};
use super::scalar::Valid;
use super::wire::{self, Wire};

/// What the numbers of a message mean together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `google.protobuf.Timestamp`: seconds since 1970 and nanoseconds.
    Timestamp,
    /// `google.type.Date`: year, month, day.
    Date,
    /// `google.type.TimeOfDay`: hours, minutes, seconds, nanoseconds.
    TimeOfDay,
}

impl Meaning {
    pub(super) fn of(message: &MessageDescriptor) -> Option<Meaning> {
        match message.full_name() {
            "google.protobuf.Timestamp" => Some(Meaning::Timestamp),
            "google.type.Date" => Some(Meaning::Date),
            "google.type.TimeOfDay" => Some(Meaning::TimeOfDay),
            _ => None,
        }
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Meaning::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Meaning::Date => DataType::Date32,
            Meaning::TimeOfDay => DataType::Time64(TimeUnit::Microsecond),
        }
    }

    /// The numbers of a value of a column; none if the type does not have it.
    pub(super) fn parts(self, column: &dyn Array, row: usize) -> Option<[i64; 4]> {
        let parts = match (self, column.data_type()) {
            (Meaning::Timestamp, DataType::Timestamp(unit, _)) => {
                let (value, in_a_second) = match unit {
                    TimeUnit::Second => (column.as_primitive::<TimestampSecondType>().value(row), 1),
                    TimeUnit::Millisecond => {
                        (column.as_primitive::<TimestampMillisecondType>().value(row), 1_000)
                    }
                    TimeUnit::Microsecond => {
                        (column.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000)
                    }
                    TimeUnit::Nanosecond => {
                        (column.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000)
                    }
                };
                let nanos = value.rem_euclid(in_a_second) * (1_000_000_000 / in_a_second);
                [value.div_euclid(in_a_second), nanos, 0, 0]
            }
            (Meaning::Date, _) => {
                let days = column.as_primitive::<Date32Type>().value(row);
                let day = jiff::Span::new().try_days(days).ok()?;
                let date = jiff::civil::date(1970, 1, 1).checked_add(day).ok()?;
                [date.year().into(), date.month().into(), date.day().into(), 0]
            }
            _ => {
                let nanos = column.as_primitive::<Time64NanosecondType>().value(row);
                let seconds = nanos.div_euclid(1_000_000_000);
                [seconds / 3600, seconds / 60 % 60, seconds % 60, nanos.rem_euclid(1_000_000_000)]
            }
        };
        self.value(parts).is_ok().then_some(parts)
    }

    /// The value of a column.
    fn value(self, parts: [i64; 4]) -> Fed<i64> {
        let outside = || Bad::mismatch(format!("it is outside of what a {} may be", self.name()));
        let within = |part: i64, most: i64| (0..=most).contains(&part);
        match self {
            // From the year 1 to 9999, as the type is described.
            Meaning::Timestamp => {
                let [seconds, nanos, ..] = parts;
                let known = (-62_135_596_800..=253_402_300_799).contains(&seconds);
                (known && within(nanos, 999_999_999)).then(|| seconds * 1_000_000 + nanos / 1000)
            }
            Meaning::Date => {
                let [year, month, day, _] = parts.map(|part| i16::try_from(part).unwrap_or(-1));
                let date = match (i8::try_from(month), i8::try_from(day)) {
                    (Ok(month), Ok(day)) if within(i64::from(year), 9999) && year > 0 => {
                        jiff::civil::Date::new(year, month, day).ok()
                    }
                    _ => None,
                };
                date.map(|date| i64::from((date - jiff::civil::date(1970, 1, 1)).get_days()))
            }
            Meaning::TimeOfDay => {
                let [hours, minutes, seconds, nanos] = parts;
                let known = within(hours, 23) && within(minutes, 59) && within(seconds, 59);
                (known && within(nanos, 999_999_999))
                    .then(|| ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + nanos / 1000)
            }
        }
        .ok_or_else(outside)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Meaning::Timestamp => "Timestamp, the years 1 to 9999",
            Meaning::Date => "whole date",
            Meaning::TimeOfDay => "time of a day",
        }
    }
}

#[derive(Debug)]
pub(super) struct Numbers {
    meaning: Meaning,
    pub(super) values: Vec<i64>,
    pub(super) valid: Option<Valid>,
    pub(super) open: Option<[i64; 4]>,
}

impl Numbers {
    pub(super) fn new(meaning: Meaning, nullable: bool) -> Numbers {
        Numbers { meaning, values: Vec::new(), valid: nullable.then(Valid::new), open: None }
    }

    pub(super) fn feed(&mut self, mut at: &[u8]) -> Fed {
        let parts = self.open.get_or_insert_default();
        while !at.is_empty() {
            match wire::tag(&mut at)? {
                (number @ 1..=4, Wire::Varint) => {
                    let part = wire::varint(&mut at)? as i64;
                    // Seconds since 1970 have 64 bits, all others 32.
                    let wide = self.meaning == Meaning::Timestamp && number == 1;
                    parts[number as usize - 1] = if wide { part } else { i64::from(part as i32) };
                }
                (1..=4, other) => return Err(another(other, Wire::Varint)),
                (number, wire) => wire::skip(number, wire, &mut at)?,
            }
        }
        Ok(())
    }

    pub(super) fn end_row(&mut self) -> Fed {
        let value = self.open.take().map(|parts| self.meaning.value(parts)).transpose()?;
        self.push(value);
        Ok(())
    }

    pub(super) fn push(&mut self, value: Option<i64>) {
        self.values.push(value.unwrap_or_default());
        if let Some(valid) = &mut self.valid {
            valid.0.append(value.is_some());
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let nulls = self.valid.as_mut().and_then(Valid::finish);
        let values = std::mem::take(&mut self.values);
        match self.meaning {
            Meaning::Timestamp => Arc::new(
                PrimitiveArray::<TimestampMicrosecondType>::new(values.into(), nulls).with_timezone("UTC"),
            ),
            Meaning::Date => {
                let days: Vec<i32> = values.iter().map(|days| *days as i32).collect();
                Arc::new(PrimitiveArray::<Date32Type>::new(days.into(), nulls))
            }
            Meaning::TimeOfDay => {
                Arc::new(PrimitiveArray::<Time64MicrosecondType>::new(values.into(), nulls))
            }
        }
    }
}
