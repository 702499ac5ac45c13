use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::driver::{firsts, read_entry, read_rejects};
use super::entry::{Entry, FileEntry, Genesis};
use super::orphans::all_orphans;
use crate::config::SinkConfig;
use crate::dead_letter::DeadLetter;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{PartitionId, join, parse_topic_id};
use crate::store::Store;

/// Objects that one listing asks for.
const PAGE: usize = 1000;

/// Foreign objects that a report names; the others are only counted.
const MAX_FOREIGN: usize = 100;

/// A ledger that exists in a state store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerRef {
    /// Whose it is.
    pub id: PartitionId,
    /// What its objects' names start with, with the slash at the end.
    pub path: String,
    /// Where it starts.
    pub start: i64,
    /// When it was begun, RFC 3339 in UTC.
    pub created_at: String,
}

/// A ledger whose genesis is gone or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokenLedger {
    /// The topic, by the ledger's place.
    pub topic: String,
    /// The partition, by the ledger's place; `None` if that is no number.
    pub partition: Option<i32>,
    /// The genesis.
    pub object: String,
    /// What is wrong with it.
    pub text: String,
    kind: ErrorKind,
}

impl BrokenLedger {
    /// Whether it lies where the ledger of the topic with that id does.
    pub fn is_of(&self, topic_id: [u8; 16]) -> bool {
        self.object.rsplit('/').nth(2).and_then(parse_topic_id) == Some(topic_id)
    }

    /// The error of whoever needs this ledger.
    pub fn to_error(&self) -> Error {
        Error::new(self.kind, self.text.clone())
    }
}

/// All ledgers of a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledgers {
    /// Those that can be read, by topic, topic id and partition.
    pub whole: Vec<LedgerRef>,
    /// The others.
    pub broken: Vec<BrokenLedger>,
}

/// What [`verify`] found in one object or range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The object that it is about.
    pub object: String,
    /// The offsets that it is about, from the first up to the second, if they are known.
    pub offsets: Option<(i64, i64)>,
    /// What it means, for people.
    pub text: String,
}

/// The kinds of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Offsets that no entry covers lie before an entry.
    Gap,
    /// Two entries cover the same offsets.
    Overlap,
    /// A ledger object that cannot be read.
    Unreadable,
    /// A file of an older entry is still staged: it should have been published.
    NotPublished,
    /// A file of the newest entry is still staged: the next start publishes it.
    Pending,
    /// A file of the newest entry was lost before it was published: files are published in order, and an earlier one
    /// still waits.
    LostFile,
    /// A file is neither staged nor in place. A user may have deleted it.
    MissingFile,
    /// A file in place is not what its entry says.
    ChangedFile,
    /// The rejects of an entry cannot be read.
    MissingRejects,
    /// A staged object that no entry names, and none ever will: the sweep deletes it.
    Orphan,
}

impl FindingKind {
    /// Whether the guarantee is violated, or may be. The others are news, not problems.
    pub fn is_problem(self) -> bool {
        !matches!(self, FindingKind::Pending | FindingKind::MissingFile | FindingKind::Orphan)
    }
}

/// The state of one ledger.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LedgerReport {
    /// Which ledger.
    pub ledger: LedgerRef,
    /// Of which try to deliver dead letters again; 0 is the pipeline itself.
    pub retry: u32,
    /// How many entries.
    pub entries: u64,
    /// Where the next entry will start.
    pub next: i64,
    /// How many files the entries name.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Rejects that the entries carry.
    pub rejects: u64,
    /// How many entries were written by operators.
    pub skips: u64,
    /// Offsets that were given up with those.
    pub skipped_offsets: u64,
    /// Streams that the newest entry names: only committing them shows whether they are there.
    pub newest_streams: u64,
    /// Files that the newest entry names, and that are neither staged nor in place. Of a pipeline the group's offset says whether they
    /// were published.
    pub newest_gone: u64,
    /// What is worth a look.
    pub findings: Vec<Finding>,
}

/// What [`verify`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Each ledger.
    pub ledgers: Vec<LedgerReport>,
    /// Those that cannot be checked.
    pub broken: Vec<BrokenLedger>,
    /// Objects under the prefix that no ledger put there; the first 100.
    pub foreign: Vec<String>,
    /// How many there are in all.
    pub foreign_count: u64,
}

impl VerifyReport {
    /// Whether every ledger is whole and every file that is there is what its entry says.
    pub fn is_sound(&self) -> bool {
        self.broken.is_empty() && self.ledgers.iter().flat_map(|l| &l.findings).all(|f| !f.kind.is_problem())
    }
}

/// All ledgers under the sink's state prefix, by topic, topic id and partition.
///
/// # Errors
/// Those of the state store, and of the first genesis that is gone or cannot be read: see [`survey_ledgers`].
pub async fn list_ledgers(config: &SinkConfig) -> Result<Vec<LedgerRef>> {
    let Ledgers { whole, broken } = survey_ledgers(config).await?;
    match broken.first() {
        Some(broken) => Err(broken.to_error()),
        None => Ok(whole),
    }
}

/// As [`list_ledgers`], for whoever can go on with the others where one is broken.
///
/// # Errors
/// Those of the state store.
pub async fn survey_ledgers(config: &SinkConfig) -> Result<Ledgers> {
    let (state, state_prefix) = config.state();
    let root = join(state_prefix, "ledger/");
    let mut ledgers = Ledgers::default();
    let mut after: Option<String> = None;
    loop {
        // One object of each ledger is enough to know it: skip to the end of its folder.
        let page = state.list(&root, after.as_deref(), 1).await?;
        let Some(object) = page.first() else { return Ok(ledgers) };
        let place: String = object.name[root.len()..].split_inclusive('/').take(3).collect();
        let path = format!("{root}{place}");
        after = Some(if path.ends_with('/') { format!("{path}~") } else { object.name.clone() });
        if !path.ends_with('/') {
            continue;
        }
        match read_ledger(state, &path).await {
            Ok(ledger) => ledgers.whole.push(ledger),
            Err(error) => match error.kind() {
                kind @ (ErrorKind::Corrupt | ErrorKind::UnsupportedVersion | ErrorKind::InvalidName) => {
                    let (topic, rest) = place.split_once('/').unwrap_or((&place, ""));
                    let number = rest.trim_end_matches('/').rsplit('/').next();
                    ledgers.broken.push(BrokenLedger {
                        topic: topic.to_owned(),
                        partition: number.and_then(|number| number.parse().ok()),
                        object: format!("{path}genesis.json"),
                        text: error.to_string(),
                        kind,
                    });
                }
                _ => return Err(error),
            },
        }
    }
}

async fn read_ledger(state: &Arc<dyn Store>, path: &str) -> Result<LedgerRef> {
    let genesis = format!("{path}genesis.json");
    let Some(found) = state.get(&genesis).await? else { return Err(no_genesis(&genesis)) };
    let parsed = Genesis::parse(&genesis, &found.bytes)?;
    let Some(topic_id) = parse_topic_id(&parsed.topic_id) else {
        let text = format!("{genesis} has the topic id {:?}, which is none", parsed.topic_id);
        return Err(Error::new(ErrorKind::Corrupt, text));
    };
    let id = PartitionId {
        pipeline: parsed.pipeline,
        cluster: parsed.cluster,
        topic: parsed.topic,
        topic_id,
        partition: parsed.partition,
    };
    id.validate()?;
    Ok(LedgerRef { id, path: path.to_owned(), start: parsed.start, created_at: parsed.created_at })
}

/// A ledger's first object is gone, and others are there: no ledger must begin anew over them.
pub(crate) fn no_genesis(genesis: &str) -> Error {
    let text = format!(
        "{genesis} is gone, and other objects of that ledger are there; nothing was read or written, and what is published \
         stays. Restore it from a copy"
    );
    Error::new(ErrorKind::Corrupt, text)
}

/// The ids under which a topic of that name has ledgers: more than one if it was deleted and created again.
///
/// # Errors
/// Those of the state store.
pub async fn known_topic_ids(config: &SinkConfig, topic: &str) -> Result<Vec<[u8; 16]>> {
    let (state, state_prefix) = config.state();
    let root = join(state_prefix, &format!("ledger/{topic}/"));
    let mut ids = Vec::new();
    let mut after: Option<String> = None;
    loop {
        // One object of each id is enough: skip to the end of its folder.
        let page = state.list(&root, after.as_deref(), 1).await?;
        let Some(object) = page.first() else { return Ok(ids) };
        let text = object.name[root.len()..].split('/').next().unwrap_or_default();
        ids.extend(parse_topic_id(text));
        after = Some(format!("{root}{text}/~"));
    }
}

/// Up to `limit` entries of a ledger in order, beginning with the first that starts at `from` or later.
///
/// # Errors
/// Those of the state store, and of an entry that cannot be read.
pub async fn read_entries(
    config: &SinkConfig,
    ledger: &LedgerRef,
    from: i64,
    limit: usize,
) -> Result<Vec<Entry>> {
    let (state, paths) = (config.state().0, config.0.paths(&ledger.id));
    let mut entries = Vec::new();
    for first in firsts(state, &paths, &paths.entries(), &paths.before_entry(from.max(0)), limit).await? {
        if let Some(entry) = read_entry(state, &paths, &ledger.id, first).await? {
            entries.push(Arc::unwrap_or_clone(entry));
        }
    }
    Ok(entries)
}

/// The first offset of the entry that holds an offset; none where no entry begins at or before it.
///
/// # Errors
/// Those of the state store.
pub async fn entry_at(config: &SinkConfig, ledger: &LedgerRef, offset: i64) -> Result<Option<i64>> {
    let (state, paths) = (config.state().0, config.0.paths(&ledger.id));
    // Names can be listed upward alone, and say their offsets: halve what may lie between.
    let (mut found, mut from, mut to) = (None, ledger.start.max(0), offset);
    while from <= to {
        let middle = from + (to - from) / 2;
        let first = firsts(state, &paths, &paths.entries(), &paths.before_entry(middle), 1).await?;
        match first.first().filter(|first| **first <= offset) {
            Some(first) => (found, from) = (Some(*first), first + 1),
            None => to = middle - 1,
        }
    }
    Ok(found)
}

/// The dead letters of an entry, in order.
///
/// # Errors
/// Those of the state store; `Corrupt` if they are gone.
pub async fn dead_letters_of(config: &SinkConfig, entry: &Entry) -> Result<Vec<DeadLetter>> {
    let Some(rejects) = &entry.rejects else { return Ok(Vec::new()) };
    let mut letters = read_rejects(config.state().0, rejects).await?;
    letters.sort_by_key(|letter| (letter.offset, letter.sub));
    Ok(letters)
}

/// Checks everything that can be checked without the topic, in the ledgers of tries to deliver dead letters again, too: that each
/// ledger's entries follow each other
/// without gap and overlap, that the files are in place with the size and checksum of their entries, that
/// rejects are readable; and lists orphans and foreign objects. Reads every file once; changes nothing.
///
/// While a pipeline runs, what it is publishing shows as pending.
///
/// # Errors
/// Those of the stores. What is wrong with the data is in the report.
pub async fn verify(config: &SinkConfig) -> Result<VerifyReport> {
    let mut known = HashSet::new();
    let mut report =
        VerifyReport { ledgers: Vec::new(), broken: Vec::new(), foreign: Vec::new(), foreign_count: 0 };
    for number in 0..=config.tries().await? {
        let config = config.of_try(number);
        let Ledgers { whole, broken } = survey_ledgers(&config).await?;
        for ledger in whole {
            report.ledgers.push(check_ledger(&config, ledger, &mut known).await?);
        }
        report.broken.extend(broken);
    }
    let prefix = if config.0.prefix.is_empty() { String::new() } else { format!("{}/", config.0.prefix) };
    let state = format!("{}/", config.state().1);
    let mut after: Option<String> = None;
    loop {
        let page = config.0.resources.objects.list(&prefix, after.as_deref(), PAGE).await?;
        for object in &page {
            if object.name.starts_with(&state) || known.contains(&hash(&object.name)) {
                continue;
            }
            report.foreign_count += 1;
            if report.foreign.len() < MAX_FOREIGN {
                report.foreign.push(object.name.clone());
            }
        }
        match page.last() {
            Some(last) if page.len() >= PAGE => after = Some(last.name.clone()),
            _ => return Ok(report),
        }
    }
}

/// Names are kept as hashes: a report on millions of files has to fit in memory.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// As [`verify`], for one ledger.
///
/// # Errors
/// As [`verify`].
pub async fn verify_ledger(config: &SinkConfig, ledger: LedgerRef) -> Result<LedgerReport> {
    check_ledger(config, ledger, &mut HashSet::new()).await
}

async fn check_ledger(
    config: &SinkConfig,
    ledger: LedgerRef,
    known: &mut HashSet<u64>,
) -> Result<LedgerReport> {
    let (state, paths) = (config.state().0, config.0.paths(&ledger.id));
    let mut report = LedgerReport {
        next: ledger.start,
        ledger,
        retry: config.0.retry_number,
        entries: 0,
        files: 0,
        rows: 0,
        bytes: 0,
        rejects: 0,
        skips: 0,
        skipped_offsets: 0,
        newest_streams: 0,
        newest_gone: 0,
        findings: Vec::new(),
    };
    let mut after = paths.before_entry(0);
    loop {
        // One more than is looked at now: the newest is known by having none behind it.
        let page = firsts(state, &paths, &paths.entries(), &after, PAGE + 1).await?;
        for (i, first) in page.iter().copied().take(PAGE).enumerate() {
            let object = paths.entry(first);
            let entry = match read_entry(state, &paths, &report.ledger.id, first).await {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
                    report.found(FindingKind::Unreadable, object, None, e.to_string());
                    continue;
                }
                Err(e) => return Err(e),
            };
            let expected = report.next;
            if first > expected {
                let text = format!("no entry covers offsets {expected} to {}", first - 1);
                report.found(FindingKind::Gap, object.clone(), Some((expected, first)), text);
            } else if first < expected {
                let end = expected.min(entry.next);
                let text = format!("offsets {first} to {} are in two entries", end - 1);
                report.found(FindingKind::Overlap, object.clone(), Some((first, end)), text);
            }
            let is_tip = i + 1 == page.len();
            let offsets = Some((entry.first, entry.next));
            report.next = report.next.max(entry.next);
            report.entries += 1;
            report.rejects += entry.reject_count();
            if entry.note.is_some() {
                report.skips += 1;
                report.skipped_offsets += entry.next.abs_diff(entry.first);
            }
            verify_files(config, &entry, is_tip, &mut report, known).await?;
            if let Some(rejects) = &entry.rejects
                && let Err(e) = read_rejects(state, rejects).await
            {
                report.found(FindingKind::MissingRejects, object, offsets, e.to_string());
            }
        }
        match page.get(PAGE - 1) {
            Some(last) if page.len() > PAGE => after = paths.entry(*last),
            _ => break,
        }
    }
    for name in all_orphans(config, &report.ledger.id).await? {
        report.found(FindingKind::Orphan, name, None, "no entry names this staged object".to_owned());
    }
    Ok(report)
}

impl LedgerReport {
    fn found(&mut self, kind: FindingKind, object: String, offsets: Option<(i64, i64)>, text: String) {
        self.findings.push(Finding { kind, object, offsets, text });
    }
}

async fn verify_files(
    config: &SinkConfig,
    entry: &Entry,
    is_tip: bool,
    report: &mut LedgerReport,
    known: &mut HashSet<u64>,
) -> Result<()> {
    let objects = &config.0.resources.objects;
    let offsets = Some((entry.first, entry.next));
    // The first file of the newest entry that is still staged.
    let mut waiting: Option<&FileEntry> = None;
    for file in &entry.files {
        known.insert(hash(&file.final_name));
        report.files += 1;
        report.rows += file.rows;
        report.bytes += file.bytes;
        if file.is_stream() {
            let is_default = file.staged.ends_with("/_default");
            report.newest_streams += u64::from(is_tip && !is_default);
            continue;
        }
        let name = file.final_name.clone();
        let mut found = objects.stat(&name).await?;
        let is_staged = found.is_none() && objects.stat(&file.staged).await?.is_some();
        let mut is_lost = false;
        if found.is_none() && !is_staged {
            // A running pipeline may have published it between the two looks; or all, and a user deleted this one.
            found = objects.stat(&name).await?;
            is_lost = match waiting {
                Some(earlier) if found.is_none() => objects.stat(&earlier.staged).await?.is_some(),
                _ => false,
            };
        }
        let (kind, text) = match found {
            Some(found) if found.bytes != file.bytes || found.crc32c != file.crc32c => (
                FindingKind::ChangedFile,
                format!(
                    "has {} bytes and crc32c {:08x}, its entry says {} and {:08x}",
                    found.bytes, found.crc32c, file.bytes, file.crc32c
                ),
            ),
            Some(_) => continue,
            None if is_staged && is_tip => {
                waiting = waiting.or(Some(file));
                let who = if report.retry == 0 { "start" } else { "`dlq replay`" };
                (FindingKind::Pending, format!("is staged; the next {who} publishes it"))
            }
            None if is_staged => {
                (FindingKind::NotPublished, format!("is still {}, and later entries exist", file.staged))
            }
            None if is_lost => {
                let text = format!("was lost before it was published, with {} rows", file.rows);
                (FindingKind::LostFile, text)
            }
            None => {
                report.newest_gone += u64::from(is_tip);
                let text = "was published and is gone; if nobody deleted it on purpose, data is lost";
                (FindingKind::MissingFile, text.to_owned())
            }
        };
        report.found(kind, name, offsets, text);
    }
    Ok(())
}
