//! How far a group has come, as the brokers tell it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::RealKafka;

const WAIT: Duration = Duration::from_secs(30);

impl RealKafka {
    fn watcher(&self, group: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap_servers())
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("the settings are right")
    }

    /// The end of each partition: the offset of the next record.
    ///
    /// # Panics
    /// If the cluster does not answer; so do the other methods.
    pub fn end_offsets(&self, topic: &str, partitions: i32) -> Vec<i64> {
        let watcher = self.watcher("watcher");
        (0..partitions)
            .map(|p| watcher.fetch_watermarks(topic, p, WAIT).expect("the cluster answers").1)
            .collect()
    }

    /// The first offset of each partition whose record is not older than the time, in milliseconds.
    pub fn offsets_at(&self, topic: &str, partitions: i32, time: i64) -> Vec<i64> {
        let watcher = self.watcher("watcher");
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Offset(time)).expect("a valid time");
        }
        let found = watcher.offsets_for_times(list, WAIT).expect("the cluster answers");
        found.elements().iter().map(|e| e.offset().to_raw().unwrap_or(-1)).collect()
    }

    /// What a group has committed for each partition; -1 for nothing.
    pub fn committed_offsets(&self, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let watcher = self.watcher(group);
        let deadline = Instant::now() + WAIT;
        let committed = loop {
            match watcher.committed_offsets(list.clone(), WAIT) {
                Ok(committed) => break committed,
                // A cluster that has just started has no coordinator yet.
                Err(error) => assert!(Instant::now() < deadline, "the cluster does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let offset =
            |e: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| e.offset().to_raw().unwrap_or(-1);
        committed.elements().into_iter().map(|e| offset(e).max(-1)).collect()
    }

    /// Commits an offset of partition 0 for a group without members.
    pub fn commit(&self, group: &str, topic: &str, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("a valid offset");
        self.watcher(group).commit(&list, CommitMode::Sync).expect("the cluster answers");
    }
}
