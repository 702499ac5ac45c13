use std::sync::Arc;
use std::time::Duration;

use crate::dead_letter::{DeadLetterSink, Payload};
use crate::directory::DirectoryTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::Failpoints;
use crate::format::{Format, ParquetOptions};
use crate::ledger::driver::{Resources, Retry};
use crate::memory::MemoryBudget;
use crate::names::{MAX_OUTPUT_BYTES, PartitionId, Paths, file_number, final_name, join, state_of};
use crate::store::{MAX_NAME_BYTES, Store, validate_name};

/// The folder of the state, below the prefix of the final files, unless another is given.
pub const DEFAULT_STATE_PREFIX: &str = "_gristmill";

/// When the open entry of a partition is closed. Whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of all open files of the partition together, as far as they are encoded, and of its rejects.
    pub bytes: u64,
    /// Rows of all open files of the partition together.
    pub rows: u64,
    /// Time since the first append, reject or advance of the entry.
    pub age: Duration,
}

impl Default for Rotation {
    /// 128 MiB, 10 million rows, 5 minutes.
    fn default() -> Self {
        Rotation { bytes: 128 << 20, rows: 10_000_000, age: Duration::from_secs(300) }
    }
}

/// What bounds the memory of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkLimits {
    /// Files open at once. When one more is needed, the one that was written to least recently is closed (it
    /// stays part of the entry) and a checkpoint is due.
    pub open_files: usize,
    /// Files of one entry after which a checkpoint is due.
    pub entry_files: usize,
    /// Bytes that may wait in all open files together; beyond it the fullest row groups are closed early.
    pub buffered_bytes: usize,
    /// Rejects up to this size, as JSON, are kept in the entry itself, others in an object of their own.
    pub inline_reject_bytes: usize,
    /// Rejects of one entry, as JSON, after which a checkpoint is due.
    pub reject_bytes: usize,
}

impl Default for SinkLimits {
    /// 64 open files, 1,000 files an entry, 64 MiB buffered, 64 KiB of rejects inline, 16 MiB of rejects.
    fn default() -> Self {
        SinkLimits {
            open_files: 64,
            entry_files: 1000,
            buffered_bytes: 64 << 20,
            inline_reject_bytes: 64 << 10,
            reject_bytes: 16 << 20,
        }
    }
}

/// Tries to deliver dead letters again that there may be.
const MAX_TRIES: u32 = 1_000;

/// How partitions are written. Cheap to clone: all partitions of a sink share one.
#[derive(Clone, Debug)]
pub struct SinkConfig(pub(crate) Arc<SinkSettings>);

#[derive(Clone, Debug)]
pub(crate) struct SinkSettings {
    pub(crate) resources: Resources,
    /// Of a try to deliver dead letters again; 0 is the pipeline itself.
    pub(crate) retry_number: u32,
    pub(crate) state_prefix: String,
    /// Of the pipeline, also in a try.
    own_state_prefix: String,
    pub(crate) prefix: String,
    pub(crate) format: Format,
    pub(crate) rotation: Rotation,
    pub(crate) directories: Option<DirectoryTemplate>,
    pub(crate) limits: SinkLimits,
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) payload: Payload,
    pub(crate) transform_digest: Option<String>,
}

impl SinkSettings {
    pub(crate) fn paths(&self, id: &PartitionId) -> Paths {
        Paths::new(&self.own_state_prefix, self.retry_number, id)
    }

    /// Refuses directories that some value could make too long for a name: found out with the record at hand,
    /// that would stop the partition for ever.
    pub(crate) fn check_names(&self, id: &PartitionId) -> Result<()> {
        let Some(template) = self.directories.as_ref().filter(|t| t.fields().next().is_some()) else {
            return Ok(());
        };
        let output = "x".repeat(MAX_OUTPUT_BYTES);
        let number = file_number(1_000_000, self.retry_number);
        let name = final_name(&self.prefix, id, &output, &template.longest(), i64::MAX, &number, "parquet");
        if name.len() <= MAX_NAME_BYTES {
            return Ok(());
        }
        let text = format!(
            "names of files of topic {} could have {} bytes with these directories, {MAX_NAME_BYTES} are the most; use \
             fewer fields in the directory template",
            id.topic,
            name.len()
        );
        Err(Error::new(ErrorKind::InvalidConfig, text))
    }
}

impl SinkConfig {
    /// A sink that writes below the root of `objects` and keeps its ledger in the same store.
    pub fn builder(objects: Arc<dyn Store>) -> SinkConfigBuilder {
        SinkConfigBuilder {
            objects,
            state: None,
            state_prefix: None,
            prefix: String::new(),
            format: Format::Parquet(ParquetOptions::default()),
            rotation: Rotation::default(),
            directories: None,
            limits: SinkLimits::default(),
            memory: 256 << 20,
            payload: Payload::default(),
            dead_letters: None,
            transform_digest: None,
            retry: Retry::default(),
            failpoints: None,
        }
    }

    /// The store and prefix of the ledgers, for [`list_ledgers`](crate::list_ledgers) and so on.
    pub fn state(&self) -> (&Arc<dyn Store>, &str) {
        (&self.0.resources.state, &self.0.state_prefix)
    }

    /// The same sink for a try to deliver the records of dead letters again: its ledgers lie apart, in `{state}/dlq/{number}`, and its
    /// files have the number in their names. 0 is the pipeline's own, also of a try.
    pub fn of_try(&self, number: u32) -> SinkConfig {
        if number == self.0.retry_number {
            return self.clone();
        }
        let mut settings = SinkSettings::clone(&self.0);
        settings.state_prefix = state_of(&self.0.own_state_prefix, number);
        settings.retry_number = number;
        SinkConfig(Arc::new(settings))
    }

    /// How many tries to deliver dead letters again there are: they count from 1.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn tries(&self) -> Result<u32> {
        for number in 1..=MAX_TRIES {
            let folder = format!("{}/", state_of(&self.0.own_state_prefix, number));
            if self.0.resources.state.list(&folder, None, 1).await?.is_empty() {
                return Ok(number - 1);
            }
        }
        Ok(MAX_TRIES)
    }

    /// The store and prefix of the final files.
    pub fn objects(&self) -> (&Arc<dyn Store>, &str) {
        (&self.0.resources.objects, &self.0.prefix)
    }
}

/// Builds a [`SinkConfig`].
#[derive(Debug)]
#[must_use]
pub struct SinkConfigBuilder {
    objects: Arc<dyn Store>,
    state: Option<Arc<dyn Store>>,
    state_prefix: Option<String>,
    prefix: String,
    format: Format,
    rotation: Rotation,
    directories: Option<DirectoryTemplate>,
    limits: SinkLimits,
    memory: usize,
    payload: Payload,
    dead_letters: Option<Arc<dyn DeadLetterSink>>,
    transform_digest: Option<String>,
    retry: Retry,
    failpoints: Option<Failpoints>,
}

impl SinkConfigBuilder {
    /// Keeps the ledger in a store of its own. Default: the object store.
    pub fn state(mut self, state: Arc<dyn Store>) -> Self {
        self.state = Some(state);
        self
    }

    /// Where ledgers and staged files are. **One pipeline each.** Default: [`DEFAULT_STATE_PREFIX`] below the
    /// prefix of the final files.
    pub fn state_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.state_prefix = Some(prefix.into());
        self
    }

    /// What the final names start with, without a slash at the end. Default: nothing.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The file format. Default: Parquet.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// When entries are closed.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// Directories by record time and by columns. Default: none.
    pub fn directories(mut self, template: DirectoryTemplate) -> Self {
        self.directories = Some(template);
        self
    }

    /// Bytes that the open files of all partitions may hold together; who holds more than its part then closes row
    /// groups, files, and its entry early. Default: 256 MiB.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// What bounds the memory of one partition.
    pub fn limits(mut self, limits: SinkLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether dead letters, and the ledger, may hold rejected records. Default: full.
    pub fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// Where rejects go. Default: they stay in the ledger.
    pub fn dead_letters(mut self, sink: Arc<dyn DeadLetterSink>) -> Self {
        self.dead_letters = Some(sink);
        self
    }

    /// The digest of the transform, for the ledger.
    pub fn transform_digest(mut self, digest: impl Into<String>) -> Self {
        self.transform_digest = Some(digest.into());
        self
    }

    /// How often requests are tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// **For tests.** Default: what [`FAILPOINT_VARIABLE`](crate::FAILPOINT_VARIABLE) says.
    pub fn failpoints(mut self, failpoints: Failpoints) -> Self {
        self.failpoints = Some(failpoints);
        self
    }

    /// Checks everything at once.
    ///
    /// # Errors
    /// `InvalidConfig` with one sentence for each mistake.
    pub fn build(self) -> Result<SinkConfig> {
        let mut wrong = Vec::new();
        let state_prefix = self.state_prefix.unwrap_or_else(|| join(&self.prefix, DEFAULT_STATE_PREFIX));
        for (what, prefix) in [("prefix", &self.prefix), ("state prefix", &state_prefix)] {
            if !prefix.is_empty()
                && let Err(e) = validate_name(prefix)
            {
                wrong.push(format!("the {what} is not usable: {e}"));
            }
        }
        if state_prefix.is_empty() {
            wrong.push(format!("the state prefix is empty; leave it out for {DEFAULT_STATE_PREFIX:?}"));
        }
        if self.prefix == state_prefix || self.prefix.starts_with(&format!("{state_prefix}/")) {
            wrong.push(
                "the prefix is inside the state prefix; readers would see the ledger's own objects"
                    .to_owned(),
            );
        }
        if let Format::Parquet(options) = self.format {
            if !(1..=22).contains(&options.zstd_level) {
                wrong.push(format!("zstd level {} is not between 1 and 22", options.zstd_level));
            }
            if options.row_group_bytes == 0 {
                wrong.push("row groups of 0 bytes cannot hold a row".to_owned());
            }
        }
        let Rotation { bytes, rows, age } = self.rotation;
        if bytes == 0 || rows == 0 || age.is_zero() {
            wrong.push("rotation by 0 bytes, 0 rows or no time would never hold a row".to_owned());
        }
        let l = self.limits;
        if l.open_files == 0 || l.entry_files == 0 || l.buffered_bytes == 0 || l.reject_bytes == 0 {
            wrong.push(
                "a limit of 0 open files, entry files, buffered bytes or reject bytes cannot be kept"
                    .to_owned(),
            );
        }
        if self.memory == 0 {
            wrong.push("no file can be written in 0 bytes of memory".to_owned());
        }
        if self.retry.attempts == 0 {
            wrong.push("0 attempts would never ask a store".to_owned());
        }
        let failpoints = match self.failpoints.map_or_else(Failpoints::from_environment, Ok) {
            Ok(failpoints) => failpoints,
            Err(e) => {
                wrong.push(e.to_string());
                Failpoints::none()
            }
        };
        if !wrong.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the sink cannot be set up: {}", wrong.join("; ")),
            ));
        }
        Ok(SinkConfig(Arc::new(SinkSettings {
            retry_number: 0,
            resources: Resources {
                state: self.state.unwrap_or_else(|| self.objects.clone()),
                objects: self.objects,
                dead_letters: self.dead_letters,
                retry: self.retry,
                failpoints,
            },
            own_state_prefix: state_prefix.clone(),
            state_prefix,
            prefix: self.prefix,
            format: self.format,
            rotation: self.rotation,
            directories: self.directories,
            limits: self.limits,
            memory: MemoryBudget::new(self.memory),
            payload: self.payload,
            transform_digest: self.transform_digest,
        })))
    }
}
