//! Exactly-once delivery of a Kafka partition to files or to tables of BigQuery: the ledger, object stores, file formats.
//!
//! # The guarantee
//!
//! Every offset of a partition, from the ledger's start on, is covered by exactly one ledger entry, and the
//! files of an entry appear under their final names once and whole. A reader of the final files never sees an
//! overlap, an overwrite, or a file that is not sealed; after a crash, with two owners at once, after a lost
//! reply, with any rotation. A file that a user deletes does not come back.
//!
//! Dead letters are delivered at least once; [`FileDeadLetters`] holds each exactly once.
//!
//! It rests on one operation of the state store, creating an object if there is none, and one of the object
//! store, moving an object if the new name is free: see [`Store`]. The protocol itself is a pure state
//! machine, [`protocol::Machine`]; the tests of this crate explore that very machine with a model checker.
//!
//! # How it is used
//!
//! One [`PartitionSink`] for each assigned partition:
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Instant;
//! # use gristmill_sinks::*;
//! # use arrow_array::{Int64Array, RecordBatch};
//! # async fn example(folder: &std::path::Path, rows: RecordBatch) -> Result<()> {
//! let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder)?);
//! let config = SinkConfig::builder(store)
//!     .prefix("lake")
//!     .directories(DirectoryTemplate::parse("dt=%Y-%m-%d/hour=%H")?)
//!     .build()?;
//! let id = PartitionId {
//!     pipeline: "orders-to-lake".into(),
//!     cluster: "c1".into(),
//!     topic: "orders".into(),
//!     topic_id: [1; 16],
//!     partition: 0,
//! };
//! // Settles what a predecessor left; `next` is where to read on. 0 counts only if there is no ledger yet.
//! let (mut sink, next) = PartitionSink::open(config, id, 0).await?;
//!
//! // For each delivery: count, append rows, reject what failed, then say where the delivery ends.
//! let coords = [RowCoord { offset: next, sub: 0, timestamp: Some(1_704_164_645_123) }];
//! sink.tally(1, 0);
//! sink.append(MAIN_OUTPUT, &rows, &coords).await?;
//! sink.advance(next + 1, Some(0))?;
//!
//! if sink.due(Instant::now()) {
//!     match sink.checkpoint().await? {
//!         Checkpoint::Published(entry) => println!("commit {}", entry.next),
//!         Checkpoint::Adopted { next } => println!("another owner was faster: seek to {next}"),
//!         Checkpoint::Nothing => {}
//!     }
//! }
//! # sink.abandon().await;
//! # Ok(()) }
//! # let dir = tempfile::tempdir().unwrap();
//! # let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
//! # tokio::runtime::Runtime::new().unwrap().block_on(example(dir.path(), rows)).unwrap();
//! ```
//!
//! Rules for the caller: commit only [`Published::next`](Published) (or [`PartitionSink::committable`]); read
//! the topic id again before a checkpoint and drop the sink if it has changed; after an error that is not
//! retryable, or [`ErrorKind::Torn`], drop the sink and open it again.
//!
//! # What lies where
//!
//! ```text
//! {prefix}/{topic}[+{output}]/{dt=..}/{topic}[+{output}]+{incarnation}+{partition}+{first}+{seq}.parquet   final files
//! {state}/ledger/{topic}/{topic id}/{partition}/genesis.json, {first}.json                                 the ledger
//! {state}/staged/{topic}/{topic id}/{partition}/{first}+{attempt}+{seq}                                    staged files
//! {state}/rejects/{topic}/{topic id}/{partition}/{first}+{unique}                                          rejects, if many
//! {state}/operations/{time}-{id}.json                                                                      what operators did
//! {state}/accepted/{topic}/{topic id}/{partition}/{first}+{attempt}.json                                   entries known to be published
//! {state}/dlq/{try}/.., {state}/staged/dlq+{try}/..    the same of a try to deliver dead letters again; {seq}-dlq-{try} in its files' names
//! ```
//!
//! `{state}` is `{prefix}/_gristmill` unless configured. Readers skip names that begin with `_`, and staged
//! files have no extension that a pattern such as `**/*.parquet` would match.
//!
//! `arrow_array::RecordBatch` is part of this API, so its major version is part of ours.
#![deny(missing_docs)]

mod bigquery;
mod config;
#[cfg(feature = "conformance")]
#[doc(hidden)]
pub mod conformance;
mod dead_letter;
mod directory;
mod directory_column;
mod error;
mod failpoint;
#[cfg(feature = "fake-bigquery")]
pub mod fake_bigquery;
#[cfg(feature = "fake-gcs")]
pub mod fake_gcs;
mod folder;
mod format;
mod gcs;
mod ledger;
mod left_out;
mod memory;
mod names;
mod open_entry;
mod partition_sink;
mod store;

pub use bigquery::{
    BigQueryConfig, BigQueryStore, CHANGE_SEQUENCE_NUMBER, CHANGE_TYPE, Granularity, Misfit, Mode,
    NewColumns, Partitioning, TableColumn, TableDeadLetters, TableNote, TableOptions, TableTemplate, misfits,
    table_columns,
};
pub use config::{DEFAULT_STATE_PREFIX, Rotation, SinkConfig, SinkConfigBuilder, SinkLimits};
pub use dead_letter::{
    Blob, DeadLetter, DeadLetterContext, DeadLetterSink, FileDeadLetters, Payload, RejectedPayload, Stage,
    dead_letter_headers,
};
pub use directory::{
    DirectoryTemplate, MAX_DIRECTORY_VALUE_BYTES, NULL_DIRECTORY, OUT_OF_RANGE_DIRECTORY,
    escape_directory_value,
};
pub use directory_column::DirectoryMistake;
pub use error::{Error, ErrorKind, Result};
pub use failpoint::{FAILPOINT_VARIABLE, Failpoint, Failpoints};
#[cfg(feature = "fake-bigquery")]
pub use fake_bigquery::FakeBigQuery;
#[cfg(feature = "fake-gcs")]
pub use fake_gcs::FakeGcs;
pub use folder::FolderStore;
pub use format::{Format, ParquetOptions};
pub use gcs::{BucketNote, BucketReport, GcsConfig, GcsConfigBuilder, GcsCounters, GcsCredentials, GcsStore};
pub use ledger::audit::{
    BrokenLedger, Finding, FindingKind, LedgerRef, LedgerReport, Ledgers, VerifyReport, dead_letters_of,
    entry_at, known_topic_ids, list_ledgers, read_entries, survey_ledgers, verify, verify_ledger,
};
pub use ledger::driver::{LedgerCounters, Retry};
pub use ledger::entry::{Counts, Entry, FORMAT_VERSION, FileEntry, Genesis, Note, Rejects};
pub use ledger::operation::{LoggedOperation, Operation, Outcome, operations};
pub use ledger::orphans::{SweepReport, sweep_orphans, sweep_rejects};
pub use ledger::reconcile::audit;
pub use ledger::repair::{Remedy, Repaired, Skip, repair, settle, skip};
pub use ledger::report::{
    AuditFinding, AuditKind, AuditRange, AuditReport, AuditScope, PartitionAudit, TryAudit,
};
pub use ledger::tip::{LedgerEnd, MissingFiles, ledger_end, missing_files, noted_published, waiting_files};
pub use left_out::{LeftOut, NEW_COLUMN};
pub use names::{MAIN_OUTPUT, PartitionId, parse_topic_id, validate_output};
pub use open_entry::{ROW_REFUSED, RejectedRecord, RowCoord};
pub use partition_sink::{Checkpoint, PartitionSink, Published};
pub use store::{
    BoxFuture, Create, Generation, Listed, MAX_NAME_BYTES, Move, Object, RowsOf, Staged, StagedWrite, Stat,
    Store, validate_name,
};

/// The protocol of the ledger as a pure state machine.
pub mod protocol {
    pub use crate::ledger::machine::{Action, Answer, Event, Machine, Misuse, Origin, Sealable};
}
