//! The whole path against a real Apache Kafka, killed at every step, frozen, doubled and killed at random; read
//! back by pyarrow.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gristmill::EmbeddedRegistry;
use gristmill_tests::orders::{AVRO_SCHEMA, Encoding, Fate, Order, Orders};
use gristmill_tests::pipeline::{Pipeline, assert_exactly_once, wait_until};
use gristmill_tests::{OrderProducer, RealKafka, shared_kafka};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Prints past the test harness, which shows what `println!` prints only of tests that fail.
macro_rules! say {
    ($($text:tt)*) => { writeln!(std::io::stdout(), $($text)*).expect("standard output takes it") };
}

const PARTITIONS: i32 = 4;
/// A run joins its group only once the broker has given up the one before it.
const PATIENCE: Duration = Duration::from_secs(90);

fn seed() -> u64 {
    let seed = std::env::var("GRISTMILL_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    say!("GRISTMILL_SEED={seed}");
    seed
}

/// Produces until told to stop: transactions, one in five aborted, and between them records without a
/// transaction. Gives what has to be found.
fn feed(
    bootstrap: &str,
    topic: &str,
    encoding: Encoding,
    seed: u64,
    stop: &AtomicBool,
) -> BTreeMap<String, (String, String)> {
    let mut orders = Orders::new(encoding, seed);
    let mut random = SmallRng::seed_from_u64(seed ^ 1);
    let producer = OrderProducer::new(bootstrap, &format!("{topic}-feed"));
    let mut expected = BTreeMap::new();
    let mut expect = |order: &Order| {
        let found = match order.fate {
            Fate::Row(output) => (output.to_owned(), order.id.clone()),
            Fate::DeadLetter(code) => ("dead_letter".to_owned(), format!("{code} {}", order.id)),
            Fate::Dropped => return,
        };
        assert_eq!(expected.insert(order.id.clone(), found), None, "ids are unique");
    };
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let batch: Vec<(i32, Order)> = (0..random.random_range(20..200))
            .map(|_| (random.random_range(0..PARTITIONS), orders.make()))
            .collect();
        match round % 5 {
            0 => producer.aborted(topic, &batch),
            1 => {
                producer.plain(topic, &batch);
                batch.iter().for_each(|(_, order)| expect(order));
            }
            _ => {
                producer.committed(topic, &batch);
                batch.iter().for_each(|(_, order)| expect(order));
            }
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    // A last record in each partition that no control record follows: the group's offset comes to the end.
    let last: Vec<(i32, Order)> = (0..PARTITIONS).map(|p| (p, orders.make())).collect();
    producer.plain(topic, &last);
    last.iter().for_each(|(_, order)| expect(order));
    expected
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms/prebuilt").join(name);
    path.canonicalize().expect("the component is committed").display().to_string()
}

fn source(name: &str, bootstrap: &str, topic: &str, protocol: &str) -> String {
    // With KIP-848 the broker sets the session's timeout.
    let session = if protocol == "consumer" { "" } else { "    session_timeout: 6s\n" };
    format!(
        "name: {name}\nsource:\n  kafka:\n    bootstrap_servers: {bootstrap}\n    topics: [{topic}]\n    \
         group_protocol: {protocol}\n{session}"
    )
}

/// Kills, freezes and doubles the pipeline while orders come, then lets it finish and compares.
fn torture(kafka: &RealKafka, pipeline: &Pipeline, topic: &str, group: &str, encoding: Encoding, seed: u64) {
    let stop = AtomicBool::new(false);
    let bootstrap = kafka.bootstrap_servers();
    let expected = std::thread::scope(|scope| {
        // If this thread panics, the feeder has to end all the same.
        struct StopOnDrop<'a>(&'a AtomicBool);
        impl Drop for StopOnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopping = StopOnDrop(&stop);
        let feeder = scope.spawn(|| feed(&bootstrap, topic, encoding, seed, &stop));
        for failpoint in [
            "after-stage:3",
            "after-seal:2",
            "after-move:1",
            "after-move:4",
            "before-commit:2",
            "after-seal:1",
        ] {
            pipeline.start(Some(failpoint)).wait_for_kill(PATIENCE);
        }
        let mut lost = pipeline.start(Some("lost-reply-seal:2"));
        lost.wait_for("recognised an entry as our own", PATIENCE);
        lost.kill();
        let mut random = SmallRng::seed_from_u64(seed ^ 2);
        for _ in 0..3 {
            let mut run = pipeline.start(None);
            run.wait_for("published", PATIENCE);
            std::thread::sleep(Duration::from_millis(random.random_range(0..2000)));
            run.kill();
        }
        // A second owner: the first is frozen between staging and sealing, until another has sealed its range.
        let mut frozen = pipeline.start(Some("after-stage:2:stop"));
        frozen.wait_for_stop(PATIENCE);
        let mut second = pipeline.start(None);
        for partition in 0..PARTITIONS {
            second.wait_for(&format!("published partition={partition}"), PATIENCE);
        }
        frozen.resume();
        frozen.wait_for("adopted an entry of another owner", PATIENCE);
        drop(frozen);
        let ended = second.terminate(PATIENCE);
        assert_eq!(ended.code(), Some(0), "{}", pipeline.logs());
        drop(stopping);
        feeder.join().expect("the feeder ended well")
    });
    let last = pipeline.start(None);
    let ends = kafka.end_offsets(topic, PARTITIONS);
    wait_until("the group's offsets reach the end", PATIENCE, || {
        kafka.committed_offsets(group, topic, PARTITIONS) == ends
    });
    assert_eq!(last.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());

    let found = pipeline.read_back();
    assert_exactly_once(&expected, &found, &pipeline.logs());
    let (code, text) = pipeline.command(&["ledger", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    for what in [
        "adopted an entry of another owner",
        "published an entry of a predecessor",
        "recognised an entry as our own",
    ] {
        let times = pipeline.count_in_logs(what);
        say!("{topic}: {what}: {times}");
        assert!(times > 0, "never: {what}");
    }
    say!("{topic}: {} rows and dead letters, each exactly once", found.len());
}

#[test]
fn json_orders_arrive_exactly_once_through_kills_and_zombies() {
    let seed = seed();
    let Some(kafka) = shared_kafka() else { return };
    block_on(kafka.create_topic("json-orders", PARTITIONS, &[]));
    let folder = tempfile::tempdir().unwrap();
    let text = source("json", &kafka.bootstrap_servers(), "json-orders", "cooperative")
        + &format!(
            "transforms:
  - wasm: {}
    config: {{mask: '***', high_value_cents: 100000}}
decode:
  format: json
  fields:
    order_id: string not null
    customer: {{name: string, email: string, card: string}}
    amount_cents: int64 not null
    created_at: timestamp_ms
sink:
  files:
    folder: rows
    directories: dt=%Y-%m-%d/hour=%H
    rotate: {{rows: 300, age: 1s}}
dead_letters: {{folder: dead_letters}}
",
            example("orders.wasm")
        );
    let pipeline = Pipeline::new(folder.path(), &text);
    torture(kafka, &pipeline, "json-orders", "gristmill-json", Encoding::Json, seed);
}

#[test]
fn avro_orders_arrive_exactly_once_through_kills_and_zombies() {
    let seed = seed();
    let Some(kafka) = shared_kafka() else { return };
    block_on(kafka.create_topic("avro-orders", PARTITIONS, &[]));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (registry, id) = runtime.block_on(async {
        let registry = EmbeddedRegistry::start().await.unwrap();
        let client = gristmill::RegistryConfig::builder().url(registry.url()).build().unwrap();
        let client = gristmill::SchemaRegistry::new(client).unwrap();
        let id = client
            .register("avro-orders-value", &gristmill::SchemaType::Avro, AVRO_SCHEMA, &[])
            .await
            .unwrap()
            .id;
        (registry, id)
    });
    let folder = tempfile::tempdir().unwrap();
    let text = source("avro", &kafka.bootstrap_servers(), "avro-orders", "consumer")
        + &format!(
            "schema_registry: {{url: '{}'}}
transforms:
  - wasm: {}
decode: {{format: avro}}
sink:
  files:
    folder: rows
    rotate: {{rows: 300, age: 1s}}
dead_letters: {{folder: dead_letters}}
",
            registry.url(),
            example("headers.wasm")
        );
    let pipeline = Pipeline::new(folder.path(), &text);
    torture(kafka, &pipeline, "avro-orders", "gristmill-avro", Encoding::Avro(id), seed);
}

#[test]
fn the_gaps_that_compaction_leaves_are_not_losses() {
    let Some(kafka) = shared_kafka() else { return };
    let config = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "200"),
    ];
    block_on(kafka.create_topic("compacted-orders", 1, &config));
    let bootstrap = kafka.bootstrap_servers();
    let producer = OrderProducer::new(&bootstrap, "compacted-feed");
    let mut orders = Orders::new(Encoding::Json, 3);
    // The newest rows of each key: compaction may take any of the others, and no more.
    let mut newest = BTreeMap::new();
    let mut produced = 0;
    wait_until("compaction leaves gaps", PATIENCE, || {
        let batch: Vec<(i32, Order)> = (0..200)
            .map(|i| {
                let mut order = orders.make();
                while order.fate != Fate::Row("main") {
                    order = orders.make();
                }
                newest.insert(i, order.id.clone());
                order.id = format!("key-{i}");
                (0, order)
            })
            .collect();
        producer.plain("compacted-orders", &batch);
        produced += batch.len() as i64;
        std::thread::sleep(Duration::from_millis(300));
        kafka.count_records("compacted-orders") < produced
    });
    let folder = tempfile::tempdir().unwrap();
    let text = source("compacted", &bootstrap, "compacted-orders", "cooperative")
        + "decode:
  format: json
  fields: {order_id: string not null}
sink:
  files: {folder: rows, format: jsonl, rotate: {rows: 1000, age: 1s}}
";
    let pipeline = Pipeline::new(folder.path(), &text);
    pipeline.start(Some("after-seal:1")).wait_for_kill(PATIENCE);
    let run = pipeline.start(None);
    let ends = kafka.end_offsets("compacted-orders", 1);
    wait_until("the group's offsets reach the end", PATIENCE, || {
        kafka.committed_offsets("gristmill-compacted", "compacted-orders", 1) == ends
    });
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    let found = pipeline.read_back();
    let mut offsets: Vec<i64> = found.iter().map(|f| f.place.1).collect();
    offsets.sort_unstable();
    let rows = offsets.len();
    offsets.dedup();
    assert_eq!(offsets.len(), rows, "an offset stands twice");
    assert!((rows as i64) < produced, "there were gaps");
    for id in newest.values() {
        assert_eq!(found.iter().filter(|f| f.what == *id).count(), 1, "{id}");
    }
    say!("compacted-orders: {rows} rows of {produced} records that were produced");
    let (code, text) = pipeline.command(&["ledger", "verify"]);
    assert_eq!(code, Some(0), "{text}");
}
