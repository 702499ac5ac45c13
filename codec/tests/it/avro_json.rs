//! Avro's types without a column as texts of JSON, case by case. Unions of any types: `avro_differential.rs`.

use apache_avro::Schema;
use apache_avro::types::Value;
use arrow_array::cast::AsArray;
use arrow_array::{Array, StringArray};
use arrow_schema::Field;
use gristmill_codec::{AvroDecoder, AvroOptions, Cause, Decoded, ErrorKind, Result, avro_descriptions};
use serde_json::json;

use crate::avro::{datum, record};

fn decoder(reader: &str) -> Result<AvroDecoder> {
    let mut options = AvroOptions::default();
    options.recursive_as_json = true;
    AvroDecoder::with_options(reader, &options)
}

fn framed(id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0], id.to_be_bytes().as_slice(), datum].concat()
}

fn row(id: u32, schema: &str, value: Value) -> Vec<u8> {
    framed(id, &datum(&Schema::parse_str(schema).unwrap(), value, id.is_multiple_of(2)))
}

fn decode(decoder: &mut AvroDecoder, rows: &[Vec<u8>]) -> Decoded {
    decoder.decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_slice())))).unwrap()
}

fn texts(array: &StringArray) -> Vec<Option<&str>> {
    array.iter().collect()
}

fn is_json(field: &Field) -> bool {
    field.extension_type_name() == Some("arrow.json")
}

fn of(branch: u32, value: Value) -> Value {
    Value::Union(branch, Box::new(value))
}

const TREE: &str = r#"{"type":"record","name":"shop.Category","doc":"A shelf.","fields":[
    {"name":"name","type":"string"},
    {"name":"parent","type":["null","shop.Category"],"default":null,"doc":"Above."},
    {"name":"children","type":{"type":"array","items":"Category"},"default":[]},
    {"name":"by_name","type":{"type":"map","values":["null","Category"]},"default":{}},
    {"name":"size","type":"long"}]}"#;

fn category(name: &str, parent: Option<Value>, children: Vec<Value>) -> Value {
    let by_name = children.first().map(|child| (name.to_owned(), of(1, child.clone())));
    record(&[
        ("name", Value::String(name.into())),
        ("parent", parent.map_or(of(0, Value::Null), |parent| of(1, parent))),
        ("children", Value::Array(children)),
        ("by_name", Value::Map(by_name.into_iter().collect())),
        ("size", Value::Long(name.len() as i64)),
    ])
}

#[test]
fn a_record_is_json_where_it_contains_itself() {
    let refused = AvroDecoder::new(TREE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnsupportedType);
    assert_eq!(
        refused.to_string(),
        "field parent: the type `shop.Category` contains itself, so it has no Arrow column; `recursive: json` makes it a text of \
         JSON, or leave the field out of the reader schema"
    );
    let mut decoder = decoder(TREE).unwrap();
    for id in [1, 2] {
        decoder.add_writer_schema(id, TREE).unwrap();
    }
    let leaf = || category("\"é", None, vec![]);
    let value = category("root", Some(leaf()), vec![leaf(), category("b", None, vec![leaf()])]);
    let decoded =
        decode(&mut decoder, &[row(1, TREE, value.clone()), row(2, TREE, value), row(1, TREE, leaf())]);
    assert_eq!(decoded.undecodable, []);
    let batch = &decoded.batch;
    let leaf = r#"{"name":"\"é","parent":null,"children":[],"by_name":{},"size":3}"#;
    let parent = batch.column(1).as_string::<i32>();
    assert_eq!(texts(parent), [Some(leaf), Some(leaf), None]);
    let b = format!(r#"{{"name":"b","parent":null,"children":[{leaf}],"by_name":{{"b":{leaf}}},"size":1}}"#);
    for i in [0, 1] {
        let children = batch.column(2).as_list::<i32>().value(i);
        assert_eq!(texts(children.as_string()), [Some(leaf), Some(b.as_str())]);
        let entries = batch.column(3).as_map().value(i);
        assert_eq!(texts(entries.column(1).as_string()), [Some(leaf)]);
    }
    let schema = decoder.schema();
    assert!(is_json(schema.field(1)) && schema.field(1).is_nullable());
    let arrow_schema::DataType::List(item) = schema.field(2).data_type() else { panic!("{schema}") };
    assert!(is_json(item) && !item.is_nullable());
    let arrow_schema::DataType::Map(entries, _) = schema.field(3).data_type() else { panic!("{schema}") };
    let arrow_schema::DataType::Struct(entry) = entries.data_type() else { panic!("{schema}") };
    assert!(is_json(&entry[1]) && !is_json(&entry[0]) && !is_json(schema.field(0)));
    let docs = avro_descriptions(TREE).unwrap();
    assert_eq!(
        docs.into_iter().collect::<Vec<_>>(),
        [("".into(), "A shelf.".into()), ("parent".into(), "Above.".into())]
    );
}

/// Types that refer to each other, the second of them first used where it becomes JSON.
#[test]
fn a_type_that_was_defined_inside_of_json_is_defined_where_it_is_used_next() {
    let schema = r#"{"type":"record","name":"R","fields":[
        {"name":"what","type":["int",{"type":"record","name":"n.Money","fields":[{"name":"cents","type":"long"},
            {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]}}]}]},
        {"name":"price","type":"n.Money"},{"name":"kind","type":["null","n.Kind"]}]}"#;
    let mut decoder = decoder(schema).unwrap();
    decoder.add_writer_schema(1, schema).unwrap();
    let money = || record(&[("cents", Value::Long(-5)), ("kind", Value::Enum(1, "B".into()))]);
    let value =
        record(&[("what", of(1, money())), ("price", money()), ("kind", of(1, Value::Enum(0, "A".into())))]);
    let decoded = decode(&mut decoder, &[row(1, schema, value)]);
    assert_eq!(decoded.undecodable, []);
    assert_eq!(texts(decoded.batch.column(0).as_string()), [Some(r#"{"n.Money":{"cents":-5,"kind":"B"}}"#)]);
    let price = decoded.batch.column(1).as_struct();
    assert_eq!(texts(price.column(1).as_string()), [Some("B")]);
    assert_eq!(texts(decoded.batch.column(2).as_string()), [Some("A")]);
}

#[test]
fn what_a_writer_has_otherwise_becomes_json_all_the_same() {
    let reader = r#"{"type":"record","name":"E","fields":[
        {"name":"value","type":["null","long","string","double"],"aliases":["old"]},
        {"name":"added","type":[{"type":"map","values":"bytes"},"null","int"],"default":{"a":"\u00ff"}},
        {"name":"absent","type":["null","int","string"],"default":null}]}"#;
    let mut decoder = decoder(reader).unwrap();
    let writer =
        |of: &str| format!(r#"{{"type":"record","name":"E","fields":[{{"name":"old","type":{of}}}]}}"#);
    // Of one type, of another order, promoted, and of a type that the reader does not have.
    let cases = [
        (r#""int""#, Value::Int(7), Some(r#"{"long":7}"#)),
        (r#"["string","null","int"]"#, of(0, Value::String("x".into())), Some(r#"{"string":"x"}"#)),
        (r#"["string","null","int"]"#, of(2, Value::Int(-1)), Some(r#"{"long":-1}"#)),
        (r#"["string","null","int"]"#, of(1, Value::Null), None),
        (r#""null""#, Value::Null, None),
        (r#""float""#, Value::Float(0.1), Some(r#"{"double":0.1}"#)),
        (r#"["null","boolean"]"#, of(1, Value::Boolean(true)), Some(r#"{"boolean":true}"#)),
        (r#"["null","string"]"#, of(0, Value::Null), None),
    ];
    let mut rows = Vec::new();
    for (i, (schema, value, _)) in cases.iter().enumerate() {
        let (id, schema) = (i as u32, writer(schema));
        decoder.add_writer_schema(id, &schema).unwrap_or_else(|e| panic!("{schema}: {e}"));
        rows.push(row(id, &schema, record(&[("old", value.clone())])));
    }
    let decoded = decode(&mut decoder, &rows);
    assert_eq!(decoded.undecodable, []);
    let expected: Vec<Option<&str>> = cases.iter().map(|(.., text)| *text).collect();
    assert_eq!(texts(decoded.batch.column(0).as_string()), expected);
    assert_eq!(texts(decoded.batch.column(1).as_string()), [Some(r#"{"map":{"a":"/w=="}}"#); 8]);
    assert_eq!(decoded.batch.column(2).null_count(), 8);
}

#[test]
fn logical_types_are_what_they_mean() {
    let types = [
        (json!({"type": "int", "logicalType": "date"}), Value::Date(19_000), r#""2022-01-08""#),
        (
            json!({"type": "int", "logicalType": "time-millis"}),
            Value::TimeMillis(3_723_004),
            r#""01:02:03.004""#,
        ),
        (json!({"type": "long", "logicalType": "time-micros"}), Value::TimeMicros(1), r#""00:00:00.000001""#),
        (
            json!({"type": "long", "logicalType": "timestamp-millis"}),
            Value::TimestampMillis(1_641_600_000_123),
            r#""2022-01-08T00:00:00.123Z""#,
        ),
        (
            json!({"type": "long", "logicalType": "local-timestamp-micros"}),
            Value::LocalTimestampMicros(-1),
            r#""1969-12-31T23:59:59.999999""#,
        ),
        (json!({"type": "bytes"}), Value::Bytes(vec![0, 255]), r#""AP8=""#),
        (json!("double"), Value::Double(f64::NEG_INFINITY), r#""-Infinity""#),
    ];
    for (schema, value, text) in types {
        let schema =
            json!({"type": "record", "name": "R", "fields": [{"name": "u", "type": ["boolean", schema]}]});
        let schema = schema.to_string();
        let mut decoder = decoder(&schema).unwrap();
        decoder.add_writer_schema(1, &schema).unwrap();
        let decoded = decode(&mut decoder, &[row(1, &schema, record(&[("u", of(1, value))]))]);
        assert_eq!(decoded.undecodable, []);
        let found = decoded.batch.column(0).as_string::<i32>().value(0).to_owned();
        let (_, found) = found.trim_end_matches('}').split_once(':').unwrap();
        assert_eq!(found, text, "{schema}");
    }
}

#[test]
fn what_has_no_json_costs_its_row() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"u","type":["string",{"type":"int","logicalType":"date"},
        {"type":"array","items":{"type":"record","name":"a_record_with_a_name_that_is_long_enough","fields":[]}},
        {"type":"map","values":"int"}]}]}"#;
    let mut decoder = decoder(schema).unwrap();
    decoder.add_writer_schema(1, schema).unwrap();
    let value = |branch, value| row(1, schema, record(&[("u", of(branch, value))]));
    // A key that comes twice, which apache-avro does not write.
    let twice = framed(1, &[6, 4, 2, b'a', 2, 2, b'a', 4, 0]);
    let decoded = decode(
        &mut decoder,
        &[
            value(0, Value::String("a".into())),
            value(1, Value::Date(i32::MAX)),
            twice,
            value(0, Value::String("b".into())),
        ],
    );
    assert_eq!(
        texts(decoded.batch.column(0).as_string()),
        [Some(r#"{"string":"a"}"#), Some(r#"{"map":{"a":2}}"#), Some(r#"{"string":"b"}"#)]
    );
    let [undecodable] = decoded.undecodable.as_slice() else { panic!("{:?}", decoded.undecodable) };
    assert_eq!((undecodable.row, undecodable.cause), (1, Cause::Mismatch));
    assert_eq!(
        undecodable.reason,
        "a datum of writer schema 1 does not fit JSON: a date or time that no text stands for"
    );
}

/// Few bytes that are much JSON.
#[test]
fn a_datum_has_a_bounded_text() {
    let name = "n".repeat(4_000);
    let schema = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"u","type":["null","int",{{"type":"array",
            "items":{{"type":"record","name":"I","fields":[{{"name":"{name}","type":"boolean"}}]}}}}]}}]}}"#
    );
    let mut decoder = decoder(&schema).unwrap();
    decoder.add_writer_schema(1, &schema).unwrap();
    let items = |n: usize| {
        // One block of n items of a byte each.
        let mut datum = vec![4];
        let mut rest = (n as u64) << 1;
        while rest >= 0x80 {
            datum.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        datum.push(rest as u8);
        datum.extend(vec![1; n]);
        datum.push(0);
        framed(1, &datum)
    };
    let decoded = decode(&mut decoder, &[items(10), items(20_000)]);
    assert_eq!(decoded.rows, [0]);
    assert_eq!(
        decoded.undecodable[0].reason,
        "a datum of writer schema 1 does not fit JSON: its JSON would have more than 64 MiB"
    );
}

#[test]
fn a_type_that_is_read_in_two_ways_is_refused() {
    let reader = r#"{"type":"record","name":"R","fields":[
        {"name":"a","type":{"type":"record","name":"x.Line","fields":[{"name":"v","type":["int","string"]}]}},
        {"name":"b","type":{"type":"record","name":"y.Line","fields":[{"name":"v","type":"int"}]}}]}"#;
    let writer = r#"{"type":"record","name":"R","fields":[
        {"name":"a","type":{"type":"record","name":"Line","fields":[{"name":"v","type":"int"}]}},{"name":"b","type":"Line"}]}"#;
    let error = decoder(reader).unwrap().add_writer_schema(1, writer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IncompatibleSchema);
    assert_eq!(
        error.to_string(),
        "writer schema 1: the type `Line` is read in two ways, and has JSON in one of them only"
    );
}

#[test]
fn a_default_that_is_not_of_its_type_is_refused() {
    let reader =
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":["int","string"],"default":"x"}]}"#;
    let error = decoder(reader).unwrap_err();
    assert_eq!(error.to_string(), "field a has a default that is not of its type");
}
