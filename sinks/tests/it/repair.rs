//! What operators may do to a ledger, beside pipelines that run and after everything else has gone wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill_sinks::{
    AuditKind, AuditScope, Checkpoint, ErrorKind, Failpoint, Failpoints, FindingKind, FolderStore, LedgerRef,
    LedgerReport, Note, Operation, PartitionId, PartitionSink, Published, Remedy, Repaired, SinkConfig, Skip,
    Store, audit, entry_at, ledger_end, list_ledgers, missing_files, operations, read_entries, repair,
    settle, skip, survey_ledgers, verify, verify_ledger,
};
use tempfile::{TempDir, tempdir};

use crate::memory::MemoryStore;
use crate::topic::{assert_exactly_once, config, feed, partition, read_back, rows_of};

fn note() -> Note {
    Note { kind: "skip".into(), reason: "a poisoned range".into(), by: "ada@example".into() }
}

async fn ledger(config: &SinkConfig) -> LedgerRef {
    list_ledgers(config).await.unwrap().remove(0)
}

async fn publish(sink: &mut PartitionSink) -> Published {
    match sink.checkpoint().await.unwrap() {
        Checkpoint::Published(entry) => entry,
        other => panic!("not published: {other:?}"),
    }
}

#[tokio::test]
async fn a_skip_seals_the_range_with_who_and_why_and_the_next_start_goes_on_behind_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    publish(&mut sink).await;
    drop(sink);
    let ledger = ledger(&config).await;
    assert_eq!(skip(&config, &ledger, 30, &note()).await.unwrap(), Skip::Sealed { first: 20, next: 30 });
    let error = skip(&config, &ledger, 30, &note()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("ends at offset 30"), "{error}");

    let entries = read_entries(&config, &ledger, 20, 10).await.unwrap();
    assert_eq!((entries.len(), entries[0].next, entries[0].note.clone()), (1, 30, Some(note())));
    assert!(entries[0].files.is_empty() && entries[0].rejects.is_none());
    let (mut sink, next) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    assert_eq!(next, 30);
    feed(&mut sink, 30, 40).await.unwrap();
    publish(&mut sink).await;
    let expected = (0..20).chain(30..40).map(|o| u64::from(rows_of(o))).sum::<u64>();
    assert_eq!(read_back(&store, "lake").await.len() as u64, expected);
    let report = verify(&config).await.unwrap();
    assert!(report.is_sound() && report.ledgers[0].findings.is_empty(), "{report:?}");
    assert_eq!((report.ledgers[0].skips, report.ledgers[0].skipped_offsets), (1, 10));
}

#[tokio::test]
async fn a_skip_beside_a_running_pipeline_takes_its_open_range_from_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    feed(&mut sink, 0, 50).await.unwrap();
    let ledger = ledger(&config).await;
    assert_eq!(skip(&config, &ledger, 30, &note()).await.unwrap(), Skip::Sealed { first: 0, next: 30 });
    assert_eq!(sink.checkpoint().await.unwrap(), Checkpoint::Adopted { next: 30 });
    feed(&mut sink, 30, 50).await.unwrap();
    publish(&mut sink).await;
    assert!(read_back(&store, "lake").await.keys().all(|(offset, _)| *offset >= 30));
    assert!(verify(&config).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_skip_publishes_the_newest_entry_and_its_dead_letters_first() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let dying = config(&store).failpoints(Failpoints::in_process(Failpoint::AfterSeal, 1)).build().unwrap();
    let (mut sink, _) = PartitionSink::open(dying, partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    assert_eq!(sink.checkpoint().await.unwrap_err().kind(), ErrorKind::Injected);
    drop(sink);
    assert!(read_back(&store, "lake").await.is_empty() && read_back(&store, "dead").await.is_empty());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let ledger = ledger(&config).await;
    assert_eq!(skip(&config, &ledger, 25, &note()).await.unwrap(), Skip::Sealed { first: 20, next: 25 });
    assert_exactly_once(&store, 20).await;
}

async fn mend(config: &SinkConfig, report: &LedgerReport, accept_missing: bool) -> Repaired {
    let mut done = Repaired::default();
    repair(config, report, accept_missing, &mut done).await.unwrap();
    done
}

/// As many entries as a listing gives, of which the last is not published: it is the newest all the same. And the entry of each
/// offset is found.
#[tokio::test]
async fn the_newest_entry_is_known_behind_a_full_listing() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let whole = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(whole, partition(), 0).await.unwrap();
    for entry in 0..999 {
        sink.advance(entry * 3 + 3, None).unwrap();
        assert!(matches!(sink.checkpoint_in_any_case().await.unwrap(), Checkpoint::Published(_)));
    }
    let dying = config(&store).failpoints(Failpoints::in_process(Failpoint::AfterSeal, 1)).build().unwrap();
    let (mut sink, next) = PartitionSink::open(dying, partition(), 0).await.unwrap();
    feed(&mut sink, next, next + 20).await.unwrap();
    assert_eq!(sink.checkpoint().await.unwrap_err().kind(), ErrorKind::Injected);
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let report = verify(&config).await.unwrap();
    assert_eq!(report.ledgers[0].entries, 1_000);
    let findings = &report.ledgers[0].findings;
    assert!(!findings.is_empty() && findings.iter().all(|f| f.kind == FindingKind::Pending), "{findings:?}");

    let ledger = ledger(&config).await;
    for (offset, first) in
        [(0, 0), (2, 0), (3, 3), (1_500, 1_500), (1_502, 1_500), (2_997, 2_997), (9_999, 2_997)]
    {
        assert_eq!(entry_at(&config, &ledger, offset).await.unwrap(), Some(first), "{offset}");
    }
    assert_eq!(entry_at(&config, &ledger, -1).await.unwrap(), None);
}

/// A folder whose newest entry, offsets 20 to 39, is sealed and not published.
async fn pending() -> (TempDir, Arc<dyn Store>, SinkConfig) {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let dying = config(&store).failpoints(Failpoints::in_process(Failpoint::AfterSeal, 2)).build().unwrap();
    let (mut sink, _) = PartitionSink::open(dying, partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    publish(&mut sink).await;
    feed(&mut sink, 20, 40).await.unwrap();
    assert_eq!(sink.checkpoint().await.unwrap_err().kind(), ErrorKind::Injected);
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    (folder, store, config)
}

fn path(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

#[tokio::test]
async fn repair_publishes_what_waits_and_sweeps_what_nobody_names() {
    let (folder, store, config) = pending().await;
    // An older entry whose file somebody has put back to its staged place, and an orphan.
    let ledger = ledger(&config).await;
    let entries = read_entries(&config, &ledger, 0, 10).await.unwrap();
    let older = &entries[0].files[0];
    fs::rename(path(&folder, &older.final_name), path(&folder, &older.staged)).unwrap();
    let orphan = path(&folder, &older.staged).with_file_name("00000000000000000000+somebody+000");
    fs::write(&orphan, "x").unwrap();

    let report = verify_ledger(&config, ledger.clone()).await.unwrap();
    let count = |kind| report.findings.iter().filter(|f| f.kind == kind).count();
    assert_eq!((count(FindingKind::NotPublished), count(FindingKind::Orphan)), (1, 1), "{report:?}");
    assert_eq!(count(FindingKind::Pending), entries[1].files.len());
    let done = mend(&config, &report, false).await;
    assert_eq!((done.published.len(), done.settled, done.swept), (1 + entries[1].files.len(), true, 1));
    assert!(!orphan.exists());
    assert_exactly_once(&store, 40).await;
    let report = verify_ledger(&config, ledger).await.unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    assert_eq!(mend(&config, &report, false).await, Default::default());
}

#[tokio::test]
async fn a_file_that_is_gone_behind_one_that_waits_is_provably_lost() {
    let (folder, store, config) = pending().await;
    let tip = ledger_end(&config, &partition()).await.unwrap().unwrap().tip.unwrap();
    assert!(missing_files(&config, &tip).await.unwrap().is_empty());
    assert!(tip.files.len() >= 3, "{:?}", tip.files);
    fs::remove_file(path(&folder, &tip.files[1].staged)).unwrap();
    let missing = missing_files(&config, &tip).await.unwrap();
    assert_eq!((&missing.lost[..], &missing.gone[..]), (&tip.files[1..2], &[][..]));

    let ledger = ledger(&config).await;
    let report = verify_ledger(&config, ledger.clone()).await.unwrap();
    assert!(!verify(&config).await.unwrap().is_sound());
    let lost = report.findings.iter().find(|f| f.kind == FindingKind::LostFile).unwrap();
    assert_eq!((lost.object.as_str(), lost.offsets), (tip.files[1].final_name.as_str(), Some((20, 40))));
    assert_eq!(lost.kind.remedy(), Remedy::Replay);
    // Nobody goes over it by accident.
    for error in [
        settle(&config, &ledger, false).await.unwrap_err(),
        skip(&config, &ledger, 50, &note()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Changed);
        assert!(error.to_string().contains(&tip.files[1].final_name), "{error}");
    }
    // A repair leaves the entry as it is, and does the rest.
    let orphan = path(&folder, &tip.files[0].staged).with_file_name("00000000000000000000+somebody+000");
    fs::write(&orphan, "x").unwrap();
    let report = verify_ledger(&config, ledger).await.unwrap();
    let done = mend(&config, &report, false).await;
    assert_eq!((done.settled, done.swept, &done.published[..]), (false, 1, &[][..]));
    assert!(path(&folder, &tip.files[0].staged).exists() && !orphan.exists());
    assert!(mend(&config, &report, true).await.settled);
    let rows: u64 = tip.files.iter().map(|f| f.rows).sum::<u64>() - tip.files[1].rows;
    let found = read_back(&store, "lake").await.into_keys().filter(|(offset, _)| *offset >= 20).count();
    assert_eq!(found as u64, rows);
}

#[tokio::test]
async fn a_file_that_is_gone_before_one_that_waits_may_have_been_published_and_deleted() {
    let (folder, _, config) = pending().await;
    let tip = ledger_end(&config, &partition()).await.unwrap().unwrap().tip.unwrap();
    fs::remove_file(path(&folder, &tip.files[0].staged)).unwrap();
    let missing = missing_files(&config, &tip).await.unwrap();
    assert_eq!((&missing.lost[..], &missing.gone[..]), (&[][..], &tip.files[..1]));
    assert_eq!(settle(&config, &ledger(&config).await, false).await.unwrap(), 40);
}

#[tokio::test]
async fn findings_that_only_the_topic_can_mend_say_which_offsets_to_read_again() {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    let mut files = Vec::new();
    for at in [0, 20, 40] {
        feed(&mut sink, at, at + 20).await.unwrap();
        files.push(publish(&mut sink).await.files[0].final_name.clone());
    }
    fs::write(path(&folder, &files[0]), "changed").unwrap();
    fs::remove_file(path(&folder, &files[2])).unwrap();
    let ledger = ledger(&config).await;
    fs::remove_file(path(&folder, &ledger.path).join("00000000000000000020.json")).unwrap();
    let report = verify_ledger(&config, ledger).await.unwrap();
    let mut found: Vec<_> = report.findings.iter().map(|f| (f.offsets, f.kind, f.kind.remedy())).collect();
    found.sort_by_key(|f| f.0);
    assert_eq!(
        found,
        [
            (Some((0, 20)), FindingKind::ChangedFile, Remedy::Replay),
            (Some((20, 40)), FindingKind::Gap, Remedy::Replay),
            (Some((40, 60)), FindingKind::MissingFile, Remedy::Replay),
        ]
    );
    assert_eq!(mend(&config, &report, true).await, Default::default());
}

#[tokio::test]
async fn a_look_at_a_ledger_leaves_no_trace() {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    assert!(ledger_end(&config, &partition()).await.unwrap().is_none());
    assert!(!folder.path().join("lake").exists());
    let (sink, _) = PartitionSink::open(config.clone(), partition(), 7).await.unwrap();
    drop(sink);
    let end = ledger_end(&config, &partition()).await.unwrap().unwrap();
    assert_eq!((end.start, end.next, end.tip), (7, 7, None));
}

#[tokio::test]
async fn the_trail_tells_what_was_meant_and_what_came_of_it_in_order() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (sink, _) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    drop(sink);
    let mut written = Vec::new();
    for i in 0..3 {
        let plan = vec![format!("plan {i}")];
        let mut operation = Operation::new("skip", "ada@example", "gristmill ledger skip", "because", plan);
        operation.at = format!("2026-01-02T03:04:05.{i:03}Z");
        operation.begin(&config).await.unwrap();
        if i != 1 {
            let error = (i == 2).then(|| "no room".to_owned());
            operation.end(&config, vec![format!("change {i}")], error).await.unwrap();
        }
        written.push(operation);
    }
    let found = operations(&config).await.unwrap();
    assert_eq!(found.iter().map(|l| &l.operation).collect::<Vec<_>>(), written.iter().collect::<Vec<_>>());
    let outcomes: Vec<_> =
        found.iter().map(|l| l.outcome.as_ref().map(|o| (&o.changes[..], o.error.as_deref()))).collect();
    assert_eq!(
        outcomes,
        [
            Some((&["change 0".to_owned()][..], None)),
            None,
            Some((&["change 2".to_owned()][..], Some("no room"))),
        ]
    );
    // It is no ledger, and nothing that a reader or the check would take for data.
    assert_eq!(list_ledgers(&config).await.unwrap().len(), 1);
    assert_eq!(verify(&config).await.unwrap().foreign_count, 0);
    let names = store.list("lake/_gristmill/operations/", None, 10).await.unwrap();
    let stem = Path::new(&names[0].name).file_name().unwrap().to_str().unwrap();
    assert!(stem.starts_with("20260102T030405000Z-"), "{stem}");
}

#[tokio::test]
async fn what_a_repair_has_done_is_told_also_if_it_fails_later() {
    let (folder, _, config) = pending().await;
    let ledger = ledger(&config).await;
    let entries = read_entries(&config, &ledger, 0, 10).await.unwrap();
    let older = &entries[0].files[0];
    fs::rename(path(&folder, &older.final_name), path(&folder, &older.staged)).unwrap();
    let report = verify_ledger(&config, ledger).await.unwrap();
    fs::create_dir_all(path(&folder, &entries[1].files[0].final_name).parent().unwrap()).unwrap();
    fs::write(path(&folder, &entries[1].files[0].final_name), "somebody else's").unwrap();
    let mut done = Repaired::default();
    let error = repair(&config, &report, false, &mut done).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationTaken);
    assert_eq!((&done.published[..], done.settled), (&[older.final_name.clone()][..], false));
}

#[tokio::test]
async fn an_operator_without_a_place_for_dead_letters_does_not_drop_those_of_the_newest_entry() {
    let (folder, store, config) = pending().await;
    let without =
        SinkConfig::builder(store.clone()).prefix("lake").failpoints(Failpoints::none()).build().unwrap();
    let ledger = ledger(&config).await;
    let tip = ledger_end(&config, &partition()).await.unwrap().unwrap().tip.unwrap();
    assert!(tip.reject_count() > 0);
    for error in [
        settle(&without, &ledger, true).await.unwrap_err(),
        skip(&without, &ledger, 50, &note()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::DeadLetter);
        assert!(error.to_string().contains("put the pipeline's `dead_letters` back"), "{error}");
    }
    assert!(path(&folder, &tip.files[0].staged).exists(), "nothing was published");
    assert_eq!(settle(&config, &ledger, false).await.unwrap(), 40);
    assert_exactly_once(&store, 40).await;
}

#[tokio::test]
async fn a_ledger_without_its_genesis_is_named_and_the_others_go_on() {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    for number in [3, 4] {
        let id = PartitionId { partition: number, ..partition() };
        let (mut sink, _) = PartitionSink::open(config.clone(), id, 0).await.unwrap();
        feed(&mut sink, 0, 20).await.unwrap();
        publish(&mut sink).await;
    }
    let genesis = format!("lake/_gristmill/ledger/{}/genesis.json", partition().path());
    let content = fs::read(path(&folder, &genesis)).unwrap();
    fs::remove_file(path(&folder, &genesis)).unwrap();

    // It is not taken for a partition that has no ledger yet.
    let error = ledger_end(&config, &partition()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&format!("{genesis} is gone")), "{error}");
    assert!(error.to_string().contains("Restore it from a copy"), "{error}");
    assert!(list_ledgers(&config).await.is_err());

    let found = survey_ledgers(&config).await.unwrap();
    assert_eq!(found.whole.iter().map(|l| l.id.partition).collect::<Vec<_>>(), [4]);
    let broken = &found.broken[0];
    assert_eq!((&broken.topic[..], broken.partition, &broken.object), ("orders", Some(3), &genesis));
    let report = verify(&config).await.unwrap();
    assert!(!report.is_sound() && report.broken == found.broken && report.ledgers.len() == 1);
    let report = audit(&config, &AuditScope::default(), &|| {}).await.unwrap();
    assert_eq!(report.partitions.len(), 1);
    assert_eq!((report.findings[0].kind, &report.findings[0].object), (AuditKind::Unreadable, &genesis));
    // Its files are known by their entries, which are all there.
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);

    fs::write(path(&folder, &genesis), content).unwrap();
    assert_eq!(list_ledgers(&config).await.unwrap().len(), 2);
    assert!(verify(&config).await.unwrap().is_sound());
}
