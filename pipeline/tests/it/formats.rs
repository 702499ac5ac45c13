//! Protobuf and JSON Schema: columns that a schema of the registry says, or a file.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use gristmill::{EmbeddedRegistry, RegistryConfig, SchemaReference, SchemaRegistry, SchemaType};
use gristmill_pipeline::{TestReport, check};

/// Language, subject, text, and what it refers to, by name and subject.
type Registered<'a> = (SchemaType, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A registry with schemas, whose ids count from 1.
async fn registry(schemas: &[Registered<'_>]) -> EmbeddedRegistry {
    let registry = EmbeddedRegistry::start().await.unwrap();
    let client = SchemaRegistry::new(RegistryConfig::builder().url(registry.url()).build().unwrap()).unwrap();
    for (schema_type, subject, text, references) in schemas {
        let references: Vec<SchemaReference> = references
            .iter()
            .map(|(name, subject)| SchemaReference {
                name: (*name).into(),
                subject: (*subject).into(),
                version: 1,
            })
            .collect();
        client.register(subject, schema_type, text, &references).await.unwrap();
    }
    registry
}

fn pipeline(url: Option<&str>, decode: &str) -> String {
    let registry = url.map(|url| format!("schema_registry: {{url: '{url}'}}\n")).unwrap_or_default();
    format!(
        "name: orders\nsource: {{kafka: {{bootstrap_servers: 'localhost:9092', topics: [orders]}}}}\n{registry}decode: {decode}\n\
         sink: {{files: {{folder: rows}}}}\ndead_letters: {{folder: letters}}\n"
    )
}

async fn run(folder: &Path, pipeline: &str, cases: &str) -> Result<TestReport, gristmill_pipeline::Error> {
    std::fs::write(folder.join("p.yaml"), pipeline).unwrap();
    std::fs::write(folder.join("p.test.yaml"), cases).unwrap();
    gristmill_pipeline::test(check(&folder.join("p.yaml"))?, &folder.join("p.test.yaml")).await
}

const MONEY: &str = "syntax = \"proto3\"; package common; message Money { int64 units = 1; }";
const ORDER: &str = "syntax = \"proto3\"; package shop; import \"common/money.proto\";
    message Order { int64 id = 1; common.Money total = 2; optional string note = 3; repeated Part parts = 4; }
    message Part { string sku = 1; Part inner = 2; }";
const FLAT: &str = "syntax = \"proto3\"; package shop; import \"common/money.proto\"; message Order { int64 id = 1; common.Money total = 2; }";

/// `id: 7, total: {units: 9}`
const BODY: [u8; 6] = [8, 7, 18, 2, 8, 9];

fn record(front: &[u8], body: &[u8]) -> String {
    format!("{{value_base64: '{}'}}", BASE64.encode([front, body].concat()))
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_is_decoded_by_the_registrys_schemas_with_their_imports() {
    let folder = tempfile::tempdir().unwrap();
    let other = r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}"#;
    let registry = registry(&[
        (SchemaType::Protobuf, "money", MONEY, &[]),
        (SchemaType::Protobuf, "orders-value", FLAT, &[("common/money.proto", "money")]),
        (SchemaType::Avro, "other", other, &[]),
        (
            SchemaType::Protobuf,
            "renumbered",
            "syntax = \"proto3\"; package shop; message Order { string id = 1; }",
            &[],
        ),
    ])
    .await;
    let pipeline = pipeline(Some(&registry.url()), "{format: protobuf}");
    let cases = format!(
        "cases:\n  - name: orders\n    records:\n      - {}\n      - {}\n      - {}\n      - {}\n      - {}\n      - {{value: null}}\n    expect:\n      \
         rows: {{main: [{{id: 7, total: {{units: 9}}}}]}}\n      dead_letters:\n        - {{offset: 1, code: DECODE_MALFORMED, message: 'it ends in the middle'}}\n        \
         - {{offset: 2, code: DECODE_UNKNOWN_SCHEMA}}\n        - {{offset: 3, code: DECODE_INCOMPATIBLE_SCHEMA, message: \"field id: the writer's is string\"}}\n        \
         - {{offset: 4, code: DECODE_MALFORMED, message: magic byte}}\n        - {{offset: 5, code: DECODE_NULL_VALUE}}\n",
        record(&[0, 0, 0, 0, 2, 0], &BODY),
        record(&[0, 0, 0, 0, 2, 0], &BODY[..5]),
        // Of another language.
        record(&[0, 0, 0, 0, 3, 0], &BODY),
        record(&[0, 0, 0, 0, 4, 0], &BODY),
        record(&[], &BODY),
    );
    let report = run(folder.path(), &pipeline, &cases).await.unwrap();
    assert!(report.passed(), "{report}");
}

/// As serialisers write it that keep values as they are.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_headers_name_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(&[
        (SchemaType::Protobuf, "money", MONEY, &[]),
        (SchemaType::Protobuf, "orders-value", FLAT, &[("common/money.proto", "money")]),
    ])
    .await;
    let headers = |id: &str| {
        let body = record(&[], &BODY);
        format!("{}, headers: {{__value_schema_id: \"{id}\"}}}}", body.trim_end_matches('}'))
    };
    let cases = format!(
        "cases:\n  - name: orders\n    records:\n      - {}\n      - {}\n    expect:\n      rows: {{main: [{{id: 7, total: {{units: 9}}}}]}}\n      \
         dead_letters: [{{offset: 1, code: DECODE_UNKNOWN_SCHEMA, message: 00000000-0000-0000-0000-000000000000}}]\n",
        headers(r"\0\0\0\0\x02\0"),
        headers(&format!(r"\x01{}", r"\0".repeat(16))),
    );
    let pipeline = pipeline(Some(&registry.url()), "{format: protobuf}");
    let report = run(folder.path(), &pipeline, &cases).await.unwrap();
    assert!(report.passed(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unions_and_records_that_contain_themselves_are_json_if_the_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let order = r#"{"type": "record", "name": "Order", "fields": [{"name": "paid", "type": ["null", "long", "Card"]},
        {"name": "before", "type": ["null", "Order"]}]}"#;
    let card = r#"{"type": "record", "name": "Card", "fields": [{"name": "number", "type": "string"}]}"#;
    let registry = registry(&[
        (SchemaType::Avro, "card", card, &[]),
        (SchemaType::Avro, "orders-value", order, &[("Card", "card")]),
    ])
    .await;
    let cases = format!(
        "cases:\n  - name: orders\n    records:\n      - {}\n      - {}\n      - {}\n    expect:\n      rows: {{main: [{{paid: '{{\"long\":5}}'}}, \
         {{before: '{{\"paid\":{{\"Card\":{{\"number\":\"a\"}}}},\"before\":null}}'}}]}}\n      dead_letters: [{{offset: 2, code: DECODE_MALFORMED}}]\n",
        record(&[0, 0, 0, 0, 2], &[2, 10, 0]),
        record(&[0, 0, 0, 0, 2], &[0, 2, 4, 2, b'a', 0]),
        record(&[0, 0, 0, 0, 2], &[6, 10, 0]),
    );
    let url = registry.url();
    let report = run(folder.path(), &pipeline(Some(&url), "{format: avro, recursive: json}"), &cases).await;
    let report = report.unwrap();
    assert!(report.passed(), "{report}");
    // The same, as the author of the cases has it.
    let written = "cases:\n  - name: orders\n    records:\n      - value_json: {paid: {long: 5}}\n      \
        - value_json: {before: {paid: {Card: {number: a}}}}\n    expect:\n      rows: {main: [{paid: '{\"long\":5}'}, \
         {before: '{\"paid\":{\"Card\":{\"number\":\"a\"}},\"before\":null}'}]}\n";
    let as_json = pipeline(Some(&url), "{format: avro, recursive: json}");
    let report = run(folder.path(), &as_json, written).await.unwrap();
    assert!(report.passed(), "{report}");
    let wrong =
        run(folder.path(), &as_json, &written.replace("{long: 5}", "5")).await.unwrap_err().to_string();
    assert!(
        wrong.contains("field paid: a value of several types is an object with the name of its type, such as {\"long\": ..}"),
        "{wrong}"
    );
    let refused =
        run(folder.path(), &pipeline(Some(&url), "{format: avro}"), &cases).await.unwrap_err().to_string();
    assert!(refused.contains("subject orders-value: "), "{refused}");
    assert!(
        refused.contains(
            "field paid: a union of several types besides null has no Arrow column; `recursive: json`"
        ),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_give_values_as_json_that_the_schema_writes() {
    let folder = tempfile::tempdir().unwrap();
    let avro = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, {"name": "raw", "type": ["null", "bytes"], "default": null},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}, {"name": "channel", "type": "string", "default": "web"}]}"#;
    let registry = registry(&[
        (SchemaType::Avro, "orders-value", avro, &[]),
        (SchemaType::Protobuf, "money", MONEY, &[]),
        (SchemaType::Protobuf, "flat", FLAT, &[("common/money.proto", "money")]),
    ])
    .await;
    let of_avro = "cases:\n  - name: orders\n    records:\n      - value_json: {id: 7, total: 12.5, at: '2026-11-29T00:00:00Z', channel: shop}\n      \
        - value_json: {id: 8, total: -1, at: 1000, channel: a}\n    expect:\n      rows:\n        main:\n          \
        - {id: 7, total: 12.5, at: '2026-11-29T00:00:00Z', channel: shop}\n          - {id: 8, total: -1, at: '1970-01-01T00:00:01Z', channel: a}\n";
    let url = registry.url();
    let report = run(folder.path(), &pipeline(Some(&url), "{format: avro}"), of_avro).await.unwrap();
    assert!(report.passed(), "{report}");

    let of_protobuf = "cases:\n  - name: orders\n    records:\n      - value_json: {id: 7, total: {units: 9}}\n      - value_json: {}\n    expect:\n      \
        rows: {main: [{id: 7, total: {units: 9}}, {id: 0}]}\n";
    let flat = "{format: protobuf, subject: flat}";
    let report = run(folder.path(), &pipeline(Some(&url), flat), of_protobuf).await.unwrap();
    assert!(report.passed(), "{report}");
    std::fs::create_dir_all(folder.path().join("common")).unwrap();
    std::fs::write(folder.path().join("common/money.proto"), MONEY).unwrap();
    std::fs::write(folder.path().join("order.proto"), FLAT).unwrap();
    let bare = "{format: protobuf, schema_file: order.proto}";
    let report = run(folder.path(), &pipeline(None, bare), of_protobuf).await.unwrap();
    assert!(report.passed(), "{report}");

    for (value, why) in [
        (
            "{idd: 7}",
            "p.test.yaml: case `orders`: record 0: `value_json`: the schema has no field `idd`; it has id, raw, total, at, channel",
        ),
        ("{id: x, total: 1, at: 1}", "record 0: `value_json`: field id: expected int64"),
        ("{id: 1, at: 1}", "total"),
        ("{id: 1, raw: aGV5, total: 1, at: 1}", "raw"),
        ("[1]", "[1] is no object; `value_base64` takes any bytes"),
    ] {
        let cases =
            format!("cases:\n  - name: orders\n    records: [{{value_json: {value}}}]\n    expect: {{}}\n");
        let error = run(folder.path(), &pipeline(Some(&url), "{format: avro}"), &cases)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{value}: {error}");
        println!("{error}");
    }
}

/// What they could be is reckoned by the longest symbol for each item.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_might_be_too_large_together_are_decoded_by_parts() {
    let folder = tempfile::tempdir().unwrap();
    let symbol = "S".repeat(20_000);
    let schema = format!(
        r#"{{"type": "record", "name": "R", "fields": [{{"name": "flags", "type": {{"type": "array", "items": "boolean"}}}},
        {{"name": "e", "type": {{"type": "enum", "name": "E", "symbols": ["a", "{symbol}"]}}}}, {{"name": "n", "type": "int"}}]}}"#
    );
    let registry = registry(&[(SchemaType::Avro, "orders-value", &schema, &[])]).await;
    let body = |items: usize, n: u8| {
        let mut body = vec![0, 0, 0, 0, 1];
        for _ in 0..items / 50 {
            body.push(100);
            body.extend([1; 50]);
        }
        body.extend([0, 0, n << 1]);
        record(&[], &body)
    };
    let cases = format!(
        "cases:\n  - name: flags\n    records:\n      - {}\n      - {}\n      - {}\n      - {}\n    expect:\n      rows: {{main: [{{n: 1, e: a}}, {{n: 2, e: a}}, {{n: 3, e: a}}]}}\n      \
         dead_letters: [{{offset: 1, code: DECODE_MISMATCH, message: might have more than 2 GiB}}]\n",
        body(60_000, 1),
        body(150_000, 9),
        body(60_000, 2),
        body(0, 3),
    );
    let report =
        run(folder.path(), &pipeline(Some(&registry.url()), "{format: avro}"), &cases).await.unwrap();
    let report = report.to_string();
    // Only the flags, which are not written here, are not as expected.
    let others =
        report.lines().filter(|line| line.contains("expected") && !line.contains("flags: not expected"));
    assert_eq!(others.collect::<Vec<_>>().len(), 0, "{}", &report[report.len().saturating_sub(500)..]);
    assert_eq!(report.matches("flags: not expected").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_protobuf_is_decoded_by_a_file_and_those_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("proto/common")).unwrap();
    std::fs::write(folder.path().join("proto/order.proto"), ORDER).unwrap();
    let decode = "{format: protobuf, schema_file: proto/order.proto, message: Order, recursive: json}";
    let cases = format!(
        "cases:\n  - name: orders\n    records:\n      - {}\n      - {}\n    expect:\n      rows: {{main: [{{id: 7, total: {{units: 9}}, parts: \
         [{{sku: a, inner: '{{\"sku\":\"b\"}}'}}]}}]}}\n      dead_letters: [{{offset: 1, code: DECODE_MALFORMED, message: prefix}}]\n",
        record(&BODY, &[34, 8, 10, 1, b'a', 18, 3, 10, 1, b'b']),
        record(&[0, 0, 0, 0, 2, 0], &BODY),
    );
    let error = run(folder.path(), &pipeline(None, decode), &cases).await.unwrap_err().to_string();
    assert!(error.contains("common/money.proto cannot be read"), "{error}");
    std::fs::write(folder.path().join("proto/common/money.proto"), MONEY).unwrap();
    let report = run(folder.path(), &pipeline(None, decode), &cases).await.unwrap();
    assert!(report.passed(), "{report}");
    let refused = decode.replace(", recursive: json", "");
    let error = run(folder.path(), &pipeline(None, &refused), &cases).await.unwrap_err().to_string();
    assert!(error.contains("proto/order.proto: "), "{error}");
    assert!(error.contains("field parts[].inner: the message `shop.Part` contains itself"), "{error}");
    let typo = decode.replace("message: Order", "message: Ordre");
    let error = run(folder.path(), &pipeline(None, &typo), &cases).await.unwrap_err().to_string();
    assert!(error.contains("it has no message `Ordre`; it has `shop.Order`, `shop.Part`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_decoded_by_the_columns_of_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let order = r##"{"type": "object", "properties": {"id": {"type": "integer"}, "home": {"$ref": "address.json"},
        "at": {"type": "string", "format": "date-time"}, "extra": {}}, "required": ["id"]}"##;
    let address = r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}"#;
    let registry = registry(&[
        (SchemaType::Json, "address", address, &[]),
        (SchemaType::Json, "orders-value", order, &[("address.json", "address")]),
    ])
    .await;
    let value = br#"{"id": 1, "home": {"city": "X"}, "at": "2026-11-29T12:00:00+01:00", "extra": {"a": [1, null]}, "else": 2}"#;
    let cases = format!(
        "cases:\n  - name: orders\n    records:\n      - {}\n      - {}\n      - {}\n      - {}\n    expect:\n      rows: {{main: [{{id: 1, home: {{city: X}}, \
         at: '2026-11-29T11:00:00Z', extra: '{{\"a\":[1,null]}}'}}, {{id: 2}}, {{id: 3, extra: '4'}}]}}\n      dead_letters: [{{offset: 3, code: \
         DECODE_MISMATCH, message: 'field home.city: missing'}}]\n",
        record(&[0, 0, 0, 0, 2], value),
        // A schema that nobody knows says nothing that is needed.
        record(&[0, 0, 0, 0, 9], br#"{"id": 2}"#),
        record(&[], br#"{"id": 3, "extra": 4}"#),
        record(&[0, 0, 0, 0, 2], br#"{"id": 4, "home": {}}"#),
    );
    let decode = "{format: json_schema, recursive: json}";
    let report = run(folder.path(), &pipeline(Some(&registry.url()), decode), &cases).await.unwrap();
    assert!(report.passed(), "{report}");
    let error = run(folder.path(), &pipeline(Some(&registry.url()), "{format: json_schema}"), &cases).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("subject orders-value: "), "{error}");
    assert!(
        error.contains(
            "field extra: it may be anything, so it has no Arrow column of one type; `recursive: json`"
        ),
        "{error}"
    );
    let error = run(folder.path(), &pipeline(Some(&registry.url()), "{format: protobuf}"), &cases).await;
    assert!(
        error.unwrap_err().to_string().contains(
            "subject orders-value is a schema of the type JSON, and the format is `protobuf`; its format is `json_schema`"
        )
    );
    // By a file, without a registry.
    std::fs::write(folder.path().join("order.json"), order.replace(r##"{"$ref": "address.json"}"##, address))
        .unwrap();
    let decode = "{format: json_schema, schema_file: order.json, recursive: json}";
    let report = run(folder.path(), &pipeline(None, decode), &cases).await.unwrap();
    assert!(report.passed(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_of_debezium_are_read_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let proto = "syntax = \"proto3\"; message Envelope { Value before = 1; Value after = 2; string op = 3; message Value { int32 id = 1; string name = 2; } }";
    let row = r#"{"type": ["object", "null"], "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}"#;
    let json = format!(
        r#"{{"type": "object", "properties": {{"before": {row}, "after": {row}, "op": {{"type": "string"}}, "source": {{"type": "object", "properties": {{"db": {{"type": "string"}}}}}}}}}}"#
    );
    let registry =
        registry(&[(SchemaType::Protobuf, "proto", proto, &[]), (SchemaType::Json, "json", &json, &[])])
            .await;
    let cases = |records: [String; 2]| {
        format!(
            "cases:\n  - name: changes\n    records:\n      - {}\n      - {}\n    expect:\n      rows: {{main: [{{__op: c, id: 1, name: a}}, {{__op: d, id: 1, name: a}}]}}\n",
            records[0], records[1]
        )
    };
    let value = [8, 1, 18, 1, b'a'];
    let proto = cases([
        record(&[0, 0, 0, 0, 1, 0, 18, 5], &[&value[..], &[26, 1, b'c']].concat()),
        record(&[0, 0, 0, 0, 1, 0, 10, 5], &[&value[..], &[26, 1, b'd']].concat()),
    ]);
    let decode = "{format: protobuf, subject: proto, changes: debezium}";
    let report = run(folder.path(), &pipeline(Some(&registry.url()), decode), &proto).await.unwrap();
    assert!(report.passed(), "{report}");
    let json = cases([
        record(
            &[0, 0, 0, 0, 2],
            br#"{"before": null, "after": {"id": 1, "name": "a"}, "op": "c", "source": {"db": "x"}}"#,
        ),
        record(&[0, 0, 0, 0, 2], br#"{"before": {"id": 1, "name": "a"}, "after": null, "op": "d"}"#),
    ]);
    let decode = "{format: json_schema, subject: json, changes: debezium}";
    let report = run(folder.path(), &pipeline(Some(&registry.url()), decode), &json).await.unwrap();
    assert!(report.passed(), "{report}");
}

/// A key says which row is deleted where there is no value.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(&[
        (
            SchemaType::Protobuf,
            "pv",
            "syntax = \"proto3\"; message V { int64 id = 1; string name = 2; }",
            &[],
        ),
        (
            SchemaType::Protobuf,
            "pk",
            "syntax = \"proto3\"; message K { int64 id = 1; } message Other { bool x = 1; }",
            &[],
        ),
        (
            SchemaType::Json,
            "jk",
            r#"{"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}"#,
            &[],
        ),
    ])
    .await;
    let value = record(&[0, 0, 0, 0, 1, 0], &[8, 7, 18, 1, b'a']);
    let cases = |key: &str| {
        format!(
            "cases:\n  - name: changes\n    records:\n      - {}, key: \"{key}\"}}\n      - {{key: \"{key}\"}}\n      - {{key: x}}\n    expect:\n      rows: \
             {{main: [{{__op: u, id: 7, name: a}}, {{__op: d, id: 7}}]}}\n      dead_letters: [{{offset: 2, code: DECODE_MALFORMED}}]\n",
            value.trim_end_matches('}')
        )
    };
    let proto = cases(r"\0\0\0\0\x02\0\x08\x07");
    for (key, records) in [
        ("{format: protobuf, subject: pk, message: K}", &proto),
        ("{format: json_schema, subject: jk}", &cases(r#"\0\0\0\0\x03{\"id\": 7}"#)),
        ("{format: json_schema, subject: jk}", &cases(r#"{\"id\": 7}"#)),
    ] {
        let decode = format!("{{format: protobuf, subject: pv, changes: upsert, key: {key}}}");
        let report = run(folder.path(), &pipeline(Some(&registry.url()), &decode), records).await.unwrap();
        assert!(report.passed(), "{key}: {report}");
    }
    let decode = "{format: protobuf, subject: pv, changes: upsert, key: {format: protobuf, subject: pk}}";
    let error =
        run(folder.path(), &pipeline(Some(&registry.url()), decode), &proto).await.unwrap_err().to_string();
    assert!(error.contains("subject pk: "), "{error}");
    assert!(error.contains("it has several messages"), "{error}");
}

#[test]
fn what_belongs_to_another_format_is_told_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let mistakes = |decode: &str| {
        std::fs::write(folder.path().join("p.yaml"), pipeline(None, decode)).unwrap();
        check(&folder.path().join("p.yaml")).unwrap_err().to_string()
    };
    for (decode, why) in [
        (
            "{format: protobuf}",
            "`protobuf` needs `schema_registry`, or `schema_file` for values that name no schema",
        ),
        (
            "{format: json_schema, fields: {a: string}}",
            "`fields` belongs to `format: json`; the columns of `json_schema` come from the schema",
        ),
        (
            "{format: json, fields: {a: string}, message: M}",
            "decode.message: `message` belongs to `format: protobuf`; remove it",
        ),
        (
            "{format: json, fields: {a: string}, subject: s}",
            "`subject` belongs to `format: avro`, `protobuf`, `json_schema`; remove it",
        ),
        (
            "{format: bytes, recursive: json}",
            "`recursive` belongs to `format: avro`, `protobuf`, `json_schema`; remove it",
        ),
        ("{format: protobuf, schema_file: gone.proto}", "gone.proto"),
        ("{format: protobuff}", "did you mean `protobuf`?"),
    ] {
        let told = mistakes(decode);
        assert!(told.contains(why), "{told}");
    }
}
