//! A component that is replaced while the pipeline runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gristmill_tests::orders::{Encoding, Order, Orders};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, shared_kafka, unique};
use sha2::{Digest, Sha256};

use crate::service::{free_address, get};

const PATIENCE: Duration = Duration::from_secs(60);

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Paths and texts.
fn files(folder: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            texts.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            texts.extend(std::fs::read_to_string(&path).map(|text| (path, text)));
        }
    }
    texts
}

fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn file(topic: &str, servers: &str, address: &str, age: &str) -> String {
    format!(
        "name: {topic}\nsource:\n  kafka: {{bootstrap_servers: '{servers}', topics: [{topic}]}}\ntransforms:\n  - wasm: \
         typed-orders.wasm\n    reload: true\n    config: {{high_value_cents: 100000}}\ndecode:\n  format: json\n  fields:\n    \
         order_id: string not null\n    customer: {{name: string, email: string, card: string}}\n    amount_cents: int64 not \
         null\n    created_at: timestamp_ms\n    test: bool\nsink:\n  files: {{folder: rows, format: jsonl, rotate: {{age: {age}}}}}\ndead_letters: \
         {{folder: letters}}\nhttp: {{listen: '{address}'}}\n"
    )
}

/// The example, and another version of it: the same, but for the mask.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let first = std::fs::read(prebuilt().join("typed-orders.wasm")).unwrap();
    let at = first.windows(4).position(|part| part == b"***@").expect("the mask");
    let mut second = first.clone();
    second[at..at + 4].copy_from_slice(b"###@");
    (first, second)
}

fn prebuilt() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms/prebuilt")
}

/// By partition and offset, the digest that each entry of the ledger names.
fn digests(rows: &Path) -> Vec<(u64, PathBuf, String)> {
    let mut entries: Vec<(u64, PathBuf, String)> = Vec::new();
    for (path, text) in files(&rows.join("_gristmill/ledger"), "json") {
        let entry: serde_json::Value = serde_json::from_str(&text).unwrap();
        let Some(digest) = entry["transform_digest"].as_str() else { continue };
        // `{partition}/{first}.json`, both padded.
        let partition = path.parent().and_then(Path::file_name).unwrap().to_string_lossy().parse().unwrap();
        entries.push((partition, path, digest.to_owned()));
    }
    entries.sort();
    entries
}

/// What the old component dropped is of the old one, also where it left nothing to write.
#[test]
fn a_range_that_was_dropped_is_of_the_component_that_dropped_it() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("reload-dropped");
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 1, &[]));
    let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    let mut orders = Orders::new(Encoding::Json, 18);
    let mut produce = |count: usize| {
        let value = br#"{"order_id": "o", "amount_cents": 1, "test": true}"#;
        let order = |order: Order| Order { value: Some(value.to_vec()), ..order };
        let orders: Vec<(i32, Order)> = (0..count).map(|_| (0, order(orders.make()))).collect();
        producer.plain(&topic, &orders);
    };
    let (first, second) = versions();
    let folder = tempfile::tempdir().unwrap();
    let wasm = folder.path().join("typed-orders.wasm");
    std::fs::write(&wasm, &first).unwrap();
    let address = free_address();
    let text = file(&topic, &kafka.bootstrap_servers(), &address.to_string(), "1h");
    let pipeline = Pipeline::new(folder.path(), &text);
    let run = pipeline.start(None);
    let metric = |line: &str| get(address, "/metrics").is_some_and(|(_, text)| text.contains(line));
    produce(30);
    wait_until("they are read", PATIENCE, || metric("gristmill_records_in_total 30\n"));
    let rows = folder.path().join("rows");
    assert_eq!(digests(&rows), [], "nothing was worth an entry");
    replace(&wasm, &second);
    wait_until("the range has an entry", PATIENCE, || !digests(&rows).is_empty());
    let entries: Vec<String> = digests(&rows).into_iter().map(|(_, _, digest)| digest).collect();
    assert_eq!(entries, [hex(&first)]);
    produce(30);
    wait_until("all are read", PATIENCE, || metric("gristmill_records_in_total 60\n"));
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
}

/// What fits is taken between two entries, each of which names the component that made it; what does not is refused by
/// name and changes nothing; no record is lost or doubled by it.
#[test]
fn a_replaced_component_is_taken_between_two_entries_and_one_that_does_not_fit_is_not() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("reload");
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 2, &[]));
    let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    let mut orders = Orders::new(Encoding::Json, 17);
    let mut produce = |count: usize| {
        let orders: Vec<(i32, Order)> = (0..count).map(|i| ((i % 2) as i32, orders.make())).collect();
        producer.plain(&topic, &orders);
    };
    let (first, second) = versions();
    let folder = tempfile::tempdir().unwrap();
    let wasm = folder.path().join("typed-orders.wasm");
    std::fs::write(&wasm, &first).unwrap();
    let address = free_address();
    let text = file(&topic, &kafka.bootstrap_servers(), &address.to_string(), "1s");
    let pipeline = Pipeline::new(folder.path(), &text);
    let run = pipeline.start(None);
    let rows = folder.path().join("rows");
    let metric = |line: &str| get(address, "/metrics").is_some_and(|(_, text)| text.contains(line));
    let reloads = |result: &str, count: u32| {
        let labels = format!("{{transform=\"typed-orders\",result=\"{result}\"}}");
        metric(&format!("gristmill_transform_reloads_total{labels} {count}\n"))
    };
    let masked = |mask: &str| files(&rows, "jsonl").iter().filter(|(_, text)| text.contains(mask)).count();
    produce(400);
    wait_until("the first component's rows are there", PATIENCE, || masked("***@") > 0);

    // Not a component; another transform; then the new version, under load.
    replace(&wasm, b"\0asm\x0d\0\x01\0 and no more");
    wait_until("what does not load is refused", PATIENCE, || reloads("refused", 1));
    replace(&wasm, &std::fs::read(prebuilt().join("orders.wasm")).unwrap());
    wait_until("another transform is refused", PATIENCE, || reloads("refused", 2));
    let log = run.log();
    assert!(log.contains("it is orders, and not another version of typed-orders"), "{log}");
    assert_eq!(masked("###@"), 0);
    replace(&wasm, &second);
    wait_until("the new version is taken under load", PATIENCE, || {
        produce(50);
        reloads("taken", 1) && masked("###@") >= 2
    });
    produce(200);
    let end = |partition: usize| kafka.end_offsets(&topic, 2)[partition];
    let all = end(0) + end(1);
    wait_until("every record is read", PATIENCE, || metric(&format!("gristmill_records_in_total {all}\n")));
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());

    // By partition, entries of the first component and then entries of the second, and none of both.
    let entries = digests(&rows);
    for partition in 0..2 {
        let digests: Vec<_> = entries.iter().filter(|e| e.0 == partition).map(|e| e.2.as_str()).collect();
        let of_first = digests.iter().take_while(|digest| **digest == hex(&first)).count();
        assert!(of_first > 0 && of_first < digests.len(), "partition {partition}: {digests:?}");
        assert!(digests[of_first..].iter().all(|digest| *digest == hex(&second)), "{digests:?}");
    }
    for (_, text) in files(&rows, "jsonl") {
        assert!(!(text.contains("***@") && text.contains("###@")), "a file of two components: {text}");
    }
    let (code, text) = pipeline.command(&["audit"]);
    assert_eq!(code, Some(0), "{text}");
}
