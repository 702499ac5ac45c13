//! Runs a file of `examples/bigquery` against an embedded Kafka and the fake of BigQuery, and prints the table.
//!
//! `cargo run --package gristmill-tests --example bigquery -- examples/bigquery/cdc.yaml`

use std::path::Path;
use std::time::{Duration, Instant};

use gristmill::{MockCluster, Producer, ProducerConfig, ProducerRecord};
use gristmill_codec::rows_as_json;
use gristmill_pipeline::{Mode, Pipeline, Stop};
use gristmill_sinks::fake_bigquery::FakeBigQuery;
use serde_json::{Value, json};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error>;

/// Key and value.
type Record = (String, Option<Value>);

fn orders() -> Vec<Record> {
    let order = |n: i64| json!({"order_id": format!("o-{n}"), "amount": format!("{n}.50"), "created_at": 1_793_491_200_000i64 + n, "lines": ["tea", "milk"]});
    (1..=5).map(|n| (format!("o-{n}"), Some(order(n)))).collect()
}

fn customers() -> Vec<Record> {
    let key = |id: i64| json!({ "id": id }).to_string();
    let row = |id: i64, name: &str| json!({"id": id, "name": name, "email": format!("{name}@example.org")});
    let change = |op: &str, before: Option<Value>, after: Option<Value>| {
        Some(json!({"op": op, "before": before, "after": after, "source": {"table": "customers"}}))
    };
    vec![
        (key(1), change("r", None, Some(row(1, "ada")))),
        (key(2), change("c", None, Some(row(2, "bo")))),
        (key(3), change("c", None, Some(row(3, "eve")))),
        (key(2), change("u", Some(row(2, "bo")), Some(row(2, "bob")))),
        (key(3), change("d", Some(row(3, "eve")), None)),
        (key(3), None),
    ]
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let file = std::env::args().nth(1).ok_or("name a file of examples/bigquery")?;
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
    let kafka = MockCluster::start(1)?;
    let bigquery = FakeBigQuery::start();
    // The lines that are yours.
    let text = text
        .replace("localhost:9092", &kafka.bootstrap_servers())
        .replace("http://127.0.0.1:9060", bigquery.url())
        .replace("http://127.0.0.1:9050", bigquery.rest_url());
    let folder = tempfile::tempdir()?;
    let own = folder.path().join("pipeline.yaml");
    std::fs::write(&own, text)?;
    let checked = gristmill_pipeline::check(Path::new(&own)).map_err(|e| e.to_string())?;
    let topic = checked.pipeline.source.kafka.topics[0].clone();
    let is_cdc = checked.pipeline.sink.bigquery.as_ref().is_some_and(|sink| sink.mode == Mode::Cdc);
    let records = if is_cdc { customers() } else { orders() };

    kafka.create_topic(&topic, 1)?;
    let producer =
        Producer::new(ProducerConfig::builder().bootstrap_servers(kafka.bootstrap_servers()).build()?)?;
    println!("records of {topic}:");
    let sent = records.iter().map(|(key, value)| {
        println!("  {key}: {}", value.as_ref().map_or("null".to_owned(), Value::to_string));
        let record = ProducerRecord::to(topic.as_str()).partition(0).key(key.clone().into_bytes());
        match value {
            Some(value) => record.value(value.to_string().into_bytes()),
            None => record,
        }
    });
    let report = producer.send_all(sent.collect::<Vec<_>>()).await;
    if let Some((_, error)) = report.failures().next() {
        return Err(error.to_string().into());
    }

    let pipeline = Pipeline::prepare_without_topic_ids(checked).await?;
    let metrics = pipeline.metrics();
    let (stop, stopped) = watch::channel(Stop::No);
    let running = tokio::spawn(pipeline.run(stopped));
    let start = Instant::now();
    while metrics.records_in.get() < records.len() as u64 && !running.is_finished() {
        if start.elapsed() > PATIENCE {
            return Err("not all records were read".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Finishes what is open.
    let _ = stop.send(Stop::Finish);
    running.await??;

    let table = format!("our-project.lake.{}", topic.replace('.', "_"));
    println!("rows of {table}:");
    let rows = match is_cdc {
        true => bigquery.merged_rows(&table).0,
        false => {
            let batches = bigquery.rows(&table);
            batches.iter().map(rows_as_json).collect::<Result<Vec<_>, _>>()?.concat()
        }
    };
    if rows.is_empty() {
        return Err("the table is empty".into());
    }
    for mut row in rows {
        row.retain(|name, _| !name.starts_with("_kafka_"));
        println!("  {}", Value::Object(row));
    }
    Ok(())
}
