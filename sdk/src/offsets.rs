//! Which offsets may be committed: a state machine without I/O.
//!
//! Each assigned partition has an *epoch* and a queue of *slots* in delivery order. A slot is what one
//! [`Token`] stands for; it knows the position before and after its records, so nothing is ever derived as
//! "offset + 1". The committable offset of a partition is the start of its first slot that is not done, else
//! the position after its last slot. Tokens of an epoch that is over are counted and dropped.
//!
//! ```text
//!   delivery order ->   [100..140 done] [140..180      ] [180..181 done] [181..250 done]   position 250
//!                                        ^ committable = 140
//! ```
//!
//! Commits are level-triggered: what is sent is computed from the state when it is sent, never queued, so any
//! number of completions become one commit, and a commit that failed needs nothing but another attempt.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A topic partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }
}

/// Stands for one delivery until it is completed. It is valid in one epoch of one partition only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    at: TopicPartition,
    epoch: u64,
    seq: u64,
}

impl Token {
    /// The partition that the delivery came from.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.at
    }

    /// The epoch that the delivery belongs to.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// What completing a token did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It counts.
    Done,
    /// It had been completed before.
    Repeated,
    /// Its epoch is over (revoked, lost or sought): the partition's offsets are no longer ours to commit.
    Stale,
}

/// A commit to send now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) id: usize,
    pub(crate) offsets: Vec<(TopicPartition, i64)>,
}

#[derive(Debug)]
struct Slot {
    start: i64,
    done: bool,
}

#[derive(Debug, Default)]
struct Partition {
    epoch: u64,
    /// Position after the last delivery; unknown until a logical start was resolved by a delivery.
    position: Option<i64>,
    /// The highest offset that the group is known to have in this epoch.
    committed: Option<i64>,
    /// Whether the committable offset says something that the group does not know yet.
    touched: bool,
    first_seq: u64,
    slots: VecDeque<Slot>,
}

impl Partition {
    fn committable(&self) -> Option<i64> {
        self.slots.front().map(|s| s.start).or(self.position)
    }

    /// What to commit, if anything is new. It never goes back within an epoch.
    fn wanted(&self) -> Option<i64> {
        let offset = self.committable()?;
        (self.touched && self.committed.is_none_or(|c| offset > c)).then_some(offset)
    }

    fn drop_done(&mut self) {
        while self.slots.front().is_some_and(|s| s.done) {
            self.slots.pop_front();
            self.first_seq += 1;
        }
    }
}

#[derive(Debug)]
struct InFlight {
    id: usize,
    /// With the epoch of each, so that an answer never touches a later epoch.
    offsets: Vec<(TopicPartition, u64, i64)>,
}

/// See the [module docs](self).
#[derive(Debug, Default)]
pub(crate) struct OffsetTracker {
    partitions: HashMap<TopicPartition, Partition>,
    last_epoch: u64,
    last_commit: usize,
    in_flight: Option<InFlight>,
    failures: u32,
    not_before: Duration,
    stale: u64,
}

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

impl OffsetTracker {
    /// Starts a new epoch of a partition: after an assignment, or after a seek. Tokens of the one before are
    /// stale from here on.
    pub(crate) fn start_epoch(&mut self, at: TopicPartition) -> u64 {
        self.last_epoch += 1;
        self.partitions.insert(at, Partition { epoch: self.last_epoch, ..Partition::default() });
        self.last_epoch
    }

    /// Ends `epoch` and starts another, unless it is over already.
    pub(crate) fn restart_epoch(&mut self, at: &TopicPartition, epoch: u64) -> Option<u64> {
        self.current(at, epoch)?;
        Some(self.start_epoch(at.clone()))
    }

    /// Fixes where an epoch begins: at `position` if that is known, while the group has `committed`. With
    /// `commit_start` the position is committed though nothing was delivered.
    pub(crate) fn begin(
        &mut self,
        at: &TopicPartition,
        epoch: u64,
        position: Option<i64>,
        committed: Option<i64>,
        commit_start: bool,
    ) {
        if let Some(p) = self.current(at, epoch) {
            p.position = position;
            // A group that is ahead of us does not stop our commits: within the epoch only our own count.
            p.committed = committed.filter(|c| position.is_some_and(|p| p >= *c));
            p.touched = commit_start;
        }
    }

    /// Notes a delivery of what lies in `first..next`. `None` if the epoch is over, or if the delivery does not
    /// go forward.
    pub(crate) fn deliver(
        &mut self,
        at: &TopicPartition,
        epoch: u64,
        first: i64,
        next: i64,
    ) -> Option<Token> {
        let p = self.current(at, epoch)?;
        let start = p.position.unwrap_or(first);
        if next < start {
            return None;
        }
        p.position = Some(next);
        p.slots.push_back(Slot { start, done: false });
        let seq = p.first_seq + p.slots.len() as u64 - 1;
        Some(Token { at: at.clone(), epoch, seq })
    }

    /// Completes one delivery.
    pub(crate) fn complete(&mut self, token: &Token) -> Completion {
        self.complete_slots(token, |slots, index| {
            let slot = &mut slots[index];
            !std::mem::replace(&mut slot.done, true)
        })
    }

    /// Completes a delivery and all before it in its epoch.
    pub(crate) fn complete_through(&mut self, token: &Token) -> Completion {
        self.complete_slots(token, |slots, index| {
            let mut changed = false;
            for slot in slots.iter_mut().take(index + 1) {
                changed |= !std::mem::replace(&mut slot.done, true);
            }
            changed
        })
    }

    /// Completes the beginning of a delivery, up to `offset`, which is not inside. It changes nothing of one that is complete.
    pub(crate) fn advance(&mut self, token: &Token, offset: i64) -> Completion {
        self.complete_slots(token, |slots, index| {
            // No further than the delivery itself, whose end is the next one's start; the last one's is the position.
            let end = slots.get(index + 1).map_or(i64::MAX, |next| next.start);
            let slot = &mut slots[index];
            let to = offset.min(end);
            let goes_on = !slot.done && to > slot.start;
            if goes_on {
                slot.start = to;
            }
            goes_on
        })
    }

    fn complete_slots(
        &mut self,
        token: &Token,
        mark: impl FnOnce(&mut VecDeque<Slot>, usize) -> bool,
    ) -> Completion {
        let Some(p) = self.current(&token.at, token.epoch) else {
            self.stale += 1;
            return Completion::Stale;
        };
        let Some(index) = token.seq.checked_sub(p.first_seq) else { return Completion::Repeated };
        let Some(index) = usize::try_from(index).ok().filter(|i| *i < p.slots.len()) else {
            return Completion::Repeated;
        };
        if !mark(&mut p.slots, index) {
            return Completion::Repeated;
        }
        p.touched = true;
        p.drop_done();
        Completion::Done
    }

    /// Whether the token's epoch is not over.
    pub(crate) fn is_current(&self, token: &Token) -> bool {
        self.partitions.get(&token.at).is_some_and(|p| p.epoch == token.epoch)
    }

    fn current(&mut self, at: &TopicPartition, epoch: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(at).filter(|p| p.epoch == epoch)
    }

    /// Position after the last delivery.
    #[cfg(test)]
    pub(crate) fn position(&self, at: &TopicPartition) -> Option<i64> {
        self.partitions.get(at)?.position
    }

    /// What may be committed for a partition.
    #[cfg(test)]
    pub(crate) fn committable(&self, at: &TopicPartition) -> Option<i64> {
        self.partitions.get(at)?.committable()
    }

    /// Deliveries that are not completed, and those behind them.
    #[cfg(test)]
    pub(crate) fn open_slots(&self, at: &TopicPartition) -> usize {
        self.partitions.get(at).map_or(0, |p| p.slots.len())
    }

    /// The commit to send at `now`, if there is something new, none is in flight and no backoff runs.
    pub(crate) fn next_commit(&mut self, now: Duration) -> Option<Commit> {
        if self.in_flight.is_some() || now < self.not_before {
            return None;
        }
        let mut offsets: Vec<_> = self
            .partitions
            .iter()
            .filter_map(|(at, p)| p.wanted().map(|offset| (at.clone(), p.epoch, offset)))
            .collect();
        if offsets.is_empty() {
            return None;
        }
        offsets.sort();
        self.last_commit += 1;
        let id = self.last_commit;
        let commit = Commit { id, offsets: offsets.iter().map(|(at, _, o)| (at.clone(), *o)).collect() };
        self.in_flight = Some(InFlight { id, offsets });
        Some(commit)
    }

    /// When the next commit may be sent, if one is waiting for its backoff.
    pub(crate) fn retry_at(&self) -> Option<Duration> {
        (self.failures > 0 && self.in_flight.is_none()).then_some(self.not_before)
    }

    /// Whether a commit is in flight or still to be sent.
    pub(crate) fn commit_pending(&self) -> bool {
        self.in_flight.is_some() || self.partitions.values().any(|p| p.wanted().is_some())
    }

    /// Takes the answer to commit `id`: for each partition whether it was stored. A partition that is not
    /// named counts as failed. Failure changes nothing but the time of the next attempt. `false` if the answer
    /// is to no commit in flight (one of a revoked partition, say).
    pub(crate) fn commit_answered(
        &mut self,
        id: usize,
        now: Duration,
        stored: impl Fn(&TopicPartition) -> bool,
    ) -> bool {
        if self.in_flight.as_ref().is_none_or(|f| f.id != id) {
            return false;
        }
        let Some(flight) = self.in_flight.take() else { return false };
        let mut failed = false;
        for (at, epoch, offset) in flight.offsets {
            if stored(&at) {
                if let Some(p) = self.current(&at, epoch) {
                    p.committed = Some(p.committed.map_or(offset, |c| c.max(offset)));
                }
            } else {
                // What is no longer ours cannot be tried again.
                failed |= self.current(&at, epoch).is_some();
            }
        }
        if failed {
            let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(10)).min(LONGEST_BACKOFF);
            self.failures = self.failures.saturating_add(1);
            self.not_before = now + backoff;
        } else {
            self.failures = 0;
            self.not_before = Duration::ZERO;
        }
        true
    }

    /// Ends the epochs of partitions that are given back in order, and gives the last commit for them: it may
    /// be sent beside one in flight, since no other will follow for these partitions.
    pub(crate) fn revoke<'a>(
        &mut self,
        gone: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Option<Commit> {
        let mut offsets = Vec::new();
        for at in gone {
            if let Some(p) = self.partitions.remove(at)
                && let Some(offset) = p.wanted()
            {
                offsets.push((at.clone(), offset));
            }
        }
        if offsets.is_empty() {
            return None;
        }
        self.last_commit += 1;
        Some(Commit { id: self.last_commit, offsets })
    }

    /// Ends the epochs of partitions that were taken away: another member may own them, so nothing is committed.
    pub(crate) fn lose<'a>(&mut self, gone: impl IntoIterator<Item = &'a TopicPartition>) {
        for at in gone {
            self.partitions.remove(at);
        }
    }

    /// Tokens that came too late.
    pub(crate) fn stale_completions(&self) -> u64 {
        self.stale
    }
}

#[cfg(test)]
mod tests;
