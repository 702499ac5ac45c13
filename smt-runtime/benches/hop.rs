//! What does it cost to send records through a sandboxed transform, compared with calling the same code?
//!
//! Axes: three transforms (identity; a filter by key; the example `orders`, which masks two fields of a JSON
//! object), values of 100 B, 1 KB and 10 KB, batches of 1 to 4,096 records. The WebAssembly side is
//! `Instance::apply` as a pipeline calls it: production limits, epochs, the answer checked, `Applied` made and
//! dropped. The native side is the same crate compiled for this machine, called on the same batch without a
//! copy and without a check. Time is the CPU time of this thread, the median of interleaved samples.
//!
//! Not measured: decoding, the network, sinks, what it costs to iterate `Applied`, making instances,
//! compiling, a search for poison, several threads at a time.
//!
//! The last line is one JSON object: the aims, the figures they are about, and the noise of an A/A run, which
//! is the same measurement on two instances of the same transform.

use std::hint::black_box;
use std::path::Path;

use gristmill_records::{RawBatch, RawBatchBuilder};
use gristmill_smt::{Instance, Limits, Runtime, RuntimeConfig, Stream, build_guest};
use gristmill_transform::Transform;
use gristmill_transform::private::Native;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

const SIZES: [usize; 3] = [100, 1_000, 10_000];
const BATCHES: [usize; 7] = [1, 16, 64, 256, 500, 1_000, 4_096];
const SAMPLES: usize = 11;
/// CPU time of one sample.
const SAMPLE_NS: f64 = 4e6;

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

/// JSON orders of `size` bytes, the smallest as small as it goes.
fn batch(records: usize, size: usize) -> RawBatch {
    let mut batch = RawBatchBuilder::new("orders", 0);
    for i in 0..records {
        let amount = (i * 7919) % 100_000;
        let mut value = format!(
            r#"{{"order_id":"o-{i:06}","customer":{{"email":"u{i}@example.com","card":"4111"}},"amount_cents":{amount}"#
        );
        let mut field = 0;
        while value.len() + 40 < size {
            value += &match field % 3 {
                0 => format!(r#","note{field}":"some text {amount}""#),
                1 => format!(r#","number{field}":{amount}"#),
                _ => format!(r#","item{field}":{{"qty":{field},"ok":true}}"#),
            };
            field += 1;
        }
        if let Some(rest) = size.checked_sub(value.len() + 8) {
            value += &format!(r#","p":"{}""#, "p".repeat(rest));
        }
        value.push('}');
        // Splits the keys into short runs without a pattern that a branch predictor learns.
        let key = [b'k', (i.wrapping_mul(0x9e37_79b9) >> 13) as u8];
        batch.push(i as i64, 1, Some(&key), Some(value.as_bytes()), []).expect("small batches fit");
    }
    batch.build()
}

struct Bench {
    runtime: Runtime,
    stream: Stream,
}

impl Bench {
    fn instance(&self, guest: &str, config: &Value) -> Instance {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = build_guest(root.join(guest)).unwrap_or_else(|e| panic!("{e}"));
        let transform =
            self.runtime.load_file(built.component, Limits::default()).unwrap_or_else(|e| panic!("{e}"));
        transform.instantiate(&self.stream, config).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Nanoseconds a record by size and batch: (WebAssembly, native).
    fn run<T: Transform>(&self, name: &str, guest: &str, config: &Value) -> Vec<(usize, usize, f64, f64)> {
        let mut instance = self.instance(guest, config);
        let mut native = Native::<T>::new(&config.to_string()).unwrap_or_else(|e| panic!("{e}"));
        let mut cells = Vec::new();
        for size in SIZES {
            for records in BATCHES {
                let batch = batch(records, size);
                let applied = instance.apply(&batch).unwrap_or_else(|e| panic!("{e}"));
                assert!(applied.rejects().is_empty(), "{:?}", applied.rejects());
                let [wasm, plain] =
                    medians([&mut || drop(black_box(instance.apply(black_box(&batch)))), &mut || {
                        drop(black_box(native.apply(black_box(batch.rows()))))
                    }]);
                let n = records as f64;
                println!(
                    "{name:10} {size:6} B x {records:4}   wasm {:9.1} ns/record   native {:9.1} ns/record   x {:.2}",
                    wasm / n,
                    plain / n,
                    wasm / plain
                );
                cells.push((size, records, wasm / n, plain / n));
            }
        }
        cells
    }
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
    let none = json!({});
    let identity =
        bench.run::<hop_identity::identity::Transform>("identity", "tests/guests/hop-identity", &none);
    let filter = bench.run::<hop_filter::filter::Transform>("filter", "tests/guests/hop-filter", &none);
    let orders = json!({"high_value_cents": 90_000});
    let mask = bench.run::<transform_orders::orders::Transform>(
        "json mask",
        "../examples/transforms/orders",
        &orders,
    );

    // A/A.
    let mut pair = [(); 2].map(|()| bench.instance("tests/guests/hop-identity", &none));
    let [a, b] = &mut pair;
    let same = batch(500, 1_000);
    let mut noise = 0f64;
    for _ in 0..5 {
        let [a, b] = medians([&mut || drop(black_box(a.apply(black_box(&same)))), &mut || {
            drop(black_box(b.apply(black_box(&same))))
        }]);
        noise = noise.max((a / b - 1.0).abs());
    }

    let round = |n: f64| (n * 100.0).round() / 100.0;
    let of = |cells: &[(usize, usize, f64, f64)], size, records| {
        cells.iter().find(|c| (c.0, c.1) == (size, records)).copied().expect("it was measured")
    };
    let mut aims = Vec::new();
    let mut figures = Map::new();
    for size in SIZES {
        let (_, _, wasm, _) = of(&identity, size, 500);
        let aim = 4.0 + 0.015 * size as f64;
        aims.push(json!({"identity_bytes": size, "ns": round(wasm), "aim": aim, "met": wasm <= aim}));
        let (_, _, wasm, native) = of(&mask, size, 500);
        let ratio = wasm / native;
        aims.push(json!({"json_mask_bytes": size, "ratio": round(ratio), "aim": 1.5, "met": ratio <= 1.5}));
    }
    // One record of 100 B costs next to nothing but the call.
    let fixed = of(&identity, 100, 1).2;
    aims.push(json!({"fixed_call_ns": round(fixed), "aim": 350, "met": fixed <= 350.0}));
    for (name, cells) in [("identity", &identity), ("filter", &filter), ("json_mask", &mask)] {
        let ratios = cells.iter().map(|(size, records, wasm, native)| {
            (format!("{size}x{records}"), json!({"wasm_ns": round(*wasm), "ratio": round(wasm / native)}))
        });
        figures.insert(name.into(), Value::Object(ratios.collect()));
    }
    println!("{}", json!({"aims": aims, "noise": (noise * 1e4).round() / 1e4, "cells": figures}));
}
