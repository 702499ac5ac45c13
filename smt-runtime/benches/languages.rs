//! What does the same transform cost in each language that it can be written in?
//!
//! Axes: the example `typed-orders` in Rust, JavaScript and Python: size of the component; time to compile it and to take it
//! from the cache; time to make an instance and configure it; memory of that instance after batches of 500; CPU time a row
//! in batches of 500, over rows of 20 columns of which four are read and three computed. Production limits.
//!
//! Beside them a peer to embed, [Extism](https://extism.org) with its Rust PDK, on the same rows as JSON, which is its way: a
//! row a call, and 500 rows a call (`benches/extism`, a process of its own).
//!
//! Not measured: decoding, sinks, several threads at a time.
//!
//! Not compared: what rows cost to become columns or JSON.
//!
//! Prints the table of `docs/transforms.md`; the last line is one JSON object, with the noise of an A/A run. A language whose
//! tool is not there is left out, and said so.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow_schema::{Field, Fields, Schema};
use gristmill_smt::{GuestToolchain, Limits, Runtime, RuntimeConfig, Stream, build_guest};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

const ROWS: usize = 500;
const SAMPLES: usize = 15;

fn cpu_ns() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// Nanoseconds of CPU time a call, the median of samples of at least 20 ms.
fn median(mut f: impl FnMut()) -> f64 {
    let mut sample = |calls: u64| {
        let start = cpu_ns();
        (0..calls).for_each(|_| f());
        cpu_ns() - start
    };
    let mut calls = 1;
    while sample(calls) < 2e7 {
        calls *= 2;
    }
    let mut samples: Vec<f64> = (0..SAMPLES).map(|_| sample(calls) / calls as f64).collect();
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 2]
}

fn orders() -> RecordBatch {
    let texts = |name: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|i| format!("{name} of order {i}"))))
    };
    let longs = || -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|i| i * 7919 % 100_000)))
    };
    let email: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|i| format!("user{i}@example.org"))));
    let members = [("name", texts("name")), ("email", email), ("card", texts("card"))];
    let fields: Fields = members.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    let customer = StructArray::new(fields, members.map(|(_, a)| a).to_vec(), None);
    let times = TimestampMillisecondArray::from_iter_values((0..ROWS as i64).map(|i| 1_793_491_200_000 + i));
    let tests = BooleanArray::from_iter((0..ROWS).map(|i| Some(i.is_multiple_of(10))));
    let mut columns: Vec<(String, ArrayRef, bool)> = vec![
        ("customer".into(), Arc::new(customer), true),
        ("amount_cents".into(), longs(), false),
        ("created_at".into(), Arc::new(times.with_timezone("UTC")), true),
        ("test".into(), Arc::new(tests), true),
    ];
    columns.extend((0..9).map(|i| (format!("text{i}"), texts("text"), true)));
    columns.extend((0..5).map(|i| (format!("number{i}"), longs(), true)));
    let schema: Vec<Field> =
        columns.iter().map(|(n, a, nullable)| Field::new(n, a.data_type().clone(), *nullable)).collect();
    let arrays = columns.into_iter().map(|(_, array, _)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays).expect("the columns are of one length")
}

/// What the peer says of itself; `Err` says what is missing.
fn extism(orders: &RecordBatch) -> Result<Value, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut lines = Vec::new();
    let mut writer = arrow_json::LineDelimitedWriter::new(&mut lines);
    writer.write(orders).and_then(|()| writer.finish()).map_err(|e| e.to_string())?;
    let file = folder.path().join("orders.jsonl");
    std::fs::write(&file, lines).map_err(|e| e.to_string())?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/extism/Cargo.toml");
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).args(["--quiet", "--release", "--manifest-path"]).arg(&manifest);
        cargo.stderr(Stdio::inherit());
        cargo
    };
    let run = |cargo: &mut Command| {
        let out = cargo.output().map_err(|e| e.to_string())?;
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(format!("{cargo:?} fails")),
        }
    };
    let target = "wasm32-unknown-unknown";
    let mut plugin =
        cargo(&["build", "--package", "peer-plugin", "--target", target, "--message-format", "json"]);
    if let GuestToolchain::Debian { rustc } = GuestToolchain::find().map_err(|e| e.to_string())? {
        plugin.args(["-Z", "build-std=std,panic_abort"]).env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    }
    let built = run(&mut plugin)?;
    let wasm = built
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            Some(message["filenames"][0].as_str().filter(|f| f.ends_with(".wasm"))?.to_owned())
        })
        .next_back()
        .ok_or("cargo built no plug-in")?;
    let mut host = cargo(&["run", "--package", "peer-extism"]);
    let said = run(host.arg("--").arg(wasm).arg(file))?;
    serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms");
    let cache = tempfile::tempdir().expect("a folder for the cache");
    let config = RuntimeConfig::new().with_cache_dir(cache.path().join("aot"));
    let runtime = Runtime::new(config).expect("the runtime starts");
    let stream = Stream { topic: "orders".into(), partition: 0 };
    let (orders, offsets) = (orders(), (0..ROWS as i64).collect::<Vec<_>>());
    let settings = json!({"high_value_cents": 90_000});
    let mut cells = serde_json::Map::new();
    let mut noise = 0f64;
    let mut expected: Option<RecordBatch> = None;
    println!("| | component | compile | load | an instance | its memory | a row | over Rust |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut rust = 0.0;
    for (language, folder) in
        [("Rust", "typed-orders"), ("JavaScript", "typed-orders-js"), ("Python", "typed-orders-python")]
    {
        let built = match build_guest(examples.join(folder)) {
            Ok(built) => built,
            Err(e) => {
                println!("{language} is left out: {e}");
                continue;
            }
        };
        let bytes = std::fs::metadata(&built.component).expect("it was just built").len();
        let limits = Limits::default();
        let load = || {
            let started = Instant::now();
            let transform = runtime.load_file(&built.component, limits.clone());
            (transform.unwrap_or_else(|e| panic!("{e}")), started.elapsed())
        };
        let (_, compile) = load();
        let (transform, from_cache) = load();
        let bind = || {
            let made = transform.instantiate_columns(&stream, &settings, &orders.schema());
            made.unwrap_or_else(|e| panic!("{e}"))
        };
        let mut instance = bind();
        let applied = instance.apply(&orders, &offsets).unwrap_or_else(|e| panic!("{e}"));
        assert!(applied.rejects().is_empty(), "{:?}", applied.rejects());
        match &expected {
            None => expected = Some(applied.batch().clone()),
            Some(expected) => assert_eq!(applied.batch(), expected, "all do the same"),
        }
        let fresh = median(|| drop(black_box(bind())));
        let mut memory = 0;
        let mut row = |noise: &mut f64| {
            let mut measure = || {
                median(|| {
                    let applied =
                        instance.apply(black_box(&orders), &offsets).unwrap_or_else(|e| panic!("{e}"));
                    memory = memory.max(applied.stats().memory);
                    black_box(applied);
                }) / ROWS as f64
            };
            let (a, b) = (measure(), measure());
            *noise = noise.max((a / b - 1.0).abs());
            a.min(b)
        };
        let row = row(&mut noise);
        if language == "Rust" {
            rust = row;
        }
        let short = |time: Duration| match time.as_millis() {
            0..1000 => format!("{} ms", time.as_millis().max(1)),
            more => format!("{:.1} s", more as f64 / 1e3),
        };
        println!(
            "| {language} | {:.2} MB | {} | {} | {:.0} us | {:.1} MiB | {:.2} us | {:.1} |",
            bytes as f64 / 1e6,
            short(compile),
            short(from_cache),
            fresh / 1e3,
            memory as f64 / f64::from(1 << 20),
            row / 1e3,
            row / rust,
        );
        cells.insert(
            language.into(),
            json!({"bytes": bytes, "compile_ms": compile.as_millis() as u64, "load_ms": from_cache.as_millis() as u64,
                "instance_us": (fresh / 1e3).round(), "memory_bytes": memory, "row_ns": row.round()}),
        );
    }
    match extism(&orders) {
        Ok(said) => {
            let kept = expected.as_ref().map(|rows| rows.num_rows() as u64);
            assert_eq!(said["kept"].as_u64(), kept, "it does the same");
            let us = |name: &str| said[name].as_f64().unwrap_or_default() / 1e3;
            for (name, row) in [("one_ns", "a row a call"), ("many_ns", "500 rows a call")] {
                println!(
                    "| Extism, Rust, JSON, {row} | {:.2} MB | {} ms | | | | {:.2} us | {:.1} |",
                    said["bytes"].as_f64().unwrap_or_default() / 1e6,
                    said["compile_ms"],
                    us(name),
                    us(name) * 1e3 / rust,
                );
            }
            cells.insert("Extism".into(), said);
        }
        Err(why) => println!("Extism is left out: {why}"),
    }
    println!("{}", json!({"languages": cells, "noise": (noise * 1e4).round() / 1e4}));
}
