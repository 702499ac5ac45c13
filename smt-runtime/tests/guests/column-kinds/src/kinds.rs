//! A row that has a column of every type, and what is computed of it.

use gristmill_transform::{
    Columns, Compute, Date32, Date64, Decimal, Decimal128, Decimal256, Elements, Entries, List, Map, Row,
    TimeMicros, TimeMillis, TimeNanos, TimeSeconds, TimestampMicros, TimestampMillis, TimestampNanos,
    TimestampSeconds, Value,
};

#[derive(Clone, Copy, Value)]
pub struct Line<'a> {
    /// Not the order of the members.
    tags: Option<List<'a, &'a str>>,
    count: Option<i64>,
    #[value(name = "sku")]
    name: &'a str,
    #[value(optional)]
    nowhere: Option<f64>,
}

#[derive(Compute)]
pub struct ComputedLine<'a> {
    #[compute(name = "sku")]
    name: &'a str,
    count: Option<i64>,
    tags: Option<Elements<&'a str>>,
}

impl<'a> From<Line<'a>> for ComputedLine<'a> {
    fn from(line: Line<'a>) -> Self {
        assert_eq!(line.nowhere, None);
        let tags = line.tags.map(|tags| Elements(tags.iter().collect()));
        ComputedLine { name: line.name, count: line.count, tags }
    }
}

#[derive(Clone, Copy, Row)]
pub struct All<'a> {
    flag: Option<bool>,
    i8: Option<i8>,
    i16: Option<i16>,
    i32: Option<i32>,
    i64: i64,
    u8: Option<u8>,
    u16: Option<u16>,
    u32: Option<u32>,
    u64: Option<u64>,
    f32: Option<f32>,
    f64: Option<f64>,
    text: Option<&'a str>,
    bytes: Option<&'a [u8]>,
    fixed: Option<&'a [u8; 3]>,
    decimal: Option<Decimal128<38, 2>>,
    #[row(path = "decimal")]
    any_decimal: Option<Decimal>,
    large_decimal: Option<Decimal256>,
    date: Option<Date32>,
    date64: Option<Date64>,
    time_s: Option<TimeSeconds>,
    time_ms: Option<TimeMillis>,
    time_us: Option<TimeMicros>,
    time_ns: Option<TimeNanos>,
    at_s: Option<TimestampSeconds>,
    at_ms: Option<TimestampMillis>,
    at_us: Option<TimestampMicros>,
    at_ns: Option<TimestampNanos>,
    #[row(path = "inner.text")]
    inner_text: Option<&'a str>,
    #[row(path = "inner.deeper.flag")]
    inner_flag: Option<bool>,
    texts: Option<List<'a, Option<&'a str>>>,
    lists: Option<List<'a, List<'a, i64>>>,
    counts: Option<Map<'a, &'a str, Option<i64>>>,
    lines: Option<List<'a, Option<Line<'a>>>>,
    first_line: Option<Line<'a>>,
    lines_by_name: Option<Map<'a, &'a str, Option<Line<'a>>>>,
    #[row(optional)]
    nowhere: Option<i64>,
}

#[derive(Columns)]
pub struct Same<'a> {
    #[column(replace)]
    flag: Option<bool>,
    #[column(replace)]
    i8: Option<i8>,
    #[column(replace)]
    i16: Option<i16>,
    #[column(replace)]
    i32: Option<i32>,
    #[column(replace)]
    i64: i64,
    #[column(replace)]
    u8: Option<u8>,
    #[column(replace)]
    u16: Option<u16>,
    #[column(replace)]
    u32: Option<u32>,
    #[column(replace)]
    u64: Option<u64>,
    #[column(replace)]
    f32: Option<f32>,
    #[column(replace)]
    f64: Option<f64>,
    #[column(replace)]
    text: Option<&'a str>,
    #[column(replace)]
    bytes: Option<&'a [u8]>,
    #[column(replace)]
    fixed: Option<[u8; 3]>,
    #[column(replace)]
    decimal: Option<Decimal128<38, 2>>,
    #[column(replace)]
    date: Option<Date32>,
    #[column(replace)]
    date64: Option<Date64>,
    #[column(replace)]
    time_s: Option<TimeSeconds>,
    #[column(replace)]
    time_ms: Option<TimeMillis>,
    #[column(replace)]
    time_us: Option<TimeMicros>,
    #[column(replace)]
    time_ns: Option<TimeNanos>,
    #[column(replace)]
    at_s: Option<TimestampSeconds>,
    #[column(replace)]
    at_ms: Option<TimestampMillis>,
    #[column(replace)]
    at_us: Option<TimestampMicros>,
    #[column(replace)]
    at_ns: Option<TimestampNanos>,
    #[column(replace = "inner.text")]
    inner_text: Option<&'a str>,
    #[column(replace = "inner.deeper.flag")]
    inner_flag: Option<bool>,
    #[column(replace)]
    texts: Option<Elements<Option<&'a str>>>,
    #[column(replace)]
    lists: Option<Elements<Elements<i64>>>,
    #[column(replace)]
    counts: Option<Entries<&'a str, Option<i64>>>,
    #[column(replace)]
    lines: Option<Elements<Option<ComputedLine<'a>>>>,
    #[column(replace)]
    first_line: Option<ComputedLine<'a>>,
    #[column(replace)]
    lines_by_name: Option<Entries<&'a str, Option<ComputedLine<'a>>>>,
    #[column(add)]
    sum_of_counts: Option<i64>,
    #[column(add = "unscaled")]
    unscaled: Option<String>,
    #[column(add)]
    large_low: Option<u64>,
    #[column(add)]
    nowhere: Option<i64>,
    /// Often not a number.
    #[column(add)]
    quotient: Option<f64>,
}

impl All<'_> {
    pub fn sum_of_counts(&self) -> Option<i64> {
        self.counts.map(|counts| counts.iter().fold(0i64, |sum, (_, n)| sum.wrapping_add(n.unwrap_or(0))))
    }

    pub fn unscaled(&self) -> Option<String> {
        self.any_decimal.map(|d| format!("{}e-{}", d.unscaled, d.scale))
    }

    pub fn large_low(&self) -> Option<u64> {
        self.large_decimal.map(|d| d.low as u64)
    }

    /// Often not a number.
    pub fn quotient(&self) -> Option<f64> {
        self.f64.zip(self.f32).map(|(a, b)| (a - a) / (f64::from(b) - f64::from(b)) * a)
    }
}

impl<'a> From<All<'a>> for Same<'a> {
    fn from(all: All<'a>) -> Self {
        Same {
            flag: all.flag,
            i8: all.i8,
            i16: all.i16,
            i32: all.i32,
            i64: all.i64,
            u8: all.u8,
            u16: all.u16,
            u32: all.u32,
            u64: all.u64,
            f32: all.f32,
            f64: all.f64,
            text: all.text,
            bytes: all.bytes,
            fixed: all.fixed.copied(),
            decimal: all.decimal,
            date: all.date,
            date64: all.date64,
            time_s: all.time_s,
            time_ms: all.time_ms,
            time_us: all.time_us,
            time_ns: all.time_ns,
            at_s: all.at_s,
            at_ms: all.at_ms,
            at_us: all.at_us,
            at_ns: all.at_ns,
            inner_text: all.inner_text,
            inner_flag: all.inner_flag,
            texts: all.texts.map(|texts| Elements(texts.iter().collect())),
            lists: all
                .lists
                .map(|lists| Elements(lists.iter().map(|l| Elements(l.iter().collect())).collect())),
            counts: all.counts.map(|counts| Entries(counts.iter().collect())),
            lines: all.lines.map(|lines| Elements(lines.iter().map(|line| line.map(Into::into)).collect())),
            first_line: all.first_line.map(Into::into),
            lines_by_name: all.lines_by_name.map(|lines| {
                Entries(lines.iter().map(|(name, line)| (name, line.map(Into::into))).collect())
            }),
            sum_of_counts: all.sum_of_counts(),
            unscaled: all.unscaled(),
            large_low: all.large_low(),
            nowhere: all.nowhere,
            quotient: all.quotient(),
        }
    }
}
