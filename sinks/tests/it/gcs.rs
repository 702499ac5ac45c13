//! Cloud Storage's client against a fake with faults on demand: the suite of every store, each way to publish,
//! replies that are lost, requests that come late, tokens that expire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_sinks::fake_gcs::{Effect, FakeGcs, Op};
use gristmill_sinks::{
    Checkpoint, Create, ErrorKind, Failpoints, GcsConfig, GcsConfigBuilder, GcsCredentials, GcsStore,
    Generation, Move, PartitionSink, Store, conformance, verify,
};

use crate::topic::{assert_exactly_once, config, feed, partition};

const KIB: usize = 1 << 10;

fn fake() -> FakeGcs {
    let gcs = FakeGcs::start();
    gcs.create_bucket("lake");
    gcs
}

fn settings(gcs: &FakeGcs) -> GcsConfigBuilder {
    GcsConfig::builder("lake")
        .endpoint(gcs.url())
        .credentials(GcsCredentials::Anonymous)
        .upload_part_bytes(256 * KIB)
        .retry_pause(Duration::from_millis(5))
}

fn open(settings: GcsConfigBuilder) -> GcsStore {
    GcsStore::open(settings.build().unwrap()).unwrap()
}

fn store(gcs: &FakeGcs) -> Arc<dyn Store> {
    Arc::new(open(settings(gcs)))
}

fn content(length: usize) -> Bytes {
    (0..length).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_keeps_every_promise_of_a_store() {
    let gcs = fake();
    let store = open(settings(&gcs));
    store.probe().await.unwrap();
    assert!(gcs.object_names("lake").is_empty(), "the probe cleans up");
    conformance::run(Arc::new(store.clone()), "suite").await;
    assert_eq!(gcs.requested(Op::Rewrite), 0, "files are moved where moving is served");
    let counted = store.counters();
    assert!(counted.class_a > 300 && counted.class_b > 50 && counted.free > 3, "{counted:?}");
    assert_eq!((counted.retries, counted.throttled), (0, 0), "{counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_move_copies_and_then_deletes() {
    let gcs = fake();
    gcs.serve_move(false);
    gcs.set_max_bytes_per_rewrite(5);
    conformance::run(store(&gcs), "suite").await;
    assert!(gcs.requested(Op::Rewrite) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_heed_a_rewrites_preconditions_is_not_trusted_with_them() {
    let gcs = fake();
    gcs.serve_move(false);
    gcs.honour_rewrite_preconditions(false);
    conformance::run(store(&gcs), "suite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staged_files_may_lie_in_another_bucket() {
    let gcs = fake();
    gcs.create_bucket("staging");
    let store: Arc<dyn Store> =
        Arc::new(open(settings(&gcs).staging_bucket("staging", "_gristmill/staged/")));
    let staged = conformance::stage(&store, "_gristmill/staged/a", b"content").await;
    assert_eq!(gcs.object_names("staging"), ["_gristmill/staged/a"]);
    assert_eq!(store.move_if_absent(&staged.name, staged.generation, "rows/a").await.unwrap(), Move::Moved);
    assert_eq!(
        store.move_if_absent(&staged.name, staged.generation, "rows/a").await.unwrap(),
        Move::AlreadyMoved
    );
    assert_eq!(gcs.object("lake", "rows/a").unwrap().bytes, Bytes::from_static(b"content"));
    assert!(gcs.object_names("staging").is_empty());
}

#[tokio::test]
async fn what_was_staged_is_published_also_if_the_staging_bucket_changes() {
    let gcs = fake();
    gcs.create_bucket("staging");
    gcs.create_bucket("another");
    let none = || settings(&gcs);
    let with = |bucket: &str| settings(&gcs).staging_bucket(bucket, "_gristmill/staged/");
    let changes = [
        (none(), with("staging")),
        (with("staging"), none()),
        (with("staging"), with("another")),
        (with("another"), none()),
    ];
    for (i, (before, after)) in changes.into_iter().enumerate() {
        let (before, after): (Arc<dyn Store>, Arc<dyn Store>) =
            (Arc::new(open(before)), Arc::new(open(after)));
        // Whoever stages has published before, or at least probed.
        before.move_if_absent("_gristmill/staged/none", Generation(1), "rows/none").await.unwrap();
        let name = format!("_gristmill/staged/{i}");
        let staged = conformance::stage(&before, &name, b"content").await;
        assert_eq!(after.stat(&name).await.unwrap().unwrap().bytes, 7, "{i}");
        let to = format!("rows/{i}");
        assert_eq!(after.move_if_absent(&name, staged.generation, &to).await.unwrap(), Move::Moved, "{i}");
        assert_eq!(
            after.move_if_absent(&name, staged.generation, &to).await.unwrap(),
            Move::AlreadyMoved,
            "{i}"
        );
        assert_eq!(gcs.object("lake", &to).unwrap().bytes, Bytes::from_static(b"content"), "{i}");
    }
}

#[tokio::test]
async fn an_upload_holds_no_more_than_a_part_however_much_comes_at_once() {
    let gcs = fake();
    let store = store(&gcs);
    let bytes = content(5000 * KIB + 3);
    let mut upload = store.stage("staged/large").await.unwrap();
    upload.append(bytes.slice(..10)).await.unwrap();
    upload.append(bytes.slice(10..)).await.unwrap();
    assert!(upload.buffered() <= 512 * KIB, "{} bytes are held", upload.buffered());
    let staged = upload.finish().await.unwrap();
    assert_eq!((staged.bytes, staged.crc32c), (bytes.len() as u64, crc32c::crc32c(&bytes)));
    assert_eq!(gcs.object("lake", "staged/large").unwrap().bytes, bytes);
}

#[tokio::test]
async fn a_publisher_that_died_between_copy_and_deletion_is_finished_and_not_taken_for_a_stranger() {
    for honoured in [true, false] {
        let gcs = fake();
        gcs.serve_move(false);
        gcs.honour_rewrite_preconditions(honoured);
        let store = store(&gcs);
        let staged = conformance::stage(&store, "staged/a", b"content").await;
        // The deletion is answered with an error that trying again does not help.
        store.move_if_absent("staged/none", Generation(1), "rows/none").await.unwrap();
        gcs.faults().next(Op::Delete, Effect::Status(418));
        store.move_if_absent(&staged.name, staged.generation, "rows/a").await.unwrap_err();
        assert_eq!(gcs.object_names("lake"), ["rows/a", "staged/a"]);
        assert_eq!(
            store.move_if_absent(&staged.name, staged.generation, "rows/a").await.unwrap(),
            Move::Moved
        );
        assert_eq!(gcs.object_names("lake"), ["rows/a"]);
        // A stranger's file with the same bytes stays a stranger's.
        let staged = conformance::stage(&store, "staged/b", b"content").await;
        gcs.put_object("lake", "rows/b", "content");
        let moved = store.move_if_absent(&staged.name, staged.generation, "rows/b").await.unwrap();
        assert_eq!(moved, Move::DestinationExists);
    }
}

#[tokio::test]
async fn large_uploads_are_resumed_after_every_kind_of_failure() {
    let effects = [
        Effect::Status(503),
        Effect::StatusAfter(503),
        Effect::StatusAfter(500),
        Effect::Status(429),
        Effect::Status(408),
        Effect::DropReply,
        Effect::Reset,
        Effect::CutBody,
    ];
    let bytes = content(1000 * KIB + 7);
    for effect in effects {
        for nth in 1..=4 {
            let gcs = fake();
            let store = store(&gcs);
            gcs.faults().nth(Op::ResumableChunk, nth, effect.clone());
            let name = format!("staged/{nth}");
            let mut upload = store.stage(&name).await.unwrap();
            for part in bytes.chunks(100 * KIB) {
                upload.append(Bytes::copy_from_slice(part)).await.unwrap();
                assert!(upload.buffered() <= 1024 * KIB, "memory is bounded by the part");
            }
            let staged = upload.finish().await.unwrap_or_else(|e| panic!("{effect:?} at {nth}: {e:?}"));
            assert_eq!((staged.bytes, staged.crc32c), (bytes.len() as u64, crc32c::crc32c(&bytes)));
            let object = gcs.object("lake", &name).unwrap();
            assert_eq!(object.bytes, bytes, "{effect:?} at {nth}");
            assert_eq!(object.generation as u64, staged.generation.0);
            assert_eq!(gcs.faults().pending(), 0, "{effect:?} at {nth} was not tried");
        }
    }
}

#[tokio::test]
async fn small_uploads_and_moves_and_creations_survive_lost_replies() {
    for effect in [Effect::DropReply, Effect::StatusAfter(503), Effect::Reset, Effect::Status(500)] {
        let gcs = fake();
        let store = store(&gcs);
        store.move_if_absent("staged/none", Generation(1), "rows/none").await.unwrap();
        gcs.faults().next(Op::Insert, effect.clone());
        let staged = conformance::stage(&store, "staged/a", b"content").await;
        gcs.faults().next(Op::Move, effect.clone());
        let moved = store.move_if_absent(&staged.name, staged.generation, "rows/a").await.unwrap();
        assert!(matches!(moved, Move::Moved | Move::AlreadyMoved), "{effect:?}: {moved:?}");
        assert_eq!(gcs.object_names("lake"), ["rows/a"], "{effect:?}");
        gcs.faults().next(Op::Insert, effect.clone());
        // Carried out at the first try: the second finds the object, and the caller reads it.
        let created = store.create_if_absent("entry", "mine".into()).await.unwrap();
        let lost = matches!(effect, Effect::DropReply | Effect::StatusAfter(_));
        assert_eq!(created == Create::Exists, lost, "{effect:?}");
        assert_eq!(gcs.faults().pending(), 0);
    }
}

#[tokio::test]
async fn an_upload_that_arrives_again_after_the_move_stops_nobody() {
    for served in [true, false] {
        let gcs = fake();
        gcs.serve_move(served);
        let store = store(&gcs);
        store.move_if_absent("staged/none", Generation(1), "rows/none").await.unwrap();
        // The first try takes so long that the second has made the object, and the object is at its final name.
        gcs.faults().next(Op::Insert, Effect::Late(Duration::from_secs(2)));
        let staged = conformance::stage(&store, "staged/a", b"content").await;
        let moved = store.move_if_absent(&staged.name, staged.generation, "rows/a").await.unwrap();
        assert_eq!(moved, Move::Moved);
        let deadline = Instant::now() + Duration::from_secs(10);
        while gcs.object("lake", "staged/a").is_none() {
            assert!(Instant::now() < deadline, "the late upload has not arrived");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A crash before the commit: whoever starts next publishes the entry again.
        let again = store.move_if_absent(&staged.name, staged.generation, "rows/a").await.unwrap();
        assert_eq!(again, Move::AlreadyMoved);
        assert_eq!(gcs.object_names("lake"), ["rows/a"], "the twin goes, it is nobody's");
        assert_eq!(gcs.object("lake", "rows/a").unwrap().bytes, Bytes::from_static(b"content"));
        // Where the file is not at its final name, what lies staged may be all that there is.
        let other = conformance::stage(&store, "staged/b", b"content").await;
        let error =
            store.move_if_absent("staged/b", Generation(other.generation.0 + 1), "rows/b").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        assert!(gcs.object("lake", "staged/b").is_some());
    }
}

#[tokio::test]
async fn what_arrives_changed_is_read_again() {
    let gcs = fake();
    let store = store(&gcs);
    store.create_if_absent("entry", "content".into()).await.unwrap();
    gcs.faults().next(Op::GetMedia, Effect::Corrupt);
    assert_eq!(&store.get("entry").await.unwrap().unwrap().bytes[..], b"content");
    assert_eq!(gcs.requested(Op::GetMedia), 2);
}

#[tokio::test]
async fn a_store_that_stays_away_says_whether_anything_may_have_happened() {
    let gcs = fake();
    let store: Arc<dyn Store> = Arc::new(open(settings(&gcs).retry_time(Duration::from_millis(800))));
    gcs.faults().random(1, 1.0, &[Effect::Status(429)]);
    let error = store.create_if_absent("a", "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    gcs.faults().random(1, 1.0, &[Effect::Status(503)]);
    let error = store.create_if_absent("a", "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(error.to_string().contains("gave up after"), "{error}");
    assert_eq!(store.get("a").await.unwrap_err().kind(), ErrorKind::Unavailable);
    gcs.faults().clear();
    let url = gcs.url();
    drop(gcs);
    let gone = GcsConfig::builder("lake").endpoint(url).credentials(GcsCredentials::Anonymous);
    let store = open(gone.retry_time(Duration::from_millis(300)));
    assert_eq!(store.create_if_absent("a", "x".into()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_missing_bucket_and_a_missing_permission_are_told_at_once() {
    let gcs = fake();
    let nowhere = GcsConfig::builder("nowhere").endpoint(gcs.url()).credentials(GcsCredentials::Anonymous);
    let error = open(nowhere).probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(
        error.to_string().contains("nowhere") && error.to_string().contains("create the bucket"),
        "{error}"
    );
    gcs.grant(Some(&["storage.objects.get", "storage.objects.list"]));
    let error = open(settings(&gcs)).probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let reports = open(settings(&gcs)).report("_gristmill").await.unwrap();
    assert!(!reports[0].is_usable());
    let text = &reports[0].notes.iter().find(|n| n.is_problem).unwrap().text;
    assert!(text.contains("storage.objects.create") && !text.contains("storage.objects.get"), "{text}");
}

#[tokio::test]
async fn a_sink_delivers_exactly_once_through_a_store_that_fails_at_random() {
    let late = Effect::Late(Duration::from_millis(150));
    let effects = [
        Effect::Status(408),
        Effect::Status(429),
        Effect::Status(500),
        Effect::StatusAfter(503),
        Effect::DropReply,
        Effect::Reset,
        Effect::CutBody,
        late,
    ];
    for seed in 0..6 {
        let gcs = fake();
        let faulty: Arc<dyn Store> = store(&gcs);
        let sinks = config(&faulty).failpoints(Failpoints::none()).build().unwrap();
        gcs.faults().random(seed, 0.08, &effects);
        let mut next = 0;
        let mut published = 0;
        while next < 300 {
            // Whatever fails for good is what a restart settles.
            let (mut sink, at) = match PartitionSink::open(sinks.clone(), partition(), 0).await {
                Ok(opened) => opened,
                Err(e) => panic!("seed {seed}: {e:?}"),
            };
            next = at;
            for _ in 0..3 {
                let upto = next + 15;
                if feed(&mut sink, next, upto).await.is_err() {
                    break;
                }
                match sink.checkpoint().await {
                    Ok(Checkpoint::Published(entry)) => (next, published) = (entry.next, published + 1),
                    Ok(Checkpoint::Adopted { next: at }) => next = at,
                    Ok(Checkpoint::Nothing) => {}
                    Err(e) if e.is_retryable() || e.kind() == ErrorKind::Torn => break,
                    Err(e) => panic!("seed {seed}: {e:?}"),
                }
            }
        }
        gcs.faults().clear();
        assert!(published > 10);
        assert!(!gcs.faults().injected().is_empty());
        assert_exactly_once(&faulty, next).await;
        assert!(verify(&sinks).await.unwrap().is_sound());
    }
}
