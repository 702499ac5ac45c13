//! A component that a stranger gives us: whatever it is, it is refused, or it works within its limits.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use gristmill_records::RawBatchBuilder;
use gristmill_smt::{Kind, Limits, Runtime, RuntimeConfig, Stream};
use libfuzzer_sys::fuzz_target;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(RuntimeConfig::new().with_max_instances(8)).expect("the runtime starts"))
}

fuzz_target!(|wasm: &[u8]| {
    let limits = Limits::default()
        .with_memory(1 << 20)
        .with_call_timeout(Duration::from_millis(50))
        .with_configure_timeout(Duration::from_millis(50))
        .with_search_timeout(Duration::from_millis(200))
        .with_record_fuel(1_000_000);
    let Ok(transform) = runtime().load(wasm, limits) else { return };
    if transform.kind() != Kind::Records {
        return;
    }
    let stream = Stream { topic: "t".into(), partition: 0 };
    let Ok(mut instance) = transform.instantiate(&stream, &serde_json::json!({})) else { return };
    let mut batch = RawBatchBuilder::new("t", 0);
    for (offset, value) in [&b"one"[..], b"", b"two"].into_iter().enumerate() {
        batch.push(offset as i64, -1, None, Some(value), []).expect("it fits");
    }
    if let Ok(applied) = instance.apply(&batch.build()) {
        assert_eq!(applied.kept() + applied.dropped() + applied.rejects().len(), 3);
        applied.records().for_each(|record| assert!(record.row < 3));
    }
});
