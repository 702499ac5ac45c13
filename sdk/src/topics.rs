use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::native::{Client, Partitions, Role};
use crate::{ConsumerConfig, Error, ErrorKind, Result};

/// Answers questions about topics, without being a member of a group: which partitions there are, where they
/// begin and end, and which offset a time has.
///
/// What is visible follows from the configuration's isolation, as for a consumer. Futures may be dropped; a
/// question that was asked is then answered to nobody. They need a tokio runtime, whose blocking threads wait.
pub struct Topics {
    client: Arc<Client>,
    wait: Duration,
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").finish_non_exhaustive()
    }
}

/// The offsets that a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The earliest offset that is still there.
    pub earliest: i64,
    /// The offset of the next record; with [`Isolation::ReadCommitted`](crate::Isolation::ReadCommitted) the
    /// last stable offset, behind which transactions are open.
    pub end: i64,
}

impl Topics {
    /// A client with the connection settings of a consumer. Returns before a broker has answered.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if librdkafka refuses the settings.
    pub fn connect(config: &ConsumerConfig) -> Result<Topics> {
        let client = Arc::new(Client::new(Role::Consumer, &config.to_conf())?);
        Ok(Topics { client, wait: config.lookup_timeout() })
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] if no broker has told it within the configuration's `lookup_timeout`.
    pub async fn cluster_id(&self) -> Result<String> {
        self.ask(|client, wait| client.cluster_id(wait)).await
    }

    /// The topic's id; see [`Consumer::topic_id`](crate::Consumer::topic_id).
    ///
    /// # Errors
    /// As there.
    pub async fn topic_id(&self, topic: &str) -> Result<[u8; 16]> {
        let topic = topic.to_owned();
        self.ask(move |client, wait| client.topic_id(&topic, wait)).await
    }

    /// How many partitions a topic has, as far as the broker that is asked knows.
    ///
    /// # Errors
    /// As [`extents`](Self::extents).
    pub async fn partitions(&self, topic: &str) -> Result<i32> {
        let topic = topic.to_owned();
        self.ask(move |client, wait| client.partition_count(&topic, wait)).await
    }

    /// Where each partition of a topic begins and ends now, by partition number.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::TimedOut`] and others that are retryable.
    pub async fn extents(&self, topic: &str) -> Result<Vec<Extent>> {
        let topic = topic.to_owned();
        self.ask(move |client, wait| {
            (0..client.partition_count(&topic, wait)?)
                .map(|partition| {
                    let (earliest, end) = client.watermarks(&topic, partition, wait)?;
                    Ok(Extent { earliest, end })
                })
                .collect()
        })
        .await
    }

    /// For each of the partitions `0..partitions` of a topic: the offset of its first record whose timestamp is
    /// `timestamp` (milliseconds since the Unix epoch) or later, or `None` if there is none.
    ///
    /// Timestamps need not rise with offsets: records behind that offset may be older. Records that retention
    /// has removed are not found.
    ///
    /// # Errors
    /// As [`extents`](Self::extents).
    pub async fn offsets_at(&self, topic: &str, partitions: i32, timestamp: i64) -> Result<Vec<Option<i64>>> {
        let topic = topic.to_owned();
        self.ask(move |client, wait| {
            let mut list = Partitions::new();
            for partition in 0..partitions {
                list.add(&topic, partition, timestamp);
            }
            let found = client.offsets_for_times(&list, wait)?;
            let offset_of = |partition| {
                let entry = found.iter().find(|e| e.partition == partition)?;
                (entry.offset >= 0).then_some(entry.offset)
            };
            Ok((0..partitions).map(offset_of).collect())
        })
        .await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Arc<Client>, Duration) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (client, wait) = (self.client.clone(), self.wait);
        tokio::task::spawn_blocking(move || question(&client, wait)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Closed, "ask about a topic", "the runtime was shut down"))
        })
    }
}
