//! The two engines: the one that runs batches (epochs, pooled instances) and the one that judges a record
//! alone (fuel, for a verdict that does not depend on the machine).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::guest::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES};
use crate::{Error, RuntimeConfig};

/// Time between two ticks of the epoch: how exact wall limits are.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Native stack of a guest. Deeper recursion is a trap, so every thread that calls in must have more.
const GUEST_STACK: usize = 512 * 1024;

pub(crate) struct Engines {
    pub(crate) batch: Engine,
    pub(crate) judge: Engine,
    ticker: Thread,
    stop: Arc<AtomicBool>,
}

impl Engines {
    pub(crate) fn new(config: &RuntimeConfig) -> Result<Self, Error> {
        let failed = |e: wasmtime::Error| Error::host(format!("the WebAssembly engine did not start: {e:#}"));
        let batch = Engine::new(base().allocation_strategy(pool(config))).map_err(failed)?;
        let judge =
            Engine::new(base().consume_fuel(true).allocation_strategy(InstanceAllocationStrategy::OnDemand))
                .map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (weak, stopped) = ([batch.weak(), judge.weak()], stop.clone());
        let ticker = thread::Builder::new()
            .name("gristmill-epoch".into())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    thread::park_timeout(TICK);
                    for engine in weak.iter().filter_map(|w| w.upgrade()) {
                        engine.increment_epoch();
                    }
                }
            })
            .map_err(|e| Error::host(format!("the epoch thread did not start: {e}")))?;
        Ok(Engines { batch, judge, ticker: ticker.thread().clone(), stop })
    }
}

/// Does not wait for the thread: it holds nothing.
impl Drop for Engines {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ticker.unpark();
    }
}

/// Ticks after which a call that may take `time` is interrupted: never early, late by up to two ticks.
pub(crate) fn ticks(time: Duration) -> u64 {
    (time.as_nanos().div_ceil(TICK.as_nanos()) as u64).saturating_add(1)
}

fn base() -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        // Where a component brings DWARF with it, a trap says the line.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .concurrency_support(false)
        .max_wasm_stack(GUEST_STACK)
        .wasm_simd(true)
        // Every access would be checked, and no guest needs it.
        .wasm_memory64(false)
        // Results must not depend on the machine.
        .wasm_relaxed_simd(false)
        .cranelift_nan_canonicalization(true)
        // Under 4 GiB every access has an explicit bounds check.
        .memory_reservation(1 << 32)
        .memory_init_cow(true);
    config
}

fn pool(config: &RuntimeConfig) -> PoolingAllocationConfig {
    let instances = config.max_instances();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(4).max(MAX_CORE_INSTANCES))
        .total_memories(instances.max(MAX_MEMORIES))
        .total_tables(instances.saturating_mul(2).max(MAX_TABLES))
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_memory_size(config.max_memory() as usize)
        .linear_memory_keep_resident(1024 * 1024)
        .table_keep_resident(64 * 1024)
        .max_unused_warm_slots(instances);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes);
    }
    pool
}
