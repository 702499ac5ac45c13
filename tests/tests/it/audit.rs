//! The audit of a real run: clean through aborted transactions, drops and dead letters, and what it says once
//! somebody has been in the folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gristmill_tests::orders::{Encoding, Fate, Order, Orders};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, shared_kafka, unique};

const PATIENCE: Duration = Duration::from_secs(60);

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(parquet_files(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// Exit code, report, and what went to standard error after it.
fn audit(pipeline: &Pipeline) -> (Option<i32>, serde_json::Value) {
    let (code, text) = pipeline.command(&["audit", "--since", "24h", "--json"]);
    let report =
        serde_json::Deserializer::from_str(&text).into_iter().next().expect("a report").expect(&text);
    (code, report)
}

#[test]
fn every_offset_is_accounted_for_and_what_hands_did_is_found_with_its_command() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("audited");
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 1, &[]));
    let bootstrap = kafka.bootstrap_servers();
    let producer = OrderProducer::new(&bootstrap, &topic);
    let mut orders = Orders::new(Encoding::Json, 5);
    let mut batch = |count| (0..count).map(|_| (0, orders.make())).collect::<Vec<(i32, Order)>>();
    let (committed, aborted, plain) = (batch(200), batch(50), batch(100));
    producer.committed(&topic, &committed);
    producer.aborted(&topic, &aborted);
    producer.plain(&topic, &plain);
    let folder = tempfile::tempdir().unwrap();
    let wasm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms/prebuilt/orders.wasm");
    let text = format!(
        "name: {topic}
source:
  kafka: {{bootstrap_servers: '{bootstrap}', topics: [{topic}]}}
transforms:
  - wasm: {}
    config: {{mask: '***', high_value_cents: 100000}}
decode:
  format: json
  fields: {{order_id: string not null, currency: string, amount_cents: int64 not null}}
sink:
  files:
    folder: rows
    directories: currency={{currency}}
    rotate: {{rows: 100, age: 1s}}
dead_letters: {{folder: dead_letters}}
",
        wasm.canonicalize().unwrap().display()
    );
    let pipeline = Pipeline::new(folder.path(), &text);
    let mut run = pipeline.start(None);
    run.wait_for("published partition=0", PATIENCE);
    let end = kafka.end_offsets(&topic, 1)[0];
    let group = format!("gristmill-{topic}");
    wait_until("all is published", PATIENCE, || kafka.committed_offsets(&group, &topic, 1) == [end]);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());

    let count = |fits: &dyn Fn(Fate) -> bool| {
        committed.iter().chain(&plain).filter(|(_, order)| fits(order.fate)).count() as u64
    };
    let (code, report) = audit(&pipeline);
    assert_eq!((code, &report["clean"]), (Some(0), &true.into()), "{report:#}");
    let account = &report["partitions"][0];
    let expected = serde_json::json!({
        "first": 0, "next": end, "without_record": end - 300,
        "rows": count(&|f| matches!(f, Fate::Row(_))), "rejected": count(&|f| matches!(f, Fate::DeadLetter(_))),
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(account[field], *value, "{field}: {account:#}");
    }
    assert_eq!(account["counts"]["read"], 300);
    assert_eq!(account["counts"]["dropped"], count(&|f| f == Fate::Dropped));
    assert_eq!(account["files_by_count"], 0);
    let (code, table) = pipeline.command(&["audit"]);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains(&format!("{topic}-0 ")) && table.contains(&format!(" 0..{end} ")), "{table}");
    assert!(table.contains("MALFORMED_JSON") && table.contains("every offset is accounted for"), "{table}");

    let rows = folder.path().join("rows");
    let files = parquet_files(&rows.join(&topic));
    let copy = rows.join(&topic).join("backup.parquet");
    std::fs::copy(&files[0], &copy).unwrap();
    let last = files.last().unwrap();
    std::fs::remove_file(last).unwrap();
    let (code, report) = audit(&pipeline);
    assert_eq!(code, Some(3), "{report:#}");
    let findings = report["findings"].as_array().unwrap();
    let kinds: Vec<_> = findings.iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["missing_file", "doubled_rows"], "{report:#}");
    let range = &findings[0]["range"];
    let replay = format!(
        "gristmill replay {} --topic {topic} --partition 0 --from {} --to {} --into again-",
        pipeline.file().display(),
        range["first"],
        range["next"]
    );
    assert!(findings[0]["command"].as_str().unwrap().starts_with(&replay), "{report:#}");
    assert!(last.ends_with(Path::new(findings[0]["object"].as_str().unwrap()).file_name().unwrap()));
    assert_eq!(findings[1]["command"], format!("rm {}", copy.display()));
    let (code, text) = pipeline.command(&["audit"]);
    assert_eq!(code, Some(3));
    assert!(text.contains(&format!("FAIL {topic}/backup.parquet: no range wrote it")), "{text}");
    assert!(text.ends_with("the books and the files do not agree; nothing was changed\n"), "{text}");
}
