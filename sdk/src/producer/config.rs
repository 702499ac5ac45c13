use std::fmt;
use std::time::Duration;

use crate::native::Conf;
use crate::properties::Properties;
use crate::{Error, ErrorKind, Result};

/// How batches of records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast, and good enough for most.
    Lz4,
    /// Smaller, for more CPU.
    Zstd,
}

/// The settings of a [`Producer`](crate::Producer), checked as a whole.
#[derive(Clone)]
pub struct ProducerConfig {
    bootstrap_servers: String,
    client_id: String,
    linger: Duration,
    compression: Compression,
    delivery_timeout: Duration,
    max_buffered_bytes: usize,
    max_buffered_records: usize,
    properties: Properties,
}

impl fmt::Debug for ProducerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("linger", &self.linger)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("max_buffered_bytes", &self.max_buffered_bytes)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

/// Properties that are set by the producer itself, and why.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use bootstrap_servers(..)"),
    ("metadata.broker.list", "use bootstrap_servers(..)"),
    ("client.id", "use client_id(..)"),
    ("enable.idempotence", "the producer is always idempotent"),
    ("acks", "a record is reported only when all in-sync replicas have it"),
    ("request.required.acks", "a record is reported only when all in-sync replicas have it"),
    ("transactional.id", "this producer has no transactions"),
    ("linger.ms", "use linger(..)"),
    ("queue.buffering.max.ms", "use linger(..)"),
    ("compression.type", "use compression(..)"),
    ("compression.codec", "use compression(..)"),
    ("delivery.timeout.ms", "use delivery_timeout(..)"),
    ("message.timeout.ms", "use delivery_timeout(..)"),
    ("queue.buffering.max.kbytes", "use max_buffered_bytes(..)"),
    ("queue.buffering.max.messages", "use max_buffered_records(..)"),
    ("delivery.report.only.error", "every record gets its report"),
    ("log.queue", "logs go to `tracing`"),
    ("test.mock.num.brokers", "use the mock cluster of this crate"),
];

impl ProducerConfig {
    /// Starts with the defaults: 5 ms linger, LZ4, two minutes to deliver, 64 MiB or 100,000 records buffered.
    pub fn builder() -> ProducerConfigBuilder {
        ProducerConfigBuilder {
            config: ProducerConfig {
                bootstrap_servers: String::new(),
                client_id: "gristmill".into(),
                linger: Duration::from_millis(5),
                compression: Compression::Lz4,
                delivery_timeout: Duration::from_secs(120),
                max_buffered_bytes: 64 << 20,
                max_buffered_records: 100_000,
                properties: Properties::default(),
            },
        }
    }

    pub(super) fn to_conf(&self) -> Conf {
        let mut conf = Conf::default();
        conf.set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "5000")
            // The same as Kafka's own clients, so that a key goes to the same partition from everywhere.
            .set("partitioner", "murmur2_random");
        for (key, value) in self.properties.iter() {
            conf.set(key, value);
        }
        conf.set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", &self.client_id)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", self.linger.as_millis().to_string())
            .set(
                "compression.type",
                match self.compression {
                    Compression::None => "none",
                    Compression::Lz4 => "lz4",
                    Compression::Zstd => "zstd",
                },
            )
            .set("message.timeout.ms", self.delivery_timeout.as_millis().to_string())
            .set(
                "queue.buffering.max.kbytes",
                (self.max_buffered_bytes / 1024).clamp(1, 2_147_483_647).to_string(),
            )
            .set(
                "queue.buffering.max.messages",
                self.max_buffered_records.clamp(1, 2_147_483_647).to_string(),
            );
        conf
    }
}

/// Builds a [`ProducerConfig`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ProducerConfigBuilder {
    config: ProducerConfig,
}

impl ProducerConfigBuilder {
    /// Brokers to begin with, as `host:port,host:port`. Required.
    pub fn bootstrap_servers(mut self, servers: impl Into<String>) -> Self {
        self.config.bootstrap_servers = servers.into();
        self
    }

    /// The name that the broker's logs and quotas use. Default: `gristmill`.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.config.client_id = id.into();
        self
    }

    /// How long a record may wait for others to share a request with. Default: 5 ms.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// Default: [`Compression::Lz4`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// After how long a record that could not be delivered is reported as failed. Default: two minutes. Zero
    /// is refused: it would mean for ever.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.delivery_timeout = timeout;
        self
    }

    /// Bytes that may wait to be sent; beyond that, sending waits. Default: 64 MiB.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.config.max_buffered_bytes = bytes;
        self
    }

    /// Records that may wait to be sent; beyond that, sending waits. Default: 100,000.
    pub fn max_buffered_records(mut self, records: usize) -> Self {
        self.config.max_buffered_records = records;
        self
    }

    /// Sets a property of librdkafka: security, timeouts, `debug`. Those that the producer owns are refused.
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.properties.set(key.into(), value.into());
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with every contradiction as a sentence.
    pub fn build(self) -> Result<ProducerConfig> {
        let c = self.config;
        let mut wrong = c.properties.refuse(OWNED);
        if c.bootstrap_servers.is_empty() {
            wrong.push("bootstrap_servers is missing".into());
        }
        if c.delivery_timeout < Duration::from_millis(1) {
            wrong.push("delivery_timeout must be at least 1 ms".into());
        }
        if c.delivery_timeout <= c.linger {
            wrong.push("delivery_timeout must be longer than linger".into());
        }
        if wrong.is_empty() {
            wrong = c.to_conf().problems();
        }
        if wrong.is_empty() {
            Ok(c)
        } else {
            Err(Error::new(ErrorKind::InvalidConfig, "configure the producer", wrong.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_in_debug() {
        let builder = ProducerConfig::builder().bootstrap_servers("b:1").property("sasl.password", "hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
        assert!(!format!("{:?}", builder.build().expect("valid")).contains("hunter2"));
    }

    #[test]
    fn weaker_acknowledgement_is_refused() {
        let error = ProducerConfig::builder().bootstrap_servers("b:1").property("acks", "1").build();
        let text = error.expect_err("acks is ours").to_string();
        assert!(text.contains("acks"), "{text}");
    }
}
