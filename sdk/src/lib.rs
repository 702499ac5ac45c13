//! Kafka client SDK: a consumer that neither loses nor repeats records while it owns a partition, an
//! idempotent producer, and an in-process mock cluster for tests.
//!
//! ```no_run
//! use std::time::Duration;
//! use gristmill::{BeginAt, Consumer, ConsumerConfig, ConsumerEvent};
//!
//! # async fn run() -> gristmill::Result<()> {
//! let config = ConsumerConfig::builder()
//!     .bootstrap_servers("localhost:9092")
//!     .group_id("billing")
//!     .topics(["orders"])
//!     .build()?;
//! let consumer = Consumer::start(config)?;
//! while let Some(event) = consumer.next_event().await {
//!     match event {
//!         ConsumerEvent::Assigned(partitions) => {
//!             for partition in partitions {
//!                 let mut stream = partition.begin(BeginAt::Group);
//!                 tokio::spawn(async move {
//!                     while let Some(delivery) = stream.next().await {
//!                         for record in delivery.batch.iter() {
//!                             println!("{} bytes", record.value().map_or(0, <[u8]>::len));
//!                         }
//!                         stream.complete(delivery.token);
//!                     }
//!                 });
//!             }
//!         }
//!         ConsumerEvent::Error(error) if error.is_fatal() => return Err(error),
//!         ConsumerEvent::Error(error) => eprintln!("{error}"),
//!         _ => {} // streams end by themselves when their partition goes
//!     }
//! }
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

mod consumer;
mod error;
mod group_offsets;
mod group_reader;
#[cfg(feature = "mock")]
mod mock;
mod native;
mod offsets;
mod producer;
mod properties;
mod range;
mod schema_registry;
mod topics;

pub use consumer::{
    AssignedPartition, Assignor, BeginAt, Consumer, ConsumerConfig, ConsumerConfigBuilder, ConsumerEvent,
    Delivery, GroupProtocol, Isolation, PartitionStream, RevokedPartition, Start, TopicIds,
};
pub use error::{Error, ErrorKind, Result};
pub use group_offsets::{GroupOffset, GroupOffsets};
pub use group_reader::{DeadLetterTopic, GroupBatch, GroupReader, Rejection};
#[cfg(feature = "mock")]
pub use mock::{MockCluster, MockRequest};
pub use offsets::{Completion, Token, TopicPartition};
pub use producer::{
    Compression, Delivered, PendingDelivery, Producer, ProducerConfig, ProducerConfigBuilder, ProducerRecord,
    SendReport,
};
pub use range::{PartitionRange, RangeReader};
#[cfg(feature = "mock")]
pub use schema_registry::EmbeddedRegistry;
pub use schema_registry::{
    Compatibility, ReferencedSchema, RegisteredId, RegistryConfig, RegistryConfigBuilder, RegistryError,
    RegistryErrorKind, Schema, SchemaReference, SchemaRegistry, SchemaType,
};
pub use topics::{Extent, Place, Topics};

/// The version of librdkafka that this crate is linked with, such as `2.12.1`.
pub fn librdkafka_version() -> String {
    native::version()
}
