use std::path::Path;

use gristmill_pipeline::{TestReport, check, test};

const PIPELINE: &str = "\
name: orders
source:
  kafka: {bootstrap_servers: 'localhost:9092', topics: [orders]}
decode:
  format: json
  fields: {order_id: string not null, amount: 'decimal(10,2)', at: timestamp_ms}
sink:
  files: {folder: rows}
dead_letters: {folder: dead}
";

fn run(folder: &Path, cases: &str) -> Result<TestReport, gristmill_pipeline::Error> {
    run_pipeline(folder, PIPELINE, cases)
}

fn run_pipeline(folder: &Path, pipeline: &str, cases: &str) -> Result<TestReport, gristmill_pipeline::Error> {
    let (file, cases_file) = (folder.join("p.yaml"), folder.join("p.test.yaml"));
    std::fs::write(&file, pipeline).unwrap();
    std::fs::write(&cases_file, cases).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(test(check(&file).unwrap(), &cases_file))
}

#[test]
fn what_comes_out_as_expected_passes() {
    let folder = tempfile::tempdir().unwrap();
    let report = run(
        folder.path(),
        "\
cases:
  - name: rows and dead letters
    records:
      - {key: k, timestamp: '2026-11-01T00:00:00Z', value_json: {order_id: a, amount: '1.50', other: 7}}
      - {value: 'nonsense'}
      - {key: tombstone}
    expect:
      rows: {main: [{order_id: a, amount: 1.5, _kafka_offset: 0, _kafka_timestamp: '2026-11-01T00:00:00Z'}]}
      dead_letters:
        - {offset: 1, code: DECODE_MALFORMED}
        - {offset: 2, code: DECODE_NULL_VALUE}
",
    );
    let report = report.unwrap();
    assert!(report.passed(), "{report}");
    assert_eq!(report.to_string(), "ok   rows and dead letters\n1 passed, 0 failed\n");
    assert!(!folder.path().join("rows").exists(), "a test writes nothing");
}

#[test]
fn every_difference_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let report = run(
        folder.path(),
        "\
cases:
  - name: nothing is right
    records:
      - {value_json: {order_id: a, amount: 2}}
      - {value_json: {order_id: b}}
      - {value: '{'}
    expect:
      rows: {main: [{order_id: x}], gold: [{order_id: g}]}
      dead_letters: [{offset: 0, code: NOPE}]
      dropped: 3
",
    )
    .unwrap();
    assert!(!report.passed());
    let text = report.to_string();
    for line in [
        "FAIL nothing is right",
        "     main: row 0: order_id: expected \"x\", got \"a\"",
        "     main: row 0: amount: not expected, got ",
        "     main: row 1 was not expected: {\"order_id\":\"b\"}",
        "     gold: row 0 is missing: {\"order_id\":\"g\"}",
        "     dead letter 0: expected record 0 with NOPE, got record 2 with DECODE_MALFORMED",
        "     dropped: expected 3, got 0",
        "0 passed, 1 failed",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn mistakes_in_the_cases_are_shown_at_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let error =
        run(folder.path(), "cases:\n  - name: x\n    record: []\n    expect: {}\n").unwrap_err().to_string();
    assert!(
        error.contains("p.test.yaml:3:5: cases[0].record: there is no such field; did you mean `records`?"),
        "{error}"
    );
    let two = "cases:\n  - name: x\n    records: [{value: a, value_json: 1}]\n    expect: {}\n";
    let error = run(folder.path(), two).unwrap_err().to_string();
    assert!(error.contains("case `x`: record 0: keep one of"), "{error}");
}

#[test]
fn a_row_that_no_directory_can_hold_is_a_dead_letter_and_the_others_are_rows() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = PIPELINE.replace("{folder: rows}", "{folder: rows, directories: 'id={order_id}'}");
    let report = run_pipeline(
        folder.path(),
        &pipeline,
        "\
cases:
  - name: an empty id
    records:
      - {value_json: {order_id: a}}
      - {value_json: {order_id: ''}}
      - {value_json: {order_id: b}}
    expect:
      rows: {main: [{order_id: a, _kafka_offset: 0}, {order_id: b, _kafka_offset: 2}]}
      dead_letters:
        - {offset: 1, code: DIRECTORY_VALUE, message: '`order_id` is empty'}
",
    )
    .unwrap();
    assert!(report.passed(), "{report}");
}

#[test]
fn a_time_that_json_lines_cannot_say_is_a_dead_letter_there() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = PIPELINE.replace("{folder: rows}", "{folder: rows, format: jsonl}");
    let records = "\
cases:
  - name: the end of time
    records:
      - {value_json: {order_id: a, at: 1793534400000}}
      - {value_json: {order_id: b, at: 9223372036854775807}}
";
    let in_lines = "    expect:
      rows: {main: [{order_id: a, at: '2026-11-01T12:00:00Z'}]}
      dead_letters:
        - {offset: 1, code: TIME_OUT_OF_RANGE, message: 'column at holds a time'}
";
    let report = run_pipeline(folder.path(), &pipeline, &format!("{records}{in_lines}")).unwrap();
    assert!(report.passed(), "{report}");
}

#[test]
fn directories_that_do_not_fit_the_columns_of_an_avro_schema_are_told_before_the_first_record() {
    let folder = tempfile::tempdir().unwrap();
    let schema = r#"{"type":"record","name":"r","fields":[{"name":"country","type":"string"},{"name":"price","type":"double"}]}"#;
    std::fs::write(folder.path().join("r.avsc"), schema).unwrap();
    let pipeline = |directories: &str| {
        PIPELINE
            .replace("format: json", "format: avro\n  schema_file: r.avsc")
            .replace("  fields: {order_id: string not null, amount: 'decimal(10,2)', at: timestamp_ms}\n", "")
            .replace("{folder: rows}", &format!("{{folder: rows, directories: '{directories}'}}"))
            + "schema_registry: {url: 'http://127.0.0.1:1'}\n"
    };
    let cases = "cases: [{name: nothing, records: [], expect: {}}]\n";
    let said =
        |directories| run_pipeline(folder.path(), &pipeline(directories), cases).unwrap_err().to_string();
    let text = said("c={contry}");
    let line = "p.yaml:8:25: sink.files.directories: there is no column `contry`; did you mean `country`?";
    assert!(text.contains(line), "{text}");
    assert!(said("c={price}").contains("`price` is of type Float64"));
    assert!(run_pipeline(folder.path(), &pipeline("country={country}"), cases).unwrap().passed());
}
