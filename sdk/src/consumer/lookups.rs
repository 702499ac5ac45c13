//! Questions to the cluster that block, on a thread of their own: the poll thread never waits for an answer.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::config::{Start, TopicIds};
use super::shared::{Command, Shared};
use super::start::{GroupStart, Resolved};
use crate::Result;
use crate::native::{Client, Partitions};
use crate::offsets::TopicPartition;

pub(super) enum Question {
    /// Where assigned partitions begin, and in which incarnation of their topic.
    Assigned(Vec<(TopicPartition, u64)>),
    /// The earliest offset of a partition, for an epoch.
    Earliest(TopicPartition, u64),
    TopicId(String, oneshot::Sender<Result<[u8; 16]>>),
    /// The earliest offset of a partition, and the one after its last.
    Watermarks(String, i32, oneshot::Sender<Result<(i64, i64)>>),
    ClusterId(oneshot::Sender<Result<String>>),
}

pub(super) struct Lookups {
    pub(super) client: Arc<Client>,
    pub(super) shared: Arc<Shared>,
    pub(super) start: Start,
    pub(super) topic_ids: TopicIds,
    pub(super) wait: Duration,
}

impl Lookups {
    /// Answers until the last asker is gone.
    pub(super) fn run(self, questions: &mpsc::Receiver<Question>) {
        while let Ok(question) = questions.recv() {
            match question {
                Question::Assigned(partitions) => {
                    let answer = self.resolve(&partitions);
                    self.shared.send(Command::Resolved(partitions, answer));
                }
                Question::Earliest(at, epoch) => {
                    let ends = self.client.watermarks(&at.topic, at.partition, self.wait);
                    self.shared.send(Command::Earliest { at, epoch, offset: ends.map(|(low, _)| low) });
                }
                Question::TopicId(topic, reply) => {
                    let _ = reply.send(self.client.topic_id(&topic, self.wait));
                }
                Question::Watermarks(topic, partition, reply) => {
                    let _ = reply.send(self.client.watermarks(&topic, partition, self.wait));
                }
                Question::ClusterId(reply) => {
                    let _ = reply.send(self.client.cluster_id(self.wait));
                }
            }
        }
    }

    fn resolve(&self, partitions: &[(TopicPartition, u64)]) -> Result<Vec<Resolved>> {
        let mut topics: HashMap<&str, TopicFacts> = HashMap::new();
        for (at, _) in partitions {
            if !topics.contains_key(&*at.topic) {
                topics.insert(&at.topic, self.topic_facts(&at.topic)?);
            }
        }
        partitions
            .iter()
            .map(|(at, _)| {
                let facts = &topics[&*at.topic];
                let (group_offset, group_metadata) = match facts.committed.get(&at.partition) {
                    Some((offset, metadata)) => (Some(*offset), metadata.clone()),
                    None => (None, None),
                };
                let group_start = match (group_offset, self.start) {
                    (Some(offset), _) => GroupStart::Committed(offset),
                    // The group has started on this topic: the partition is new.
                    (None, _) if !facts.committed.is_empty() => GroupStart::Earliest,
                    (None, Start::Earliest) => GroupStart::Earliest,
                    (None, Start::Latest) => {
                        GroupStart::EndWas(self.client.watermarks(&at.topic, at.partition, self.wait)?.1)
                    }
                    (None, Start::Committed) => GroupStart::Missing,
                };
                Ok(Resolved { topic_id: facts.topic_id, group_offset, group_metadata, group_start })
            })
            .collect()
    }

    fn topic_facts(&self, topic: &str) -> Result<TopicFacts> {
        let topic_id = match self.topic_ids {
            TopicIds::Describe => Some(self.client.topic_id(topic, self.wait)?),
            TopicIds::NotAvailable => None,
        };
        // All partitions, also those of other members: they tell whether the group has started on the topic.
        let mut list = Partitions::new();
        for partition in 0..self.client.partition_count(topic, self.wait)? {
            list.add(topic, partition, crate::native::INVALID);
        }
        let committed = self.client.committed(&list, self.wait)?;
        let committed = committed
            .into_iter()
            .filter(|e| e.offset >= 0)
            .map(|e| (e.partition, (e.offset, e.metadata)))
            .collect();
        Ok(TopicFacts { topic_id, committed })
    }
}

struct TopicFacts {
    topic_id: Option<[u8; 16]>,
    /// Offset and metadata, by partition.
    committed: HashMap<i32, (i64, Option<String>)>,
}
