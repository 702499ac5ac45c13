//! Whatever happens to the writer, an independent listing finds every record exactly once.

use std::process::{Command, Stdio};
use std::sync::Arc;

use gristmill_sinks::{
    Checkpoint, ErrorKind, FAILPOINT_VARIABLE, Failpoint, Failpoints, FolderStore, PartitionId,
    PartitionSink, SinkLimits, Store, sweep_orphans, sweep_rejects, verify,
};
use tempfile::tempdir;

use crate::memory::{Fault, MemoryStore, Scripted};
use crate::topic::{assert_exactly_once, assert_exactly_once_but, config, feed, partition};

fn published(checkpoint: Checkpoint) -> i64 {
    match checkpoint {
        Checkpoint::Published(entry) => entry.next,
        other => panic!("not published: {other:?}"),
    }
}

#[tokio::test]
async fn a_crash_after_any_step_loses_and_doubles_nothing() {
    let points = [
        (Failpoint::AfterStage, 1),
        (Failpoint::AfterStage, 2),
        (Failpoint::AfterSeal, 1),
        (Failpoint::AfterSeal, 2),
        (Failpoint::AfterMove, 1),
        (Failpoint::AfterMove, 2),
        (Failpoint::AfterMove, 3),
        (Failpoint::AfterMove, 5),
        (Failpoint::BeforeCommit, 1),
        (Failpoint::BeforeCommit, 2),
    ];
    for (point, nth) in points {
        let folder = tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
        let dying = config(&store).failpoints(Failpoints::in_process(point, nth)).build().unwrap();
        let (mut sink, mut at) = PartitionSink::open(dying, partition(), 0).await.unwrap();
        let error = loop {
            feed(&mut sink, at, at + 20).await.unwrap();
            match sink.checkpoint().await {
                Ok(checkpoint) => at = published(checkpoint),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Injected, "{point:?}:{nth}");
        drop(sink);
        let healthy = config(&store).failpoints(Failpoints::none()).build().unwrap();
        let (mut sink, next) = PartitionSink::open(healthy.clone(), partition(), 77).await.unwrap();
        let sealed = point != Failpoint::AfterStage;
        assert_eq!(next, if sealed { at + 20 } else { at }, "{point:?}:{nth}");
        let moved_by_us = matches!(point, Failpoint::AfterSeal | Failpoint::AfterMove);
        assert_eq!(sink.counters().republished > 0, moved_by_us, "{point:?}:{nth}: {:?}", sink.counters());
        assert_exactly_once(&store, next).await;
        feed(&mut sink, next, next + 30).await.unwrap();
        let next = published(sink.checkpoint().await.unwrap());
        assert_exactly_once(&store, next).await;
        let swept = sweep_orphans(&healthy, &partition()).await.unwrap();
        assert_eq!(swept.deleted > 0, point == Failpoint::AfterStage, "{point:?}:{nth}: {swept:?}");
        let report = verify(&healthy).await.unwrap();
        assert!(report.is_sound() && report.ledgers[0].findings.is_empty(), "{report:?}");
        assert_eq!(report.ledgers[0].next, next);
    }
}

/// Set in the child processes of the test below.
const CHILD: &str = "GRISTMILL_TEST_DIE_IN";

#[tokio::test]
async fn a_process_killed_at_a_failpoint_of_its_environment_loses_and_doubles_nothing() {
    use std::os::unix::process::ExitStatusExt;
    if let Ok(folder) = std::env::var(CHILD) {
        let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder).unwrap());
        let (mut sink, mut at) =
            PartitionSink::open(config(&store).build().unwrap(), partition(), 0).await.unwrap();
        while at < 100 {
            feed(&mut sink, at, at + 10).await.unwrap();
            at = published(sink.checkpoint().await.unwrap());
        }
        panic!("the failpoint was not hit");
    }
    for point in
        ["after-stage:2", "after-seal:3", "after-move:4", "before-commit:1", "lost-reply-seal:1,after-move:5"]
    {
        let folder = tempdir().unwrap();
        let name =
            "exactly_once::a_process_killed_at_a_failpoint_of_its_environment_loses_and_doubles_nothing";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, folder.path())
            .env(FAILPOINT_VARIABLE, point)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(9), "{point}: {status}");
        let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
        let healthy = config(&store).build().unwrap();
        let (mut sink, next) = PartitionSink::open(healthy, partition(), 0).await.unwrap();
        assert!(next >= 10, "{point}: {next}");
        feed(&mut sink, next, next + 10).await.unwrap();
        let next = published(sink.checkpoint().await.unwrap());
        assert_exactly_once(&store, next).await;
    }
}

#[tokio::test]
async fn a_seal_whose_reply_was_lost_is_recognised() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let config =
        config(&store).failpoints(Failpoints::in_process(Failpoint::LostReplySeal, 1)).build().unwrap();
    let (mut sink, _) = PartitionSink::open(config, partition(), 0).await.unwrap();
    feed(&mut sink, 0, 10).await.unwrap();
    assert_eq!(published(sink.checkpoint().await.unwrap()), 10);
    assert_eq!((sink.counters().recognised_own, sink.counters().adopted), (1, 0));
    assert_exactly_once(&store, 10).await;
}

#[tokio::test]
async fn every_kind_of_failed_request_is_settled() {
    for fault in [Fault::Unavailable, Fault::ReplyLost, Fault::RequestLost] {
        for nth in 0..8 {
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::default());
            let scripted = Scripted::new(memory.clone());
            let store: Arc<dyn Store> = scripted.clone();
            let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
            scripted.script(std::iter::repeat_n(Fault::None, nth).chain([fault, fault]));
            let (mut sink, next) = PartitionSink::open(config, partition(), 0).await.unwrap();
            feed(&mut sink, next, 20).await.unwrap();
            assert_eq!(published(sink.checkpoint().await.unwrap()), 20, "{fault:?} at {nth}");
            assert_exactly_once(&memory, 20).await;
        }
    }
}

#[tokio::test]
async fn a_store_that_stays_away_is_an_error_and_the_checkpoint_can_be_called_again() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let scripted = Scripted::new(memory.clone());
    let store: Arc<dyn Store> = scripted.clone();
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(config, partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    scripted.script([Fault::RequestLost; 5]);
    let error = sink.checkpoint().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert!(sink.due(std::time::Instant::now()));
    assert_eq!(feed(&mut sink, 20, 21).await.unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(published(sink.checkpoint().await.unwrap()), 20);
    assert_exactly_once(&memory, 20).await;
}

#[tokio::test]
async fn abandoning_an_unsettled_seal_keeps_what_it_may_name() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let scripted = Scripted::new(memory.clone());
    let store: Arc<dyn Store> = scripted.clone();
    let settings = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(settings.clone(), partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    // The seal is carried out, and every reply about it is lost until the owner gives up.
    scripted.script([Fault::ReplyLost, Fault::Unavailable, Fault::Unavailable, Fault::Unavailable]);
    scripted.script([Fault::Unavailable, Fault::Unavailable, Fault::Unavailable]);
    sink.checkpoint().await.unwrap_err();
    sink.abandon().await;
    let (_, next) = PartitionSink::open(config(&memory).build().unwrap(), partition(), 0).await.unwrap();
    assert_eq!(next, 20);
    assert_exactly_once(&memory, 20).await;
}

#[tokio::test]
async fn rejects_that_come_after_a_failed_upload_of_rejects_are_delivered_too() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let scripted = Scripted::new(memory.clone());
    let store: Arc<dyn Store> = scripted.clone();
    let limits = SinkLimits { inline_reject_bytes: 0, ..SinkLimits::default() };
    let settings = config(&store).limits(limits).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(settings.clone(), partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    scripted.script([
        Fault::ReplyLost,
        Fault::Unavailable,
        Fault::Unavailable,
        Fault::Unavailable,
        Fault::Unavailable,
    ]);
    assert!(sink.checkpoint().await.unwrap_err().is_retryable());
    feed(&mut sink, 20, 40).await.unwrap();
    assert_eq!(published(sink.checkpoint().await.unwrap()), 40);
    assert_exactly_once(&memory, 40).await;
    assert!(sweep_rejects(&settings, &partition()).await.unwrap().deleted > 0);
}

#[tokio::test]
async fn of_two_owners_one_seals_and_the_other_adopts() {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut zombie, _) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    let (mut owner, _) = PartitionSink::open(config.clone(), partition(), 5).await.unwrap();
    feed(&mut zombie, 0, 40).await.unwrap();
    feed(&mut owner, 0, 25).await.unwrap();
    assert_eq!(published(owner.checkpoint().await.unwrap()), 25);
    feed(&mut owner, 25, 33).await.unwrap();
    assert_eq!(published(owner.checkpoint().await.unwrap()), 33);
    // It catches up with the tip at once, and what it had open is gone.
    assert_eq!(zombie.checkpoint().await.unwrap(), Checkpoint::Adopted { next: 33 });
    assert_eq!((zombie.counters().adopted, zombie.position(), zombie.committable()), (1, 33, Some(33)));
    assert_exactly_once(&store, 33).await;
    feed(&mut zombie, 33, 50).await.unwrap();
    assert_eq!(published(zombie.checkpoint().await.unwrap()), 50);
    feed(&mut owner, 33, 41).await.unwrap();
    assert_eq!(owner.checkpoint().await.unwrap(), Checkpoint::Adopted { next: 50 });
    assert_exactly_once(&store, 50).await;
    assert_eq!(sweep_orphans(&config, &partition()).await.unwrap().deleted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_owners_at_full_speed_cover_every_offset_once() {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let mut owners = tokio::task::JoinSet::new();
    for step in [5, 7, 9, 11] {
        let config = config.clone();
        owners.spawn(async move {
            let (mut sink, mut at) = PartitionSink::open(config, partition(), 0).await.unwrap();
            while at < 150 {
                feed(&mut sink, at, (at + step).min(150)).await.unwrap();
                at = match sink.checkpoint().await.unwrap() {
                    Checkpoint::Published(entry) => entry.next,
                    Checkpoint::Adopted { next } => next,
                    Checkpoint::Nothing => sink.position(),
                };
            }
            sink.counters()
        });
    }
    let counters = owners.join_all().await;
    assert!(counters.iter().any(|c| c.adopted > 0), "{counters:?}");
    assert_exactly_once(&store, 150).await;
    assert!(verify(&config).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_file_that_a_user_deleted_does_not_come_back_and_does_no_harm() {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    let Checkpoint::Published(entry) = sink.checkpoint().await.unwrap() else { panic!("not published") };
    let victim = &entry.files[0].final_name;
    let text = String::from_utf8(store.get(victim).await.unwrap().unwrap().bytes.to_vec()).unwrap();
    let deleted: Vec<(i64, i64)> = text
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .map(|r| (r["offset"].as_i64().unwrap(), r["sub"].as_i64().unwrap()))
        .collect();
    std::fs::remove_file(folder.path().join(victim)).unwrap();
    drop(sink);
    let (mut sink, next) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    assert_eq!((next, sink.counters().republished), (20, 0));
    feed(&mut sink, 20, 30).await.unwrap();
    sink.checkpoint().await.unwrap();
    assert_exactly_once_but(&store, 30, &deleted).await;
    let report = verify(&config).await.unwrap();
    assert!(report.is_sound());
    assert_eq!(report.ledgers[0].findings.len(), 1, "{report:?}");
}

#[tokio::test]
async fn a_topic_that_was_created_again_has_a_new_ledger() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    published(sink.checkpoint().await.unwrap());
    let again = PartitionId { topic_id: [8; 16], ..partition() };
    let (mut sink, next) = PartitionSink::open(config.clone(), again, 0).await.unwrap();
    assert_eq!(next, 0);
    feed(&mut sink, 0, 20).await.unwrap();
    // The same offsets of another incarnation: other names, nothing taken, nothing overwritten.
    assert_eq!(published(sink.checkpoint().await.unwrap()), 20);
    assert!(crate::topic::read_back(&store, "lake").await.values().all(|n| *n == 2));
    assert_eq!(verify(&config).await.unwrap().ledgers.len(), 2);
}

#[tokio::test]
async fn a_foreign_file_at_a_final_name_stops_the_partition_and_nothing_is_lost() {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    let (mut sink, _) = PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    let taken =
        "lake/orders/dt=__HIVE_DEFAULT_PARTITION__/orders+09090909+00003+00000000000000000000+000.jsonl";
    store.create_if_absent(taken, "mine".into()).await.unwrap();
    feed(&mut sink, 0, 20).await.unwrap();
    let error = sink.checkpoint().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationTaken);
    assert!(error.to_string().contains(taken) && error.to_string().contains("offsets 0 to 19"), "{error}");
    assert_eq!(sink.committable(), None);
    drop(sink);
    assert_eq!(PartitionSink::open(config.clone(), partition(), 0).await.unwrap_err().kind(), error.kind());
    assert_eq!(&store.get(taken).await.unwrap().unwrap().bytes[..], b"mine");
    store.delete(taken).await.unwrap();
    let (sink, next) = PartitionSink::open(config, partition(), 0).await.unwrap();
    assert_eq!((next, sink.counters().republished), (20, 1));
    assert_exactly_once(&store, 20).await;
}

#[tokio::test]
async fn a_ledger_of_another_pipeline_is_not_taken_over() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let config = config(&store).failpoints(Failpoints::none()).build().unwrap();
    PartitionSink::open(config.clone(), partition(), 0).await.unwrap();
    let other = PartitionId { pipeline: "other".into(), ..partition() };
    let error = PartitionSink::open(config, other, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongLedger);
}
