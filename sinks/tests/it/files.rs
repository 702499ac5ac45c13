//! What the files, directories, dead letters and entries of one partition look like.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, RecordBatch, StringArray};
use gristmill_sinks::{
    Checkpoint, DirectoryTemplate, ErrorKind, Failpoints, FindingKind, FolderStore, Format, MAIN_OUTPUT,
    ParquetOptions, PartitionSink, Payload, Rotation, RowCoord, SinkConfig, SinkConfigBuilder, SinkLimits,
    Store, list_ledgers, read_entries, sweep_orphans, verify,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::{TempDir, tempdir};

use crate::memory::{MemoryStore, Scripted};
use crate::topic::{assert_exactly_once, batch, config, feed, partition, read_back, rejected};

fn folder() -> (TempDir, Arc<dyn Store>) {
    let folder = tempdir().unwrap();
    let store = Arc::new(FolderStore::open(folder.path()).unwrap());
    (folder, store)
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

async fn open(config: SinkConfigBuilder) -> PartitionSink {
    let config = config.failpoints(Failpoints::none()).build().unwrap();
    PartitionSink::open(config, partition(), 0).await.unwrap().0
}

/// Rows for these (offset, timestamp) pairs.
async fn append(sink: &mut PartitionSink, output: &str, rows: &[(i64, Option<i64>)]) {
    let coords: Vec<_> =
        rows.iter().map(|(offset, t)| RowCoord { offset: *offset, sub: 0, timestamp: *t }).collect();
    sink.append(output, &batch(&coords), &coords).await.unwrap();
}

async fn publish(sink: &mut PartitionSink) -> gristmill_sinks::Published {
    match sink.checkpoint().await.unwrap() {
        Checkpoint::Published(entry) => entry,
        other => panic!("not published: {other:?}"),
    }
}

fn offsets_in(path: PathBuf) -> Vec<i64> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    reader.flat_map(|b| b.unwrap()["offset"].as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn parquet_files_hold_the_rows_of_their_output_and_day() {
    let (folder, store) = folder();
    let template = DirectoryTemplate::parse("dt=%Y-%m-%d/hour=%H").unwrap();
    let config = SinkConfig::builder(store.clone()).directories(template);
    let mut sink = open(config).await;
    let day = |d: i64| Some(1_704_000_000_000 + d * 86_400_000);
    append(&mut sink, MAIN_OUTPUT, &[(0, day(0)), (1, day(1)), (2, None), (3, day(0)), (4, Some(-5))]).await;
    append(&mut sink, "refunds", &[(1, day(0)), (4, Some(i64::MAX))]).await;
    sink.advance(6, None).unwrap();
    let entry = publish(&mut sink).await;
    let mut found: Vec<_> = entry
        .files
        .iter()
        .map(|f| (f.final_name.as_str(), offsets_in(folder.path().join(&f.final_name))))
        .collect();
    found.sort();
    let name = |dir: &str, seq: u32| format!("orders/{dir}/orders+09090909+00003+{:020}+{seq:03}.parquet", 0);
    let refunds = |dir: &str, seq: u32| {
        format!("orders+refunds/{dir}/orders+refunds+09090909+00003+{:020}+{seq:03}.parquet", 0)
    };
    let mut expected = [
        (name("dt=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__", 0), vec![2]),
        (name("dt=__out_of_range__/hour=__out_of_range__", 1), vec![4]),
        (name("dt=2023-12-31/hour=05", 2), vec![0, 3]),
        (name("dt=2024-01-01/hour=05", 3), vec![1]),
        (refunds("dt=__out_of_range__/hour=__out_of_range__", 4), vec![4]),
        (refunds("dt=2023-12-31/hour=05", 5), vec![1]),
    ];
    expected.sort();
    assert_eq!(found, expected.iter().map(|(n, o)| (n.as_str(), o.clone())).collect::<Vec<_>>());
    assert_eq!((entry.rows, entry.counts.written, entry.first, entry.next), (7, 7, 0, 6));
}

#[tokio::test]
async fn json_lines_and_parquet_say_the_same() {
    let (_folder, store) = folder();
    let mut sink = open(config(&store)).await;
    feed(&mut sink, 0, 100).await.unwrap();
    let entry = publish(&mut sink).await;
    assert_exactly_once(&store, 100).await;
    assert_eq!(entry.counts.read, 100);
    assert_eq!(entry.counts.rejected["bad"], 14);
    let (folder, store) = self::folder();
    let mut sink = open(config(&store).format(Format::Parquet(ParquetOptions::default()))).await;
    feed(&mut sink, 0, 100).await.unwrap();
    let parquet = publish(&mut sink).await;
    assert_eq!((parquet.rows, &parquet.counts), (entry.rows, &entry.counts));
    let read: usize = parquet.files.iter().map(|f| offsets_in(folder.path().join(&f.final_name)).len()).sum();
    assert_eq!(read as u64, entry.rows);
}

#[tokio::test]
async fn an_entry_is_due_by_rows_by_bytes_and_by_age() {
    let store = memory();
    let forever = Rotation { bytes: u64::MAX, rows: u64::MAX, age: Duration::from_secs(3600) };
    let mut sink = open(config(&store).rotation(Rotation { rows: 50, ..forever })).await;
    feed(&mut sink, 0, 20).await.unwrap();
    assert!(!sink.due(Instant::now()));
    feed(&mut sink, 20, 70).await.unwrap();
    assert!(sink.due(Instant::now()));
    publish(&mut sink).await;
    assert!(!sink.due(Instant::now()));
    let mut sink = open(config(&store).rotation(Rotation { bytes: 2000, ..forever })).await;
    feed(&mut sink, 70, 80).await.unwrap();
    assert!(!sink.due(Instant::now()));
    feed(&mut sink, 80, 180).await.unwrap();
    assert!(sink.due(Instant::now()));
    publish(&mut sink).await;
    let mut sink = open(config(&store).rotation(forever)).await;
    assert_eq!(sink.due_at(), None);
    feed(&mut sink, 180, 190).await.unwrap();
    assert!(!sink.due(Instant::now()));
    assert!(sink.due(sink.due_at().unwrap()));
}

#[tokio::test]
async fn an_empty_range_becomes_an_entry_once_it_is_old_enough() {
    let store = memory();
    let hour = Rotation { age: Duration::from_secs(3600), ..Rotation::default() };
    let mut sink = open(config(&store).rotation(hour)).await;
    sink.advance(500, None).unwrap();
    assert_eq!(sink.checkpoint().await.unwrap(), Checkpoint::Nothing);
    assert!(sink.due(Instant::now() + Duration::from_secs(3600)));
    let soon = Rotation { age: Duration::from_nanos(1), ..Rotation::default() };
    let mut sink = open(config(&store).rotation(soon)).await;
    sink.advance(500, Some(7)).unwrap();
    let entry = publish(&mut sink).await;
    assert_eq!((entry.first, entry.next, entry.files.len()), (0, 500, 0));
    assert_eq!(sink.checkpoint().await.unwrap(), Checkpoint::Nothing);
}

#[tokio::test]
async fn the_last_entry_of_a_range_is_made_also_if_it_is_young_and_empty() {
    let store = memory();
    let hour = Rotation { age: Duration::from_secs(3600), ..Rotation::default() };
    let mut sink = open(config(&store).rotation(hour)).await;
    assert_eq!(
        sink.checkpoint_in_any_case().await.unwrap(),
        Checkpoint::Nothing,
        "the position has not moved"
    );
    sink.advance(500, None).unwrap();
    let Checkpoint::Published(entry) = sink.checkpoint_in_any_case().await.unwrap() else {
        panic!("it is published")
    };
    assert_eq!((entry.first, entry.next, entry.files.len()), (0, 500, 0));
    assert_eq!(sink.checkpoint_in_any_case().await.unwrap(), Checkpoint::Nothing);
}

#[tokio::test]
async fn more_directories_than_open_files_lose_nothing_and_end_the_entry() {
    let store = memory();
    let limits = SinkLimits { open_files: 3, ..SinkLimits::default() };
    let mut sink = open(config(&store).limits(limits)).await;
    let rows: Vec<_> = (0..40).map(|o| (o, Some(1_704_000_000_000 + o % 10 * 86_400_000))).collect();
    append(&mut sink, MAIN_OUTPUT, &rows).await;
    sink.advance(40, None).unwrap();
    assert!(sink.due(Instant::now()));
    let entry = publish(&mut sink).await;
    assert_eq!((entry.rows, entry.files.len()), (40, 10));
    assert_eq!(read_back(&store, "lake").await.len(), 40);
}

#[tokio::test]
async fn another_schema_is_another_file_of_the_same_entry() {
    let store = memory();
    let mut sink = open(SinkConfig::builder(store)).await;
    let coords = [RowCoord { offset: 0, sub: 0, timestamp: None }];
    let numbers = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    let words = RecordBatch::try_from_iter([("a", Arc::new(StringArray::from(vec!["x"])) as _)]).unwrap();
    for rows in [&numbers, &words, &numbers] {
        sink.append(MAIN_OUTPUT, rows, &coords).await.unwrap();
    }
    sink.advance(1, None).unwrap();
    let entry = publish(&mut sink).await;
    let mut rows: Vec<_> = entry.files.iter().map(|f| f.rows).collect();
    rows.sort_unstable();
    assert_eq!(rows, [1, 2]);
}

#[tokio::test]
async fn memory_is_bounded_by_streaming_into_staged_uploads() {
    let (folder, store) = folder();
    let limits = SinkLimits { buffered_bytes: 512 << 10, ..SinkLimits::default() };
    let mut sink = open(SinkConfig::builder(store).limits(limits)).await;
    let words: Vec<String> =
        (0..2000u64).map(|i| format!("{:x}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    for delivery in 0..100i64 {
        let coords: Vec<_> =
            (0..2000).map(|i| RowCoord { offset: delivery * 2000 + i, sub: 0, timestamp: None }).collect();
        let text: StringArray = words.iter().map(|w| Some(format!("{w}{delivery}"))).collect();
        let rows = RecordBatch::try_from_iter([("text", Arc::new(text) as _)]).unwrap();
        sink.append(MAIN_OUTPUT, &rows, &coords).await.unwrap();
        sink.advance((delivery + 1) * 2000, None).unwrap();
    }
    let temporary = folder.path().join(".gristmill-tmp");
    let uploaded: u64 =
        std::fs::read_dir(temporary).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    let entry = publish(&mut sink).await;
    assert!(
        uploaded > entry.bytes / 2,
        "{uploaded} of {} bytes were uploaded before the checkpoint",
        entry.bytes
    );
    let path = folder.path().join(&entry.files[0].final_name);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    assert!(reader.metadata().num_row_groups() > 3);
    assert_eq!(reader.metadata().file_metadata().num_rows(), 200_000);
}

#[tokio::test]
async fn dead_letters_carry_the_record_and_come_once_even_if_delivered_twice() {
    for inline in [0, 1 << 20] {
        let store = memory();
        let limits = SinkLimits { inline_reject_bytes: inline, ..SinkLimits::default() };
        let mut sink = open(config(&store).limits(limits)).await;
        sink.reject(rejected(3)).unwrap();
        sink.advance(4, None).unwrap();
        let entry = publish(&mut sink).await;
        assert_eq!((entry.rejects, entry.files.len()), (1, 0));
        let listed =
            store.list("dead/orders/orders+09090909+00003+00000000000000000000+", None, 10).await.unwrap();
        assert_eq!(listed.len(), 1);
        let name = &listed[0].name;
        let before = store.get(name).await.unwrap().unwrap();
        drop(sink);
        // The tip is looked at again, so are its dead letters.
        open(config(&store).limits(limits)).await;
        assert_eq!(store.list("dead/", None, 10).await.unwrap(), listed);
        let line: serde_json::Value = serde_json::from_slice(&before.bytes).unwrap();
        assert_eq!(line["payload"]["value"]["utf8"], "secret-3");
        assert_eq!(line["payload"]["key"], serde_json::Value::Null);
        assert_eq!(line["payload"]["headers"][0][1]["base64"], "/wM=");
        let context = &line["context"];
        assert_eq!(context["__connect.errors.topic"], "orders");
        assert_eq!(context["__connect.errors.partition"], "3");
        assert_eq!(context["__connect.errors.offset"], "3");
        assert_eq!(context["__connect.errors.connector.name"], "test");
        assert_eq!(context["__connect.errors.stage"], "TRANSFORMATION");
        assert_eq!(context["__connect.errors.exception.class.name"], "bad");
        assert_eq!(context["__connect.errors.exception.message"], "order 3 is bad");
    }
}

#[tokio::test]
async fn an_omitted_payload_is_nowhere_in_the_store() {
    for inline in [0, 1 << 20] {
        let store = memory();
        let limits = SinkLimits { inline_reject_bytes: inline, ..SinkLimits::default() };
        let mut sink = open(config(&store).limits(limits).payload(Payload::Omitted)).await;
        feed(&mut sink, 0, 20).await.unwrap();
        assert!(publish(&mut sink).await.rejects > 0);
        for listed in store.list("", None, 1000).await.unwrap() {
            let bytes = store.get(&listed.name).await.unwrap().unwrap().bytes;
            assert!(!String::from_utf8_lossy(&bytes).contains("secret"), "{} holds a payload", listed.name);
        }
        assert_exactly_once(&store, 20).await;
    }
}

#[tokio::test]
async fn calls_that_would_break_the_ledger_are_refused() {
    let mut sink = open(config(&memory())).await;
    feed(&mut sink, 0, 20).await.unwrap();
    let at = |offset| [RowCoord { offset, sub: 0, timestamp: None }];
    let refused = sink.append(MAIN_OUTPUT, &batch(&at(19)), &at(19)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Usage);
    assert_eq!(
        sink.append("a/b", &batch(&at(20)), &at(20)).await.unwrap_err().kind(),
        ErrorKind::InvalidName
    );
    assert_eq!(sink.append("a", &batch(&at(20)), &[]).await.unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(sink.advance(19, None).unwrap_err().kind(), ErrorKind::Usage);
    sink.append(MAIN_OUTPUT, &batch(&at(20)), &at(20)).await.unwrap();
    assert_eq!(sink.checkpoint().await.unwrap_err().kind(), ErrorKind::Usage);
    sink.advance(21, None).unwrap();
    assert_eq!(publish(&mut sink).await.next, 21);
}

#[tokio::test]
async fn a_dropped_append_tears_the_open_entry_and_nothing_else() {
    let store = memory();
    let scripted = Scripted::new(store.clone());
    let hanging: Arc<dyn Store> = scripted.clone();
    let mut sink = open(config(&hanging)).await;
    feed(&mut sink, 0, 20).await.unwrap();
    publish(&mut sink).await;
    scripted.hang();
    let coords = [RowCoord { offset: 20, sub: 0, timestamp: None }];
    let rows = batch(&coords);
    {
        let mut append = std::pin::pin!(sink.append(MAIN_OUTPUT, &rows, &coords));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(append.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(sink.advance(21, None).unwrap_err().kind(), ErrorKind::Torn);
    assert_eq!(sink.checkpoint().await.unwrap_err().kind(), ErrorKind::Torn);
    let mut sink = open(config(&store)).await;
    assert_eq!(sink.position(), 20);
    feed(&mut sink, 20, 40).await.unwrap();
    publish(&mut sink).await;
    assert_exactly_once(&store, 40).await;
}

#[tokio::test]
async fn the_tip_of_a_long_ledger_is_found_and_ls_pages_through_it() {
    let store = memory();
    let soon = Rotation { age: Duration::from_nanos(1), ..Rotation::default() };
    let settings = config(&store).rotation(soon).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, mut at) = PartitionSink::open(settings.clone(), partition(), 17).await.unwrap();
    assert_eq!(at, 17);
    for i in 0..5200i64 {
        // Ranges of all sizes, so that halving distances does not meet them by luck.
        at += 1 + i * i % 991;
        sink.advance(at, None).unwrap();
        publish(&mut sink).await;
        if [1, 999, 1000, 1001, 2000, 2001, 5199].contains(&i) {
            assert_eq!(PartitionSink::open(settings.clone(), partition(), 0).await.unwrap().1, at);
        }
    }
    let ledgers = list_ledgers(&settings).await.unwrap();
    assert_eq!((ledgers.len(), ledgers[0].start), (1, 17));
    let (mut entries, mut from) = (0, 0);
    loop {
        let page = read_entries(&settings, &ledgers[0], from, 700).await.unwrap();
        let Some(last) = page.last() else { break };
        (entries, from) = (entries + page.len(), last.next);
    }
    assert_eq!((entries, from), (5200, at));
    let report = verify(&settings).await.unwrap();
    assert!(report.is_sound());
    assert_eq!((report.ledgers[0].entries, report.ledgers[0].next), (5200, at));
}

#[tokio::test]
async fn verify_finds_what_is_wrong_and_the_sweep_deletes_orphans_only() {
    let (folder, store) = folder();
    let settings = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let mut sink = open(config(&store)).await;
    let mut files = Vec::new();
    for at in [0, 20, 40, 60] {
        feed(&mut sink, at, at + 20).await.unwrap();
        files.push(publish(&mut sink).await.files[0].final_name.clone());
    }
    assert!(verify(&settings).await.unwrap().is_sound());
    let root = folder.path();
    let state = root.join("lake/_gristmill");
    let id = partition();
    let ledger = state.join("ledger").join(id.path());
    let staged = state.join("staged").join(id.path());
    std::fs::write(root.join(&files[0]), "changed").unwrap();
    std::fs::remove_file(root.join(&files[3])).unwrap();
    std::fs::remove_file(ledger.join("00000000000000000020.json")).unwrap();
    let orphan = staged.join("00000000000000000040+some-attempt+000");
    let undecided = staged.join("00000000000000000080+some-attempt+000");
    std::fs::write(&orphan, "x").unwrap();
    std::fs::write(&undecided, "x").unwrap();
    std::fs::write(root.join("lake/orders/mine.txt"), "x").unwrap();
    let report = verify(&settings).await.unwrap();
    assert!(!report.is_sound());
    let mut kinds: Vec<_> = report.ledgers[0].findings.iter().map(|f| (f.kind, f.object.as_str())).collect();
    kinds.sort_by_key(|(kind, _)| format!("{kind:?}"));
    let orphan_name = format!("lake/_gristmill/staged/{}/00000000000000000040+some-attempt+000", id.path());
    let gap_name = format!("lake/_gristmill/ledger/{}/00000000000000000040.json", id.path());
    assert_eq!(
        kinds,
        [
            (FindingKind::ChangedFile, files[0].as_str()),
            (FindingKind::Gap, gap_name.as_str()),
            (FindingKind::MissingFile, files[3].as_str()),
            (FindingKind::Orphan, orphan_name.as_str()),
        ]
    );
    assert!(report.foreign.contains(&"lake/orders/mine.txt".to_owned()));
    let swept = sweep_orphans(&settings, &id).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (1, 1));
    assert!(!orphan.exists() && undecided.exists());
    std::fs::write(ledger.join("00000000000000000060.json"), "{").unwrap();
    let report = verify(&settings).await.unwrap();
    assert!(report.ledgers[0].findings.iter().any(|f| f.kind == FindingKind::Unreadable));
    assert_eq!(PartitionSink::open(settings, id, 0).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn every_mistake_in_the_configuration_is_said_at_once() {
    let store = memory();
    let error = SinkConfig::builder(store)
        .prefix("../up")
        .state_prefix("")
        .rotation(Rotation { rows: 0, ..Rotation::default() })
        .format(Format::Parquet(ParquetOptions { zstd_level: 99, ..ParquetOptions::default() }))
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    for part in ["../up", "state prefix is empty", "0 rows", "zstd level 99"] {
        assert!(error.to_string().contains(part), "{error} does not say {part:?}");
    }
}
