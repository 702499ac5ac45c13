//! Avro's types without a column as texts of JSON, case by case. Unions of any types: `avro_differential.rs`.

use apache_avro::Schema;
use apache_avro::types::Value;
use arrow_array::cast::AsArray;
use arrow_array::{Array, StringArray};
use arrow_schema::Field;
use gristmill_codec::{
    AvroDecoder, AvroEncoder, AvroOptions, Cause, Decoded, ErrorKind, Result, avro_descriptions,
};
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
    let decoded = decode(&mut decoder, &[items(1), items(20)]);
    assert_eq!(decoded.rows, [0]);
    assert_eq!(
        decoded.undecodable[0].reason,
        "a datum of writer schema 1 does not fit JSON: it would be more than 256 times as long"
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
        "writer schema 1: its type `Line` is read in two ways, which have not the same JSON"
    );
}

#[test]
fn a_default_that_is_not_of_its_type_is_refused() {
    let reader =
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":["int","string"],"default":"x"}]}"#;
    let error = decoder(reader).unwrap_err();
    assert_eq!(error.to_string(), "field a has a default that is not of its type");
}

fn fields(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

/// The rows of data of one writer, as JSON without nulls.
fn rows(reader: &str, writer: &str, data: &[&[u8]]) -> std::result::Result<Vec<String>, String> {
    let mut decoder = decoder(reader).map_err(|e| e.to_string())?;
    decoder.add_writer_schema(1, writer).map_err(|e| e.to_string())?;
    let data: Vec<Vec<u8>> = data.iter().map(|datum| framed(1, datum)).collect();
    let decoded = decode(&mut decoder, &data);
    if let Some(bad) = decoded.undecodable.first() {
        return Err(format!("{}: {}", bad.row, bad.reason));
    }
    let rows = gristmill_codec::rows_as_json(&decoded.batch).unwrap();
    Ok(rows.into_iter().map(|row| serde_json::Value::Object(row).to_string()).collect())
}

#[test]
fn writers_differ_from_the_reader_in_every_way() {
    let card =
        |name: &str| format!(r#"{{"type":"record","name":"{name}","fields":[{{"name":"n","type":"int"}}]}}"#);
    let aliased = card("shop.Card").replace(r#""fields""#, r#""aliases":["CardV1"],"fields""#);
    let cases: &[(&str, &str, &str, &[u8], &str)] = &[
        (
            "a writer's default, which means nothing",
            r#"{"name":"u","type":["int","null","string"],"default":5},{"name":"v","type":["int","null","string"],"default":5},{"name":"e","type":"string"}"#,
            r#"{"name":"u","type":["int","null","string"],"default":5},{"name":"v","type":["int","null","string"],"default":5},{"name":"e","type":"string"}"#,
            &[2, 2, 2, b'x'],
            r#"{"e":"x"}"#,
        ),
        (
            "a default that is wrong, and the writer's",
            r#"{"name":"u","type":["null","int","string"]}"#,
            r#"{"name":"u","type":["null","int","string"],"default":"null"}"#,
            &[2, 4],
            r#"{"u":"{\"int\":2}"}"#,
        ),
        (
            "defaults around texts",
            r#"{"name":"a","type":{"type":"array","items":["int","string"]},"default":[5]},{"name":"m","type":{"type":"map","values":["string","int"]},"default":{"k":"a"}},
               {"name":"r","type":["null",{"type":"record","name":"X","fields":[{"name":"u","type":["string","int"]}]}],"default":null},
               {"name":"x","type":"X","default":{"u":"a"}},{"name":"z","type":"int"}"#,
            r#"{"name":"z","type":"int"}"#,
            &[2],
            r#"{"a":["{\"int\":5}"],"m":{"k":"{\"string\":\"a\"}"},"x":{"u":"{\"string\":\"a\"}"},"z":1}"#,
        ),
        (
            "a default whose members have theirs",
            r#"{"name":"u","type":[{"type":"record","name":"C","fields":[{"name":"n","type":"string","default":"x"}]},"int"],"default":{}},{"name":"z","type":"int"}"#,
            r#"{"name":"z","type":"int"}"#,
            &[2],
            r#"{"u":"{\"C\":{\"n\":\"x\"}}","z":1}"#,
        ),
        (
            "an alias that the writer has",
            r#"{"name":"old","type":["null","int","string"],"default":null}"#,
            r#"{"name":"new","type":["null","int","string"],"aliases":["old"]}"#,
            &[4, 2, b'a'],
            r#"{"old":"{\"string\":\"a\"}"}"#,
        ),
        (
            "an alias of a type",
            &format!(r#"{{"name":"u","type":["int",{aliased}]}}"#),
            &format!(r#"{{"name":"u","type":["int",{}]}}"#, card("shop.CardV1")),
            &[2, 4],
            r#"{"u":"{\"shop.Card\":{\"n\":2}}"}"#,
        ),
        (
            "texts that could be bytes",
            r#"{"name":"u","type":["null","bytes","int"]}"#,
            r#"{"name":"u","type":["null","string"]}"#,
            &[2, 4, b'h', b'o'],
            r#"{"u":"{\"string\":\"ho\"}"}"#,
        ),
        (
            "what contains itself in a union that is not read",
            r#"{"name":"a","type":"int"}"#,
            r#"{"name":"a","type":"int"},{"name":"u","type":["int","string",{"type":"record","name":"Tree","fields":[{"name":"next","type":["null","Tree"]}]}]}"#,
            &[2, 4, 2, 2, 0],
            r#"{"a":1}"#,
        ),
        (
            "what contains itself by a type that is read",
            r#"{"name":"y","type":{"type":"record","name":"B","fields":[{"name":"a","type":["null",{"type":"record","name":"A","fields":[{"name":"v","type":"int"}]}]}]}}"#,
            r#"{"name":"x","type":["null",{"type":"record","name":"A","fields":[{"name":"v","type":"int"},{"name":"b","type":["null",{"type":"record","name":"B","fields":[{"name":"a","type":["null","A"]}]}]}]}]},{"name":"y","type":"B"}"#,
            &[0, 2, 6, 0],
            r#"{"y":{"a":{"v":3}}}"#,
        ),
        (
            "a date without a text where nobody reads",
            r#"{"name":"u","type":["string",{"type":"int","logicalType":"date"}]}"#,
            r#"{"name":"u","type":["string",{"type":"int","logicalType":"date"}]},{"name":"next","type":["null","R"]}"#,
            &[0, 2, b'a', 2, 2, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0],
            r#"{"u":"{\"string\":\"a\"}"}"#,
        ),
        (
            "a union of one type",
            r#"{"name":"u","type":["int"]}"#,
            r#"{"name":"u","type":["int"]}"#,
            &[0, 14],
            r#"{"u":"7"}"#,
        ),
    ];
    for (what, reader, writer, datum, expected) in cases {
        assert_eq!(
            rows(&fields(reader), &fields(writer), &[datum]),
            Ok(vec![(*expected).to_owned()]),
            "{what}"
        );
    }
    // Of a writer that has one type in two places.
    let line = |names: &str, of: &str| {
        format!(r#"{{"type":"record",{names},"fields":[{{"name":"v","type":{of}}}]}}"#)
    };
    let reader = format!(
        r#"{{"name":"a","type":{}}},{{"name":"b","type":{}}}"#,
        line(r#""name":"x.Line""#, r#"["int","string"]"#),
        line(r#""name":"y.Line""#, r#"["long","string"]"#)
    );
    let writer = line(r#""name":"Line","aliases":["x.Line","y.Line"]"#, r#""int""#);
    let error = rows(
        &fields(&reader),
        &fields(&format!(r#"{{"name":"a","type":{writer}}},{{"name":"b","type":"Line"}}"#)),
        &[],
    );
    assert_eq!(
        error.unwrap_err(),
        "writer schema 1: its type `Line` is read in two ways, which have not the same JSON"
    );
}

/// arrow-avro does not resolve a name that a writer's schema refers to.
#[test]
fn a_type_that_a_writer_uses_twice_is_resolved_each_time() {
    let x = |fields: &str| format!(r#"{{"type":"record","name":"X","fields":[{fields}]}}"#);
    let (a, b) = (r#"{"name":"a","type":"string"}"#, r#"{"name":"b","type":"string"}"#);
    let writer =
        fields(&format!(r#"{{"name":"p","type":{}}},{{"name":"q","type":"X"}}"#, x(&format!("{a},{b}"))));
    let datum: &[u8] = &[2, b'1', 2, b'2', 2, b'3', 2, b'4'];
    let q = |fields_of_x: &str| fields(&format!(r#"{{"name":"q","type":{}}}"#, x(fields_of_x)));
    assert_eq!(
        rows(&q(&format!("{b},{a}")), &writer, &[datum]),
        Ok(vec![r#"{"q":{"b":"4","a":"3"}}"#.into()])
    );
    assert_eq!(rows(&q(b), &writer, &[datum]), Ok(vec![r#"{"q":{"b":"4"}}"#.into()]));
    // A reader that uses it twice, too, and knows less of it.
    let reader = fields(&format!(r#"{{"name":"p","type":{}}},{{"name":"q","type":"X"}}"#, x(a)));
    assert_eq!(rows(&reader, &writer, &[datum]), Ok(vec![r#"{"p":{"a":"1"},"q":{"a":"3"}}"#.into()]));
}

#[test]
fn schemas_that_unfold_are_bounded() {
    // Each type has the one before twice, and the next is defined inside of what becomes JSON.
    fn level(n: usize, of: usize, both: bool) -> String {
        let mut members = Vec::new();
        if n > 0 {
            members.push(format!(r#"{{"name":"p","type":["null","A{}"]}}"#, n - 1));
            members.extend(both.then(|| format!(r#"{{"name":"q","type":["null","A{}"]}}"#, n - 1)));
        }
        if n < of {
            members.push(format!(r#"{{"name":"u","type":["int","string",{}]}}"#, level(n + 1, of, both)));
        }
        format!(r#"{{"type":"record","name":"A{n}","fields":[{}]}}"#, members.join(","))
    }
    let schema = |both| {
        fields(&format!(
            r#"{{"name":"t","type":{}}},{{"name":"z","type":["null","A25"]}}"#,
            level(0, 25, both)
        ))
    };
    // What is not read is nothing; what is read has to be written out.
    assert_eq!(rows(&schema(false), &schema(true), &[]), Ok(vec![]));
    let error = rows(&schema(true), &schema(true), &[]).unwrap_err();
    assert_eq!(error, "the schema is too large: it has more than 4 MiB with each type where it is used");
    let chain: Vec<String> = (1..60)
        .map(|n| {
            format!(r#"{{"type":"record","name":"A{n}","fields":[{{"name":"f","type":"A{}"}}]}}"#, n - 1)
        })
        .collect();
    let chain = fields(&format!(
        r#"{{"name":"u","type":["int",{{"type":"record","name":"A0","fields":[]}},{}]}},{{"name":"x","type":"A59"}}"#,
        chain.join(",")
    ));
    let error = rows(&chain, &chain, &[]).unwrap_err();
    assert_eq!(error, "the schema is too large: its types nest too deep, with each where it is used");
    // Everything in everything: what is described ends, too.
    fn all(n: usize, of: usize) -> String {
        let mut members: Vec<String> =
            (0..n).map(|m| format!(r#"{{"name":"f{m}","type":["null","T{m}"]}}"#)).collect();
        members.extend((n + 1 < of).then(|| format!(r#"{{"name":"d","type":["null",{}]}}"#, all(n + 1, of))));
        format!(r#"{{"type":"record","name":"T{n}","fields":[{}]}}"#, members.join(","))
    }
    let all = fields(&format!(r#"{{"name":"t","type":{}}},{{"name":"z","type":"T24"}}"#, all(0, 25)));
    assert_eq!(avro_descriptions(&all).unwrap().len(), 0);
    assert_eq!(decoder(&all).unwrap().schema().fields().len(), 2);
}

/// What a text of JSON is written as, as apache-avro reads it; or why it is not.
fn written(schema: &str, text: Option<&str>) -> std::result::Result<Value, String> {
    let mut decoder = decoder(schema).unwrap();
    decoder.add_writer_schema(1, schema).unwrap();
    let columns = decoder.schema();
    let column = std::sync::Arc::new(StringArray::from(vec![text])) as arrow_array::ArrayRef;
    let batch =
        arrow_array::RecordBatch::try_new(columns.clone(), vec![column]).map_err(|e| e.to_string())?;
    let mut encoder = AvroEncoder::new(&columns, schema, 1).unwrap();
    let value = encoder.encode(&batch).map_err(|e| e.to_string())?.remove(0);
    // It is a whole datum for us, too.
    assert_eq!(decode(&mut decoder, std::slice::from_ref(&value)).undecodable, []);
    let schema = Schema::parse_str(schema).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
    let Value::Record(mut fields) = reader.read_value(&mut &value[5..]).unwrap() else { panic!("a record") };
    Ok(fields.remove(0).1)
}

#[test]
fn texts_of_json_become_the_values_that_they_stand_for() {
    let schema = |types: &str| fields(&format!(r#"{{"name":"u","type":[{types}]}}"#));
    let times = r#""null",{"type":"int","logicalType":"date"},{"type":"long","logicalType":"timestamp-micros"},"string""#;
    assert_eq!(written(&schema(times), Some(r#"{"int":"1969-12-31"}"#)), Ok(of(1, Value::Date(-1))));
    let at = |text: &str| written(&schema(times), Some(&format!(r#"{{"long":"{text}"}}"#)));
    assert_eq!(at("2026-11-29T10:00:00.000001Z"), Ok(of(2, Value::TimestampMicros(1_795_946_400_000_001))));
    assert_eq!(at("1969-12-31T23:59:59.999999Z"), Ok(of(2, Value::TimestampMicros(-1))));
    assert!(
        at("2026-11-29T10:00:00.0000001Z")
            .unwrap_err()
            .contains("field u.long: the text is no `timestamp-micros`")
    );
    assert_eq!(at("2026-11-29T12:00:00.5+02:00"), at("2026-11-29T10:00:00.5Z"));
    assert!(at("9999-12-31T23:59:59.999999Z").is_ok() && at("0000-01-01T00:00:00Z").is_ok());
    for text in [
        "2026-11-29T10:00:00",
        "soon",
        "2016-12-31T23:59:60Z",
        "2026-11-29",
        "2026-11-29T10:00Z",
        "T10",
        "2026-07-01T10:00:00+05:00[Europe/Berlin]",
        "2026-11-29T10:00:00.Z",
        "2026-02-30T10:00:00Z",
        "é26-11-29T10:00:00+02:00",
    ] {
        assert!(at(text).is_err(), "{text}");
    }
    let local = r#"{"type":"long","logicalType":"local-timestamp-micros"},{"type":"int","logicalType":"time-millis"}"#;
    let local = |text: &str| written(&schema(local), Some(text));
    assert_eq!(local(r#"{"long":"1970-01-01T00:00:00.000001"}"#), Ok(of(0, Value::LocalTimestampMicros(1))));
    assert_eq!(local(r#"{"int":"00:00:01.5"}"#), Ok(of(1, Value::TimeMillis(1_500))));
    for text in [
        "{\"long\":\"2026-11-29T10:00:00+02:00\"}",
        "{\"long\":\"2026-11-29\"}",
        "{\"int\":\"10:00:00+05:00\"}",
        "{\"int\":\"10\"}",
    ] {
        assert!(local(text).is_err(), "{text}");
    }
    let floats = |text: &str| written(&schema(r#""float","double""#), Some(text));
    assert_eq!(floats(r#"{"float":7.038531e-26}"#), Ok(of(0, Value::Float(7.038531e-26))));
    assert!(floats(r#"{"float":1e39}"#).unwrap_err().contains("a number of 32 bits is wanted"));
    assert!(floats(r#"{"float":"Infinity"}"#).is_ok() && floats(r#"{"double":"1"}"#).is_err());
    assert_eq!(written(&schema(times), None), Ok(of(0, Value::Null)));

    let decimals =
        r#""int",{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":8,"scale":2}"#;
    let decimal = |text: &str| {
        let value = written(&schema(decimals), Some(&format!(r#"{{"D":"{text}"}}"#)))?;
        let Value::Union(1, inner) = value else { panic!("{value:?}") };
        let Value::Decimal(inner) = *inner else { panic!("{inner:?}") };
        Ok::<_, String>(Vec::<u8>::try_from(inner).unwrap())
    };
    assert_eq!(decimal("-0.01").unwrap(), [0xff; 4]);
    assert_eq!(decimal("123456.7").unwrap(), 12_345_670i32.to_be_bytes());
    assert_eq!(decimal("0").unwrap(), [0; 4]);
    for text in ["1234567.00", "1.001", "1e3", "", "-", ".5", "1.2.3", "+1"] {
        let error = decimal(text).unwrap_err();
        assert!(
            error.contains(
                "field u.D: it is a text, and a text of a decimal of 8 digits, 2 behind the point is wanted"
            ),
            "{error}"
        );
    }

    let several = r#""null","int",{"type":"record","name":"R2","fields":[{"name":"a","type":"string"},{"name":"b","type":["null","double"]}]},
        {"type":"enum","name":"E","symbols":["X","Y"]},{"type":"map","values":"bytes"},{"type":"array","items":["null","boolean"]}"#;
    let several = |text: &str| written(&schema(several), Some(text));
    let b = |value: Value| record(&[("a", Value::String("é".into())), ("b", value)]);
    assert_eq!(several(r#"{"R2":{"a":"é"}}"#), Ok(of(2, b(of(0, Value::Null)))));
    assert_eq!(several(r#"{"R2":{"b":0.1,"a":"é"}}"#), Ok(of(2, b(of(1, Value::Double(0.1))))));
    assert_eq!(
        several(r#"{"R2":{"b":"-Infinity","a":"é"}}"#),
        Ok(of(2, b(of(1, Value::Double(f64::NEG_INFINITY)))))
    );
    assert_eq!(several(r#"{"E":"Y"}"#), Ok(of(3, Value::Enum(1, "Y".into()))));
    assert_eq!(
        several(r#"{"map":{"k":"/w=="}}"#),
        Ok(of(4, Value::Map([("k".to_owned(), Value::Bytes(vec![255]))].into())))
    );
    let booleans = vec![of(0, Value::Null), of(1, Value::Boolean(true))];
    assert_eq!(several(r#"{"array":[null,true]}"#), Ok(of(5, Value::Array(booleans))));
    for (text, why) in [
        (
            "7",
            "field u: a value of several types is an object with the name of its type, such as {\"int\": ..}; these are int, R2, E, map, array",
        ),
        (r#"{"long":7}"#, "field u: a value of several types"),
        (r#"{"int":7,"E":"X"}"#, "field u: a value of several types"),
        (r#"{"int":2147483648}"#, "field u.int: it is a number, and an integer of 32 bits is wanted"),
        (r#"{"int":1.5}"#, "field u.int: it is a number, and an integer of 32 bits is wanted"),
        (r#"{"R2":{}}"#, "field u.R2.a: it is not there"),
        (r#"{"R2":{"a":"","c":1}}"#, "field u.R2: there is no field `c`; there are a, b"),
        (r#"{"E":"Z"}"#, "field u.E: it is a text, and one of X, Y is wanted"),
        (r#"{"map":{"k":"?"}}"#, "field u.map.k: it is a text, and bytes in base64 is wanted"),
        ("{", "field u: the text is not JSON: EOF"),
        (r#"{"map":{"$serde_json::private::RawValue":"{}"}}"#, "serde_json's own"),
    ] {
        let error = several(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn records_that_contain_themselves_are_written_as_deep_as_they_are_read() {
    let nested = |levels: usize| {
        let leaf = r#"{"name":"x","parent":null,"children":[],"by_name":{},"size":1}"#.to_owned();
        (0..levels).fold(leaf, |inner, _| {
            format!(r#"{{"name":"x","parent":null,"children":[{inner}],"by_name":{{"k":null}},"size":1}}"#)
        })
    };
    let schema = fields(&format!(r#"{{"name":"c","type":["null",{TREE},"int"]}}"#));
    let text = |levels| format!(r#"{{"shop.Category":{}}}"#, nested(levels));
    assert!(matches!(written(&schema, Some(&text(20))), Ok(Value::Union(1, _))));
    let mut refused = 0;
    for levels in 20..70 {
        // Whatever is written is read: `written` holds it against the decoder.
        if let Err(error) = written(&schema, Some(&text(levels))) {
            let why = ["nests deeper", "deeper nesting", "not JSON"];
            assert!(why.iter().any(|why| error.contains(why)), "{error}");
            refused += 1;
        } else {
            assert_eq!(refused, 0, "{levels}");
        }
    }
    assert!(refused > 0);
}
