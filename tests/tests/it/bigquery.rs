//! From a real Kafka into tables of BigQuery, by the in-process fake of its Storage Write API, through crashes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use gristmill_sinks::TableColumn;
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use gristmill_tests::orders::{Encoding, Order, Orders};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, shared_kafka, unique};

const PATIENCE: Duration = Duration::from_secs(90);
/// Of the rows that leave the transform.
const COLUMNS: [&str; 12] = [
    "order_id",
    "customer",
    "amount_cents",
    "ordered_at",
    "test",
    "email_domain",
    "received_at",
    "_kafka_partition",
    "_kafka_offset",
    "_kafka_sub",
    "_kafka_timestamp",
    "_kafka_key",
];

fn create_table(bigquery: &FakeBigQuery, name: &str) {
    let column = |name: &str| TableColumn { name: name.into(), data_type: String::new(), required: false };
    bigquery.create_table(name, COLUMNS.map(column).to_vec());
}

/// How often each amount is in a table.
fn amounts(bigquery: &FakeBigQuery, table: &str) -> BTreeMap<i64, u32> {
    let mut found = BTreeMap::new();
    for rows in bigquery.rows(table) {
        for amount in rows.column_by_name("amount_cents").unwrap().as_primitive::<Int64Type>().values() {
            *found.entry(*amount).or_default() += 1;
        }
    }
    found
}

/// Killed at every step of the protocol, and with replies lost, each order is in the table of its output once.
#[test]
fn orders_are_in_their_tables_exactly_once_through_kills_and_lost_replies() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("bigquery");
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 2, &[]));
    let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    let mut orders = Orders::new(Encoding::Json, 31);
    let mut produce = |amounts: std::ops::Range<i64>| {
        let order = |amount: i64, order: Order| {
            let value = format!(
                r#"{{"order_id": "o-{amount}", "customer": {{"email": "u{amount}@example.org"}}, "amount_cents": {amount},
                    "created_at": 1793491200000, "test": {}}}"#,
                amount % 10 == 0
            );
            Order { value: Some(value.into_bytes()), ..order }
        };
        let batch: Vec<(i32, Order)> =
            amounts.map(|amount| ((amount % 2) as i32, order(amount, orders.make()))).collect();
        producer.plain(&topic, &batch);
    };
    let bigquery = FakeBigQuery::start();
    let folder = tempfile::tempdir().unwrap();
    let wasm =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms/prebuilt/typed-orders.wasm");
    let pipeline = Pipeline::new(
        folder.path(),
        &format!(
            "name: {topic}\nsource:\n  kafka: {{bootstrap_servers: '{}', topics: [{topic}], session_timeout: 6s}}\ntransforms:\n  - wasm: {}\n    \
             config: {{high_value_cents: 2000}}\ndecode:\n  format: json\n  fields:\n    order_id: string not null\n    \
             customer: {{name: string, email: string, card: string}}\n    amount_cents: int64 not null\n    created_at: \
             timestamp_ms\n    test: bool\nsink:\n  bigquery:\n    project: shop\n    dataset: lake\n    state: {{folder: \
             state}}\n    rotate: {{age: 1s, rows: 150}}\n    endpoint: '{}'\n",
            kafka.bootstrap_servers(),
            wasm.display(),
            bigquery.url()
        ),
    );

    // No table yet: the statement that makes it is in the error.
    let mut run = pipeline.start(None);
    assert_eq!(run.wait(PATIENCE).code(), Some(2), "{}", run.log());
    let main = format!("shop.lake.{}", topic.replace('-', "_"));
    let statement =
        format!("there is no table {main} in BigQuery: CREATE TABLE `{main}` (`order_id` STRING NOT NULL, ");
    assert!(run.log().contains(&statement), "{}", run.log());
    let large = format!("{main}_high_value");
    create_table(&bigquery, &main);
    create_table(&bigquery, &large);

    let mut next = 0;
    for failpoint in
        ["after-stage:2", "after-seal:2", "after-move:2", "before-commit:2", "lost-reply-seal:1,after-seal:1"]
    {
        bigquery.plan(Call::Append, Effect::LoseReply);
        bigquery.plan(Call::Commit, Effect::LoseReply);
        bigquery.plan(Call::Finalize, Effect::LoseReply);
        let mut run = pipeline.start(Some(failpoint));
        produce(next..next + 600);
        next += 600;
        run.wait_for_kill(PATIENCE);
    }
    let run = pipeline.start(None);
    let kept =
        |range: std::ops::Range<i64>| range.filter(|amount| amount % 10 != 0).map(|amount| (amount, 1));
    let expected: [BTreeMap<i64, u32>; 2] = [kept(0..2000).collect(), kept(2000..next).collect()];
    let count = || amounts(&bigquery, &main).len() + amounts(&bigquery, &large).len();
    wait_until("all orders are in their tables", PATIENCE, || {
        count() >= expected[0].len() + expected[1].len()
    });
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    assert_eq!([amounts(&bigquery, &main), amounts(&bigquery, &large)], expected, "{}", pipeline.logs());
    // What killed processes had staged was never committed.
    let (streams, committed) = bigquery.streams();
    assert!(committed < streams, "{committed} of {streams}");

    let (code, text) = pipeline.command(&["ledger", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = pipeline.command(&["audit"]);
    assert!(code == Some(2) && text.contains("the rows of this pipeline are in BigQuery"), "{text}");
}
