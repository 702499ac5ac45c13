//! The table of BigQuery's types in `docs/bigquery.md`, made by the code.

use std::path::Path;

use gristmill_codec::{AvroDecoder, SchemaSpec};
use gristmill_sinks::table_columns;
use serde_json::{Value, json};

/// Between these lines the document is what the code says; `UPDATE_DOCS=1` writes it.
const BEGIN: &str = "<!-- the types: made by pipeline/tests/it/types.rs -->\n";
const END: &str = "<!-- the end of the types -->\n";

/// What a column of that type of a pipeline file becomes.
fn of_file(data_type: &Value) -> String {
    let spec: SchemaSpec = serde_json::from_value(json!({ "c": data_type })).unwrap();
    of_schema(&spec.arrow_schema().unwrap())
}

/// The same of a type of Avro.
fn of_avro(data_type: &Value) -> String {
    let schema = json!({"type": "record", "name": "R", "fields": [{"name": "c", "type": data_type}]});
    match AvroDecoder::new(&schema.to_string()) {
        Ok(decoder) => of_schema(&decoder.schema()),
        Err(_) => "refused".to_owned(),
    }
}

fn of_schema(schema: &arrow_schema::Schema) -> String {
    match table_columns(schema) {
        // What is inside says it by itself.
        Ok(columns) => match columns[0].data_type.split_once("STRUCT<") {
            Some((outside, _)) => format!("{outside}STRUCT{}", if outside.is_empty() { "" } else { ">" }),
            None => columns[0].data_type.replace("<STRING>", ""),
        },
        Err(_) => "refused".to_owned(),
    }
}

fn logical(base: &str, name: &str) -> Value {
    json!({"type": base, "logicalType": name})
}

fn decimal(precision: u32, scale: u32) -> Value {
    json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
}

fn debezium(base: &str, name: &str) -> Value {
    json!({"type": base, "connect.name": format!("io.debezium.{name}")})
}

/// How a type is shown of the file and of Avro, samples of both, and what is to be said beside.
type Row = (&'static str, Vec<Value>, &'static str, Vec<Value>, &'static str);

fn rows() -> Vec<Row> {
    let texts = |types: &[&str]| types.iter().map(|data_type| json!(data_type)).collect::<Vec<_>>();
    let record = json!({"type": "record", "name": "S", "fields": [{"name": "sku", "type": "string"}]});
    let recursive =
        json!({"type": "record", "name": "S", "fields": [{"name": "next", "type": ["null", "S"]}]});
    let of = |kind: &str, key: &str, item: Value| json!({"type": kind, (key): item});
    let fixed = json!({"type": "fixed", "name": "F", "size": 4});
    let duration = json!({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"});
    let symbols = json!({"type": "enum", "name": "E", "symbols": ["A"]});
    vec![
        ("`bool`", texts(&["bool"]), "`boolean`", texts(&["boolean"]), ""),
        (
            "`int8` .. `int64`, `uint8` .. `uint32`",
            texts(&["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"]),
            "`int`, `long`",
            texts(&["int", "long"]),
            "",
        ),
        ("`uint64`", texts(&["uint64"]), "", vec![], ""),
        (
            "`float32`, `float64`",
            texts(&["float32", "float64"]),
            "`float`, `double`",
            texts(&["float", "double"]),
            "",
        ),
        (
            "`decimal(p,s)`: 29 digits before the point and 9 behind it at most",
            texts(&["decimal(10,2)", "decimal(38,9)", "decimal(29,0)"]),
            "`decimal`",
            vec![decimal(10, 2), decimal(38, 9)],
            "",
        ),
        (
            "`decimal(p,s)`: 38 and 38 at most",
            texts(&["decimal(30,0)", "decimal(38,10)", "decimal(38,0)", "decimal(38,38)"]),
            "`decimal`",
            vec![decimal(38, 10), decimal(76, 38)],
            "",
        ),
        ("", vec![], "a larger `decimal`", vec![decimal(76, 0)], "at the start"),
        (
            "`string`",
            texts(&["string"]),
            "`string`, an enum, `uuid`",
            vec![json!("string"), symbols, logical("string", "uuid")],
            "",
        ),
        (
            "`bytes`",
            texts(&["bytes"]),
            "`bytes`, a fixed, `duration`",
            vec![json!("bytes"), fixed, duration],
            "",
        ),
        ("`date`", texts(&["date"]), "`date`", vec![logical("int", "date")], ""),
        (
            "",
            vec![],
            "`time-millis`, `time-micros`",
            vec![logical("int", "time-millis"), logical("long", "time-micros")],
            "",
        ),
        (
            "`timestamp_s` .. `timestamp_ns`",
            texts(&["timestamp_s", "timestamp_ms", "timestamp_us", "timestamp_ns"]),
            "`timestamp-millis`, `timestamp-micros`",
            vec![logical("long", "timestamp-millis"), logical("long", "timestamp-micros")],
            "",
        ),
        (
            "",
            vec![],
            "`local-timestamp-millis`, `local-timestamp-micros`",
            vec![logical("long", "local-timestamp-millis"), logical("long", "local-timestamp-micros")],
            "",
        ),
        (
            "",
            vec![],
            "Debezium's `Date`",
            vec![debezium("int", "time.Date")],
            "by `connect.name`, as the next two",
        ),
        (
            "",
            vec![],
            "its `Time`, `MicroTime`",
            vec![debezium("int", "time.Time"), debezium("long", "time.MicroTime")],
            "",
        ),
        (
            "",
            vec![],
            "its `Timestamp`, `MicroTimestamp`, `NanoTimestamp`",
            ["Timestamp", "MicroTimestamp", "NanoTimestamp"]
                .map(|name| debezium("long", &format!("time.{name}")))
                .into(),
            "",
        ),
        (
            "",
            vec![],
            "its `ZonedTimestamp`, `Json`, `Uuid`, `Enum`, `Xml`",
            ["time.ZonedTimestamp", "data.Json", "data.Uuid", "data.Enum", "data.Xml"]
                .map(|name| debezium("string", name))
                .into(),
            "as Avro has them",
        ),
        ("", vec![], "its `NanoTime`", vec![debezium("long", "time.NanoTime")], "as Avro has it"),
        ("a map of fields", vec![json!({"sku": "string"})], "a record", vec![record.clone()], ""),
        ("", vec![], "a record that contains itself", vec![recursive], "at the start"),
        (
            "`list<string>`, and so on",
            texts(&["list<string>"]),
            "an array",
            vec![of("array", "items", json!("string"))],
            "a null list is an empty one; null elements are refused",
        ),
        ("a list of fields", vec![], "an array of records", vec![of("array", "items", record)], ""),
        (
            "`map<int64>`, and so on; `list<list<..>>`",
            texts(&["map<int64>", "list<list<int64>>"]),
            "a map, an array of arrays",
            vec![
                of("map", "values", json!("long")),
                of("array", "items", of("array", "items", json!("long"))),
            ],
            "an object, an array; times as texts, bytes in hex",
        ),
        ("", vec![], "a union of several", vec![json!(["string", "long"])], "at the start"),
    ]
}

#[test]
fn the_table_of_types_in_the_docs_is_what_the_code_does() {
    let mut table = "| pipeline file | Avro | BigQuery |\n|---|---|---|\n".to_owned();
    for (of_the_file, file, of_the_avro, avro, note) in rows() {
        let found: Vec<String> = file.iter().map(of_file).chain(avro.iter().map(of_avro)).collect();
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{of_the_file} {of_the_avro}: {found:?}");
        let note = match (note, found[0].as_str()) {
            ("", _) => String::new(),
            (note, "refused") => format!(" {note}"),
            (note, _) => format!(": {note}"),
        };
        let data_type = &found[0];
        table += &format!("| {of_the_file} | {of_the_avro} | {data_type}{note} |\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bigquery.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the beginning of the table");
    let (there, after) = rest.split_once(END).expect("the end of the table");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(there, table, "UPDATE_DOCS=1 writes the table");
    }
}
