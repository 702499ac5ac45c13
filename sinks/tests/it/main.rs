//! The sink against real folders, and the protocol against a model checker.

mod audit;
mod directories;
mod exactly_once;
mod files;
mod folder;
mod memory;
mod model;
mod random_runs;
mod topic;
