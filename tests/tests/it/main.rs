//! End-to-end tests against a real Apache Kafka.

mod audit;
mod bad_days;
mod bigquery;
mod bigquery_changes;
mod dead_letters;
mod exits;
mod faults;
mod group_reader;
mod readers;
mod reload;
mod replay;
mod rolling;
mod schema_change;
mod sdk;
mod sdk_failures;
mod sdk_rebalance;
mod service;
mod workbench;
mod writer_schemas;
