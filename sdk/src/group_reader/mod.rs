//! A consumer group as one stream of batches, each with a verdict.

mod batch;
mod dead_letters;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

pub use batch::{GroupBatch, Rejection};
pub use dead_letters::DeadLetterTopic;

use crate::{
    AssignedPartition, BeginAt, Consumer, ConsumerConfig, ConsumerEvent, Delivery, Error, ErrorKind, Result,
    TopicPartition,
};

/// Batches of a partition that lie ready, beside what its stream holds.
const READY: usize = 2;

/// Reads topics as a member of a consumer group, as one stream of batches from all partitions.
///
/// **Guarantee.** At least once: the group's offset passes a record only after it has a verdict
/// ([`GroupBatch::ack`] or [`GroupBatch::reject`]), and so have all before it in its partition. A batch that is dropped
/// without one is delivered again, as are batches that were on their way at a crash or when their partition went to
/// another member. Records of a partition come in order; one that is delivered again may come after later ones that were
/// taken before it was dropped.
///
/// It is what [`Consumer`] is, without its events: partitions are begun where the group is, and what goes away ends by
/// itself. A topic that is not there is waited for, and the log says so. Several threads or tasks may take batches.
///
/// Dropping it leaves the group without waiting; [`close`](Self::close) waits.
///
/// ```no_run
/// use gristmill::{ConsumerConfig, GroupReader};
///
/// # async fn run() -> gristmill::Result<()> {
/// let config = ConsumerConfig::builder()
///     .bootstrap_servers("localhost:9092")
///     .group_id("billing")
///     .topics(["orders"])
///     .build()?;
/// let reader = GroupReader::start(config, None)?;
/// while let Some(batch) = reader.next_batch().await? {
///     for record in batch.records().iter() {
///         println!("{} bytes", record.value().map_or(0, <[u8]>::len));
///     }
///     batch.ack();
/// }
/// # Ok(())
/// # }
/// ```
pub struct GroupReader {
    inner: Arc<Inner>,
    driver: JoinHandle<()>,
}

/// Lock order: the queue's lock, then the offsets'; a batch's verdict is never held with the queue's.
struct Inner {
    consumer: Consumer,
    group: String,
    dead_letters: Option<DeadLetterTopic>,
    queue: Mutex<Queue>,
    /// Told with every change of the queue. A counter and no permit, so that no waiter can take another's.
    changed: watch::Sender<()>,
}

/// Of each partition in order; partitions take turns, so that a batch that is let go of again and again does not keep the
/// others from coming.
#[derive(Default)]
struct Queue {
    ready: HashMap<TopicPartition, VecDeque<Ready>>,
    /// Partitions that have some, each once.
    turns: VecDeque<TopicPartition>,
    failed: Option<Error>,
    ended: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<Ready> {
        let at = self.turns.pop_front()?;
        let of_partition = self.ready.get_mut(&at)?;
        let ready = of_partition.pop_front();
        if of_partition.is_empty() {
            self.ready.remove(&at);
        } else {
            self.turns.push_back(at);
        }
        ready
    }

    /// Where the batches of its partition lie; it must get one.
    fn of(&mut self, ready: &Ready) -> &mut VecDeque<Ready> {
        let at = ready.delivery.token.topic_partition();
        if !self.ready.contains_key(at) {
            self.turns.push_back(at.clone());
        }
        self.ready.entry(at.clone()).or_default()
    }
}

/// A delivery that nobody has.
struct Ready {
    delivery: Delivery,
    times_delivered: u32,
    /// Of its partition; none if it was delivered before.
    _room: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for GroupReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupReader").field("group", &self.inner.group).finish_non_exhaustive()
    }
}

impl GroupReader {
    /// Joins the group; to be called within a tokio runtime. Returns before the group has answered.
    ///
    /// # Errors
    /// As [`Consumer::start`].
    pub fn start(config: ConsumerConfig, dead_letters: Option<DeadLetterTopic>) -> Result<GroupReader> {
        let group = config.group().to_owned();
        let inner = Arc::new(Inner {
            consumer: Consumer::start(config)?,
            group,
            dead_letters,
            queue: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let driver = tokio::spawn(drive(inner.clone()));
        Ok(GroupReader { inner, driver })
    }

    /// The next batch of any partition; it is never empty. `None` after [`close`](Self::close).
    ///
    /// Cancel safe: a batch is taken only when this returns it.
    ///
    /// # Errors
    /// What trying again does not help against, such as [`ErrorKind::OffsetOutOfRange`] for a partition whose position is
    /// gone, [`ErrorKind::Unauthorized`], [`ErrorKind::Fatal`]. The reader then gives nothing more; what was taken may
    /// still have its verdict.
    pub async fn next_batch(&self) -> Result<Option<GroupBatch>> {
        loop {
            let mut changed = self.inner.changed.subscribe();
            match self.take() {
                Taken::Batch(batch) => return Ok(Some(batch)),
                Taken::Failed(error) => return Err(error),
                Taken::Ended => return Ok(None),
                Taken::Nothing => {}
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }

    /// A batch, if one is ready: never waits. `None` if none is; whether more can come tells [`ready`](Self::ready).
    ///
    /// # Errors
    /// As [`next_batch`](Self::next_batch).
    pub fn try_next_batch(&self) -> Result<Option<GroupBatch>> {
        match self.take() {
            Taken::Batch(batch) => Ok(Some(batch)),
            Taken::Failed(error) => Err(error),
            Taken::Ended | Taken::Nothing => Ok(None),
        }
    }

    /// Waits until there is a batch or an error to take, and says `false` if there will be none. Takes nothing, so that
    /// who is woken and goes away costs nobody a batch.
    ///
    /// Cancel safe.
    pub async fn ready(&self) -> bool {
        loop {
            let mut changed = self.inner.changed.subscribe();
            {
                let queue = self.inner.lock();
                if queue.ended {
                    return false;
                }
                if !queue.ready.is_empty() || queue.failed.is_some() {
                    return true;
                }
            }
            let _ = changed.changed().await;
        }
    }

    /// Gives no more batches, commits what has its verdict, and leaves the group within `deadline`. A verdict that comes
    /// later counts for nothing.
    ///
    /// # Errors
    /// As [`Consumer::close`].
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.end();
        self.driver.abort();
        self.inner.consumer.close(deadline).await
    }

    fn take(&self) -> Taken {
        let mut queue = self.inner.lock();
        if queue.ended {
            return Taken::Ended;
        }
        while let Some(ready) = queue.pop() {
            // One that was put there, or came back, just after its partition had gone.
            if self.inner.consumer.is_current(&ready.delivery.token) {
                drop(queue);
                return Taken::Batch(GroupBatch::new(ready, &self.inner));
            }
        }
        // Before an error comes what was delivered before it.
        queue.failed.clone().map_or(Taken::Nothing, Taken::Failed)
    }
}

impl Drop for GroupReader {
    fn drop(&mut self) {
        self.inner.end();
        self.driver.abort();
    }
}

enum Taken {
    Batch(GroupBatch),
    Failed(Error),
    Ended,
    Nothing,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    fn end(&self) {
        let left = self.change(|queue| {
            queue.ended = true;
            queue.turns.clear();
            std::mem::take(&mut queue.ready)
        });
        drop(left);
    }

    /// Takes back a batch that was let go of: before what lies ready of its partition, which so stays in order as far as it
    /// can.
    fn take_back(&self, delivery: Delivery, times_delivered: u32) {
        self.change(|queue| {
            if !queue.ended {
                let times_delivered = times_delivered.saturating_add(1);
                let ready = Ready { delivery, times_delivered, _room: None };
                queue.of(&ready).push_front(ready);
            }
        });
    }

    /// What lies ready of a partition is another member's now.
    fn forget(&self, gone: &TopicPartition) {
        let left = self.change(|queue| {
            queue.turns.retain(|at| at != gone);
            queue.ready.remove(gone)
        });
        drop(left);
    }
}

/// Takes the consumer's events until it has closed or failed.
async fn drive(inner: Arc<Inner>) {
    let mut readers = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = inner.consumer.next_event() => event,
            Some(_) = readers.join_next() => continue,
        };
        match event {
            Some(ConsumerEvent::Assigned(partitions)) => {
                for partition in partitions {
                    readers.spawn(read(partition, inner.clone()));
                }
            }
            Some(ConsumerEvent::Revoked(partitions) | ConsumerEvent::Lost(partitions)) => {
                partitions
                    .iter()
                    .for_each(|p| inner.forget(&TopicPartition::new(p.topic.clone(), p.partition)));
            }
            // It may be made yet; the group takes it up then.
            Some(ConsumerEvent::Error(error)) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!(%error, "a topic that is subscribed to is not there; it is waited for");
            }
            // A partition that stands still for good would be skipped in silence, and so would all of them be if none
            // was ever assigned.
            Some(ConsumerEvent::Error(error))
                if error.is_fatal()
                    || (!error.is_retryable() && (error.partition().is_some() || readers.is_empty())) =>
            {
                inner.change(|queue| queue.failed.get_or_insert(error).clone());
                return;
            }
            Some(ConsumerEvent::Error(error)) => tracing::warn!(%error, "Kafka"),
            Some(ConsumerEvent::CommitFailed(error)) => {
                tracing::warn!(%error, "a commit was refused; it is tried again");
            }
            None => {
                let ended = Error::new(ErrorKind::Closed, "read", "the consumer ended by itself");
                inner.change(|queue| {
                    queue.failed.get_or_insert(ended);
                });
                return;
            }
        }
    }
}

/// Moves the deliveries of a partition into the queue, a few ahead of who takes them.
async fn read(partition: AssignedPartition, inner: Arc<Inner>) {
    let room = Arc::new(Semaphore::new(READY));
    let mut stream = partition.begin(BeginAt::Group);
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Some(delivery) = stream.next().await else { return };
        if delivery.batch.is_empty() {
            // The position moved, and nothing is to be decided about.
            stream.complete(delivery.token);
            continue;
        }
        inner.change(|queue| {
            if !queue.ended {
                let ready = Ready { delivery, times_delivered: 1, _room: Some(permit) };
                queue.of(&ready).push_back(ready);
            }
        });
    }
}
