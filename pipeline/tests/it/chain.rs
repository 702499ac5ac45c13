//! Several transforms in a row: of records, then of columns.

use std::path::{Path, PathBuf};

use gristmill_pipeline::{ErrorKind, check, check_components, test};

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path).canonicalize().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

#[test]
fn each_transform_gets_what_the_one_before_it_left_and_every_record_is_accounted_for() {
    let checked = check(&example("orders/typed-orders.yaml")).unwrap();
    check_components(&checked).unwrap();
    let report = runtime().block_on(test(checked, &example("orders/typed-orders.test.yaml"))).unwrap();
    assert!(report.passed(), "{report}");
}

fn refused(transforms: &[(&str, &str)], fields: &str, directories: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let steps: String = transforms
        .iter()
        .map(|(name, config)| {
            let wasm = example(&format!("transforms/prebuilt/{name}.wasm"));
            format!("  - {{wasm: '{}', config: {config}}}\n", wasm.display())
        })
        .collect();
    let text = format!(
        "name: p\nsource:\n  kafka: {{bootstrap_servers: 'localhost:9092', topics: [orders]}}\ntransforms:\n{steps}decode:\n  \
         format: json\n  fields: {fields}\nsink:\n  files: {{folder: rows{directories}}}\n"
    );
    let (file, cases) = (folder.path().join("p.yaml"), folder.path().join("p.test.yaml"));
    std::fs::write(&file, text).unwrap();
    std::fs::write(&cases, "cases: [{name: none, records: [], expect: {}}]").unwrap();
    let checked = check(&file).unwrap();
    let error = check_components(&checked).unwrap_err();
    let same = runtime().block_on(test(checked, &cases)).unwrap_err();
    assert_eq!(error.to_string(), same.to_string());
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    error.to_string()
}

const TYPED: (&str, &str) = ("typed-orders", "{high_value_cents: 5}");

#[test]
fn what_does_not_fit_together_is_said_before_anything_runs() {
    let fields = "{amount_cents: int64 not null, customer: {email: string, card: string}, created_at: date}";
    let text = refused(&[TYPED, ("headers", "{}")], fields, "");
    assert!(
        text.starts_with(
            "transforms[1]: headers works on records, which are columns once transforms[0] was there"
        ),
        "{text}"
    );
    let text = refused(&[TYPED], "{amount_cent: int64 not null}", "");
    assert!(
        text.contains("transforms[0]: transform typed-orders: it cannot work with its configuration and these columns: there is no column amount_cents; the nearest is amount_cent"),
        "{text}"
    );
    let text = refused(&[("headers", "{}"), ("typed-orders", "{high_value_cents: -1}")], fields, "");
    assert!(text.starts_with("transforms[1]: ") && text.contains("high_value_cents"), "{text}");
    // Directories go by what leaves the transforms.
    let text = refused(&[TYPED], fields, ", directories: 'at={created_at}'");
    assert!(text.contains("sink.files.directories") && text.contains("created_at"), "{text}");
    assert!(text.contains("ordered_at"), "the nearest is the new name: {text}");
}
