//! Records of several versions of a schema, in turn, through a transform of columns.

use std::path::Path;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use gristmill::EmbeddedRegistry;
use gristmill_tests::orders::{Encoding, Order, Orders};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, shared_kafka, unique};
use serde_json::{Map, Value};

const FIRST: &str = r#"{"type": "record", "name": "Order", "fields": [
    {"name": "order_id", "type": "string"},
    {"name": "amount_cents", "type": "int"},
    {"name": "customer", "type": {"type": "record", "name": "Customer", "fields": [
        {"name": "name", "type": "string"}, {"name": "email", "type": "string"}, {"name": "card", "type": "string"}]}},
    {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
/// Another order of fields, a wider amount, fields with defaults.
const SECOND: &str = r#"{"type": "record", "name": "Order", "fields": [
    {"name": "customer", "type": {"type": "record", "name": "Customer", "fields": [
        {"name": "card", "type": "string"}, {"name": "phone", "type": "string", "default": "none"},
        {"name": "email", "type": ["null", "string"], "default": null}, {"name": "name", "type": "string"}]}},
    {"name": "test", "type": "boolean", "default": false},
    {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "amount_cents", "type": "long"},
    {"name": "order_id", "type": "string"}]}"#;
/// One more field, at the front.
const THIRD: &str = r#"{"type": "record", "name": "Order", "fields": [
    {"name": "channel", "type": {"type": "enum", "name": "Channel", "symbols": ["WEB", "SHOP"], "default": "WEB"}, "default": "WEB"},
    {"name": "customer", "type": {"type": "record", "name": "Customer", "fields": [
        {"name": "card", "type": "string"}, {"name": "phone", "type": "string", "default": "none"},
        {"name": "email", "type": ["null", "string"], "default": null}, {"name": "name", "type": "string"}]}},
    {"name": "test", "type": "boolean", "default": false},
    {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "amount_cents", "type": "long"},
    {"name": "order_id", "type": "string"}]}"#;
const PATIENCE: Duration = Duration::from_secs(60);

/// Order `i` in version `i % 3`; each tenth is a test, if its version can say so.
fn datum(schema: &Schema, i: usize) -> Vec<u8> {
    let text = |value: String| Avro::String(value);
    let email = text(format!("u{i}@example.org"));
    let email = if i.is_multiple_of(3) { email } else { Avro::Union(1, Box::new(email)) };
    let customer = |phone: bool| {
        let mut members = vec![("card".into(), text("4111".into())), ("name".into(), text(format!("n{i}")))];
        members.push(("email".into(), email.clone()));
        if phone {
            members.push(("phone".into(), text(format!("+49 {i}"))));
        }
        Avro::Record(members)
    };
    let (amount, time) = (i as i64 * 700, Avro::TimestampMillis(1_793_491_200_000 + i as i64));
    let mut fields = vec![("order_id".into(), text(format!("o-{i}"))), ("created_at".into(), time)];
    match i % 3 {
        0 => fields.extend([
            ("amount_cents".into(), Avro::Int(amount as i32)),
            ("customer".into(), customer(false)),
        ]),
        version => {
            fields.extend([
                ("amount_cents".into(), Avro::Long(amount)),
                ("customer".into(), customer(true)),
                ("test".into(), Avro::Boolean(i.is_multiple_of(10))),
            ]);
            if version == 2 {
                fields.push(("channel".into(), Avro::Enum(1, "SHOP".into())));
            }
        }
    }
    let writer = GenericDatumWriter::builder(schema).build().unwrap();
    writer.write_value_to_vec(Avro::Record(fields)).unwrap()
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

fn rows_in(folder: &Path, rows: &mut Vec<Value>) {
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            rows_in(&path, rows);
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(path).unwrap();
            rows.extend(text.lines().map(|line| without_nulls(&serde_json::from_str(line).unwrap())));
        }
    }
}

/// The workbench and the pipeline make the same rows of them, whatever the version of each.
#[test]
fn records_of_several_writer_schemas_in_turn_are_rows_of_one_schema() {
    let Some(kafka) = shared_kafka() else { return };
    let (topic, runtime) = (unique("writers"), tokio::runtime::Runtime::new().unwrap());
    let (registry, ids) = runtime.block_on(async {
        kafka.create_topic(&topic, 1, &[]).await;
        let registry = EmbeddedRegistry::start().await.unwrap();
        let client = gristmill::RegistryConfig::builder().url(registry.url()).build().unwrap();
        let client = gristmill::SchemaRegistry::new(client).unwrap();
        let mut ids = Vec::new();
        for schema in [FIRST, SECOND, THIRD] {
            let subject = format!("{topic}-value");
            ids.push(client.register(&subject, &gristmill::SchemaType::Avro, schema, &[]).await.unwrap().id);
        }
        (registry, ids)
    });
    let schemas = [FIRST, SECOND, THIRD].map(|text| Schema::parse_str(text).unwrap());
    let mut orders = Orders::new(Encoding::Json, 29);
    let broken = 100;
    let batch: Vec<(i32, Order)> = (0..300)
        .map(|i| {
            let mut value = vec![0];
            value.extend(ids[i % 3].to_be_bytes());
            value.extend(datum(&schemas[i % 3], i));
            if i == broken {
                value.truncate(9);
            }
            (0, Order { value: Some(value), ..orders.make() })
        })
        .collect();
    OrderProducer::new(&kafka.bootstrap_servers(), &topic).plain(&topic, &batch);

    let folder = tempfile::tempdir().unwrap();
    let prebuilt = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms/prebuilt");
    let wasm = prebuilt.join("typed-orders.wasm").display().to_string();
    let config = r#"{"high_value_cents": 200000}"#;
    let (servers, url) = (kafka.bootstrap_servers(), registry.url());
    let pipeline = Pipeline::new(
        folder.path(),
        &format!(
            "name: {topic}\nsource:\n  kafka: {{bootstrap_servers: '{servers}', topics: [{topic}]}}\nschema_registry: {{url: \
             '{url}'}}\ndecode: {{format: avro}}\ntransforms:\n  - wasm: {wasm}\n    config: {config}\nsink:\n  files: {{folder: \
             rows, format: jsonl, rotate: {{age: 1s}}}}\ndead_letters: {{folder: letters}}\n"
        ),
    );
    let file = pipeline.file().display().to_string();
    let run = ["transform", "run", &wasm, "--config", config, "--from-topic", &file, "--limit", "1000"];
    let out = std::process::Command::new(gristmill_tests::pipeline::gristmill()).args(run).output().unwrap();
    let log = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{log}");
    let lines: Vec<Value> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 300);
    let mut tried: Vec<Value> = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let (version, is_test) = (i % 3, i.is_multiple_of(10) && !i.is_multiple_of(3));
        if i == broken {
            assert_eq!(line["not_decoded"], "DECODE_MALFORMED", "{line}");
            continue;
        }
        if is_test {
            assert_eq!(line["dropped"], true, "{line}");
            continue;
        }
        let columns = &line["columns"];
        let customer = &columns["customer"];
        assert_eq!(
            (columns["order_id"].as_str(), columns["amount_cents"].as_i64(), customer["email"].as_str()),
            (Some(&*format!("o-{i}")), Some(i as i64 * 700), Some("***@example.org")),
            "{line}"
        );
        let phone = if version == 0 { "none".to_owned() } else { format!("+49 {i}") };
        assert_eq!((customer["phone"].as_str(), customer.get("card")), (Some(&*phone), None), "{line}");
        assert_eq!(columns["channel"], ["WEB", "WEB", "SHOP"][version], "{line}");
        assert_eq!(line["output"], if i * 700 >= 200_000 { "high_value" } else { "main" }, "{line}");
        tried.push(without_nulls(columns));
    }

    let running = pipeline.start(None);
    let mut rows = Vec::new();
    wait_until("all rows are in files", PATIENCE, || {
        rows.clear();
        rows_in(&folder.path().join("rows"), &mut rows);
        rows.len() >= tried.len()
    });
    assert_eq!(running.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    let by_offset = |rows: Vec<Value>| {
        let mut rows: Vec<(i64, Map<String, Value>)> = (rows.into_iter())
            .map(|row| (row["_kafka_offset"].as_i64().unwrap(), row.as_object().unwrap().clone()))
            .collect();
        rows.sort_by_key(|(offset, _)| *offset);
        rows
    };
    assert_eq!(by_offset(rows), by_offset(tried));
}
