//! Kafka Connect's `Decimal` in Protobuf: what its converter writes are columns of decimals, exactly.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use arrow_array::{Array, ArrayRef, Decimal128Array, RecordBatch};
use arrow_schema::DataType;
use gristmill_codec::{Cause, ProtobufEncoder, rows_as_json};
use proptest::prelude::*;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};

use crate::protobuf::{bare, pool};

/// As Connect's converter registers it.
const ORDER: &str = r#"
syntax = "proto3";
import "confluent/meta.proto";
import "confluent/type/decimal.proto";
message Order {
  confluent.type.Decimal total = 1 [(confluent.field_meta) = {
    params: [{ key: "precision", value: "9" }, { key: "scale", value: "2" }]
  }];
  repeated confluent.type.Decimal parts = 2 [(confluent.field_meta) = {
    params: [{ key: "scale", value: "0" }]
  }];
  confluent.type.Decimal bare = 3;
  confluent.type.Decimal large = 4 [(confluent.field_meta) = { params: [{ key: "precision", value: "60" }, { key: "scale", value: "2" }] }];
  confluent.type.Decimal odd = 5 [(confluent.field_meta) = { params: [{ key: "scale", value: "two" }] }];
  map<string, confluent.type.Decimal> by_name = 6;
}
"#;

/// The message of a value, from Java's `BigInteger.toByteArray()` in hex.
fn decimal(unscaled: &str, precision: u32, scale: i32) -> Value {
    let bytes: Vec<u8> = (0..unscaled.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&unscaled[i..i + 2], 16).unwrap())
        .collect();
    use base64::Engine as _;
    let value = base64::prelude::BASE64_STANDARD.encode(bytes);
    json!({"value": value, "precision": precision, "scale": scale})
}

fn order(json: Value) -> Vec<u8> {
    let of = pool(ORDER).get_message_by_name("Order").unwrap();
    use prost::Message as _;
    DynamicMessage::deserialize(of, json).unwrap().encode_to_vec()
}

#[test]
fn a_field_that_says_its_scale_is_a_column_of_decimals() {
    let schema = bare(ORDER).schema();
    let types: Vec<_> = schema.fields().iter().map(|field| field.data_type()).collect();
    assert_eq!(*types[0], DataType::Decimal128(9, 2));
    let DataType::List(item) = types[1] else { panic!("{:?}", types[1]) };
    assert_eq!(*item.data_type(), DataType::Decimal128(38, 0));
    // No scale, more digits than a column, no number; a map's values are of no field.
    for other in &types[2..5] {
        assert!(matches!(other, DataType::Struct(_)), "{other:?}");
    }
    assert!(matches!(types[5], DataType::Map(..)) && schema.field(0).is_nullable());
}

#[test]
fn no_digit_is_left_out() {
    let total = |unscaled: &str, scale: i32| order(json!({"total": decimal(unscaled, 9, scale)}));
    let rows = [
        total("04e2", 2),            // 12.50
        total("7d", 1),              // 12.5
        total("01e848", 4),          // 12.5000
        total("3039", 3),            // 12.345
        total("fb1e", 2),            // -12.50
        order(json!({"total": {}})), // nothing but the default
        order(json!({})),
        total("01", -3),                               // 1000
        total("3b9aca00", 2),                          // 10 digits
        total(&format!("{}04e2", "00".repeat(20)), 2), // zeros in front
        total(&format!("{}fb1e", "ff".repeat(20)), 2),
        total(&"7f".repeat(17), 2), // beyond 128 bits
        total("01", -2_000_000_000),
        total("01", 2_000_000_000),
        total("00", 2_000_000_000),
        order(json!({"parts": [decimal("05", 1, 0), decimal("fb", 1, 0)]})),
    ];
    let decoded =
        bare(ORDER).decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_slice())))).unwrap();
    let mut bad: Vec<_> = decoded.undecodable.iter().map(|bad| (bad.row, bad.cause)).collect();
    bad.sort_by_key(|(row, _)| *row);
    assert_eq!(bad, [3, 8, 11, 12, 13].map(|row| (row, Cause::Mismatch)));
    let said = &decoded.undecodable[0].reason.to_string();
    assert_eq!(said, "field total: it has 3 digits behind the point, and Decimal128(9, 2) has fewer");
    let texts: Vec<Option<String>> = {
        let column = decoded.batch.column(0).as_primitive::<Decimal128Type>();
        (0..column.len()).map(|row| column.is_valid(row).then(|| column.value_as_string(row))).collect()
    };
    let expected = [
        Some("12.50"),
        Some("12.50"),
        Some("12.50"),
        Some("-12.50"),
        Some("0.00"),
        None,
        Some("1000.00"),
        Some("12.50"),
        Some("-12.50"),
        Some("0.00"),
        None,
    ];
    assert_eq!(texts, expected.map(|text| text.map(str::to_owned)));
    let json = rows_as_json(&decoded.batch).unwrap();
    assert_eq!(json[10]["parts"], json!(["5", "-5"]));
}

#[test]
fn what_is_not_written_so_is_malformed_and_costs_no_other() {
    // A text of a number for the digits, and the scale as bytes.
    let rows: [&[u8]; 3] = [&[0x0a, 2, 8, 5], &[0x0a, 3, 0x1a, 1, 0], &[0x0a, 3, 0x0a, 1, 7]];
    let decoded = bare(ORDER).decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(*row)))).unwrap();
    assert_eq!(decoded.undecodable.len(), 2, "{:?}", decoded.undecodable);
    // 7 with the scale 0.
    assert_eq!(decoded.batch.column(0).as_primitive::<Decimal128Type>().value(0), 700);
}

#[test]
fn values_are_written_as_java_writes_them() {
    let column: ArrayRef = Arc::new(
        Decimal128Array::from(vec![0, 127, 128, -128, -129, 255, -1, 1250])
            .with_precision_and_scale(9, 2)
            .unwrap(),
    );
    let batch = RecordBatch::try_from_iter([("total", column)]).unwrap();
    let encoded =
        ProtobufEncoder::new(&batch.schema(), ORDER, Some("Order"), None).unwrap().encode(&batch).unwrap();
    let of = pool(ORDER).get_message_by_name("Order").unwrap();
    let written =
        [("00", 1), ("7f", 3), ("0080", 3), ("80", 3), ("ff7f", 3), ("00ff", 3), ("ff", 1), ("04e2", 4)];
    for (bytes, (unscaled, precision)) in encoded.iter().zip(written) {
        let read = DynamicMessage::decode(of.clone(), bytes.as_slice()).unwrap();
        let expected =
            DynamicMessage::deserialize(of.clone(), json!({"total": decimal(unscaled, precision, 2)}))
                .unwrap();
        assert_eq!(read, expected, "{unscaled}");
    }
}

#[test]
fn values_are_written_with_the_digits_that_the_field_says() {
    let encode = |precision: u8, scale: i8, value: i128| {
        let column: ArrayRef =
            Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).unwrap());
        let batch = RecordBatch::try_from_iter([("total", column)]).unwrap();
        ProtobufEncoder::new(&batch.schema(), ORDER, Some("Order"), None)?.encode(&batch)
    };
    let of = pool(ORDER).get_message_by_name("Order").unwrap();
    let read = DynamicMessage::decode(of.clone(), encode(5, 0, 12).unwrap()[0].as_slice()).unwrap();
    let expected = DynamicMessage::deserialize(of, json!({"total": decimal("04b0", 4, 2)})).unwrap();
    assert_eq!(read, expected);
    // Nothing is rounded, and nothing has more digits than it may.
    let error = encode(9, 4, 123_456).unwrap_err().to_string();
    assert!(error.contains("the field takes 2 digits behind the point"), "{error}");
    assert!(encode(20, 2, 1_000_000_000).is_err());
}

#[test]
fn messages_that_are_no_decimals_need_no_name() {
    let own = |name: &str| {
        let text = "syntax = \"proto3\"; message Order { a.D total = 1 OPTIONS; } message a { message D { bytes value = 1; uint32 precision = 2; int32 scale = 3; } }";
        text.replace("a.D", &format!("a.{name}")).replace("message D", &format!("message {name}"))
    };
    let read = |reader: &str, writer: &str| {
        let mut options = gristmill_codec::ProtobufOptions::default();
        options.message = Some("Order".into());
        let mut decoder = gristmill_codec::ProtobufDecoder::new(reader, &options).unwrap();
        decoder.add_writer_schema(7, writer).is_ok()
    };
    let known = |meta: &str| {
        format!(
            "syntax = \"proto3\"; import \"confluent/meta.proto\"; import \"confluent/type/decimal.proto\"; \
             message Order {{ confluent.type.Decimal total = 1 {meta}; }}"
        )
    };
    let writer = own("Other").replace(" OPTIONS", "");
    assert!(read(&known(""), &writer));
    let scale = "[(confluent.field_meta) = { params: [{ key: \"scale\", value: \"2\" }] }]";
    assert!(!read(&known(scale), &writer));
    assert!(read(&known(scale), &known("")));
}

proptest! {
    #[test]
    fn what_is_written_is_read(values in prop::collection::vec(prop::option::of(-999_999_999i128..=999_999_999), 1..20)) {
        let column: ArrayRef =
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(9, 2).unwrap());
        let batch = RecordBatch::try_from_iter([("total", column.clone())]).unwrap();
        let encoder = ProtobufEncoder::new(&batch.schema(), ORDER, Some("Order"), None).unwrap();
        let encoded = encoder.encode(&batch).unwrap();
        let decoded =
            bare(ORDER).decode(encoded.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_slice())))).unwrap();
        prop_assert!(decoded.undecodable.is_empty());
        prop_assert_eq!(decoded.batch.column(0), &column);
    }
}
