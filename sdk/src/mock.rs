use std::fmt;
use std::time::Duration;

use crate::native::NativeMock;
use crate::{Error, ErrorKind, Result};

/// librdkafka's mock cluster, in this process and on loopback ports, for tests and demonstrations.
///
/// It knows producing (idempotent too), groups of both protocols, and committed offsets. It does **not** know
/// transactions (calls succeed, nothing is isolated), topic ids (use
/// [`TopicIds::NotAvailable`](crate::TopicIds::NotAvailable)) or creating topics by protocol, and each partition
/// **silently drops what is older than 5 MiB**. The first member of a classic group waits 3 s for others unless
/// [`set_group_rebalance_delay`](Self::set_group_rebalance_delay) says otherwise.
///
/// Dropping it stops the brokers; clients that still run see connections fail.
pub struct MockCluster {
    native: NativeMock,
    brokers: i32,
}

impl fmt::Debug for MockCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockCluster")
            .field("bootstrap_servers", &self.bootstrap_servers())
            .finish_non_exhaustive()
    }
}

/// A kind of request, for [`MockCluster::fail_next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MockRequest {
    /// Records from a producer.
    Produce,
    /// Records for a consumer.
    Fetch,
    /// A commit.
    OffsetCommit,
    /// A question for committed offsets.
    OffsetFetch,
}

impl MockCluster {
    /// Starts `brokers` brokers, named 1, 2, ...
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] below one broker; [`ErrorKind::Other`] if no port can be opened.
    pub fn start(brokers: i32) -> Result<Self> {
        if brokers < 1 {
            let text = format!("{brokers} brokers make no cluster");
            return Err(Error::new(ErrorKind::InvalidArgument, "start the mock cluster", text));
        }
        Ok(MockCluster { native: NativeMock::new(brokers)?, brokers })
    }

    /// Where clients connect to.
    pub fn bootstrap_servers(&self) -> String {
        self.native.bootstrap()
    }

    /// Creates a topic, replicated to all brokers.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if it exists already.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.native.create_topic(topic, partitions, self.brokers)
    }

    /// Answers the next requests of a kind with these error codes of Kafka, one each; 0 is no error.
    pub fn fail_next(&self, request: MockRequest, codes: &[i32]) {
        let api_key = match request {
            MockRequest::Produce => 0,
            MockRequest::Fetch => 1,
            MockRequest::OffsetCommit => 8,
            MockRequest::OffsetFetch => 9,
        };
        self.native.fail_next(api_key, codes);
    }

    /// Cuts a broker off, or brings it back.
    ///
    /// # Errors
    /// If there is no such broker.
    pub fn set_broker_up(&self, broker: i32, up: bool) -> Result<()> {
        self.native.set_broker_up(broker, up)
    }

    /// Delays every answer of a broker.
    ///
    /// # Errors
    /// If there is no such broker.
    pub fn set_round_trip(&self, broker: i32, time: Duration) -> Result<()> {
        self.native.set_round_trip(broker, time)
    }

    /// Makes a broker the leader of a partition.
    ///
    /// # Errors
    /// If there is no such partition or broker.
    pub fn set_leader(&self, topic: &str, partition: i32, broker: i32) -> Result<()> {
        self.native.set_leader(topic, partition, broker)
    }

    /// Makes a broker the coordinator of a group.
    ///
    /// # Errors
    /// If there is no such broker.
    pub fn set_group_coordinator(&self, group: &str, broker: i32) -> Result<()> {
        self.native.set_group_coordinator(group, broker)
    }

    /// How long the first member of a classic group waits for others; 3 s if not set.
    pub fn set_group_rebalance_delay(&self, delay: Duration) {
        self.native.set_group_rebalance_delay(delay);
    }
}
