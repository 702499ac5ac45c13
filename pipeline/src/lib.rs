//! A pipeline file, checked and run: Kafka topics, through a sandboxed transform, into files, exactly once.
//!
//! - [`check`] reads a file and reports every mistake at once; [`schema`] is its JSON Schema.
//! - [`test`] runs a file's test cases through its transform and decoder.
//! - [`Pipeline`] runs it.
//!
//! The parts come from `gristmill` (Kafka), `gristmill-smt` (the sandbox), `gristmill-codec` (columns) and
//! `gristmill-sinks` (ledger and files); this crate is where they meet.
#![deny(missing_docs)]

mod check;
mod dead_letter_topic;
mod document;
mod error;
mod file;
mod metrics;
mod partition;
mod place;
mod prepare;
mod quantity;
mod run;
mod secret;
mod shared;
mod stages;
mod status;
mod test_case;

pub use check::{Checked, check, schema};
pub use document::{Problem, Problems};
pub use error::{Error, ErrorKind};
pub use file::*;
pub use metrics::{GuestLabels, Metrics, RejectLabels};
pub use place::check_buckets;
pub use prepare::{check_components, ledger_of};
pub use quantity::{ByteSize, TimeSpan};
pub use run::{Ended, Pipeline, Stop};
pub use secret::Reference;
pub use test_case::{TestReport, test};
