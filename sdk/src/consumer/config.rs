use std::fmt;
use std::time::Duration;

use crate::native::Conf;
use crate::properties::Properties;
use crate::{Error, ErrorKind, Result};

/// Where a partition begins for which the group has no committed offset.
///
/// It speaks of the group's **first** start on a topic. Once the group has committed an offset for any
/// partition of it, a partition without one is taken as having appeared since, and begins at its earliest
/// offset whatever is set here: otherwise records written before the client learned of the partition would
/// be skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// There must be a committed offset: without one, [`BeginAt::Group`](crate::BeginAt::Group) starts at the
    /// earliest offset on a later partition, and is an error on the first start.
    Committed,
    /// At the earliest offset.
    #[default]
    Earliest,
    /// At the end as it is at the assignment. That offset is committed at once, so that a crash before the
    /// first completed record does not skip what was written meanwhile.
    Latest,
}

/// How classic group members share partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Every rebalance revokes everything.
    Range,
    /// Only what moves is revoked.
    CooperativeSticky,
}

/// The protocol between group member and coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The protocol that every broker speaks; members compute the assignment.
    Classic(Assignor),
    /// KIP-848 (`group.protocol=consumer`, Kafka 4.0): the coordinator computes it, nobody stops.
    Consumer,
}

/// Which records of transactions are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Only those of committed transactions, and those outside transactions.
    #[default]
    ReadCommitted,
    /// All, also aborted ones.
    ReadUncommitted,
}

/// Whether the cluster is asked for topic ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicIds {
    /// Asked at each assignment; an assignment is announced only when the ids are known.
    #[default]
    Describe,
    /// Not asked, and [`AssignedPartition::topic_id`](crate::AssignedPartition::topic_id) is `None`: for
    /// clusters that have none, as the embedded mock cluster. A re-created topic then goes unnoticed.
    NotAvailable,
}

/// The settings of a [`Consumer`](crate::Consumer), checked as a whole.
///
/// # Memory
/// `memory_budget` is divided by `expected_partitions`. Of a partition's share, a quarter may lie prefetched in
/// librdkafka (`queued.max.messages.kbytes`, which counts per partition here), and one fetch response may add an
/// eighth to that (`fetch.message.max.bytes`). When less than a quarter waits in its
/// [`PartitionStream`](crate::PartitionStream), all that is prefetched moves there. Together:
/// `(1/4 + 1/8) + (1/4 + 1/4 + 1/8) = 1`. Brokers never split a producer's batch: one that is larger than an
/// eighth passes whole, and adds its size. What the caller holds
/// is the caller's. With more partitions than expected the total rises in proportion.
#[derive(Clone)]
pub struct ConsumerConfig {
    pub(super) bootstrap_servers: String,
    pub(super) group_id: String,
    pub(super) topics: Vec<String>,
    pub(super) start: Start,
    pub(super) protocol: GroupProtocol,
    pub(super) isolation: Isolation,
    pub(super) topic_ids: TopicIds,
    pub(super) memory_budget: usize,
    pub(super) expected_partitions: usize,
    pub(super) batch_bytes: usize,
    pub(super) batch_records: usize,
    pub(super) commit_interval: Duration,
    pub(super) lookup_timeout: Duration,
    pub(super) session_timeout: Option<Duration>,
    pub(super) client_id: String,
    pub(super) properties: Properties,
}

impl fmt::Debug for ConsumerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group_id", &self.group_id)
            .field("topics", &self.topics)
            .field("start", &self.start)
            .field("protocol", &self.protocol)
            .field("memory_budget", &self.memory_budget)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

/// Properties that are set by the consumer itself, and why.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use bootstrap_servers(..)"),
    ("metadata.broker.list", "use bootstrap_servers(..)"),
    ("group.id", "use group_id(..)"),
    ("group.protocol", "use group_protocol(..)"),
    ("partition.assignment.strategy", "use group_protocol(..)"),
    ("session.timeout.ms", "use session_timeout(..)"),
    ("client.id", "use client_id(..)"),
    ("isolation.level", "use isolation(..)"),
    ("auto.offset.reset", "a lost position is always an error; use start(..) for the first start"),
    ("enable.auto.commit", "offsets are committed when deliveries are completed"),
    ("auto.commit.interval.ms", "use commit_interval(..)"),
    ("enable.auto.offset.store", "offsets are committed when deliveries are completed"),
    ("enable.partition.eof", "the end of a partition is part of the position"),
    ("queued.max.messages.kbytes", "use memory_budget(..)"),
    ("queued.min.messages", "use memory_budget(..)"),
    ("fetch.message.max.bytes", "use memory_budget(..)"),
    ("max.partition.fetch.bytes", "use memory_budget(..)"),
    ("fetch.max.bytes", "use memory_budget(..)"),
    ("log.queue", "logs go to `tracing`"),
    ("test.mock.num.brokers", "use the mock cluster of this crate"),
];

impl ConsumerConfig {
    /// Starts with the defaults: `Start::Earliest`, KIP-848 off (`Classic(CooperativeSticky)`),
    /// read-committed, 128 MiB for 16 partitions, batches of at most 512 KiB or 1,000 records, a commit every
    /// 500 ms at most.
    pub fn builder() -> ConsumerConfigBuilder {
        ConsumerConfigBuilder {
            config: ConsumerConfig {
                bootstrap_servers: String::new(),
                group_id: String::new(),
                topics: Vec::new(),
                start: Start::default(),
                protocol: GroupProtocol::Classic(Assignor::CooperativeSticky),
                isolation: Isolation::default(),
                topic_ids: TopicIds::default(),
                memory_budget: 128 << 20,
                expected_partitions: 16,
                batch_bytes: 512 << 10,
                batch_records: 1000,
                commit_interval: Duration::from_millis(500),
                lookup_timeout: Duration::from_secs(5),
                session_timeout: None,
                client_id: "gristmill".into(),
                properties: Properties::default(),
            },
        }
    }

    fn share(&self) -> usize {
        self.memory_budget / self.expected_partitions.max(1)
    }

    /// A partition's stream is filled again when less than this waits in it.
    pub(super) fn refill_below(&self) -> usize {
        self.share() / 4
    }

    pub(crate) fn group(&self) -> &str {
        &self.group_id
    }

    pub(crate) fn lookup_timeout(&self) -> Duration {
        self.lookup_timeout
    }

    pub(crate) fn to_conf(&self) -> Conf {
        let mut conf = Conf::default();
        // What a person may replace comes first.
        conf.set("fetch.queue.backoff.ms", "10")
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "5000")
            .set("topic.metadata.refresh.interval.ms", "60000")
            .set("allow.auto.create.topics", "false");
        for (key, value) in self.properties.iter() {
            conf.set(key, value);
        }
        let fetch = (self.share() / 8).clamp(1024, 1 << 30);
        conf.set("bootstrap.servers", &self.bootstrap_servers)
            .set("group.id", &self.group_id)
            .set("client.id", &self.client_id)
            .set(
                "isolation.level",
                match self.isolation {
                    Isolation::ReadCommitted => "read_committed",
                    Isolation::ReadUncommitted => "read_uncommitted",
                },
            )
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            // The count must not stop a partition before its bytes do.
            .set("queued.min.messages", "10000000")
            .set("queued.max.messages.kbytes", (self.share() / 4 / 1024).clamp(1, 2_097_151).to_string())
            .set("fetch.message.max.bytes", fetch.to_string())
            .set("fetch.max.bytes", (self.memory_budget / 4).clamp(fetch.max(1 << 20), 1 << 30).to_string());
        match self.protocol {
            GroupProtocol::Classic(assignor) => {
                conf.set("group.protocol", "classic").set(
                    "partition.assignment.strategy",
                    match assignor {
                        Assignor::Range => "range",
                        Assignor::CooperativeSticky => "cooperative-sticky",
                    },
                );
                if let Some(timeout) = self.session_timeout {
                    conf.set("session.timeout.ms", timeout.as_millis().to_string());
                }
            }
            GroupProtocol::Consumer => {
                conf.set("group.protocol", "consumer");
            }
        }
        conf
    }
}

/// Builds a [`ConsumerConfig`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ConsumerConfigBuilder {
    config: ConsumerConfig,
}

impl ConsumerConfigBuilder {
    /// Brokers to begin with, as `host:port,host:port`. Required.
    pub fn bootstrap_servers(mut self, servers: impl Into<String>) -> Self {
        self.config.bootstrap_servers = servers.into();
        self
    }

    /// The consumer group. Required.
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.config.group_id = group.into();
        self
    }

    /// The topics; a name that begins with `^` is a regular expression. Required.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.config.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// Where partitions without a committed offset begin. Default: [`Start::Earliest`].
    pub fn start(mut self, start: Start) -> Self {
        self.config.start = start;
        self
    }

    /// Default: classic with the cooperative-sticky assignor.
    pub fn group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.config.protocol = protocol;
        self
    }

    /// Default: [`Isolation::ReadCommitted`].
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.config.isolation = isolation;
        self
    }

    /// Default: [`TopicIds::Describe`].
    pub fn topic_ids(mut self, topic_ids: TopicIds) -> Self {
        self.config.topic_ids = topic_ids;
        self
    }

    /// Bytes for all prefetched and waiting records; see [`ConsumerConfig`]. Default: 128 MiB.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.config.memory_budget = bytes;
        self
    }

    /// How many partitions this member is expected to own at once. Default: 16.
    pub fn expected_partitions(mut self, partitions: usize) -> Self {
        self.config.expected_partitions = partitions;
        self
    }

    /// A batch is closed when its record content reaches this many bytes. Default: 512 KiB.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.config.batch_bytes = bytes;
        self
    }

    /// A batch is closed when it has this many records. Default: 1,000.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.config.batch_records = records;
        self
    }

    /// Least time between two commits; completions between them become one. Default: 500 ms.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.config.commit_interval = interval;
        self
    }

    /// Longest wait for one question to the cluster (offsets, topic ids). Default: 5 s.
    pub fn lookup_timeout(mut self, timeout: Duration) -> Self {
        self.config.lookup_timeout = timeout;
        self
    }

    /// After how long without a heartbeat a classic member is expelled. Default: librdkafka's 45 s. With
    /// [`GroupProtocol::Consumer`] the broker sets it.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.config.session_timeout = Some(timeout);
        self
    }

    /// The name that the broker's logs and quotas use. Default: `gristmill`.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.config.client_id = id.into();
        self
    }

    /// Sets a property of librdkafka: security, timeouts, `debug`. Those that the consumer owns are refused.
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.properties.set(key.into(), value.into());
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with every contradiction as a sentence.
    pub fn build(self) -> Result<ConsumerConfig> {
        let c = self.config;
        let mut wrong = c.properties.refuse(OWNED);
        let mut refuse = |condition: bool, sentence: &str| {
            if condition {
                wrong.push(sentence.to_owned());
            }
        };
        refuse(c.bootstrap_servers.is_empty(), "bootstrap_servers is missing");
        refuse(c.group_id.is_empty(), "group_id is missing");
        refuse(c.topics.is_empty(), "topics is empty");
        refuse(
            c.topics.iter().any(|t| t.is_empty() || t.contains('\0')),
            "a topic has no name, or a NUL byte in it",
        );
        refuse(c.expected_partitions == 0, "expected_partitions must be at least 1");
        refuse(
            c.batch_records == 0 || c.batch_bytes == 0,
            "batch_records and batch_bytes must be at least 1",
        );
        refuse(
            c.share() < 64 << 10,
            "memory_budget leaves a partition less than 64 KiB: raise it, or lower expected_partitions",
        );
        refuse(
            c.session_timeout.is_some() && c.protocol == GroupProtocol::Consumer,
            "session_timeout is set by the broker with the consumer group protocol: leave it out",
        );
        refuse(c.lookup_timeout.is_zero(), "lookup_timeout must be above zero");
        if wrong.is_empty() {
            wrong = c.to_conf().problems();
        }
        if wrong.is_empty() {
            Ok(c)
        } else {
            Err(Error::new(ErrorKind::InvalidConfig, "configure the consumer", wrong.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> ConsumerConfigBuilder {
        ConsumerConfig::builder().bootstrap_servers("localhost:9092").group_id("g").topics(["t"])
    }

    #[test]
    fn every_contradiction_is_told_at_once() {
        let error = ConsumerConfig::builder()
            .expected_partitions(0)
            .property("enable.auto.commit", "true")
            .build()
            .expect_err("nothing is set");
        let text = error.to_string();
        for part in
            ["bootstrap_servers is missing", "group_id is missing", "topics is empty", "enable.auto.commit"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn an_unknown_property_is_named() {
        let text = valid().property("no.such.thing", "1").build().expect_err("unknown").to_string();
        assert!(text.contains("no.such.thing"), "{text}");
    }

    #[test]
    fn secrets_are_neither_in_debug_nor_in_errors() {
        let config = valid().property("sasl.password", "hunter2").build().expect("valid");
        assert!(!format!("{config:?}").contains("hunter2"));
        let error = valid().property("ssl.key.pem", "hunter2\0").build().expect_err("a NUL byte");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[test]
    fn the_budget_is_shared_between_partitions() {
        let config = valid().memory_budget(64 << 20).expected_partitions(8).build().expect("valid");
        assert_eq!(config.share(), 8 << 20);
        assert_eq!(config.refill_below(), 2 << 20);
    }
}
