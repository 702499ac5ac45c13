//! How to reach Kafka, as Python says it.

use std::collections::BTreeMap;

use gristmill::{ConsumerConfig, ConsumerConfigBuilder, TopicIds};
use pyo3::prelude::*;

/// Brokers, and properties of librdkafka: a tuple of both.
#[derive(FromPyObject)]
pub(crate) struct Kafka(pub(crate) String, pub(crate) BTreeMap<String, String>);

impl Kafka {
    /// Topic ids are not asked for: nothing here depends on them, and not every cluster has them.
    pub(crate) fn consumer(&self, group: &str, topics: &[&str]) -> ConsumerConfigBuilder {
        let config = ConsumerConfig::builder()
            .bootstrap_servers(&self.0)
            .group_id(group)
            .topics(topics.iter().copied())
            .topic_ids(TopicIds::NotAvailable);
        self.1.iter().fold(config, |config, (name, value)| config.property(name, value))
    }
}
