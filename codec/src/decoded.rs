//! The answer of every decoder: columns for the rows that fit, a reason for each row that does not.

use std::fmt;

use arrow_array::RecordBatch;

/// What one call of `decode` made of its rows.
///
/// Every input row is in exactly one of the two lists, and both keep the order of the input:
/// `rows.len() + undecodable.len()` is the number of rows that went in, and `rows.len()` is
/// `batch.num_rows()`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Decoded {
    /// The columns of the rows that could be decoded. Its schema is the decoder's, also with no rows.
    pub batch: RecordBatch,
    /// The tag of each row of `batch`, in order.
    pub rows: Vec<u64>,
    /// The rows that could not be decoded, in order.
    pub undecodable: Vec<Undecodable>,
}

/// A row that could not be decoded. The raw bytes stay with the caller, who knows them by the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecodable {
    /// The tag that came in with the row.
    pub row: u64,
    /// The class of the fault: stable, fit for metrics and for a dead letter's code.
    pub cause: Cause,
    /// One sentence for people. It names fields of the *declared* schema, types and byte positions,
    /// and never a piece of the record unless the decoder was told to show values.
    pub reason: String,
}

/// The class of fault that made a row undecodable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// The record has a null value (a tombstone). Whether that is a fault is the caller's policy.
    NullValue,
    /// The bytes do not follow the format: broken JSON, truncated Avro, trailing bytes, invalid UTF-8.
    Malformed,
    /// The bytes follow the format, and their content does not fit the declared schema.
    Mismatch,
    /// The record names a writer schema that the decoder was not given.
    UnknownSchema,
    /// The record's writer schema cannot be read as the declared schema.
    IncompatibleSchema,
}

impl Cause {
    /// The name in metrics and dead letters: lower case with underscores, never changed.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::NullValue => "null_value",
            Cause::Malformed => "malformed",
            Cause::Mismatch => "mismatch",
            Cause::UnknownSchema => "unknown_schema",
            Cause::IncompatibleSchema => "incompatible_schema",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why one row, whose tag the caller holds, is undecodable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }

    pub(crate) fn at(self, row: u64) -> Undecodable {
        Undecodable { row, cause: self.cause, reason: self.reason }
    }
}

/// Keeps account of every input row: accepted so far, or refused with a fault, in the input's order.
#[derive(Debug, Default)]
pub(crate) struct Sorting {
    seen: usize,
    /// Position in the input and tag of each accepted row.
    accepted: Vec<(usize, u64)>,
    refused: Vec<(usize, Undecodable)>,
}

impl Sorting {
    pub(crate) fn accept(&mut self, tag: u64) {
        self.accepted.push((self.seen, tag));
        self.seen += 1;
    }

    /// How many rows are accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.len()
    }

    pub(crate) fn refuse(&mut self, tag: u64, fault: Fault) {
        self.refused.push((self.seen, fault.at(tag)));
        self.seen += 1;
    }

    /// Refuses rows that were accepted, by their index among the accepted, in ascending order.
    pub(crate) fn withdraw(&mut self, faults: impl IntoIterator<Item = (usize, Fault)>) {
        let mut bad = Vec::new();
        for (index, fault) in faults {
            let (position, tag) = self.accepted[index];
            self.refused.push((position, fault.at(tag)));
            bad.push(index);
        }
        remove_rows(&mut self.accepted, &bad);
    }

    pub(crate) fn finish(mut self, batch: RecordBatch) -> Decoded {
        debug_assert_eq!(batch.num_rows(), self.accepted.len());
        self.refused.sort_by_key(|(position, _)| *position);
        Decoded {
            batch,
            rows: self.accepted.into_iter().map(|(_, tag)| tag).collect(),
            undecodable: self.refused.into_iter().map(|(_, row)| row).collect(),
        }
    }
}

/// Removes the items at `bad`, which is in ascending order.
pub(crate) fn remove_rows<T>(items: &mut Vec<T>, bad: &[usize]) {
    let mut index = 0;
    let mut next = bad.iter().copied().peekable();
    items.retain(|_| {
        let remove = next.next_if_eq(&index).is_some();
        index += 1;
        !remove
    });
}

/// Finds the rows that fail on their own among `count` rows of which some set failed together.
///
/// `fits` decodes a contiguous range of rows and says whether it went well. The answer is in order.
/// A batch with `k` bad rows costs about `2 k log2(count / k)` calls, at most `2 count`.
pub(crate) fn isolate(count: usize, mut fits: impl FnMut(std::ops::Range<usize>) -> bool) -> Vec<usize> {
    let mut bad = Vec::new();
    // Ranges still to look at, the next one on top. `true`: known to fail as a whole.
    let mut open = Vec::new();
    if count > 0 {
        open.push((0..count, true));
    }
    while let Some((range, known_to_fail)) = open.pop() {
        if !known_to_fail && fits(range.clone()) {
            continue;
        }
        if range.len() == 1 {
            // The whole may have failed for the sake of another row: a verdict needs the row alone.
            if !known_to_fail || !fits(range.clone()) {
                bad.push(range.start);
            }
            continue;
        }
        let middle = range.start + range.len() / 2;
        open.push((middle..range.end, false));
        open.push((range.start..middle, false));
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolation_finds_exactly_the_bad_rows_in_order() {
        for count in 0..40usize {
            for seed in 0..60u64 {
                let is_bad =
                    |i: usize| (seed.wrapping_mul(0x9e37_79b9).wrapping_add(i as u64 * 7)) % 5 < seed % 4;
                let expected: Vec<usize> = (0..count).filter(|&i| is_bad(i)).collect();
                let mut calls = 0;
                let found = isolate(count, |range| {
                    calls += 1;
                    !range.into_iter().any(is_bad)
                });
                assert_eq!(found, expected);
                assert!(calls <= 2 * count.max(1), "{calls} calls for {count} rows");
            }
        }
    }

    #[test]
    fn one_bad_row_in_a_thousand_costs_a_logarithm_of_calls() {
        let mut calls = 0;
        let bad = isolate(1000, |range| {
            calls += 1;
            !range.contains(&617)
        });
        assert_eq!(bad, [617]);
        assert!(calls <= 22, "{calls}");
    }
}
