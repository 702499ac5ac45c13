//! Runs a transform natively, so that `cargo test` tests it without WebAssembly.
//!
//! The answer takes the same way as in a component: it is written as an edit list, and the list is checked
//! as the host checks it. Parts of a record that the transform does not declare to read are hidden here too.

mod rows;

use std::collections::BTreeMap;

use gristmill_records::{Edit, EditBounds, Edits, Header, Headers, RawBatchBuilder, Rows};

use crate::run::State;
use crate::telemetry::{host, log};
use crate::{Reject, Transform};

pub use rows::{OutRow, RowAnswer, RowHarness, RowVerdict};

/// A record to put in.
#[derive(Debug, Clone, Default)]
pub struct TestRecord {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: Option<i64>,
}

impl TestRecord {
    /// A record with a value and nothing else.
    pub fn value(value: impl AsRef<[u8]>) -> Self {
        TestRecord { value: Some(value.as_ref().to_vec()), ..Self::default() }
    }

    /// A record whose value is null.
    pub fn tombstone() -> Self {
        Self::default()
    }

    /// With a key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    /// With a timestamp in milliseconds.
    #[must_use]
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

/// A record that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    /// The output's name.
    pub output: &'static str,
    /// The key; `None` is null.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is null.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
}

impl OutRecord {
    /// The value as text.
    ///
    /// # Panics
    /// If it is null or not UTF-8, which fails the test.
    pub fn value_text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().expect("the value is not null"))
            .expect("the value is UTF-8")
    }

    /// The value as JSON.
    ///
    /// # Panics
    /// If it is not JSON, which fails the test.
    pub fn value_json(&self) -> serde_json::Value {
        serde_json::from_str(self.value_text()).expect("the value is JSON")
    }
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What happened to it.
    pub verdict: Verdict,
    /// The extra records that belong to it.
    pub emitted: Vec<OutRecord>,
}

/// What happened to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It went on, like this.
    Kept(OutRecord),
    /// It was left out.
    Dropped,
    /// It was rejected.
    Rejected(Reject),
}

impl Answer {
    /// The record, if it went on.
    pub fn kept(&self) -> Option<&OutRecord> {
        match &self.verdict {
            Verdict::Kept(record) => Some(record),
            _ => None,
        }
    }

    /// The reject, if it was one.
    pub fn rejected(&self) -> Option<&Reject> {
        match &self.verdict {
            Verdict::Rejected(reject) => Some(reject),
            _ => None,
        }
    }

    /// Whether it was left out.
    pub fn is_dropped(&self) -> bool {
        self.verdict == Verdict::Dropped
    }
}

/// A configured transform and what it logged and counted.
pub struct Harness<T: Transform> {
    state: State<T>,
    host: host::Host,
}

impl<T: Transform> Harness<T> {
    /// Configures the transform; the stream is partition 0 of `test`.
    ///
    /// # Errors
    /// What the transform says to its configuration.
    pub fn new(config: serde_json::Value) -> Result<Self, String> {
        let mut host = host::Host::default();
        let state = host::with(&mut host, || State::new(&config.to_string(), "test", 0))?;
        Ok(Harness { state, host })
    }

    /// Offers a schema by id.
    pub fn add_schema(&mut self, id: u32, text: &str) {
        self.host.schemas.insert(id, text.to_owned());
    }

    /// Puts records through, with offsets from 0, and says what became of each.
    ///
    /// # Panics
    /// If the transform panics, or its answer is not one that the host would take: the test then fails.
    pub fn apply(&mut self, records: &[TestRecord]) -> Vec<Answer> {
        let mut batch = RawBatchBuilder::new("test", 0);
        for (offset, r) in (0..).zip(records) {
            let headers = r.headers.iter().map(|(n, v)| Header { name: n.as_bytes(), value: v.as_deref() });
            let timestamp = r.timestamp.unwrap_or(gristmill_records::NO_TIMESTAMP);
            batch
                .push(offset, timestamp, r.key.as_deref(), r.value.as_deref(), headers)
                .expect("test records are under 4 GiB");
        }
        let batch = batch.build();
        let (all, reads) = (batch.rows(), T::MANIFEST.reads);
        let rows = Rows {
            index: all.index,
            keys: if reads.keys { all.keys } else { &[] },
            values: if reads.values { all.values } else { &[] },
            headers: if reads.headers { all.headers } else { &[] },
            timestamps: if reads.timestamps { all.timestamps } else { &[] },
            offsets: if reads.offsets { all.offsets } else { &[] },
        };
        let (operations, data) = host::with(&mut self.host, || self.state.apply(rows));
        let edits = Edits::new(&operations, &data);
        let bounds = EditBounds {
            rows: records.len(),
            outputs: T::MANIFEST.outputs.len() as u32 + 1,
            max_records: u64::MAX,
            max_bytes: u64::MAX,
        };
        if let Err(e) = edits.check(&bounds) {
            panic!("the host would refuse the answer: {e}");
        }
        let name = |output: u32| match output {
            0 => "main",
            n => T::MANIFEST.outputs[n as usize - 1].0,
        };
        let mut answers: Vec<Answer> = Vec::with_capacity(records.len());
        let push = |answers: &mut Vec<Answer>, verdict| answers.push(Answer { verdict, emitted: Vec::new() });
        for edit in edits {
            match edit {
                Edit::Keep(n) => {
                    for _ in 0..n {
                        let r = all.get(answers.len()).expect("the list was checked");
                        let kept = out(name(0), r.key(), r.value(), r.headers(), r.timestamp());
                        push(&mut answers, Verdict::Kept(kept));
                    }
                }
                Edit::Change(c) => {
                    let r = all.get(answers.len()).expect("the list was checked");
                    let kept = out(
                        name(c.output),
                        c.key.unwrap_or_else(|| r.key()),
                        c.value.unwrap_or_else(|| r.value()),
                        c.headers.unwrap_or_else(|| r.headers()),
                        c.timestamp.unwrap_or_else(|| r.timestamp()),
                    );
                    push(&mut answers, Verdict::Kept(kept));
                }
                Edit::Drop(n) => (0..n).for_each(|_| push(&mut answers, Verdict::Dropped)),
                Edit::Reject { code, message } => {
                    let reject = Reject::new(code.to_owned(), message.to_owned());
                    push(&mut answers, Verdict::Rejected(reject));
                }
                Edit::Emit(e) => {
                    let last = answers.last_mut().expect("the list was checked");
                    last.emitted.push(out(name(e.output), e.key, e.value, e.headers, e.timestamp));
                }
            }
        }
        answers
    }

    /// What was logged so far.
    pub fn logs(&self) -> &[(log::Level, String)] {
        &self.host.logs
    }

    /// What was counted so far.
    pub fn counters(&self) -> &BTreeMap<String, u64> {
        &self.host.counters
    }

    /// What was observed so far.
    pub fn observations(&self) -> &BTreeMap<String, Vec<f64>> {
        &self.host.observations
    }
}

fn out(
    output: &'static str,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: Headers<'_>,
    timestamp: Option<i64>,
) -> OutRecord {
    let header = |h: Header<'_>| (String::from_utf8_lossy(h.name).into_owned(), h.value.map(<[u8]>::to_vec));
    OutRecord {
        output,
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: headers.map(header).collect(),
        timestamp,
    }
}
