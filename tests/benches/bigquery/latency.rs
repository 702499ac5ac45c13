//! How long does a record take from its producer until a query would see it, by mode?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use gristmill::{MockCluster, Producer, ProducerConfig, ProducerRecord};
use gristmill_pipeline::{Pipeline, Stop};
use gristmill_sinks::fake_bigquery::FakeBigQuery;
use serde_json::{Value, json};
use tokio::sync::watch;

const TABLE: &str = "shop.lake.orders";
/// Between two records: no part of an interval, so that they come at all times within it.
const EVERY: Duration = Duration::from_millis(37);
const LOOK: Duration = Duration::from_millis(5);

/// The median and the 99th percentile of records that come at any time, in milliseconds.
pub(crate) struct Latency {
    pub(crate) median: f64,
    pub(crate) most: f64,
}

pub(crate) fn measure(mode: &str, age: Duration, records: usize) -> Latency {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(mode, age, records))
}

async fn run(mode: &str, age: Duration, records: usize) -> Latency {
    let kafka = MockCluster::start(1).expect("a cluster starts");
    kafka.create_topic("orders", 1).expect("a topic can be made");
    kafka.set_group_rebalance_delay(Duration::ZERO);
    let bigquery = FakeBigQuery::start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let changes =
        if mode == "cdc" { "  changes: upsert\n  key: {format: text, fields: {id: int64}}\n" } else { "" };
    let key = if mode == "cdc" { "\n    primary_key: [id]" } else { "" };
    let text = format!(
        "name: orders\nsource:\n  kafka: {{bootstrap_servers: '{}', topics: [orders]}}\ndecode:\n  format: json\n{changes}  fields: \
         {{id: int64 not null}}\nsink:\n  bigquery:\n    mode: {mode}{key}\n    project: shop\n    dataset: lake\n    tables: \
         {{dataset_location: EU}}\n    state: {{folder: state}}\n    rotate: {{age: {}ms}}\n    endpoint: '{}'\n    rest_endpoint: '{}'\n",
        kafka.bootstrap_servers(),
        age.as_millis(),
        bigquery.url(),
        bigquery.rest_url(),
    );
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, text).expect("the folder is ours");
    let checked = gristmill_pipeline::check(&file).unwrap_or_else(|e| panic!("{e}"));
    let pipeline = Pipeline::prepare_without_topic_ids(checked).await.expect("it can be prepared");
    let (stop, stopped) = watch::channel(Stop::No);
    let running = tokio::spawn(pipeline.run(stopped));
    let config = ProducerConfig::builder().bootstrap_servers(kafka.bootstrap_servers()).build();
    let producer = Producer::new(config.expect("the settings are right")).expect("it connects");
    let seen = || -> Vec<i64> {
        if mode == "cdc" {
            return bigquery.merged_rows(TABLE).0.iter().filter_map(|row| row["id"].as_i64()).collect();
        }
        let ids = |rows: &arrow_array::RecordBatch| {
            rows.column_by_name("id").expect("id").as_primitive::<Int64Type>().values().to_vec()
        };
        bigquery.rows(TABLE).iter().flat_map(ids).collect()
    };
    let (mut sent, mut arrived): (Vec<Instant>, BTreeMap<i64, Duration>) = Default::default();
    let mut next = Instant::now();
    // The first ones start everything, and do not count.
    let warm = 40;
    while arrived.len() < records + warm {
        assert!(!running.is_finished(), "the pipeline ended");
        if sent.len() < records + warm && Instant::now() >= next {
            let id = sent.len();
            next = Instant::now() + EVERY;
            sent.push(Instant::now());
            let value: Value = json!({ "id": id });
            let record = ProducerRecord::to("orders").key(id.to_string()).value(value.to_string());
            let report = producer.send_all(vec![record]).await;
            assert!(report.failures().next().is_none(), "it is produced");
        }
        for id in seen() {
            arrived.entry(id).or_insert_with(|| sent[id as usize].elapsed());
        }
        tokio::time::sleep(LOOK).await;
    }
    let _ = stop.send(Stop::Finish);
    running.await.expect("it ends").expect("it ends well");
    let mut took: Vec<f64> =
        arrived.iter().skip(warm).map(|(_, latency)| latency.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    Latency { median: took[took.len() / 2], most: took[took.len() * 99 / 100] }
}
