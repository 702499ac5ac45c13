//! The table of BigQuery's types in `docs/bigquery.md`, made by the code.

use std::path::Path;

use gristmill_codec::{
    AvroDecoder, AvroOptions, ProtobufDecoder, ProtobufOptions, SchemaSpec, json_schema_columns,
};
use gristmill_sinks::table_columns;
use serde_json::{Value, json};

/// Between these lines the document is what the code says; `UPDATE_DOCS=1` writes it.
const TYPES: [&str; 2] =
    ["<!-- the types: made by pipeline/tests/it/types.rs -->\n", "<!-- the end of the types -->\n"];
const MORE_TYPES: [&str; 2] =
    ["<!-- more types: made by pipeline/tests/it/types.rs -->\n", "<!-- the end of more types -->\n"];

/// What a column of that type of a pipeline file becomes.
fn of_file(data_type: &Value) -> String {
    let spec: SchemaSpec = serde_json::from_value(json!({ "c": data_type })).unwrap();
    of_schema(&spec.arrow_schema().unwrap())
}

/// The same of a type of Avro.
fn of_avro(data_type: &Value) -> String {
    let schema = json!({"type": "record", "name": "R", "fields": [{"name": "c", "type": data_type}]});
    let schema = schema.to_string();
    let mut options = AvroOptions::default();
    match AvroDecoder::with_options(&schema, &options) {
        Ok(decoder) => of_schema(&decoder.schema()),
        Err(_) => {
            options.recursive_as_json = true;
            format!(
                "{}, or refused",
                of_schema(&AvroDecoder::with_options(&schema, &options).unwrap().schema())
            )
        }
    }
}

/// The same of a field of Protobuf.
fn of_protobuf(field: &str) -> String {
    let imports = [
        "protobuf/timestamp",
        "protobuf/wrappers",
        "protobuf/struct",
        "protobuf/empty",
        "type/date",
        "type/timeofday",
    ];
    let imports = imports.map(|name| format!("import \"google/{name}.proto\"; ")).concat();
    let imports =
        format!("{imports} import \"confluent/meta.proto\"; import \"confluent/type/decimal.proto\";");
    let (field, said) = field.split_once('@').unwrap_or((field, ""));
    let schema = format!(
        "syntax = \"proto3\"; {imports} message R {{ {field} c = 1 {said}; }} message Line {{ string sku = 1; }} message Node {{ Node next = 1; }} enum E {{ A = 0; }}"
    );
    let mut options = ProtobufOptions::default();
    options.message = Some("R".into());
    match ProtobufDecoder::new(&schema, &options) {
        Ok(decoder) => of_schema(&decoder.schema()),
        Err(_) => {
            options.recursive_as_json = true;
            format!("{}, or refused", of_schema(&ProtobufDecoder::new(&schema, &options).unwrap().schema()))
        }
    }
}

/// The same of a property of a JSON Schema.
fn of_json_schema(property: &Value) -> String {
    let node = json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}});
    let schema =
        json!({"type": "object", "properties": {"c": property}, "$defs": {"node": node}}).to_string();
    match json_schema_columns(&schema, [], false) {
        Ok(columns) => of_schema(&columns),
        Err(_) => format!("{}, or refused", of_schema(&json_schema_columns(&schema, [], true).unwrap())),
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
        ("`json`: any value", texts(&["json"]), "", vec![], ""),
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
        (
            "",
            vec![],
            "a record that contains itself",
            vec![recursive],
            "with JSON where it contains itself; as `recursive` says",
        ),
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
        ("", vec![], "a union of several", vec![json!(["string", "long"])], "as `recursive` says"),
    ]
}

/// How types are shown of Protobuf and of JSON Schema, samples of both, and what is to be said beside.
type OtherRow = (&'static str, Vec<&'static str>, &'static str, Vec<Value>, &'static str);

fn other_rows() -> Vec<OtherRow> {
    let text = |format: &str| json!({"type": "string", "format": format});
    let connect = |name: &str, of: &str| {
        json!({"type": of, "title": format!("org.apache.kafka.connect.data.{name}"),
        "connect.parameters": {"scale": "2", "connect.decimal.precision": "10"}})
    };
    vec![
        ("`bool`", vec!["bool"], "`boolean`", vec![json!({"type": "boolean"})], ""),
        (
            "`int32`, `sint64`, `fixed32` and so on",
            vec!["int32", "sint32", "sfixed32", "int64", "sint64", "sfixed64", "uint32", "fixed32"],
            "`integer`",
            vec![json!({"type": "integer"}), json!({"type": "integer", "connect.type": "int16"})],
            "",
        ),
        ("`uint64`, `fixed64`", vec!["uint64", "fixed64"], "", vec![], ""),
        ("`float`, `double`", vec!["float", "double"], "`number`", vec![json!({"type": "number"})], ""),
        (
            "Connect's `confluent.type.Decimal`, whose field says its scale",
            vec![
                "confluent.type.Decimal@[(confluent.field_meta) = {params: [{key: \"scale\", value: \"2\"}, {key: \"precision\", value: \"10\"}]}]",
            ],
            "Connect's `Decimal` as a number",
            vec![connect("Decimal", "number")],
            "or BIGNUMERIC, by its digits; without a scale a STRUCT",
        ),
        (
            "`string`, an enum",
            vec!["string", "E"],
            "`string`, an `enum` of texts",
            vec![json!({"type": "string"}), text("uuid"), json!({"enum": ["a"]})],
            "a number without a name as its digits",
        ),
        ("`bytes`", vec!["bytes"], "", vec![], ""),
        (
            "`google.protobuf.Timestamp`",
            vec!["google.protobuf.Timestamp"],
            "`date-time`, Connect's `Timestamp`",
            vec![text("date-time"), connect("Timestamp", "integer")],
            "microseconds",
        ),
        (
            "`google.type.Date`",
            vec!["google.type.Date"],
            "`date`, Connect's `Date`",
            vec![text("date"), connect("Date", "integer")],
            "",
        ),
        ("`google.type.TimeOfDay`", vec!["google.type.TimeOfDay"], "", vec![], ""),
        (
            "`optional`, a member of a `oneof`, `google.protobuf.Int64Value` and so on",
            vec!["optional int64", "google.protobuf.Int64Value"],
            "`[\"integer\", \"null\"]`, `oneOf` of it and `null`",
            vec![
                json!({"type": ["integer", "null"]}),
                json!({"oneOf": [{"type": "null"}, {"type": "integer"}]}),
            ],
            "nullable; all else is not where the schema says so",
        ),
        (
            "a message",
            vec!["Line"],
            "`object` with `properties`",
            vec![json!({"type": "object", "properties": {"sku": {"type": "string"}}})],
            "",
        ),
        (
            "`repeated`",
            vec!["repeated string"],
            "`array`",
            vec![json!({"type": "array", "items": {"type": "string"}})],
            "",
        ),
        (
            "`map`",
            vec!["map<int32, string>"],
            "`object` with `additionalProperties`",
            vec![json!({"type": "object", "additionalProperties": {"type": "string"}})],
            "an object",
        ),
        (
            "`google.protobuf.Struct`, `Value`, `ListValue`, a message without fields",
            vec![
                "google.protobuf.Struct",
                "google.protobuf.Value",
                "google.protobuf.ListValue",
                "google.protobuf.Empty",
            ],
            "",
            vec![],
            "",
        ),
        (
            "a message that contains itself",
            vec!["Node"],
            "what has several types, none, or contains itself",
            vec![json!({}), json!({"type": ["string", "integer"]}), json!({"type": "object"})],
            "as `recursive` says",
        ),
    ]
}

#[test]
fn the_table_of_other_types_in_the_docs_is_what_the_code_does() {
    let mut table = "| Protobuf | JSON Schema | BigQuery |\n|---|---|---|\n".to_owned();
    for (of_the_protobuf, protobuf, of_the_json, json, note) in other_rows() {
        let found = protobuf.iter().map(|field| of_protobuf(field));
        let found: Vec<String> = found.chain(json.iter().map(of_json_schema)).collect();
        let same = |pair: &[String]| pair[0].replace("STRUCT", "JSON") == pair[1].replace("STRUCT", "JSON");
        assert!(found.windows(2).all(same), "{of_the_protobuf} {of_the_json}: {found:?}");
        let note = if note.is_empty() { String::new() } else { format!(": {note}") };
        let data_type = found.last().unwrap();
        table += &format!("| {of_the_protobuf} | {of_the_json} | {data_type}{note} |\n");
    }
    is_in_the_docs(&table, MORE_TYPES);
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
    is_in_the_docs(&table, TYPES);
}

fn is_in_the_docs(table: &str, [begin, end]: [&str; 2]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bigquery.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(begin).expect("the beginning of the table");
    let (there, after) = rest.split_once(end).expect("the end of the table");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(there, table, "UPDATE_DOCS=1 writes the table");
    }
}
