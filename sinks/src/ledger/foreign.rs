//! Data files that no entry names: who reads the folder reads them too.

use std::collections::HashSet;
use std::sync::Arc;

use super::audit::known_topic_ids;
use super::driver::read_entry;
use super::entry::{Entry, Genesis};
use super::places::{self, Place, is_data};
use super::report::{
    AuditFinding, AuditKind, AuditReport, AuditScope, MAX_PLACES, PAGE, Stored, Window, fetch, hash,
};
use crate::config::SinkConfig;
use crate::error::{ErrorKind, Result};
use crate::names::{PartitionId, Paths, join, parse_final_name};

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
            let mut file = File { config, scope, windows, name: &object.name, path, before: None };
            match file.writer().await? {
                Writer::Ledger => continue,
                Writer::Before(start) => file.before = Some(start),
                Writer::Nobody => {}
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
    /// Where the ledger begins whose earlier offsets the file is of, by its name.
    before: Option<i64>,
}

/// Who wrote a file, by its name and by what the ledgers say now.
enum Writer {
    /// A range of another scope, or one that was sealed since the audit began.
    Ledger,
    /// This pipeline, before its ledger began at this offset.
    Before(i64),
    Nobody,
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
    /// The file itself or its folder says which topic, and which of that name, its rows are of.
    is_known: bool,
}

impl File<'_> {
    async fn writer(&self) -> Result<Writer> {
        let Some(parsed) = self.path.rsplit('/').next().and_then(parse_final_name) else {
            return Ok(Writer::Nobody);
        };
        let window = self.windows.iter().find(|w| {
            (&w.id.topic[..], w.id.incarnation(), w.id.partition, w.retry)
                == (parsed.topic, parsed.incarnation.to_owned(), parsed.partition, parsed.retry)
        });
        let is_left_out = match window {
            Some(window) => window.is_cut && parsed.first < window.first(),
            None => self.scope.is_filtered() || self.scope.since.is_some(),
        };
        if is_left_out {
            return Ok(Writer::Ledger);
        }
        // What was read at the beginning says nothing of a ledger that has begun or gone on since.
        let mut id = PartitionId {
            pipeline: "of the genesis".to_owned(),
            cluster: String::new(),
            topic: parsed.topic.to_owned(),
            topic_id: [0; 16],
            partition: parsed.partition,
        };
        if id.validate().is_err() {
            return Ok(Writer::Nobody);
        }
        let config = self.config.of_try(parsed.retry);
        let mut writer = Writer::Nobody;
        for topic_id in known_topic_ids(self.config, parsed.topic).await? {
            id.topic_id = topic_id;
            if id.incarnation() != parsed.incarnation {
                continue;
            }
            let entry = entry(&config, &config.0.paths(&id), &id, parsed.first).await?;
            if entry.is_some_and(|entry| entry.files.iter().any(|f| f.final_name == self.name)) {
                return Ok(Writer::Ledger);
            }
            // Tries begin where the pipeline does.
            let genesis = self.config.0.paths(&id).genesis();
            // One that cannot be read is in the findings already.
            let found = self.config.state().0.get(&genesis).await?;
            let found = found.and_then(|found| Genesis::parse(&genesis, &found.bytes).ok());
            if let Some(genesis) = found.filter(|genesis| parsed.first < genesis.start) {
                writer = Writer::Before(genesis.start);
            }
        }
        Ok(writer)
    }

    fn found(&self, kind: AuditKind, text: String) -> AuditFinding {
        AuditFinding { kind, object: self.name.to_owned(), text, range: None, redundant: false }
    }

    /// Of a file whose rows are not known to stand elsewhere.
    fn alone(&self, what: &str) -> AuditFinding {
        match self.before {
            Some(start) => {
                let text = format!("is from before this ledger began, at offset {start}; {what}");
                self.found(AuditKind::BeforeLedger, text)
            }
            None => {
                let text = format!("no range wrote it; {what}; it may be the only copy of what it holds");
                self.found(AuditKind::ForeignFile, text)
            }
        }
    }

    async fn compare(&self, report: &mut AuditReport) -> Result<()> {
        let bytes = match fetch(self.config, self.name).await? {
            Stored::File(bytes) => bytes,
            Stored::Nothing => return Ok(()),
            Stored::TooLarge(bytes) => {
                report.found(self.alone(&format!("with {bytes} bytes it is too large to be compared")));
                return Ok(());
            }
        };
        let mut compared = Compared::default();
        let mut skip = 0;
        loop {
            let content = match places::read(self.name, bytes.clone(), skip, MAX_PLACES).await {
                Ok(content) => content,
                Err(e) => {
                    report.found(self.alone(&format!("it cannot be compared: {e}")));
                    return Ok(());
                }
            };
            compared.rows = content.rows;
            let Some(mut places) = content.places else {
                report.found(self.alone(&format!(
                    "its {} rows do not say where they came from (no `_kafka_*` columns)",
                    content.rows
                )));
                return Ok(());
            };
            skip += places.len();
            let is_last = places.is_empty() || skip as u64 >= content.rows;
            places.sort_unstable();
            let Some((windows, is_known)) = self.windows_of(content.topic_id.as_deref()).await? else {
                report.found(self.alone(&format!(
                    "its {} rows do not say which of the topics they are of, and were not compared",
                    content.rows
                )));
                return Ok(());
            };
            compared.is_known = is_known;
            let mut is_doubled = vec![false; places.len()];
            for window in windows {
                self.compare_with(window, &places, &mut is_doubled, &mut compared).await?;
            }
            compared.doubled += is_doubled.iter().filter(|doubled| **doubled).count() as u64;
            if is_last {
                break;
            }
        }
        report.found(self.say(&compared));
        Ok(())
    }

    /// The ledgers that the file may hold rows of, by the topic's folder and by the topic id in the file, and whether
    /// that is sure; `None` if neither says, and there are several topics whose places would meet by chance.
    async fn windows_of(&self, topic_id: Option<&str>) -> Result<Option<(Vec<&Window>, bool)>> {
        let folder = self.path.split_once('/').map(|(folder, _)| folder.split('+').next().unwrap_or(folder));
        let by_folder = folder.filter(|f| self.windows.iter().any(|w| w.id.topic == *f));
        let by_id = topic_id.filter(|id| self.windows.iter().any(|w| w.id.topic_id_text() == *id));
        let is_known = match (by_folder, by_id) {
            (_, Some(_)) => true,
            // Of two topics of that name, one after the other, both have rows at the same places.
            (Some(folder), None) => known_topic_ids(self.config, folder).await?.len() == 1,
            (None, None) => false,
        };
        if let (None, None, [first, others @ ..]) = (by_folder, by_id, self.windows)
            && others.iter().any(|w| w.id.topic_id != first.id.topic_id)
        {
            return Ok(None);
        }
        let takes = |w: &&Window| {
            by_folder.is_none_or(|folder| w.id.topic == folder)
                && by_id.is_none_or(|id| w.id.topic_id_text() == id)
        };
        Ok(Some((self.windows.iter().filter(takes).collect(), is_known)))
    }

    async fn compare_with(
        &self,
        window: &Window,
        places: &[Place],
        is_doubled: &mut [bool],
        compared: &mut Compared,
    ) -> Result<()> {
        if window.is_cut && window.retry == 0 {
            compared.before += before(window, places);
        }
        find_again(self.config, window, places, |range, file, place| {
            compared.first.get_or_insert_with(|| (file.to_owned(), place));
            is_doubled[range].fill(true);
        })
        .await
    }

    fn say(&self, compared: &Compared) -> AuditFinding {
        let Compared { rows, doubled, first, before, is_known } = compared;
        let unseen = match before {
            0 => String::new(),
            n => format!("; {n} rows are of offsets before the audited ranges and were not compared"),
        };
        let Some((file, place)) = first else {
            return self.alone(&format!("its {rows} rows are not those of any audited range{unseen}"));
        };
        let others = if doubled == rows { "" } else { "; the others may stand nowhere else" };
        let text = format!(
            "no range wrote it, and {doubled} of its {rows} rows are in the folder already, the first in {file} \
             (partition {}, offset {}): who reads the folder reads them twice{others}{unseen}",
            place.partition, place.offset
        );
        let redundant = *is_known && doubled == rows && *before == 0;
        AuditFinding { redundant, ..self.found(AuditKind::DoubledRows, text) }
    }
}

/// None of one that cannot be read.
pub(super) async fn entry(
    config: &SinkConfig,
    paths: &Paths,
    id: &PartitionId,
    first: i64,
) -> Result<Option<Arc<Entry>>> {
    match read_entry(config.state().0, paths, id, first).await {
        // It is in the findings already.
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => Ok(None),
        other => other,
    }
}

/// How many of the places, which are in order, are of offsets before the window.
pub(super) fn before(window: &Window, places: &[Place]) -> u64 {
    let at = |offset: i64| {
        places.partition_point(|p| (p.partition, p.offset) < (window.id.partition, offset)) as u64
    };
    at(window.first()) - at(i64::MIN)
}

/// Looks for the places, which are in order, in the files of the entries that cover their offsets; each file is read once. `found` is
/// told which of them stand there, in which file.
pub(super) async fn find_again(
    config: &SinkConfig,
    window: &Window,
    places: &[Place],
    mut found: impl FnMut(std::ops::Range<usize>, &str, Place),
) -> Result<()> {
    let partition = window.id.partition;
    let at = |offset: i64| places.partition_point(|p| (p.partition, p.offset) < (partition, offset));
    let end = at(window.next);
    let mut next = at(window.first());
    while next < end {
        let offset = places[next].offset;
        let index = window.firsts.partition_point(|first| *first <= offset);
        let Some(first) = index.checked_sub(1).and_then(|i| window.firsts.get(i)) else { break };
        let until = window.firsts.get(index).copied().unwrap_or(window.next);
        let range = next..at(until).max(next + 1);
        next = range.end;
        let Some(entry) = entry(config, &window.paths, &window.id, *first).await? else { continue };
        for file in &entry.files {
            let Stored::File(bytes) = fetch(config, &file.final_name).await? else { continue };
            let mut skip = 0;
            // What cannot be read is in the findings already.
            while let Ok(content) = places::read(&file.final_name, bytes.clone(), skip, MAX_PLACES).await {
                let theirs = content.places.unwrap_or_default();
                let read = theirs.len();
                skip += read;
                for place in theirs {
                    let here = &places[range.clone()];
                    let from = range.start + here.partition_point(|p| *p < place);
                    let to = range.start + here.partition_point(|p| *p <= place);
                    if from < to {
                        found(from..to, &file.final_name, place);
                    }
                }
                if read == 0 || skip as u64 >= content.rows {
                    break;
                }
            }
        }
    }
    Ok(())
}
