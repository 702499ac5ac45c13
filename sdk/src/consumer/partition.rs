//! One assigned partition as the poll thread sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gristmill_records::{PushError, RawBatch, RawBatchBuilder};

use super::config::ConsumerConfig;
use super::shared::Shared;
use super::stream::{Channel, Item};
use crate::native::{Code, MessageRef, Queue};
use crate::offsets::TopicPartition;
use crate::{Error, ErrorKind};

/// A partition that is assigned.
pub(super) struct Partition {
    pub(super) queue: Queue,
    /// Set by the queue's wake-up, cleared before a drain.
    pub(super) filled: Arc<AtomicBool>,
    pub(super) epoch: u64,
    pub(super) announced: bool,
    pub(super) topic_id: Option<[u8; 16]>,
    pub(super) reading: Reading,
    /// An error has stopped librdkafka's fetcher; a seek alone does not start it.
    pub(super) fetcher_stopped: bool,
    /// Where the next record is expected; unknown after a logical start.
    pub(super) position: Option<i64>,
    pub(super) channel: Arc<Channel>,
}

pub(super) enum Reading {
    NotBegun,
    Seeking {
        offset: i64,
        at: Instant,
    },
    Running,
    /// The position is gone; only a seek goes on.
    Failed,
}

impl Partition {
    /// Takes all that is there: librdkafka's own limits bound it.
    pub(super) fn drain(&mut self, at: &TopicPartition, config: &ConsumerConfig, shared: &Shared) {
        // Cleared first: what comes in between rings again.
        self.filled.store(false, Ordering::Release);
        let mut batches = Batches {
            at,
            topic_id: self.topic_id,
            limits: (config.batch_records, config.batch_bytes),
            open: None,
            items: Vec::new(),
            position: self.position,
            errors: Vec::new(),
            failed: false,
        };
        self.queue.drain(|message| batches.take(message));
        batches.close_open();
        self.position = batches.position;
        for error in batches.errors {
            if !error.is_retryable() {
                self.reading = Reading::Failed;
                self.fetcher_stopped = true;
            }
            shared.report(error);
        }
        if !batches.items.is_empty() {
            self.channel.push(self.epoch, batches.items);
        }
    }
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
}

impl Batches<'_> {
    fn take(&mut self, message: MessageRef<'_>) {
        // The error stands for something that was not delivered: going on would pass over it.
        if self.failed {
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
