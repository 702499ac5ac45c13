use std::collections::BTreeMap;

use crate::{Error, Limits};

/// How serious a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Details of the details.
    Trace,
    /// For the author of the transform.
    Debug,
    /// For the operator.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

/// One line that a transform logged, with the secrets of its configuration blotted out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How serious.
    pub level: Level,
    /// The text.
    pub message: String,
}

/// Counters and histograms that a transform updated, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// What was added to each counter.
    pub counters: BTreeMap<String, u64>,
    /// What was observed in each histogram.
    pub histograms: BTreeMap<String, Histogram>,
}

/// Observations, in the buckets of [`Histogram::BOUNDS`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Observations at or under the bound of the same place, not cumulated; the last is for those above
    /// every bound.
    pub buckets: [u64; Histogram::BOUNDS.len() + 1],
    /// Number of observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Histogram {
    /// Upper bounds: 1, 2.5 and 5 times the powers of ten, from 0.0001 to 1,000,000.
    pub const BOUNDS: [f64; 31] = [
        1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1e0, 2.5e0, 5e0, 1e1,
        2.5e1, 5e1, 1e2, 2.5e2, 5e2, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6,
    ];

    fn add(&mut self, value: f64) {
        self.buckets[Self::BOUNDS.partition_point(|b| *b < value)] += 1;
        self.count += 1;
        self.sum += value;
    }

    /// Adds the observations of another.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
    }
}

impl Metrics {
    /// Whether nothing was updated.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty() && self.histograms.is_empty()
    }

    /// Names are what Prometheus takes: a letter or `_`, then letters, digits and `_`, 64 bytes at most.
    pub(crate) fn is_name(name: &str) -> bool {
        let mut bytes = name.bytes();
        let head = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        head && name.len() <= 64 && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }

    pub(crate) fn count(&mut self, name: String, by: u64) {
        let counter = self.counters.entry(name).or_default();
        *counter = counter.saturating_add(by);
    }

    pub(crate) fn observe(&mut self, name: String, value: f64) {
        // An infinity or a NaN would spoil the sum for good.
        if value.is_finite() {
            self.histograms.entry(name).or_default().add(value);
        }
    }

    fn append(&mut self, other: Metrics) {
        for (name, by) in other.counters {
            self.count(name, by);
        }
        for (name, histogram) in other.histograms {
            self.histograms.entry(name).or_default().merge(&histogram);
        }
    }
}

/// What accepted calls said.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    pub(crate) logs: Vec<LogLine>,
    log_bytes: usize,
    pub(crate) metrics: Metrics,
    suppressed_lines: u64,
    pub(crate) refused_series: u64,
}

impl Telemetry {
    pub(crate) fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.metrics.is_empty() && self.suppressed_lines + self.refused_series == 0
    }

    /// Keeps of the line what the limits leave room for.
    pub(crate) fn log(&mut self, limits: &Limits, level: Level, mut message: String) {
        let room = (limits.log_bytes() as usize).saturating_sub(self.log_bytes);
        if self.logs.len() >= limits.log_lines() as usize || room == 0 {
            self.suppressed_lines += 1;
            return;
        }
        if message.len() > room {
            self.suppressed_lines += 1;
            let end = (0..=room).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            if end == 0 {
                return;
            }
            // Cutting it in place would keep the room of the whole.
            message = message[..end].to_owned();
        }
        self.log_bytes += message.len();
        self.logs.push(LogLine { level, message });
    }

    pub(crate) fn append(&mut self, limits: &Limits, other: Telemetry) {
        other.logs.into_iter().for_each(|line| self.log(limits, line.level, line.message));
        self.metrics.append(other.metrics);
        self.suppressed_lines += other.suppressed_lines;
        self.refused_series += other.refused_series;
    }

    /// What was left out.
    pub(crate) fn warnings(&self, limits: &Limits) -> Vec<Error> {
        let lines = (self.suppressed_lines > 0).then(|| {
            Error::limit(format!(
                "limit log_lines of {} and log_bytes of {} per batch: {} more log lines were left out",
                limits.log_lines(),
                limits.log_bytes(),
                self.suppressed_lines
            ))
        });
        let series = (self.refused_series > 0).then(|| {
            Error::limit(format!(
                "limit metric_series of {}: {} updates under further names were left out; a metric's name must \
                 not hold data",
                limits.metric_series(),
                self.refused_series
            ))
        });
        lines.into_iter().chain(series).collect()
    }
}
