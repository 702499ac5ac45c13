//! The SDK against librdkafka's mock cluster.

mod consumer;
mod schema_registry;
