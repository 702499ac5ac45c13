use std::sync::Arc;

use super::audit::no_genesis;
use super::driver::{find_tip, firsts, read_genesis};
use super::entry::{Entry, FileEntry};
use crate::config::SinkConfig;
use crate::error::Result;
use crate::names::PartitionId;

/// How far a ledger has come, by a look that creates, publishes and settles nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LedgerEnd {
    /// Where the ledger starts.
    pub start: i64,
    /// Where the next entry will start. Everything below is sealed; the newest entry may have to be published yet.
    pub next: i64,
    /// The newest entry.
    pub tip: Option<Arc<Entry>>,
}

/// Looks up where the ledger of a partition ends; `None` if there is no ledger.
///
/// # Errors
/// `WrongLedger`, `UnsupportedVersion`, `Corrupt` (also if there are entries and no genesis), and those of the state
/// store.
pub async fn ledger_end(config: &SinkConfig, id: &PartitionId) -> Result<Option<LedgerEnd>> {
    id.validate()?;
    let (state, paths) = (config.state().0, config.0.paths(id));
    let start = match read_genesis(state, &paths, id).await? {
        Some(start) => start,
        None if firsts(state, &paths, &paths.entries(), &paths.before_entry(0), 1).await?.is_empty() => {
            return Ok(None);
        }
        // A ledger may have begun between the two looks.
        None => match read_genesis(state, &paths, id).await? {
            Some(start) => start,
            None => return Err(no_genesis(&paths.genesis())),
        },
    };
    let tip = find_tip(state, &paths, id, start).await?;
    let next = tip.as_ref().map_or(start, |entry| entry.next);
    Ok(Some(LedgerEnd { start, next, tip }))
}

/// Files of a ledger's newest entry that are neither staged nor in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingFiles {
    /// Never published, and lost. Files are published in order, and one before these still waits for it.
    pub lost: Vec<FileEntry>,
    /// Published and deleted since, or lost before: nothing in the stores tells which.
    pub gone: Vec<FileEntry>,
}

impl MissingFiles {
    /// Whether every file is staged or in place.
    pub fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.gone.is_empty()
    }
}

/// The files of the newest entry that are still staged: the next owner of the partition publishes them.
///
/// # Errors
/// Those of the object store.
pub async fn waiting_files(config: &SinkConfig, entry: &Entry) -> Result<Vec<FileEntry>> {
    let mut waiting = Vec::new();
    for file in entry.files.iter().filter(|file| !file.is_stream()) {
        if config.0.resources.objects.stat(&file.staged).await?.is_some() {
            waiting.push(file.clone());
        }
    }
    Ok(waiting)
}

/// Whether somebody wrote down that an entry is published, or goes on without what is gone of it.
///
/// # Errors
/// Those of the state store.
pub async fn noted_published(config: &SinkConfig, id: &PartitionId, entry: &Entry) -> Result<bool> {
    let name = config.0.paths(id).accepted(entry.first, entry.attempt);
    Ok(config.state().0.get(&name).await?.is_some())
}

/// Looks for files of the newest entry that are gone from both of their places. Changes nothing, but may read every
/// file of the entry once.
///
/// # Errors
/// Those of the object store.
pub async fn missing_files(config: &SinkConfig, entry: &Entry) -> Result<MissingFiles> {
    let objects = &config.0.resources.objects;
    let mut missing = Vec::new();
    for (i, file) in entry.files.iter().enumerate().filter(|(_, file)| !file.is_stream()) {
        // In this order: whoever publishes it meanwhile moves it from the one to the other.
        if objects.stat(&file.staged).await?.is_none() && objects.stat(&file.final_name).await?.is_none() {
            missing.push(i);
        }
    }
    let mut found = MissingFiles::default();
    let Some(last) = missing.last().copied() else { return Ok(found) };
    // Only now: a file that still waits after another was found missing has not been overtaken by its publishing.
    let mut first_staged = entry.files.len();
    for (i, file) in entry.files[..last].iter().enumerate() {
        if objects.stat(&file.staged).await?.is_some() {
            first_staged = i;
            break;
        }
    }
    for i in missing {
        let file = entry.files[i].clone();
        if i > first_staged { found.lost.push(file) } else { found.gone.push(file) }
    }
    Ok(found)
}
