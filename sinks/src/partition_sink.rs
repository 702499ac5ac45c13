use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use gristmill_records::RawBatch;
use uuid::Uuid;

use crate::config::{SinkConfig, SinkSettings};
use crate::dead_letter::{DeadLetter, json_lines};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::Failpoint;
use crate::ledger::driver::{Ledger, LedgerCounters};
use crate::ledger::entry::{Counts, Entry, FileEntry, Rejects};
use crate::ledger::tip::ledger_end;
use crate::names::{PartitionId, Paths, validate_output};
use crate::open_entry::{OpenEntry, RejectedRecord, RowCoord, Target};

/// What a checkpoint came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The open entry is sealed, its files are in place and its dead letters delivered. Commit its `next`.
    Published(Published),
    /// Another owner had sealed this range. What was open here is discarded, theirs is published: seek to
    /// `next`, which may be committed, and go on with this sink.
    Adopted {
        /// Where to read on.
        next: i64,
    },
    /// There was nothing to seal: the position has not moved, or an empty range is too young for an entry of
    /// its own.
    Nothing,
}

/// A sealed and published entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The first offset of the range.
    pub first: i64,
    /// Where the next range starts: the offset to commit.
    pub next: i64,
    /// The files, under their final names. Empty for a range that left nothing.
    pub files: Vec<FileEntry>,
    /// Rows in all files.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// How many rejects went to the dead letters.
    pub rejects: u64,
    /// What became of the records.
    pub counts: Counts,
}

/// One partition on its way to files: gathers rows and rejects, and turns them into ledger entries.
///
/// Call in this order for each delivery of the consumer: [`tally`](Self::tally), any number of
/// [`append`](Self::append) and [`reject`](Self::reject), then [`advance`](Self::advance); then, if
/// [`due`](Self::due), [`checkpoint`](Self::checkpoint). One checkpoint closes all open files of the
/// partition and makes one entry.
///
/// Memory is bounded by [`SinkLimits`](crate::SinkLimits): rows are encoded as they come and encoded bytes
/// are streamed into staged uploads. Dropping the sink at any time is safe: what is not sealed is read again
/// from the topic, and staged objects are left for [`sweep_orphans`](crate::sweep_orphans).
#[derive(Debug)]
pub struct PartitionSink {
    settings: Arc<SinkSettings>,
    /// Of what is written from here on.
    transform_digest: Option<String>,
    id: PartitionId,
    paths: Paths,
    ledger: Ledger,
    open: OpenEntry,
    /// The entry that was proposed and is not settled yet.
    proposed: Option<Proposed>,
    /// An append or upload did not come to its end: the open entry must not be sealed.
    torn: bool,
}

#[derive(Debug)]
struct Proposed {
    entry: Arc<Entry>,
    adopted_before: u64,
}

impl PartitionSink {
    /// Takes up the ledger of a partition: creates it if there is none (starting at `start_if_new`), else
    /// settles what a predecessor left: publishes the newest entry if that was not done, and delivers its
    /// dead letters again. Returns where to read on, which is the ledger's word and not the group's offset.
    ///
    /// May be dropped at any time and called again.
    ///
    /// # Errors
    /// `InvalidConfig` if directories could make names that are too long; `WrongLedger`, `Corrupt`,
    /// `UnsupportedVersion`, `DestinationTaken`, the errors of the stores and of the dead-letter sink.
    pub async fn open(config: SinkConfig, id: PartitionId, start_if_new: i64) -> Result<(Self, i64)> {
        PartitionSink::open_published(config, id, start_if_new, None).await
    }

    /// The same, of a ledger that was published up to offset `published`, as the offset that the group has committed proves:
    /// streams of an entry before it that their service has forgotten were committed. Without proof they are an error of the
    /// kind `Changed`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_published(
        config: SinkConfig,
        id: PartitionId,
        start_if_new: i64,
        published: Option<i64>,
    ) -> Result<(Self, i64)> {
        id.validate()?;
        if start_if_new < 0 {
            let text = format!("a ledger cannot start at offset {start_if_new}");
            return Err(Error::new(ErrorKind::Usage, text));
        }
        let settings = config.0;
        settings.check_names(&id)?;
        let paths = settings.paths(&id);
        let ledger = Ledger::new(settings.resources.clone(), id.clone(), paths.clone(), start_if_new);
        let mut ledger = ledger.published_before(published.unwrap_or(i64::MIN));
        ledger.drive().await?;
        let next = ready(&ledger)?;
        let open = OpenEntry::new(next, &settings.memory);
        let transform_digest = settings.transform_digest.clone();
        let (proposed, torn) = (None, false);
        Ok((PartitionSink { settings, transform_digest, id, paths, ledger, open, proposed, torn }, next))
    }

    /// The partition.
    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    /// Where the open entry starts.
    pub fn first(&self) -> i64 {
        self.open.first
    }

    /// How far the open entry has come: the last [`advance`](Self::advance).
    pub fn position(&self) -> i64 {
        self.open.position
    }

    /// The newest offset that may be committed, if this sink has seen a published entry.
    pub fn committable(&self) -> Option<i64> {
        self.ledger.committable()
    }

    /// Bytes that wait in memory in the open files. Between calls never above
    /// [`SinkLimits::buffered_bytes`](crate::SinkLimits).
    pub fn buffered_bytes(&self) -> usize {
        self.open.buffered()
    }

    /// How often something had to be settled, since this sink was opened.
    pub fn counters(&self) -> LedgerCounters {
        self.ledger.counters()
    }

    /// Counts records that were read, and those of them that a transform dropped. Written and rejected ones
    /// are counted by `append` and `reject`.
    pub fn tally(&mut self, read: u64, dropped: u64) {
        self.open.counts.read += read;
        self.open.counts.dropped += dropped;
    }

    /// The records that the rows of the next [`append`](Self::append)s are made of. A store that refuses single rows may do so
    /// later; the dead letter of such a row then holds its record. Without it, it holds none.
    pub fn originate(&mut self, records: RawBatch) {
        if self.settings.format.is_of_rows() {
            self.open.originate(records);
        }
    }

    /// Appends rows of one output; `coords[i]` says where row `i` came from. Encodes on the calling thread,
    /// and waits for the store when enough encoded bytes have gathered.
    ///
    /// Each (output, directory, schema) is a file of its own.
    ///
    /// Not cancel safe: after a dropped future or an error other than `Usage`, `InvalidName` and `InvalidConfig`,
    /// the open entry is torn.
    ///
    /// # Errors
    /// `Usage` if rows and coordinates do not match, an offset is below the position, or a row has no directory
    /// (ask [`DirectoryTemplate::unfit`](crate::DirectoryTemplate::unfit) first, and reject those);
    /// `InvalidName` for a bad output name; `InvalidConfig` if the columns do not fit the directories; `Encode`;
    /// `Torn`; the errors of the store.
    pub async fn append(&mut self, output: &str, rows: &RecordBatch, coords: &[RowCoord]) -> Result<()> {
        self.check_usable()?;
        validate_output(output)?;
        if rows.num_rows() != coords.len() {
            let text = format!("{} rows came with {} coordinates", rows.num_rows(), coords.len());
            return Err(Error::new(ErrorKind::Usage, text));
        }
        for coord in coords {
            self.open.check_offset(coord.offset)?;
        }
        if coords.is_empty() {
            return Ok(());
        }
        let divided = self.settings.divide(rows, coords)?;
        self.torn = true;
        let to = Target {
            settings: &self.settings,
            transform_digest: self.transform_digest.as_deref(),
            id: &self.id,
            paths: &self.paths,
        };
        self.open.append(&to, output, &divided, coords).await?;
        self.torn = false;
        Ok(())
    }

    /// Keeps a record that was refused; it goes to the dead letters once its entry is published.
    ///
    /// # Errors
    /// `Usage` if its offset is below the position; `Torn`.
    pub fn reject(&mut self, record: RejectedRecord) -> Result<()> {
        self.check_usable()?;
        self.open.reject(record, self.settings.payload)
    }

    /// Keeps a dead letter of another ledger, whose record was not tried again, as it is.
    ///
    /// # Errors
    /// As [`reject`](Self::reject).
    pub fn reject_again(&mut self, letter: DeadLetter) -> Result<()> {
        self.check_usable()?;
        self.open.reject_again(letter)
    }

    /// Writes down that the newest entry is published, for whoever opens the ledger when its files or streams are gone, and nothing
    /// else proves that they were published: see [`noted_published`](crate::noted_published). Right after [`open`](Self::open) or a checkpoint.
    ///
    /// # Errors
    /// Those of the state store; `Usage` while an entry is open.
    pub async fn note_published(&self) -> Result<()> {
        self.check_usable()?;
        let config = SinkConfig(self.settings.clone());
        let tip = ledger_end(&config, &self.id).await?.and_then(|end| end.tip);
        match tip.filter(|tip| tip.next == self.open.first && !tip.files.is_empty()) {
            Some(tip) => {
                let name = self.paths.accepted(tip.first, tip.attempt);
                self.ledger.create_unique(&name, "{}".into()).await
            }
            None => Ok(()),
        }
    }

    /// Says that everything before `next` has been handed over: `next` is the consumer's position after a
    /// delivery, so that control records and compacted gaps are inside.
    ///
    /// # Errors
    /// `Usage` if `next` is below the position or not beyond what was appended; `Torn`.
    pub fn advance(&mut self, next: i64, leader_epoch: Option<i32>) -> Result<()> {
        self.check_usable()?;
        self.open.advance(next, leader_epoch)
    }

    /// Whether the open entry should be closed: by bytes, rows, age, or because a limit was reached. Never
    /// before the position has moved.
    pub fn due(&self, now: Instant) -> bool {
        let (rotation, limits, open) = (&self.settings.rotation, &self.settings.limits, &self.open);
        if self.proposed.is_some() {
            return true;
        }
        open.position > open.first
            && (self.age(now) >= rotation.age
                || open.counts.written >= rotation.rows
                || open.bytes() >= rotation.bytes
                || open.crowded
                || open.has_to_give()
                || open.file_count() >= limits.entry_files
                || open.reject_bytes >= limits.reject_bytes)
    }

    /// When the open entry will be due by age; `None` while there is nothing in it.
    pub fn due_at(&self) -> Option<Instant> {
        self.open.opened_at?.checked_add(self.settings.rotation.age)
    }

    fn age(&self, now: Instant) -> Duration {
        self.open.opened_at.map_or(Duration::ZERO, |t| now.saturating_duration_since(t))
    }

    /// Closes the open entry: stages its files, seals it, publishes it and delivers its dead letters.
    ///
    /// A range that left neither files nor rejects becomes an entry only once it is as old as the rotation
    /// age, so empty entries come at most once in that time.
    ///
    /// If it fails or its future is dropped after the seal was tried, call it again: it goes on where it was.
    /// Before that the entry may be torn, which the next call says.
    ///
    /// # Errors
    /// `Usage` if rows were appended beyond the last `advance`; `Torn`; `OutcomeUnknown` and `Unavailable` after
    /// the configured retries; `DestinationTaken`; the errors of stores and dead-letter sink.
    pub async fn checkpoint(&mut self) -> Result<Checkpoint> {
        self.close_entry(false).await
    }

    /// As [`checkpoint`](Self::checkpoint), where what comes next must not be in the same entry: after the last row of a range
    /// that has an end, and before another transform. It is made also if it is young and left neither files nor rejects, so
    /// that the ledger reaches the position in any case.
    ///
    /// # Errors
    /// As for [`checkpoint`](Self::checkpoint).
    pub async fn checkpoint_in_any_case(&mut self) -> Result<Checkpoint> {
        self.close_entry(true).await
    }

    async fn close_entry(&mut self, even_empty: bool) -> Result<Checkpoint> {
        if self.proposed.is_none() {
            self.check_usable()?;
            self.open.check_complete()?;
            let open = &self.open;
            let young = self.age(Instant::now()) < self.settings.rotation.age;
            if open.position == open.first || (!open.has_content() && young && !even_empty) {
                return Ok(Checkpoint::Nothing);
            }
            let entry = Arc::new(self.stage().await?);
            self.settings.resources.failpoints.hit(Failpoint::AfterStage)?;
            let adopted_before = self.ledger.counters().adopted;
            self.ledger.propose(entry.clone())?;
            // From here on what is staged belongs to the ledger.
            self.open.staged.clear();
            self.proposed = Some(Proposed { entry, adopted_before });
        }
        self.ledger.drive().await?;
        let next = ready(&self.ledger)?;
        self.open = OpenEntry::new(next, &self.settings.memory);
        let Some(Proposed { entry, adopted_before }) = self.proposed.take() else {
            return Ok(Checkpoint::Nothing);
        };
        if self.ledger.counters().adopted > adopted_before {
            return Ok(Checkpoint::Adopted { next });
        }
        self.settings.resources.failpoints.hit(Failpoint::BeforeCommit)?;
        Ok(Checkpoint::Published(Published {
            first: entry.first,
            next: entry.next,
            files: entry.files.clone(),
            rows: entry.files.iter().map(|f| f.rows).sum(),
            bytes: entry.files.iter().map(|f| f.bytes).sum(),
            rejects: entry.reject_count(),
            counts: entry.counts.clone(),
        }))
    }

    /// Drops the open entry and deletes what was staged for it. What a failed checkpoint may have sealed is
    /// left alone: only the ledger can tell, at the next start. Failures are left to the sweep.
    pub async fn abandon(self) {
        let PartitionSink { settings, mut open, .. } = self;
        for file in std::mem::take(&mut open.staged) {
            if let Err(e) = settings.resources.objects.delete(&file.staged).await {
                tracing::warn!(name = file.staged, error = %e, "a staged object is left for the sweep");
            }
        }
    }

    fn check_usable(&self) -> Result<()> {
        if self.torn {
            return Err(Error::new(
                ErrorKind::Torn,
                format!(
                    "the open entry of topic {} partition {} from offset {} is incomplete after a failure; open the \
                     partition again, nothing is lost",
                    self.id.topic, self.id.partition, self.open.first
                ),
            ));
        }
        if self.proposed.is_some() {
            return Err(Error::new(
                ErrorKind::Usage,
                "a checkpoint is not settled; call checkpoint again first",
            ));
        }
        Ok(())
    }

    /// Which transforms make what is appended from here on; before the first rows, or right after a
    /// [`checkpoint_in_any_case`](Self::checkpoint_in_any_case), so that an entry is of one.
    pub fn set_transform_digest(&mut self, digest: Option<String>) {
        self.transform_digest = digest;
    }

    /// Uploads everything and writes the entry, without any effect that a reader could see.
    async fn stage(&mut self) -> Result<Entry> {
        self.torn = true;
        let to = Target {
            settings: &self.settings,
            transform_digest: self.transform_digest.as_deref(),
            id: &self.id,
            paths: &self.paths,
        };
        self.open.close_all(&to).await?;
        self.torn = false;
        let rejects = self.stage_rejects().await?;
        let open = &self.open;
        let mut entry = Entry::new(&self.id, open.attempt, open.first, open.position);
        entry.leader_epoch = open.leader_epoch;
        entry.files = open.staged.clone();
        entry.rejects = rejects;
        entry.counts = open.counts.clone();
        entry.transform_digest = self.transform_digest.clone();
        entry.schema_digest = open.schema_digest();
        Ok(entry)
    }

    async fn stage_rejects(&mut self) -> Result<Option<Rejects>> {
        // Open encoders are not `Sync`: no reference to them is held across an await.
        let open = &mut self.open;
        if open.rejects.is_empty() {
            return Ok(None);
        }
        if open.reject_bytes <= self.settings.limits.inline_reject_bytes {
            return Ok(Some(Rejects::Inline(open.rejects.clone())));
        }
        let bytes = json_lines(&open.rejects)?;
        let (crc32c, size) = (crc32c::crc32c(&bytes), bytes.len() as u64);
        // Not the attempt's id: after a failure here more rejects may come before the next try.
        let name = self.paths.rejects(open.first, Uuid::new_v4());
        let records = open.rejects.len() as u64;
        self.ledger.create_unique(&name, bytes.into()).await?;
        Ok(Some(Rejects::Object { name, crc32c, bytes: size, records }))
    }
}

fn ready(ledger: &Ledger) -> Result<i64> {
    ledger.ready().ok_or_else(|| Error::new(ErrorKind::Usage, "the ledger is not settled"))
}
