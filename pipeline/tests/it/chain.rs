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
        text.contains(
            "p.yaml:6:5: transforms[1]: headers works on records, which are columns once transforms[0] was there"
        ),
        "{text}"
    );
    let text = refused(&[TYPED], "{amount_cent: int64 not null}", "");
    assert!(
        text.contains("transforms[0]: transform typed-orders: it cannot work with its configuration and these columns: there is no column amount_cents; the nearest is amount_cent"),
        "{text}"
    );
    let text = refused(&[("headers", "{}"), ("typed-orders", "{high_value_cents: -1}")], fields, "");
    assert!(text.contains("p.yaml:6:5: transforms[1]: ") && text.contains("high_value_cents"), "{text}");
    // Directories go by what leaves the transforms.
    let text = refused(&[TYPED], fields, ", directories: 'at={created_at}'");
    assert!(text.contains("sink.files.directories") && text.contains("created_at"), "{text}");
    assert!(text.contains("ordered_at"), "the nearest is the new name: {text}");
}

const PREDICATES: &str = r#"name: p
source:
  kafka: {bootstrap_servers: 'localhost:9092', topics: [orders]}
transforms:
  - wasm: 'HEADERS'
    when: {not: {header: {name: source, equals: legacy}}}
  - wasm: 'TYPED'
    config: {high_value_cents: 100}
    when: {column: {path: country, in: [DE, AT]}}
decode:
  format: json
  fields:
    id: string not null
    customer: {email: string, card: string}
    country: string
    amount_cents: int64 not null
    created_at: timestamp_ms
sink:
  files: {folder: rows}
dead_letters: {folder: dead}
"#;

/// What does not match goes past a transform, in its place, and no condition holds for what is not there.
#[test]
fn what_does_not_match_goes_past_a_transform_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = |name: &str| example(&format!("transforms/prebuilt/{name}.wasm")).display().to_string();
    let text = PREDICATES.replace("HEADERS", &wasm("headers")).replace("TYPED", &wasm("typed-orders"));
    let (file, cases) = (folder.path().join("p.yaml"), folder.path().join("p.test.yaml"));
    std::fs::write(&file, &text).unwrap();
    std::fs::write(
        &cases,
        r#"cases:
  - name: some cross, others pass by
    records:
      - value_json: {id: a, customer: {email: a@x.de, card: "1"}, country: DE, amount_cents: 1, created_at: 1793534400000}
      - value_json: {id: b, customer: {email: b@x.fr, card: "2"}, country: FR, amount_cents: 500}
        headers: {tier: gold}
      - value_json: {id: c, country: AT, amount_cents: 500}
      # Dropped by the first transform, if it were given to it.
      - value_json: {id: d, customer: {email: d@x.fr}, amount_cents: -1}
        headers: {source: legacy, test: "true", tier: gold}
      - value_json: {id: e, country: DE, amount_cents: 1}
        headers: {test: "true"}
      - value_json: {id: f, country: DE, amount_cents: -1}
        headers: {source: legacy}
      - key: tombstone
      - key: legacy tombstone
        headers: {source: legacy}
      - value_json: {id: g, customer: {email: g@x.de}, country: DE, amount_cents: 2}
        headers: {source: legacy, tier: gold}
    expect:
      rows:
        main:
          - {id: a, customer: {email: "***@x.de"}, country: DE, amount_cents: 1, email_domain: x.de, ordered_at: 2026-11-01T12:00:00Z, _kafka_offset: 0, _kafka_sub: 0}
          - {id: d, customer: {email: d@x.fr}, amount_cents: -1, _kafka_offset: 3}
          - {id: g, customer: {email: "***@x.de"}, country: DE, amount_cents: 2, email_domain: x.de, _kafka_offset: 8}
        gold: [{id: b, customer: {email: b@x.fr}, country: FR, amount_cents: 500, _kafka_offset: 1}]
        high_value: [{id: c, country: AT, amount_cents: 500, _kafka_offset: 2}]
      dropped: 1
      dead_letters:
        - {offset: 5, code: NEGATIVE_AMOUNT}
        - {offset: 6, code: NULL_VALUE}
        - {offset: 7, code: DECODE_NULL_VALUE}
"#,
    )
    .unwrap();
    let checked = check(&file).unwrap();
    check_components(&checked).unwrap();
    let report = runtime().block_on(test(checked, &cases)).unwrap();
    assert!(report.passed(), "{report}");
}

#[test]
fn a_condition_that_does_not_fit_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = |name: &str| example(&format!("transforms/prebuilt/{name}.wasm")).display().to_string();
    let text = PREDICATES.replace("HEADERS", &wasm("headers")).replace("TYPED", &wasm("typed-orders"));
    let file = folder.path().join("p.yaml");
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from));
        std::fs::write(&file, text.replace(from, to)).unwrap();
        match check(&file) {
            Err(problems) => problems.to_string(),
            Ok(checked) => check_components(&checked).unwrap_err().to_string(),
        }
    };
    for (from, to, message) in [
        (
            "path: country",
            "path: contry",
            "transforms[1].when: there is no column contry: `contry` is not there, `country` is",
        ),
        ("[DE, AT]", "[]", "in"),
        (
            "{not: {header: {name: source, equals: legacy}}}",
            "{any: [{topics: [oders]}, {tombstone: true}]}",
            "transforms[0].when.any[0].topics[0]: `oders` is not among the topics of the source; did you mean `orders`?",
        ),
        (
            "config: {high_value_cents: 100}",
            "config: {high_value_cents: 100}\n    limits: {call_timeout: 900000h}",
            "call_timeout, configure_timeout and search_timeout must be above 0 and no more than a day",
        ),
        (
            "config: {high_value_cents: 100}",
            "config: {high_value_cents: 100}\n    limits: {record_fule: 5}",
            "did you mean `record_fuel`?",
        ),
        (
            "config: {high_value_cents: 100}",
            "config: {high_value_cents: 100}\n    limits: {max_reject_ratio: 0}",
            "max_reject_ratio is 0, which is not above 0",
        ),
        ("in: [DE, AT]", "is: DE", "did you mean `in`"),
        (
            "{not: {header: {name: source, equals: legacy}}}",
            "{}",
            "transforms[0].when: is empty: it says nothing",
        ),
        (
            "{not: {header: {name: source, equals: legacy}}}",
            "{column: {path: id, equals: x}}",
            "transforms[0].when: `column` is for",
        ),
        (
            "customer: {email: string, card: string}",
            "customer: {email: string, card: string}\n    email_domain: int64",
            "email_domain",
        ),
    ] {
        let error = refused(from, to);
        assert!(error.contains(message), "{to}: {error}");
    }
}
