use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill_records::{NO_TIMESTAMP, RawBatch, RawBatchBuilder};
use tokio::sync::Notify;

use super::shared::{Command, Shared};
use super::start::GroupStart;
use crate::native::{BEGINNING, END};
use crate::offsets::{Completion, Token, TopicPartition};
use crate::{Error, ErrorKind};

/// Where the records of an assigned partition begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginAt {
    /// At the group's committed offset; without one, as [`Start`](crate::Start) says.
    Group,
    /// At the earliest offset that the partition still has.
    Earliest,
    /// At this offset. If the partition does not have it, an error of kind
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) comes as an event, and nothing is delivered.
    Offset(i64),
}

/// A partition that was given to this consumer. Nothing is read from it before [`begin`](Self::begin).
#[must_use = "a partition is read only after `begin`"]
pub struct AssignedPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Rises with every assignment and seek of this consumer; stays the same nowhere else.
    pub epoch: u64,
    /// The topic's id, unless [`TopicIds::NotAvailable`](crate::TopicIds::NotAvailable).
    pub topic_id: Option<[u8; 16]>,
    /// The offset that the group has committed, if it has.
    pub group_offset: Option<i64>,
    /// The metadata that was committed with that offset, if it is not empty: see
    /// [`commit_metadata`](Self::commit_metadata). Tools that move offsets leave none.
    pub group_metadata: Option<String>,
    pub(super) group_start: GroupStart,
    pub(super) channel: Arc<Channel>,
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for AssignedPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssignedPartition")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("epoch", &self.epoch)
            .field("topic_id", &self.topic_id)
            .field("group_offset", &self.group_offset)
            .field("group_metadata", &self.group_metadata)
            .finish_non_exhaustive()
    }
}

impl AssignedPartition {
    /// The offset where [`BeginAt::Group`] would begin, as far as it is known before anything is read: the
    /// group's committed offset, or the end at the assignment with [`Start::Latest`](crate::Start::Latest).
    /// `None` means the partition's earliest record.
    pub fn start_offset(&self) -> Option<i64> {
        match self.group_start {
            GroupStart::Committed(offset) | GroupStart::EndWas(offset) => Some(offset),
            GroupStart::Earliest | GroupStart::Missing => None,
        }
    }

    /// Every commit of this assignment carries this text, as a mark of who made it. Brokers take up to 4,096 bytes
    /// (`offset.metadata.max.bytes`), and refuse the commit if there are more. Default: nothing.
    pub fn commit_metadata(self, text: impl Into<Arc<str>>) -> Self {
        self.channel.set_metadata(text.into());
        self
    }

    /// Starts to read. Returns at once, also if the partition has been revoked meanwhile: the stream then ends.
    pub fn begin(self, from: BeginAt) -> PartitionStream {
        let stream = PartitionStream {
            at: TopicPartition { topic: self.topic, partition: self.partition },
            epoch: self.epoch,
            topic_id: self.topic_id,
            group_offset: self.group_offset,
            group_start: self.group_start,
            end: None,
            ended: false,
            channel: self.channel,
            shared: self.shared,
        };
        stream.start(from);
        stream
    }
}

/// The records of one assigned partition, in order.
///
/// Not calling [`next`](Self::next) is back-pressure: only the partition's share of the memory budget is
/// prefetched (see [`ConsumerConfig`](crate::ConsumerConfig)), librdkafka stops to prefetch this partition, and the others go on. Dropping the stream stops the
/// partition for good; it stays assigned until the next rebalance.
pub struct PartitionStream {
    at: TopicPartition,
    epoch: u64,
    topic_id: Option<[u8; 16]>,
    group_offset: Option<i64>,
    group_start: GroupStart,
    /// Nothing from this offset on is delivered.
    end: Option<i64>,
    /// The delivery that reaches `end` was given.
    ended: bool,
    channel: Arc<Channel>,
    shared: Arc<Shared>,
}

impl fmt::Debug for PartitionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionStream")
            .field("topic", &self.at.topic)
            .field("partition", &self.at.partition)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What [`PartitionStream::next`] gives.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The records; may be empty, if only the position moved (control records, compacted or aborted ends).
    pub batch: RawBatch,
    /// The position after it: what to read next. Everything below it has been seen or holds no visible record.
    pub next: i64,
    /// To be completed when the records need not be read again.
    pub token: Token,
}

impl PartitionStream {
    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.at.topic
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.at.partition
    }

    /// The epoch; a seek starts a new one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The topic's id as it was at the assignment.
    pub fn topic_id(&self) -> Option<[u8; 16]> {
        self.topic_id
    }

    /// Sets an end: no record at or behind offset `end` is delivered, and no position beyond it. The delivery
    /// whose `next` is `end` is the last; after it [`next`](Self::next) waits until the partition goes. That end
    /// is also reached where the log has no record before it: by a record behind it, or at the log's own end.
    #[must_use]
    pub fn until(mut self, end: i64) -> Self {
        self.end = Some(end);
        self
    }

    /// The next records, or `None` for ever once the partition was revoked or lost or the consumer closed.
    ///
    /// Cancel safe: a delivery is taken only when this returns it.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            let notified = self.channel.filled.notified();
            match self.channel.pop(self.epoch) {
                Popped::Closed => return None,
                Popped::Item { item, wants_more } => {
                    if wants_more {
                        self.shared.ring();
                    }
                    if self.ended {
                        continue;
                    }
                    let item = item.until(self.end);
                    self.ended = self.end == Some(item.next);
                    let first = item.batch.first_offset().unwrap_or(item.next);
                    let token = self.shared.offsets().deliver(&self.at, self.epoch, first, item.next)?;
                    return Some(Delivery { batch: item.batch, next: item.next, token });
                }
                Popped::Empty => notified.await,
            }
        }
    }

    /// Says that a delivery need not be read again. Its offsets are committed once all deliveries before it are
    /// complete too. Never waits.
    pub fn complete(&self, token: Token) -> Completion {
        self.shared.offsets().complete(&token)
    }

    /// Says that a delivery and all before it need not be read again. Never waits.
    pub fn complete_through(&self, token: &Token) -> Completion {
        self.shared.offsets().complete_through(token)
    }

    /// Goes on reading elsewhere, in a new epoch: what was delivered before can no longer be completed.
    /// `false` if the partition is no longer assigned.
    pub fn seek(&mut self, to: BeginAt) -> bool {
        let Some(epoch) = self.shared.offsets().restart_epoch(&self.at, self.epoch) else { return false };
        if !self.channel.restart(epoch) {
            return false;
        }
        self.epoch = epoch;
        self.ended = false;
        self.start(to);
        true
    }

    fn start(&self, from: BeginAt) {
        if (from, self.group_start) == (BeginAt::Group, GroupStart::Missing) {
            self.shared.report(
                Error::new(
                    ErrorKind::OffsetOutOfRange,
                    "begin",
                    "the group has never committed an offset for this topic, and the configuration wants one: \
                     set a start of earliest or latest, or commit an offset",
                )
                .with_topic(self.at.topic.clone())
                .with_partition(self.at.partition),
            );
            return;
        }
        let (offset, commit_start) = match (from, self.group_start) {
            (BeginAt::Earliest, _) | (BeginAt::Group, GroupStart::Earliest | GroupStart::Missing) => {
                (BEGINNING, false)
            }
            // What is ahead of the group's offset was completed by somebody: let the group know.
            (BeginAt::Offset(o), _) => (o, self.group_offset.is_none_or(|g| g < o)),
            (BeginAt::Group, GroupStart::Committed(o)) => (o, false),
            (BeginAt::Group, GroupStart::EndWas(o)) => (o, true),
        };
        debug_assert_ne!(offset, END, "the end is resolved before");
        let position = (offset >= 0).then_some(offset);
        self.shared.offsets().begin(&self.at, self.epoch, position, self.group_offset, commit_start);
        self.shared.send(Command::Begin { at: self.at.clone(), epoch: self.epoch, offset });
    }
}

impl Drop for PartitionStream {
    fn drop(&mut self) {
        self.channel.close();
    }
}

/// What the poll thread hands to a stream: bounded by bytes.
///
/// Lock order: a channel's lock is a leaf; nothing else is locked under it.
pub(super) struct Channel {
    state: Mutex<ChannelState>,
    filled: Notify,
    /// Bytes that wait, below which more is taken from librdkafka.
    refill_below: usize,
}

struct ChannelState {
    epoch: u64,
    /// What commits of the partition carry. Here, so that it is there before the first offset may be committed.
    metadata: Option<Arc<str>>,
    items: VecDeque<Item>,
    bytes: usize,
    /// The poll thread has passed this partition over for want of credit.
    starved: bool,
    closed: bool,
}

pub(super) struct Item {
    pub(super) batch: RawBatch,
    pub(super) next: i64,
}

impl Item {
    /// What of the item lies before `end`.
    fn until(self, end: Option<i64>) -> Item {
        match end {
            Some(end) if self.next > end => Item { batch: before(&self.batch, end), next: end },
            _ => self,
        }
    }
}

/// A copy of the records below `end`. Once a partition: sharing the arenas would not pay.
fn before(batch: &RawBatch, end: i64) -> RawBatch {
    let mut kept = RawBatchBuilder::new(batch.topic().clone(), batch.partition()).topic_id(batch.topic_id());
    for record in batch.iter().take_while(|record| record.offset() < end) {
        let timestamp = record.timestamp().unwrap_or(NO_TIMESTAMP);
        kept.push(record.offset(), timestamp, record.key(), record.value(), record.headers())
            .expect("part of a batch is no larger, and in order");
    }
    if let Some(epoch) = batch.leader_epoch() {
        kept.set_leader_epoch(epoch);
    }
    kept.build()
}

enum Popped {
    Item { item: Item, wants_more: bool },
    Empty,
    Closed,
}

impl Channel {
    pub(super) fn new(epoch: u64, refill_below: usize) -> Self {
        let state = ChannelState {
            epoch,
            metadata: None,
            items: VecDeque::new(),
            bytes: 0,
            starved: false,
            closed: false,
        };
        Channel { state: Mutex::new(state), filled: Notify::new(), refill_below }
    }

    fn lock(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_metadata(&self, text: Arc<str>) {
        self.lock().metadata = Some(text);
    }

    pub(super) fn metadata(&self) -> Option<Arc<str>> {
        self.lock().metadata.clone()
    }

    /// Whether so little waits that the partition should be drained; if not, notes to ring when it does.
    pub(super) fn wants_more(&self) -> bool {
        let mut state = self.lock();
        state.starved = !state.closed && state.bytes >= self.refill_below;
        !state.closed && !state.starved
    }

    /// Adds items of `epoch`; those of another epoch are dropped.
    pub(super) fn push(&self, epoch: u64, items: impl IntoIterator<Item = Item>) {
        let mut state = self.lock();
        if state.closed || state.epoch != epoch {
            return;
        }
        for item in items {
            state.bytes += item.batch.byte_size();
            state.items.push_back(item);
        }
        drop(state);
        self.filled.notify_one();
    }

    fn pop(&self, epoch: u64) -> Popped {
        let mut state = self.lock();
        if state.closed || state.epoch != epoch {
            return Popped::Closed;
        }
        let Some(item) = state.items.pop_front() else { return Popped::Empty };
        state.bytes -= item.batch.byte_size();
        let wants_more = state.starved && state.bytes < self.refill_below;
        if wants_more {
            state.starved = false;
        }
        Popped::Item { item, wants_more }
    }

    fn restart(&self, epoch: u64) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        (state.epoch, state.bytes, state.starved) = (epoch, 0, false);
        state.items.clear();
        true
    }

    /// Ends the stream: what waits is dropped, and never was delivered.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.bytes = 0;
        state.items.clear();
        drop(state);
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use gristmill_records::Header;

    use super::*;

    fn item() -> Item {
        let mut builder = RawBatchBuilder::new("t", 3).topic_id(Some([7; 16]));
        let header = [Header { name: b"h", value: Some(b"v") }];
        builder.push(10, 1, Some(b"key"), Some(b"ten"), header).unwrap();
        builder.push(12, NO_TIMESTAMP, None, None, []).unwrap();
        builder.push(15, 3, Some(b""), Some(b"fifteen"), header).unwrap();
        builder.set_leader_epoch(4);
        Item { batch: builder.build(), next: 20 }
    }

    #[test]
    fn an_end_cuts_off_exactly_what_lies_at_or_behind_it() {
        for (end, kept) in [(5, 0), (10, 0), (11, 1), (12, 1), (13, 2), (15, 2), (16, 3), (19, 3)] {
            let part = item().until(Some(end));
            assert_eq!((part.batch.len(), part.next), (kept, end), "until {end}");
            for (a, b) in part.batch.iter().zip(item().batch.iter()) {
                assert_eq!((a.offset(), a.timestamp()), (b.offset(), b.timestamp()));
                assert_eq!((a.key(), a.value()), (b.key(), b.value()));
                assert!(a.headers().eq(b.headers()), "headers of {}", a.offset());
            }
            let batch = &part.batch;
            assert_eq!((&**batch.topic(), batch.partition(), batch.topic_id()), ("t", 3, Some([7; 16])));
            assert_eq!(batch.leader_epoch(), Some(4));
        }
        for end in [None, Some(20), Some(99)] {
            let whole = item().until(end);
            assert_eq!((whole.batch.len(), whole.next), (3, 20));
        }
    }
}
