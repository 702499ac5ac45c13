use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gristmill_records::{RawBatch, RawBatchBuilder};

use crate::native::{Client, Code, MessageRef, Noted, Partitions, Queue, Role};
use crate::{ConsumerConfig, Error, ErrorKind, Result};

/// How long nobody is woken: group and error events have no wake-up of their own.
const TURN: Duration = Duration::from_millis(100);
/// Records of a batch, and bytes at which one ends.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;

/// Offsets of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRange {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// The offset behind the last.
    pub end: i64,
}

/// Reads bounded ranges once: as a member of no group, and nothing is committed.
///
/// **Guarantee.** Every record of the ranges that is visible (see [`Isolation`](crate::Isolation)) comes once, those of a
/// partition in the order of their offsets; then the reader ends. Offsets that hold no record (aborted, compacted) are
/// passed over. The batches of a range hold the same records each time, however they come from the broker; which partition's
/// comes next is not said.
///
/// It blocks, and so does dropping it, for as long as a request in flight may take: not for an async thread.
pub struct RangeReader {
    readings: Vec<Reading>,
    /// Whose turn it is.
    next: usize,
    client: Arc<Client>,
    filled: Arc<(Mutex<bool>, Condvar)>,
    patience: Duration,
}

struct Reading {
    range: PartitionRange,
    queue: Queue,
    /// Not enough for a batch.
    begun: RawBatchBuilder,
    batches: VecDeque<RawBatch>,
    is_done: bool,
}

impl fmt::Debug for RangeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeReader")
            .field("ranges", &self.readings.iter().map(|r| &r.range).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl RangeReader {
    /// Starts to fetch, with the connection settings of a consumer; its group and topics are not looked at. Ranges that are
    /// empty are left out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if librdkafka refuses the settings; [`ErrorKind::NotFound`] for a partition that cannot
    /// exist.
    pub fn open(
        config: &ConsumerConfig,
        ranges: impl IntoIterator<Item = PartitionRange>,
    ) -> Result<RangeReader> {
        let client = Arc::new(Client::new(Role::Consumer, &config.to_conf())?);
        let filled = Arc::new((Mutex::new(true), Condvar::new()));
        let (mut readings, mut list) = (Vec::new(), Partitions::new());
        for range in ranges.into_iter().filter(|range| range.first < range.end) {
            let queue = Queue::partition(&client, &range.topic, range.partition).ok_or_else(|| {
                let text = format!("there can be no partition {}", range.partition);
                Error::new(ErrorKind::NotFound, "read a range", text)
                    .with_topic(range.topic.clone())
                    .with_partition(range.partition)
            })?;
            let wake = filled.clone();
            let queue = queue.on_filled(move || {
                *wake.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                wake.1.notify_one();
            });
            list.add(&range.topic, range.partition, range.first);
            let begun = RawBatchBuilder::new(range.topic.clone(), range.partition);
            readings.push(Reading { range, queue, begun, batches: VecDeque::new(), is_done: false });
        }
        if !readings.is_empty() {
            client.assign(&list, false)?;
        }
        Ok(RangeReader { readings, next: 0, client, filled, patience: config.lookup_timeout() })
    }

    /// The next records, of one partition; `None` when all ranges are read.
    ///
    /// # Errors
    /// The broker's, where trying again does not help; [`ErrorKind::TimedOut`] if nothing came for the configuration's
    /// `lookup_timeout`. After an error there is no more to be read.
    pub fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        let mut deadline = Instant::now() + self.patience;
        let mut begun = self.begun();
        let mut last: Option<Error> = None;
        loop {
            for note in self.client.poll_consumer() {
                match note {
                    Noted::Error(error) if error.is_retryable() && !error.is_fatal() => last = Some(error),
                    Noted::Error(error) => return Err(error),
                    _ => {}
                }
            }
            let count = self.readings.len();
            for _ in 0..count {
                self.next = (self.next + 1) % count;
                if let Some(batch) = self.readings[self.next].next_batch()? {
                    return Ok(Some(batch));
                }
            }
            if self.readings.iter().all(|reading| reading.is_done) {
                return Ok(None);
            }
            if begun != self.begun() {
                begun = self.begun();
                deadline = Instant::now() + self.patience;
            }
            if Instant::now() >= deadline {
                return Err(last.unwrap_or_else(|| {
                    let open = self.readings.iter().filter(|reading| !reading.is_done).count();
                    let text = format!(
                        "nothing came for {:?}, {open} partitions are not at their end",
                        self.patience
                    );
                    Error::new(ErrorKind::TimedOut, "read a range", text)
                }));
            }
            let (lock, condition) = &*self.filled;
            let is_filled = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = condition.wait_timeout_while(is_filled, TURN, |filled| !*filled);
            *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
        }
    }

    /// Records that wait for more of their batch.
    fn begun(&self) -> usize {
        self.readings.iter().map(|reading| reading.begun.len()).sum()
    }
}

impl Reading {
    /// A whole batch, or at the end of the range what is left.
    fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        if self.batches.is_empty() && !self.is_done {
            self.drain()?;
        }
        Ok(self.batches.pop_front())
    }

    fn drain(&mut self) -> Result<()> {
        let Reading { range, queue, begun, batches, is_done } = self;
        let fresh = || RawBatchBuilder::new(range.topic.clone(), range.partition);
        let mut failed = None;
        queue.drain(|message| {
            if *is_done || failed.is_some() {
                return;
            }
            match take(begun, range, message) {
                Ok(done) => *is_done |= done,
                Err(error) => failed = Some(error),
            }
            let is_full = begun.len() >= BATCH || begun.content_bytes() >= BATCH_BYTES;
            if (is_full || *is_done) && !begun.is_empty() {
                batches.push_back(std::mem::replace(begun, fresh()).build());
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

/// Whether the range is read.
fn take(builder: &mut RawBatchBuilder, range: &PartitionRange, message: MessageRef<'_>) -> Result<bool> {
    if message.code() == Code::PARTITION_EOF {
        return Ok(message.offset() >= range.end);
    }
    if let Some(error) = message.error() {
        return match error.is_retryable() {
            true => Ok(false),
            false => Err(error),
        };
    }
    let offset = message.offset();
    // The end, or behind it: the offsets before it may hold no record.
    if offset >= range.end {
        return Ok(true);
    }
    if offset >= range.first {
        let pushed =
            builder.push(offset, message.timestamp(), message.key(), message.value(), message.headers());
        pushed.map_err(|e| {
            Error::new(ErrorKind::Other, "read a range", e.to_string())
                .with_topic(range.topic.clone())
                .with_partition(range.partition)
        })?;
    }
    Ok(offset + 1 >= range.end)
}
