//! Guests, batches, and a runtime for all tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gristmill_records::{RawBatch, RawBatchBuilder};
use gristmill_smt::{
    Applied, ErrorKind, GuestToolchain, Instance, Limits, Runtime, RuntimeConfig, Stream, Transform,
    build_guest,
};
use serde_json::{Value, json};

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}

/// Without a toolchain for guests these tests are left out on a developer's machine, loudly; in CI they fail.
pub(crate) fn toolchain() -> bool {
    match GuestToolchain::find() {
        Ok(_) => true,
        Err(e) if e.kind() == ErrorKind::Host && std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
            eprintln!("SKIPPED: {e}");
            false
        }
        Err(e) => panic!("{e}"),
    }
}

pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(RuntimeConfig::new()).expect("the runtime starts"))
}

/// The component that attacks, built once; none where there is no toolchain.
pub(crate) fn hostile_wasm() -> Option<&'static [u8]> {
    static WASM: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    WASM.get_or_init(|| toolchain().then(|| built(&repository().join("smt-runtime/tests/guests/hostile"))))
        .as_deref()
}

pub(crate) fn built(dir: &Path) -> Vec<u8> {
    let built = build_guest(dir).unwrap_or_else(|e| panic!("{e}"));
    fs::read(built.component).expect("the component was just written")
}

pub(crate) fn stream() -> Stream {
    Stream { topic: "orders".into(), partition: 3 }
}

pub(crate) fn attacker(attack: &str, limits: Limits) -> Option<Instance> {
    let transform = load(limits)?;
    Some(transform.instantiate(&stream(), &json!({"attack": attack})).expect("it only attacks later"))
}

pub(crate) fn load(limits: Limits) -> Option<Transform> {
    Some(runtime().load(hostile_wasm()?, limits).expect("it only attacks later"))
}

pub(crate) fn configured(attack: &str, limits: Limits, more: Value) -> Option<gristmill_smt::Error> {
    let mut config = json!({"attack": attack});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Some(load(limits)?.instantiate(&stream(), &config).unwrap_err())
}

/// A batch from offset 100 with these values.
pub(crate) fn batch<'a>(values: impl IntoIterator<Item = &'a str>) -> RawBatch {
    let mut builder = RawBatchBuilder::new("orders", 3);
    for (offset, value) in (100..).zip(values) {
        builder.push(offset, 1_700_000_000_000, Some(b"k"), Some(value.as_bytes()), []).unwrap();
    }
    builder.build()
}

/// `rows` values, all `fine` but those that are named.
pub(crate) fn poisoned(rows: usize, poison: &[usize]) -> RawBatch {
    batch((0..rows).map(|i| if poison.contains(&i) { "poison" } else { "fine" }))
}

/// Every row is there once, those of `rejected` as rejects with `code`, the others as they were, in order.
pub(crate) fn assert_only_rejected(applied: &Applied, rejected: &[usize], code: &str, message: &str) {
    let rejects: Vec<_> = applied.rejects().iter().map(|r| r.row).collect();
    assert_eq!(rejects, rejected, "{:?}", applied.rejects());
    for reject in applied.rejects() {
        assert_eq!(reject.code, code, "{reject:?}");
        assert!(reject.message.contains(message), "{reject:?}");
        assert_eq!(reject.offset, 100 + reject.row as i64);
    }
    let kept: Vec<_> = applied.records().map(|r| r.row).collect();
    let wanted: Vec<_> = (0..applied.rows()).filter(|i| !rejected.contains(i)).collect();
    assert_eq!(kept, wanted);
    assert!(applied.records().all(|r| r.value == Some(b"fine") && r.key == Some(b"k") && r.output == 0));
    assert_eq!(applied.kept() + applied.dropped() + applied.rejects().len(), applied.rows());
}

pub(crate) fn assert_works(instance: &mut Instance) {
    let applied = instance.apply(&poisoned(50, &[])).expect("the next batch works");
    assert_only_rejected(&applied, &[], "", "");
}
