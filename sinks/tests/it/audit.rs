//! Books and files: what adds up, and what an audit says when something does not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use gristmill_sinks::{
    AuditKind, AuditReport, AuditScope, Checkpoint, DirectoryTemplate, Failpoints, FolderStore, Format,
    MAIN_OUTPUT, Note, ParquetOptions, PartitionId, PartitionSink, Published, RowCoord, SinkConfig, Store,
    audit, list_ledgers, skip, verify,
};
use tempfile::{TempDir, tempdir};

use crate::topic::{config, is_rejected, partition, rejected, rows_of, timestamp_of};

struct Lake {
    folder: TempDir,
    config: SinkConfig,
}

impl Lake {
    fn new(format: Format) -> Self {
        let folder = tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
        let template = DirectoryTemplate::parse("dt=%Y-%m-%d").unwrap();
        let config = config(&store).format(format).directories(template).failpoints(Failpoints::none());
        Lake { folder, config: config.build().unwrap() }
    }

    fn parquet() -> Self {
        Lake::new(Format::Parquet(ParquetOptions::default()))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn sink(&self, number: i32) -> PartitionSink {
        let id = PartitionId { partition: number, ..partition() };
        PartitionSink::open(self.config.clone(), id, 0).await.unwrap().0
    }

    async fn audit(&self) -> AuditReport {
        audit(&self.config, &AuditScope::default(), &|| {}).await.unwrap()
    }

    /// The one finding that there is.
    async fn finding(&self) -> (AuditKind, String, String) {
        let report = self.audit().await;
        assert!(!report.is_clean() && report.findings.len() == 1, "{:#?}", report.findings);
        let finding = report.findings[0].clone();
        (finding.kind, finding.object, finding.text)
    }
}

fn rows(partition: i32, coords: &[RowCoord]) -> RecordBatch {
    let columns: [(_, ArrayRef); 3] = [
        ("_kafka_partition", Arc::new(Int32Array::from_value(partition, coords.len()))),
        ("_kafka_offset", Arc::new(Int64Array::from_iter_values(coords.iter().map(|c| c.offset)))),
        ("_kafka_sub", Arc::new(Int32Array::from_iter_values(coords.iter().map(|c| c.sub as i32)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// One range of the made-up topic: rows, emits, drops and rejects. Every tenth offset holds no record.
async fn publish(sink: &mut PartitionSink, from: i64, to: i64) -> Published {
    let offsets = || (from..to).filter(|o| o % 10 != 9);
    let coords: Vec<_> = offsets()
        .flat_map(|offset| {
            (0..rows_of(offset)).map(move |sub| RowCoord { offset, sub, timestamp: timestamp_of(offset) })
        })
        .collect();
    for offset in offsets().filter(|o| is_rejected(*o)) {
        sink.reject(rejected(offset)).unwrap();
    }
    let dropped = offsets().filter(|o| rows_of(*o) == 0 && !is_rejected(*o)).count() as u64;
    sink.tally(offsets().count() as u64, dropped);
    let batch = rows(sink.id().partition, &coords);
    sink.append(MAIN_OUTPUT, &batch, &coords).await.unwrap();
    sink.advance(to, None).unwrap();
    match sink.checkpoint().await.unwrap() {
        Checkpoint::Published(entry) => entry,
        other => panic!("not published: {other:?}"),
    }
}

#[tokio::test]
async fn a_clean_run_is_clean_with_drops_rejects_and_emits() {
    for format in [Format::Parquet(ParquetOptions::default()), Format::JsonLines] {
        let lake = Lake::new(format);
        for number in [0, 3] {
            let mut sink = lake.sink(number).await;
            for from in [0, 100, 200] {
                publish(&mut sink, from, from + 100).await;
            }
        }
        let read = AtomicU64::new(0);
        let report = audit(&lake.config, &AuditScope::default(), &|| {
            read.fetch_add(1, Ordering::Relaxed);
        })
        .await
        .unwrap();
        assert!(report.is_clean() && report.findings.is_empty(), "{:#?}", report.findings);
        let numbers: Vec<_> = report.partitions.iter().map(|p| p.partition).collect();
        assert_eq!(numbers, [0, 3]);
        let account = &report.partitions[0];
        let records = || (0..300).filter(|o| o % 10 != 9);
        let rows: u32 = records().map(rows_of).sum();
        let emitted = records().filter(|o| rows_of(*o) == 2).count() as u64;
        let rejected = records().filter(|o| is_rejected(*o)).count() as u64;
        assert_eq!((account.first, account.next, account.entries), (0, 300, 3));
        assert_eq!((account.counts.read, account.without_record), (270, 30));
        assert_eq!((account.rows, account.emitted_rows), (u64::from(rows), emitted));
        assert_eq!((account.rejected, account.emitted_rejected, account.files_by_count), (rejected, 0, 0));
        assert_eq!(account.rows - emitted + rejected + account.counts.dropped, 270, "all are accounted for");
        assert_eq!(read.into_inner(), report.partitions.iter().map(|p| p.files).sum::<u64>());
    }
}

#[tokio::test]
async fn a_missing_file_is_found_with_its_range() {
    let lake = Lake::parquet();
    let mut sink = lake.sink(3).await;
    publish(&mut sink, 0, 100).await;
    let entry = publish(&mut sink, 100, 200).await;
    std::fs::remove_file(lake.path(&entry.files[0].final_name)).unwrap();
    let report = lake.audit().await;
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    let finding = &report.findings[0];
    assert_eq!((finding.kind, &finding.object), (AuditKind::MissingFile, &entry.files[0].final_name));
    assert!(finding.text.contains(&format!("with {} rows and is gone", entry.files[0].rows)));
    let range = finding.range.as_ref().unwrap();
    assert_eq!((&range.topic[..], range.partition, range.first, range.next), ("orders", 3, 100, 200));
}

#[tokio::test]
async fn rows_that_a_foreign_copy_doubles_are_found_and_the_copy_is_named() {
    for format in [Format::Parquet(ParquetOptions::default()), Format::JsonLines] {
        let lake = Lake::new(format);
        for number in [0, 3] {
            publish(&mut lake.sink(number).await, 0, 100).await;
        }
        let mut sink = lake.sink(3).await;
        let entry = publish(&mut sink, 100, 200).await;
        let file = &entry.files[0];
        // Beside it, in the topic's folder, at the top, and under a name that could be of a later range.
        let base = Path::new(&file.final_name).file_name().unwrap().to_str().unwrap();
        let later = base.replace("00000000000000000100", "00000000000000000150");
        for copy in [
            format!("lake/orders/dt=copy/{base}"),
            format!("lake/orders/mine.{}", format.extension()),
            format!("lake/mine.{}", format.extension()),
            format!("lake/orders/{later}"),
        ] {
            std::fs::create_dir_all(lake.path(&copy).parent().unwrap()).unwrap();
            std::fs::copy(lake.path(&file.final_name), lake.path(&copy)).unwrap();
            let (kind, object, text) = lake.finding().await;
            assert_eq!((kind, &object), (AuditKind::DoubledRows, &copy));
            // Without a topic id in the file, only its folder can say that no other topic is meant.
            let is_known = copy != "lake/mine.jsonl";
            assert_eq!(lake.audit().await.findings[0].redundant, is_known, "{copy}");
            let all = format!(
                "{0} of its {0} rows are in the folder already, the first in {1} ",
                file.rows, file.final_name
            );
            assert!(text.contains(&all), "{text}");
            std::fs::remove_file(lake.path(&copy)).unwrap();
        }
        // Neither what readers skip nor what is no data concerns anybody.
        for other in ["lake/orders/_copy.parquet", "lake/.hidden/a.parquet", "lake/orders/README.txt"] {
            std::fs::create_dir_all(lake.path(other).parent().unwrap()).unwrap();
            std::fs::copy(lake.path(&file.final_name), lake.path(other)).unwrap();
        }
        assert!(lake.audit().await.is_clean());
    }
}

#[tokio::test]
async fn foreign_rows_that_nothing_doubles_are_named_too() {
    let lake = Lake::new(Format::JsonLines);
    publish(&mut lake.sink(3).await, 0, 100).await;
    let name = "lake/orders/extra.jsonl";
    for (lines, part) in [
        (
            "{\"_kafka_partition\":3,\"_kafka_offset\":3,\"_kafka_sub\":0}\n",
            "its 1 rows are not those of any audited range",
        ),
        (
            "{\"_kafka_partition\":9,\"_kafka_offset\":1,\"_kafka_sub\":0}\n",
            "its 1 rows are not those of any audited range",
        ),
        ("{\"id\":7}\n{\"id\":8}\n", "its 2 rows do not say where they came from"),
        ("nonsense", "cannot be compared: row 0 is not a JSON object"),
    ] {
        std::fs::write(lake.path(name), lines).unwrap();
        let (kind, object, text) = lake.finding().await;
        assert_eq!((kind, object.as_str()), (AuditKind::ForeignFile, name));
        assert!(text.contains(part), "{text}");
    }
}

/// A row as a file of JSON lines has it.
fn line(partition: i32, offset: i64) -> String {
    format!("{{\"_kafka_partition\":{partition},\"_kafka_offset\":{offset},\"_kafka_sub\":0}}\n")
}

#[tokio::test]
async fn a_file_is_redundant_only_if_all_of_its_rows_stand_elsewhere_under_its_topic() {
    let lake = Lake::new(Format::JsonLines);
    publish(&mut lake.sink(3).await, 0, 100).await;
    let mine = "lake/orders/mine.jsonl";
    let redundant = async || {
        let report = lake.audit().await;
        assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
        assert_eq!(report.findings[0].kind, AuditKind::DoubledRows);
        report.findings[0].redundant
    };
    std::fs::write(lake.path(mine), line(3, 1) + &line(3, 2)).unwrap();
    assert!(redundant().await);
    // One of them stands nowhere else; that another stands twice must not make up for it.
    std::fs::write(lake.path(mine), line(3, 1) + &line(3, 5000)).unwrap();
    assert!(!redundant().await);
    assert!(lake.finding().await.2.contains("1 of its 2 rows"), "a count of its own rows");
    // Another topic of that name has rows at the same places.
    let again = PartitionId { topic_id: [7; 16], ..partition() };
    drop(PartitionSink::open(lake.config.clone(), again, 0).await.unwrap());
    std::fs::write(lake.path(mine), line(3, 1)).unwrap();
    assert!(!redundant().await);
}

#[tokio::test]
async fn rows_that_could_be_of_several_topics_are_not_compared_by_chance() {
    let lake = Lake::new(Format::JsonLines);
    publish(&mut lake.sink(3).await, 0, 100).await;
    let other = PartitionId { topic: "other".into(), topic_id: [7; 16], ..partition() };
    publish(&mut PartitionSink::open(lake.config.clone(), other, 0).await.unwrap().0, 0, 100).await;
    std::fs::write(lake.path("lake/mine.jsonl"), line(3, 1)).unwrap();
    let (kind, _, text) = lake.finding().await;
    assert_eq!(kind, AuditKind::ForeignFile);
    assert!(text.contains("do not say which of the topics they are of"), "{text}");
}

#[tokio::test]
async fn files_from_before_a_ledger_that_was_begun_anew_are_a_note_and_never_redundant() {
    let lake = Lake::parquet();
    let old = publish(&mut lake.sink(3).await, 0, 100).await;
    std::fs::remove_dir_all(lake.path("lake/_gristmill/ledger")).unwrap();
    let mut sink = PartitionSink::open(lake.config.clone(), partition(), 100).await.unwrap().0;
    publish(&mut sink, 100, 200).await;
    let report = lake.audit().await;
    assert!(report.is_clean(), "{:#?}", report.findings);
    let found: Vec<_> = report.findings.iter().map(|f| (f.kind, f.object.clone(), f.redundant)).collect();
    let files = old.files.iter().map(|f| (AuditKind::BeforeLedger, f.final_name.clone(), false));
    assert_eq!(found, files.collect::<Vec<_>>());
    assert!(
        report.findings[0].text.contains("is from before this ledger began, at offset 100"),
        "{report:?}"
    );
}

#[tokio::test]
async fn what_is_published_while_the_audit_runs_is_not_foreign() {
    let lake = Lake::parquet();
    publish(&mut lake.sink(3).await, 0, 100).await;
    // Its ledger has begun, and has no entry when the ledgers are read.
    let idle = std::sync::Mutex::new(Some(lake.sink(2).await));
    let publish_more = || {
        let Some(mut sink) = idle.lock().unwrap().take() else { return };
        let config = lake.config.clone();
        let work = async move {
            publish(&mut sink, 0, 100).await;
            // And one of which there was nothing at all.
            let id = PartitionId { partition: 5, ..partition() };
            publish(&mut PartitionSink::open(config, id, 40).await.unwrap().0, 40, 100).await;
        };
        std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(work)).join().unwrap();
    };
    let report = audit(&lake.config, &AuditScope::default(), &publish_more).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.partitions.len(), 1);
}

#[tokio::test]
async fn offsets_that_were_given_up_are_not_said_to_hold_no_record() {
    let lake = Lake::parquet();
    publish(&mut lake.sink(3).await, 0, 100).await;
    let ledger = list_ledgers(&lake.config).await.unwrap().remove(0);
    let note = Note { kind: "skip".into(), reason: String::new(), by: "ada@example".into() };
    skip(&lake.config, &ledger, 130, &note).await.unwrap();
    let report = lake.audit().await;
    assert!(report.is_clean(), "{:#?}", report.findings);
    let account = &report.partitions[0];
    assert_eq!((account.next, account.given_up, account.without_record), (130, 30, 10));
    assert_eq!(account.counts.read, 90);
}

#[tokio::test]
async fn an_edited_file_is_found_and_its_rows_are_counted() {
    let lake = Lake::new(Format::JsonLines);
    let entry = publish(&mut lake.sink(3).await, 0, 100).await;
    let file = &entry.files[0];
    let text = std::fs::read_to_string(lake.path(&file.final_name)).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    // A row is taken out; the same file again is no edit.
    std::fs::write(lake.path(&file.final_name), rest).unwrap();
    let (kind, object, said) = lake.finding().await;
    assert_eq!((kind, &object), (AuditKind::ChangedFile, &file.final_name));
    let expected = format!("it holds {} rows, its entry says {}", file.rows - 1, file.rows);
    assert!(said.contains(&expected), "{said}");
    // A row of another range, and one twice.
    let stray = first.replace("\"_kafka_partition\":3", "\"_kafka_partition\":4");
    std::fs::write(lake.path(&file.final_name), format!("{text}{first}\n{stray}\n")).unwrap();
    let report = lake.audit().await;
    let kinds: Vec<_> = report.findings.iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [AuditKind::ChangedFile, AuditKind::StrayRows, AuditKind::DoubledRows]);
    std::fs::write(lake.path(&file.final_name), "PAR1").unwrap();
    assert!(lake.finding().await.2.contains("cannot be read (row 0 is not a JSON object)"));
    std::fs::write(lake.path(&file.final_name), text).unwrap();
    assert!(lake.audit().await.is_clean());
}

#[tokio::test]
async fn counts_that_do_not_add_up_are_found() {
    let lake = Lake::parquet();
    let entry = publish(&mut lake.sink(3).await, 0, 100).await;
    let ledger = lake.path("lake/_gristmill/ledger").join(partition().path());
    let object = ledger.join("00000000000000000000.json");
    let text = std::fs::read_to_string(&object).unwrap();
    let change = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        change(&mut value);
        std::fs::write(&object, value.to_string()).unwrap();
    };
    change(&|entry| entry["counts"]["read"] = 91.into());
    let (kind, _, said) = lake.finding().await;
    assert!(kind == AuditKind::Counts && said.starts_with("91 records were read: "), "{said}");
    change(&|entry| entry["counts"]["rejected"]["bad"] = 1.into());
    assert!(lake.finding().await.2.contains("1 records were rejected"));
    change(&|entry| entry["files"][0]["rows"] = 1.into());
    let report = lake.audit().await;
    assert!(report.findings.iter().all(|f| f.kind == AuditKind::Counts), "{:#?}", report.findings);
    assert!(report.findings[0].text.contains(&format!("holds {} rows", entry.files[0].rows)));
    change(&|_| {});
    assert!(lake.audit().await.is_clean());
    std::fs::write(&object, "{").unwrap();
    let report = lake.audit().await;
    assert!(report.findings.iter().any(|f| f.kind == AuditKind::Unreadable), "{:#?}", report.findings);
}

#[tokio::test]
async fn an_audit_since_some_time_and_of_one_partition_leaves_the_rest_alone() {
    let lake = Lake::parquet();
    let mut others = lake.sink(0).await;
    let other = publish(&mut others, 0, 50).await;
    let mut sink = lake.sink(3).await;
    let mut published = Vec::new();
    for from in (0..500).step_by(50) {
        published.push(publish(&mut sink, from, from + 50).await);
    }
    // The first seven ranges were sealed long ago, and something is wrong with one of them.
    let ledger = lake.path("lake/_gristmill/ledger").join(partition().path());
    for entry in &published[..7] {
        let object = ledger.join(format!("{:020}.json", entry.first));
        let mut value: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&object).unwrap()).unwrap();
        value["created_at"] = "2020-01-01T00:00:00Z".into();
        std::fs::write(object, value.to_string()).unwrap();
    }
    std::fs::remove_file(lake.path(&published[2].files[0].final_name)).unwrap();
    std::fs::remove_file(lake.path(&other.files[0].final_name)).unwrap();
    let hour = SystemTime::now() - Duration::from_secs(3600);
    let scope = AuditScope { topic: Some("orders".into()), partition: Some(3), since: Some(hour) };
    let report = audit(&lake.config, &scope, &|| {}).await.unwrap();
    assert!(report.is_clean() && report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.partitions.len(), 1);
    let account = &report.partitions[0];
    assert_eq!((account.first, account.next, account.entries), (350, 500, 3));
    assert_eq!(account.counts.read + account.without_record, 150);
    assert_eq!(lake.audit().await.findings.len(), 2);
    // A copy of rows from before the window cannot be judged, and says so.
    let old = &published[0].files[0].final_name;
    std::fs::copy(lake.path(old), lake.path("lake/orders/old.parquet")).unwrap();
    let report = audit(&lake.config, &scope, &|| {}).await.unwrap();
    assert!(report.findings[0].text.contains("rows are of offsets before the audited ranges"), "{report:?}");
    let never =
        AuditScope { since: Some(SystemTime::now() + Duration::from_secs(3600)), ..AuditScope::default() };
    assert!(audit(&lake.config, &never, &|| {}).await.unwrap().partitions.is_empty());
}

#[tokio::test]
async fn rows_without_kafkas_columns_are_counted_and_the_report_says_so() {
    let lake = Lake::parquet();
    let mut sink = lake.sink(3).await;
    crate::topic::feed(&mut sink, 0, 100).await.unwrap();
    let Checkpoint::Published(entry) = sink.checkpoint().await.unwrap() else { panic!("not published") };
    let report = lake.audit().await;
    assert!(report.is_clean(), "{:#?}", report.findings);
    let account = &report.partitions[0];
    assert_eq!((account.files_by_count, account.rows), (entry.files.len() as u64, entry.rows));
}

fn first_partition() -> PartitionId {
    PartitionId { partition: 0, ..partition() }
}

/// A try of the dead letters of a range, which has written these rows.
async fn write_of_try(lake: &Lake, number: u32, id: PartitionId, rows_of_try: &[(i64, u32)]) -> Published {
    let mut sink = PartitionSink::open(lake.config.of_try(number), id, 0).await.unwrap().0;
    let coords: Vec<_> = rows_of_try
        .iter()
        .map(|(offset, sub)| RowCoord { offset: *offset, sub: *sub, timestamp: timestamp_of(*offset) })
        .collect();
    let batch = rows(sink.id().partition, &coords);
    sink.tally(coords.len() as u64, 0);
    sink.append(MAIN_OUTPUT, &batch, &coords).await.unwrap();
    sink.advance(coords.last().expect("rows").offset + 1, None).unwrap();
    match sink.checkpoint_in_any_case().await.unwrap() {
        Checkpoint::Published(entry) => entry,
        other => panic!("not published: {other:?}"),
    }
}

#[tokio::test]
async fn what_tries_of_dead_letters_have_written_is_compared_with_the_rest() {
    for format in [Format::Parquet(ParquetOptions::default()), Format::JsonLines] {
        let lake = Lake::new(format);
        let mut sink = lake.sink(0).await;
        for from in (0..300).step_by(10) {
            publish(&mut sink, from, from + 10).await;
        }
        let letters: Vec<i64> = (0..300).filter(|o| o % 10 != 9 && is_rejected(*o)).collect();
        let (first, rest) = letters.split_at(letters.len() / 2);
        let rows: Vec<_> = first.iter().map(|offset| (*offset, 0)).collect();
        let published = write_of_try(&lake, 1, first_partition(), &rows).await;
        assert!(published.files.iter().all(|f| f.final_name.contains("-dlq-1.")), "{:?}", published.files);
        let rows: Vec<_> = rest.iter().map(|offset| (*offset, 0)).collect();
        write_of_try(&lake, 2, first_partition(), &rows).await;
        // A topic of that name that was made anew has other records at the same places.
        let again = PartitionId { topic_id: [77; 16], ..first_partition() };
        let of_row = (0..300).find(|offset| rows_of(*offset) == 1).unwrap();
        let mut other = PartitionSink::open(lake.config.clone(), again.clone(), 0).await.unwrap().0;
        other.reject(rejected(of_row)).unwrap();
        other.tally(1, 0);
        other.advance(of_row + 1, None).unwrap();
        other.checkpoint_in_any_case().await.unwrap();
        write_of_try(&lake, 1, again, &[(of_row, 0)]).await;

        let report = lake.audit().await;
        assert!(report.is_clean() && report.findings.is_empty(), "{:#?}", report.findings);
        let tries: Vec<_> = report.tries.iter().map(|t| (t.number, t.rows, t.not_compared)).collect();
        assert!(
            tries.contains(&(1, first.len() as u64, 0)) && tries.contains(&(2, rest.len() as u64, 0)),
            "{tries:?}"
        );
        assert_eq!(tries.len(), 3);
        let report = verify(&lake.config).await.unwrap();
        assert!(report.is_sound() && report.foreign_count == 0, "{:?}", report.foreign);
        let of_tries = report.ledgers.iter().filter(|ledger| ledger.retry > 0).count();
        assert_eq!(of_tries, 3);
        // Of a try's configuration it is the same.
        assert!(audit(&lake.config.of_try(2), &AuditScope::default(), &|| {}).await.unwrap().is_clean());

        // A row that the pipeline has, and one that another try has.
        write_of_try(&lake, 3, first_partition(), &[(of_row, 0), (first[0], 0)]).await;
        let report = lake.audit().await;
        // In one file, or in one each for two days.
        let texts: Vec<&str> = report.findings.iter().map(|f| f.text.as_str()).collect();
        let both = texts.iter().all(|text| text.starts_with("1 of its 1 rows")) && texts.len() == 2;
        assert!(both || texts.len() == 1 && texts[0].starts_with("2 of its 2 rows"), "{texts:#?}");
        assert!(report.findings.iter().all(|f| f.kind == AuditKind::DoubledRows));
        assert!(
            report.findings.iter().all(|f| f.range.is_none() && !f.redundant && f.object.contains("-dlq-"))
        );
    }
}

#[tokio::test]
async fn rows_of_tries_before_the_audited_ranges_are_counted() {
    let lake = Lake::parquet();
    let mut sink = lake.sink(0).await;
    publish(&mut sink, 0, 100).await;
    let since = SystemTime::now();
    publish(&mut sink, 100, 200).await;
    let letters: Vec<_> = (0..200).filter(|o| o % 10 != 9 && is_rejected(*o)).map(|o| (o, 0)).collect();
    write_of_try(&lake, 1, first_partition(), &letters).await;
    let early = letters.iter().filter(|(offset, _)| *offset < 100).count() as u64;
    let scope = AuditScope { since: Some(since), ..AuditScope::default() };
    let report = audit(&lake.config, &scope, &|| {}).await.unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(early > 0, "the test needs some");
    assert_eq!(report.tries[0].not_compared, early);
}
