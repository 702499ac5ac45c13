//! Gives the lines of a file to the plug-in, one a call and all in one call, and prints what a line costs as JSON.
//!
//! `peer-extism PLUGIN LINES`

use std::hint::black_box;
use std::time::Instant;

use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

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

fn call(plugin: &mut Plugin, function: &str, input: &str) -> String {
    plugin.call::<_, String>(function, input).unwrap_or_else(|e| panic!("{function}: {e:#}"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [wasm, lines] = arguments.as_slice() else { panic!("peer-extism PLUGIN LINES") };
    let text = std::fs::read_to_string(lines).expect("the lines are there");
    let lines: Vec<&str> = text.lines().collect();
    let all = format!("[{}]", lines.join(","));
    // No time limit: each call would start a timer, which doubles what a row a call costs.
    let manifest = Manifest::new([Wasm::data(std::fs::read(wasm).expect("the plug-in is there"))])
        .with_config_key("high_value_cents", "90000")
        .with_memory_max(1024);
    let started = Instant::now();
    let compiled = CompiledPlugin::new(PluginBuilder::new(manifest).with_wasi(false).with_cache_disabled())
        .expect("it compiles");
    let compile = started.elapsed();
    let mut plugin = Plugin::new_from_compiled(&compiled).expect("it starts");
    let each: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(&call(&mut plugin, "one", line)).expect("it is JSON"))
        .collect();
    let together: Vec<Value> = serde_json::from_str(&call(&mut plugin, "many", &all)).expect("it is JSON");
    assert_eq!(each, together, "both ways do the same");
    let kept = each.iter().filter(|verdict| verdict.get("keep").is_some()).count();
    let one = median(|| lines.iter().for_each(|line| drop(black_box(call(&mut plugin, "one", line)))))
        / lines.len() as f64;
    let many = median(|| drop(black_box(call(&mut plugin, "many", &all)))) / lines.len() as f64;
    let bytes = std::fs::metadata(wasm).expect("it was read").len();
    println!(
        "{}",
        json!({"bytes": bytes, "compile_ms": compile.as_millis() as u64, "kept": kept, "one_ns": one.round(), "many_ns": many.round()})
    );
}
