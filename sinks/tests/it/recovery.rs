//! A start with a long past behind it: what it asks of the store does not grow with the ledger. Requests are
//! counted, never time.

use std::sync::Arc;

use gristmill_sinks::fake_gcs::{FakeGcs, Op};
use gristmill_sinks::{
    Checkpoint, Entry, Failpoints, FolderStore, GcsConfig, GcsCredentials, GcsStore, Genesis, PartitionSink,
    Rejects, SinkLimits, Store, known_topic_ids, ledger_end, missing_files, repair, sweep_orphans,
    sweep_rejects, verify, verify_ledger,
};
use tempfile::tempdir;
use uuid::Uuid;

use crate::memory::{MemoryStore, Scripted};
use crate::topic::{assert_exactly_once, config, feed, partition, read_back};

/// How many offsets the entry with that number spans.
type Span = fn(i64) -> i64;

const EVEN: Span = |_| 500;
/// A backlog in large entries, then a trickle.
const SHRINKING: Span = |n| if n < 5_000 { 1_000_000 } else { 1 };
const GROWING: Span = |n| if n < 5_000 { 1 } else { 1_000_000 };
/// Bursts of very different size.
const UNEVEN: Span = |n| 1 << (n * 7 % 31);
const SPANS: [(&str, Span); 4] =
    [("even", EVEN), ("shrinking", SHRINKING), ("growing", GROWING), ("uneven", UNEVEN)];

/// The name and content of a genesis and so many entries after it, and where they end. Some entries have an object of
/// rejects, as a stream with many dead letters leaves them.
fn long_ledger(entries: i64, span: Span) -> (Vec<(String, Vec<u8>)>, i64) {
    let id = partition();
    let folder = format!("lake/_gristmill/ledger/{}", id.path());
    let genesis = serde_json::json!({
        "format_version": 1, "start": 0, "pipeline": id.pipeline, "cluster": id.cluster, "topic": id.topic,
        "topic_id": id.topic_id_text(), "partition": id.partition, "created_at": "2026-11-25T00:00:00Z",
    });
    Genesis::parse("genesis.json", genesis.to_string().as_bytes()).expect("it is one");
    let mut objects = vec![(format!("{folder}/genesis.json"), genesis.to_string().into_bytes())];
    let mut first = 0;
    for number in 0..entries {
        let next = first + span(number);
        let mut entry = Entry::new(&id, Uuid::new_v4(), first, next);
        if number % 10 == 0 {
            let name = format!("lake/_gristmill/rejects/{}/{first:020}+{}", id.path(), entry.attempt);
            entry.rejects = Some(Rejects::Object { name: name.clone(), crc32c: 0, bytes: 0, records: 0 });
            objects.push((name, Vec::new()));
        }
        objects.push((format!("{folder}/{first:020}.json"), entry.to_json().expect("it has a JSON form")));
        first = next;
    }
    (objects, first)
}

/// All that a start does before and beside the first record, as `gristmill run` does it; gives where to read on.
async fn start(store: &Arc<dyn Store>) -> (PartitionSink, i64) {
    let settings = config(store).failpoints(Failpoints::none()).build().unwrap();
    let id = partition();
    let end = ledger_end(&settings, &id).await.unwrap().expect("there is a ledger");
    assert!(missing_files(&settings, &end.tip.expect("it has entries")).await.unwrap().is_empty());
    assert_eq!(known_topic_ids(&settings, &id.topic).await.unwrap(), [id.topic_id]);
    let opened = PartitionSink::open(settings.clone(), id, 0).await.unwrap();
    let swept = sweep_orphans(&settings, opened.0.id()).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (0, 0));
    opened
}

fn bucket(gcs: &FakeGcs) -> Arc<dyn Store> {
    gcs.create_bucket("lake");
    let settings =
        GcsConfig::builder("lake").endpoint(gcs.url()).credentials(GcsCredentials::Anonymous).build();
    Arc::new(GcsStore::open(settings.unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_ten_thousand_entries_behind_it_asks_a_bucket_a_few_dozen_times() {
    let mut short = None;
    for (name, span) in SPANS {
        for entries in [10, 10_000] {
            let gcs = FakeGcs::start();
            let store = bucket(&gcs);
            let (objects, end) = long_ledger(entries, span);
            for (name, content) in objects {
                gcs.put_object("lake", &name, content);
            }
            let (_, next) = start(&store).await;
            assert_eq!(next, end, "{name}");
            let requests = gcs.requests();
            let all: u64 = requests.values().sum();
            println!("{name}, {entries} entries: {all} requests, {requests:?}");
            let short = *short.get_or_insert(all);
            // Two searches for the newest entry, each some listings longer.
            assert!(all <= short + 60, "{name}, {entries} entries: {requests:?}, and {short} for few");
            assert!(gcs.requested(Op::GetMedia) <= 10, "{name}: {requests:?}");
        }
    }
}

#[tokio::test]
async fn a_start_with_ten_thousand_entries_behind_it_looks_into_a_folder_a_few_dozen_times() {
    for (name, span) in [("even", EVEN), ("growing", GROWING)] {
        let folder = tempdir().unwrap();
        let (objects, end) = long_ledger(10_000, span);
        for (name, content) in objects {
            let path = folder.path().join(name);
            if let Err(error) = std::fs::write(&path, &content) {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &content).unwrap();
            }
        }
        let counted = Scripted::new(Arc::new(FolderStore::open(folder.path()).unwrap()));
        let store: Arc<dyn Store> = counted.clone();
        let (_, next) = start(&store).await;
        assert_eq!(next, end, "{name}");
        println!("{name}: {} looks", counted.looks());
        assert!(counted.looks() <= 80, "{name}: {} looks", counted.looks());
    }
}

#[tokio::test]
async fn rejects_of_published_entries_cost_the_next_start_nothing_and_stay() {
    let counted = Scripted::new(Arc::new(MemoryStore::default()));
    let store: Arc<dyn Store> = counted.clone();
    let limits = SinkLimits { inline_reject_bytes: 0, ..SinkLimits::default() };
    let settings = config(&store).limits(limits).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(settings.clone(), partition(), 0).await.unwrap();
    for at in (0..400).step_by(20) {
        feed(&mut sink, at, at + 20).await.unwrap();
        assert!(matches!(sink.checkpoint().await.unwrap(), Checkpoint::Published(_)));
    }
    let rejects = format!("lake/_gristmill/rejects/{}/", partition().path());
    assert_eq!(store.list(&rejects, None, 100).await.unwrap().len(), 20);
    let before = counted.looks();
    assert_eq!(sweep_orphans(&settings, &partition()).await.unwrap(), Default::default());
    assert_eq!(counted.looks() - before, 1, "one listing of nothing");

    // One that nobody names is found by a verification, deleted by a repair, and the others are left.
    let orphan = format!("{rejects}{:020}+{}", 40, Uuid::new_v4());
    store.create_if_absent(&orphan, "x".into()).await.unwrap();
    let ledger = verify(&settings).await.unwrap().ledgers.remove(0).ledger;
    let report = verify_ledger(&settings, ledger.clone()).await.unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!(report.findings[0].object, orphan);
    let mut repaired = Default::default();
    repair(&settings, &report, false, &mut repaired).await.unwrap();
    assert_eq!(repaired.swept, 1);
    let swept = sweep_rejects(&settings, &partition()).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (0, 20));
    assert!(verify_ledger(&settings, ledger).await.unwrap().findings.is_empty());
    assert_exactly_once(&store, 400).await;
}

#[tokio::test]
async fn orphans_of_one_range_cost_one_look_at_its_entry() {
    let counted = Scripted::new(Arc::new(MemoryStore::default()));
    let store: Arc<dyn Store> = counted.clone();
    let settings = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(settings.clone(), partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    sink.checkpoint().await.unwrap();
    let (died, staged) = (Uuid::new_v4(), format!("lake/_gristmill/staged/{}/", partition().path()));
    for seq in 0..200 {
        let name = format!("{staged}{:020}+{died}+{seq:03}", 0);
        store.create_if_absent(&name, "x".into()).await.unwrap();
    }
    let before = counted.looks();
    let swept = sweep_orphans(&settings, &partition()).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (200, 0));
    assert_eq!(counted.looks() - before, 2);
    assert!(!read_back(&store, "lake").await.is_empty());
}
