//! Debezium's envelopes from a real Kafka into tables that are changed in place, by the in-process fake of BigQuery.

use std::collections::BTreeMap;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use gristmill::EmbeddedRegistry;
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use gristmill_tests::orders::{Fate, Order};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, RealKafka, shared_kafka, unique};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::bigquery::dead_letters;

const PATIENCE: Duration = Duration::from_secs(90);

fn record(key: i64, value: Option<Vec<u8>>) -> Order {
    Order {
        id: String::new(),
        key: format!(r#"{{"id": {key}}}"#),
        value,
        headers: Vec::new(),
        timestamp: 1_793_491_200_000,
        fate: Fate::Row("main"),
    }
}

/// A database table, and what Debezium says of it.
struct Customers {
    producer: OrderProducer,
    topic: String,
    partitions: i32,
    table: BTreeMap<i64, String>,
    random: SmallRng,
    changes: usize,
}

impl Customers {
    fn change(&mut self, times: usize) {
        let mut batch = Vec::new();
        for _ in 0..times {
            self.changes += 1;
            let (key, name) = (self.random.random_range(0..40), format!("change {}", self.changes));
            let after = json!({"id": key, "name": name});
            let is_there = self.table.contains_key(&key);
            let envelope = match self.random.random_range(0..10) {
                0..3 if is_there => {
                    self.table.remove(&key);
                    json!({"op": "d", "before": {"id": key, "name": null}, "after": null})
                }
                _ => {
                    self.table.insert(key, name);
                    json!({"op": if is_there { "u" } else { "c" }, "before": null, "after": after})
                }
            };
            let is_gone = envelope["op"] == "d";
            // As Kafka Connect's JsonConverter writes it with and without schemas.
            let value = if key % 2 == 0 { envelope } else { json!({"schema": {}, "payload": envelope}) };
            let partition = key as i32 * 7 % self.partitions;
            batch.push((partition, record(key, Some(value.to_string().into_bytes()))));
            if is_gone {
                batch.push((partition, record(key, None)));
            }
        }
        self.producer.plain(&self.topic, &batch);
    }
}

fn found(bigquery: &FakeBigQuery, table: &str) -> BTreeMap<i64, String> {
    let (rows, ambiguous) = bigquery.merged_rows(table);
    assert_eq!(ambiguous, 0, "two rows have one number");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (row["id"].as_i64().unwrap(), text(&row["name"]))).collect()
}

fn pipeline(
    kafka: &RealKafka,
    folder: &tempfile::TempDir,
    topic: &str,
    decode: &str,
    bigquery: &FakeBigQuery,
) -> Pipeline {
    let text = format!(
        "name: {topic}\nsource:\n  kafka: {{bootstrap_servers: '{}', topics: [{topic}], session_timeout: 6s}}\n{decode}dead_letters: \
         {{folder: dead_letters}}\nsink:\n  bigquery:\n    mode: cdc\n    primary_key: [id]\n    project: shop\n    dataset: lake\n    state: \
         {{folder: state}}\n    rotate: {{age: 1s, rows: 150}}\n    tables: {{dataset_location: EU, max_staleness: 15m}}\n    endpoint: '{}'\n    \
         rest_endpoint: '{}'\n",
        kafka.bootstrap_servers(),
        bigquery.url(),
        bigquery.rest_url()
    );
    Pipeline::new(folder.path(), &text)
}

/// Killed at every step, with replies lost, a partition more, and the topic made anew: the table is the database's.
#[test]
fn a_table_follows_its_database_through_kills_more_partitions_and_another_topic() {
    let Some(kafka) = shared_kafka() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let topic = unique("customers");
    runtime.block_on(kafka.create_topic(&topic, 2, &[]));
    let (bigquery, folder) = (FakeBigQuery::start(), tempfile::tempdir().unwrap());
    let decode = "decode:\n  format: json\n  changes: debezium\n  key: {format: json, fields: {id: int64}}\n  fields: {id: int64 \
                  not null, name: string not null}\n";
    let pipeline = pipeline(kafka, &folder, &topic, decode, &bigquery);
    let table = format!("shop.lake.{}", topic.replace('-', "_"));
    let mut customers = Customers {
        producer: OrderProducer::new(&kafka.bootstrap_servers(), &topic),
        topic: topic.clone(),
        partitions: 2,
        table: BTreeMap::new(),
        random: SmallRng::seed_from_u64(gristmill_tests::seed()),
        changes: 0,
    };
    let same = |customers: &Customers| {
        wait_until("the table is the database's", PATIENCE, || found(&bigquery, &table) == customers.table);
    };

    let (code, out) = pipeline.command(&["pipeline", "plan"]);
    let statement = format!(
        "CREATE TABLE `{table}` (`id` INT64 NOT NULL, `name` STRING, `_kafka_partition` INT64, `_kafka_offset` INT64, `_kafka_sub` \
         INT64, `_kafka_timestamp` TIMESTAMP, `_kafka_key` BYTES, PRIMARY KEY (`id`) NOT ENFORCED) OPTIONS (max_staleness"
    );
    assert!(code == Some(0) && out.contains(&statement), "{out}");
    for failpoint in ["after-stage:2", "after-seal:2", "before-commit:2", "lost-reply-seal:1,after-seal:1"] {
        bigquery.plan(Call::Append, Effect::LoseReply);
        let mut run = pipeline.start(Some(failpoint));
        customers.change(600);
        run.wait_for_kill(PATIENCE);
    }
    let mut run = pipeline.start(None);
    customers.change(300);
    run.wait_for("published partition=0", PATIENCE);
    same(&customers);

    // Keys move to other partitions; nobody produces until that is noticed.
    runtime.block_on(kafka.grow_topic(&topic, 5));
    run.wait_for("partitions=5", PATIENCE);
    run.kill();
    customers.partitions = 5;
    customers.producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    customers.change(600);
    for failpoint in ["after-stage:2", "after-seal:2"] {
        let mut run = pipeline.start(Some(failpoint));
        customers.change(600);
        run.wait_for_kill(PATIENCE);
    }
    let mut run = pipeline.start(None);
    customers.change(300);
    run.wait_for("published partition=0", PATIENCE);
    same(&customers);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());

    // Offsets begin at 0 again, below all that the table has seen.
    runtime.block_on(kafka.delete_topic(&topic));
    let again = || runtime.block_on(kafka.try_create_topic(&topic, 1));
    wait_until("the topic can be made again", PATIENCE, again);
    customers.partitions = 1;
    customers.producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    customers.change(300);
    let run = pipeline.start(None);
    same(&customers);
    customers.change(50);
    same(&customers);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    let letters = dead_letters(&folder.path().join("dead_letters"));
    assert!(letters.is_empty(), "{letters:?}");
}

const VALUE: &str = r#"{"type": "record", "name": "Value", "fields": [
    {"name": "id", "type": "long"},
    {"name": "name", "type": ["null", "string"], "default": null},
    {"name": "born", "type": {"type": "int", "connect.version": 1, "connect.name": "io.debezium.time.Date"}},
    {"name": "seen", "type": ["null", {"type": "long", "connect.version": 1, "connect.name": "io.debezium.time.MicroTimestamp"}],
     "default": null},
    {"name": "limit", "type": {"type": "bytes", "scale": 2, "precision": 10, "connect.version": 1, "connect.parameters":
        {"scale": "2", "connect.decimal.precision": "10"}, "connect.name": "org.apache.kafka.connect.data.Decimal", "logicalType": "decimal"}}]}"#;

/// As Kafka Connect's AvroConverter registers it.
fn envelope() -> String {
    format!(
        r#"{{"type": "record", "name": "Envelope", "namespace": "shop.public.customers", "fields": [
            {{"name": "before", "type": ["null", {VALUE}], "default": null}},
            {{"name": "after", "type": ["null", "Value"], "default": null}},
            {{"name": "source", "type": {{"type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql", "fields": [
                {{"name": "lsn", "type": ["null", "long"], "default": null}}]}}}},
            {{"name": "op", "type": "string"}},
            {{"name": "ts_ms", "type": ["null", "long"], "default": null}}],
            "connect.version": 1, "connect.name": "shop.public.customers.Envelope"}}"#
    )
}

/// With its own types for times, and the key as text.
#[test]
fn envelopes_in_avro_keep_the_types_that_debezium_names() {
    let Some(kafka) = shared_kafka() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let topic = unique("avro-customers");
    runtime.block_on(kafka.create_topic(&topic, 1, &[]));
    let registry = runtime.block_on(EmbeddedRegistry::start()).unwrap();
    let id = runtime.block_on(async {
        let client = gristmill::RegistryConfig::builder().url(registry.url()).build().unwrap();
        let client = gristmill::SchemaRegistry::new(client).unwrap();
        let subject = format!("{topic}-value");
        client.register(&subject, &gristmill::SchemaType::Avro, &envelope(), &[]).await.unwrap().id
    });
    let (bigquery, folder) = (FakeBigQuery::start(), tempfile::tempdir().unwrap());
    let decode = format!(
        "schema_registry: {{url: '{}'}}\ndecode:\n  format: avro\n  changes: debezium\n  key: {{format: text, fields: {{id: int64}}}}\n  \
         kafka_columns: false\n",
        registry.url()
    );
    let pipeline = pipeline(kafka, &folder, &topic, &decode, &bigquery);
    let schema = Schema::parse_str(&envelope()).unwrap();
    let union = |value: Option<Avro>| match value {
        None => Avro::Union(0, Box::new(Avro::Null)),
        Some(value) => Avro::Union(1, Box::new(value)),
    };
    let row = |id: i64, name: Option<&str>| {
        Avro::Record(vec![
            ("id".into(), Avro::Long(id)),
            ("name".into(), union(name.map(|name| Avro::String(name.into())))),
            ("born".into(), Avro::Int(-1)),
            ("seen".into(), union(Some(Avro::Long(1_500_000)))),
            ("limit".into(), Avro::Decimal(apache_avro::Decimal::from([0x04, 0xb5]))),
        ])
    };
    let change = |op: &str, before: Option<Avro>, after: Option<Avro>| {
        let source = Avro::Record(vec![("lsn".into(), union(Some(Avro::Long(7))))]);
        let envelope = Avro::Record(vec![
            ("before".into(), union(before)),
            ("after".into(), union(after)),
            ("source".into(), source),
            ("op".into(), Avro::String(op.into())),
            ("ts_ms".into(), union(None)),
        ]);
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        let datum = writer.write_value_to_vec(envelope).unwrap();
        [&[0], &id.to_be_bytes()[..], &datum].concat()
    };
    let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    let with_key =
        |key: i64, value: Option<Vec<u8>>| (0, Order { key: key.to_string(), ..record(key, value) });
    let records = [
        with_key(1, Some(change("r", None, Some(row(1, Some("Ada")))))),
        with_key(2, Some(change("c", None, Some(row(2, None))))),
        with_key(3, Some(change("c", None, Some(row(3, Some("Bo")))))),
        with_key(3, Some(change("d", Some(row(3, Some("Bo"))), None))),
        // The deletion before it was compacted away.
        with_key(2, None),
    ];
    producer.plain(&topic, &records);
    let run = pipeline.start(None);
    let table = format!("shop.lake.{}", topic.replace('-', "_"));
    let expected = json!([
        {"id": 1, "name": "Ada", "born": "1969-12-31", "seen": "1970-01-01T00:00:01.5", "limit": "12.05"}
    ]);
    let rows = || serde_json::to_value(bigquery.merged_rows(&table).0).unwrap();
    let is_read = || pipeline.logs().contains("published partition=0 first=0 next=5");
    wait_until("all records are in the table", PATIENCE, is_read);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    assert_eq!(rows(), expected, "{}", pipeline.logs());
}
