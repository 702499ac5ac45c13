//! The sink against real folders, and the protocol against a model checker.

mod audit;
mod aws_container;
mod bigquery;
mod bigquery_changes;
mod bigquery_tables;
mod budget;
mod credentials;
mod directories;
mod emulator;
mod exactly_once;
mod fake_gcs;
mod fake_tokens;
mod files;
mod folder;
mod format_version;
mod gcs;
mod local_bigquery;
mod memory;
mod model;
mod network;
mod random_runs;
mod recovery;
mod repair;
mod topic;
mod wire;
