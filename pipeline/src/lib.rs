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
mod commands;
mod dead_letter_topic;
mod dlq;
mod document;
mod epochs;
mod error;
mod exits;
mod file;
mod follow;
mod group;
mod group_offset;
mod metrics;
mod partition;
mod peek;
mod place;
mod plan;
mod predicate;
mod prepare;
mod quantity;
mod reload;
mod replay;
mod run;
mod secret;
mod shared;
mod stages;
mod start;
mod status;
mod test_case;
mod value_decoder;
mod value_encoder;

pub use check::{Checked, check, check_source, schema};
pub use commands::{Commands, quoted, shell_word};
pub use dlq::{Letter, LetterFilter, LetterState, Retried, check_retry, dead_letters, retry_dead_letters};
pub use document::{Problem, Problems};
pub use error::{Error, ErrorKind};
pub use file::*;
pub use group::{Group, Reset};
pub use metrics::{GuestLabels, Metrics, RejectLabels};
pub use peek::{Peek, PeekRange};
pub use place::check_buckets;
pub use plan::{Plan, PlannedPartition, PlannedTable, QuotaUse, plan};
pub use prepare::{check_components, ledger_of, ledger_to_change};
pub use quantity::{ByteSize, TimeSpan};
pub use replay::{PartitionProgress, ReplayName, ReplayProgress, ReplayRequest, When};
pub use run::{Ended, Pipeline, Stop};
pub use secret::Reference;
pub use stages::KAFKA_COLUMNS;
pub use test_case::{TestReport, test};
pub use value_decoder::{ColumnsSchema, DecodedRecords, UndecodableRecord, ValueDecoder, ValueFormat};
pub use value_encoder::{ValueEncoder, WriteFormat, WriteSchema};
