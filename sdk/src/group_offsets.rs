use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::consumer::ConsumerConfig;
use crate::native::{Client, Code, INVALID, Partitions, Queue, Role, kind_of};
use crate::{Error, ErrorKind, Result};

/// The offset that a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The partition.
    pub partition: i32,
    /// Where the group goes on.
    pub offset: i64,
    /// What was committed beside it; `None` for nothing. See
    /// [`AssignedPartition::commit_metadata`](crate::AssignedPartition::commit_metadata).
    pub metadata: Option<String>,
}

/// A group's committed offsets from outside the group: to look at them, and to set them while the group has no
/// member.
///
/// It never joins the group. One thread of its own asks the cluster; dropping this ends it and does not wait.
pub struct GroupOffsets {
    questions: mpsc::Sender<Question>,
}

type Question = Box<dyn FnOnce(&Asker) + Send>;

impl fmt::Debug for GroupOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupOffsets").finish_non_exhaustive()
    }
}

impl GroupOffsets {
    /// For the group, cluster and security of `config`; its topics are not subscribed to. Nothing is contacted yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if librdkafka refuses the settings, [`ErrorKind::Other`] if no thread can be
    /// started.
    pub fn new(config: &ConsumerConfig) -> Result<GroupOffsets> {
        let asker = Asker {
            client: Arc::new(Client::new(Role::Consumer, &config.to_conf())?),
            wait: config.lookup_timeout(),
        };
        let (questions, asked) = mpsc::channel::<Question>();
        std::thread::Builder::new()
            .name("gristmill-offsets".to_owned())
            .spawn(move || {
                while let Ok(question) = asked.recv() {
                    question(&asker);
                }
            })
            .map_err(|e| Error::new(ErrorKind::Other, "start a thread", e.to_string()))?;
        Ok(GroupOffsets { questions })
    }

    async fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        question: impl FnOnce(&Asker) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |asker| {
            let _ = reply.send(question(asker));
        });
        let ended = || Error::new(ErrorKind::Closed, operation, "the asking thread has ended");
        self.questions.send(question).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// What the group has committed on a topic: the partitions that have an offset, in order.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] after the configuration's `lookup_timeout`; [`ErrorKind::NotFound`] if there is no
    /// such topic; [`ErrorKind::Unauthorized`].
    pub async fn committed(&self, topic: &str) -> Result<Vec<GroupOffset>> {
        let topic = topic.to_owned();
        self.ask("read committed offsets", move |asker| asker.committed(&topic)).await
    }

    /// The earliest offset that a partition has now, and the one after its last.
    ///
    /// # Errors
    /// As [`committed`](Self::committed).
    pub async fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let topic = topic.to_owned();
        self.ask("read the partition's end", move |asker| {
            asker.client.watermarks(&topic, partition, asker.wait)
        })
        .await
    }

    /// The topic's id as the cluster has it now.
    ///
    /// # Errors
    /// As [`committed`](Self::committed).
    pub async fn topic_id(&self, topic: &str) -> Result<[u8; 16]> {
        let topic = topic.to_owned();
        self.ask("read the topic's id", move |asker| asker.client.topic_id(&topic, asker.wait)).await
    }

    /// Sets the group's offsets on a topic, in one request. Kafka takes it only while the group has no member.
    ///
    /// If it fails with [`ErrorKind::TimedOut`] or [`ErrorKind::Unreachable`], it may have been done; doing it again
    /// does no harm.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if the group has members; the errors of [`committed`](Self::committed).
    pub async fn set(&self, topic: &str, offsets: Vec<GroupOffset>) -> Result<()> {
        let topic = topic.to_owned();
        self.ask(SET, move |asker| asker.set(&topic, &offsets)).await
    }
}

const SET: &str = "set the group's offsets";

/// The codes with which a coordinator says that the group is in use.
const IN_USE: [Code; 6] = [
    Code::UNKNOWN_MEMBER_ID,
    Code::ILLEGAL_GENERATION,
    Code::REBALANCE_IN_PROGRESS,
    Code::NON_EMPTY_GROUP,
    Code::STALE_MEMBER_EPOCH,
    Code::FENCED_MEMBER_EPOCH,
];

/// What the thread works with.
struct Asker {
    client: Arc<Client>,
    wait: Duration,
}

impl Asker {
    fn committed(&self, topic: &str) -> Result<Vec<GroupOffset>> {
        let mut list = Partitions::new();
        for partition in 0..self.client.partition_count(topic, self.wait)? {
            list.add(topic, partition, INVALID);
        }
        let entries = self.client.committed(&list, self.wait)?;
        Ok(entries
            .into_iter()
            .filter(|e| e.offset >= 0)
            .map(|e| GroupOffset { partition: e.partition, offset: e.offset, metadata: e.metadata })
            .collect())
    }

    fn set(&self, topic: &str, offsets: &[GroupOffset]) -> Result<()> {
        let mut list = Partitions::new();
        for o in offsets {
            list.add_with_metadata(topic, o.partition, o.offset, o.metadata.as_deref().unwrap_or_default());
        }
        // librdkafka gives up by itself if no coordinator is found for a session's time; we wait no longer than
        // we were told to.
        let until = Instant::now() + self.wait;
        let mut replies = Queue::new(&self.client);
        self.client.commit(&list, &replies, 0)?;
        let reply = loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(reply) = replies.next_commit_reply(left.min(Duration::from_millis(100))) {
                break reply;
            }
            // What the client notes beside it (a broker that is not there) is told by the outcome.
            drop(self.client.poll_consumer());
            if left.is_zero() {
                let text = format!("the group's coordinator did not answer within {:?}", self.wait);
                return Err(Error::new(ErrorKind::TimedOut, SET, text).with_topic(topic));
            }
        };
        let refused = reply.partitions.iter().find(|e| !e.code.is_ok());
        let code = if reply.code.is_ok() { refused.map_or(Code::OK, |e| e.code) } else { reply.code };
        if code.is_ok() {
            return Ok(());
        }
        let error = if IN_USE.contains(&code) {
            let text = format!(
                "the group has members: stop every process of it first; one that was killed counts until its session \
                 has timed out ({})",
                code.describe()
            );
            Error::new(ErrorKind::Refused, SET, text)
        } else {
            Error::new(kind_of(code), SET, code.describe())
        };
        let error = error.with_code(code.0).with_topic(topic);
        Err(match refused {
            Some(e) if reply.code.is_ok() => error.with_partition(e.partition).with_offset(e.offset),
            _ => error,
        })
    }
}
