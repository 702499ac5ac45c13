//! Records that say how rows change.

use std::path::Path;

use gristmill_pipeline::{check, test};

const HEAD: &str = "\
name: customers
source:
  kafka: {bootstrap_servers: 'localhost:9092', topics: [customers]}
dead_letters: {folder: dead}
";
const CDC: &str = "\
sink:
  bigquery:
    {mode: cdc, primary_key: [id], project: shop, dataset: lake, state: {folder: state}}
";
const FILES: &str = "sink:\n  files: {folder: rows}\n";
const DEBEZIUM: &str = "\
decode:
  format: json
  changes: debezium
  fields: {id: int64 not null, name: string not null, tags: list<string>}
";
const UPSERT: &str = "\
decode:
  format: json
  changes: upsert
  key: {format: json, fields: {id: int64}}
  fields: {name: string}
";

fn run(folder: &Path, pipeline: &str, cases: &str) {
    let (file, cases_file) = (folder.join("p.yaml"), folder.join("p.test.yaml"));
    std::fs::write(&file, format!("{HEAD}{pipeline}")).unwrap();
    std::fs::write(&cases_file, format!("cases:\n  {cases}")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let checked = check(&file).unwrap_or_else(|e| panic!("{e}"));
    let report = runtime.block_on(test(checked, &cases_file)).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.passed(), "{report}");
}

/// With and without the schema around it, as Kafka Connect's JsonConverter writes it.
#[test]
fn envelopes_of_debezium_become_changes() {
    let folder = tempfile::tempdir().unwrap();
    run(
        folder.path(),
        &format!("{DEBEZIUM}{CDC}"),
        "\
  - name: one of each
    records:
      - {value_json: {op: r, before: null, after: {id: 1, name: Ada, tags: [x]}, source: {lsn: 5}}}
      - {value_json: {schema: {type: struct}, payload: {op: c, before: null, after: {id: 2, name: Bo}}}}
      - {value_json: {op: u, before: {id: 1, name: null}, after: {id: 1, name: Eve}}}
      - {value_json: {schema: {}, payload: {op: d, before: {id: 2}, after: null}}}
      - {key: '{\"id\": 2}'}
    expect:
      dropped: 1
      rows:
        main:
          - {id: 1, name: Ada, tags: [x], _CHANGE_TYPE: UPSERT, _CHANGE_SEQUENCE_NUMBER: 0/0/0}
          - {id: 2, name: Bo, tags: null, _CHANGE_TYPE: UPSERT}
          - {id: 1, name: Eve, tags: null, _CHANGE_TYPE: UPSERT, _kafka_offset: 2}
          - {id: 2, name: null, tags: null, _CHANGE_TYPE: DELETE, _CHANGE_SEQUENCE_NUMBER: 0/3/0}
  - name: a key that changes within one record
    records:
      - {value_json: {op: u, before: {id: 1, name: Ada}, after: {id: 7, name: Ada}}}
    expect:
      rows:
        main:
          - {id: 1, name: null, tags: null, _CHANGE_TYPE: DELETE, _kafka_sub: 1, _CHANGE_SEQUENCE_NUMBER: 0/0/1}
          - {id: 7, name: Ada, tags: null, _CHANGE_TYPE: UPSERT, _kafka_sub: 0, _CHANGE_SEQUENCE_NUMBER: 0/0/0}
  - name: what is no change of a row
    records:
      - {value_json: {id: 1, name: Ada}}
      - {value_json: {op: t}}
      - {value_json: {op: m, message: {}}}
      - {value_json: {op: c, after: null}}
      - {value_json: {op: d, before: null}}
      - {value_json: {op: d, before: {name: Ada}}}
      - {value_json: {op: u, after: {id: 1, name: __debezium_unavailable_value}}}
      - {value_json: {op: u, after: {id: 1, name: Ada, tags: [__debezium_unavailable_value]}}}
      - {value_json: {op: u, after: {id: 1, name: null}}}
      - {value: '{'}
      - {value_json: {op: u, after: {id: 1, name: X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==}}}
      - {value_json: {op: u, after: {id: 1, name: '{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}'}}}
    expect:
      dead_letters:
        - {offset: 0, code: NO_CHANGE, message: it has no `op`}
        - {offset: 1, code: TRUNCATED}
        - {offset: 2, code: NO_CHANGE, message: '`op` is \"m\"'}
        - {offset: 3, code: NO_CHANGE, message: '`after` is null'}
        - {offset: 4, code: NO_KEY, message: give `decode.key`}
        - {offset: 5, code: KEY_NULL, message: column `id`}
        - {offset: 6, code: VALUE_UNAVAILABLE, message: REPLICA IDENTITY FULL}
        - {offset: 7, code: VALUE_UNAVAILABLE, message: column `tags`}
        - {offset: 8, code: DECODE_MISMATCH}
        - {offset: 9, code: DECODE_MALFORMED}
        - {offset: 10, code: VALUE_UNAVAILABLE}
        - {offset: 11, code: VALUE_UNAVAILABLE}
",
    );
    // In a column of JSON what stands for a value is a text of JSON.
    run(
        folder.path(),
        &format!("{}{CDC}", DEBEZIUM.replace("tags: list<string>", "tags: json, more: map<json>")),
        "\
  - name: documents
    records:
      - {value_json: {op: u, after: {id: 1, name: Ada, tags: __debezium_unavailable_value}}}
      - {value_json: {op: u, after: {id: 1, name: Ada, more: {a: __debezium_unavailable_value}}}}
      - {value_json: {op: u, after: {id: 1, name: Ada, tags: {a: [1]}}}}
    expect:
      rows:
        main:
          - {id: 1, name: Ada, tags: '{\"a\":[1]}', _CHANGE_TYPE: UPSERT}
      dead_letters:
        - {offset: 0, code: VALUE_UNAVAILABLE, message: column `tags`}
        - {offset: 1, code: VALUE_UNAVAILABLE, message: column `more`}
",
    );
    // A column of the key is found whatever its case; numbers stand for others as the bytes of the text.
    let bytes: Vec<String> = b"__debezium_unavailable_value".iter().map(u8::to_string).collect();
    run(
        folder.path(),
        &format!(
            "{}{}",
            DEBEZIUM.replace("tags: list<string>", "tags: list<int32>"),
            CDC.replace("[id]", "[ID]")
        ),
        &format!(
            "\
- name: another case
    records:
      - {{value_json: {{op: u, before: {{id: 1, name: Ada}}, after: {{id: 7, name: Ada, tags: [1]}}}}}}
      - {{value_json: {{op: u, after: {{id: 1, name: Ada, tags: [{}]}}}}}}
    expect:
      rows:
        main:
          - {{id: 1, name: null, tags: null, _CHANGE_TYPE: DELETE}}
          - {{id: 7, name: Ada, tags: [1], _CHANGE_TYPE: UPSERT}}
      dead_letters:
        - {{offset: 1, code: VALUE_UNAVAILABLE, message: column `tags`}}
",
            bytes.join(", ")
        ),
    );
}

/// All of them, each once, whatever the database did not tell; a tombstone says nothing that its deletion has not said.
#[test]
fn files_keep_the_history() {
    let folder = tempfile::tempdir().unwrap();
    run(
        folder.path(),
        &format!(
            "{}{FILES}",
            DEBEZIUM.replace("fields", "key: {format: json, fields: {id: int64}}\n  fields")
        ),
        "\
  - name: each change is a row
    records:
      - {key: '{\"id\": 9}'}
      - {value_json: {op: c, after: {id: 1, name: Ada}}}
      - {value_json: {op: u, before: {id: 1, name: Ada}, after: {id: 2, name: __debezium_unavailable_value}}}
      - {value_json: {op: d, before: {id: 2, name: Ada}}}
    expect:
      dropped: 1
      rows:
        main:
          - {id: 1, name: Ada, tags: null, __op: c}
          - {id: 2, name: __debezium_unavailable_value, tags: null, __op: u}
          - {id: 2, name: Ada, tags: null, __op: d}
",
    );
}

#[test]
fn a_row_for_a_key_and_none_for_none() {
    let folder = tempfile::tempdir().unwrap();
    run(
        folder.path(),
        &format!("{UPSERT}{CDC}"),
        "\
  - name: the key's columns stand before the value's
    records:
      - {key: '{\"id\": 1}', value_json: {name: Ada}}
      - {key: '{\"id\": 1}'}
      - {key: nonsense, value_json: {name: Bo}}
      - {value_json: {name: Bo}}
      - {key: '{\"id\": null}', value_json: {name: Bo}}
      - {key: '{\"id\": 2}', value: nonsense}
    expect:
      rows:
        main:
          - {id: 1, name: Ada, _CHANGE_TYPE: UPSERT}
          - {id: 1, name: null, _CHANGE_TYPE: DELETE}
      dead_letters:
        - {offset: 2, code: DECODE_MALFORMED, message: the key}
        - {offset: 3, code: DECODE_NULL_VALUE, message: the key}
        - {offset: 4, code: KEY_NULL}
        - {offset: 5, code: DECODE_MALFORMED}
",
    );
    let text = UPSERT.replace("format: json, fields: {id: int64}", "format: text, fields: {id: int64}");
    run(
        folder.path(),
        &format!("{}{CDC}", text.replace("fields: {name: string}", "fields: {id: int64, name: string}")),
        "\
  - name: a key of text; values that say their key need none
    records:
      - {key: '1', value_json: {id: 1, name: Ada}}
      - {key: '1'}
      - {key: one}
      - {key: one, value_json: {id: 3, name: Bo}}
      - {key: '4', value_json: {id: 5, name: Bo}}
      - {key: '6', value_json: {name: Bo}}
      - {key: '7', value_json: {id: 7, name: __debezium_unavailable_value}}
    expect:
      rows:
        main:
          - {id: 1, name: Ada, _CHANGE_TYPE: UPSERT}
          - {id: 1, name: null, _CHANGE_TYPE: DELETE}
          - {id: 3, name: Bo, _CHANGE_TYPE: UPSERT}
          - {id: 6, name: Bo, _CHANGE_TYPE: UPSERT}
      dead_letters:
        - {offset: 2, code: DECODE_MISMATCH, message: the key is no text of Int64}
        - {offset: 4, code: KEY_MISMATCH, message: column `id`}
        - {offset: 6, code: VALUE_UNAVAILABLE}
",
    );
}

/// Of a deletion that says nothing of its row, and in tombstones.
#[test]
fn the_records_key_says_which_row_is_gone_where_the_envelope_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let with_key = DEBEZIUM.replace("fields", "key: {format: json, fields: {id: int64}}\n  fields");
    run(
        folder.path(),
        &format!("{with_key}{CDC}"),
        "\
  - name: by key
    records:
      - {key: '{\"id\": 4}', value_json: {op: d, before: null}}
      - {key: '{\"id\": 5}'}
      - {value_json: {op: c, after: {id: 6, name: Ada}}}
      - {key: '{\"schema\": {}, \"payload\": {\"id\": 7}}'}
      - {key: '{\"id\": 8}', value_json: {op: d, before: {id: 0, name: ''}}}
    expect:
      rows:
        main:
          - {id: 4, name: null, tags: null, _CHANGE_TYPE: DELETE}
          - {id: 5, name: null, tags: null, _CHANGE_TYPE: DELETE}
          - {id: 6, name: Ada, tags: null, _CHANGE_TYPE: UPSERT}
          - {id: 7, name: null, tags: null, _CHANGE_TYPE: DELETE}
          - {id: 8, name: null, tags: null, _CHANGE_TYPE: DELETE}
",
    );
}

#[test]
fn what_does_not_fit_together_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let mistakes = |pipeline: &str| {
        std::fs::write(&file, format!("{HEAD}{pipeline}")).unwrap();
        check(&file).map(|_| ()).unwrap_err().to_string()
    };
    let plain = "decode: {format: json, fields: {id: int64}}\n";
    for (pipeline, mistake) in [
        (format!("{plain}{CDC}"), "`cdc` needs `decode.changes`"),
        (
            format!("{DEBEZIUM}{}", CDC.replace("primary_key: [id], ", "")),
            "`cdc` needs `primary_key`: the columns that rows are told apart by",
        ),
        (format!("{DEBEZIUM}{}", CDC.replace("[id]", "[id, ID]")), "names a column twice"),
        (format!("{DEBEZIUM}{}", CDC.replace("mode: cdc, ", "")), "belongs to `mode: cdc`; remove it"),
        (
            format!("{DEBEZIUM}{}", CDC.replace("mode: cdc", "mode: cdc, endpoint: 'http://127.0.0.1:1'")),
            "`cdc` needs both `endpoint` and `rest_endpoint`",
        ),
        (
            format!("{}{FILES}", UPSERT.replace("  key: {format: json, fields: {id: int64}}\n", "")),
            "`upsert` needs `key`",
        ),
        (format!("{}{FILES}", UPSERT.replace("  changes: upsert\n", "")), "belongs to `changes`"),
        (format!("{}{FILES}", UPSERT.replace(", fields: {id: int64}}", "}")), "needs `fields`"),
        (
            format!(
                "{}{FILES}",
                UPSERT.replace(
                    "format: json, fields: {id: int64}",
                    "format: text, fields: {a: int64, b: int64}"
                )
            ),
            "a key of `text` is one value",
        ),
        (
            format!("{}{FILES}", UPSERT.replace("format: json, fields: {id: int64}", "format: avro")),
            "`avro` needs `schema_registry`",
        ),
        (
            "decode: {format: bytes, changes: debezium}\nsink:\n  files: {folder: rows}\n".to_owned(),
            "an envelope is of any other format, not `bytes`",
        ),
    ] {
        let said = mistakes(&pipeline);
        assert!(said.contains(mistake), "{mistake} is not in {said}");
    }
    let prepared = |pipeline: &str| {
        std::fs::write(&file, format!("{HEAD}{pipeline}")).unwrap();
        let checked = check(&file).unwrap_or_else(|e| panic!("{e}"));
        gristmill_pipeline::check_components(&checked).unwrap_err().to_string()
    };
    let said = prepared(&format!("{DEBEZIUM}{}", CDC.replace("[id]", "[idd]")));
    assert!(said.contains("rows have no column `idd`; did you mean `id`?"), "{said}");
    let said =
        prepared(&format!("{}{CDC}", UPSERT.replace("fields: {name: string}", "fields: {id: string}")));
    assert!(said.contains("column `id` is Int64 in keys and Utf8 in values"), "{said}");
    let said =
        prepared(&format!("{}{FILES}", UPSERT.replace("fields: {name: string}", "fields: {__op: string}")));
    assert!(said.contains("rows have a column `__op`"), "{said}");
    let wasm = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/transforms/prebuilt/typed-orders.wasm");
    let fields = "fields: {order_id: string not null, customer: {name: string, email: string, card: string}, amount_cents: int64 \
                  not null, created_at: timestamp_ms, test: bool}";
    let with = |sink: &str, when: &str| {
        let decode = DEBEZIUM
            .replace("fields: {id: int64 not null, name: string not null, tags: list<string>}", fields);
        format!(
            "{decode}transforms:\n  - {{wasm: '{wasm}', config: {{high_value_cents: 2000}}{when}}}\n{sink}"
        )
    };
    let key = |name: &str| CDC.replace("[id]", name);
    let said = prepared(&with(&key("[order_id]"), ""));
    assert!(said.contains("transforms[0]: with `mode: cdc`") && said.contains("it routes rows"), "{said}");
    let said = prepared(&with(&key("[order_id]"), ", when: {topics: [customers]}"));
    assert!(said.contains("`when` asks columns"), "{said}");
}
