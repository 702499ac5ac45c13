//! Data files that no entry names: who reads the folder reads them too.

use std::collections::HashSet;
use std::sync::Arc;

use super::driver::read_entry;
use super::entry::Entry;
use super::places::{self, Place, is_data};
use super::reconcile::{
    AuditFinding, AuditKind, AuditReport, AuditScope, MAX_PLACES, PAGE, Stored, Window, fetch, hash,
};
use crate::config::SinkConfig;
use crate::error::{ErrorKind, Result};
use crate::names::{join, parse_final_name};

pub(super) async fn audit(
    config: &SinkConfig,
    scope: &AuditScope,
    windows: &[Window],
    known: &HashSet<u64>,
    report: &mut AuditReport,
    on_file: &(dyn Fn() + Send + Sync),
) -> Result<()> {
    let prefix = join(&config.0.prefix, "");
    let state = format!("{}/", config.state().1);
    let mut after: Option<String> = None;
    loop {
        let page = config.0.resources.objects.list(&prefix, after.as_deref(), PAGE).await?;
        for object in &page {
            let path = &object.name[prefix.len()..];
            let is_hidden = path.split('/').any(|segment| segment.starts_with(['_', '.']));
            if object.name.starts_with(&state)
                || is_hidden
                || !is_data(path)
                || known.contains(&hash(&object.name))
            {
                continue;
            }
            let file = File { config, scope, windows, name: &object.name, path };
            if file.is_ours().await? {
                continue;
            }
            file.compare(report).await?;
            on_file();
        }
        match page.last() {
            Some(last) if page.len() >= PAGE => after = Some(last.name.clone()),
            _ => return Ok(()),
        }
    }
}

/// A data file that no audited entry names.
struct File<'a> {
    config: &'a SinkConfig,
    scope: &'a AuditScope,
    windows: &'a [Window],
    name: &'a str,
    /// The name below the sink's prefix.
    path: &'a str,
}

/// How the rows of a foreign file compare with those of the entries.
#[derive(Default)]
struct Compared {
    rows: u64,
    /// Rows at places that an entry has written, the file where the first was found, and its place.
    doubled: u64,
    first: Option<(String, Place)>,
    /// Rows of offsets before the audited ranges.
    before: u64,
}

impl File<'_> {
    /// Whether it is of another scope, or of an entry that was sealed since the audit began.
    async fn is_ours(&self) -> Result<bool> {
        let Some(parsed) = self.path.rsplit('/').next().and_then(parse_final_name) else { return Ok(false) };
        let window = self.windows.iter().find(|w| {
            (&w.id.topic[..], w.id.incarnation(), w.id.partition)
                == (parsed.topic, parsed.incarnation.to_owned(), parsed.partition)
        });
        let Some(window) = window else {
            return Ok(self.scope.is_filtered() || self.scope.since.is_some());
        };
        if window.is_cut && parsed.first < window.first() {
            return Ok(true);
        }
        let entry = self.entry(window, parsed.first).await?;
        Ok(entry.is_some_and(|entry| entry.files.iter().any(|f| f.final_name == self.name)))
    }

    async fn entry(&self, window: &Window, first: i64) -> Result<Option<Arc<Entry>>> {
        match read_entry(self.config.state().0, &window.paths, &window.id, first).await {
            // It is in the findings already.
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => Ok(None),
            other => other,
        }
    }

    fn found(&self, kind: AuditKind, text: String) -> AuditFinding {
        AuditFinding { kind, object: self.name.to_owned(), text, range: None }
    }

    async fn compare(&self, report: &mut AuditReport) -> Result<()> {
        let bytes = match fetch(self.config, self.name).await? {
            Stored::File(bytes) => bytes,
            Stored::Nothing => return Ok(()),
            Stored::TooLarge(bytes) => {
                let text = format!("no range wrote it; with {bytes} bytes it is too large to be compared");
                report.found(self.found(AuditKind::ForeignFile, text));
                return Ok(());
            }
        };
        let mut compared = Compared::default();
        let mut skip = 0;
        loop {
            let content = match places::read(self.name, bytes.clone(), skip, MAX_PLACES).await {
                Ok(content) => content,
                Err(e) => {
                    let text = format!("no range wrote it, and it cannot be compared: {e}");
                    report.found(self.found(AuditKind::ForeignFile, text));
                    return Ok(());
                }
            };
            compared.rows = content.rows;
            let Some(mut places) = content.places else {
                let text = format!(
                    "no range wrote it, and its {} rows do not say where they came from (no `_kafka_*` columns)",
                    content.rows
                );
                report.found(self.found(AuditKind::ForeignFile, text));
                return Ok(());
            };
            skip += places.len();
            let is_last = places.is_empty() || skip as u64 >= content.rows;
            places.sort_unstable();
            let places = Arc::new(places);
            for window in self.windows_of(content.topic_id.as_deref()) {
                self.compare_with(window, &places, &mut compared).await?;
            }
            if is_last {
                break;
            }
        }
        report.found(self.say(&compared));
        Ok(())
    }

    /// The ledgers that the file may hold rows of: by the topic's folder and by the topic id in the file,
    /// otherwise all.
    fn windows_of(&self, topic_id: Option<&str>) -> Vec<&Window> {
        let folder = self.path.split_once('/').map(|(folder, _)| folder.split('+').next().unwrap_or(folder));
        let by_folder = folder.filter(|f| self.windows.iter().any(|w| w.id.topic == *f));
        let by_id = topic_id.filter(|id| self.windows.iter().any(|w| w.id.topic_id_text() == *id));
        let takes = |w: &&Window| match (by_folder, by_id) {
            (Some(folder), Some(id)) => w.id.topic == folder && w.id.topic_id_text() == id,
            (Some(folder), None) => w.id.topic == folder,
            (None, Some(id)) => w.id.topic_id_text() == id,
            (None, None) => true,
        };
        self.windows.iter().filter(takes).collect()
    }

    /// Looks for the places, which are in order, in the files of the entries that cover their offsets.
    async fn compare_with(
        &self,
        window: &Window,
        places: &Arc<Vec<Place>>,
        compared: &mut Compared,
    ) -> Result<()> {
        let partition = window.id.partition;
        let at = |offset: i64| places.partition_point(|p| (p.partition, p.offset) < (partition, offset));
        let end = at(window.next);
        let mut next = at(window.first());
        if window.is_cut {
            compared.before += (next - at(i64::MIN)) as u64;
        }
        while next < end {
            let offset = places[next].offset;
            let index = window.firsts.partition_point(|first| *first <= offset);
            let Some(first) = index.checked_sub(1).and_then(|i| window.firsts.get(i)) else { break };
            let until = window.firsts.get(index).copied().unwrap_or(window.next);
            let range = next..at(until).max(next + 1);
            next = range.end;
            let Some(entry) = self.entry(window, *first).await? else { continue };
            for file in &entry.files {
                let Stored::File(bytes) = fetch(self.config, &file.final_name).await? else { continue };
                let mut skip = 0;
                // What cannot be read is in the findings already.
                while let Ok(content) = places::read(&file.final_name, bytes.clone(), skip, MAX_PLACES).await
                {
                    let theirs = content.places.unwrap_or_default();
                    skip += theirs.len();
                    let mut doubled =
                        theirs.iter().filter(|p| places[range.clone()].binary_search(p).is_ok());
                    if let Some(place) = doubled.next() {
                        compared.first.get_or_insert_with(|| (file.final_name.clone(), *place));
                        compared.doubled += 1 + doubled.count() as u64;
                    }
                    if theirs.is_empty() || skip as u64 >= content.rows {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn say(&self, compared: &Compared) -> AuditFinding {
        let Compared { rows, doubled, first, before } = compared;
        let unseen = match before {
            0 => String::new(),
            n => format!("; {n} rows are of offsets before the audited ranges and were not compared"),
        };
        match first {
            Some((file, place)) => {
                let text = format!(
                    "no range wrote it, and {doubled} of its {rows} rows are in the folder already, the first in {file} \
                     (partition {}, offset {}): who reads the folder reads them twice{unseen}",
                    place.partition, place.offset
                );
                self.found(AuditKind::DoubledRows, text)
            }
            None => {
                let text =
                    format!("no range wrote it; its {rows} rows are not those of any audited range{unseen}");
                self.found(AuditKind::ForeignFile, text)
            }
        }
    }
}
