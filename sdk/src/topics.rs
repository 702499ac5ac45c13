use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::native::{Client, Partitions, Role};
use crate::{ConsumerConfig, Error, ErrorKind, PartitionRange, Result};

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

/// One end of a range that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An offset, the same in every partition.
    Offset(i64),
    /// The first record with this timestamp (milliseconds since the Unix epoch) or a later one.
    Time(i64),
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

    /// The offsets of a topic from one place, which is inside, to another, which is not, by partition; without them from
    /// the earliest record to the end as it is now. Ranges may be empty: nothing at or after a time is the end.
    ///
    /// # Errors
    /// [`ErrorKind::OffsetOutOfRange`] if a partition no longer has the offset that it is to begin at, and those of
    /// [`extents`](Self::extents). A time begins with the earliest record that is left.
    pub async fn ranges(
        &self,
        topic: &str,
        from: Option<Place>,
        to: Option<Place>,
    ) -> Result<Vec<PartitionRange>> {
        let extents = self.extents(topic).await?;
        let from = self.resolve(topic, &extents, from).await?;
        let to = self.resolve(topic, &extents, to).await?;
        let topic: Arc<str> = topic.into();
        let ranges = extents.iter().zip(from.into_iter().zip(to)).zip(0..);
        ranges.map(|((extent, (from, to)), partition)| range(&topic, partition, *extent, from, to)).collect()
    }

    /// The place as an offset of each partition, if one was named.
    async fn resolve(
        &self,
        topic: &str,
        extents: &[Extent],
        place: Option<Place>,
    ) -> Result<Vec<Option<At>>> {
        Ok(match place {
            None => vec![None; extents.len()],
            Some(Place::Offset(offset)) => vec![Some(At::Asked(offset)); extents.len()],
            Some(Place::Time(time)) => {
                let count = i32::try_from(extents.len()).unwrap_or(i32::MAX);
                let found = self.offsets_at(topic, count, time).await?.into_iter().zip(extents);
                found.map(|(offset, extent)| Some(At::Found(offset.unwrap_or(extent.end)))).collect()
            }
        })
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

#[derive(Clone, Copy)]
enum At {
    Asked(i64),
    /// By its time.
    Found(i64),
}

fn range(
    topic: &Arc<str>,
    partition: i32,
    extent: Extent,
    from: Option<At>,
    to: Option<At>,
) -> Result<PartitionRange> {
    let Extent { earliest, end } = extent;
    // Two answers: retention may have come between them.
    let end = end.max(earliest);
    let first = match from {
        Some(At::Asked(offset)) if offset < earliest => {
            let text = format!(
                "its earliest record is {earliest}, retention has removed those before; begin there, or at a time"
            );
            return Err(Error::new(ErrorKind::OffsetOutOfRange, "read a range", text)
                .with_topic(topic.clone())
                .with_partition(partition)
                .with_offset(offset));
        }
        Some(At::Asked(offset) | At::Found(offset)) => offset.clamp(earliest, end),
        None => earliest,
    };
    let last = match to {
        Some(At::Asked(offset) | At::Found(offset)) => offset.min(end),
        None => end,
    };
    Ok(PartitionRange { topic: topic.clone(), partition, first, end: last.max(first) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(extent: (i64, i64), from: Option<At>, to: Option<At>) -> Result<(i64, i64)> {
        let extent = Extent { earliest: extent.0, end: extent.1 };
        range(&"orders".into(), 0, extent, from, to).map(|range| (range.first, range.end))
    }

    #[test]
    fn from_is_inside_to_is_not_and_both_stay_within_what_there_is() {
        use At::{Asked, Found};
        for (from, to, expected) in [
            (None, None, (3, 100)),
            (Some(Asked(10)), Some(Asked(20)), (10, 20)),
            (Some(Asked(500)), None, (100, 100)),
            (Some(Asked(10)), Some(Asked(500)), (10, 100)),
            (Some(Found(2)), Some(Found(9)), (3, 9)),
            (None, Some(Asked(1)), (3, 3)),
            // Timestamps need not rise with offsets.
            (Some(Found(9)), Some(Found(7)), (9, 9)),
        ] {
            assert_eq!(offsets((3, 100), from, to).unwrap(), expected);
        }
    }

    #[test]
    fn an_offset_that_retention_took_is_not_passed_over_in_silence() {
        let error = offsets((40, 100), Some(At::Asked(5)), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
        assert!(
            error.to_string().starts_with("cannot read a range: topic orders, partition 0, offset 5: "),
            "{error}"
        );
        assert!(error.to_string().contains("earliest record is 40"), "{error}");
    }
}
