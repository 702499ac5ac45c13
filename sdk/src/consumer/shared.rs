use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::start::Resolved;
use super::{AssignedPartition, ConsumerEvent};
use crate::offsets::{OffsetTracker, TopicPartition};
use crate::{Error, Result};

/// What the poll thread is asked to do.
pub(super) enum Command {
    /// Fetch from `offset` (may be logical) and deliver in `epoch`.
    Begin { at: TopicPartition, epoch: u64, offset: i64 },
    /// The question for a partition's earliest offset was answered.
    Earliest { at: TopicPartition, epoch: u64, offset: Result<i64> },
    /// A question about assigned partitions was answered.
    Resolved(Vec<(TopicPartition, u64)>, Result<Vec<Resolved>>),
    /// Commit, leave the group, end.
    Close { until: Instant, done: Option<oneshot::Sender<Result<()>>> },
}

/// What the poll thread, the streams and the consumer handle share.
///
/// Lock order: `bell`, `events`, `offsets` and a channel's state are leaves: no two are held at once. The bell
/// is rung by threads of librdkafka that hold a queue's lock, so nobody calls librdkafka while holding it.
pub(super) struct Shared {
    bell: Mutex<Bell>,
    rung: Condvar,
    events: Mutex<Events>,
    event_ready: Notify,
    offsets: Mutex<OffsetTracker>,
}

#[derive(Default)]
struct Bell {
    rung: bool,
    /// The poll thread has ended: commands are dropped, and whoever waits for an answer learns it from that.
    ended: bool,
    commands: Vec<Command>,
}

#[derive(Default)]
struct Events {
    queue: VecDeque<ConsumerEvent>,
    errors: usize,
    errors_dropped: u64,
    statistics: Option<Arc<str>>,
    ended: bool,
}

/// Errors that wait to be read; the oldest give way, since a condition that lasts is told again.
const MAX_ERRORS: usize = 256;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new() -> Self {
        Shared {
            bell: Mutex::default(),
            rung: Condvar::new(),
            events: Mutex::default(),
            event_ready: Notify::new(),
            offsets: Mutex::default(),
        }
    }

    pub(super) fn offsets(&self) -> MutexGuard<'_, OffsetTracker> {
        lock(&self.offsets)
    }

    /// Wakes the poll thread.
    pub(super) fn ring(&self) {
        let mut bell = lock(&self.bell);
        if !std::mem::replace(&mut bell.rung, true) {
            self.rung.notify_one();
        }
    }

    pub(super) fn send(&self, command: Command) {
        let mut bell = lock(&self.bell);
        if !bell.ended {
            bell.commands.push(command);
            drop(bell);
            self.ring();
        }
    }

    /// Waits until the bell rings or `wait` is over, and takes the commands.
    pub(super) fn wait(&self, wait: Duration) -> Vec<Command> {
        let mut bell = lock(&self.bell);
        if !bell.rung && !wait.is_zero() {
            bell = self
                .rung
                .wait_timeout_while(bell, wait, |b| !b.rung)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        bell.rung = false;
        std::mem::take(&mut bell.commands)
    }

    pub(super) fn emit(&self, event: ConsumerEvent) {
        let mut events = lock(&self.events);
        if events.ended {
            return;
        }
        if matches!(event, ConsumerEvent::Error(_) | ConsumerEvent::CommitFailed(_)) {
            if events.errors >= MAX_ERRORS
                && let Some(oldest) = events
                    .queue
                    .iter()
                    .position(|e| matches!(e, ConsumerEvent::Error(_) | ConsumerEvent::CommitFailed(_)))
            {
                events.queue.remove(oldest);
                events.errors -= 1;
                events.errors_dropped += 1;
            }
            events.errors += 1;
        }
        events.queue.push_back(event);
        drop(events);
        self.event_ready.notify_one();
    }

    pub(super) fn report(&self, error: Error) {
        if error.is_retryable() {
            tracing::debug!(%error, "the consumer goes on");
        } else {
            tracing::warn!(%error, "consumer error");
        }
        self.emit(ConsumerEvent::Error(error));
    }

    /// Takes back an announcement that nobody has read: a partition that went before it was seen.
    pub(super) fn retract(&self, at: &TopicPartition, epoch: u64) -> Option<AssignedPartition> {
        let mut events = lock(&self.events);
        for event in &mut events.queue {
            if let ConsumerEvent::Assigned(list) = event
                && let Some(i) = list
                    .iter()
                    .position(|p| p.epoch == epoch && p.partition == at.partition && p.topic == at.topic)
            {
                return Some(list.swap_remove(i));
            }
        }
        None
    }

    pub(super) fn set_statistics(&self, json: String) {
        lock(&self.events).statistics = Some(json.into());
    }

    pub(super) fn statistics(&self) -> Option<Arc<str>> {
        lock(&self.events).statistics.clone()
    }

    /// The poll thread has nothing more to say, and hears nothing more.
    pub(super) fn end(&self) {
        let unheard = {
            let mut bell = lock(&self.bell);
            bell.ended = true;
            std::mem::take(&mut bell.commands)
        };
        drop(unheard);
        lock(&self.events).ended = true;
        self.event_ready.notify_one();
    }

    pub(super) async fn next_event(&self) -> Option<ConsumerEvent> {
        loop {
            let ready = self.event_ready.notified();
            {
                let mut events = lock(&self.events);
                match events.queue.pop_front() {
                    // Every partition of it was retracted.
                    Some(ConsumerEvent::Assigned(list)) if list.is_empty() => continue,
                    Some(event) => {
                        if matches!(event, ConsumerEvent::Error(_) | ConsumerEvent::CommitFailed(_)) {
                            events.errors -= 1;
                        }
                        return Some(event);
                    }
                    None if events.ended => return None,
                    None => {}
                }
            }
            ready.await;
        }
    }
}
