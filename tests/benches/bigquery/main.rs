//! What does a row cost on its way to BigQuery, until it can be appended, how many bytes is it, and when is it seen?
//!
//! The same orders (702 bytes as JSON) become: requests of Arrow by the sink, from columns and from Avro; requests of protobuf by the
//! sink, from columns, as changes; rows of protobuf by
//! prost, from structs in memory, which is the least that a writer of protobuf can do; rows of protobuf by Google's own Python
//! library, from dicts in memory. Costs are microseconds of CPU time a row, of one thread; ratios are between runs of one call,
//! the best of three, and the noise is what the others were above it. Bytes are those of a million rows, as they are and by gzip
//! at the level that gRPC has.
//!
//! Latency is from just before a record is produced, one at a time, to the first look at the fake, every 5 ms, that shows its row:
//! the embedded Kafka, the pipeline, a ledger in a folder, the fake, all in this process. Of records that come at any time within
//! an interval half of it is waiting.
//!
//! Not measured: the network, TLS, what the server does with a row.
//!
//! The last line is one JSON object. `GRISTMILL_BENCH_SCALE=0.1` takes a tenth of the rows, to see whether it runs.

mod latency;
#[path = "../sink/orders.rs"]
#[allow(dead_code)]
mod orders;
mod store;

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;

use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use flate2::Compression;
use flate2::write::GzEncoder;
use gristmill_codec::AvroDecoder;
use gristmill_sinks::{
    CHANGE_SEQUENCE_NUMBER, CHANGE_TYPE, FolderStore, Format, MAIN_OUTPUT, PartitionId, PartitionSink,
    Rotation, RowCoord, SinkConfig,
};
use gristmill_tests::thread_cpu;
use prost::Message;
use serde_json::{Value, json};
use store::Counting;

/// Rows of a batch: as many as a delivery of the consumer has.
const BATCH: usize = 1_000;
const RUNS: usize = 3;

#[derive(Clone, PartialEq, Message)]
struct Order {
    #[prost(string, required, tag = "1")]
    order_id: String,
    #[prost(int64, required, tag = "2")]
    customer_id: i64,
    #[prost(message, required, tag = "3")]
    customer: Customer,
    #[prost(message, required, tag = "4")]
    shipping: Address,
    #[prost(string, required, tag = "5")]
    currency: String,
    #[prost(int64, required, tag = "6")]
    amount_cents: i64,
    #[prost(int64, required, tag = "7")]
    tax_cents: i64,
    #[prost(string, required, tag = "8")]
    status: String,
    #[prost(string, optional, tag = "9")]
    channel: Option<String>,
    #[prost(int64, required, tag = "10")]
    created_at: i64,
    #[prost(string, required, tag = "11")]
    ip: String,
    #[prost(string, required, tag = "12")]
    user_agent: String,
    #[prost(string, required, tag = "13")]
    session: String,
    #[prost(string, required, tag = "14")]
    card: String,
    #[prost(bool, required, tag = "15")]
    gift: bool,
    #[prost(message, repeated, tag = "16")]
    items: Vec<Item>,
    #[prost(string, required, tag = "17")]
    note: String,
}

#[derive(Clone, PartialEq, Message)]
struct Customer {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(string, required, tag = "2")]
    email: String,
    #[prost(string, required, tag = "3")]
    phone: String,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(string, required, tag = "1")]
    street: String,
    #[prost(string, required, tag = "2")]
    city: String,
    #[prost(string, required, tag = "3")]
    zip: String,
    #[prost(string, required, tag = "4")]
    country: String,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, required, tag = "1")]
    sku: String,
    #[prost(int64, required, tag = "2")]
    quantity: i64,
    #[prost(int64, required, tag = "3")]
    price_cents: i64,
}

/// Order `n` as its Avro has it.
fn order_json(n: u64) -> Value {
    let mut bytes = Vec::new();
    orders::json(n, &mut bytes);
    let mut order: Value = serde_json::from_slice(&bytes).expect("JSON");
    order["note"] = order["note"].as_str().expect("text")[..60].into();
    order["created_at"] = (order["created_at"].as_i64().expect("a number") * 1_000).into();
    order
}

fn order(json: &Value) -> Order {
    let text = |of: &Value, name: &str| of[name].as_str().expect("text").to_owned();
    let number = |of: &Value, name: &str| of[name].as_i64().expect("a number");
    let (customer, shipping) = (&json["customer"], &json["shipping"]);
    let item = |item: &Value| Item {
        sku: text(item, "sku"),
        quantity: number(item, "quantity"),
        price_cents: number(item, "price_cents"),
    };
    Order {
        order_id: text(json, "order_id"),
        customer_id: number(json, "customer_id"),
        customer: Customer {
            name: text(customer, "name"),
            email: text(customer, "email"),
            phone: text(customer, "phone"),
        },
        shipping: Address {
            street: text(shipping, "street"),
            city: text(shipping, "city"),
            zip: text(shipping, "zip"),
            country: text(shipping, "country"),
        },
        currency: text(json, "currency"),
        amount_cents: number(json, "amount_cents"),
        tax_cents: number(json, "tax_cents"),
        status: text(json, "status"),
        channel: Some(text(json, "channel")),
        created_at: number(json, "created_at"),
        ip: text(json, "ip"),
        user_agent: text(json, "user_agent"),
        session: text(json, "session"),
        card: text(json, "card"),
        gift: json["gift"].as_bool().expect("a boolean"),
        items: json["items"].as_array().expect("a list").iter().map(item).collect(),
        note: text(json, "note"),
    }
}

/// Microseconds of CPU time a row: the best of some runs, and by how much the worst was above it.
struct Cost {
    best: f64,
    noise: f64,
}

fn measure(rows: usize, mut run: impl FnMut()) -> Cost {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = thread_cpu();
            run();
            (thread_cpu() - start) * 1e6 / rows as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    Cost { best: runs[0], noise: runs[RUNS - 1] / runs[0] - 1.0 }
}

fn gzipped(bytes: &[u8], level: u32) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it").len()
}

/// A partition whose rows are counted and go nowhere.
struct Sink {
    runtime: tokio::runtime::Runtime,
    sink: PartitionSink,
    store: Arc<Counting>,
    next: i64,
    _state: tempfile::TempDir,
}

impl Sink {
    fn open(format: Format) -> Sink {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let state = tempfile::tempdir().expect("a temporary folder can be made");
        let store = Arc::new(Counting::default());
        let folder = FolderStore::open(state.path()).expect("the folder is ours");
        let id = PartitionId {
            pipeline: "bench".into(),
            cluster: "c".into(),
            topic: "orders".into(),
            topic_id: [1; 16],
            partition: 0,
        };
        let config = SinkConfig::builder(store.clone())
            .state(Arc::new(folder))
            .format(format)
            .rotation(Rotation { bytes: u64::MAX, rows: u64::MAX, ..Rotation::default() })
            .build()
            .expect("the settings are right");
        let (sink, next) = runtime.block_on(PartitionSink::open(config, id, 0)).expect("it opens");
        Sink { runtime, sink, store, next, _state: state }
    }

    fn append(&mut self, rows: &RecordBatch) {
        let end = self.next + rows.num_rows() as i64;
        let coords: Vec<RowCoord> =
            (self.next..end).map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
        self.runtime.block_on(self.sink.append(MAIN_OUTPUT, rows, &coords)).expect("the rows fit");
        self.sink.advance(end, None).expect("the offsets rise");
        self.next = end;
    }
}

/// Upserts of those rows.
fn as_changes(first: i64, rows: &RecordBatch) -> RecordBatch {
    let numbers = (first..).take(rows.num_rows()).map(|offset| format!("6747A2F0/{offset:X}/0"));
    let kinds: ArrayRef =
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n("UPSERT", rows.num_rows())));
    let numbers: ArrayRef = Arc::new(StringArray::from_iter_values(numbers));
    let own = rows.schema();
    let own = own
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| (field.name().as_str(), column.clone(), field.is_nullable()));
    let ends = [(CHANGE_TYPE, kinds, false), (CHANGE_SEQUENCE_NUMBER, numbers, false)];
    RecordBatch::try_from_iter_with_nullable(own.chain(ends)).expect("as many of each")
}

fn main() {
    let scale = std::env::var("GRISTMILL_BENCH_SCALE").ok().and_then(|s| s.parse::<f64>().ok());
    let rows = (200_000.0 * scale.unwrap_or(1.0)) as usize / BATCH * BATCH;
    let values: Vec<Vec<u8>> = (0..rows as u64)
        .map(|n| {
            let mut value = Vec::new();
            orders::avro(n, 1, &mut value);
            value
        })
        .collect();
    let decoder = || {
        let mut decoder = AvroDecoder::new(orders::AVRO_SCHEMA).expect("the schema is right");
        decoder.add_writer_schema(1, orders::AVRO_SCHEMA).expect("the schema is right");
        decoder
    };
    let decode = |decoder: &mut AvroDecoder, values: &[Vec<u8>]| {
        let values = values.iter().enumerate().map(|(row, value)| (row as u64, Some(&value[..])));
        let decoded = decoder.decode(values).expect("values of the schema");
        assert_eq!(decoded.batch.num_rows(), BATCH);
        decoded.batch
    };
    let mut decoder = decoder();
    let batches: Vec<RecordBatch> = values.chunks(BATCH).map(|values| decode(&mut decoder, values)).collect();
    let mut sink = Sink::open(Format::BigQuery);
    let columns = measure(rows, || batches.iter().for_each(|rows| sink.append(rows)));
    let avro = measure(rows, || {
        values.chunks(BATCH).for_each(|values| {
            let rows = decode(&mut decoder, values);
            sink.append(&rows);
        });
    });
    let sent = sink.store.take();
    assert!(sent.len() >= rows, "the rows were made ready");

    let changes: Vec<RecordBatch> =
        (0i64..).zip(&batches).map(|(n, rows)| as_changes(n * BATCH as i64, rows)).collect();
    let mut changing = Sink::open(Format::BigQueryChanges);
    let changes = measure(rows, || changes.iter().for_each(|rows| changing.append(rows)));
    drop(changing);

    let json: Vec<Value> = (0..rows as u64).map(order_json).collect();
    let structs: Vec<Order> = json.iter().map(order).collect();
    let mut serialized: Vec<Vec<u8>> = Vec::new();
    let prost = measure(rows, || serialized = structs.iter().map(Message::encode_to_vec).collect());

    let file = sink._state.path().join("orders.jsonl");
    let lines: String = json.iter().map(|order| format!("{order}\n")).collect();
    std::fs::write(&file, lines).expect("the folder is ours");
    let python = std::env::var("GRISTMILL_LOCAL_BIGQUERY").ok().filter(|python| !python.is_empty());
    let google = python.map(|python| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bigquery/protobuf_rows.py");
        let output = Command::new(python).arg(script).arg(&file).output().expect("Python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            told["bytes"].as_u64(),
            Some(serialized.iter().map(|row| row.len() as u64).sum()),
            "the same rows"
        );
        told["micros"].as_f64().expect("a number")
    });

    let million = |bytes: usize| bytes as f64 / rows as f64;
    // What the last runs of both have sent is of the same rows, `RUNS` times twice.
    let per_run = sent.len() / (2 * RUNS);
    let part = &sent[sent.len() - per_run.min(32 << 20)..];
    let zip = |level: u32| {
        let mut len = 0;
        let cost = measure(1, || len = gzipped(part, level));
        let share = len as f64 / part.len() as f64;
        (share, cost.best * million(per_run) / part.len() as f64)
    };
    let [fast, usual] = [1, 6].map(zip);
    let protobuf: usize = serialized.iter().map(Vec::len).sum();

    println!("{rows} orders, us of CPU a row (noise):");
    let line =
        |name: &str, cost: &Cost| println!("  {name:<38} {:>6.2} ({:.0} %)", cost.best, cost.noise * 100.0);
    line("columns to requests", &columns);
    line("Avro to requests", &avro);
    line("columns to requests that are changes", &changes);
    line("structs to protobuf, by prost", &prost);
    if let Some(google) = google {
        println!("  dicts to protobuf, by Google's Python  {google:>6.2}");
    }
    println!("MB of a million rows: Arrow {:.0}, protobuf {:.0}", million(per_run), million(protobuf));
    for (level, (share, cost)) in [(1, fast), (6, usual)] {
        println!("  gzip {level}: to {:.0} % of Arrow, for {cost:.2} us a row", share * 100.0);
    }
    println!("ms from a producer until a query sees it, median and 99 %:");
    let records = (400.0 * scale.unwrap_or(1.0)) as usize;
    let mut latencies = Vec::new();
    for (mode, age) in
        [("exactly_once", 1_000), ("exactly_once", 5_000), ("at_least_once", 5_000), ("cdc", 5_000)]
    {
        let latency::Latency { median, most } = latency::measure(mode, Duration::from_millis(age), records);
        println!("  {mode:<14} rotate.age {age:>5} ms: {median:>6.0} {most:>6.0}");
        latencies.push(json!({"mode": mode, "age": age, "median": median, "most": most}));
    }
    let ratio = |of: f64| (of * 100.0).round() / 100.0;
    let mut aims = vec![
        json!({"what": "columns over prost, rows a CPU second", "aim": 0.6, "is": ratio(prost.best / columns.best)}),
    ];
    if let Some(google) = google {
        aims.push(json!({"what": "Avro over Google's Python writer, rows a CPU second", "aim": 3.0, "is": ratio(google / avro.best)}));
    }
    for aim in &aims {
        println!("{}: {} (aim: at least {})", aim["what"].as_str().expect("text"), aim["is"], aim["aim"]);
    }
    println!(
        "{}",
        json!({"rows": rows, "aims": aims, "changes": changes.best, "latency": latencies, "gzip": {"1": [fast.0, fast.1], "6": [usual.0, usual.1]}})
    );
}
