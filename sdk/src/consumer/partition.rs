//! One assigned partition as the poll thread sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gristmill_records::{PushError, RawBatch, RawBatchBuilder};

use super::config::ConsumerConfig;
use super::shared::Shared;
use super::stream::{Channel, Item};
use crate::native::{Code, MessageRef, Queue};
use crate::offsets::TopicPartition;
use crate::{Error, ErrorKind};

pub(super) const LOOKUP_RETRY: Duration = Duration::from_millis(500);

/// A partition that is assigned.
pub(super) struct Partition {
    pub(super) queue: Queue,
    /// Set by the queue's wake-up, cleared before a drain.
    pub(super) filled: Arc<AtomicBool>,
    pub(super) epoch: u64,
    pub(super) announced: bool,
    pub(super) topic_id: Option<[u8; 16]>,
    pub(super) reading: Reading,
    pub(super) fetcher: Fetcher,
    /// Where the next record is expected; unknown until the earliest offset is.
    pub(super) position: Option<i64>,
    /// The position is what the cluster said its earliest offset was: retention may have moved that on.
    pub(super) from_earliest: bool,
    pub(super) channel: Arc<Channel>,
}

/// How far a partition is with reading.
///
/// librdkafka is only ever told offsets, never to look one up: a look-up that is in flight while the position
/// is changed (by a seek, a pause, a new assignment) is repeated when its stale answer comes, and then moves
/// the position to what *it* was asked for, silently.
pub(super) enum Reading {
    /// Assigned, and paused so that nothing is fetched.
    NotBegun,
    /// The earliest offset is to be asked for at a time, or has been.
    Resolving {
        ask_at: Option<Instant>,
    },
    Seeking(Seek),
    /// Sought and resumed; nothing has come yet.
    Starting {
        offset: i64,
        resumed: Instant,
        doubt: Option<i64>,
    },
    Running,
    /// The position is gone; only a seek goes on.
    Failed,
}

pub(super) struct Seek {
    pub(super) offset: i64,
    /// When it is tried again.
    pub(super) due: Instant,
    pub(super) since: Instant,
    /// When the fetcher is taken for one that will not start by itself.
    pub(super) restart_at: Instant,
    /// Where the first record came from when this offset was sought before, if from elsewhere.
    pub(super) doubt: Option<i64>,
}

impl Seek {
    pub(super) fn to(offset: i64, doubt: Option<i64>) -> Reading {
        let now = Instant::now();
        Reading::Seeking(Seek { offset, due: now, since: now, restart_at: now + RESTART_AFTER, doubt })
    }
}

/// How long a fetcher that was assigned is given to start.
pub(super) const RESTART_AFTER: Duration = Duration::from_secs(3);

/// What librdkafka does for a partition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetcher {
    Assigned,
    /// An error has stopped it; a seek alone does not start it.
    Stopped,
    /// The assignment was refused.
    Missing,
}

impl Partition {
    /// Throws away what is there, and gives the errors among it.
    pub(super) fn discard(&mut self) -> Vec<Error> {
        self.filled.store(false, Ordering::Release);
        let mut errors = Vec::new();
        self.queue.drain(|message| {
            if message.code() != Code::PARTITION_EOF {
                errors.extend(message.error().map(explain));
            }
        });
        if errors.iter().any(|e| !e.is_retryable()) && self.fetcher == Fetcher::Assigned {
            self.fetcher = Fetcher::Stopped;
        }
        errors
    }

    /// Takes all that is there: librdkafka's own limits bound it.
    pub(super) fn drain(&mut self, at: &TopicPartition, config: &ConsumerConfig, shared: &Shared) {
        // Cleared first: what comes in between rings again.
        self.filled.store(false, Ordering::Release);
        let starting = match self.reading {
            Reading::Starting { offset, doubt, .. } => Some(Starting { offset, doubt }),
            _ => None,
        };
        let mut batches = Batches {
            at,
            topic_id: self.topic_id,
            limits: (config.batch_records, config.batch_bytes),
            open: None,
            items: Vec::new(),
            position: self.position,
            errors: Vec::new(),
            failed: false,
            starting,
            doubt: None,
        };
        self.queue.drain(|message| batches.take(message));
        batches.close_open();
        self.position = batches.position;
        if let (Some(start), Some(found)) = (starting, batches.doubt) {
            tracing::debug!(
                topic = %at.topic, partition = at.partition, sought = start.offset, found,
                "reading begins behind the offset that was sought: seeking once more",
            );
            self.reading = Seek::to(start.offset, Some(found));
            return;
        }
        if batches.starting.is_none() && starting.is_some() {
            self.reading = Reading::Running;
            self.from_earliest = false;
        }
        for error in batches.errors {
            if !error.is_retryable() {
                self.fetcher = Fetcher::Stopped;
                // Nothing has come since the seek: the error may be about the place before it, or about an
                // earliest offset that is no more.
                if let (Some(start), Some(_), ErrorKind::OffsetOutOfRange) =
                    (starting, batches.starting, error.kind())
                {
                    if error.offset().is_some_and(|o| o != start.offset) {
                        tracing::debug!(%error, "an error of the place before the seek");
                        self.reading = Seek::to(start.offset, start.doubt);
                        continue;
                    }
                    if self.from_earliest {
                        tracing::debug!(%error, "the earliest offset has moved on: asking again");
                        self.reading = Reading::Resolving { ask_at: Some(Instant::now() + LOOKUP_RETRY) };
                        continue;
                    }
                }
                self.reading = Reading::Failed;
            }
            shared.report(error);
        }
        if !batches.items.is_empty() {
            self.channel.push(self.epoch, batches.items);
        }
    }
}

/// What was sought, while nothing has come from there.
#[derive(Clone, Copy)]
struct Starting {
    offset: i64,
    doubt: Option<i64>,
}

/// Copies messages into batches.
struct Batches<'a> {
    at: &'a TopicPartition,
    topic_id: Option<[u8; 16]>,
    limits: (usize, usize),
    open: Option<RawBatchBuilder>,
    items: Vec<Item>,
    position: Option<i64>,
    errors: Vec<Error>,
    /// An error came that trying again does not mend: nothing that lies behind it counts.
    failed: bool,
    starting: Option<Starting>,
    /// Where reading began instead of where it was sought; found for the first time, so nothing was taken.
    doubt: Option<i64>,
}

impl Batches<'_> {
    fn take(&mut self, message: MessageRef<'_>) {
        // The error stands for something that was not delivered: going on would pass over it.
        if self.failed || self.doubt.is_some() {
            return;
        }
        if matches!(message.code(), Code::OK | Code::PARTITION_EOF) && !self.began(message.offset()) {
            return;
        }
        match message.code() {
            Code::OK => self.record(message),
            Code::PARTITION_EOF => self.end_at(message.offset()),
            _ => {
                if let Some(error) = message.error() {
                    self.note(explain(error));
                }
            }
        }
    }

    /// Whether the first message after a seek is to be believed. One that lies behind the sought offset is the
    /// rule after compaction, retention and transactions; but it is what a position looks like too that was
    /// moved behind our back. Only the second seek that comes out there is believed.
    fn began(&mut self, found: i64) -> bool {
        let Some(start) = self.starting else { return true };
        if found > start.offset {
            if start.doubt.is_none() {
                self.doubt = Some(found);
                return false;
            }
            tracing::info!(
                topic = %self.at.topic, partition = self.at.partition, sought = start.offset, found,
                "the partition has nothing between the offset that was sought and the first that was found",
            );
        } else if let Some(before) = start.doubt {
            tracing::warn!(
                topic = %self.at.topic, partition = self.at.partition, sought = start.offset, found, before,
                "a seek came out behind its offset; the second one did not",
            );
        }
        self.starting = None;
        true
    }

    fn note(&mut self, error: Error) {
        self.failed |= !error.is_retryable();
        self.errors.push(error);
    }

    fn record(&mut self, message: MessageRef<'_>) {
        let offset = message.offset();
        // A retried fetch may repeat what was delivered.
        if self.position.is_some_and(|p| offset < p) {
            return;
        }
        let push = |builder: &mut RawBatchBuilder| {
            builder.push(offset, message.timestamp(), message.key(), message.value(), message.headers())
        };
        let mut builder = self.open.take().unwrap_or_else(|| self.builder());
        let mut pushed = push(&mut builder);
        if pushed == Err(PushError::Full) {
            self.open = Some(builder);
            self.close_open();
            builder = self.builder();
            pushed = push(&mut builder);
        }
        if let Err(error) = pushed {
            self.open = Some(builder);
            self.note(
                Error::new(ErrorKind::Malformed, "copy a record", error.to_string())
                    .with_topic(self.at.topic.clone())
                    .with_partition(self.at.partition)
                    .with_offset(offset),
            );
            return;
        }
        builder.set_leader_epoch(message.leader_epoch());
        self.position = Some(offset + 1);
        let full = builder.len() >= self.limits.0 || builder.content_bytes() >= self.limits.1;
        self.open = Some(builder);
        if full {
            self.close_open();
        }
    }

    /// The end of the partition: all below `end` was seen or is invisible.
    fn end_at(&mut self, end: i64) {
        self.close_open();
        if self.position.unwrap_or(0) >= end {
            return;
        }
        self.position = Some(end);
        match self.items.last_mut() {
            Some(item) => item.next = end,
            None => self.items.push(Item { batch: self.builder().build(), next: end }),
        }
    }

    fn builder(&self) -> RawBatchBuilder {
        RawBatchBuilder::new(self.at.topic.clone(), self.at.partition).topic_id(self.topic_id)
    }

    fn close_open(&mut self) {
        if let Some(builder) = self.open.take()
            && !builder.is_empty()
        {
            let batch: RawBatch = builder.build();
            if let Some(next) = self.position {
                self.items.push(Item { batch, next });
            }
        }
    }
}

/// Says what an error of a partition means and what to do.
fn explain(error: Error) -> Error {
    let out_of_range =
        matches!(error.kafka_code().map(Code), Some(Code::AUTO_OFFSET_RESET | Code::OFFSET_OUT_OF_RANGE));
    if !out_of_range {
        return error;
    }
    error.with_detail(
        "the partition does not have this offset: retention has removed it, or it was never written; \
         begin at the earliest offset to go on after the gap, or at an offset that exists",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(at: &TopicPartition, offset: i64, doubt: Option<i64>) -> Batches<'_> {
        Batches {
            at,
            topic_id: None,
            limits: (10, 1000),
            open: None,
            items: Vec::new(),
            position: Some(offset),
            errors: Vec::new(),
            failed: false,
            starting: Some(Starting { offset, doubt }),
            doubt: None,
        }
    }

    #[test]
    fn what_lies_at_the_sought_offset_is_believed_at_once() {
        let at = TopicPartition::new("t", 0);
        let mut batches = sought(&at, 10, None);
        assert!(batches.began(10));
        assert!(batches.began(99), "only the first message is looked at");
        assert_eq!((batches.doubt, batches.starting.is_none()), (None, true));
    }

    #[test]
    fn what_lies_behind_the_sought_offset_is_believed_the_second_time() {
        let at = TopicPartition::new("t", 0);
        let mut batches = sought(&at, 10, None);
        assert!(!batches.began(100));
        assert_eq!((batches.doubt, batches.starting.is_some()), (Some(100), true));
        let mut batches = sought(&at, 10, Some(100));
        assert!(batches.began(100));
        assert_eq!((batches.doubt, batches.starting.is_none()), (None, true));
    }
}
