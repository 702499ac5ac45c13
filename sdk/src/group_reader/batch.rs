use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gristmill_records::{NO_TIMESTAMP, RawBatch, RawBatchBuilder};

use super::{Inner, Ready};
use crate::offsets::Token;
use crate::{Completion, Delivery, Error, ErrorKind, Result};

/// Records of one partition, until each has its verdict.
///
/// Dropping it with rows that have none gives these back to its [`GroupReader`](crate::GroupReader), which delivers them
/// again.
pub struct GroupBatch {
    records: RawBatch,
    next: i64,
    token: Token,
    times_delivered: u32,
    verdict: Mutex<Verdict>,
    reader: Weak<Inner>,
}

/// A row to be put aside. Whoever reads the dead-letter topic can read why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its index in [`GroupBatch::records`].
    pub row: usize,
    /// A class of faults, such as `BAD_AMOUNT`.
    pub code: String,
    /// A sentence.
    pub reason: String,
}

impl Rejection {
    /// A row, and why.
    pub fn new(row: usize, code: impl Into<String>, reason: impl Into<String>) -> Rejection {
        Rejection { row, code: code.into(), reason: reason.into() }
    }
}

/// Lock order: a leaf.
enum Verdict {
    /// Rows that wait for theirs; all of them if there is no list.
    Open(Option<Rows>),
    /// All rows have theirs; whether it counted.
    Given(bool),
}

struct Rows {
    left: Vec<bool>,
    count: usize,
}

impl fmt::Debug for GroupBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupBatch")
            .field("records", &self.records)
            .field("times_delivered", &self.times_delivered)
            .field("rows_left", &self.rows_left())
            .finish_non_exhaustive()
    }
}

impl GroupBatch {
    pub(super) fn new(ready: Ready, reader: &Arc<Inner>) -> GroupBatch {
        GroupBatch {
            records: ready.delivery.batch,
            next: ready.delivery.next,
            token: ready.delivery.token,
            times_delivered: ready.times_delivered,
            verdict: Mutex::new(Verdict::Open(None)),
            reader: Arc::downgrade(reader),
        }
    }

    /// The records: one or more, of one partition, in the order of their offsets.
    pub fn records(&self) -> &RawBatch {
        &self.records
    }

    /// How often this reader has delivered these records; 1 for the first time.
    pub fn times_delivered(&self) -> u32 {
        self.times_delivered
    }

    /// How many rows have no verdict yet.
    pub fn rows_left(&self) -> usize {
        match &*self.lock() {
            Verdict::Open(None) => self.records.len(),
            Verdict::Open(Some(rows)) => rows.count,
            Verdict::Given(_) => 0,
        }
    }

    /// Says that all rows that are left need not be delivered again. Never waits: the commit follows by itself.
    ///
    /// `false` if that does not count, because the partition is no longer this member's, or the reader was closed: the
    /// records go to whoever has the partition. A second call repeats the first one's answer.
    pub fn ack(&self) -> bool {
        self.settle(&mut self.lock(), |rows| rows.count = 0)
    }

    /// As [`ack`](Self::ack), of some rows, by their index in [`records`](Self::records). The group's offset passes those
    /// before the first that has no verdict. Rows that have one already are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an index that the batch does not have; nothing was done then.
    pub fn ack_rows(&self, rows: &[usize]) -> Result<bool> {
        self.check(rows)?;
        Ok(self.settle(&mut self.lock(), |left| rows.iter().for_each(|row| left.take(*row))))
    }

    /// Puts rows aside: writes them to the dead-letter topic, as they came and with Kafka Connect's context headers, and
    /// takes that for their verdict once the brokers have them. Rows that have a verdict already are passed over.
    ///
    /// At least once: after a crash, or when a call is repeated that failed or was dropped, a record may be there twice,
    /// under the same `gristmill.dead_letter.key`. Answers as [`ack`](Self::ack).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] without a dead-letter topic, [`ErrorKind::InvalidArgument`] as for
    /// [`ack_rows`](Self::ack_rows), [`ErrorKind::Closed`] if the reader is gone, and those of
    /// [`Producer::send`](crate::Producer::send): the rows have no verdict then.
    pub async fn reject(&self, rows: &[Rejection]) -> Result<bool> {
        let indexes: Vec<usize> = rows.iter().map(|rejection| rejection.row).collect();
        self.check(&indexes)?;
        let reader = self.reader.upgrade();
        let reader = reader.ok_or_else(|| self.error(ErrorKind::Closed, "the reader is gone"))?;
        let Some(letters) = &reader.dead_letters else {
            let text = "there is no dead-letter topic: name one when the reader is started, or acknowledge the rows to pass \
                        over them";
            return Err(self.error(ErrorKind::InvalidConfig, text));
        };
        let mut open: Vec<&Rejection> = {
            let verdict = self.lock();
            rows.iter().filter(|rejection| verdict.is_open(rejection.row)).collect()
        };
        open.sort_by_key(|rejection| rejection.row);
        open.dedup_by_key(|rejection| rejection.row);
        letters.send(&reader.group, &self.records, &open).await?;
        Ok(self.settle(&mut self.lock(), |left| open.iter().for_each(|rejection| left.take(rejection.row))))
    }

    fn lock(&self) -> MutexGuard<'_, Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: ErrorKind, text: &str) -> Error {
        Error::new(kind, "give a verdict", text)
            .with_topic(self.records.topic().clone())
            .with_partition(self.records.partition())
    }

    fn check(&self, rows: &[usize]) -> Result<()> {
        match rows.iter().find(|row| **row >= self.records.len()) {
            None => Ok(()),
            Some(row) => {
                let text = format!("there is no row {row} in a batch of {}", self.records.len());
                Err(self.error(ErrorKind::InvalidArgument, &text))
            }
        }
    }

    /// Whether what has a verdict counts; completes the delivery once nothing is left.
    fn settle(&self, verdict: &mut Verdict, take: impl FnOnce(&mut Rows)) -> bool {
        let rows = match verdict {
            Verdict::Given(counted) => return *counted,
            Verdict::Open(rows) => rows.get_or_insert_with(|| Rows::all(self.records.len())),
        };
        take(rows);
        let reader = self.reader.upgrade();
        if rows.count > 0 {
            let first = rows.left.iter().position(|left| *left).and_then(|row| self.records.get(row));
            let done = first
                .zip(reader)
                .map(|(first, reader)| reader.consumer.complete_below(&self.token, first.offset()));
            return matches!(done, Some(Completion::Done | Completion::Repeated));
        }
        let done = reader.map(|reader| reader.consumer.complete(&self.token));
        let counts = matches!(done, Some(Completion::Done | Completion::Repeated));
        *verdict = Verdict::Given(counts);
        counts
    }
}

impl Rows {
    fn all(count: usize) -> Rows {
        Rows { left: vec![true; count], count }
    }

    fn take(&mut self, row: usize) {
        self.count -= usize::from(std::mem::replace(&mut self.left[row], false));
    }
}

impl Verdict {
    fn is_open(&self, row: usize) -> bool {
        match self {
            Verdict::Open(None) => true,
            Verdict::Open(Some(rows)) => rows.left[row],
            Verdict::Given(_) => false,
        }
    }
}

impl Drop for GroupBatch {
    fn drop(&mut self) {
        let batch = match self.verdict.get_mut().unwrap_or_else(PoisonError::into_inner) {
            Verdict::Given(_) => return,
            Verdict::Open(Some(rows)) if rows.count < self.records.len() => these(&self.records, &rows.left),
            Verdict::Open(_) => self.records.clone(),
        };
        if let Some(reader) = self.reader.upgrade() {
            let delivery = Delivery { batch, next: self.next, token: self.token.clone() };
            reader.take_back(delivery, self.times_delivered);
        }
    }
}

/// A copy of the rows that are marked.
fn these(batch: &RawBatch, marked: &[bool]) -> RawBatch {
    let mut kept = RawBatchBuilder::new(batch.topic().clone(), batch.partition()).topic_id(batch.topic_id());
    for (record, _) in batch.iter().zip(marked).filter(|(_, marked)| **marked) {
        let timestamp = record.timestamp().unwrap_or(NO_TIMESTAMP);
        kept.push(record.offset(), timestamp, record.key(), record.value(), record.headers())
            .expect("part of a batch is no larger, and in order");
    }
    kept.build()
}
