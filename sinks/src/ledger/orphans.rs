//! Staged objects that no entry names, and none ever will. **Never by age**: an object staged for offset F is an
//! orphan only if entry F exists and does not name it, because only then can no seal, however late, come to name it.

use std::sync::Arc;

use super::driver::read_entry;
use super::entry::{Entry, Rejects};
use crate::config::SinkConfig;
use crate::error::{ErrorKind, Result};
use crate::names::PartitionId;
use crate::store::Store;

/// Objects that one listing asks for.
const PAGE: usize = 1000;

/// What [`sweep_orphans`] or [`sweep_rejects`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Staged objects that were deleted.
    pub deleted: u64,
    /// Staged objects that an entry names, or may still come to name.
    pub kept: u64,
}

/// Deletes files that were staged for a range that was sealed by somebody else. Safe beside running pipelines.
///
/// What it costs grows with what lies staged, not with the ledger: what is published is staged no longer.
///
/// # Errors
/// Those of the stores; what was deleted before stays deleted.
pub async fn sweep_orphans(config: &SinkConfig, id: &PartitionId) -> Result<SweepReport> {
    let paths = config.0.paths(id);
    sweep(config, id, &config.0.resources.objects, paths.all_staged()).await
}

/// As [`sweep_orphans`], for the objects that hold the rejects of an entry. These stay where they are, so this looks
/// at every entry that has one: it is for a repair, not for a start.
///
/// # Errors
/// As for [`sweep_orphans`].
pub async fn sweep_rejects(config: &SinkConfig, id: &PartitionId) -> Result<SweepReport> {
    sweep(config, id, config.state().0, config.0.paths(id).all_rejects()).await
}

async fn sweep(
    config: &SinkConfig,
    id: &PartitionId,
    store: &Arc<dyn Store>,
    prefix: &str,
) -> Result<SweepReport> {
    let Orphans { names, kept } = orphans(config, id, store, prefix).await?;
    let mut report = SweepReport { deleted: 0, kept };
    for name in names {
        report.deleted += u64::from(store.delete(&name).await?);
    }
    Ok(report)
}

/// All orphans of a ledger, files and rejects.
pub(super) async fn all_orphans(config: &SinkConfig, id: &PartitionId) -> Result<Vec<String>> {
    let (state, paths) = (config.state().0, config.0.paths(id));
    let mut all = orphans(config, id, &config.0.resources.objects, paths.all_staged()).await?.names;
    all.extend(orphans(config, id, state, paths.all_rejects()).await?.names);
    Ok(all)
}

struct Orphans {
    names: Vec<String>,
    /// How many others there are.
    kept: u64,
}

async fn orphans(
    config: &SinkConfig,
    id: &PartitionId,
    store: &Arc<dyn Store>,
    prefix: &str,
) -> Result<Orphans> {
    let (state, paths) = (config.state().0, config.0.paths(id));
    let mut found = Orphans { names: Vec::new(), kept: 0 };
    // Names are in the order of their offsets: each entry is read once.
    let mut read: Option<(i64, Option<Arc<Entry>>)> = None;
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), PAGE).await?;
        for object in &page {
            let entry = match (paths.parse_staged(&object.name), &read) {
                (None, _) => &None,
                (Some(first), Some((same, entry))) if first == *same => entry,
                (Some(first), _) => {
                    let entry = match read_entry(state, &paths, id, first).await {
                        Ok(entry) => entry,
                        // What cannot be read may name it.
                        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
                            None
                        }
                        Err(e) => return Err(e),
                    };
                    &read.insert((first, entry)).1
                }
            };
            match entry {
                Some(entry) if !names(entry, &object.name) => found.names.push(object.name.clone()),
                _ => found.kept += 1,
            }
        }
        match page.last() {
            Some(last) if page.len() >= PAGE => after = Some(last.name.clone()),
            _ => return Ok(found),
        }
    }
}

fn names(entry: &Entry, object: &str) -> bool {
    let is_rejects = matches!(&entry.rejects, Some(Rejects::Object { name, .. }) if name == object);
    is_rejects || entry.files.iter().any(|file| file.staged == object)
}
