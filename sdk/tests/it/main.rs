//! The SDK against librdkafka's mock cluster and the embedded registry.

mod consumer;
mod consumer_start;
mod group_offsets;
mod group_reader;
mod producer;
mod schema_registry;
