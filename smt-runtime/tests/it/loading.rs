//! What is refused before it runs, and the cache of compiled code.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use gristmill_smt::{ErrorKind, Limits, Runtime, RuntimeConfig};

use crate::support::{hostile_wasm, poisoned, runtime, stream};

fn refused(wat: &str) -> String {
    let error = runtime().load(&wat::parse_str(wat).unwrap(), Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Load);
    error.to_string()
}

#[test]
fn an_import_that_is_not_offered_is_refused_by_name() {
    let text = refused(r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance)))"#);
    assert!(text.contains("imports `wasi:clocks/monotonic-clock@0.2.0`, which is not offered"), "{text}");
    let text = refused(r#"(component (import "gristmill:transform/network@0.1.0" (instance)))"#);
    assert!(text.contains("imports `gristmill:transform/network@0.1.0`, which is not offered"), "{text}");
}

#[test]
fn another_version_of_the_contract_is_refused_with_both_versions() {
    let text = refused(r#"(component (import "gristmill:transform/types@0.2.0" (instance)))"#);
    assert!(text.contains("built against gristmill:transform@0.2.0"), "{text}");
    assert!(text.contains("this runtime speaks gristmill:transform@0.1.0"), "{text}");
}

#[test]
fn a_component_without_the_exports_is_refused() {
    let text = refused("(component)");
    let kinds = "exports none of `apply` (record-transform), `apply-columns` (column-transform)";
    assert!(text.contains(kinds), "{text}");
}

#[test]
fn exports_of_other_types_are_refused() {
    let wat = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))
        (export "describe" (func $f)) (export "configure" (func $f)) (export "apply" (func $f)))"#;
    let text = refused(wat);
    assert!(text.contains("the component does not fit the contract"), "{text}");
}

#[test]
fn what_is_no_component_is_refused() {
    let text = refused("(module)");
    assert!(text.contains("core WebAssembly module, not a component"), "{text}");
    let error = runtime().load(b"hello", Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "this is not a WebAssembly component");
    let error = runtime().load(b"\0asm\x0d\0\x01\0garbage", Limits::default()).unwrap_err();
    assert!(error.to_string().starts_with("the component does not compile"), "{error}");
    let error = runtime().load_file("/nowhere/mask.wasm", Limits::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/mask.wasm: "), "{error}");
}

#[test]
fn limits_that_contradict_each_other_are_all_named() {
    let limits = Limits::default().with_memory(1 << 40).with_record_fuel(0).with_max_reject_ratio(f64::NAN);
    let error = runtime().load(b"", limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    let text = error.to_string();
    for part in ["memory is 1099511627776 bytes", "record_fuel", "max_reject_ratio is NaN"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn no_free_instance_slot_is_an_error_of_the_host_that_passes() {
    let Some(wasm) = hostile_wasm() else { return };
    let runtime = Runtime::new(RuntimeConfig::new().with_max_instances(1)).unwrap();
    let transform = runtime.load(wasm, Limits::default()).unwrap();
    let config = serde_json::json!({"attack": "none"});
    let first = transform.instantiate(&stream(), &config).unwrap();
    let error = transform.instantiate(&stream(), &config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Host, "{error}");
    assert!(error.is_retryable() && error.to_string().contains("raise max_instances"), "{error}");
    drop(first);
    transform.instantiate(&stream(), &config).unwrap();
}

#[test]
fn compiled_code_is_cached_and_never_used_blindly() {
    let Some(wasm) = hostile_wasm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("aot");
    let run = || {
        let runtime = Runtime::new(RuntimeConfig::new().with_cache_dir(&dir)).unwrap();
        let transform = runtime.load(wasm, Limits::default()).unwrap();
        let mut instance = transform.instantiate(&stream(), &serde_json::json!({"attack": "none"})).unwrap();
        assert_eq!(instance.apply(&poisoned(10, &[])).unwrap().kept(), 10);
    };
    run();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
    let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let good = fs::read(file).unwrap();
    let inode = || fs::metadata(file).unwrap().ino();
    let before = inode();
    run();
    assert_eq!(inode(), before, "the second load reads it");

    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let foreign = good[48..].to_vec();
    for bad in [&flipped[..], &good[..good.len() - 1], &foreign, b"", b"gristmill-aot"] {
        fs::write(file, bad).unwrap();
        run();
        assert!(fs::read(file).unwrap() == good, "it is compiled and stored again");
    }
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    run();
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o022, 0, "others could have written it");
}

#[test]
fn a_cache_directory_that_others_can_enter_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("aot");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Runtime::new(RuntimeConfig::new().with_cache_dir(&dir)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Host);
    assert!(error.to_string().contains("its mode is 0755, which lets others in"), "{error}");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let error = Runtime::new(RuntimeConfig::new().with_cache_dir(&link)).unwrap_err();
    assert!(error.to_string().contains("it is not a directory"), "{error}");
}
