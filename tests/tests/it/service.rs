//! A pipeline as a service: health, metrics, stopping, dead letters to a topic, and stops that say why.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use gristmill_tests::orders::{Encoding, Fate, Order, Orders};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, RealKafka, shared_kafka, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text))
}

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port")
}

fn topic_with_orders(kafka: &RealKafka, stem: &str, count: usize) -> (String, Vec<Order>) {
    let topic = unique(stem);
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 1, &[]));
    let mut orders = Orders::new(Encoding::Json, 11);
    let orders: Vec<Order> = (0..count).map(|_| orders.make()).collect();
    let batch: Vec<(i32, Order)> = orders.iter().map(|o| (0, o.clone())).collect();
    OrderProducer::new(&kafka.bootstrap_servers(), &topic).plain(&topic, &batch);
    (topic, orders)
}

fn pipeline_text(kafka: &RealKafka, topic: &str, age: &str, more: &str) -> String {
    format!(
        "name: {topic}\nsource:\n  kafka: {{bootstrap_servers: '{}', topics: [{topic}]}}\ndecode:\n  format: json\n  \
         fields: {{order_id: string not null, amount_cents: int64 not null}}\nsink:\n  files: {{folder: rows, rotate: {{age: {age}}}}}\n{more}",
        kafka.bootstrap_servers()
    )
}

#[test]
fn it_is_ready_once_it_reads_counts_what_it_does_and_finishes_on_sigterm() {
    let Some(kafka) = shared_kafka() else { return };
    let (topic, orders) = topic_with_orders(kafka, "service", 500);
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let more = format!("http: {{listen: '{address}'}}\ndead_letters: {{folder: dead_letters}}\n");
    let pipeline = Pipeline::new(folder.path(), &pipeline_text(kafka, &topic, "1m", &more));
    let run = pipeline.start(None);
    wait_until("/livez answers", PATIENCE, || {
        get(address, "/livez").is_some_and(|(status, _)| status == 200)
    });
    wait_until("/readyz is 200", PATIENCE, || {
        get(address, "/readyz").is_some_and(|(status, _)| status == 200)
    });
    let all = format!("gristmill_records_in_total {}\n", orders.len());
    wait_until("every record is counted", PATIENCE, || {
        get(address, "/metrics").is_some_and(|(_, t)| t.contains(&all))
    });
    // A minute is the rotation's age: nothing is visible yet, and SIGTERM finishes what is open.
    assert!(pipeline.read_back().is_empty());
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    let found = pipeline.read_back();
    // Without the transform only what is not JSON is refused.
    let letters = found.iter().filter(|f| f.output == "dead_letter").count();
    let malformed = orders.iter().filter(|o| o.fate == Fate::DeadLetter("MALFORMED_JSON")).count();
    assert_eq!((found.len(), letters), (orders.len(), malformed), "{}", pipeline.logs());
    assert!(letters > 0, "the orders hold malformed ones");
}

#[test]
fn dead_letters_go_to_a_topic_with_the_context_headers_of_kafka_connect() {
    let Some(kafka) = shared_kafka() else { return };
    let (topic, orders) = topic_with_orders(kafka, "letters", 300);
    let letters = format!("{topic}-dead");
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&letters, 1, &[]));
    let folder = tempfile::tempdir().unwrap();
    let more = format!("dead_letters: {{topic: {letters}}}\n");
    let pipeline = Pipeline::new(folder.path(), &pipeline_text(kafka, &topic, "1s", &more));
    let run = pipeline.start(None);
    let malformed: Vec<(i64, &Order)> = orders
        .iter()
        .enumerate()
        .filter(|(_, o)| o.fate == Fate::DeadLetter("MALFORMED_JSON"))
        .map(|(i, o)| (i as i64, o))
        .collect();
    let count = malformed.len() as i64;
    wait_until("the letters arrive", PATIENCE, || kafka.end_offsets(&letters, 1)[0] >= count);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap_servers())
        .set("group.id", unique("reader"))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&letters]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let started = std::time::Instant::now();
    while seen.len() < malformed.len() {
        // `poll` comes back without a message for rebalances too.
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            assert!(started.elapsed() < PATIENCE, "{} of {} letters", seen.len(), malformed.len());
            continue;
        };
        let message = message.expect("a letter");
        let header = |name: &str| {
            let headers = message.headers().expect("there are headers");
            let found = headers.iter().find(|h| h.key == name).unwrap_or_else(|| panic!("no header {name}"));
            String::from_utf8(found.value.unwrap_or_default().to_vec()).unwrap()
        };
        let offset: i64 = header("__connect.errors.offset").parse().unwrap();
        let (_, order) = malformed.iter().find(|(o, _)| *o == offset).expect("a malformed one");
        assert_eq!(header("__connect.errors.topic"), topic);
        assert_eq!(header("__connect.errors.stage"), "VALUE_CONVERTER");
        assert_eq!(header("__connect.errors.exception.class.name"), "DECODE_MALFORMED");
        assert_eq!(message.key(), Some(order.id.as_bytes()));
        assert_eq!(message.payload(), order.value.as_deref());
        seen.insert(offset);
    }
}

#[test]
fn without_dead_letters_the_first_reject_stops_the_pipeline_and_says_where() {
    let Some(kafka) = shared_kafka() else { return };
    let (topic, orders) = topic_with_orders(kafka, "strict", 200);
    let first =
        orders.iter().position(|o| o.fate == Fate::DeadLetter("MALFORMED_JSON")).expect("there is one");
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new(folder.path(), &pipeline_text(kafka, &topic, "1s", ""));
    let mut run = pipeline.start(None);
    assert_eq!(run.wait(PATIENCE).code(), Some(1));
    let log = run.log();
    let expected = format!("error: {topic}-0: the record at offset {first} is rejected (DECODE_MALFORMED: ");
    assert!(log.contains(&expected) && log.contains("add them to set such records aside"), "{log}");
}

#[test]
fn a_broker_that_is_not_there_is_told_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "name: nobody\nsource:\n  kafka: {{bootstrap_servers: '{}', topics: [t]}}\ndecode: {{format: bytes}}\nsink: \
         {{files: {{folder: rows}}}}\n",
        free_address()
    );
    let pipeline = Pipeline::new(folder.path(), &text);
    let mut run = pipeline.start(None);
    let status = run.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", run.log());
    assert!(run.log().contains("error: "), "{}", run.log());
}

#[test]
fn a_topic_that_was_created_again_is_read_from_its_beginning() {
    let Some(kafka) = shared_kafka() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (topic, old) = topic_with_orders(kafka, "again", 100);
    let folder = tempfile::tempdir().unwrap();
    let more = "dead_letters: {folder: dead_letters}\n";
    let pipeline = Pipeline::new(folder.path(), &pipeline_text(kafka, &topic, "1s", more));
    let group = format!("gristmill-{topic}");
    let run = pipeline.start(None);
    wait_until("the old topic is read", PATIENCE, || kafka.committed_offsets(&group, &topic, 1) == [100]);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());

    runtime.block_on(kafka.delete_topic(&topic));
    wait_until("the name is free", PATIENCE, || {
        runtime.block_on(async { kafka.try_create_topic(&topic, 1).await })
    });
    let mut orders = Orders::new(Encoding::Json, 11);
    let new: Vec<(i32, Order)> = (0..150).map(|_| (0, orders.make())).skip(100).collect();
    OrderProducer::new(&kafka.bootstrap_servers(), &topic).plain(&topic, &new);
    // An offset of the old topic that came late.
    kafka.commit(&group, &topic, 30);
    let run = pipeline.start(None);
    wait_until("the new topic is read", PATIENCE, || kafka.committed_offsets(&group, &topic, 1) == [50]);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());

    let found = pipeline.read_back();
    for order in old.iter().chain(new.iter().map(|(_, o)| o)) {
        let times = found.iter().filter(|f| f.what.rsplit(' ').next() == Some(&order.id)).count();
        assert_eq!(times, 1, "{}: {}", order.id, pipeline.logs());
    }
}

#[test]
fn a_store_that_fails_in_passing_stops_no_pipeline() {
    let Some(kafka) = shared_kafka() else { return };
    let (topic, orders) = topic_with_orders(kafka, "passing", 3000);
    let folder = tempfile::tempdir().unwrap();
    let more = "dead_letters: {folder: dead_letters}\n";
    let pipeline = Pipeline::new(folder.path(), &pipeline_text(kafka, &topic, "5s", more));
    let mut run = pipeline.start(None);
    // The upload of the open file is gone when it is to be finished: its records have to be read again.
    let unfinished = folder.path().join("rows/.gristmill-tmp");
    let is_old = |path: &std::path::Path| {
        // What the ledger itself writes is gone in no time.
        let age = std::fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        age.is_some_and(|age| age > Duration::from_secs(2))
    };
    wait_until("an unfinished file is taken away", PATIENCE, || {
        let entries = std::fs::read_dir(&unfinished).into_iter().flatten().flatten();
        let open: Vec<_> = entries.map(|e| e.path()).filter(|path| is_old(path)).collect();
        open.iter().any(|path| std::fs::remove_file(path).is_ok())
    });
    run.wait_for("the store or Kafka fails; nothing is lost", PATIENCE);
    let (group, end) = (format!("gristmill-{topic}"), orders.len() as i64);
    wait_until("all is read", PATIENCE, || kafka.committed_offsets(&group, &topic, 1) == [end]);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    let found = pipeline.read_back();
    let places: std::collections::BTreeSet<_> = found.iter().map(|f| f.place).collect();
    assert_eq!((found.len(), places.len()), (orders.len(), orders.len()), "{}", pipeline.logs());
    assert_eq!(pipeline.command(&["ledger", "verify"]).0, Some(0));
}

/// What a condition keeps from a transform is a row all the same, in its place, and the audit accounts for it.
#[test]
fn what_conditions_keep_from_transforms_is_accounted_for() {
    let Some(kafka) = shared_kafka() else { return };
    let (topic, orders) = topic_with_orders(kafka, "conditions", 600);
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let prebuilt = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms/prebuilt");
    let wasm = |name: &str| prebuilt.join(format!("{name}.wasm")).display().to_string();
    let text = format!(
        "name: {topic}\nsource:\n  kafka: {{bootstrap_servers: '{}', topics: [{topic}]}}\ntransforms:\n  - wasm: '{}'\n    \
         config: {{high_value_cents: 100000}}\n    when: {{tombstone: false}}\n  - wasm: '{}'\n    config: {{high_value_cents: \
         100000}}\n    when: {{column: {{path: amount_cents, at_least: 50000}}}}\ndecode:\n  format: json\n  fields:\n    \
         order_id: string not null\n    customer: {{name: string, email: string, card: string}}\n    amount_cents: int64 not \
         null\n    created_at: timestamp_ms\n    test: bool\nsink:\n  files: {{folder: rows, rotate: {{age: 1s}}}}\ndead_letters: \
         {{folder: letters}}\nhttp: {{listen: '{address}'}}\n",
        kafka.bootstrap_servers(),
        wasm("orders"),
        wasm("typed-orders"),
    );
    let pipeline = Pipeline::new(folder.path(), &text);
    let run = pipeline.start(None);
    let all = format!("gristmill_records_in_total {}\n", orders.len());
    let mut metrics = String::new();
    wait_until("every record is counted", PATIENCE, || {
        metrics = get(address, "/metrics").map(|(_, text)| text).unwrap_or_default();
        metrics.contains(&all)
    });
    let counted = |transform: &str, verdict: &str| -> u64 {
        let line =
            format!("gristmill_transform_records_total{{transform=\"{transform}\",verdict=\"{verdict}\"}} ");
        metrics.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |n| n.parse().unwrap())
    };
    let sum = |transform: &str| -> u64 {
        ["kept", "dropped", "rejected", "passed_by"].iter().map(|verdict| counted(transform, verdict)).sum()
    };
    let null = orders.iter().filter(|order| order.value.is_none()).count() as u64;
    assert_eq!((sum("orders"), counted("orders", "passed_by")), (orders.len() as u64, null), "{metrics}");
    let both = [counted("typed-orders", "passed_by"), counted("typed-orders", "kept")];
    assert!(both.iter().all(|n| *n > 50), "{both:?}");
    let given = counted("orders", "kept") + counted("orders", "emitted");
    assert_eq!(sum("typed-orders"), given, "{metrics}");
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    let (code, text) = pipeline.command(&["audit"]);
    assert_eq!(code, Some(0), "{text}");
}
