mod config;
mod lookups;
mod partition;
mod poll;
mod shared;
mod start;
mod stream;

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use config::{
    Assignor, ConsumerConfig, ConsumerConfigBuilder, GroupProtocol, Isolation, Start, TopicIds,
};
pub use stream::{AssignedPartition, BeginAt, Delivery, PartitionStream};

use crate::native::{Client, Role};
use crate::offsets::{Completion, Token};
use crate::{Error, ErrorKind, Result};
use lookups::{Lookups, Question};
use poll::Poller;
use shared::{Command, Shared};

/// A member of a consumer group.
///
/// **Guarantees.** Records of a partition are delivered in order, each once per epoch, and nothing of a
/// partition after it was revoked. An offset is committed only when every delivery below it was completed. A
/// slow reader stops its own partition and nothing else: it does not grow memory, and it cannot be expelled
/// from the group for being slow. A position that the cluster no longer has is an error, never a jump.
///
/// One thread of its own talks to the cluster and runs no code of yours; another asks questions that block.
/// Changes of the assignment are values from [`next_event`](Self::next_event).
///
/// Dropping it starts to leave the group and does not wait; [`close`](Self::close) waits.
pub struct Consumer {
    shared: Arc<Shared>,
    questions: mpsc::Sender<Question>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

/// A change that the holder of a [`Consumer`] must know of.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// Partitions that were given to this member, to be [begun](AssignedPartition::begin).
    Assigned(Vec<AssignedPartition>),
    /// Partitions that were given back. Their streams have ended, and what was complete is being committed.
    Revoked(Vec<RevokedPartition>),
    /// Partitions that the coordinator took away, for instance after a session timeout: another member may be
    /// reading them already. Their streams have ended, and nothing is committed.
    Lost(Vec<RevokedPartition>),
    /// A condition that the consumer cannot hide. It goes on unless the error [is fatal](Error::is_fatal); a
    /// partition that the error names stands still until it is sought or assigned again, unless the error is
    /// retryable.
    Error(Error),
    /// A commit that was refused. What was complete stays to be committed, and is tried again.
    CommitFailed(Error),
}

/// A partition that is no longer this member's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevokedPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The epoch that ended; that of the assignment, or of the last seek after it.
    pub epoch: u64,
}

impl Consumer {
    /// Joins the group. Returns before the group has answered; a cluster that cannot be reached is told by
    /// [`ConsumerEvent::Error`] and tried again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if librdkafka refuses the settings, [`ErrorKind::Other`] if no thread can
    /// be started.
    pub fn start(config: ConsumerConfig) -> Result<Consumer> {
        let client = Arc::new(Client::new(Role::Consumer, &config.to_conf())?);
        let shared = Arc::new(Shared::new());
        let (questions, asked) = mpsc::channel();
        let lookups = Lookups {
            client: client.clone(),
            shared: shared.clone(),
            start: config.start,
            topic_ids: config.topic_ids,
            wait: config.lookup_timeout,
        };
        spawn("gristmill-ask", move || lookups.run(&asked))?;
        let poller = Poller::new(client, shared.clone(), questions.clone(), config)?;
        spawn("gristmill-poll", move || poller.run())?;
        Ok(Consumer { shared, questions })
    }

    /// The next change, or `None` once the consumer has closed and all were taken.
    ///
    /// Cancel safe. To be called all the time: assignments wait here.
    pub async fn next_event(&self) -> Option<ConsumerEvent> {
        self.shared.next_event().await
    }

    /// The topic's id as the cluster has it now; another than at the assignment means that the topic was
    /// deleted and created again, and that offsets of before mean nothing in it.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] after the configuration's `lookup_timeout`; [`ErrorKind::NotFound`];
    /// [`ErrorKind::Unauthorized`] without the right to describe the topic; [`ErrorKind::Closed`].
    pub async fn topic_id(&self, topic: &str) -> Result<[u8; 16]> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::TopicId(topic.to_owned(), reply), answer, "read the topic's id").await
    }

    /// The earliest offset that a partition has now, and the offset after its last record (of committed
    /// transactions, unless the configuration reads all).
    ///
    /// # Errors
    /// As [`topic_id`](Self::topic_id).
    pub async fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let (reply, answer) = oneshot::channel();
        let question = Question::Watermarks(topic.to_owned(), partition, reply);
        self.ask(question, answer, "read the partition's end").await
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] if no broker has told it within `lookup_timeout`; [`ErrorKind::Closed`].
    pub async fn cluster_id(&self) -> Result<String> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::ClusterId(reply), answer, "read the cluster's id").await
    }

    async fn ask<T>(
        &self,
        question: Question,
        answer: oneshot::Receiver<Result<T>>,
        operation: &'static str,
    ) -> Result<T> {
        let closed = || Error::new(ErrorKind::Closed, operation, "the consumer was closed");
        self.questions.send(question).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Says that a delivery need not be read again, as [`PartitionStream::complete`] does, for who has no stream at hand.
    /// Never waits.
    pub fn complete(&self, token: &Token) -> Completion {
        self.shared.offsets().complete(token)
    }

    /// Says that the records of a delivery below an offset need not be read again. Never waits. Nothing changes for one that is
    /// complete.
    pub fn complete_below(&self, token: &Token, offset: i64) -> Completion {
        self.shared.offsets().advance(token, offset)
    }

    /// Whether completing a delivery would count: its partition is still this member's, and was not sought since.
    pub fn is_current(&self, token: &Token) -> bool {
        self.shared.offsets().is_current(token)
    }

    /// librdkafka's last statistics as JSON, if `statistics.interval.ms` was set as a property.
    pub fn statistics(&self) -> Option<Arc<str>> {
        self.shared.statistics()
    }

    /// How many completions came after their epoch had ended, and were ignored.
    pub fn stale_completions(&self) -> u64 {
        self.shared.offsets().stale_completions()
    }

    /// Ends all streams, commits what is complete, and leaves the group, within `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] if the group could not be told in time: the coordinator will notice after the
    /// session timeout. Commits that could not be stored come as [`ErrorKind::TimedOut`] too. Either way the
    /// consumer is gone. A fatal error of before comes again.
    ///
    /// A second call has nothing to do and succeeds.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.shared.send(Command::Close { until: Instant::now() + deadline, done: Some(done) });
        let late = || {
            Error::new(
                ErrorKind::TimedOut,
                "close the consumer",
                format!("the group did not answer within {deadline:?}"),
            )
        };
        // The thread itself may be inside a call of librdkafka: it is not waited for beyond the deadline.
        match tokio::time::timeout(deadline + Duration::from_millis(200), outcome).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(late()),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // After `close` the thread is gone, and nobody reads this.
        self.shared.send(Command::Close { until: Instant::now() + Duration::from_secs(5), done: None });
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|e| Error::new(ErrorKind::Other, "start the consumer's thread", e.to_string()))
}
