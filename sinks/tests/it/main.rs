//! The sink against real folders, and the protocol against a model checker.

mod emulator;
mod exactly_once;
mod fake_gcs;
mod files;
mod folder;
mod memory;
mod model;
mod random_runs;
mod topic;
