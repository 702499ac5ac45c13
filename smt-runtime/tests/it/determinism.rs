//! The same input gives the same bytes, whatever the engine is set to and the machine is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{Array, RecordBatch};
use arrow_data::ArrayData;
use arrow_schema::Schema;
use gristmill_smt::{ColumnInstance, Limits, Runtime, RuntimeConfig};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::columns::{all_kinds, kinds_wasm, repeated};
use crate::support::stream;

const RUNS: usize = 1_000;

/// Every buffer of every column, as bytes: a NaN is not equal to itself.
fn bits(data: &ArrayData, into: &mut Vec<u8>) {
    into.extend((data.len() as u64).to_le_bytes());
    into.extend((data.null_count() as u64).to_le_bytes());
    data.buffers().iter().for_each(|buffer| into.extend(buffer.as_slice()));
    data.child_data().iter().for_each(|child| bits(child, into));
}

#[test]
fn a_thousand_runs_on_two_engines_under_load_give_the_same_bytes() {
    let Some(wasm) = kinds_wasm() else { return };
    let schema = Arc::new(Schema::new(all_kinds()));
    let small = RuntimeConfig::new().with_max_instances(8).with_max_memory(8 << 20);
    let instance = |config: RuntimeConfig, limits: Limits| -> ColumnInstance {
        let runtime = Runtime::new(config).unwrap();
        let transform = runtime.load(wasm, limits).unwrap();
        transform.instantiate_columns(&stream(), &json!({}), &schema).unwrap()
    };
    let mut one = instance(RuntimeConfig::new(), Limits::default());
    let mut other = instance(small, Limits::default().with_memory(8 << 20));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::black_box((0..10_000u64).sum::<u64>());
                }
            });
        }
        let rng = &mut SmallRng::seed_from_u64(11);
        let batches: Vec<RecordBatch> = (0..10)
            .map(|_| {
                let rows = rng.random_range(1..40);
                let columns = all_kinds().iter().map(|f| repeated(rng, f, rows)).collect();
                RecordBatch::try_new(schema.clone(), columns).unwrap()
            })
            .collect();
        let mut first: Vec<Option<Vec<u8>>> = vec![None; batches.len()];
        for run in 0..RUNS {
            let i = run % batches.len();
            for instance in [&mut one, &mut other] {
                // On an instance that has seen other batches, and on fresh ones.
                if run % 7 == 0 {
                    instance.reset();
                }
                let applied = instance.apply(&batches[i], &[]).unwrap();
                let mut seen = Vec::new();
                applied.batch().columns().iter().for_each(|column| bits(&column.to_data(), &mut seen));
                match &first[i] {
                    None => first[i] = Some(seen),
                    Some(first) => assert!(*first == seen, "run {run} of batch {i} differs"),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
