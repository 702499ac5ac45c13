//! Whatever is read again, and in whatever order it comes: the table is what the history says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_schema::{DataType, Field, Schema};
use gristmill_records::RawBatchBuilder;
use gristmill_sinks::fake_bigquery::FakeBigQuery;
use gristmill_sinks::{
    BigQueryConfig, BigQueryStore, FolderStore, Format, MAIN_OUTPUT, Mode, PartitionId, PartitionSink,
    Rotation, SinkConfig, table_columns,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ChangePlan, Destination, Kind, json_envelope};
use crate::epochs::{Epoch, numbering};
use crate::stages::{DecoderPlan, Fits, StagePlan};

#[derive(Clone, Debug)]
enum Step {
    /// Inserts the row of a key, or updates it.
    Put(i64),
    Delete(i64),
    /// Gives a row another key, as Debezium says it: a deletion, a tombstone, an insertion.
    Move(i64, i64),
    /// The same in one record, as long as there is one partition.
    Rename(i64, i64),
    /// One more partition: keys move.
    Grow,
    /// The topic is deleted and created again, with one partition.
    Recreate,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..6i64;
    prop_oneof![
        8 => key().prop_map(Step::Put),
        3 => key().prop_map(Step::Delete),
        2 => (key(), key()).prop_map(|(from, to)| Step::Move(from, to)),
        2 => (key(), key()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => Just(Step::Grow),
        1 => Just(Step::Recreate),
    ]
}

/// One incarnation of the topic: the records of each partition.
#[derive(Clone, Debug, Default)]
struct Topic {
    partitions: Vec<Vec<Option<Value>>>,
}

/// What happened, and what it comes to.
#[derive(Debug, Default)]
struct History {
    topics: Vec<Topic>,
    epochs: Vec<Epoch>,
    table: BTreeMap<i64, String>,
    changes: usize,
}

impl History {
    fn of(steps: &[Step]) -> History {
        let mut history = History::default();
        history.recreate();
        steps.iter().for_each(|step| history.take(step));
        history
    }

    fn recreate(&mut self) {
        self.topics.push(Topic { partitions: vec![Vec::new()] });
        self.begin_epoch(vec![0]);
    }

    fn begin_epoch(&mut self, first: Vec<i64>) {
        let id = id(self.topics.len() - 1, 0, 0);
        let number = self.epochs.len() as u64;
        self.epochs.push(Epoch::new(number, &id.topic_id_text(), first));
    }

    fn partitions(&mut self) -> &mut Vec<Vec<Option<Value>>> {
        &mut self.topics.last_mut().unwrap().partitions
    }

    fn record(&mut self, key: i64, value: Option<Value>) {
        let partitions = self.partitions();
        let at = (key as usize * 7 + 3) % partitions.len();
        partitions[at].push(value);
    }

    fn row(&mut self, key: i64) -> Value {
        self.changes += 1;
        let name = format!("change {}", self.changes);
        self.table.insert(key, name.clone());
        json!({"id": key, "name": name})
    }

    fn delete(&mut self, key: i64) {
        if self.table.remove(&key).is_some() {
            self.record(key, Some(json!({"op": "d", "before": {"id": key, "name": null}, "after": null})));
            self.record(key, None);
        }
    }

    fn put(&mut self, key: i64) {
        let op = if self.table.contains_key(&key) { "u" } else { "c" };
        let row = self.row(key);
        self.record(key, Some(json!({"op": op, "before": null, "after": row})));
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Put(key) => self.put(key),
            Step::Delete(key) => self.delete(key),
            Step::Move(from, to) if self.table.contains_key(&from) && !self.table.contains_key(&to) => {
                self.delete(from);
                self.put(to);
            }
            Step::Rename(from, to)
                if self.table.contains_key(&from)
                    && !self.table.contains_key(&to)
                    && self.partitions().len() == 1 =>
            {
                let before = json!({"id": from, "name": self.table.remove(&from)});
                let after = self.row(to);
                self.record(to, Some(json!({"op": "u", "before": before, "after": after})));
            }
            Step::Grow => {
                let partitions = self.partitions();
                let mut ends: Vec<i64> = partitions.iter().map(|records| records.len() as i64).collect();
                partitions.push(Vec::new());
                ends.push(0);
                self.begin_epoch(ends);
            }
            Step::Recreate => self.recreate(),
            Step::Move(..) | Step::Rename(..) => {}
        }
    }
}

fn id(topic: usize, partition: usize, run: usize) -> PartitionId {
    PartitionId {
        // A process that reads again what another one has sent.
        pipeline: format!("run-{run}"),
        cluster: "c".into(),
        topic: "customers".into(),
        topic_id: [topic as u8; 16],
        partition: partition as i32,
    }
}

fn plan() -> StagePlan {
    let rows = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, false),
    ]);
    let primary_key = vec!["id".to_owned()];
    let decoder = DecoderPlan::Json(json_envelope(&rows));
    let changes = ChangePlan { kind: Kind::Debezium, key: None, primary_key: primary_key.clone() };
    let schema = crate::stages::rows_schema(&decoder, Some(&changes)).unwrap();
    StagePlan {
        descriptions: Default::default(),
        transforms: Vec::new(),
        decoder,
        changes: Some(changes),
        schema,
        kafka_columns: false,
        fits: Fits { bigquery: true, changes: true, ..Fits::default() },
        destination: Destination::Table { key: primary_key },
    }
}

/// Some records of a partition, which a process sends before it dies.
#[derive(Clone, Debug)]
struct Delivery {
    topic: usize,
    partition: usize,
    from: usize,
    to: usize,
}

/// All of a history at least once, cut and shuffled by `dice`.
fn deliveries(history: &History, mut dice: impl FnMut(usize) -> usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    for (topic, incarnation) in history.topics.iter().enumerate() {
        for (partition, records) in incarnation.partitions.iter().enumerate() {
            let mut from = 0;
            while from < records.len() {
                let to = from + 1 + dice(records.len() - from);
                for _ in 0..1 + dice(2) {
                    all.push(Delivery { topic, partition, from, to });
                }
                // A crash before the entry was sealed: some are read again.
                from = to - dice((to - from).min(3)).min(to - from - 1);
            }
        }
    }
    for at in (1..all.len()).rev() {
        all.swap(at, dice(at + 1));
    }
    all
}

async fn deliver(history: &History, delivery: &Delivery, run: usize, config: &SinkConfig, plan: &StagePlan) {
    let Delivery { topic, partition, from, to } = *delivery;
    let id = id(topic, partition, run);
    let mut stages = plan.open("customers", partition as i32).unwrap();
    stages.set_sequence(numbering(&history.epochs, &id, &id.topic_id_text()));
    let mut builder = RawBatchBuilder::new("customers", partition as i32);
    for (offset, value) in history.topics[topic].partitions[partition].iter().enumerate() {
        if (from..to).contains(&offset) {
            let value = value.as_ref().map(|value| value.to_string().into_bytes());
            builder.push(offset as i64, 0, None, value.as_deref(), []).unwrap();
        }
    }
    let transformed = stages.transform(builder.build()).unwrap();
    let processed = stages.decode(transformed).unwrap();
    assert!(processed.rejects.is_empty(), "{:?}", processed.rejects);
    let (mut sink, _) = PartitionSink::open(config.clone(), id, from as i64).await.unwrap();
    sink.tally((to - from) as u64, processed.dropped);
    for part in &processed.outputs {
        sink.append(MAIN_OUTPUT, &part.rows, &part.coords).await.unwrap();
    }
    sink.advance(to as i64, None).unwrap();
    sink.checkpoint().await.unwrap();
}

#[test]
fn a_table_is_what_its_history_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bigquery = FakeBigQuery::start();
    let plan = plan();
    let columns = table_columns(&plan.sink_schema()).unwrap();
    let cases = AtomicUsize::new(0);
    let run = |steps: Vec<Step>, seed: u64| {
        let history = History::of(&steps);
        let table = format!("t{}", cases.fetch_add(1, Ordering::Relaxed));
        bigquery.create_table_with_key(&format!("shop.lake.{table}"), columns.clone(), &["id"]);
        let mut state = seed | 1;
        let dice = move |sides: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % sides.max(1)
        };
        let folder = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let store = BigQueryStore::new(BigQueryConfig {
                mode: Mode::Cdc,
                project: "shop".into(),
                dataset: "lake".into(),
                table: gristmill_sinks::TableTemplate::parse(&table).unwrap(),
                streams_per_second: 1_000,
                max_tables: 1,
                primary_key: vec!["id".into()],
                tables: None,
                endpoint: Some(bigquery.url().into()),
                rest_endpoint: Some(bigquery.rest_url().into()),
                gzip: false,
                credentials_file: None,
            });
            let store = Arc::new(store.unwrap());
            for (run, delivery) in deliveries(&history, dice).iter().enumerate() {
                // Each process with a ledger of its own, since none knows of another here.
                let state = Arc::new(FolderStore::open(folder.path().join(run.to_string())).unwrap());
                let config = SinkConfig::builder(store.clone())
                    .state(state)
                    .format(Format::BigQueryChanges)
                    .rotation(Rotation { age: Duration::from_millis(1), ..Rotation::default() });
                deliver(&history, delivery, run, &config.build().unwrap(), &plan).await;
            }
        });
        let (rows, ambiguous) = bigquery.merged_rows(&format!("shop.lake.{table}"));
        let found: BTreeMap<i64, String> = rows
            .iter()
            .map(|row| (row["id"].as_i64().unwrap(), row["name"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!((found, ambiguous), (history.table, 0));
    };
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let steps = (prop::collection::vec(step(), 1..40), any::<u64>());
    proptest!(config, |((steps, seed) in steps)| run(steps, seed));
}
