//! The SDK against librdkafka's mock cluster and the embedded registry.

mod consumer;
mod producer;
mod schema_registry;
