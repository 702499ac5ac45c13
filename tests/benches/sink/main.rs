//! What does it cost to bring records from Kafka through a sandboxed transform into Parquet files?
//!
//! Axes: Avro against bare arrow-avro and parquet on the same bytes, in one thread (`bare.rs`), with no transform,
//! with one that is handed headers, and with one that is handed values; JSON against a standalone Kafka Connect
//! worker with four SMTs and a sink that throws records away (`connect.rs`); 1, 4 and 64 partitions; records of
//! 100 B, 1 KB and 10 KB; rows a checkpoint; bytes fetched for bytes delivered when checkpoints are the bottleneck.
//!
//! Every run is the command `gristmill run`, a process of its own, that empties a topic of a real broker on this
//! machine. Costs are CPU seconds of the whole process, user and system, from the assignment of its partitions
//! to its end. Kafka Connect's are those of its JVM over the second half of the records, when it was warm. Ratios
//! are between runs of one call of this benchmark; the noise is what two runs of the same thing differ by.
//! Rates are wall clock, and worth what the machine's other work leaves of it.
//!
//! Not measured: the broker's own cost, starting and compiling the transform, the network (loopback), TLS,
//! compressed topics, Cloud Storage (a folder instead), latency.
//!
//! The last line is one JSON object. Names as arguments choose parts: `avro`, `json`, `shape`, `checkpoints`, `slow`;
//! `GRISTMILL_BENCH_SCALE=0.1` takes a tenth of the records, to see whether it runs.

mod bare;
mod connect;
mod orders;
mod pipeline;
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bare::Values;
use gristmill::EmbeddedRegistry;
use gristmill_tests::RealKafka;
use gristmill_tests::pipeline::gristmill;
use pipeline::{Job, Spent};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Map, Value, json};

const AVRO: u64 = 600_000;
const JSON: u64 = 1_200_000;

fn scaled(records: u64) -> u64 {
    let scale = std::env::var("GRISTMILL_BENCH_SCALE").ok().and_then(|s| s.parse::<f64>().ok());
    (records as f64 * scale.unwrap_or(1.0)) as u64
}

/// Bytes a record, and how many of them.
const SIZES: [(usize, u64); 3] = [(100, 600_000), (1_000, 200_000), (10_000, 20_000)];
const CHECKPOINTS: [u64; 3] = [100_000, 10_000, 1_000];
const NO_ROTATION: u64 = 100_000_000;

struct Bench {
    kafka: RealKafka,
    bootstrap: String,
    runtime: tokio::runtime::Runtime,
    registry: EmbeddedRegistry,
    folder: tempfile::TempDir,
    results: Map<String, Value>,
    aims: Vec<Value>,
    noise: f64,
}

impl Bench {
    /// A topic with `records` values, in runs of 500 by partition, as producers' batches are, and the job that
    /// reads it.
    fn topic(
        &self,
        name: &str,
        partitions: i32,
        records: u64,
        mut make: impl FnMut(u64, &mut Vec<u8>),
    ) -> Job {
        self.runtime.block_on(self.kafka.create_topic(name, partitions, &[]));
        // The transform on headers drops what is marked so: of JSON orders, as Connect does; of Avro nothing.
        let marked = if name.starts_with("json") { "true" } else { "yes" };
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("acks", "1")
            .set("linger.ms", "20")
            .set("batch.size", "1000000")
            .create()
            .expect("the settings are right");
        let mut value = Vec::new();
        let mut bytes = 0;
        for n in 0..records {
            make(n, &mut value);
            let key = n.to_be_bytes();
            bytes += (key.len() + value.len()) as u64;
            let mut record = BaseRecord::to(name)
                .partition((n / 500) as i32 % partitions)
                .key(&key)
                .timestamp(orders::time(n))
                .payload(&value);
            if orders::is_test(n) {
                record =
                    record.headers(OwnedHeaders::new().insert(Header { key: "test", value: Some(marked) }));
            }
            while let Err((error, back)) = producer.send(record) {
                let full = Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
                assert_eq!(error.rdkafka_error_code(), full, "{error}");
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        producer.flush(Duration::from_secs(60)).expect("the broker answers");
        Job {
            bootstrap: self.bootstrap.clone(),
            registry: self.registry.url(),
            topic: name.to_owned(),
            records,
            rows: records,
            bytes,
            transforms: Vec::new(),
            decode: json!({"format": "avro", "kafka_columns": false}),
            memory: "32MiB",
            rotate_rows: NO_ROTATION,
        }
    }

    fn register(&self, topic: &str, schema: &str) -> u32 {
        self.runtime.block_on(async {
            let config = gristmill::RegistryConfig::builder().url(self.registry.url()).build();
            let client = gristmill::SchemaRegistry::new(config.expect("an address")).expect("a client");
            let kind = gristmill::SchemaType::Avro;
            client.register(&format!("{topic}-value"), &kind, schema, &[]).await.expect("it answers").id
        })
    }

    /// The component of a guest of this checkout.
    fn component(&self, guest: &str) -> PathBuf {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../smt-runtime/tests/guests");
        let to = self.folder.path().join(format!("{guest}.wasm"));
        if !to.exists() {
            let built = Command::new(gristmill())
                .args(["transform", "build"])
                .arg(crates.join(guest))
                .arg("--output")
                .arg(&to)
                .output()
                .expect("the command starts");
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        }
        to
    }

    fn identity(&self) -> Vec<(PathBuf, Value)> {
        vec![(self.component("hop-identity"), json!({}))]
    }

    fn aim(&mut self, what: &str, value: f64, aim: f64, met: bool) {
        println!("  aim: {what} {value:.3}, aimed at {aim}: {}", if met { "met" } else { "MISSED" });
        self.aims.push(json!({"what": what, "value": round(value), "aim": aim, "met": met}));
    }

    fn example(&self, name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/transforms/prebuilt/{name}.wasm"))
    }

    fn same(&mut self, a: f64, b: f64) -> f64 {
        self.noise = self.noise.max((a / b - 1.0).abs());
        a.min(b)
    }

    fn note(&mut self, name: &str, value: Value) {
        self.results.insert(name.to_owned(), value);
    }

    fn avro(&mut self) {
        let records = scaled(AVRO);
        let topic = "avro-4";
        let id = self.register(topic, orders::AVRO_SCHEMA);
        let mut values = Values::default();
        let job = self.topic(topic, 4, records, |n, value| {
            orders::avro(n, id, value);
            values.push(value);
        });
        println!("Avro orders of {} B, {records} of them in 4 partitions", values.mean());
        let file = self.folder.path().join("bare.parquet");
        let bare = || bare::avro_to_parquet(&values, orders::AVRO_SCHEMA, id, &file);
        let with = |transforms| Job { transforms, ..job.clone() };
        let identity = with(self.identity());
        bare(); // The first one pays for the pages of this process.
        let (bare_1, ours_1, bare_2, again) = (bare(), identity.run().cpu, bare(), identity.run());
        let other = self.folder.path().join("other.parquet");
        let two_at_once = std::thread::scope(|scope| {
            let other = scope.spawn(|| bare::avro_to_parquet(&values, orders::AVRO_SCHEMA, id, &other));
            (bare() + other.join().expect("it does not panic")) / 2.0
        });
        let none = with(Vec::new()).run();
        let headers = with(vec![(self.example("headers"), json!({}))]).run();
        let columns = Job { decode: json!({"format": "avro"}), ..identity.clone() }.run();
        let default = Job { memory: "256MiB", ..identity.clone() }.run();
        let resident = again.resident;

        let bare = self.same(bare_1, bare_2);
        let ours = self.same(ours_1, again.cpu);
        println!(
            "  bare                       {bare:6.2} us/record; two such threads at once {two_at_once:.2} each"
        );
        for (name, cpu, spent) in [
            ("transform, values", ours, &again),
            ("transform, headers", headers.cpu, &headers),
            ("no transform", none.cpu, &none),
            ("values, Kafka's columns", columns.cpu, &columns),
            ("values, memory: 256MiB", default.cpu, &default),
        ] {
            println!("  {name:26} {cpu:6.2} us/record, bare is {:.2} of it; {}", bare / cpu, said(spent));
        }
        self.aim("bare over Avro through a transform", bare / ours, 0.7, bare / ours >= 0.7);
        self.aim("MiB resident", resident, 150.0, resident < 150.0);
        self.note(
            "avro",
            json!({
                "bytes": values.mean(), "bare_us": round(bare), "bare_two_at_once_us": round(two_at_once), "identity": figures(&again),
                "headers": figures(&headers), "none": figures(&none), "kafka_columns": figures(&columns),
                "memory_256MiB": figures(&default),
            }),
        );
    }

    fn json(&mut self) {
        let records = scaled(JSON);
        let topic = "json-orders";
        let job = self.topic(topic, 4, records, orders::json);
        println!("JSON orders of {} B, {records} of them in 4 partitions, four SMTs", orders::JSON_BYTES);
        let config = json!({
            "drop_header": "test",
            "timestamp_field": "received_at",
            "fields": [["ip", null], ["user_agent", null], ["session", null], ["card", ""],
                ["order_id", "id"], ["amount_cents", "amount"]],
        });
        let fields = json!({
            "id": "string not null", "customer_id": "int64",
            "customer": {"name": "string", "email": "string", "phone": "string"},
            "shipping": {"street": "string", "city": "string", "zip": "string", "country": "string"},
            "currency": "string", "amount": "int64", "tax_cents": "int64", "status": "string",
            "channel": "string", "created_at": "timestamp_ms", "card": "string", "gift": "bool",
            "items": [{"sku": "string", "quantity": "int32", "price_cents": "int64"}],
            "note": "string", "received_at": "timestamp_ms",
        });
        let rows = records - records.div_ceil(5);
        let of_records = Job {
            rows,
            transforms: vec![(self.component("four-smts"), config)],
            decode: json!({"format": "json", "fields": fields}),
            ..job.clone()
        };
        let fields = json!({
            "order_id": "string not null", "customer_id": "int64",
            "customer": {"name": "string", "email": "string", "phone": "string"},
            "shipping": {"street": "string", "city": "string", "zip": "string", "country": "string"},
            "currency": "string", "amount_cents": "int64", "tax_cents": "int64", "status": "string",
            "channel": "string", "created_at": "timestamp_ms", "ip": "string", "user_agent": "string",
            "session": "string", "card": "string", "gift": "bool",
            "items": [{"sku": "string", "quantity": "int32", "price_cents": "int64"}],
            "note": "string",
        });
        let of_columns = Job {
            rows,
            transforms: vec![
                (self.example("headers"), json!({})),
                (self.component("four-smts-columns"), json!({})),
            ],
            decode: json!({"format": "json", "fields": fields}),
            ..job.clone()
        };
        let (first, second) = (of_records.run(), of_records.run());
        let records_alone = self.same(first.cpu, second.cpu);
        println!("  a transform of records     {records_alone:6.2} us/record; {}", said(&second));
        let (first, spent) = (of_columns.run(), of_columns.run());
        let worker = self.folder.path().join("connect");
        std::fs::create_dir_all(&worker).expect("the folder is ours");
        let connect = connect::run(&self.bootstrap, topic, records, &worker);
        let ours = self.same(first.cpu, spent.cpu);
        println!("  headers, then columns      {ours:6.2} us/record; {}", said(&spent));
        match connect {
            Err(missing) => println!("  no Kafka Connect to compare with: {missing}"),
            Ok(warm) => {
                println!(
                    "  Kafka Connect, no output   {:6.2} us/record; {:.0} records/s, {:.0} MiB",
                    warm.cpu, warm.records_per_second, warm.resident
                );
                let share = ours / warm.cpu;
                self.aim("JSON to Parquet over Kafka Connect", share, 1.0 / 3.0, share <= 1.0 / 3.0);
                self.note("connect_us", json!(round(warm.cpu)));
            }
        }
        self.note("json_columns", figures(&spent));
        self.note("json_records", figures(&second));
    }

    /// Partitions and sizes.
    fn shape(&mut self) {
        let records = scaled(AVRO);
        println!("partitions, Avro orders through the identity");
        for partitions in [1, 64] {
            let topic = format!("avro-{partitions}");
            let id = self.register(&topic, orders::AVRO_SCHEMA);
            let job = self.topic(&topic, partitions, records, |n, value| orders::avro(n, id, value));
            let spent = Job { transforms: self.identity(), ..job }.run();
            println!(
                "  {partitions:2} partitions              {:6.2} us/record; {}",
                spent.cpu,
                said(&spent)
            );
            self.note(&format!("partitions_{partitions}"), figures(&spent));
        }
        println!("sizes, Avro events of five fields through the identity");
        for (size, records) in SIZES {
            let records = scaled(records);
            let topic = format!("events-{size}");
            let id = self.register(&topic, orders::SIZED_SCHEMA);
            let mut values = Values::default();
            let job = self.topic(&topic, 4, records, |n, value| {
                orders::sized(n, id, size, value);
                values.push(value);
            });
            let file = self.folder.path().join("bare.parquet");
            let bare = bare::avro_to_parquet(&values, orders::SIZED_SCHEMA, id, &file);
            let spent = Job { transforms: self.identity(), ..job }.run();
            println!(
                "  {size:6} B                   {:6.2} us/record, bare is {:.2} of it; {}",
                spent.cpu,
                bare / spent.cpu,
                said(&spent)
            );
            let mut figures = figures(&spent);
            figures["bare_us"] = json!(round(bare));
            self.note(&format!("bytes_{size}"), figures);
        }
    }

    fn checkpoints(&mut self) {
        let topic = "avro-checkpoints";
        let id = self.register(topic, orders::AVRO_SCHEMA);
        let records = scaled(AVRO / 2);
        let job = self.topic(topic, 1, records, |n, value| orders::avro(n, id, value));
        println!("checkpoints, one partition, Avro orders through the identity");
        let job = Job { transforms: self.identity(), ..job };
        let (first, once) = (job.run(), job.run());
        let once_cpu = self.same(first.cpu, once.cpu);
        for rows in CHECKPOINTS {
            let spent = Job { rotate_rows: rows, ..job.clone() }.run();
            // The run that it is compared with has one too.
            let more = spent.checkpoints.saturating_sub(1).max(1) as f64;
            let each = (spent.cpu - once_cpu) * records as f64 / 1e3 / more;
            println!(
                "  every {rows:6} rows          {:6.2} us/record, {} checkpoints of {each:.1} ms CPU and {:.1} ms each; {}",
                spent.cpu,
                spent.checkpoints,
                spent.checkpoint_ms,
                said(&spent)
            );
            let mut figures = figures(&spent);
            figures["checkpoints"] = json!(spent.checkpoints);
            figures["checkpoint_cpu_ms"] = json!(round(each));
            figures["checkpoint_ms"] = json!(round(spent.checkpoint_ms));
            self.note(&format!("checkpoint_rows_{rows}"), figures);
        }
    }

    /// Checkpoints so frequent that the sink is the bottleneck: what is fetched must wait, not be fetched again.
    fn slow(&mut self) {
        let topic = "avro-slow";
        let id = self.register(topic, orders::AVRO_SCHEMA);
        let records = scaled(AVRO / 2);
        let job = self.topic(topic, 4, records, |n, value| orders::avro(n, id, value));
        println!("a slow sink: a checkpoint every 1,000 rows, 16 MiB of memory for records");
        let spent = Job { rotate_rows: 1_000, memory: "16MiB", ..job.clone() }.run();
        println!("  {:26} {:6.2} us/record; {}", "", spent.cpu, said(&spent));
        match spent.fetched {
            None => println!("  what was fetched is not known: `ss` is not installed"),
            Some(fetched) => self.aim("bytes fetched over delivered", fetched, 1.1, fetched <= 1.1),
        }
        self.note("slow", figures(&spent));
    }
}

fn round(n: f64) -> f64 {
    (n * 1000.0).round() / 1000.0
}

fn said(spent: &Spent) -> String {
    let stages = ["fetch", "copy", "transform", "decode", "write", "last checkpoint"];
    let stages = stages.map(|name| format!("{name} {:.2}", spent.stages.get(name).copied().unwrap_or(0.0)));
    format!("{}; {:.0} records/s, {:.0} MiB", stages.join(", "), spent.records_per_second, spent.resident)
}

/// One part of the benchmark.
type Part = fn(&mut Bench);

fn figures(spent: &Spent) -> Value {
    let stages: Map<String, Value> =
        spent.stages.iter().map(|(name, us)| ((*name).to_owned(), json!(round(*us)))).collect();
    json!({
        "us": round(spent.cpu), "records_per_second": spent.records_per_second.round(),
        "resident_mib": spent.resident.round(), "stages_us": stages, "fetched": spent.fetched.map(round),
    })
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if arguments.iter().any(|a| a == "--test") {
        return;
    }
    let chosen = |part: &str| arguments.is_empty() || arguments.iter().any(|a| a == part);
    let Some(kafka) = RealKafka::start(1) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let registry = runtime.block_on(EmbeddedRegistry::start()).expect("a loopback port is free");
    let mut bench = Bench {
        bootstrap: kafka.bootstrap_servers(),
        kafka,
        runtime,
        registry,
        folder: tempfile::tempdir().expect("a temporary folder can be made"),
        results: Map::new(),
        aims: Vec::new(),
        noise: 0.0,
    };
    let parts: [(&str, Part); 5] = [
        ("avro", Bench::avro),
        ("json", Bench::json),
        ("shape", Bench::shape),
        ("checkpoints", Bench::checkpoints),
        ("slow", Bench::slow),
    ];
    for (name, part) in parts {
        if chosen(name) {
            part(&mut bench);
        }
    }
    println!("A/A noise {:.1} %", bench.noise * 100.0);
    let (aims, noise, results) = (&bench.aims, round(bench.noise), &bench.results);
    println!("{}", json!({"aims": aims, "noise": noise, "results": results}));
}
