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
use gristmill_tests::{OrderProducer, RealKafka, shared_kafka, unique};

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

/// Orders of running amounts; every tenth is a test, which the transform drops.
struct Producer {
    producer: OrderProducer,
    topic: String,
    orders: Orders,
    next: i64,
}

impl Producer {
    fn produce(&mut self, count: i64) {
        let order = |amount: i64, order: Order| {
            let value = format!(
                r#"{{"order_id": "o-{amount}", "customer": {{"email": "u{amount}@example.org"}}, "amount_cents": {amount},
                    "created_at": 1793491200000, "test": {}}}"#,
                amount % 10 == 0
            );
            Order { value: Some(value.into_bytes()), ..order }
        };
        let amounts = self.next..self.next + count;
        let batch: Vec<(i32, Order)> =
            amounts.map(|amount| ((amount % 2) as i32, order(amount, self.orders.make()))).collect();
        self.producer.plain(&self.topic, &batch);
        self.next += count;
    }
}

/// A topic of two partitions, an empty BigQuery, and a pipeline between them; `sink` are further lines of the sink.
struct Setup {
    producer: Producer,
    bigquery: FakeBigQuery,
    folder: tempfile::TempDir,
    pipeline: Pipeline,
    /// Of orders of less than 2,000 cents, and of the others.
    tables: [String; 2],
}

fn setup(kafka: &RealKafka, name: &str, sink: &str) -> Setup {
    let topic = unique(name);
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 2, &[]));
    let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    let orders = Orders::new(Encoding::Json, 31);
    let main = format!("shop.lake.{}", topic.replace('-', "_"));
    let producer = Producer { producer, topic: topic.clone(), orders, next: 0 };
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
             timestamp_ms\n    test: bool\ndead_letters: {{folder: dead_letters}}\nsink:\n  bigquery:\n    project: shop\n    dataset: \
             lake\n    state: {{folder: state}}\n    rotate: {{age: 1s, rows: 150}}\n    endpoint: '{}'\n    {sink}\n",
            kafka.bootstrap_servers(),
            wasm.display(),
            bigquery.url()
        ),
    );
    let tables = [main.clone(), format!("{main}_high_value")];
    Setup { producer, bigquery, folder, pipeline, tables }
}

impl Setup {
    fn amounts(&self) -> [BTreeMap<i64, u32>; 2] {
        self.tables.each_ref().map(|table| amounts(&self.bigquery, table))
    }

    fn wait_for(&self, expected: &[BTreeMap<i64, u32>; 2]) {
        let count = |tables: &[BTreeMap<i64, u32>; 2]| tables[0].len() + tables[1].len();
        wait_until("all orders are in their tables", PATIENCE, || count(&self.amounts()) >= count(expected));
    }

    /// What is expected of the orders so far, without those that BigQuery refuses.
    fn expected(&self, refused: &[i64]) -> [BTreeMap<i64, u32>; 2] {
        let kept = |range: std::ops::Range<i64>| {
            let kept = range.filter(|amount| amount % 10 != 0 && !refused.contains(amount));
            kept.map(|amount| (amount, 1)).collect()
        };
        let end = self.producer.next;
        [kept(0..end.min(2000)), kept(2000..end)]
    }
}

/// Killed at every step of the protocol, and with replies lost, each order is in the table of its output once, or a dead letter
/// if BigQuery refuses it.
#[test]
fn orders_are_in_their_tables_exactly_once_through_kills_and_lost_replies() {
    let Some(kafka) = shared_kafka() else { return };
    let mut setup = setup(kafka, "bigquery", "");
    let Setup { bigquery, pipeline, .. } = &setup;

    // No table yet: the statement that makes it is in the error.
    let mut run = pipeline.start(None);
    assert_eq!(run.wait(PATIENCE).code(), Some(2), "{}", run.log());
    let main = &setup.tables[0];
    let statement =
        format!("there is no table {main} in BigQuery: CREATE TABLE `{main}` (`order_id` STRING NOT NULL, ");
    assert!(run.log().contains(&statement), "{}", run.log());
    setup.tables.iter().for_each(|table| create_table(bigquery, table));
    let refused = [1, 2, 157, 1_999, 2_001];
    bigquery.refuse_rows("amount_cents", &refused, "amount_cents: not this one");

    for failpoint in
        ["after-stage:2", "after-seal:2", "after-move:2", "before-commit:2", "lost-reply-seal:1,after-seal:1"]
    {
        for call in [Call::Append, Call::Commit, Call::Finalize] {
            setup.bigquery.plan(call, Effect::LoseReply);
        }
        let mut run = setup.pipeline.start(Some(failpoint));
        setup.producer.produce(600);
        run.wait_for_kill(PATIENCE);
    }
    let Setup { bigquery, pipeline, .. } = &setup;
    let run = pipeline.start(None);
    let expected = setup.expected(&refused);
    setup.wait_for(&expected);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    assert_eq!(setup.amounts(), expected, "{}", pipeline.logs());
    // What killed processes had staged was never committed.
    let (streams, committed) = bigquery.streams();
    assert!(committed < streams, "{committed} of {streams}");

    let letters = dead_letters(&setup.folder.path().join("dead_letters"));
    let amount = |letter: &serde_json::Value| {
        assert_eq!(letter["code"], "ROW_REFUSED", "{letter}");
        assert_eq!(letter["message"], "amount_cents: not this one", "{letter}");
        let value = letter["payload"]["value"]["utf8"].as_str().unwrap();
        serde_json::from_str::<serde_json::Value>(value).unwrap()["amount_cents"].as_i64().unwrap()
    };
    let mut found: Vec<i64> = letters.iter().map(amount).collect();
    found.sort_unstable();
    assert_eq!(found, refused);

    let (code, text) = pipeline.command(&["ledger", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = pipeline.command(&["audit"]);
    assert!(code == Some(2) && text.contains("the rows of this pipeline are in BigQuery"), "{text}");
}

/// With `at_least_once` rows are seen long before their entry is sealed, kills may repeat some and lose none.
#[test]
fn at_least_once_orders_are_seen_before_their_entry_and_none_is_lost() {
    let Some(kafka) = shared_kafka() else { return };
    let mut setup = setup(kafka, "at-least-once", "mode: at_least_once\n    compression: gzip");
    setup.tables.iter().for_each(|table| create_table(&setup.bigquery, table));
    for failpoint in ["after-stage:2", "after-seal:2", "before-commit:2"] {
        setup.bigquery.plan(Call::Append, Effect::LoseReply);
        let mut run = setup.pipeline.start(Some(failpoint));
        setup.producer.produce(1_000);
        run.wait_for_kill(PATIENCE);
    }
    let run = setup.pipeline.start(None);
    setup.producer.produce(100);
    let expected = setup.expected(&[]);
    setup.wait_for(&expected);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", setup.pipeline.logs());
    let found = setup.amounts();
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.keys().eq(expected.keys()), "{}", setup.pipeline.logs());
    }
    // A crash between append and seal repeats, which is why it is not called exactly once.
    assert!(found.iter().flat_map(BTreeMap::values).any(|times| *times > 1));
    assert_eq!(setup.bigquery.streams(), (0, 0));

    // No entry is due for an hour.
    let file = setup.folder.path().join("pipeline.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("{age: 1s, rows: 150}", "{age: 1h}")).unwrap();
    let run = setup.pipeline.start(None);
    setup.producer.produce(100);
    setup.wait_for(&setup.expected(&[]));
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", setup.pipeline.logs());
}

/// Each line of the files in a folder.
pub(crate) fn dead_letters(folder: &Path) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(dead_letters(&path)),
            false => {
                let text = std::fs::read_to_string(path).unwrap();
                found.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
            }
        }
    }
    found
}

/// The pipeline makes its tables, partitioned; a column that comes later is added while what was killed is delivered; `plan` says
/// all of it before.
#[test]
fn tables_are_made_and_changed_by_the_pipeline_and_the_plan_says_so_before() {
    let Some(kafka) = shared_kafka() else { return };
    let mut setup = setup(kafka, "bigquery-tables", "");
    let file = setup.folder.path().join("pipeline.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let tables = format!(
        "    rest_endpoint: '{}'\n    tables:\n      dataset_location: EU\n      partition: {{column: ordered_at, expire: 90d}}\n      \
         cluster: [order_id]\n",
        setup.bigquery.rest_url()
    );
    std::fs::write(&file, format!("{}\n{tables}", text.trim_end())).unwrap();
    let plan = |setup: &Setup| setup.pipeline.command(&["pipeline", "plan"]);

    setup.producer.produce(100);
    let (code, out) = plan(&setup);
    assert_eq!(code, Some(0), "{out}");
    let [main, large] = setup.tables.clone();
    assert!(
        out.contains(&format!(
            "+ table {main}: would be made\n    CREATE TABLE `{main}` (`order_id` STRING NOT NULL, "
        )),
        "{out}"
    );
    assert!(out.contains("PARTITION BY TIMESTAMP_TRUNC(`ordered_at`, DAY) CLUSTER BY `order_id` OPTIONS (partition_expiration_days = 90);"), "{out}");
    assert!(
        out.contains(
            "/0: from offset 0 (the first record; a new ledger starts there), 50 behind the end at 50"
        ),
        "{out}"
    );
    assert!(
        out.contains("14400 new streams of BigQuery an hour")
            && out.contains("make `rotate.age` 2 times as long"),
        "{out}"
    );
    assert!(out.contains("  4 connections at once; "), "{out}");
    assert_eq!(setup.bigquery.table(&main), serde_json::Value::Null);
    assert!(!setup.folder.path().join("state").exists());

    let mut run = setup.pipeline.start(Some("after-seal:2"));
    setup.producer.produce(500);
    run.wait_for_kill(PATIENCE);
    assert_eq!(setup.bigquery.table(&large)["timePartitioning"]["field"], "ordered_at");

    // Another field of the orders: a column of the table, which the storage interface shows late.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("    test: bool\n", "    test: bool\n    note: string\n")).unwrap();
    let (code, out) = plan(&setup);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains(&format!(
            "~ table {main}: would be changed\n    ALTER TABLE `{main}` ADD COLUMN `note` STRING;"
        )),
        "{out}"
    );
    assert!(out.contains("(where its ledger ends)"), "{out}");
    setup.bigquery.deny(&["bigquery.tables.update"]);
    let (code, out) = plan(&setup);
    let lacks =
        format!("! table {main}: the credentials lack bigquery.tables.update; BigQuery Data Editor has it");
    assert!(code == Some(3) && out.contains(&lacks) && out.contains("would not start"), "{out}");
    setup.bigquery.deny(&[]);
    setup.bigquery.lag(2);
    let run = setup.pipeline.start(None);
    setup.producer.produce(500);
    let expected = setup.expected(&[]);
    setup.wait_for(&expected);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", setup.pipeline.logs());
    assert_eq!(setup.amounts(), expected, "{}", setup.pipeline.logs());

    // A type is never changed: the plan says so, and so does the start.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("note: string", "note: int64")).unwrap();
    let (code, out) = plan(&setup);
    let why = "column note is STRING in the table and INT64 in the rows";
    assert!(code == Some(3) && out.contains(why) && out.contains("would not start"), "{out}");
    let mut run = setup.pipeline.start(None);
    assert_eq!(run.wait(PATIENCE).code(), Some(2), "{}", run.log());
    assert!(run.log().contains(why), "{}", run.log());
}

/// Values of a column part rows into tables that are made when their first row comes, through kills; what cannot name one is a dead
/// letter.
#[test]
fn rows_are_parted_into_tables_by_a_column_exactly_once() {
    let Some(kafka) = shared_kafka() else { return };
    let mut setup = setup(kafka, "bigquery-routed", "");
    let file = setup.folder.path().join("pipeline.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let tables = format!(
        "    rest_endpoint: '{}'\n    table: '{{topic}}_{{email_domain}}'\n    max_tables: 20\n    tables: {{dataset_location: EU}}\n",
        setup.bigquery.rest_url()
    );
    std::fs::write(&file, format!("{}\n{tables}", text.trim_end()).replace("email_domain", "customer.nick"))
        .unwrap();
    let name = setup.tables[0].clone();
    let mut run = setup.pipeline.start(None);
    assert_eq!(run.wait(PATIENCE).code(), Some(2), "{}", run.log());
    assert!(run.log().contains("sink.bigquery.table: there is no column `customer.nick`"), "{}", run.log());
    let text = text.replace("{folder: dead_letters}", "{table: '{topic}_dead'}");
    std::fs::write(&file, format!("{}\n{tables}", text.trim_end())).unwrap();
    let (code, out) = setup.pipeline.command(&["pipeline", "plan"]);
    assert!(out.contains(&format!("+ table {name}_dead: would be made")), "{out}");
    let planned =
        format!("  tables {name}_{{email_domain}}: each is made, or looked at, when its first row comes");
    assert!(code == Some(0) && out.contains(&planned), "{out}");

    let table_of = |amount: i64| match amount % 7 {
        0 => "null".to_owned(),
        n => format!("shop_{n}_example"),
    };
    let mut expected: BTreeMap<String, BTreeMap<i64, u32>> = BTreeMap::new();
    let mut produce = |setup: &mut Setup, count: i64| {
        let amounts = setup.producer.next..setup.producer.next + count;
        let mut batch = Vec::new();
        for amount in amounts {
            let email = match amount % 7 {
                // Behind the domain's end there is nothing.
                _ if amount % 50 == 0 => r#""nobody@""#.to_owned(),
                0 => "null".to_owned(),
                n => format!(r#""u@shop-{n}.example""#),
            };
            let value = format!(
                r#"{{"order_id": "o-{amount}", "customer": {{"email": {email}}}, "amount_cents": {amount}, "created_at": 1793491200000}}"#
            );
            batch.push((
                (amount % 2) as i32,
                Order { value: Some(value.into_bytes()), ..setup.producer.orders.make() },
            ));
            if amount % 50 != 0 {
                let suffix = if amount >= 2_000 { "_high_value" } else { "" };
                let table = format!("{name}_{}{suffix}", table_of(amount));
                expected.entry(table).or_default().insert(amount, 1);
            }
        }
        setup.producer.next += count;
        setup.producer.producer.plain(&setup.producer.topic, &batch);
        expected.clone()
    };
    for failpoint in ["after-stage:2", "after-seal:2", "after-move:5", "before-commit:2"] {
        setup.bigquery.plan(Call::Append, Effect::LoseReply);
        let mut run = setup.pipeline.start(Some(failpoint));
        produce(&mut setup, 600);
        run.wait_for_kill(PATIENCE);
    }
    let run = setup.pipeline.start(None);
    let expected = produce(&mut setup, 100);
    let found = |setup: &Setup| -> BTreeMap<String, BTreeMap<i64, u32>> {
        expected.keys().map(|table| (table.clone(), amounts(&setup.bigquery, table))).collect()
    };
    let count =
        |tables: &BTreeMap<String, BTreeMap<i64, u32>>| tables.values().map(BTreeMap::len).sum::<usize>();
    wait_until("all are there", PATIENCE, || count(&found(&setup)) >= count(&expected));
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", setup.pipeline.logs());
    assert_eq!(found(&setup), expected, "{}", setup.pipeline.logs());
    // At least once: a key for each.
    let mut letters: BTreeMap<String, String> = BTreeMap::new();
    for rows in setup.bigquery.rows(&format!("{name}_dead")) {
        let text = |column: &str| rows.column_by_name(column).unwrap().as_string::<i32>().clone();
        let (keys, codes, messages) = (text("dead_letter_key"), text("code"), text("message"));
        for row in 0..rows.num_rows() {
            assert_eq!(codes.value(row), "DIRECTORY_VALUE");
            letters.insert(keys.value(row).to_owned(), messages.value(row).to_owned());
        }
    }
    let why = "`email_domain` is empty, and no part of a table's name";
    assert!(letters.len() == 50 && letters.values().all(|message| message == why), "{letters:?}");
    let (code, text) = setup.pipeline.command(&["ledger", "verify"]);
    assert_eq!(code, Some(0), "{text}");
}

/// After what refused them was mended, the records of dead letters are delivered once, however often that is asked for and
/// whatever dies; what is refused again can be tried again.
#[test]
fn dead_letters_are_delivered_again_once() {
    let Some(kafka) = shared_kafka() else { return };
    let mut setup = setup(kafka, "dlq", "");
    setup.tables.iter().for_each(|table| create_table(&setup.bigquery, table));
    setup.bigquery.refuse_rows("amount_cents", &[1, 2, 157, 2_001], "no such customer");
    let run = setup.pipeline.start(None);
    setup.producer.produce(2_500);
    setup.wait_for(&setup.expected(&[1, 2, 157, 2_001]));
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", setup.pipeline.logs());
    let dlq = |setup: &Setup, arguments: &[&str]| setup.pipeline.command(&[&["dlq"], arguments].concat());

    let (code, out) = dlq(&setup, &["list"]);
    assert!(code == Some(0) && out.contains("4 ROW_REFUSED open"), "{out}");
    assert!(out.contains("-0 offset 1 ROW_REFUSED (waiting): no such customer"), "{out}");
    let (code, out) = dlq(&setup, &["list", "--code", "TRAP"]);
    assert!(code == Some(0) && out.contains("there are no dead letters"), "{out}");
    let (code, out) = dlq(&setup, &["show", "--partition", "0", "--offset", "1"]);
    let shown: serde_json::Value = serde_json::from_str(out.trim()).unwrap_or_else(|e| panic!("{e}: {out}"));
    assert!(code == Some(0) && shown["state"] == "waiting", "{out}");
    assert!(shown["payload"]["value"]["utf8"].as_str().unwrap().contains(r#""amount_cents": 2"#), "{out}");
    let (code, out) = dlq(&setup, &["show", "--offset", "7"]);
    assert!(code == Some(2) && out.contains("there is no such dead letter"), "{out}");
    let (code, out) = dlq(&setup, &["replay"]);
    assert!(code == Some(0) && out.contains("would: try the records of 4 dead letters again"), "{out}");
    assert_eq!(setup.amounts(), setup.expected(&[1, 2, 157, 2_001]));

    // One of them is refused still; the first to try dies on the way.
    setup.bigquery.refuse_rows("amount_cents", &[2], "no such customer yet");
    for failpoint in ["after-stage:1", "after-seal:1", "after-move:1"] {
        let mut killed = setup.pipeline.replay_dead_letters(&["--yes"], Some(failpoint));
        killed.wait_for_kill(PATIENCE);
    }
    let (code, out) = dlq(&setup, &["replay", "--yes"]);
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(setup.amounts(), setup.expected(&[2]), "{out}");
    let (code, out) = dlq(&setup, &["replay", "--yes"]);
    assert!(code == Some(0) && out.contains("done: try 1: 0 records, of which 0 rows"), "{out}");
    // BigQuery forgets streams once they are committed.
    setup.bigquery.forget_streams();
    let (code, out) = dlq(&setup, &["replay", "--yes"]);
    assert!(code == Some(0) && out.contains("done: try 1: 0 records, of which 0 rows"), "{out}");
    let (code, out) = dlq(&setup, &["list", "--open"]);
    assert!(code == Some(0) && out.contains("(refused again by try 1): no such customer yet"), "{out}");
    assert!(out.ends_with("1 ROW_REFUSED open\n"), "{out}");

    // What comes later is tried with the rest; what was refused again when it is asked for.
    setup.bigquery.refuse_rows("amount_cents", &[2_501], "nor this one");
    let run = setup.pipeline.start(None);
    setup.producer.produce(10);
    setup.wait_for(&setup.expected(&[2, 2_501]));
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", setup.pipeline.logs());
    setup.bigquery.refuse_rows("amount_cents", &[], "");
    let (code, out) = dlq(&setup, &["replay", "--yes"]);
    assert!(code == Some(0) && out.contains("try 1: 1 records, of which 1 rows were delivered"), "{out}");
    let (code, out) = dlq(&setup, &["replay", "--again", "--yes"]);
    assert!(code == Some(0) && out.contains("try 2: 1 records, of which 1 rows were delivered"), "{out}");
    assert_eq!(setup.amounts(), setup.expected(&[]));
    let (code, out) = dlq(&setup, &["list"]);
    assert!(code == Some(0) && out.ends_with("5 ROW_REFUSED settled\n"), "{out}");

    // Then, too, what comes since is tried; another new try has nothing to begin with.
    setup.bigquery.refuse_rows("amount_cents", &[2_511, 2_512], "nor these");
    let run = setup.pipeline.start(None);
    setup.producer.produce(10);
    setup.wait_for(&setup.expected(&[2_511, 2_512]));
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", setup.pipeline.logs());
    setup.bigquery.refuse_rows("amount_cents", &[2_512], "nor this one yet");
    let (code, out) = dlq(&setup, &["replay", "--yes"]);
    assert!(code == Some(0) && out.contains("try 1: 2 records, of which 1 rows were delivered"), "{out}");
    assert!(out.contains("try 2: 1 records, of which 0 rows were delivered, 1 refused again"), "{out}");
    assert_eq!(setup.amounts(), setup.expected(&[2_512]));
    setup.bigquery.refuse_rows("amount_cents", &[], "");
    let mut killed = setup.pipeline.replay_dead_letters(&["--again", "--yes"], Some("after-seal:1"));
    killed.wait_for_kill(PATIENCE);
    let (code, out) = dlq(&setup, &["replay", "--again", "--yes"]);
    assert!(code == Some(0) && !out.contains("try 4"), "{out}");
    assert_eq!(setup.amounts(), setup.expected(&[]), "{out}");
    let (code, out) = dlq(&setup, &["list", "--open"]);
    assert!(code == Some(0) && out.contains("there are no open dead letters"), "{out}");
    let (code, out) = setup.pipeline.command(&["ledger", "log"]);
    assert!(code == Some(0) && out.contains("dlq replay"), "{out}");
    let (code, out) = setup.pipeline.command(&["ledger", "verify"]);
    assert_eq!(code, Some(0), "{out}");
}

/// As `make example-bigquery` runs them.
#[test]
fn the_examples_of_each_mode_end_in_their_tables() {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/bigquery");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bigquery");
    for (file, last) in [
        ("exactly-once.yaml", r#"{"order_id":"o-5","amount":"5.500000000","#),
        ("at-least-once.yaml", r#"{"order_id":"o-5","amount":"5.500000000","#),
        ("cdc.yaml", r#"{"id":2,"name":"bob","email":"bob@example.org"}"#),
    ] {
        let output = std::process::Command::new(&example).arg(folder.join(file)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let end = text.lines().last().unwrap_or_default().trim_start();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && end.starts_with(last), "{file}: {text}{errors}");
    }
}
