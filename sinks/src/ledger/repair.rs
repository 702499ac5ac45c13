//! What operators may do to a ledger. All of it follows the protocol, so it is safe beside running pipelines.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::audit::{Finding, FindingKind, LedgerRef, LedgerReport};
use super::driver::{Ledger, no_place_for_letters, read_entry};
use super::entry::{Entry, FileEntry, Note};
use super::orphans::{sweep_orphans, sweep_rejects};
use super::tip::{LedgerEnd, ledger_end, missing_files};
use crate::config::SinkConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Move;

/// What mends a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remedy {
    /// [`repair`] moves the staged file to its final name.
    Publish,
    /// [`repair`] publishes the newest entry, as the next start would.
    Settle,
    /// [`repair`] deletes the staged object.
    Sweep,
    /// Only the topic can give it back: its offsets have to be read again, to another place.
    Replay,
    /// Only a copy of the object can.
    Restore,
}

impl FindingKind {
    /// What mends it.
    pub fn remedy(self) -> Remedy {
        match self {
            FindingKind::NotPublished => Remedy::Publish,
            FindingKind::Pending => Remedy::Settle,
            FindingKind::Orphan => Remedy::Sweep,
            FindingKind::Unreadable | FindingKind::Overlap => Remedy::Restore,
            FindingKind::Gap
            | FindingKind::LostFile
            | FindingKind::MissingFile
            | FindingKind::ChangedFile
            | FindingKind::MissingRejects => Remedy::Replay,
        }
    }
}

/// What came of [`skip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Offsets `first` to `next - 1` are given up.
    Sealed {
        /// The first offset that is given up.
        first: i64,
        /// Where the ledger goes on.
        next: i64,
    },
    /// A running pipeline has come past the offset meanwhile: nothing was given up.
    Passed {
        /// Where the ledger ends now.
        next: i64,
    },
}

/// How often a skip is tried again that a running pipeline was faster than.
const SKIP_ATTEMPTS: usize = 20;

/// Publishes the newest entry of a ledger and delivers its dead letters, if that was not done, as the next owner would.
/// Gives where the ledger ends, all of it published.
///
/// The configuration must have the pipeline's own dead letters: whoever seals the next entry relies on the delivery
/// of this one's.
///
/// # Errors
/// `Changed` if files of the newest entry are provably lost, or its streams are gone, and `accept_missing` is not set; `DeadLetter` if it has dead
/// letters and the configuration no place for them; those of [`PartitionSink::open`](crate::PartitionSink::open).
pub async fn settle(config: &SinkConfig, ledger: &LedgerRef, accept_missing: bool) -> Result<i64> {
    Ok(settled(config, ledger, accept_missing).await?.1)
}

async fn settled(config: &SinkConfig, ledger: &LedgerRef, accept_missing: bool) -> Result<(Ledger, i64)> {
    // Before anything is published.
    if let Some(LedgerEnd { tip: Some(tip), .. }) = ledger_end(config, &ledger.id).await? {
        if tip.rejects.is_some() && config.0.resources.dead_letters.is_none() {
            return Err(no_place_for_letters(&tip));
        }
        if accept_missing && tip.files.iter().any(FileEntry::is_stream) {
            match driver_of(config, ledger).must_deliver().drive().await {
                Err(error) if error.kind() == ErrorKind::Changed => {
                    tracing::warn!(topic = ledger.id.topic, partition = ledger.id.partition, %error, "goes on without them");
                    // For good: every later owner finds them gone, too, until there is another entry.
                    let name = config.0.paths(&ledger.id).accepted(tip.first, tip.attempt);
                    driver_of(config, ledger).create_unique(&name, "{}".into()).await?;
                }
                driven => driven?,
            }
        }
        let missing = missing_files(config, &tip).await?;
        if accept_missing && !missing.is_empty() {
            let name = config.0.paths(&ledger.id).accepted(tip.first, tip.attempt);
            driver_of(config, ledger).create_unique(&name, "{}".into()).await?;
        } else if let Some(file) = missing.lost.first() {
            return Err(Error::new(
                ErrorKind::Changed,
                format!(
                    "{} of offsets {} to {} was lost before it was published, and that has to be accepted first",
                    file.final_name,
                    tip.first,
                    tip.next - 1
                ),
            ));
        }
    }
    let mut driver = driver_of(config, ledger).must_deliver();
    driver.drive().await?;
    let next = ready(&driver)?;
    Ok((driver, next))
}

fn driver_of(config: &SinkConfig, ledger: &LedgerRef) -> Ledger {
    let paths = config.0.paths(&ledger.id);
    Ledger::new(config.0.resources.clone(), ledger.id.clone(), paths, ledger.start)
}

fn ready(ledger: &Ledger) -> Result<i64> {
    ledger.ready().ok_or_else(|| Error::new(ErrorKind::Usage, "the ledger is not settled"))
}

/// Gives up all offsets from where the ledger ends up to `to`: settles the ledger, then seals an entry without files
/// that says so. A running pipeline whose own seal is refused by it drops what it has open and goes on at `to`.
///
/// # Errors
/// `Usage` if the ledger is at `to` or beyond already; those of [`settle`].
pub async fn skip(config: &SinkConfig, ledger: &LedgerRef, to: i64, note: &Note) -> Result<Skip> {
    let (mut driver, mut first) = settled(config, ledger, false).await?;
    if to <= first {
        let id = &ledger.id;
        let text = format!(
            "the ledger of {}-{} ends at offset {first}: there is nothing to skip before offset {to}",
            id.topic, id.partition
        );
        return Err(Error::new(ErrorKind::Usage, text));
    }
    for _ in 0..SKIP_ATTEMPTS {
        if to <= first {
            return Ok(Skip::Passed { next: first });
        }
        let mut entry = Entry::new(&ledger.id, Uuid::new_v4(), first, to);
        entry.note = Some(note.clone());
        let adopted = driver.counters().adopted;
        driver.propose(Arc::new(entry))?;
        driver.drive().await?;
        if driver.counters().adopted == adopted {
            return Ok(Skip::Sealed { first, next: to });
        }
        first = ready(&driver)?;
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        format!(
            "a running pipeline seals faster than this; nothing was given up, the ledger ends at {first}"
        ),
    ))
}

/// What [`repair`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// Files that were moved to their final names.
    pub published: Vec<String>,
    /// The newest entry was published.
    pub settled: bool,
    /// Staged objects that were deleted.
    pub swept: u64,
}

/// Mends what [`verify_ledger`](crate::verify_ledger) found in a ledger and what needs nothing but the ledger: see
/// [`FindingKind::remedy`]. Files that are provably lost hold the newest entry up, and nothing else, unless
/// `accept_missing` is set. What was done is in `done`, also of a repair that fails.
///
/// # Errors
/// `DestinationTaken` and `Changed` for a file that cannot be moved; those of [`settle`].
pub async fn repair(
    config: &SinkConfig,
    report: &LedgerReport,
    accept_missing: bool,
    done: &mut Repaired,
) -> Result<()> {
    let found = |remedy: Remedy| report.findings.iter().filter(move |f| f.kind.remedy() == remedy);
    for finding in found(Remedy::Publish) {
        if publish(config, report, finding).await? {
            done.published.push(finding.object.clone());
        }
    }
    let is_lost = report.findings.iter().any(|f| f.kind == FindingKind::LostFile);
    let settles = match is_lost {
        true => accept_missing,
        false => {
            found(Remedy::Settle).next().is_some()
                || accept_missing && (report.newest_streams > 0 || report.retry > 0 && report.newest_gone > 0)
        }
    };
    if settles {
        settle(config, &report.ledger, accept_missing).await?;
        let pending: BTreeSet<_> = found(Remedy::Settle).map(|f| f.object.clone()).collect();
        done.published.extend(pending);
        done.settled = true;
    }
    if found(Remedy::Sweep).next().is_some() {
        let id = &report.ledger.id;
        done.swept = sweep_orphans(config, id).await?.deleted + sweep_rejects(config, id).await?.deleted;
    }
    Ok(())
}

/// Moves a staged file of an older entry to its final name. Its entry is sealed, so this is what should have been.
async fn publish(config: &SinkConfig, report: &LedgerReport, finding: &Finding) -> Result<bool> {
    let id = &report.ledger.id;
    let Some((first, _)) = finding.offsets else { return Ok(false) };
    let Some(entry) = read_entry(config.state().0, &config.0.paths(id), id, first).await? else {
        return Ok(false);
    };
    let Some(file) = entry.files.iter().find(|f| f.final_name == finding.object) else { return Ok(false) };
    let objects = &config.0.resources.objects;
    match objects.move_if_absent(&file.staged, file.generation, &file.final_name).await? {
        Move::Moved => Ok(true),
        Move::AlreadyMoved | Move::Gone => Ok(false),
        Move::DestinationExists => Err(Error::new(
            ErrorKind::DestinationTaken,
            format!(
                "cannot publish {}: there is another file of that name; move it away and repair again, the data is safe \
                 in {}",
                file.final_name, file.staged
            ),
        )),
    }
}
