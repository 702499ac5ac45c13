use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::machine::Sealable;
use crate::dead_letter::DeadLetter;
use crate::error::{Error, ErrorKind, Result};
use crate::names::PartitionId;
use crate::store::Generation;

/// The format that this version writes. It reads this one and refuses those that are newer.
pub const FORMAT_VERSION: u32 = 1;

/// One file of an entry: where it was staged and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileEntry {
    /// The staged name in the object store.
    pub staged: String,
    /// The generation of the staged object.
    pub generation: Generation,
    /// CRC-32C of the content.
    pub crc32c: u32,
    /// The final name in the object store.
    #[serde(rename = "final")]
    pub final_name: String,
    /// The transform output whose rows it holds.
    pub output: String,
    /// How many rows.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
}

impl FileEntry {
    /// Whether it is a stream of BigQuery: no store can be asked for it.
    pub fn is_stream(&self) -> bool {
        self.staged.starts_with("projects/") && self.staged.contains("/streams/")
    }
}

/// Where the rejects of an entry are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejects {
    /// In the entry itself: there are few.
    Inline(Vec<DeadLetter>),
    /// In an object of the state store: JSON lines, one [`DeadLetter`] each.
    Object {
        /// Its name in the state store.
        name: String,
        /// CRC-32C of the content.
        crc32c: u32,
        /// Size in bytes.
        bytes: u64,
        /// How many rejects.
        records: u64,
    },
}

/// What became of the records of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Records read from the topic.
    pub read: u64,
    /// Rows written to files, all outputs together.
    pub written: u64,
    /// Records that the transform dropped.
    pub dropped: u64,
    /// Records rejected, by code. Includes the undecodable.
    pub rejected: BTreeMap<String, u64>,
    /// Records that could not be decoded.
    pub undecodable: u64,
}

impl Counts {
    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Counts) {
        self.read += other.read;
        self.written += other.written;
        self.dropped += other.dropped;
        self.undecodable += other.undecodable;
        for (code, n) in &other.rejected {
            *self.rejected.entry(code.clone()).or_default() += n;
        }
    }

    /// Rejected records of all codes.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// Why an operator wrote an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Note {
    /// What was done: `skip`.
    pub kind: String,
    /// Why, in the operator's words; may be empty.
    #[serde(default)]
    pub reason: String,
    /// Who, as `user@host`.
    #[serde(default)]
    pub by: String,
}

/// One entry of a ledger: a range of offsets, and everything needed to publish what came of it.
///
/// Its first offset is in the object's name alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    format_version: u32,
    /// Tells this attempt to seal the range from all others.
    pub attempt: Uuid,
    /// The first offset of the range; from the name of the object.
    #[serde(skip)]
    pub first: i64,
    /// The consumer's position after the range; the next entry starts here.
    pub next: i64,
    /// The leader epoch of the newest batch, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<i32>,
    /// The topic id, URL-safe base64.
    pub topic_id: String,
    /// What to publish.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// What to deliver as dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejects: Option<Rejects>,
    /// What became of the records.
    #[serde(default)]
    pub counts: Counts,
    /// SHA-256 of the transform, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform_digest: Option<String>,
    /// A digest of the schemas that the files were written with, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_digest: Option<String>,
    /// Set if an operator wrote the entry, not a pipeline. The format's version is still 1: a reader that does not
    /// know the field sees a range that left nothing, which is what it is to the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
    /// When it was sealed, RFC 3339 in UTC. By the writer's clock; nothing depends on it.
    pub created_at: String,
}

impl Entry {
    /// An entry of this version without files, rejects and counts.
    pub fn new(id: &PartitionId, attempt: Uuid, first: i64, next: i64) -> Self {
        Entry {
            format_version: FORMAT_VERSION,
            attempt,
            first,
            next,
            leader_epoch: None,
            topic_id: id.topic_id_text(),
            files: Vec::new(),
            rejects: None,
            counts: Counts::default(),
            transform_digest: None,
            schema_digest: None,
            note: None,
            created_at: now(),
        }
    }

    /// Reads the object `name` as the entry that starts at `first`. Fields that this version does not know
    /// are ignored.
    ///
    /// # Errors
    /// `UnsupportedVersion` if a newer version wrote it; `Corrupt` if it is not an entry or contradicts its
    /// name.
    pub fn parse(name: &str, first: i64, bytes: &[u8]) -> Result<Self> {
        // An entry is sealed only after those before it are published.
        check_version(name, bytes, Some(first))?;
        let mut entry: Entry =
            serde_json::from_slice(bytes).map_err(|e| corrupt(name, "an entry").with_source(e))?;
        if first < 0 || entry.next <= first {
            let text = format!("ledger entry {name} ends at offset {}, before it begins", entry.next);
            return Err(Error::new(ErrorKind::Corrupt, text));
        }
        entry.first = first;
        Ok(entry)
    }

    /// The entry as JSON.
    ///
    /// # Errors
    /// None in practice: all parts have a JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        to_json(self)
    }

    /// How many rejects the entry carries.
    pub fn reject_count(&self) -> u64 {
        match &self.rejects {
            None => 0,
            Some(Rejects::Inline(letters)) => letters.len() as u64,
            Some(Rejects::Object { records, .. }) => *records,
        }
    }
}

impl Sealable for std::sync::Arc<Entry> {
    fn first(&self) -> i64 {
        self.first
    }

    fn next(&self) -> i64 {
        self.next
    }

    fn is_same_attempt(&self, other: &Self) -> bool {
        self.attempt == other.attempt
    }

    fn files(&self) -> usize {
        self.files.len()
    }

    fn has_rejects(&self) -> bool {
        self.rejects.is_some()
    }
}

/// The first object of a ledger: whose it is and where it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    format_version: u32,
    /// The offset where the ledger starts.
    pub start: i64,
    /// The pipeline that the ledger belongs to.
    pub pipeline: String,
    /// The Kafka cluster.
    pub cluster: String,
    /// The topic.
    pub topic: String,
    /// The topic id, URL-safe base64.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// When it was created, RFC 3339 in UTC.
    pub created_at: String,
}

impl Genesis {
    pub(crate) fn new(id: &PartitionId, start: i64) -> Self {
        Genesis {
            format_version: FORMAT_VERSION,
            start,
            pipeline: id.pipeline.clone(),
            cluster: id.cluster.clone(),
            topic: id.topic.clone(),
            topic_id: id.topic_id_text(),
            partition: id.partition,
            created_at: now(),
        }
    }

    /// Reads the object `name`.
    ///
    /// # Errors
    /// As [`Entry::parse`].
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        check_version(name, bytes, None)?;
        let genesis: Genesis =
            serde_json::from_slice(bytes).map_err(|e| corrupt(name, "a genesis").with_source(e))?;
        if genesis.start < 0 {
            let text = format!("ledger genesis {name} starts at the negative offset {}", genesis.start);
            return Err(Error::new(ErrorKind::Corrupt, text));
        }
        Ok(genesis)
    }

    /// Refuses a ledger of somebody else.
    pub(crate) fn check(&self, name: &str, id: &PartitionId) -> Result<()> {
        let theirs = (&self.pipeline, &self.cluster, &self.topic, &self.topic_id, self.partition);
        let ours = (&id.pipeline, &id.cluster, &id.topic, &id.topic_id_text(), id.partition);
        if theirs == ours {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::WrongLedger,
            format!(
                "the ledger at {name} belongs to pipeline {:?}, cluster {:?}, topic {} ({}), partition {}, not to pipeline \
                 {:?}, cluster {:?}, topic {} ({}), partition {}; nothing was read or written, and what is published \
                 stays. Going on would mix the offsets of both: put the pipeline's name back if it was changed, else \
                 give it a folder or prefix of its own",
                self.pipeline,
                self.cluster,
                self.topic,
                self.topic_id,
                self.partition,
                id.pipeline,
                id.cluster,
                id.topic,
                id.topic_id_text(),
                id.partition
            ),
        ))
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        to_json(self)
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Encode, "cannot write a ledger object as json").with_source(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(crate) fn corrupt(name: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("ledger object {name} cannot be read as {what}; restore it from a copy"),
    )
}

/// Looks at the version alone, so that a newer format gets a clear answer whatever else has changed. Below `safe`
/// everything is published.
pub(crate) fn check_version(name: &str, bytes: &[u8], safe: Option<i64>) -> Result<()> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let Version { format_version } =
        serde_json::from_slice(bytes).map_err(|e| corrupt(name, "a ledger object").with_source(e))?;
    if format_version == 0 || format_version > FORMAT_VERSION {
        let safe = safe.map_or("what is published stays".to_owned(), |offset| {
            format!("everything below offset {offset} is published and safe")
        });
        return Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!(
                "ledger object {name} has format version {format_version}, this program reads up to {FORMAT_VERSION}; \
                 nothing was read or written, and {safe}. Run the version that wrote it, or a newer \
                 one: `gristmill --version` tells yours"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PartitionId {
        PartitionId {
            pipeline: "p".into(),
            cluster: "c".into(),
            topic: "orders".into(),
            topic_id: [7; 16],
            partition: 0,
        }
    }

    #[test]
    fn an_entry_survives_being_written_and_read() {
        let mut entry = Entry::new(&id(), Uuid::new_v4(), 5, 9);
        entry.files.push(FileEntry {
            staged: "s".into(),
            generation: Generation(u64::MAX),
            crc32c: 1,
            final_name: "f".into(),
            output: "main".into(),
            rows: 2,
            bytes: 3,
        });
        entry.counts.rejected.insert("bad".into(), 2);
        let json = entry.to_json().unwrap();
        assert!(!String::from_utf8_lossy(&json).contains("first"));
        assert_eq!(Entry::parse("e", 5, &json).unwrap(), entry);
    }

    #[test]
    fn a_newer_version_is_refused_and_an_unknown_field_is_not() {
        let json = Entry::new(&id(), Uuid::nil(), 0, 1).to_json().unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        value["colour"] = "red".into();
        Entry::parse("e", 0, value.to_string().as_bytes()).unwrap();
        let error = Entry::parse("e", 0, br#"{"format_version": 2, "everything": "else"}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.to_string().contains("reads up to 1"), "{error}");
        let error = Entry::parse("e", 7, br#"{"format_version": 2}"#).unwrap_err();
        assert!(error.to_string().contains("everything below offset 7 is published and safe"), "{error}");
    }

    #[test]
    fn garbage_and_backward_ranges_are_corrupt() {
        for bytes in [&b""[..], b"{}", b"[]", b"{\"format_version\": 1}", b"{\"format_version\": -1}"] {
            assert_eq!(Entry::parse("e", 0, bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let json = Entry::new(&id(), Uuid::nil(), 0, 1).to_json().unwrap();
        assert_eq!(Entry::parse("e", 1, &json).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_ledger_of_another_pipeline_is_refused() {
        let genesis = Genesis::new(&id(), 3);
        let read = Genesis::parse("g", &genesis.to_json().unwrap()).unwrap();
        read.check("g", &id()).unwrap();
        let error = read.check("g", &PartitionId { pipeline: "other".into(), ..id() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongLedger);
    }
}
