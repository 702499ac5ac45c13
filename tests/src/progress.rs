//! How far a group has come, as the brokers tell it.

use std::time::Duration;

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

    /// What a group has committed for each partition; -1 for nothing.
    pub fn committed_offsets(&self, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = self.watcher(group).committed_offsets(list, WAIT).expect("the cluster answers");
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
