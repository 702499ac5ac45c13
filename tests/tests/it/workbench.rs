//! The commands that try a transform, on what is in a topic.

use std::path::Path;
use std::process::Command;

use gristmill_tests::orders::{Encoding, Order, Orders};
use gristmill_tests::pipeline::gristmill;
use gristmill_tests::{OrderProducer, shared_kafka, unique};
use serde_json::Value;

fn command(arguments: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(gristmill()).arg("transform").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn a_new_version_is_tried_on_what_is_in_the_topic_before_it_is_in_the_pipeline() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("workbench");
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 2, &[]));
    let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    let mut orders = Orders::new(Encoding::Json, 23);
    let mut some =
        |count: usize| -> Vec<(i32, Order)> { (0..count).map(|i| ((i % 2) as i32, orders.make())).collect() };
    producer.plain(&topic, &some(300));
    producer.aborted(&topic, &some(40));
    producer.committed(&topic, &some(100));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.yaml");
    let text = format!(
        "name: orders\nsource:\n  kafka: {{bootstrap_servers: '{}', topics: [{topic}]}}\ntransforms: [{{wasm: not-built-yet.wasm}}]\ndecode:\n  format: json\n  fields:\n    \
         order_id: string not null\n    customer: {{name: string, email: string, card: string}}\n    amount_cents: int64 not \
         null\n    created_at: timestamp_ms\n    test: bool\nsink:\n  files: {{folder: rows}}\n",
        kafka.bootstrap_servers()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let prebuilt = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms/prebuilt");
    let old = prebuilt.join("typed-orders.wasm").display().to_string();
    let mut bytes = std::fs::read(&old).unwrap();
    let at = bytes.windows(4).position(|part| part == b"***@").expect("the mask");
    bytes[at..at + 4].copy_from_slice(b"###@");
    let new = folder.path().join("new.wasm");
    std::fs::write(&new, bytes).unwrap();
    let new = new.display().to_string();
    let config = r#"{"high_value_cents": 100000}"#;
    let common = ["--config", config, "--from-topic", &file];

    // All of it: what is visible, and no aborted record.
    let with = |first: &[&str], more: &[&str]| command(&[first, &common, more].concat());
    let (code, out, log) = with(&["run", &old], &["--limit", "100000", "--before"]);
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut places: Vec<(i64, i64)> =
        (lines.iter()).map(|l| (l["partition"].as_i64().unwrap(), l["offset"].as_i64().unwrap())).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 400, "{log}");
    let kept = lines.iter().find(|l| l["columns"]["email_domain"].is_string()).expect("one with an address");
    assert!(kept["before"]["customer"]["card"].is_string() && kept["columns"]["customer"]["card"].is_null());
    assert!(kept["columns"]["_kafka_offset"].is_i64(), "{kept}");
    assert!(lines.iter().any(|l| l["not_decoded"].as_str().is_some_and(|code| code.starts_with("DECODE_"))));

    // The newest ones, of both partitions; the last hour is all of them.
    let count = |more: &[&str]| with(&["run", &old], more).1.lines().count();
    // Of the five newest offsets of each, one is the marker of a commit.
    assert_eq!(count(&["--limit", "10"]), 8);
    let (code, out, log) = with(&["diff", &old, &new], &["--last", "1h", "--json", "--show", "2"]);
    assert_eq!(code, Some(3), "{log}");
    let diff: Value = serde_json::from_str(&out).unwrap();
    // Times of the orders' own are of another day.
    if diff["rows"] == 400 {
        assert_eq!(diff["examples"].as_array().unwrap().len(), 2);
    }
    let (code, out, log) = with(&["diff", &old, &new], &["--limit", "100000", "--json", "--show", "2"]);
    assert_eq!(code, Some(3), "{log}");
    let diff: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(diff["rows"], 400);
    let changed = diff["changed"].as_u64().unwrap();
    assert!(changed > 50 && changed < 400, "{diff}");
    assert_eq!(
        diff["fields"],
        serde_json::json!({"customer.email": {"added": 0, "removed": 0, "changed": changed}})
    );
    assert_eq!((&diff["fates"], diff["examples"].as_array().unwrap().len()), (&serde_json::json!({}), 2));
    let example = &diff["examples"][0];
    assert!(
        example["new"][0]["columns"]["customer"]["email"].as_str().unwrap().starts_with("###@"),
        "{example}"
    );

    // The same is the same; another configuration routes and rejects otherwise.
    let (code, out, _) = with(&["diff", &old, &old], &["--limit", "1000"]);
    assert!(code == Some(0) && out.contains("of which 0 change"), "{out}");
    let more = ["--limit", "1000", "--new-config", r#"{"high_value_cents": 0}"#];
    let (code, out, _) = with(&["diff", &old, &old], &more);
    assert!(code == Some(3) && out.contains("output main -> high_value"), "{out}");

    // Counted instructions are the same each time; time is not, and is given with its spread.
    let cost = || with(&["bench", &old], &["--limit", "200", "--cost"]);
    let (code, out, log) = cost();
    assert!(code == Some(0) && out.contains("units of fuel a row"), "{out}{log}");
    assert_eq!(cost().1, out);
    let (code, out, log) = with(&["bench", &old], &["--limit", "200", "--time", "200ms"]);
    assert!(code == Some(0) && out.contains(" ns a row "), "{out}{log}");

    // Mistakes.
    let records = prebuilt.join("orders.wasm").display().to_string();
    let (code, _, log) = with(&["diff", &old, &records], &[]);
    assert!(code == Some(2) && log.contains("works on columns") && log.contains("on records"), "{log}");
    let (code, _, log) = with(&["run", &old], &["--last", "soon"]);
    assert!(code == Some(2) && log.contains("`soon`"), "{log}");
    let (code, _, log) = command(&["run", &old, "--limit", "5"]);
    assert!(code == Some(2) && log.contains("--from-topic"), "{log}");
    std::fs::write(&new, "not a component").unwrap();
    let (code, _, log) = with(&["diff", &old, &new], &[]);
    assert!(code == Some(2) && log.contains("this is not a WebAssembly component"), "{log}");
}
