//! What does a sandboxed transform of typed columns cost, compared with native code over the same Arrow columns, and
//! with Kafka Connect's transforms on Structs?
//!
//! Axes: a function on a typed row that reads 3 of 20 columns and computes 2 (one that does next to nothing, and the example
//! `typed-orders`, which formats a text), in batches of 64 to 4,096 rows, beside arrow-rs arrays and builders; the four steps of the Connect yardstick over the same twenty
//! fields, beside the four Java classes called one after the other on a warm JVM (`tests/kafka/connect/StructSmts.java`);
//! a fresh instance for each batch of 500; 100 instances that do nothing. The WebAssembly side is
//! `ColumnInstance::apply` as a pipeline calls it: production limits, epochs, answers checked in full, the output put
//! together. Time is the CPU time of the thread, the median of interleaved samples; Java's is the median of its rounds
//! after half of them. And what an author has of the feature `arrow`: the guest `arrow-rows` computes two columns by arrow-rs
//! kernels or row by row, of all rows or of every other one, beside the same kernels natively.
//!
//! Not measured: decoding, the network, sinks, loading components, several threads at a time. What Connect does around
//! the transforms is not measured either, nor is that what comes before and after ours.
//!
//! The last line is one JSON object: the aims, the figures they are about, and the noise of an A/A run. Without a
//! JDK or Maven the part about Connect is left out, and said so.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray, new_null_array,
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use gristmill_smt::{ColumnInstance, Limits, Runtime, RuntimeConfig, Stream, Transform, build_guest};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

const BATCHES: [usize; 4] = [64, 500, 1_000, 4_096];
const SAMPLES: usize = 11;
/// CPU time of one sample.
const SAMPLE_NS: f64 = 4e6;
const JAVA_RECORDS: usize = 20_000;
const JAVA_ROUNDS: usize = 60;

fn cpu_ns() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

fn time(calls: u64, f: &mut dyn FnMut()) -> f64 {
    let start = cpu_ns();
    for _ in 0..calls {
        f();
    }
    (cpu_ns() - start) / calls as f64
}

/// Nanoseconds a call of each, medians of interleaved samples.
fn medians(mut contestants: [&mut dyn FnMut(); 2]) -> [f64; 2] {
    let mut calls = [1u64; 2];
    for (f, calls) in contestants.iter_mut().zip(&mut calls) {
        time(3, f);
        while time(*calls, f) * (*calls as f64) < SAMPLE_NS {
            *calls *= 2;
        }
    }
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..SAMPLES {
        for i in 0..2 {
            samples[i].push(time(calls[i], contestants[i]));
        }
    }
    samples.map(|mut s| {
        s.sort_by(f64::total_cmp);
        s[SAMPLES / 2]
    })
}

fn texts(name: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("{name} of order {i}"))))
}

fn longs(rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|i| i * 7 % 100_000)))
}

/// Orders with a customer in them: twenty columns with those of the struct.
fn nested(rows: usize) -> RecordBatch {
    let email = StringArray::from_iter_values((0..rows).map(|i| format!("user{i}@example.org")));
    let members: Vec<(&str, ArrayRef)> =
        vec![("name", texts("name", rows)), ("email", Arc::new(email)), ("card", texts("card", rows))];
    let fields: Fields = members.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    let members = members.into_iter().map(|(_, a)| a).collect();
    let customer: ArrayRef = Arc::new(StructArray::new(fields, members, None));
    let times = TimestampMillisecondArray::from_iter_values((0..rows as i64).map(|i| 1_793_491_200_000 + i));
    let mut columns: Vec<(String, ArrayRef, bool)> = vec![
        ("customer".into(), customer, true),
        ("amount_cents".into(), longs(rows), false),
        ("created_at".into(), Arc::new(times.with_timezone("UTC")), true),
        ("test".into(), Arc::new(BooleanArray::from_iter((0..rows).map(|_| Some(false)))), true),
    ];
    columns.extend((0..9).map(|i| (format!("text{i}"), texts("text", rows), true)));
    columns.extend((0..5).map(|i| (format!("number{i}"), longs(rows), true)));
    batch(columns)
}

/// The orders of the yardstick: its twenty fields, whether the order is a test (Connect's has a header for that), and
/// the record's time.
fn flat(rows: usize) -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef, bool)> = [
        "order_id",
        "name",
        "email",
        "phone",
        "street",
        "city",
        "zip",
        "country",
        "currency",
        "status",
        "channel",
        "ip",
        "user_agent",
        "session",
        "card",
    ]
    .iter()
    .map(|name| (name.to_string(), texts(name, rows), true))
    .collect();
    columns.extend(
        ["customer_id", "amount_cents", "tax_cents", "created_at"]
            .map(|name| (name.to_owned(), longs(rows), false)),
    );
    let flags = |every: usize| -> ArrayRef {
        Arc::new(BooleanArray::from_iter((0..rows).map(|i| Some(i.is_multiple_of(every)))))
    };
    columns.push(("gift".into(), flags(11), false));
    columns.push(("test".into(), flags(5), false));
    let times = TimestampMillisecondArray::from_iter_values((0..rows as i64).map(|i| 1_793_491_200_000 + i));
    columns.push(("_kafka_timestamp".into(), Arc::new(times.with_timezone("UTC")), true));
    batch(columns)
}

fn batch(columns: Vec<(String, ArrayRef, bool)>) -> RecordBatch {
    let fields: Vec<Field> =
        columns.iter().map(|(n, a, nullable)| Field::new(n, a.data_type().clone(), *nullable)).collect();
    let arrays = columns.into_iter().map(|(_, array, _)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("the columns are of one length")
}

/// What `typed-orders` does, with arrow-rs: the output's columns, and which rows go to the other output.
fn natively(orders: &RecordBatch, schema: &SchemaRef) -> (RecordBatch, Vec<u16>) {
    let customer = orders.column(0).as_struct();
    let emails = customer.column(1).as_string::<i32>();
    let amounts = orders.column(1).as_primitive::<Int64Type>();
    let tests = orders.column(3).as_boolean();
    let mut masked = StringBuilder::new();
    let mut domains = StringBuilder::new();
    let mut outputs = Vec::with_capacity(orders.num_rows());
    for row in 0..orders.num_rows() {
        if tests.is_valid(row) && tests.value(row) {
            continue;
        }
        outputs.push(u16::from(amounts.value(row) >= 90_000));
        let email = emails.is_valid(row).then(|| emails.value(row));
        let domain = email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain);
        masked.append_option(email.map(|_| format!("***@{}", domain.unwrap_or("***"))));
        domains.append_option(domain);
    }
    let DataType::Struct(fields) = schema.field(0).data_type() else { unreachable!("a customer") };
    let members: Vec<ArrayRef> = vec![customer.column(0).clone(), Arc::new(masked.finish())];
    let mut columns = orders.columns().to_vec();
    columns[0] = Arc::new(StructArray::new(fields.clone(), members, customer.nulls().cloned()));
    let times = new_null_array(schema.field(schema.fields().len() - 1).data_type(), outputs.len());
    columns.extend([Arc::new(domains.finish()) as ArrayRef, times]);
    (RecordBatch::try_new(schema.clone(), columns).expect("the columns fit"), outputs)
}

/// What the guest `typed-rows` does, with arrow-rs.
fn plainly(orders: &RecordBatch, schema: &SchemaRef) -> (RecordBatch, Vec<u16>) {
    let emails = orders.column(0).as_struct().column(1).as_string::<i32>();
    let amounts = orders.column(1).as_primitive::<Int64Type>();
    let tests = orders.column(3).as_boolean();
    let mut domains = StringBuilder::new();
    let mut large = BooleanBuilder::new();
    for row in 0..orders.num_rows() {
        if tests.is_valid(row) && tests.value(row) {
            continue;
        }
        let email = emails.is_valid(row).then(|| emails.value(row));
        domains.append_option(email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain));
        large.append_value(amounts.value(row) >= 90_000);
    }
    let mut columns = orders.columns().to_vec();
    columns.extend([Arc::new(domains.finish()) as ArrayRef, Arc::new(large.finish())]);
    let outputs = vec![0; orders.num_rows()];
    (RecordBatch::try_new(schema.clone(), columns).expect("the columns fit"), outputs)
}

/// What the guest `arrow-rows` does, with arrow-rs.
fn by_kernels(orders: &RecordBatch, schema: &SchemaRef, half: bool) -> RecordBatch {
    let amounts = orders.column(1).as_primitive::<Int64Type>();
    let twice: Int64Array = amounts.unary(|cents| cents.wrapping_mul(2));
    let mut columns = orders.columns().to_vec();
    columns.extend([
        Arc::new(twice) as ArrayRef,
        Arc::new(BooleanArray::from_unary(amounts, |cents| cents >= 90_000)),
    ]);
    let all = RecordBatch::try_new(schema.clone(), columns).expect("the columns fit");
    if !half {
        return all;
    }
    let numbers = orders.column_by_name("number0").expect("a number").as_primitive::<Int64Type>();
    let even = BooleanArray::from_unary(numbers, |n| n % 2 == 0);
    filter_record_batch(&all, &even).expect("a mask of its length")
}

/// The same, natively.
type Natively = fn(&RecordBatch, &SchemaRef) -> (RecordBatch, Vec<u16>);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

struct Bench {
    runtime: Runtime,
    stream: Stream,
}

impl Bench {
    fn load(&self, guest: &str) -> Transform {
        let built = build_guest(root().join(guest)).unwrap_or_else(|e| panic!("{e}"));
        self.runtime.load_file(built.component, Limits::default()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn instance(&self, transform: &Transform, config: &Value, schema: &SchemaRef) -> ColumnInstance {
        transform.instantiate_columns(&self.stream, config, schema).unwrap_or_else(|e| panic!("{e}"))
    }
}

/// Nanoseconds of CPU time a record; `Err` says what is missing.
fn java() -> Result<f64, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let connect = root().join("../tests/kafka/connect");
    let libs = folder.path().join("libs");
    let run = |command: &mut Command| {
        let output =
            command.output().map_err(|e| format!("{:?} does not start: {e}", command.get_program()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
        }
    };
    run(Command::new("mvn")
        .args(["-B", "-q", "-f"])
        .arg(connect.join("pom.xml"))
        .arg("org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", libs.display())))?;
    let jars = format!("{}/*", libs.display());
    run(Command::new("javac")
        .args(["-cp", &jars, "-d"])
        .arg(folder.path())
        .arg(connect.join("StructSmts.java")))?;
    let log = connect.join("../log4j2.xml");
    let text = run(Command::new("java")
        .arg(format!("-Dlog4j2.configurationFile={}", log.display()))
        .arg(format!("-Dkafka.log={}", folder.path().join("log").display()))
        .arg("-cp")
        .arg(format!("{}:{jars}", folder.path().display()))
        .arg("StructSmts")
        .args([JAVA_RECORDS.to_string(), JAVA_ROUNDS.to_string()]))?;
    let mut rounds: Vec<f64> =
        text.lines().filter_map(|line| line.parse().ok()).skip(JAVA_ROUNDS / 2).collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().ok_or_else(|| format!("no rounds in {text}"))
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let bench = Bench {
        runtime: Runtime::new(RuntimeConfig::new()).expect("the runtime starts"),
        stream: Stream { topic: "orders".into(), partition: 0 },
    };
    let round = |n: f64| (n * 100.0).round() / 100.0;
    let mut aims = Vec::new();
    let mut cells = serde_json::Map::new();

    let typed = bench.load("../examples/transforms/typed-orders");
    let config = json!({"high_value_cents": 90_000});
    let plain = bench.load("tests/guests/typed-rows");
    let none = json!({});
    let cases: [(&str, &Transform, &Value, Natively); 2] =
        [("typed row", &plain, &none, plainly), ("typed row, formats", &typed, &config, natively)];
    for (name, transform, config, native) in cases {
        for rows in BATCHES {
            let orders = nested(rows);
            let offsets: Vec<i64> = (0..rows as i64).collect();
            let mut instance = bench.instance(transform, config, &orders.schema());
            let applied = instance.apply(&orders, &offsets).unwrap_or_else(|e| panic!("{e}"));
            let (expected, outputs) = native(&orders, instance.output_schema());
            assert_eq!(applied.batch(), &expected, "both do the same");
            assert!(applied.rows().iter().map(|r| r.output).eq(outputs), "both do the same");
            let schema = instance.output_schema().clone();
            let [wasm, native] =
                medians([&mut || drop(black_box(instance.apply(black_box(&orders), &offsets))), &mut || {
                    drop(black_box(native(black_box(&orders), &schema)))
                }]);
            let (wasm, native) = (wasm / rows as f64, native / rows as f64);
            let more = wasm - native;
            println!(
                "{name:18} x {rows:5}   wasm {wasm:7.1} ns/row   native {native:7.1} ns/row   more {more:6.1}"
            );
            let cell = json!({"wasm_ns": round(wasm), "native_ns": round(native)});
            cells.insert(format!("{name} x {rows}"), cell);
            if rows == 500 {
                aims.push(json!({"what": name, "more_ns": round(more), "aim": 25, "met": more <= 25.0}));
            }
        }
    }

    let arrow = bench.load("tests/guests/arrow-rows");
    for (name, half) in [("kernels, all rows", false), ("kernels, half", true)] {
        for rows in BATCHES {
            let orders = nested(rows);
            let offsets: Vec<i64> = (0..rows as i64).collect();
            let [mut arrays, mut loops] = [true, false].map(|arrays| {
                bench.instance(&arrow, &json!({"arrays": arrays, "half": half}), &orders.schema())
            });
            let schema = arrays.output_schema().clone();
            let expected = by_kernels(&orders, &schema, half);
            for instance in [&mut arrays, &mut loops] {
                let applied = instance.apply(&orders, &offsets).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(applied.batch(), &expected, "all do the same");
            }
            let [by_arrays, native] =
                medians([&mut || drop(black_box(arrays.apply(black_box(&orders), &offsets))), &mut || {
                    drop(black_box(by_kernels(black_box(&orders), &schema, half)))
                }]);
            let [by_rows, _] =
                medians([&mut || drop(black_box(loops.apply(black_box(&orders), &offsets))), &mut || {
                    drop(black_box(by_kernels(black_box(&orders), &schema, half)))
                }]);
            let [by_arrays, by_rows, native] = [by_arrays, by_rows, native].map(|ns| ns / rows as f64);
            println!(
                "{name:18} x {rows:5}   arrays {by_arrays:5.1} ns/row   row by row {by_rows:5.1} ns/row   native {native:5.1} ns/row"
            );
            let cell =
                json!({"arrays_ns": round(by_arrays), "rows_ns": round(by_rows), "native_ns": round(native)});
            cells.insert(format!("{name} x {rows}"), cell);
        }
    }

    // A fresh instance for each batch, and an A/A run.
    let orders = nested(500);
    let offsets: Vec<i64> = (0..500).collect();
    let mut pair = [(); 2].map(|()| bench.instance(&typed, &config, &orders.schema()));
    let [a, b] = &mut pair;
    let mut noise = 0f64;
    for _ in 0..3 {
        let [a, b] = medians([&mut || drop(black_box(a.apply(black_box(&orders), &offsets))), &mut || {
            drop(black_box(b.apply(black_box(&orders), &offsets)))
        }]);
        noise = noise.max((a / b - 1.0).abs());
    }
    let [kept, fresh] =
        medians([&mut || drop(black_box(a.apply(black_box(&orders), &offsets))), &mut || {
            b.reset();
            drop(black_box(b.apply(black_box(&orders), &offsets)));
        }]);
    let more = (fresh - kept) / 500.0;
    println!("a fresh instance for each batch of 500: {more:.1} ns/row more");
    aims.push(json!({"fresh_instance_more_ns": round(more), "aim": 30, "met": more <= 30.0}));

    let steps = bench.load("tests/guests/four-smts-columns");
    let orders = flat(1_000);
    let offsets: Vec<i64> = (0..1_000).collect();
    let mut instance = bench.instance(&steps, &json!({}), &orders.schema());
    let applied = instance.apply(&orders, &offsets).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((applied.kept(), applied.batch().num_columns()), (800, 20));
    let mut same = bench.instance(&steps, &json!({}), &orders.schema());
    let [ours, _] =
        medians([&mut || drop(black_box(instance.apply(black_box(&orders), &offsets))), &mut || {
            drop(black_box(same.apply(black_box(&orders), &offsets)))
        }]);
    let ours = ours / 1_000.0;
    match java() {
        Ok(java) => {
            println!(
                "four steps: {ours:.1} ns/record over columns, {java:.1} with Connect's classes on Structs"
            );
            let ratio = ours / java;
            aims.push(json!({"four_steps_over_connect": round(ratio), "aim": 0.2, "met": ratio <= 0.2}));
            cells.insert("four_steps".into(), json!({"ns": round(ours), "connect_ns": round(java)}));
        }
        Err(why) => println!("four steps: {ours:.1} ns/record over columns; Connect is left out: {why}"),
    }

    let before = resident();
    let idle: Vec<ColumnInstance> =
        (0..100).map(|_| bench.instance(&typed, &config, &nested(1).schema())).collect();
    let each = (resident() - before) / idle.len() as f64;
    println!("{} idle instances: {each:.2} MiB resident each", idle.len());
    aims.push(json!({"idle_mib": round(each), "aim": 2, "met": each <= 2.0}));
    println!("{}", json!({"aims": aims, "noise": (noise * 1e4).round() / 1e4, "cells": cells}));
}
