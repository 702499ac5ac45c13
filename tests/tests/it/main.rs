//! End-to-end tests against a real Apache Kafka.

mod faults;
mod readers;
mod sdk;
mod sdk_failures;
mod sdk_rebalance;
mod service;
