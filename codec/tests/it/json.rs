//! JSON to columns.

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, RecordBatch};
use gristmill_codec::{Cause, Decoded, ErrorKind, JsonDecoder, JsonOptions, SchemaSpec};
use proptest::prelude::*;

const SPEC: &str = r#"{
    "id": "int64 not null", "name": "string", "total": "decimal(9,2)", "at": "timestamp_ms", "day": "date",
    "ok": "bool", "small": "int8", "ratio": "float64", "tags": "list<string not null>",
    "who": {"mail": "string", "age": "int32 not null"}, "lines": [{"sku": "string not null", "n": "uint16"}],
    "extra": "map<int32>"
}"#;

fn decoder(spec: &str, options: JsonOptions) -> JsonDecoder {
    let spec: SchemaSpec = serde_json::from_str(spec).unwrap();
    JsonDecoder::new(spec.arrow_schema().unwrap(), options).unwrap()
}

fn options(edit: impl FnOnce(&mut JsonOptions)) -> JsonOptions {
    let mut options = JsonOptions::default();
    edit(&mut options);
    options
}

fn decode(decoder: &mut JsonDecoder, rows: &[&str]) -> Decoded {
    decoder.decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_bytes())))).unwrap()
}

fn reason(spec: &str, row: &str) -> String {
    let decoded = decode(&mut decoder(spec, JsonOptions::default()), &[row]);
    assert_eq!(decoded.rows.len(), 0, "{row} was decoded");
    decoded.undecodable[0].reason.clone()
}

#[test]
fn every_declared_type_is_read() {
    let row = r#" {"id": "12", "name": "a\u00e9\n", "total": 12.5, "at": "2026-11-22T10:00:00.123Z", "day": "1970-01-11",
        "ok": true, "small": -128, "ratio": "1e-3", "tags": ["x", ""], "who": {"mail": null, "age": 3.0},
        "lines": [{"sku": "s", "n": 65535}, {"sku": "t"}], "extra": {"k": 1, "l": null}, "ignored": [[{}]]} "#;
    let decoded = decode(&mut decoder(SPEC, JsonOptions::default()), &[row, r#"{"id": 1}"#]);
    assert_eq!(decoded.undecodable, []);
    let batch = &decoded.batch;
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert_eq!(column("id").as_primitive::<Int64Type>().values(), &[12, 1]);
    assert_eq!(column("name").as_string::<i32>().value(0), "aé\n");
    assert_eq!(column("total").as_primitive::<Decimal128Type>().value(0), 1250);
    assert_eq!(column("at").as_primitive::<TimestampMillisecondType>().value(0), 1_795_341_600_123);
    let lines = column("lines").as_list::<i32>().value(0);
    assert_eq!(
        lines.as_struct().column(0).as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("s"), Some("t")]
    );
    assert_eq!(column("who").as_struct().column(1).as_primitive::<Int32Type>().value(0), 3);
    assert_eq!(column("extra").as_map().value_length(0), 2);
    for (column, field) in batch.columns().iter().zip(batch.schema().fields()) {
        assert_eq!(column.is_null(1), field.name() != "id", "{}", field.name());
    }
}

#[test]
fn reasons_name_the_field_and_what_was_expected_and_quote_nothing() {
    for (row, expected) in [
        (r#"{"id": "s3cret"}"#, "field id: expected int64, got a string that does not fit it exactly"),
        (r#"{"id": 1.5}"#, "field id: expected int64, got a number that does not fit it exactly"),
        (
            r#"{"id": 9223372036854775808}"#,
            "field id: expected int64, got a number that does not fit it exactly",
        ),
        (r#"{"id": [1]}"#, "field id: expected int64, got an array"),
        (r#"{}"#, "field id: missing, and declared `not null`"),
        (r#"{"id": null}"#, "field id: null, and declared `not null`"),
        (
            r#"{"id": 1, "id": "s3cret"}"#,
            "field id: expected int64, got a string that does not fit it exactly",
        ),
        (
            r#"{"id": 1, "total": 1.005}"#,
            "field total: expected decimal(9,2), got a number that does not fit it exactly",
        ),
        (
            r#"{"id": 1, "at": "2026-11-22 10:00:00"}"#,
            "field at: expected timestamp_ms, got a string that does not fit it exactly",
        ),
        (r#"{"id": 1, "ok": "true"}"#, "field ok: expected bool, got a string"),
        (
            r#"{"id": 1, "small": 128}"#,
            "field small: expected int8, got a number that does not fit it exactly",
        ),
        (
            r#"{"id": 1, "ratio": 1e999}"#,
            "field ratio: expected float64, got a number that does not fit it exactly",
        ),
        (r#"{"id": 1, "name": 17}"#, "field name: expected string, got a number"),
        (r#"{"id": 1, "tags": "s3cret"}"#, "field tags: expected an array, got a string"),
        (r#"{"id": 1, "tags": ["a", null]}"#, "field tags[1]: null, and declared `not null`"),
        (r#"{"id": 1, "who": {"mail": "s3cret"}}"#, "field who.age: missing, and declared `not null`"),
        (
            r#"{"id": 1, "lines": [{"sku": "a"}, {"sku": "b", "n": -1}]}"#,
            "field lines[1].n: expected uint16, got a number that does not fit it exactly",
        ),
        (
            r#"{"id": 1, "extra": {"a": 1, "s3cret": "x"}}"#,
            "field extra[2nd entry]: expected int32, got a string that does not fit it exactly",
        ),
        (r#"{"id": 1"#, "not one JSON object: the end of a truncated value at byte 8"),
        (r#"["s3cret"]"#, "not one JSON object: an array where an object is expected at byte 0"),
        ("", "not one JSON object: no JSON value at all at byte 0"),
        ("null", "not one JSON object: a literal where an object is expected at byte 0"),
        (r#"{"id":1}{"id":2}"#, "not one JSON object: bytes after the end of the JSON object at byte 8"),
    ] {
        assert_eq!(reason(SPEC, row), expected);
    }
}

#[test]
fn values_are_quoted_only_where_that_is_allowed() {
    let mut shown = decoder(SPEC, options(|o| o.show_values = true));
    let decoded = decode(&mut shown, &[r#"{"id": "s3cret"}"#, r#"{"id": 1, "extra": {"k": "v"}}"#]);
    assert_eq!(
        decoded.undecodable[0].reason,
        r#"field id: expected int64, got a string that does not fit it exactly: "s3cret""#
    );
    assert_eq!(
        decoded.undecodable[1].reason,
        r#"field extra["k"]: expected int32, got a string that does not fit it exactly: "v""#
    );
}

#[test]
fn undeclared_members_are_ignored_or_refused_as_asked() {
    let rows = [
        r#"{"id": 1, "s3cret": 2}"#,
        r#"{"id": 1, "who": {"age": 1, "x": 2}}"#,
        r#"{"id": 1, "extra": {"any": 1}}"#,
    ];
    assert_eq!(decode(&mut decoder(SPEC, JsonOptions::default()), &rows).rows, [0, 1, 2]);
    let decoded = decode(&mut decoder(SPEC, options(|o| o.strict = true)), &rows);
    assert_eq!(decoded.rows, [2]);
    assert_eq!(decoded.undecodable[0].reason, "the object has an undeclared member (its 2nd of 2)");
    assert_eq!(decoded.undecodable[1].reason, "field who has an undeclared member (its 2nd of 2)");
}

#[test]
fn tombstones_and_registry_prefixes_are_told_apart() {
    let prefixed = b"\0\0\0\0\x07{\"id\":1}";
    let rows: [(u64, Option<&[u8]>); 3] = [(1, None), (2, Some(prefixed)), (3, Some(b""))];
    let decoded = decoder(SPEC, JsonOptions::default()).decode(rows).unwrap();
    let causes: Vec<_> = decoded.undecodable.iter().map(|u| (u.row, u.cause)).collect();
    assert_eq!(causes, [(1, Cause::NullValue), (2, Cause::Malformed), (3, Cause::Malformed)]);
    assert!(decoded.undecodable[1].reason.contains("the Schema Registry's prefix"));
    let decoded = decoder(SPEC, options(|o| o.registry_prefix = true)).decode(rows).unwrap();
    assert_eq!(decoded.rows, [2]);
}

#[test]
fn bombs_are_refused_and_their_neighbours_are_not() {
    let deep = format!(r#"{{"id": 1, "x": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let digits = format!(r#"{{"id": {}}}"#, "9".repeat(1_000_000));
    let exponent = format!(r#"{{"id": 1e{}}}"#, "9".repeat(1_000_000));
    let wide = format!(r#"{{"id": 7, "x": [{}1]}}"#, "1,".repeat(300_000));
    let decoded = decode(
        &mut decoder(SPEC, JsonOptions::default()),
        &[&deep, &digits, &exponent, &wide, r#"{"id": 8}"#],
    );
    assert_eq!(decoded.rows, [3, 4]);
    assert_eq!(decoded.batch.column(0).as_primitive::<Int64Type>().values(), &[7, 8]);
}

#[test]
fn types_that_json_has_no_form_for_are_refused_when_declared() {
    for spec in [r#"{"b": "bytes"}"#, r#"{"l": [{"b": "bytes"}]}"#, r#"{"m": "map<bytes>"}"#] {
        let spec: SchemaSpec = serde_json::from_str(spec).unwrap();
        let error = JsonDecoder::new(spec.arrow_schema().unwrap(), JsonOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedType);
        assert!(error.to_string().contains("declare it as string"), "{error}");
    }
}

/// Arrow-json on its own would make these of the same records; see `json/columns.rs` and `json/syntax.rs`.
#[test]
fn what_arrow_json_alone_would_lose_or_accept() {
    use arrow_array::types::Float64Type;
    use arrow_schema::{DataType, Field, Schema};
    let alone = |json: &str, data_type: DataType| -> RecordBatch {
        let schema = std::sync::Arc::new(Schema::new(vec![Field::new("a", data_type, true)]));
        let mut decoder = arrow_json::ReaderBuilder::new(schema).build_decoder().unwrap();
        decoder.decode(json.as_bytes()).unwrap();
        decoder.flush().unwrap().unwrap()
    };
    assert_eq!(alone(r#"{"a":1.7}"#, DataType::Int64).column(0).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(
        alone(r#"{"a":1.005}"#, DataType::Decimal128(9, 2))
            .column(0)
            .as_primitive::<Decimal128Type>()
            .value(0),
        101
    );
    assert!(
        alone(r#"{"a":1e999}"#, DataType::Float64)
            .column(0)
            .as_primitive::<Float64Type>()
            .value(0)
            .is_infinite()
    );
    assert_eq!(alone(r#"{"a":1}{"a":2}"#, DataType::Int64).num_rows(), 2);
    assert_eq!(alone(r#"{"x":2 "a":1,,}"#, DataType::Int64).num_rows(), 1);
    for row in [r#"{"a":1.7}"#, r#"{"a":1}{"a":2}"#, r#"{"x":2 "a":1,,}"#] {
        reason(r#"{"a": "int64"}"#, row);
    }
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => any::<i32>().prop_map(|n| n.to_string()),
        2 => "[a-z\"\\\\é]{0,6}".prop_map(|s| serde_json::to_string(&s).unwrap()),
        1 => Just("null".to_owned()),
        1 => Just("true".to_owned()),
        1 => Just("1.5".to_owned()),
        1 => Just(r#"["a","b"]"#.to_owned()),
        1 => Just(r#"{"mail":"x","age":1}"#.to_owned()),
    ]
}

fn row() -> impl Strategy<Value = Option<Vec<u8>>> {
    let member = (prop::sample::select(vec!["id", "name", "total", "tags", "who", "other"]), value());
    let object = prop::collection::vec(member, 0..5).prop_map(|members| {
        let members: Vec<String> =
            members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    });
    let object = object.boxed();
    prop_oneof![
        6 => any::<i64>().prop_map(|n| Some(format!(r#"{{"id":{n},"name":"n{n}"}}"#).into_bytes())),
        6 => object.clone().prop_map(|o| Some(o.into_bytes())),
        2 => (object, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(o, at, byte)| {
            let mut bytes = o.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            Some(bytes)
        }),
        1 => prop::collection::vec(any::<u8>(), 0..30).prop_map(Some),
        1 => Just(None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every row is accounted for, in order, and decodes to what it decodes to alone.
    #[test]
    fn a_row_is_decoded_the_same_whatever_is_around_it(rows in prop::collection::vec(row(), 0..40), strict in any::<bool>()) {
        let mut decoder = decoder(SPEC, options(|o| o.strict = strict));
        let tag = |i: usize| 1000 - 3 * i as u64;
        let whole = decoder.decode(rows.iter().enumerate().map(|(i, r)| (tag(i), r.as_deref()))).unwrap();
        prop_assert_eq!(whole.batch.num_rows(), whole.rows.len());
        prop_assert_eq!(whole.rows.len() + whole.undecodable.len(), rows.len());
        let (mut good, mut bad) = (0, 0);
        for (i, row) in rows.iter().enumerate() {
            let alone = decoder.decode([(tag(i), row.as_deref())]).unwrap();
            if let Some(undecodable) = alone.undecodable.first() {
                prop_assert_eq!(undecodable, &whole.undecodable[bad]);
                bad += 1;
            } else {
                prop_assert_eq!(whole.rows[good], tag(i));
                prop_assert_eq!(&alone.batch, &whole.batch.slice(good, 1));
                good += 1;
            }
        }
    }
}

/// As serialisers write it that keep to ASCII, such as Python's: characters outside the basic plane are surrogate pairs.
fn in_ascii(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

proptest! {
    #[test]
    fn every_character_is_itself_however_it_is_escaped(
        around in any::<String>(),
        outside in prop::collection::vec(prop::char::range('\u{10000}', '\u{10ffff}'), 1..4),
    ) {
        let texts: Vec<String> = outside.iter().map(|c| format!("{around}{c}{around}{c}")).collect();
        let row = |text| format!(r#"{{"name": "{0}", "extra": {{"{0}": 1}}}}"#, in_ascii(text));
        let rows: Vec<String> = texts.iter().map(|text| row(text)).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let mut decoder = decoder(r#"{"name": "string", "extra": "map<int32>"}"#, JsonOptions::default());
        let decoded = decode(&mut decoder, &rows);
        prop_assert_eq!(&decoded.undecodable, &[]);
        let names = decoded.batch.column(0).as_string::<i32>();
        prop_assert_eq!(names.iter().flatten().collect::<Vec<_>>(), texts.clone());
        let keys = decoded.batch.column(1).as_map().keys().as_string::<i32>();
        prop_assert_eq!(keys.iter().flatten().collect::<Vec<_>>(), texts);
    }
}

#[test]
fn seconds_that_have_no_milliseconds_are_refused_at_their_record() {
    let spec = r#"{"at": "timestamp_s"}"#;
    let most = i64::MAX / 1000;
    let decoded = decode(
        &mut decoder(spec, JsonOptions::default()),
        &[
            &format!("{{\"at\": {most}}}"),
            &format!("{{\"at\": {}}}", most + 1),
            &format!("{{\"at\": -{most}}}"),
        ],
    );
    assert_eq!(decoded.rows, [0, 2]);
    assert_eq!(decoded.undecodable[0].cause, Cause::Mismatch);
}
