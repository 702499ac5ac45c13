//! The pipeline's consumer group, from outside of it.

use gristmill::{GroupOffset, GroupOffsets};
use gristmill_sinks::{BrokenLedger, LedgerRef, SinkConfig};

use crate::check::Checked;
use crate::error::{Error, ErrorKind};
use crate::group_offset::{Author, begin_mark, mark};
use crate::prepare;

/// The consumer group of a pipeline: to look at its offsets, and to put them back while the pipeline is stopped.
#[derive(Debug)]
pub struct Group {
    offsets: GroupOffsets,
    topics: Vec<String>,
    pipeline: String,
}

/// An offset of the group that is to be made to agree with the ledger.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What the group has committed.
    pub from: i64,
    /// Whether this pipeline has committed it.
    pub ours: bool,
    /// What it is set to: where the ledger ends; without a ledger it stays, and the next start begins a ledger there.
    pub to: i64,
    /// The ledger, if there is one.
    pub ledger: Option<LedgerRef>,
    metadata: Option<String>,
}

impl Group {
    /// For a checked file. Nothing is contacted yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`].
    pub fn of(checked: &Checked) -> Result<Group, Error> {
        let config = prepare::consumer(checked, false)?;
        let offsets = GroupOffsets::new(&config).map_err(|e| Error::config(e.to_string()))?;
        let file = &checked.pipeline;
        Ok(Group { offsets, topics: file.source.kafka.topics.clone(), pipeline: file.name.clone() })
    }

    /// The topic's id as the cluster has it now.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the file does not name the topic; [`ErrorKind::Source`].
    pub async fn topic_id(&self, topic: &str) -> Result<[u8; 16], Error> {
        if !self.topics.iter().any(|t| t == topic) {
            let text =
                format!("the pipeline does not read a topic `{topic}`, but {}", self.topics.join(", "));
            return Err(Error::config(text));
        }
        self.offsets.topic_id(topic).await.map_err(source)
    }

    /// The earliest offset of a partition, and the one after its last.
    ///
    /// # Errors
    /// [`ErrorKind::Source`].
    pub async fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        self.offsets.watermarks(topic, partition).await.map_err(source)
    }

    /// The committed offsets that are not what the ledgers say, as far as they are of the topics as they are now.
    /// Partitions without a committed offset agree with any ledger.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a topic that the file does not name; [`ErrorKind::Source`], [`ErrorKind::Sink`].
    pub async fn resets(
        &self,
        config: &SinkConfig,
        topic: Option<&str>,
        partition: Option<i32>,
    ) -> Result<Vec<Reset>, Error> {
        let topics: Vec<&str> = match topic {
            Some(topic) => vec![topic],
            None => self.topics.iter().map(String::as_str).collect(),
        };
        let ledgers = gristmill_sinks::survey_ledgers(config).await.map_err(Error::sink)?;
        let mut resets = Vec::new();
        for topic in topics {
            let topic_id = self.topic_id(topic).await?;
            for committed in self.offsets.committed(topic).await.map_err(source)? {
                if partition.is_some_and(|p| p != committed.partition) {
                    continue;
                }
                let is_broken = |b: &&BrokenLedger| {
                    b.topic == topic && b.partition == Some(committed.partition) && b.is_of(topic_id)
                };
                if let Some(broken) = ledgers.broken.iter().find(is_broken) {
                    return Err(Error::sink(broken.to_error()));
                }
                let ledger = ledgers.whole.iter().find(|l| {
                    l.id.topic == topic && l.id.topic_id == topic_id && l.id.partition == committed.partition
                });
                resets.extend(self.reset_of(config, topic, topic_id, committed, ledger).await?);
            }
        }
        Ok(resets)
    }

    async fn reset_of(
        &self,
        config: &SinkConfig,
        topic: &str,
        topic_id: [u8; 16],
        committed: GroupOffset,
        ledger: Option<&LedgerRef>,
    ) -> Result<Option<Reset>, Error> {
        let id = gristmill_sinks::PartitionId {
            pipeline: self.pipeline.clone(),
            cluster: ledger.map_or_else(String::new, |l| l.id.cluster.clone()),
            topic: topic.to_owned(),
            topic_id,
            partition: committed.partition,
        };
        let author = Author::of(committed.metadata.as_deref(), &id);
        let ours = author == Author::Ours;
        let from = committed.offset;
        let (to, metadata) = match ledger {
            Some(_) => match gristmill_sinks::ledger_end(config, &id).await.map_err(Error::sink)? {
                Some(end) if end.next == from && ours => return Ok(None),
                Some(end) => (end.next, Some(mark(&id))),
                None => return Ok(None),
            },
            // What stops a start without a ledger.
            None => match author {
                Author::Ours | Author::Other(_) => (from, Some(begin_mark(&id))),
                _ => return Ok(None),
            },
        };
        Ok(Some(Reset {
            topic: topic.to_owned(),
            partition: committed.partition,
            from,
            ours,
            to,
            ledger: ledger.cloned(),
            metadata,
        }))
    }

    /// Sets the offsets, topic by topic. Kafka takes it only while no process of the pipeline is a member.
    ///
    /// # Errors
    /// [`ErrorKind::Source`]; of several topics, those before the one that it names are done.
    pub async fn reset(&self, resets: &[Reset]) -> Result<(), Error> {
        let mut topics: Vec<&str> = resets.iter().map(|r| r.topic.as_str()).collect();
        topics.dedup();
        for topic in topics {
            let offsets = resets.iter().filter(|r| r.topic == topic).map(|r| GroupOffset {
                partition: r.partition,
                offset: r.to,
                metadata: r.metadata.clone(),
            });
            self.offsets.set(topic, offsets.collect()).await.map_err(source)?;
        }
        Ok(())
    }
}

fn source(error: gristmill::Error) -> Error {
    Error::new(ErrorKind::Source, error.to_string())
}
