//! What an audit looks at, and what it says.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use super::driver::read_entry;
use super::entry::{Counts, Entry};
use crate::config::SinkConfig;
use crate::error::Result;
use crate::names::{PartitionId, Paths};

/// Objects that one listing asks for.
pub(super) const PAGE: usize = 1000;

/// Places that are gathered at once, 32 MiB of them. A range with more rows is read in several passes.
pub(super) const MAX_PLACES: usize = if cfg!(test) { 7 } else { 2 << 20 };

/// The largest file that is read as a whole; a larger one is checked by size and checksum alone.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 30;

/// Findings that a report names; the others are only counted.
const MAX_FINDINGS: usize = 1000;

/// Which ranges an audit looks at. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditScope {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this partition.
    pub partition: Option<i32>,
    /// From the first range on that was sealed then or later, by the clocks of those who sealed.
    pub since: Option<SystemTime>,
}

impl AuditScope {
    /// `partition` is `None` where it is not known.
    pub(super) fn takes(&self, topic: &str, partition: Option<i32>) -> bool {
        self.topic.as_ref().is_none_or(|only| *only == topic)
            && self.partition.is_none_or(|only| partition.is_none_or(|p| p == only))
    }

    /// Whether ledgers are left out.
    pub(super) fn is_filtered(&self) -> bool {
        self.topic.is_some() || self.partition.is_some()
    }
}

/// What [`audit`](crate::audit) came to.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// Each partition that has ranges in the scope.
    pub partitions: Vec<PartitionAudit>,
    /// What tries to deliver dead letters again have written, of each partition.
    pub tries: Vec<TryAudit>,
    /// What does not add up, and news; the first 1,000.
    pub findings: Vec<AuditFinding>,
    /// How many more findings there are.
    pub more_findings: u64,
    /// Whether a finding that was left out is a difference.
    #[serde(skip)]
    more_differences: bool,
}

impl AuditReport {
    /// Whether the books and the store agree.
    pub fn is_clean(&self) -> bool {
        !self.more_differences && !self.findings.iter().any(|f| f.kind.is_difference())
    }

    pub(super) fn found(&mut self, finding: AuditFinding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
            return;
        }
        self.more_findings += 1;
        self.more_differences |= finding.kind.is_difference();
    }
}

/// The account of one partition.
///
/// `next - first` offsets are `counts.read` records and `without_record` offsets that held none that is
/// visible (control records, records of aborted transactions, records that compaction or retention took) and
/// `given_up` offsets that an operator gave up, with whatever they held.
/// `counts.read` is `rows - emitted_rows` records that are rows, `rejected - emitted_rejected` that are dead
/// letters, and `counts.dropped`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PartitionAudit {
    /// The topic.
    pub topic: String,
    /// Its id, URL-safe base64.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that was audited.
    pub first: i64,
    /// The offset after the last.
    pub next: i64,
    /// Ledger entries.
    pub entries: u64,
    /// What the entries say became of the records.
    pub counts: Counts,
    /// Offsets that held no visible record.
    pub without_record: u64,
    /// Offsets that operators gave up: nobody knows what they held.
    pub given_up: u64,
    /// Files that the entries name.
    pub files: u64,
    /// Rows found in them.
    pub rows: u64,
    /// Of these, rows that a transform added.
    pub emitted_rows: u64,
    /// Dead letters that the entries hold.
    pub rejected: u64,
    /// Of these, records that a transform had added.
    pub emitted_rejected: u64,
    /// Files whose rows do not say where they came from (no `_kafka_*` columns) or that are too large to read:
    /// checked by checksum and count alone.
    pub files_by_count: u64,
}

/// What a try to deliver the dead letters of one partition again came to.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TryAudit {
    /// Which try, from 1.
    pub number: u32,
    /// The topic.
    pub topic: String,
    /// Its id, URL-safe base64.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// What the entries say became of the records that were tried.
    pub counts: Counts,
    /// Files that the entries name.
    pub files: u64,
    /// Rows found in them.
    pub rows: u64,
    /// Dead letters that came of it.
    pub rejected: u64,
    /// Files as in [`PartitionAudit::files_by_count`], whose rows were not compared with those of the pipeline.
    pub files_by_count: u64,
    /// Rows of records before the audited ranges, which were not compared with those of the pipeline.
    pub not_compared: u64,
}

/// One thing that an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditFinding {
    /// What it is.
    pub kind: AuditKind,
    /// The object that it is about.
    pub object: String,
    /// What it means, for people.
    pub text: String,
    /// The range that it is about, if it is about one.
    pub range: Option<AuditRange>,
    /// Every row of the object stands in files that entries of the same topic name: deleting it loses nothing.
    pub redundant: bool,
}

/// A range of offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// The offset after the last.
    pub next: i64,
}

/// The kinds of [`AuditFinding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditKind {
    /// Offsets that no entry covers lie before an entry.
    Gap,
    /// Two entries cover the same offsets.
    Overlap,
    /// A ledger object, or the rejects of an entry, cannot be read.
    Unreadable,
    /// The counts of an entry contradict each other, or its files and rejects.
    Counts,
    /// A file is staged; the next start publishes it, or it is being published. No difference.
    Pending,
    /// A file of a sealed range is not there.
    MissingFile,
    /// A file is not the one that was published, or cannot be read.
    ChangedFile,
    /// A file holds rows of other offsets or partitions than its entry.
    StrayRows,
    /// One place (partition, offset, number within the record) stands twice.
    DoubledRows,
    /// A data file that no entry names, with rows that no audited entry wrote, or that do not say where they
    /// came from. Who reads the folder reads it too.
    ForeignFile,
    /// A data file by one of this pipeline's own names, of offsets before its ledger began. No difference: the ledger
    /// was begun anew, and the file may be the only copy of its rows.
    BeforeLedger,
}

impl AuditKind {
    /// Whether books and store differ.
    pub fn is_difference(self) -> bool {
        !matches!(self, AuditKind::Pending | AuditKind::BeforeLedger)
    }
}

/// The ranges of one ledger that are audited.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) id: PartitionId,
    /// Of which try to deliver dead letters again; 0 is the pipeline itself.
    pub(super) retry: u32,
    pub(super) paths: Paths,
    /// The first offsets of the entries, ascending; never empty.
    pub(super) firsts: Vec<i64>,
    /// Where the last entry ends.
    pub(super) next: i64,
    /// Whether earlier entries were left out.
    pub(super) is_cut: bool,
}

impl Window {
    pub(super) fn first(&self) -> i64 {
        self.firsts.first().copied().unwrap_or(self.next)
    }

    pub(super) async fn entry(&self, config: &SinkConfig, first: i64) -> Result<Option<Arc<Entry>>> {
        read_entry(config.state().0, &self.paths, &self.id, first).await
    }

    /// None of a try, whose records only the dead letters hold for sure.
    pub(super) fn range(&self, first: i64, next: i64) -> Option<AuditRange> {
        (self.retry == 0).then(|| AuditRange {
            topic: self.id.topic.clone(),
            partition: self.id.partition,
            first,
            next,
        })
    }
}

/// Names are kept as hashes: there may be millions.
pub(super) fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// What lies under the name of a file.
pub(super) enum Stored {
    File(Bytes),
    TooLarge(u64),
    Nothing,
}

/// Reads an object unless it is larger than the bound.
pub(super) async fn fetch(config: &SinkConfig, name: &str) -> Result<Stored> {
    let objects = &config.0.resources.objects;
    // A listing tells the size before anything is read.
    match objects.list(name, None, 1).await?.first() {
        Some(listed) if listed.name == name && listed.bytes > MAX_FILE_BYTES => {
            return Ok(Stored::TooLarge(listed.bytes));
        }
        _ => {}
    }
    Ok(objects.get(name).await?.map_or(Stored::Nothing, |object| Stored::File(object.bytes)))
}
