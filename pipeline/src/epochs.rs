//! What orders the changes of a row beyond offsets, which do so within one partition of one topic: a topic that is deleted and
//! created again begins at 0, and more partitions move keys to others.
//!
//! Each time an epoch begins: an object in the state store, created if absent, that says at which offset of each partition. So
//! every process, also one that reads the same records again, gives a record the same number. The numbers are seconds since 1970
//! when they were made, and rise: a pipeline whose state was lost does not fall behind what its table has.
//!
//! The offsets are the partitions' ends when somebody sees that there are more. Kafka tells nobody when that was; so records of before
//! have to be all that the old partitions hold: `docs/bigquery.md` tells operators how.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use gristmill::Topics;
use gristmill_sinks::{PartitionId, SinkConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind};
use crate::stages::changes::{PartitionEpoch, Sequence};

/// How often partitions are counted.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(10);
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    format_version: u32,
    number: u64,
    topic_id: String,
    /// By partition, from which offset on.
    first: Vec<i64>,
}

/// Those of a pipeline.
#[derive(Debug)]
pub(crate) struct Epochs {
    topics: Topics,
    sink: SinkConfig,
    /// The cluster tells no topic ids.
    names_for_ids: bool,
    /// By topic.
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    epochs: Vec<Epoch>,
    /// Of which topic id partitions were counted, and when.
    counted: Option<(String, Instant)>,
}

impl Epochs {
    /// `topics` sees records of transactions that are open: the end of a partition is behind them.
    pub(crate) fn new(topics: Topics, sink: SinkConfig, names_for_ids: bool) -> Self {
        Epochs { topics, sink, names_for_ids, known: Mutex::default() }
    }

    /// What the changes of a partition are numbered by now: as all epochs say that were begun by anybody. One is begun if there are more
    /// partitions than the newest counts, or the topic is another; they are counted unless that was done a moment ago.
    ///
    /// `takes_over`: the partition is about to be read, or another may have written what comes next; then what is known since a
    /// moment ago is not enough.
    pub(crate) async fn of(&self, id: &PartitionId, takes_over: bool) -> Result<Sequence, Error> {
        let mut known = self.known.lock().await;
        let known = known.entry(id.topic.clone()).or_default();
        let topic_id = id.topic_id_text();
        let is_fresh = |(of, at): &(String, Instant)| *of == topic_id && at.elapsed() < LOOK_AGAIN;
        let is_fresh = known.counted.as_ref().is_some_and(is_fresh);
        if takes_over || !is_fresh {
            self.read_newer(&id.topic, &mut known.epochs).await?;
        }
        let is_counted = newest(&known.epochs, &topic_id)
            .is_some_and(|epoch| epoch.first.len() > id.partition.unsigned_abs() as usize);
        if !is_counted || !is_fresh {
            match self.count(&mut known.epochs, id, &topic_id).await {
                Ok(()) => known.counted = Some((topic_id.clone(), Instant::now())),
                // Who adds partitions waits until every member has noticed.
                Err(error) if is_counted => {
                    tracing::warn!(topic = id.topic, %error, "the topic's partitions were not counted")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(numbering(&known.epochs, id, &topic_id))
    }

    async fn read_newer(&self, topic: &str, epochs: &mut Vec<Epoch>) -> Result<(), Error> {
        let (state, prefix) = self.sink.state();
        loop {
            let name = object_name(prefix, topic, epochs.len());
            match state.get(&name).await.map_err(Error::sink)? {
                Some(object) => epochs.push(read(&name, &object.bytes)?),
                None => return Ok(()),
            }
        }
    }

    async fn count(&self, epochs: &mut Vec<Epoch>, id: &PartitionId, topic_id: &str) -> Result<(), Error> {
        let topic = &id.topic;
        let (state, prefix) = self.sink.state();
        loop {
            // What the client counts may lag behind what the group assigns.
            let count = self.topics.partitions(topic).await.map_err(Error::source_at_work)?;
            let count =
                usize::try_from(count).unwrap_or_default().max(id.partition.unsigned_abs() as usize + 1);
            let first = match newest(epochs, topic_id) {
                Some(newest) if newest.first.len() >= count => return Ok(()),
                None => vec![0; count],
                Some(newest) => {
                    let old = newest.first.len();
                    let extents = self.topics.extents(topic).await.map_err(Error::source_at_work)?;
                    let ends = extents.iter().map(|extent| extent.end).take(old);
                    ends.chain(std::iter::repeat(0)).take(count).collect()
                }
            };
            // A topic that was made anew has other partitions, which say nothing of those of the old one.
            if !self.names_for_ids
                && self.topics.topic_id(topic).await.map_err(Error::source_at_work)? != id.topic_id
            {
                return Ok(());
            }
            let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
            let number = epochs.last().map_or(0, |last| last.number + 1).max(now);
            let epoch = Epoch::new(number, topic_id, first);
            tracing::info!(
                topic,
                partitions = count,
                epoch = number,
                "changes from here on come after all that were: the topic is new, or has more partitions"
            );
            let name = object_name(prefix, topic, epochs.len());
            let text = serde_json::to_vec(&epoch).expect("it is plain data");
            // Whoever came first says what it is: it is read in any case.
            state.create_if_absent(&name, text.into()).await.map_err(Error::sink)?;
            self.read_newer(topic, epochs).await?;
        }
    }
}

impl Epoch {
    pub(crate) fn new(number: u64, topic_id: &str, first: Vec<i64>) -> Self {
        Epoch { format_version: FORMAT, number, topic_id: topic_id.to_owned(), first }
    }
}

/// What a partition's changes are numbered by, as far as it is written down. Nobody is asked how many partitions there are.
pub(crate) async fn stored(config: &SinkConfig, id: &PartitionId) -> Result<Sequence, Error> {
    let (state, prefix) = config.state();
    let mut epochs = Vec::new();
    loop {
        let name = object_name(prefix, &id.topic, epochs.len());
        match state.get(&name).await.map_err(Error::sink)? {
            Some(object) => epochs.push(read(&name, &object.bytes)?),
            None => return Ok(numbering(&epochs, id, &id.topic_id_text())),
        }
    }
}

fn object_name(prefix: &str, topic: &str, index: usize) -> String {
    format!("{prefix}/epochs/{topic}/{index:020}.json")
}

fn newest<'a>(epochs: &'a [Epoch], topic_id: &str) -> Option<&'a Epoch> {
    epochs.iter().rev().find(|epoch| epoch.topic_id == topic_id)
}

/// What the changes of a partition are numbered by.
pub(crate) fn numbering(epochs: &[Epoch], id: &PartitionId, topic_id: &str) -> Sequence {
    let partition = id.partition.unsigned_abs() as usize;
    let own = epochs.iter().filter(|epoch| epoch.topic_id == topic_id);
    let of_partition = own.filter_map(|Epoch { number, first, .. }| {
        let partitions = first.len();
        Some(PartitionEpoch { first: *first.get(partition)?, number: *number, partitions })
    });
    Sequence { epochs: of_partition.collect() }
}

fn read(name: &str, bytes: &[u8]) -> Result<Epoch, Error> {
    let wrong = |why: String| Error::new(ErrorKind::Sink, format!("{name} in the state is no epoch: {why}"));
    let epoch: Epoch = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
    match epoch.format_version {
        FORMAT => Ok(epoch),
        other => Err(wrong(format!("it is of version {other}, and this release reads {FORMAT}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64, topic: u8, first: &[i64]) -> Epoch {
        Epoch::new(number, &id(topic, 0).topic_id_text(), first.to_vec())
    }

    fn id(topic: u8, partition: i32) -> PartitionId {
        let (pipeline, cluster) = ("p".to_owned(), "c".to_owned());
        PartitionId { pipeline, cluster, topic: "t".into(), topic_id: [topic; 16], partition }
    }

    /// A record has the newest epoch that begins at or before it; one of another topic counts for none.
    #[test]
    fn epochs_are_those_of_the_topic_and_of_the_partition() {
        let epochs =
            [epoch(10, 1, &[0, 0]), epoch(20, 1, &[700, 9, 0]), epoch(30, 2, &[0]), epoch(40, 2, &[5, 0])];
        let of = |topic, partition| {
            let id = id(topic, partition);
            let epochs = numbering(&epochs, &id, &id.topic_id_text()).epochs;
            epochs.iter().map(|epoch| (epoch.first, epoch.number, epoch.partitions)).collect::<Vec<_>>()
        };
        assert_eq!(of(1, 0), [(0, 10, 2), (700, 20, 3)]);
        assert_eq!(of(1, 2), [(0, 20, 3)]);
        assert_eq!(of(2, 0), [(0, 30, 1), (5, 40, 2)]);
    }

    #[test]
    fn an_object_that_is_no_epoch_is_refused() {
        let later = br#"{"format_version": 2, "number": 1, "topic_id": "", "first": []}"#;
        assert!(read("e", later).unwrap_err().to_string().contains("of version 2"));
        assert!(read("e", b"{}").unwrap_err().to_string().contains("is no epoch"));
        let own = epoch(7, 1, &[3]);
        assert_eq!(read("e", &serde_json::to_vec(&own).unwrap()).unwrap(), own);
    }
}
