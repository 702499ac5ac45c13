//! The audit: every offset of a range accounted for, and the books compared with what lies in the store.

use std::collections::HashSet;

use jiff::Timestamp;

use super::audit::{LedgerRef, Ledgers, survey_ledgers};
use super::driver::{firsts, read_rejects};
use super::entry::{Counts, Entry, FileEntry};
use super::places::{self, Place};
use super::report::{
    AuditFinding, AuditKind, AuditReport, AuditScope, MAX_PLACES, PAGE, PartitionAudit, Stored, TryAudit,
    Window, fetch, hash,
};
use super::{foreign, retried};
use crate::config::SinkConfig;
use crate::dead_letter::{DeadLetter, Stage};
use crate::error::{Error, ErrorKind, Result};

/// Accounts for every offset of the scope, and compares the ledger with what lies in the store.
///
/// # What is checked
/// For each entry, exactly:
/// - its files are there with the size and checksum of the entry, and hold the rows that it counted;
/// - every row's place (`_kafka_partition`, `_kafka_offset`, `_kafka_sub`) is inside the entry's range, and no
///   place stands twice, in a row or a dead letter;
/// - `read` records are the rows and dead letters that are records themselves (sub 0) and the dropped ones. What
///   a transform added (sub 1 and up) belongs to a record that is accounted for already.
///
/// Entries are disjoint ranges, so that rows of different entries cannot meet. Data files that no entry names are
/// compared with the rows of the entries whose offsets they hold.
///
/// What tries to deliver dead letters again have written is compared in the same way, and with the rows of the pipeline. How many
/// rows come of a record that is tried again is not known, and not counted.
///
/// Where files have no such columns, rows are only counted, and `read` can at most be the sum of rows, dead
/// letters and dropped records.
///
/// # What it costs
/// Every file of the scope is read once, one after the other and each as a whole, those over 1 GiB apart, and those of tries once more,
/// with the pipeline's files of their offsets; names under the prefix are listed. Memory is one file (two, while those of
/// tries are compared), some million places, and some bytes for each file of the scope. Changes nothing, and is safe beside a running pipeline. `on_file` is called for every file that was
/// read.
///
/// # Errors
/// Those of the stores. What does not add up is in the report.
pub async fn audit(
    config: &SinkConfig,
    scope: &AuditScope,
    on_file: &(dyn Fn() + Send + Sync),
) -> Result<AuditReport> {
    let mut report = AuditReport::default();
    let mut windows = Vec::new();
    let mut known = HashSet::new();
    for number in 0..=config.tries().await? {
        let config = &config.of_try(number);
        let Ledgers { whole, broken } = survey_ledgers(config).await?;
        for broken in broken.into_iter().filter(|b| scope.takes(&b.topic, b.partition)) {
            let (kind, range, redundant) = (AuditKind::Unreadable, None, false);
            report.found(AuditFinding { kind, object: broken.object, text: broken.text, range, redundant });
        }
        for ledger in whole.iter().filter(|l| scope.takes(&l.id.topic, Some(l.id.partition))) {
            windows.extend(audit_ledger(config, scope, ledger, &mut known, &mut report, on_file).await?);
        }
    }
    retried::audit(config, &windows, &mut report, on_file).await?;
    foreign::audit(config, scope, &windows, &known, &mut report, on_file).await?;
    Ok(report)
}

async fn audit_ledger(
    config: &SinkConfig,
    scope: &AuditScope,
    ledger: &LedgerRef,
    known: &mut HashSet<u64>,
    report: &mut AuditReport,
    on_file: &(dyn Fn() + Send + Sync),
) -> Result<Option<Window>> {
    let Some(mut window) = window(config, scope, ledger).await? else { return Ok(None) };
    let id = &ledger.id;
    let first = window.first();
    let mut account = PartitionAudit {
        topic: id.topic.clone(),
        topic_id: id.topic_id_text(),
        partition: id.partition,
        first: if window.is_cut { first } else { ledger.start.min(first) },
        next: first,
        entries: 0,
        counts: Counts::default(),
        without_record: 0,
        given_up: 0,
        files: 0,
        rows: 0,
        emitted_rows: 0,
        rejected: 0,
        emitted_rejected: 0,
        files_by_count: 0,
    };
    let mut expected = account.first;
    for (i, first) in window.firsts.iter().copied().enumerate() {
        let object = window.paths.entry(first);
        let found =
            |kind, text, range| AuditFinding { kind, object: object.clone(), text, range, redundant: false };
        let entry = match window.entry(config, first).await {
            Ok(Some(entry)) => entry,
            Ok(None) => continue,
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
                report.found(found(AuditKind::Unreadable, e.to_string(), None));
                continue;
            }
            Err(e) => return Err(e),
        };
        if first > expected {
            let text = format!("no entry covers offsets {expected} to {}", first - 1);
            report.found(found(AuditKind::Gap, text, window.range(expected, first)));
        } else if first < expected {
            let text = format!("offsets {first} to {} are in two entries", expected.min(entry.next) - 1);
            report.found(found(AuditKind::Overlap, text, window.range(first, expected.min(entry.next))));
        }
        expected = expected.max(entry.next);
        known.extend(entry.files.iter().map(|f| hash(&f.final_name)));
        let is_tip = i + 1 == window.firsts.len();
        let books = Books { config, window: &window, entry: &entry, is_tip, object };
        books.audit(&mut account, report, on_file).await?;
    }
    account.next = expected;
    window.next = expected;
    // Gaps are findings of their own; what is left holds no record.
    let offsets = u64::try_from(account.next - account.first).unwrap_or_default();
    account.without_record = offsets.saturating_sub(account.counts.read).saturating_sub(account.given_up);
    if window.retry == 0 {
        report.partitions.push(account);
        return Ok(Some(window));
    }
    let PartitionAudit { topic, topic_id, partition, counts, files, rows, rejected, files_by_count, .. } =
        account;
    report.tries.push(TryAudit {
        number: window.retry,
        topic,
        topic_id,
        partition,
        counts,
        files,
        rows,
        rejected,
        files_by_count,
        not_compared: 0,
    });
    Ok(Some(window))
}

/// The entries of the scope; `None` if there are none.
async fn window(config: &SinkConfig, scope: &AuditScope, ledger: &LedgerRef) -> Result<Option<Window>> {
    let (state, paths) = (config.state().0, config.0.paths(&ledger.id));
    let mut all = Vec::new();
    let mut after = paths.before_entry(0);
    loop {
        let page = firsts(state, &paths, &paths.entries(), &after, PAGE).await?;
        all.extend(&page);
        match page.last() {
            Some(last) if page.len() >= PAGE => after = paths.entry(*last),
            _ => break,
        }
    }
    let mut window = Window {
        id: ledger.id.clone(),
        retry: config.0.retry_number,
        paths,
        firsts: all,
        next: ledger.start,
        is_cut: false,
    };
    if let Some(since) = scope.since {
        let since = Timestamp::try_from(since)
            .map_err(|e| Error::new(ErrorKind::Usage, "the audit would start at no time").with_source(e))?;
        // Entries follow each other in time too: find the first that is young enough without reading all.
        let (mut old, mut young) = (0, window.firsts.len());
        while old < young {
            let middle = old + (young - old) / 2;
            let is_old = match window.entry(config, window.firsts[middle]).await {
                Ok(Some(entry)) => entry.created_at.parse::<Timestamp>().is_ok_and(|at| at < since),
                Ok(None) => false,
                Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => false,
                Err(e) => return Err(e),
            };
            if is_old {
                old = middle + 1;
            } else {
                young = middle;
            }
        }
        window.firsts.drain(..old);
        window.is_cut = old > 0;
    }
    Ok((!window.firsts.is_empty()).then_some(window))
}

/// One entry and where it stands.
struct Books<'a> {
    config: &'a SinkConfig,
    window: &'a Window,
    entry: &'a Entry,
    is_tip: bool,
    /// The entry's own name.
    object: String,
}

/// What the files and the rejects of one entry hold.
#[derive(Default)]
struct Tally {
    rows: u64,
    /// Rows and letters that are records themselves.
    records: u64,
    emitted_rows: u64,
    /// Every file is there, and says where its rows came from.
    is_complete: bool,
    doubled: Option<(u64, Place)>,
}

impl Books<'_> {
    fn found(&self, kind: AuditKind, object: &str, text: String) -> AuditFinding {
        let range = self.window.range(self.entry.first, self.entry.next);
        AuditFinding { kind, object: object.to_owned(), text, range, redundant: false }
    }

    async fn audit(
        &self,
        account: &mut PartitionAudit,
        report: &mut AuditReport,
        on_file: &(dyn Fn() + Send + Sync),
    ) -> Result<()> {
        let entry = self.entry;
        account.entries += 1;
        if entry.note.is_some() {
            account.given_up += entry.next.abs_diff(entry.first);
        }
        account.files += entry.files.len() as u64;
        account.counts.add(&entry.counts);
        let letters = match &entry.rejects {
            None => Some(Vec::new()),
            Some(rejects) => match read_rejects(self.config.state().0, rejects).await {
                Ok(letters) => Some(letters),
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    report.found(self.found(AuditKind::Unreadable, &self.object, e.to_string()));
                    None
                }
                Err(e) => return Err(e),
            },
        };
        let letter_count = letters.as_ref().map_or(0, Vec::len) as u64;
        account.rejected += letter_count;
        account.emitted_rejected += letters.iter().flatten().filter(|l| l.sub > 0).count() as u64;

        let most = entry.files.iter().map(|f| f.rows).sum::<u64>() + letter_count;
        let passes = most.div_ceil(MAX_PLACES as u64).max(1);
        let mut tally = Tally { is_complete: letters.is_some(), ..Tally::default() };
        for pass in 0..passes {
            let chosen = |offset: i64| {
                u64::try_from(offset.saturating_sub(entry.first)).is_ok_and(|delta| delta % passes == pass)
            };
            let mut places: Vec<Place> =
                letters.iter().flatten().map(|l| self.place_of(l)).filter(|p| chosen(p.offset)).collect();
            for file in &entry.files {
                self.audit_file(file, pass == 0, &chosen, &mut places, &mut tally, account, report).await?;
                on_file();
            }
            tally.records += places.iter().filter(|p| p.sub == 0).count() as u64;
            places.sort_unstable();
            let twice = places.windows(2).filter(|pair| pair[0] == pair[1]);
            for pair in twice {
                let (times, first) = tally.doubled.unwrap_or((0, pair[0]));
                tally.doubled = Some((times + 1, first));
            }
        }
        account.rows += tally.rows;
        account.emitted_rows += tally.emitted_rows;
        if let Some((times, place)) = tally.doubled {
            let text = format!(
                "{times} places stand twice among the rows and dead letters of this range, the first at offset {} \
                 (number {} within the record)",
                place.offset, place.sub
            );
            report.found(self.found(AuditKind::DoubledRows, &self.object, text));
        }
        self.check_counts(&tally, letters.as_deref(), report);
        Ok(())
    }

    fn place_of(&self, letter: &DeadLetter) -> Place {
        let sub = i32::try_from(letter.sub).unwrap_or(i32::MAX);
        Place { partition: self.window.id.partition, offset: letter.offset, sub }
    }

    /// Checks one file in the first pass, and gathers the places of its rows that belong to this pass.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site; a struct of them would have no meaning of its own"
    )]
    async fn audit_file(
        &self,
        file: &FileEntry,
        is_first_pass: bool,
        chosen: &(dyn Fn(i64) -> bool + Sync),
        places: &mut Vec<Place>,
        tally: &mut Tally,
        account: &mut PartitionAudit,
        report: &mut AuditReport,
    ) -> Result<()> {
        let name = &file.final_name;
        let mut stored = fetch(self.config, name).await?;
        if is_first_pass && matches!(stored, Stored::Nothing) {
            let staged = self.config.0.resources.objects.stat(&file.staged).await?.is_some();
            // It may have been published between the two looks.
            stored = fetch(self.config, name).await?;
            if matches!(stored, Stored::Nothing) {
                let (kind, text) = match (staged, self.is_tip) {
                    (true, true) => (AuditKind::Pending, "is sealed and not published yet".to_owned()),
                    (true, false) => (
                        AuditKind::MissingFile,
                        format!("is still staged as {}, and later ranges are published", file.staged),
                    ),
                    (false, _) => (
                        AuditKind::MissingFile,
                        format!(
                            "was published with {} rows and is gone; if nobody deleted it on purpose, they are lost",
                            file.rows
                        ),
                    ),
                };
                report.found(self.found(kind, name, text));
            }
        }
        let bytes = match stored {
            Stored::File(bytes) => bytes,
            Stored::Nothing => {
                tally.is_complete = false;
                return Ok(());
            }
            Stored::TooLarge(bytes) => {
                tally.is_complete = false;
                if is_first_pass {
                    account.files_by_count += 1;
                    if bytes != file.bytes {
                        let text = format!("has {bytes} bytes, its entry says {}", file.bytes);
                        report.found(self.found(AuditKind::ChangedFile, name, text));
                    } else {
                        tally.rows += file.rows;
                    }
                }
                return Ok(());
            }
        };
        let (size, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
        let is_changed = size != file.bytes || crc32c != file.crc32c;
        // What was changed by hand is one finding; that the counts differ then is not another.
        tally.is_complete &= !is_changed;
        let mut strays = 0;
        let mut skip = 0;
        let held = loop {
            let content = match places::read(name, bytes.clone(), skip, MAX_PLACES).await {
                Ok(content) => content,
                Err(e) => break Err(e),
            };
            let Some(mut found) = content.places else {
                tally.is_complete = false;
                account.files_by_count += u64::from(is_first_pass);
                break Ok(content.rows);
            };
            let rows = found.len();
            skip += rows;
            found.retain(|p| {
                p.partition == self.window.id.partition
                    && (self.entry.first..self.entry.next).contains(&p.offset)
            });
            strays += rows - found.len();
            if is_first_pass {
                tally.emitted_rows += found.iter().filter(|p| p.sub > 0).count() as u64;
            }
            places.extend(found.into_iter().filter(|p| chosen(p.offset)));
            if rows == 0 || skip as u64 >= content.rows {
                break Ok(content.rows);
            }
        };
        tally.is_complete &= held.is_ok();
        if !is_first_pass {
            return Ok(());
        }
        tally.rows += held.as_ref().copied().unwrap_or_default();
        let holds = match &held {
            Ok(rows) => format!("holds {rows} rows"),
            Err(e) => format!("cannot be read ({e})"),
        };
        if is_changed {
            let text = format!(
                "was changed after it was published: {size} bytes with crc32c {crc32c:08x} instead of {} with {:08x}; it \
                 {holds}, its entry says {}",
                file.bytes, file.crc32c, file.rows
            );
            report.found(self.found(AuditKind::ChangedFile, name, text));
        } else if held != Ok(file.rows) {
            let kind = if held.is_ok() { AuditKind::Counts } else { AuditKind::ChangedFile };
            let text = format!("{holds}, its entry says {} rows", file.rows);
            report.found(self.found(kind, name, text));
        }
        if strays > 0 {
            let text = format!(
                "holds {strays} rows of other offsets than {} to {} of partition {}",
                self.entry.first,
                self.entry.next - 1,
                self.window.id.partition
            );
            report.found(self.found(AuditKind::StrayRows, name, text));
        }
        Ok(())
    }

    fn check_counts(&self, tally: &Tally, letters: Option<&[DeadLetter]>, report: &mut AuditReport) {
        let (entry, counts) = (self.entry, &self.entry.counts);
        let mut wrong = Vec::new();
        let offsets = u64::try_from(entry.next - entry.first).unwrap_or_default();
        if counts.read > offsets {
            wrong.push(format!("{} records were read from {offsets} offsets", counts.read));
        }
        let rows: u64 = entry.files.iter().map(|f| f.rows).sum();
        if counts.written != rows {
            wrong.push(format!("{} rows were written, its files have {rows}", counts.written));
        }
        if let Some(letters) = letters {
            let undecodable = letters.iter().filter(|l| matches!(l.stage, Stage::Decode | Stage::DecodeKey));
            let (all, undecodable) = (letters.len() as u64, undecodable.count() as u64);
            if (counts.rejected_total(), counts.undecodable) != (all, undecodable) {
                wrong.push(format!(
                    "{} records were rejected, {} of them as undecodable, the entry holds {all} and {undecodable}",
                    counts.rejected_total(),
                    counts.undecodable
                ));
            }
        }
        let ended = rows + counts.rejected_total() + counts.dropped;
        if self.window.retry > 0 {
            // Only what was refused of a record is due, which may be a row that was emitted for it.
        } else if tally.is_complete && tally.records + counts.dropped != counts.read {
            wrong.push(format!(
                "{} records were read: {} of them are rows or dead letters, {} were dropped",
                counts.read, tally.records, counts.dropped
            ));
        } else if !tally.is_complete && counts.read > ended {
            wrong.push(format!(
                "{} records were read, {rows} rows, {} rejects and {} drops cannot be all of them",
                counts.read,
                counts.rejected_total(),
                counts.dropped
            ));
        }
        if !wrong.is_empty() {
            report.found(self.found(AuditKind::Counts, &self.object, wrong.join("; ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch};

    use super::*;
    use crate::{
        Checkpoint, Failpoints, FolderStore, Format, MAIN_OUTPUT, ParquetOptions, PartitionId, PartitionSink,
        RowCoord, Store,
    };

    /// Here seven places are gathered at once: 40 rows take six passes, and files are read in pieces.
    #[tokio::test]
    async fn ranges_larger_than_memory_are_read_in_passes_with_the_same_result() {
        for format in [Format::Parquet(ParquetOptions::default()), Format::JsonLines] {
            let folder = tempfile::tempdir().unwrap();
            let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
            let config =
                SinkConfig::builder(store).format(format).failpoints(Failpoints::none()).build().unwrap();
            let id = PartitionId {
                pipeline: "p".into(),
                cluster: "c".into(),
                topic: "t".into(),
                topic_id: [1; 16],
                partition: 0,
            };
            let mut sink = PartitionSink::open(config.clone(), id, 0).await.unwrap().0;
            let coords: Vec<_> =
                (0..40).map(|i| RowCoord { offset: i / 2, sub: (i % 2) as u32, timestamp: None }).collect();
            let columns: [(_, ArrayRef); 3] = [
                ("_kafka_partition", Arc::new(Int32Array::from_value(0, 40))),
                ("_kafka_offset", Arc::new(Int64Array::from_iter_values(coords.iter().map(|c| c.offset)))),
                ("_kafka_sub", Arc::new(Int32Array::from_iter_values(coords.iter().map(|c| c.sub as i32)))),
            ];
            let rows = RecordBatch::try_from_iter(columns).unwrap();
            sink.tally(20, 0);
            for output in [MAIN_OUTPUT, "other"] {
                let half = if output == MAIN_OUTPUT { 0..25 } else { 25..40 };
                let rows = rows.slice(half.start, half.len());
                sink.append(output, &rows, &coords[half]).await.unwrap();
            }
            sink.advance(23, None).unwrap();
            let Checkpoint::Published(entry) = sink.checkpoint().await.unwrap() else {
                panic!("not published")
            };
            let report = audit(&config, &AuditScope::default(), &|| {}).await.unwrap();
            assert!(report.is_clean(), "{report:?}");
            let account = &report.partitions[0];
            assert_eq!((account.rows, account.emitted_rows, account.without_record), (40, 20, 3));
            // Rows of tries, too, are more than are gathered at once.
            for number in [1, 2] {
                let id = sink.id().clone();
                let mut sink = PartitionSink::open(config.of_try(number), id, 0).await.unwrap().0;
                let coords: Vec<_> =
                    (0..20).map(|offset| RowCoord { offset, sub: 2, timestamp: None }).collect();
                let columns: [(_, ArrayRef); 3] = [
                    ("_kafka_partition", Arc::new(Int32Array::from_value(0, 20))),
                    ("_kafka_offset", Arc::new(Int64Array::from_iter_values(0..20))),
                    ("_kafka_sub", Arc::new(Int32Array::from_value(2, 20))),
                ];
                let rows = RecordBatch::try_from_iter(columns).unwrap();
                sink.append(MAIN_OUTPUT, &rows, &coords).await.unwrap();
                sink.advance(20, None).unwrap();
                assert!(matches!(sink.checkpoint().await.unwrap(), Checkpoint::Published(_)));
            }
            let report = audit(&config, &AuditScope::default(), &|| {}).await.unwrap();
            let doubled: u64 = report
                .findings
                .iter()
                .map(|f| f.text.split(' ').next().unwrap().parse::<u64>().unwrap())
                .sum();
            assert!(
                report.findings.iter().all(|f| f.object.contains("-dlq-2.")) && doubled == 20,
                "{report:?}"
            );
            std::fs::remove_dir_all(folder.path().join("_gristmill/dlq")).unwrap();
            for file in std::fs::read_dir(folder.path().join("t")).unwrap().map(|file| file.unwrap().path()) {
                if file.to_string_lossy().contains("-dlq-") {
                    std::fs::remove_file(file).unwrap();
                }
            }
            let file = folder.path().join(&entry.files[0].final_name);
            let copy = file.with_file_name(format!("copy.{}", format.extension()));
            std::fs::copy(&file, copy).unwrap();
            let report = audit(&config, &AuditScope::default(), &|| {}).await.unwrap();
            assert_eq!(report.findings.len(), 1, "{report:?}");
            let expected = format!("{0} of its {0} rows are in the folder already", entry.files[0].rows);
            assert!(report.findings[0].text.contains(&expected), "{report:?}");
        }
    }
}
