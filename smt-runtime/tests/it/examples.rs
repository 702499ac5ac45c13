//! The example transforms on the real runtime: their fixtures, and the committed components, which must be
//! built from the committed source.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_records::{Header, RawBatchBuilder};
use gristmill_smt::fixtures::{FixtureOptions, FixtureOutcome, run_fixtures};
use gristmill_smt::{Limits, Transform};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{built, repository, runtime, stream, toolchain};

const EXAMPLES: [&str; 3] = ["orders", "headers", "typed-orders"];

fn folder() -> PathBuf {
    repository().join("examples/transforms")
}

fn prebuilt(name: &str) -> PathBuf {
    folder().join("prebuilt").join(format!("{name}.wasm"))
}

fn load(name: &str) -> Transform {
    runtime().load_file(prebuilt(name), Limits::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else {
        files.push(path.to_owned());
    }
}

/// SHA-256 over names and contents of everything that goes into a component.
fn source_digest(name: &str) -> String {
    let examples = Path::new("examples/transforms");
    let mut files = Vec::new();
    for part in [
        &examples.join("Cargo.toml"),
        &examples.join("Cargo.lock"),
        &examples.join(name).join("Cargo.toml"),
        &examples.join(name).join("src"),
        Path::new("records/src"),
        Path::new("transform-sdk/rust/Cargo.toml"),
        Path::new("transform-sdk/rust/src"),
        Path::new("transform-sdk/rust-macros/src"),
        Path::new("wit/transform.wit"),
    ] {
        collect(&repository().join(part), &mut files);
    }
    let mut files: Vec<_> = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned();
            (name, Sha256::digest(fs::read(path).unwrap()))
        })
        .collect();
    files.sort();
    let mut all = Sha256::new();
    for (name, digest) in files {
        all.update(name);
        all.update([0]);
        all.update(digest);
    }
    hex(&all.finalize())
}

/// `UPDATE_PREBUILT=1 cargo test -p gristmill-smt --test it committed_components` builds them anew.
#[test]
fn committed_components_are_built_from_the_committed_source() {
    let record = folder().join("prebuilt/digests.json");
    if std::env::var_os("UPDATE_PREBUILT").is_some() {
        let mut digests = serde_json::Map::new();
        fs::create_dir_all(folder().join("prebuilt")).unwrap();
        for name in EXAMPLES {
            let wasm = built(&folder().join(name));
            fs::write(prebuilt(name), &wasm).unwrap();
            let digest = hex(&Sha256::digest(&wasm));
            digests.insert(name.into(), json!({"source": source_digest(name), "component": digest}));
        }
        fs::write(&record, serde_json::to_string_pretty(&digests).unwrap() + "\n").unwrap();
    }
    let digests: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    for name in EXAMPLES {
        let wasm = fs::read(prebuilt(name)).unwrap();
        assert_eq!(
            digests[name]["component"],
            hex(&Sha256::digest(&wasm)),
            "{name}.wasm is not the recorded one"
        );
        assert_eq!(
            digests[name]["source"],
            source_digest(name),
            "{name}.wasm was built from other source; build it anew: UPDATE_PREBUILT=1 cargo test -p gristmill-smt \
             --test it committed_components"
        );
        let text = String::from_utf8_lossy(&wasm);
        for path in [repository().to_str().unwrap().to_owned(), std::env::var("HOME").unwrap_or_default()] {
            assert!(path.len() < 5 || !text.contains(&path), "{name}.wasm holds the path {path}");
        }
        assert!(!text.contains("registry/src"), "{name}.wasm names a registry");
    }
}

#[test]
fn examples_built_here_pass_their_fixtures() {
    if !toolchain() {
        return;
    }
    for name in EXAMPLES {
        let transform = runtime().load(&built(&folder().join(name)), Limits::default()).unwrap();
        let fixtures = folder().join(name).join("fixtures");
        let update = std::env::var_os("UPDATE_FIXTURES").is_some();
        let options = FixtureOptions::default().with_update(update);
        for result in run_fixtures(&transform, fixtures, &options).unwrap() {
            assert!(result.is_ok(), "{result}");
        }
    }
}

#[test]
fn committed_components_pass_the_same_fixtures() {
    for name in EXAMPLES {
        let fixtures = folder().join(name).join("fixtures");
        for result in run_fixtures(&load(name), fixtures, &FixtureOptions::default()).unwrap() {
            assert!(result.is_ok(), "{result}");
        }
    }
}

#[test]
fn a_manifest_says_what_the_macro_was_told() {
    let transform = load("orders");
    let manifest = transform.manifest();
    assert_eq!((manifest.name.as_str(), manifest.version.as_str()), ("orders", "0.1.0"));
    assert!(
        manifest.description.starts_with("Masks personal data in JSON orders"),
        "{}",
        manifest.description
    );
    assert_eq!(manifest.output("high_value"), Some(1));
    assert_eq!(manifest.output_name(0), Some("main"));
    assert!(manifest.reads.values && !manifest.reads.keys && !manifest.reads.headers);
    let schema = &manifest.config_schema;
    assert_eq!(schema["required"], json!(["high_value_cents"]));
    assert_eq!(schema["properties"]["tombstones"]["enum"], json!(["reject", "drop"]));
    assert_eq!(schema["properties"]["mask"]["description"], "What it is replaced by.");
    assert_eq!(transform.digest().len(), 64);
}

#[test]
fn a_configuration_that_does_not_fit_is_refused_before_the_guest_sees_it() {
    let error = load("orders").instantiate(&stream(), &json!({"high_value": 5})).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("config.high_value_cents is missing"), "{text}");
    assert!(text.contains("config.high_value is not known"), "{text}");
}

/// More than one call's worth of what is read: the batch is split, and offsets, keys and headers stay with their rows.
#[test]
fn a_batch_larger_than_a_call_is_split_without_a_seam() {
    let mut batch = RawBatchBuilder::new("orders", 3);
    for i in 0..30_000i64 {
        let value = format!("{i}:{}", "x".repeat((i as usize * 7919) % 50));
        let tier = [Header::new("tier", if i % 3 == 0 { b"gold" } else { b"lead" }), Header::new("n", b"1")];
        let key = (i % 5 != 0).then(|| format!("k{i}"));
        let value = (i % 10 != 9).then_some(value.as_bytes());
        batch.push(7 * i, i, key.as_deref().map(str::as_bytes), value, tier).unwrap();
    }
    let batch = batch.build();
    let mut instance = load("headers").instantiate(&stream(), &json!({})).unwrap();
    let applied = instance.apply(&batch).unwrap();
    assert!(applied.stats().calls >= 2, "{:?}", applied.stats());
    let mut records = applied.records();
    for (row, input) in batch.iter().enumerate() {
        if row % 10 == 9 {
            continue;
        }
        let out = records.next().unwrap();
        assert_eq!((out.row, out.sub, out.offset), (row, 0, 7 * row as i64));
        assert_eq!(out.output, u16::from(row % 3 == 0));
        assert_eq!((out.key, out.value, out.timestamp), (input.key(), input.value(), input.timestamp()));
        assert_eq!(out.headers.count(), 2);
    }
    assert!(records.next().is_none());
    let rejected: Vec<_> = applied.rejects().iter().map(|r| (r.row, r.offset, r.code.as_str())).collect();
    let wanted: Vec<_> = (9..30_000).step_by(10).map(|r| (r, 7 * r as i64, "NULL_VALUE")).collect();
    assert_eq!(rejected, wanted);
}

#[test]
fn a_fixture_that_does_not_match_shows_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let fixture = json!({
        "config": {"high_value_cents": 10},
        "input": [
            {"value": {"json": {"order_id": "o-1", "amount_cents": 5}}},
            {"value": {"json": {"order_id": "o-2", "amount_cents": 50}}},
            {"value": {"base64": "/w=="}},
        ],
        "expected": {"records": [{"row": 0}, {"row": 1}], "dropped": [2]},
    });
    fs::write(&path, fixture.to_string()).unwrap();
    let run = |options| run_fixtures(&load("orders"), folder.path(), &options).unwrap().remove(0);
    let FixtureOutcome::Failed(text) = run(FixtureOptions::default()).outcome else {
        panic!("it should differ")
    };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "- expected, + came out");
    assert!(lines[1].starts_with("+ row 1 -> high_value value"), "{text}");
    assert!(lines[2].starts_with("- row 1 -> main value"), "{text}");
    assert_eq!(
        lines[3..],
        ["+ row 2 rejected MALFORMED_JSON: the value is not UTF-8", "- row 2 dropped"],
        "{text}"
    );

    assert_eq!(run(FixtureOptions::default().with_update(true)).outcome, FixtureOutcome::Updated(Vec::new()));
    assert_eq!(run(FixtureOptions::default()).outcome, FixtureOutcome::Passed);
    fs::write(&path, "{\"inputs\": []}").unwrap();
    let FixtureOutcome::Failed(text) = run(FixtureOptions::default()).outcome else {
        panic!("it is no fixture")
    };
    assert!(text.contains("this is not a fixture: unknown field `inputs`"), "{text}");
}

/// A trap that is written as what is expected is said.
#[test]
fn an_update_that_expects_a_fault_of_the_transform_says_so() {
    let Some(transform) = crate::support::load(Limits::default()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let input = [json!({"value": "a"}), json!({"value": "poison"})];
    let fixture = json!({"config": {"attack": "trap"}, "input": input});
    fs::write(folder.path().join("a.json"), fixture.to_string()).unwrap();
    let options = FixtureOptions::default().with_update(true);
    let result = run_fixtures(&transform, folder.path(), &options).unwrap().remove(0);
    let FixtureOutcome::Updated(faults) = &result.outcome else { panic!("{result}") };
    assert!(faults.len() == 1 && faults[0].starts_with("row 1: TRANSFORM_TRAP: "), "{faults:?}");
    assert!(result.to_string().contains("it expects a fault of the transform now: row 1: "), "{result}");
}

/// The fixture's records are numbered by a guest that counts across batches.
#[test]
fn a_transform_that_remembers_something_between_batches_fails_its_fixtures() {
    let Some(transform) = crate::support::load(Limits::default()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let input = [json!({"value": "a"}), json!({"value": "b"}), json!({"value": "c"})];
    let fixture = json!({"config": {"attack": "count"}, "input": input});
    fs::write(folder.path().join("a.json"), fixture.to_string()).unwrap();
    let result = run_fixtures(&transform, folder.path(), &FixtureOptions::default()).unwrap().remove(0);
    let FixtureOutcome::Failed(text) = result.outcome else { panic!("it should be found out") };
    assert!(text.contains("the answer depends on how records are cut into batches"), "{text}");
    assert!(text.contains("each on a fresh instance (seed 1)"), "{text}");
    assert!(text.contains("- row 2 -> main value \"2\""), "{text}");
}

#[test]
fn metrics_are_compared_where_they_are_given() {
    let fixtures = folder().join("typed-orders/fixtures/orders.json");
    let mut fixture: Value = serde_json::from_slice(&fs::read(fixtures).unwrap()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut run = |metrics: Value| {
        fixture["expected"]["metrics"] = metrics;
        fs::write(place.path().join("a.json"), fixture.to_string()).unwrap();
        run_fixtures(&load("typed-orders"), place.path(), &FixtureOptions::default())
            .unwrap()
            .remove(0)
            .outcome
    };
    assert_eq!(run(json!({"counters": {"test_orders": 1}})), FixtureOutcome::Passed);
    assert_eq!(run(Value::Null), FixtureOutcome::Passed);
    let FixtureOutcome::Failed(text) = run(json!({"counters": {"test_orders": 2}, "observed": {"bytes": 1}}))
    else {
        panic!("it counts one")
    };
    for line in ["- counter test_orders 2", "+ counter test_orders 1", "- observed bytes 1 times"] {
        assert!(text.contains(line), "{text}");
    }
}
