//! Protobuf in the registry's wire format and bare. Messages are encoded by prost-reflect.

use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_schema::{DataType, TimeUnit};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use gristmill_codec::{
    Cause, Decoded, ErrorKind, ProtobufDecoder, ProtobufEncoder, ProtobufOptions, SchemaId, Value as Framed,
    inline_protobuf_imports, protobuf_descriptions, rows_as_json,
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

/// Each type, in each of the ways in which a field may have it.
pub(crate) const ORDER: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/empty.proto";
import "google/type/date.proto";
import "google/type/timeofday.proto";

// An order
// of the shop.
message Order {
  // Its number.
  int64 id = 1;
  string name = 2;
  optional int32 count = 3;
  sint32 delta = 4;
  uint32 u32 = 5;
  uint64 u64 = 6;
  sint64 s64 = 7;
  fixed32 f32 = 8;
  fixed64 f64 = 9;
  sfixed32 sf32 = 10;
  sfixed64 sf64 = 11;
  float ratio = 12;
  double total = 13;
  bool paid = 14;
  bytes raw = 15;
  Status status = 16;
  Customer customer = 17;
  repeated Line lines = 18;
  repeated int32 numbers = 19;
  repeated string tags = 20;
  repeated Status states = 21;
  map<string, int64> counts = 22;
  map<int32, Line> by_number = 23;
  map<bool, string> flags = 24;
  oneof payment {
    string card = 25;
    Customer invoice = 26;
    google.protobuf.Empty cash = 27;
  }
  google.protobuf.Timestamp placed = 28;
  repeated google.protobuf.Timestamp seen = 29;
  google.type.Date due = 30;
  google.type.TimeOfDay at = 31;
  google.protobuf.Int64Value maybe = 32;
  google.protobuf.StringValue note = 33;
  google.protobuf.Struct extra = 34;
  google.protobuf.Value anything = 35;
  repeated google.protobuf.BoolValue answers = 36;
  optional string remark = 5000;
  map<string, google.protobuf.Timestamp> times = 5001;
  message Line { string sku = 1; uint32 quantity = 2; repeated double prices = 3; }
}
enum Status { UNKNOWN = 0; NEW = 1; option allow_alias = true; FRESH = 1; GONE = -2; }
message Customer {
  // Where letters go.
  string email = 1;
  optional int32 age = 2;
  Address address = 3;
}
message Address { string city = 1; repeated string lines = 2; }
"#;

pub(crate) fn pool(schema: &str) -> DescriptorPool {
    DescriptorPool::decode(&*BASE64.decode(inline_protobuf_imports(schema, []).unwrap()).unwrap()).unwrap()
}

/// The message of a pool that Protobuf's JSON says.
fn message(pool: &DescriptorPool, name: &str, json: Value) -> Vec<u8> {
    let of = pool.get_message_by_name(name).unwrap();
    DynamicMessage::deserialize(of, json).unwrap().encode_to_vec()
}

fn framed(id: u32, indexes: &[u8], body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], indexes, body].concat()
}

fn decode(decoder: &mut ProtobufDecoder, rows: &[Vec<u8>]) -> Decoded {
    decoder.decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_slice())))).unwrap()
}

pub(crate) fn bare(schema: &str) -> ProtobufDecoder {
    let mut options = ProtobufOptions::default();
    options.bare = true;
    // The first is the one.
    options.message =
        schema.split("message ").nth(1).and_then(|rest| Some(rest.split_whitespace().next()?.to_owned()));
    ProtobufDecoder::new(schema, &options).unwrap()
}

fn field(number: u32, wire: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | wire), &mut bytes);
    if wire == 2 {
        prost::encoding::encode_varint(value.len() as u64, &mut bytes);
    }
    bytes.extend(value);
    bytes
}

#[test]
fn every_type_has_its_column() {
    let decoder = bare(ORDER);
    let schema = decoder.schema();
    let mut told = String::new();
    for field in schema.fields() {
        let null = if field.is_nullable() { "" } else { " not null" };
        writeln!(told, "{}: {}{null}", field.name(), field.data_type()).unwrap();
    }
    let line = r#"Struct("sku": non-null Utf8, "quantity": non-null UInt32, "prices": non-null List(non-null Float64))"#;
    let address = r#"Struct("city": non-null Utf8, "lines": non-null List(non-null Utf8))"#;
    let customer = format!(r#"Struct("email": non-null Utf8, "age": Int32, "address": {address})"#);
    let map = |value: &str| {
        format!(r#"Map("entries": non-null Struct("key": non-null Utf8, "value": {value}), unsorted)"#)
    };
    let expected = [
        "id: Int64 not null",
        "name: Utf8 not null",
        "count: Int32",
        "delta: Int32 not null",
        "u32: UInt32 not null",
        "u64: UInt64 not null",
        "s64: Int64 not null",
        "f32: UInt32 not null",
        "f64: UInt64 not null",
        "sf32: Int32 not null",
        "sf64: Int64 not null",
        "ratio: Float32 not null",
        "total: Float64 not null",
        "paid: Boolean not null",
        "raw: Binary not null",
        "status: Utf8 not null",
        &format!("customer: {customer}"),
        &format!("lines: List(non-null {line}) not null"),
        "numbers: List(non-null Int32) not null",
        "tags: List(non-null Utf8) not null",
        "states: List(non-null Utf8) not null",
        &format!("counts: {} not null", map("non-null Int64")),
        &format!("by_number: {} not null", map(&format!("non-null {line}"))),
        &format!("flags: {} not null", map("non-null Utf8")),
        "card: Utf8",
        &format!("invoice: {customer}"),
        "cash: Utf8",
        r#"placed: Timestamp(µs, "UTC")"#,
        r#"seen: List(non-null Timestamp(µs, "UTC")) not null"#,
        "due: Date32",
        "at: Time64(µs)",
        "maybe: Int64",
        "note: Utf8",
        "extra: Utf8",
        "anything: Utf8",
        "answers: List(non-null Boolean) not null",
        "remark: Utf8",
        &format!("times: {} not null", map(r#"non-null Timestamp(µs, "UTC")"#)),
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn values_come_as_they_were_written() {
    let pool = pool(ORDER);
    let full = message(
        &pool,
        "shop.Order",
        json!({"id": "-5", "name": "Ada", "count": 0, "delta": -3, "u32": 4294967295u32, "u64": "18446744073709551615",
            "s64": "-9223372036854775808", "f32": 7, "f64": "8", "sf32": -9, "sf64": "-10", "ratio": 0.5, "total": -1.25,
            "paid": true, "raw": "AAE=", "status": "NEW", "customer": {"email": "a@x", "address": {"city": "Y"}},
            "lines": [{"sku": "a", "quantity": 2, "prices": [1.5, 2.5]}, {}], "numbers": [1, -1], "tags": ["x", ""],
            "states": ["GONE", "UNKNOWN", 77], "counts": {"a": "1"}, "byNumber": {"-4": {"sku": "z"}}, "flags": {"true": "y"},
            "cash": {}, "placed": "2026-11-29T12:00:00.123456Z", "seen": ["0001-01-01T00:00:00Z"],
            "due": {"year": 1969, "month": 12, "day": 31}, "at": {"hours": 23, "minutes": 59, "seconds": 59, "nanos": 999999000},
            "maybe": "0", "note": "", "extra": {"a": [1, null, "b"]}, "anything": [true], "answers": [false, true],
            "remark": "r", "times": {"t": "1970-01-01T00:00:01Z"}}),
    );
    let decoded = decode(&mut bare(ORDER), &[full, Vec::new()]);
    assert_eq!(decoded.rows, [0, 1], "{:?}", decoded.undecodable);
    let rows = rows_as_json(&decoded.batch).unwrap();
    let customer = json!({"email": "a@x", "address": {"city": "Y", "lines": []}});
    let expected = json!({"id": -5, "name": "Ada", "count": 0, "delta": -3, "u32": 4294967295u32, "u64": 18446744073709551615u64,
        "s64": i64::MIN, "f32": 7, "f64": 8, "sf32": -9, "sf64": -10, "ratio": 0.5, "total": -1.25, "paid": true, "raw": "0001",
        "status": "NEW", "customer": customer, "lines": [{"sku": "a", "quantity": 2, "prices": [1.5, 2.5]},
        {"sku": "", "quantity": 0, "prices": []}], "numbers": [1, -1], "tags": ["x", ""], "states": ["GONE", "UNKNOWN", "77"],
        "counts": {"a": 1}, "by_number": {"-4": {"sku": "z", "quantity": 0, "prices": []}}, "flags": {"true": "y"}, "cash": "{}",
        "placed": "2026-11-29T12:00:00.123456Z", "seen": ["0001-01-01T00:00:00Z"], "due": "1969-12-31", "at": "23:59:59.999999",
        "maybe": 0, "note": "", "extra": "{\"a\":[1.0,null,\"b\"]}", "anything": "[true]", "answers": [false, true], "remark": "r",
        "times": {"t": "1970-01-01T00:00:01Z"}});
    assert_eq!(Value::Object(rows[0].clone()), expected);
    let empty = json!({"id": 0, "name": "", "delta": 0, "u32": 0, "u64": 0, "s64": 0, "f32": 0, "f64": 0, "sf32": 0, "sf64": 0,
        "ratio": 0.0, "total": 0.0, "paid": false, "raw": "", "status": "UNKNOWN", "lines": [], "numbers": [], "tags": [],
        "states": [], "counts": {}, "by_number": {}, "flags": {}, "seen": [], "answers": [], "times": {}});
    assert_eq!(Value::Object(rows[1].clone()), empty);
}

#[test]
fn a_field_that_comes_again_replaces_and_a_message_adds() {
    let pool = pool(ORDER);
    let part = |json: Value| message(&pool, "shop.Order", json);
    let rows = [
        // The last scalar counts, messages merge, lists go on.
        [part(json!({"name": "long", "customer": {"email": "a", "age": 1}, "numbers": [1], "placed": "1970-01-01T00:00:05Z"})),
         part(json!({"name": "b", "customer": {"age": 2, "address": {"city": "c"}}, "numbers": [2, 3]})),
         // The same field of 28, nanoseconds only.
         field(28, 2, &field(2, 0, &[0xc0, 0x84, 0x3d]))].concat(),
        // Of a oneof the last member counts.
        [part(json!({"card": "1"})), part(json!({"invoice": {"email": "i", "address": {"lines": ["l"]}}})), part(json!({"cash": {}}))].concat(),
        [part(json!({"cash": {}})), part(json!({"invoice": {"email": "i"}})), part(json!({"invoice": {"age": 3}}))].concat(),
        // A list as single values.
        [field(19, 0, &[7]), field(19, 2, &[8, 9]), field(19, 0, &[10])].concat(),
        // Fields that nobody knows, in each form, and a group.
        [field(999, 0, &[1]), field(999, 1, &[0; 8]), field(999, 2, b"xx"), field(999, 5, &[0; 4]),
         field(999, 3, &[field(1, 2, b"in"), field(5, 3, &field(5, 4, b""))].concat()), field(999, 4, b""), field(1, 0, &[1])].concat(),
    ];
    let decoded = decode(&mut bare(ORDER), &rows);
    assert_eq!(decoded.rows, [0, 1, 2, 3, 4], "{:?}", decoded.undecodable);
    let rows = rows_as_json(&decoded.batch).unwrap();
    assert_eq!(rows[0]["name"], "b");
    assert_eq!(rows[0]["customer"], json!({"email": "a", "age": 2, "address": {"city": "c", "lines": []}}));
    assert_eq!(rows[0]["numbers"], json!([1, 2, 3]));
    assert_eq!(rows[0]["placed"], "1970-01-01T00:00:05.001Z");
    assert_eq!(
        [rows[1].get("card"), rows[1].get("invoice"), rows[1].get("cash")],
        [None, None, Some(&json!("{}"))]
    );
    assert_eq!(rows[2].get("cash"), None);
    assert_eq!(rows[2]["invoice"], json!({"email": "i", "age": 3}));
    assert_eq!(rows[3]["numbers"], json!([7, 8, 9, 10]));
    assert_eq!(rows[4]["id"], 1);
}

#[test]
fn one_bad_message_costs_no_other() {
    let good =
        message(&pool(ORDER), "shop.Order", json!({"id": 1, "lines": [{"sku": "a"}], "counts": {"k": 1}}));
    let cut = good[..good.len() - 1].to_vec();
    let cases: Vec<(Vec<u8>, Cause, &str)> = vec![
        (
            cut,
            Cause::Malformed,
            "not one message `shop.Order`: field counts: it ends in the middle of a value",
        ),
        (
            field(1, 0, &[0xff; 11]),
            Cause::Malformed,
            "not one message `shop.Order`: field id: a varint has more than 64 bits",
        ),
        (
            vec![0],
            Cause::Malformed,
            "the value begins with the Schema Registry's prefix, and without a registry values are bare messages",
        ),
        (vec![7], Cause::Malformed, "a field has a number that Protobuf does not have"),
        (vec![15, 0], Cause::Malformed, "a field has a wire type that Protobuf does not have"),
        (field(900, 4, b""), Cause::Malformed, "a group ends that did not begin"),
        (
            [field(900, 3, b""), field(901, 4, b"")].concat(),
            Cause::Malformed,
            "a group ends that did not begin",
        ),
        (field(900, 3, b"").repeat(100), Cause::Malformed, "groups nest too deep"),
        (field(2, 2, b"\xff"), Cause::Malformed, "field name: it is not UTF-8 text: invalid at byte 0"),
        (
            [field(18, 2, &field(1, 2, b"kept?")), field(18, 2, &field(2, 2, b""))].concat(),
            Cause::Mismatch,
            "field lines.quantity: it is written as a length and bytes, where the schema has a varint",
        ),
        (
            field(1, 2, b"x"),
            Cause::Mismatch,
            "field id: it is written as a length and bytes, where the schema has a varint",
        ),
        (
            field(28, 2, &field(2, 0, &[0x80, 0x94, 0xeb, 0xdc, 0x03])),
            Cause::Mismatch,
            "field placed: it is outside of what a Timestamp, the years 1 to 9999 may be",
        ),
        (
            field(30, 2, &field(1, 0, &[5])),
            Cause::Mismatch,
            "field due: it is outside of what a whole date may be",
        ),
        (
            field(31, 2, &field(1, 0, &[24])),
            Cause::Mismatch,
            "field at: it is outside of what a time of a day may be",
        ),
        (
            field(22, 2, &field(1, 2, b"k")).repeat(2),
            Cause::Mismatch,
            "field counts: the map has a key twice",
        ),
        (
            field(34, 2, &field(1, 0, &[1])),
            Cause::Malformed,
            "field extra: it is not one message `google.protobuf.Struct`",
        ),
        (
            field(17, 2, &field(3, 2, &field(2, 2, b"\xc3"))),
            Cause::Malformed,
            "field customer.address.lines: it is not UTF-8",
        ),
    ];
    let rows: Vec<Vec<u8>> = cases.iter().flat_map(|(bad, ..)| [bad.clone(), good.clone()]).collect();
    let decoded = decode(&mut bare(ORDER), &rows);
    assert_eq!(decoded.undecodable.len(), cases.len());
    for ((_, cause, reason), bad) in cases.iter().zip(&decoded.undecodable) {
        assert_eq!(bad.cause, *cause, "{}", bad.reason);
        assert!(bad.reason.contains(reason), "{} for {reason}", bad.reason);
    }
    let shown = rows_as_json(&decoded.batch).unwrap();
    assert_eq!(shown.len(), cases.len());
    assert!(shown.iter().all(|row| *row == shown[0] && row["lines"][0]["sku"] == "a"));
    let null = bare(ORDER).decode([(0, None::<&[u8]>)]).unwrap();
    assert_eq!(null.undecodable[0].cause, Cause::NullValue);
}

#[test]
fn records_name_their_schema_and_their_message() {
    let schema = "syntax = \"proto3\"; package p; message Out { map<string,string> m = 1; message A { int32 x = 1; } message B { int32 x = 1; } }
        message Other { int32 x = 1; }";
    let of = |name: &str| {
        let mut options = ProtobufOptions::default();
        options.message = Some(name.to_owned());
        let mut decoder = ProtobufDecoder::new(schema, &options).unwrap();
        decoder.add_writer_schema(3, schema).unwrap();
        decoder
    };
    let body = field(1, 0, &[9]);
    let x = |decoded: Decoded| match decoded.undecodable.first() {
        Some(bad) => Err((bad.cause, bad.reason.clone())),
        None => Ok(decoded.batch.column(0).as_primitive::<Int32Type>().value(0)),
    };
    let row = |indexes: &[u8]| [framed(3, indexes, &body)];
    // [1], and as one index of a path that goes on.
    assert_eq!(x(decode(&mut of("Other"), &row(&[2, 2]))), Ok(9));
    // [0, 1]: the second without the maps' messages; with them the first. Which of them it is cannot be known.
    assert_eq!(x(decode(&mut of("p.Out.A"), &row(&[4, 0, 0]))), Ok(9));
    assert_eq!(x(decode(&mut of("p.Out.B"), &row(&[4, 0, 4]))), Ok(9));
    for name in ["p.Out.A", "p.Out.B"] {
        let (cause, reason) = x(decode(&mut of(name), &row(&[4, 0, 2]))).unwrap_err();
        assert_eq!(cause, Cause::Mismatch);
        assert_eq!(reason, format!("the record is `p.Out.B` or `p.Out.A`, and the columns are of `{name}`"));
    }
    // [0] in short.
    let (_, reason) = x(decode(&mut of("Other"), &row(&[0]))).unwrap_err();
    assert_eq!(reason, "the record is `p.Out`, and the columns are of `p.Other`");
    let (_, reason) = x(decode(&mut of("Other"), &row(&[2, 20]))).unwrap_err();
    assert_eq!(
        reason,
        "the record is a message that writer schema 3 does not have, and the columns are of `p.Other`"
    );
    for broken in [&[1][..], &[0x80], &[200, 1], &[4, 0]] {
        let row = [0u8, 0, 0, 0, 3].iter().chain(broken).copied().collect::<Vec<u8>>();
        let decoded = decode(&mut of("Other"), &[row]);
        assert_eq!(decoded.undecodable[0].cause, Cause::Malformed);
        assert!(
            decoded.undecodable[0].reason.contains("message indexes"),
            "{}",
            decoded.undecodable[0].reason
        );
    }
    let mut decoder = of("Other");
    let unknown = framed(8, &[2, 2], &body);
    assert_eq!(decoder.missing_schemas([Some(unknown.as_slice()), None]), [8]);
    assert_eq!(decode(&mut decoder, &[unknown]).undecodable[0].cause, Cause::UnknownSchema);
}

#[test]
fn writers_that_changed_what_the_wire_bears_are_read_and_others_are_not() {
    let reader = "syntax = \"proto3\"; message M { int64 a = 1; string b = 2; E e = 3; repeated int32 r = 4; bytes c = 5; M2 m = 6; }
        enum E { ZERO = 0; ONE = 1; } message M2 { int32 x = 1; }";
    let writer = |fields: &str| {
        format!(
            "syntax = \"proto3\"; message M {{ {fields} }} enum E {{ ZERO = 0; ONE = 1; TWO = 2; }}
        enum F {{ ZERO_F = 0; ONE_F = 1; }} message M2 {{ string x = 1; }}"
        )
    };
    let added = |fields: &str| {
        let mut options = ProtobufOptions::default();
        options.message = Some("M".into());
        let mut decoder = ProtobufDecoder::new(reader, &options).unwrap();
        decoder.add_writer_schema(1, &writer(fields)).map(|()| decoder)
    };
    for fine in [
        "int32 a = 1;",
        "bool a = 1;",
        "uint32 a = 1;",
        "string renamed = 2;",
        "E e = 3; int64 new = 77;",
        "int32 r = 4;",
        "string c = 5;",
        "",
    ] {
        added(fine).unwrap();
    }
    for (bad, why) in [
        ("sint64 a = 1;", "field a: the writer's is sint64, the columns' schema's int64"),
        ("uint64 a = 1;", "field a: the writer's is uint64, the columns' schema's int64"),
        ("bytes b = 2;", "field b: the writer's is bytes, the columns' schema's string"),
        ("repeated string b = 2;", "field b: the writer's is repeated, the columns' schema's single"),
        ("map<string, string> r = 4;", "field r: the writer's is a map, the columns' schema's repeated"),
        ("F e = 3;", "field e: 0 is `ZERO_F` to the writer and `ZERO` to the columns' schema"),
        ("M2 m = 6;", "field m.x: the writer's is string, the columns' schema's int32"),
    ] {
        let error = added(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IncompatibleSchema);
        assert_eq!(error.to_string(), format!("writer schema 1: {why}"));
    }
    // What may stand side by side does not become a choice.
    let of = |schema: &str| {
        let mut options = ProtobufOptions::default();
        options.recursive_as_json = true;
        ProtobufDecoder::new(schema, &options).unwrap()
    };
    let mut choice = of("syntax = \"proto3\"; message M { oneof o { int32 a = 1; string b = 2; } }");
    let both = "syntax = \"proto3\"; message M { int32 a = 1; string b = 2; }";
    let error = choice.add_writer_schema(1, both).unwrap_err().to_string();
    assert_eq!(
        error,
        "writer schema 1: field b: it is a member of a oneof, with others that the writer may have beside it"
    );
    choice
        .add_writer_schema(2, "syntax = \"proto3\"; message M { oneof other { int32 a = 1; string b = 2; } }")
        .unwrap();
    choice.add_writer_schema(3, "syntax = \"proto3\"; message M { int32 a = 1; }").unwrap();
    // A writer of many types ends, and so do enums of many names.
    let deep: String = (0..20_000).map(|i| format!("message A{i} {{ A{} next = 1; }} ", i + 1)).collect();
    let deep = format!(
        "syntax = \"proto3\"; message M {{ A0 next = 1; }} {deep} message A20000 {{ bool next = 1; }}"
    );
    let mut recursive = of("syntax = \"proto3\"; message M { M next = 1; int32 x = 2; }");
    let error = recursive.add_writer_schema(1, &deep).unwrap_err().to_string();
    assert!(
        error.ends_with("the writer's is bool, the columns' schema's M"),
        "{}",
        &error[error.len() - 100..]
    );
    let names: String = (0..20_000).map(|i| format!("N{i} = {i}; ")).collect();
    let names = format!("syntax = \"proto3\"; message M {{ E a = 1; E b = 2; }} enum E {{ {names} }}");
    of(&names).add_writer_schema(1, &names).unwrap();
    let mut options = ProtobufOptions::default();
    options.message = Some("M".into());
    let mut decoder = ProtobufDecoder::new(reader, &options).unwrap();
    assert!(decoder.add_writer_schema(4, "syntax = \"proto3\"; message Else { int32 a = 1; }").is_err());
    let decoded = decode(&mut decoder, &[framed(4, &[0], &[])]);
    assert_eq!(decoded.undecodable[0].cause, Cause::IncompatibleSchema);
    assert_eq!(decoded.undecodable[0].reason, "writer schema 4: it has no message `M`");
}

#[test]
fn proto2_has_what_is_required_and_groups() {
    let schema =
        "syntax = \"proto2\"; message M { required int32 id = 1; optional string s = 2 [default = \"x\"];
        repeated group Part = 3 { optional int32 n = 1; } repeated int32 packed = 4 [packed = true]; }";
    let part = |n: u8| [field(3, 3, &field(1, 0, &[n])), field(3, 4, b"")].concat();
    let rows = [[field(1, 0, &[1]), part(5), part(6)].concat(), field(2, 2, b"y")];
    let decoded = decode(&mut bare(schema), &rows);
    assert_eq!(
        rows_as_json(&decoded.batch).unwrap()[0],
        *json!({"id": 1, "part": [{"n": 5}, {"n": 6}], "packed": []}).as_object().unwrap()
    );
    assert_eq!(decoded.undecodable[0].reason, "field id: it is required, and the record has none");
    assert!(!decoded.batch.schema().field(0).is_nullable());
}

#[test]
fn schemas_come_as_text_as_descriptions_and_with_imports() {
    let root = "syntax = \"proto3\"; import \"common/money.proto\"; import public \"b.proto\"; import \"confluent/meta.proto\"; message Root { common.Money price = 1 [(confluent.field_meta).doc = \"p\"]; B b = 2; }";
    let money = "syntax = \"proto3\"; package common; import \"b.proto\"; message Money { int64 units = 1; B b = 2; }";
    let b = "syntax = \"proto3\"; message B { string x = 1; }";
    let whole = inline_protobuf_imports(root, [("common/money.proto", money), ("b.proto", b)]).unwrap();
    // What stands by itself is taken again as it is.
    assert_eq!(inline_protobuf_imports(&whole, []).unwrap(), whole);
    let names =
        |text: &str| bare(text).schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names(&whole), ["price", "b"]);
    let missing = inline_protobuf_imports(root, [("b.proto", b)]).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidSchema);
    assert_eq!(
        missing.to_string(),
        "<schema>:1:20: import 'common/money.proto' not found; give it as a reference"
    );
    // As Confluent's serialiser for Python registers them: descriptions in base64, under names of their own.
    let pool = DescriptorPool::decode(&*BASE64.decode(&whole).unwrap()).unwrap();
    let described = |name: &str| {
        let mut file = pool.get_file_by_name(name).unwrap().file_descriptor_proto().clone();
        file.source_code_info = None;
        BASE64.encode(file.encode_to_vec())
    };
    let root = described("<schema>");
    let whole = inline_protobuf_imports(
        &root,
        [("common/money.proto", &*described("common/money.proto")), ("b.proto", &*described("b.proto"))],
    );
    assert_eq!(names(&whole.unwrap()), ["price", "b"]);
}

#[test]
fn what_is_no_schema_is_refused_by_name() {
    let deep = format!("syntax = \"proto3\"; {} {}", "message A {".repeat(100_000), "}".repeat(100_000));
    // Closed in comments and strings alone.
    let hidden = ["message A {//}\n", "message A {/*}*/", "message A { option x = \"}\";\n"];
    let hidden = hidden.map(|part| format!("syntax = \"proto3\"; {}", part.repeat(100_000)));
    let cyclic = "syntax = \"proto3\"; import \"a.proto\"; message R { A a = 1; }";
    for (schema, why) in [
        ("{\"type\":\"record\"}", "expected"),
        (&deep, "brackets nest deeper than 64 levels"),
        (&hidden[0], "brackets nest deeper than 64 levels"),
        (&hidden[1], "brackets nest deeper than 64 levels"),
        (&hidden[2], "brackets nest deeper than 64 levels"),
        ("syntax = \"proto3\"; message M { Nothing n = 1; }", "Nothing"),
        ("syntax = \"proto3\";", "it has no messages"),
        (
            "syntax = \"proto3\"; message A { int32 x = 1; } message B { int32 x = 1; }",
            "it has several messages, so that it does not say which one records are: `A`, `B`; give `message`",
        ),
        ("syntax = \"proto3\"; message A { }", "the message `A` has no fields"),
        (
            "syntax = \"proto3\"; message A { B b = 1; } message B { repeated A a = 1; }",
            "it has several messages",
        ),
    ] {
        let error = ProtobufDecoder::new(schema, &ProtobufOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSchema, "{error}");
        assert!(error.to_string().contains(why), "{error} for {why}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let error = inline_protobuf_imports(
        cyclic,
        [("a.proto", "syntax = \"proto3\"; import \"a.proto\"; message A {}")],
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSchema);
    // Brackets that open in comments and strings do not count.
    let quoted = format!(
        "syntax = \"proto3\"; /* {b} */ // {b}\nmessage A {{ string x = 1 [default = \"\\\"{b}\"]; }}",
        b = "{".repeat(100)
    );
    let error = ProtobufDecoder::new(&quoted, &ProtobufOptions::default()).unwrap_err();
    assert!(error.to_string().contains("default"), "{error}");
    let chain: Vec<(String, String)> = (0..2000)
        .map(|i| (format!("f{i}.proto"), format!("syntax = \"proto3\"; import \"f{}.proto\";", i + 1)))
        .collect();
    let chained = |count: usize| {
        let imports = chain[..count].iter().map(|(name, text)| (name.as_str(), text.as_str()));
        inline_protobuf_imports("syntax = \"proto3\"; import \"f0.proto\";", imports).unwrap_err().to_string()
    };
    assert!(chained(256).contains("import 'f256.proto' not found"), "{}", chained(256));
    assert_eq!(chained(2000), "the schema has more than 256 imports");
    // Each imports all behind it, publicly: twice as many ways with each file.
    let lattice: Vec<(String, String)> = (0..40)
        .map(|i| {
            let imports: String = (i + 1..40).map(|to| format!("import public \"f{to}.proto\"; ")).collect();
            (format!("f{i}.proto"), format!("syntax = \"proto3\"; {imports}"))
        })
        .collect();
    let lattice = lattice.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let error = inline_protobuf_imports(
        "syntax = \"proto3\"; import \"f0.proto\"; message M { Nothing n = 1; }",
        lattice,
    );
    assert!(error.unwrap_err().to_string().contains("by thousands of ways"));
    // What is called as the schema might be.
    let own = inline_protobuf_imports(
        "syntax = \"proto3\"; import \"schema.proto\";",
        [("schema.proto", "syntax = \"proto3\";")],
    );
    own.unwrap();
    let mut options = ProtobufOptions::default();
    options.message = Some("Ordre".into());
    let error = ProtobufDecoder::new(ORDER, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it has no message `Ordre`; it has `shop.Order`, `shop.Customer`, `shop.Address`"
    );
}

#[test]
fn what_contains_itself_is_refused_or_json() {
    let schema = "syntax = \"proto3\"; message Node { string name = 1; repeated Node children = 2; Node twin = 3; map<string, Node> named = 4; }";
    let error = ProtobufDecoder::new(schema, &ProtobufOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedType);
    assert_eq!(
        error.to_string(),
        "field children[]: the message `Node` contains itself, so it has no Arrow column; `recursive: json` makes it a text of JSON"
    );
    let mut options = ProtobufOptions::default();
    (options.bare, options.recursive_as_json) = (true, true);
    let mut decoder = ProtobufDecoder::new(schema, &options).unwrap();
    let value = json!({"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}, {}], "named": {"x": {"name": "d"}}});
    // Deeper than the descriptions of types are read.
    let deep = (0..200).fold(Vec::new(), |inner, _| field(3, 2, &inner));
    let decoded = decode(&mut decoder, &[message(&pool(schema), "Node", value), deep]);
    let rows = rows_as_json(&decoded.batch).unwrap();
    assert_eq!(rows[0]["children"], json!(["{\"children\":[{\"name\":\"c\"}],\"name\":\"b\"}", "{}"]));
    assert_eq!(rows[0]["named"], json!({"x": "{\"name\":\"d\"}"}));
    assert_eq!(rows[0].get("twin"), None);
    assert_eq!(decoded.undecodable[0].cause, Cause::Malformed);
}

#[test]
fn a_few_bytes_do_not_become_gigabytes() {
    let fields: String = (1..=1000).map(|i| format!("int64 f{i} = {i}; ")).collect();
    let schema = format!(
        "syntax = \"proto3\"; message M {{ int64 id = 1; repeated Wide wide = 2; }} message Wide {{ {fields} }}"
    );
    let bomb = field(2, 2, b"").repeat(1 << 20);
    let good = field(1, 0, &[1]);
    let mut decoder = bare(&schema);
    let error = decoder.decode([(0, Some(&*good)), (1, Some(&*bomb))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    // So are names of enums.
    let name = "N".repeat(2000);
    let mut named =
        bare(&format!("syntax = \"proto3\"; message M {{ repeated E e = 1; }} enum E {{ {name} = 0; }}"));
    let packed = field(1, 2, &vec![0; 2 << 20]);
    let decoded = named.decode([(0, Some(&*packed))]).unwrap();
    assert_eq!(decoded.undecodable[0].reason, "field e: its columns would take more than 2 GiB");
    // By itself it is refused, and the decoder goes on.
    let decoded = decoder.decode([(0, Some(&*bomb)), (1, Some(&*good))]).unwrap();
    assert_eq!(decoded.undecodable[0].reason, "field wide: its columns would take more than 2 GiB");
    assert_eq!(decoded.rows, [1]);
}

#[test]
fn what_is_written_is_what_others_read() {
    use arrow_array::{Int32Array, MapArray, RecordBatch, builder::*};
    use std::sync::Arc;
    let number: arrow_array::ArrayRef = Arc::new(Int32Array::from(vec![7]));
    let row = RecordBatch::try_from_iter([("a", number.clone())]).unwrap();
    let encoder = |schema: &str, message, id| ProtobufEncoder::new(&row.schema(), schema, message, id);
    // A record cannot name a message of an import.
    let whole = inline_protobuf_imports(
        "syntax = \"proto3\"; import \"b.proto\"; message Root { int32 id = 1; imp.B b = 2; }",
        [("b.proto", "syntax = \"proto3\"; package imp; message B { int32 a = 1; }")],
    );
    let whole = whole.unwrap();
    let error = encoder(&whole, Some("imp.B"), Some(7)).unwrap_err();
    assert_eq!(error.to_string(), "the message `imp.B` is of an import, which records cannot name");
    assert_eq!(encoder(&whole, Some("imp.B"), None).unwrap().encode(&row).unwrap(), [field(1, 0, &[7])]);
    let mut options = ProtobufOptions::default();
    options.message = Some("imp.B".into());
    let mut decoder = ProtobufDecoder::new(&whole, &options).unwrap();
    assert_eq!(decoder.add_writer_schema(7, &whole).unwrap_err().kind(), ErrorKind::IncompatibleSchema);
    // All that is required.
    let schema = "syntax = \"proto2\"; message M { required int32 a = 1; required int32 b = 2; }";
    let error = encoder(schema, None, None).unwrap_err();
    assert_eq!(error.to_string(), "the field `b` is required, and there is no such column");
    // Groups, as prost-reflect writes them.
    let schema = "syntax = \"proto2\"; message M { optional group G = 1 { optional int32 a = 1; } }";
    let group = arrow_array::StructArray::try_from(vec![("a", number)]).unwrap();
    let group = RecordBatch::try_from_iter([("g", Arc::new(group) as arrow_array::ArrayRef)]).unwrap();
    let encoded = ProtobufEncoder::new(&group.schema(), schema, None, None).unwrap().encode(&group).unwrap();
    assert_eq!(encoded, [message(&pool(schema), "M", json!({"g": {"a": 7}}))]);
    // A map has a key once.
    let schema = "syntax = \"proto3\"; message M { map<int32, string> m = 1; }";
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for key in ["1", "01"] {
        map.keys().append_value(key);
        map.values().append_value("x");
    }
    map.append(true).unwrap();
    let map: MapArray = map.finish();
    let rows = RecordBatch::try_from_iter([("m", Arc::new(map) as arrow_array::ArrayRef)]).unwrap();
    let error = ProtobufEncoder::new(&rows.schema(), schema, None, None).unwrap().encode(&rows).unwrap_err();
    assert_eq!(error.to_string(), "the column `m`: a map has a key twice");
    // Of an enum what stands first is what is not there.
    let schema = "syntax = \"proto2\"; message M { map<string, E> m = 1; } enum E { FIRST = 5; NULL = 0; }";
    let decoded = decode(&mut bare(schema), &[field(1, 2, &field(1, 2, b"k"))]);
    assert_eq!(rows_as_json(&decoded.batch).unwrap()[0]["m"], json!({"k": "FIRST"}));
    // Deep messages name themselves as deep.
    let deep = format!(
        "syntax = \"proto3\"; {} int32 a = 1; {}",
        (0..50).map(|i| format!("message M{i} {{ ")).collect::<String>(),
        "}".repeat(50)
    );
    let name = (0..50).map(|i| format!("M{i}")).collect::<Vec<_>>().join(".");
    let encoded = encoder(&deep, Some(&name), Some(7)).unwrap().encode(&row).unwrap();
    let mut options = ProtobufOptions::default();
    options.message = Some(name);
    let mut decoder = ProtobufDecoder::new(&deep, &options).unwrap();
    decoder.add_writer_schema(7, &deep).unwrap();
    assert_eq!(decode(&mut decoder, &encoded).undecodable, []);
}

#[test]
fn schemas_that_unfold_to_endless_columns_are_refused() {
    let messages: String = (0..20)
        .map(|i| format!("message M{i} {{ M{n} a = 1; M{n} b = 2; M{n} c = 3; }} ", n = i + 1))
        .collect();
    let schema = format!("syntax = \"proto3\"; {messages} message M20 {{ int32 x = 1; }}");
    let mut options = ProtobufOptions::default();
    options.message = Some("M0".into());
    let error = ProtobufDecoder::new(&schema, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedType);
    assert!(error.to_string().contains("more than 10000 columns"), "{error}");
    assert!(protobuf_descriptions(&schema, Some("M0")).is_err());
}

/// Ids and GUIDs, in front of values and in headers.
#[test]
fn records_name_their_schema_in_each_way() {
    let schema = "syntax = \"proto3\"; message A { int32 x = 1; } message B { int32 x = 1; }";
    let mut options = ProtobufOptions::default();
    options.message = Some("B".into());
    let mut decoder = ProtobufDecoder::new(schema, &options).unwrap();
    let guid = *b"0123456789abcdef";
    let body = field(1, 0, &[7]);
    let front = |id: &[u8], indexes: &[u8]| [id, indexes].concat();
    let (by_id, by_guid) = (front(&[0, 0, 0, 0, 3], &[2, 2]), front(&[&[1], &guid[..]].concat(), &[2, 2]));
    let in_front = [[&by_id[..], &body].concat(), [&by_guid[..], &body].concat()];
    let none = front(&[0, 0, 0], &[]);
    let in_header = |header| Some(Framed { bytes: &body, schema_header: Some(header) });
    let rows = [
        Some(Framed::from(in_front[0].as_slice())),
        Some(Framed::from(in_front[1].as_slice())),
        in_header(&*by_id),
        in_header(&*by_guid),
        in_header(&*none),
        in_header(b"x"),
    ];
    let missing = decoder.missing_schemas(rows);
    assert_eq!(missing, [SchemaId::Id(3), SchemaId::Guid(guid)]);
    assert_eq!(missing[1].to_string(), "30313233-3435-3637-3839-616263646566");
    for id in missing {
        decoder.add_writer_schema(id, schema).unwrap();
    }
    let decoded = decoder.decode(rows.into_iter().enumerate().map(|(i, row)| (i as u64, row))).unwrap();
    assert_eq!(decoded.rows, [0, 1, 2, 3], "{:?}", decoded.undecodable);
    assert_eq!(decoded.batch.column(0).as_primitive::<Int32Type>().values(), &[7, 7, 7, 7]);
    let reasons: Vec<&str> = decoded.undecodable.iter().map(|bad| bad.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "the header with the schema's id has 3 bytes, too few for a schema id of the Schema Registry",
            "the header with the schema's id does not start with the Schema Registry's magic byte 0 or 1",
        ]
    );
}

#[test]
fn comments_describe_columns() {
    let told = protobuf_descriptions(ORDER, Some("Order")).unwrap();
    let told: Vec<(&str, &str)> = told.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert_eq!(
        told,
        [
            ("", "An order of the shop."),
            ("customer.email", "Where letters go."),
            ("id", "Its number."),
            ("invoice.email", "Where letters go.")
        ]
    );
}

#[test]
fn a_time_has_microseconds() {
    let schema = bare(ORDER).schema();
    let placed = schema.field_with_name("placed").unwrap();
    assert_eq!(*placed.data_type(), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
}

/// A message with something in every field.
const FULL: &str = r#"{"id": "-5", "name": "Ada", "count": 0, "delta": -3, "u32": 4294967295, "u64": "18446744073709551615",
    "s64": "-9223372036854775808", "f32": 7, "f64": "8", "sf32": -9, "sf64": "-10", "ratio": 0.5, "total": -1.25, "paid": true,
    "raw": "AAE=", "status": "GONE", "customer": {"email": "a@x", "address": {"city": "Y"}}, "lines": [{"sku": "a", "quantity": 2,
    "prices": [1.5, 2.5]}, {}], "numbers": [1, -1], "tags": ["x", ""], "states": ["GONE", "UNKNOWN", 77], "counts": {"a": "1", "": "0"},
    "byNumber": {"-4": {"sku": "z"}}, "flags": {"true": "y"}, "invoice": {}, "placed": "2026-11-29T12:00:00.123456Z",
    "seen": ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z"], "due": {"year": 1969, "month": 12, "day": 31},
    "at": {"hours": 23, "minutes": 59, "seconds": 59, "nanos": 999999000}, "maybe": "0", "note": "", "extra": {"a": [1, null, "b"]},
    "anything": [true], "answers": [false, true], "remark": "r", "times": {"t": "1970-01-01T00:00:01Z"}}"#;

#[test]
fn columns_become_the_messages_that_they_were() {
    let pool = pool(ORDER);
    let of = pool.get_message_by_name("shop.Order").unwrap();
    let rows = [message(&pool, "shop.Order", serde_json::from_str(FULL).unwrap()), Vec::new()];
    let decoded = decode(&mut bare(ORDER), &rows);
    let schema = decoded.batch.schema();
    let encoded =
        ProtobufEncoder::new(&schema, ORDER, Some("Order"), None).unwrap().encode(&decoded.batch).unwrap();
    for (ours, theirs) in encoded.iter().zip(&rows) {
        let read = |bytes: &[u8]| DynamicMessage::decode(of.clone(), bytes).unwrap();
        assert_eq!(read(ours), read(theirs));
        assert_eq!(ours.len(), theirs.len(), "not a byte more");
    }
    // What is written with an id and indexes is read with them.
    let framed =
        ProtobufEncoder::new(&schema, ORDER, Some("Order"), Some(7)).unwrap().encode(&decoded.batch).unwrap();
    assert_eq!(framed[1], [0, 0, 0, 0, 7, 0]);
    let mut options = ProtobufOptions::default();
    options.message = Some("shop.Order".into());
    let mut decoder = ProtobufDecoder::new(ORDER, &options).unwrap();
    decoder.add_writer_schema(7, ORDER).unwrap();
    assert_eq!(decode(&mut decoder, &framed).batch, decoded.batch);
    let nested = "syntax = \"proto3\"; message A { int32 x = 1; message B { int32 x = 1; } message C { int32 x = 1; } }";
    let x = decoded.batch.project(&[3]).unwrap();
    let x = arrow_array::RecordBatch::try_from_iter([("x", x.column(0).clone())]).unwrap();
    let encoded =
        ProtobufEncoder::new(&x.schema(), nested, Some("A.C"), Some(7)).unwrap().encode(&x).unwrap();
    assert_eq!(
        encoded[0],
        [0, 0, 0, 0, 7, 4, 0, 2, 8, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]
    );
}

#[test]
fn columns_that_do_not_fit_a_message_are_refused_by_name() {
    use arrow_array::*;
    use std::sync::Arc;
    let schema = "syntax = \"proto3\"; message M { int32 n = 1; optional int32 o = 2; string t = 3; E e = 4; repeated int32 r = 5; float f = 6;
        oneof one { string a = 7; string b = 8; } google.protobuf.Timestamp at = 9; M2 m = 10; } enum E { ZERO = 0; } message M2 { int32 x = 1; }
        ".replace("message M {", "import \"google/protobuf/timestamp.proto\"; message M {");
    let encoded = |columns: Vec<(&str, ArrayRef)>| {
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        ProtobufEncoder::new(&rows.schema(), &schema, Some("M"), None)
            .and_then(|encoder| encoder.encode(&rows))
    };
    let fine: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(UInt64Array::from(vec![5]))),
        ("o", Arc::new(Int8Array::from(vec![None]))),
        ("m", Arc::new(NullArray::new(1))),
        ("t", Arc::new(LargeStringArray::from(vec!["x"]))),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![-1]).with_timezone("Europe/Berlin"))),
    ];
    // Of times the nanoseconds are kept: -1 s and 999,999,999 ns.
    let minus_one = [0xffu8; 9].iter().chain(&[1]).copied().collect::<Vec<u8>>();
    let at = [field(1, 0, &minus_one), field(2, 0, &[0xff, 0x93, 0xeb, 0xdc, 0x03])].concat();
    assert_eq!(encoded(fine).unwrap(), [[field(1, 0, &[5]), field(3, 2, b"x"), field(9, 2, &at)].concat()]);
    let one = |name: &'static str, column: ArrayRef| encoded(vec![(name, column)]).unwrap_err();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
    for (error, why) in [
        (one("n", Arc::new(Int64Array::from(vec![1 << 40]))), "the column `n`: a value does not fit Int32"),
        (
            one("n", Arc::new(Float64Array::from(vec![1.0]))),
            "the column `n`: it is Float64, and the field takes integers",
        ),
        (
            one("n", Arc::new(Int32Array::from(vec![None]))),
            "the column `n`: it has a null, and the field has none: make it `optional` in the schema, or fill the column",
        ),
        (
            one("e", Arc::new(StringArray::from(vec!["ONE"]))),
            "the column `e`: it holds a text that is no name of the enum: ZERO",
        ),
        (
            one("f", Arc::new(Float64Array::from(vec![0.1]))),
            "the column `f`: it is Float64, and the field takes floats of 32 bits",
        ),
        (one("r", Arc::new(list)), "the column `r`: a list has a null in it, which Protobuf has not"),
        (
            one("r", Arc::new(Int32Array::from(vec![1]))),
            "the column `r`: it is Int32, and the field is repeated",
        ),
        (
            one("at", Arc::new(TimestampSecondArray::from(vec![1]))),
            "the column `at`: it is Timestamp(s), and the field takes times with a zone",
        ),
        (
            one("m", Arc::new(StringArray::from(vec!["{\"x\": 1} 2"]))),
            "the column `m`: a text is not the JSON of one message `M2`",
        ),
        (
            one("q", Arc::new(StringArray::from(vec!["x"]))),
            "the column `q` has no field in the message `M`, which has n, o, t, e, r, f, a, b, at, m; leave the column out, or register a schema with it",
        ),
    ] {
        assert_eq!(error.to_string(), why);
    }
    let text = |value: &'static str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let error = encoded(vec![("a", text("1")), ("b", text("2"))]).unwrap_err();
    assert_eq!(error.to_string(), "the column `b`: another member of its oneof has a value in the same row");
}

/// Descriptions are not checked by who made them.
#[test]
fn descriptions_that_contradict_themselves_are_refused() {
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions};
    let field = |name: &str, number, kind: Type| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(kind as i32),
        ..Default::default()
    };
    let tried = |entry: Vec<FieldDescriptorProto>, syntax: &str| {
        let entry = DescriptorProto {
            name: Some("MEntry".into()),
            field: entry,
            options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
            ..Default::default()
        };
        let map = FieldDescriptorProto {
            type_name: Some(".R.MEntry".into()),
            label: Some(Label::Repeated as i32),
            ..field("m", 1, Type::Message)
        };
        let row = DescriptorProto {
            name: Some("R".into()),
            field: vec![map],
            nested_type: vec![entry],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("r.proto".into()),
            message_type: vec![row],
            syntax: Some(syntax.into()),
            ..Default::default()
        };
        let mut options = ProtobufOptions::default();
        options.bare = true;
        ProtobufDecoder::new(&BASE64.encode(file.encode_to_vec()), &options)
    };
    let (key, value) = (field("key", 1, Type::Int32), field("value", 2, Type::String));
    for order in [vec![key.clone(), value.clone()], vec![value.clone(), key.clone()]] {
        let mut decoder = tried(order, "proto3").unwrap();
        let entry = [self::field(1, 0, &[5]), self::field(2, 2, b"v")].concat();
        let decoded = decode(&mut decoder, &[self::field(1, 2, &entry)]);
        assert_eq!(rows_as_json(&decoded.batch).unwrap()[0]["m"], json!({"5": "v"}));
    }
    for wrong in [
        vec![],
        vec![key.clone()],
        vec![key.clone(), value.clone(), field("more", 3, Type::Bool)],
        vec![field("key", 1, Type::Double), value.clone()],
        vec![field("key", 1, Type::Bytes), value.clone()],
        vec![field("key", 2, Type::Int32), field("value", 1, Type::String)],
    ] {
        let error = tried(wrong, "proto3").unwrap_err();
        assert_eq!(error.to_string(), "field m: it is a map whose entries are no key and value");
    }
    let error = tried(vec![key, value], "editions").unwrap_err();
    assert_eq!(error.to_string(), "r.proto has the syntax `editions`; proto2 and proto3 are read here");
    for broken in ["CgdhLnByb3RvIgcKAU0SAhgBYgZwcm90bzM=", "CgdhLnByb3RvIg4KAU0SCQoBYRgBIAEoBWIIZWRpdGlvbnM="]
    {
        assert_eq!(
            ProtobufDecoder::new(broken, &ProtobufOptions::default()).unwrap_err().kind(),
            ErrorKind::InvalidSchema
        );
    }
}
