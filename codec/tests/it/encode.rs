//! Columns to values, and back.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_schema::{DataType, Field, Schema};
use gristmill_codec::{
    AvroDecoder, AvroEncoder, ErrorKind, JsonDecoder, JsonEncoder, JsonOptions, SchemaSpec, avro_schema_of,
};

const SPEC: &str = r#"{
    "id": "int64 not null", "name": "string", "total": "decimal(20,2)", "at": "timestamp_us", "day": "date", "ok": "bool",
    "ratio": "float64", "tags": "list<string>", "who": {"mail": "string", "kind": "string"}, "lines": [{"sku": "string", "kind": "string"}],
    "extra": "map<string>"
}"#;

/// The same with enums where texts are.
const AVRO: &str = r#"{"type": "record", "name": "Row", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"}, {"name": "name", "type": ["null", {"type": "enum", "name": "Name", "symbols": ["ada", "bo"]}]},
    {"name": "total", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}]},
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]}, {"name": "ok", "type": ["null", "boolean"]},
    {"name": "ratio", "type": ["double", "null"]},
    {"name": "tags", "type": ["null", {"type": "array", "items": ["null", "Name"]}]},
    {"name": "who", "type": ["null", {"type": "record", "name": "Who", "fields": [
        {"name": "mail", "type": ["null", "string"]}, {"name": "kind", "type": ["null", "Name"]}]}]},
    {"name": "lines", "type": ["null", {"type": "array", "items": ["null", {"type": "record", "name": "Line", "fields": [
        {"name": "sku", "type": ["null", "string"]}, {"name": "kind", "type": ["null", "Name"]}]}]}]},
    {"name": "extra", "type": ["null", {"type": "map", "values": ["null", "Name"]}]}
]}"#;

const ROWS: [&str; 4] = [
    r#"{"id": 1, "name": "bo", "total": "12.50", "at": "2026-11-22T10:00:00.123456Z", "day": "1970-01-11", "ok": true,
        "ratio": 1.5, "tags": ["ada", null, "bo"], "who": {"mail": "a@b", "kind": "ada"},
        "lines": [{"sku": "s", "kind": "bo"}, null, {"sku": null, "kind": "ada"}], "extra": {"x": "bo", "y": null}}"#,
    r#"{"id": 2}"#,
    r#"{"id": 3, "tags": [], "who": {}, "lines": [], "extra": {}}"#,
    r#"{"id": -4, "name": "ada", "extra": {"z": "ada"}}"#,
];

fn rows() -> RecordBatch {
    let spec: SchemaSpec = serde_json::from_str(SPEC).unwrap();
    let mut decoder = JsonDecoder::new(spec.arrow_schema().unwrap(), JsonOptions::default()).unwrap();
    let decoded = decoder.decode(ROWS.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_bytes()))));
    let decoded = decoded.unwrap();
    assert_eq!(decoded.undecodable, []);
    decoded.batch
}

fn read_back(avro: &str, values: &[Vec<u8>]) -> RecordBatch {
    let mut decoder = AvroDecoder::new(avro).unwrap();
    decoder.add_writer_schema(7, avro).unwrap();
    let rows = values.iter().enumerate().map(|(i, value)| (i as u64, Some(value.as_slice())));
    let decoded = decoder.decode(rows).unwrap();
    assert_eq!(decoded.undecodable, []);
    decoded.batch
}

fn same(left: &RecordBatch, right: &RecordBatch) {
    assert_eq!(JsonEncoder::plain().encode(left).unwrap(), JsonEncoder::plain().encode(right).unwrap());
}

#[test]
fn columns_are_written_by_a_schema_and_read_back_the_same() {
    let rows = rows();
    let mut encoder = AvroEncoder::new(&rows.schema(), AVRO, 7).unwrap();
    let values = encoder.encode(&rows).unwrap();
    assert!(values.iter().all(|value| value.starts_with(&[0, 0, 0, 0, 7])));
    same(&read_back(AVRO, &values), &rows);
    // Again, and a part that does not begin at the first row.
    let part = rows.slice(1, 3);
    let values = encoder.encode(&part).unwrap();
    same(&read_back(AVRO, &values), &part);
}

#[test]
fn the_schema_of_columns_writes_them() {
    let rows = rows();
    let avro = avro_schema_of(&rows.schema(), "Row").unwrap();
    assert!(avro.contains(r#""name":"Row""#), "{avro}");
    let values = AvroEncoder::new(&rows.schema(), &avro, 7).unwrap().encode(&rows).unwrap();
    same(&read_back(&avro, &values), &rows);
    let unsigned = Schema::new(vec![Field::new("n", DataType::UInt64, true)]);
    if let Err(error) = avro_schema_of(&unsigned, "Row") {
        assert_eq!(error.kind(), ErrorKind::UnsupportedType);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_costs_no_later_batch() {
    let rows = rows();
    let more =
        Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("more", DataType::Utf8, true)]);
    let error = AvroEncoder::new(&more, AVRO, 7).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the column `more` has no field in the Avro schema, which has id, name,"),
        "{error}"
    );
    let less = rows.project(&[0]).unwrap();
    assert_eq!(AvroEncoder::new(&less.schema(), AVRO, 7).unwrap_err().kind(), ErrorKind::UnsupportedType);
    assert_eq!(AvroEncoder::new(&rows.schema(), "\"int\"", 7).unwrap_err().kind(), ErrorKind::InvalidSchema);

    let mut encoder = AvroEncoder::new(&rows.schema(), AVRO, 7).unwrap();
    let mut columns = rows.columns().to_vec();
    columns[1] = Arc::new(arrow_array::StringArray::from(vec![Some("ada"), Some("eve"), None, None]));
    let wrong = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let error = encoder.encode(&wrong).unwrap_err();
    assert_eq!(error.to_string(), "the column `name` holds a text that is no symbol of the enum: ada, bo");
    let values = encoder.encode(&rows).unwrap();
    same(&read_back(AVRO, &values), &rows);
}

#[test]
fn each_row_is_a_json_object_that_reads_back() {
    let rows = rows();
    let values = JsonEncoder::plain().encode(&rows).unwrap();
    assert_eq!(values.len(), rows.num_rows());
    let mut decoder = JsonDecoder::new(rows.schema(), JsonOptions::default()).unwrap();
    let again = decoder
        .decode(values.iter().enumerate().map(|(i, value)| (i as u64, Some(value.as_slice()))))
        .unwrap();
    assert_eq!(again.undecodable, []);
    assert_eq!(again.batch.column(1).as_string::<i32>(), rows.column(1).as_string::<i32>());
    same(&again.batch, &rows);
    assert_eq!(JsonEncoder::plain().encode(&rows.slice(0, 0)).unwrap(), Vec::<Vec<u8>>::new());
}

/// arrow-avro writes what a column has, whatever the field's type: so a column is taken as the field's type, exactly, or refused.
#[test]
fn columns_of_other_types_are_written_exactly_or_refused() {
    use arrow_array::*;
    let written = |of: &str, column: ArrayRef| {
        let avro = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"c","type":{of}}}]}}"#);
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let mut encoder = AvroEncoder::new(&batch.schema(), &avro, 1).map_err(|e| e.to_string())?;
        let values = encoder.encode(&batch).map_err(|e| e.to_string())?;
        Ok::<_, String>(values.concat()[5..].to_vec())
    };
    let micros = r#"{"type":"long","logicalType":"timestamp-micros"}"#;
    let nanos = |n: i64| Arc::new(TimestampNanosecondArray::from(vec![n]).with_timezone("UTC")) as ArrayRef;
    assert_eq!(written(micros, nanos(3_000)), Ok(vec![6]));
    assert_eq!(written(micros, Arc::new(TimestampMillisecondArray::from(vec![-1]))), Ok(vec![0xcf, 0x0f]));
    assert_eq!(written(micros, Arc::new(Int64Array::from(vec![3]))), Ok(vec![6]));
    let error = written(micros, nanos(3_001)).unwrap_err();
    assert!(error.contains("the column `c` holds a value that Timestamp(µs"), "{error}");
    assert!(written(micros, Arc::new(TimestampSecondArray::from(vec![i64::MAX]))).is_err());
    assert_eq!(written(r#""int""#, Arc::new(UInt64Array::from(vec![3]))), Ok(vec![6]));
    assert!(written(r#""int""#, Arc::new(Int64Array::from(vec![1 << 31]))).is_err());
    assert_eq!(
        written(r#""double""#, Arc::new(Float32Array::from(vec![0.5]))),
        Ok(0.5f64.to_le_bytes().to_vec())
    );
    assert_eq!(written(r#""long""#, Arc::new(Int8Array::from(vec![-3]))), Ok(vec![5]));
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#;
    let of = |value: i128, precision: u8, scale: i8| {
        let array = Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).unwrap();
        Arc::new(array) as ArrayRef
    };
    assert_eq!(written(decimal, of(5, 3, 1)), written(decimal, of(50, 9, 2)));
    assert!(written(decimal, of(5, 9, 3)).is_err() && written(decimal, of(10i128.pow(9), 12, 2)).is_err());
    for (of, column) in [
        (r#""double""#, Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        (r#""long""#, Arc::new(Float64Array::from(vec![1.0]))),
        (r#""float""#, Arc::new(Float64Array::from(vec![1.0]))),
        (r#""string""#, Arc::new(Int64Array::from(vec![1]))),
        (r#""boolean""#, Arc::new(Int32Array::from(vec![1]))),
        (r#""int""#, Arc::new(BooleanArray::from(vec![true]))),
        (decimal, Arc::new(Int64Array::from(vec![1]))),
        (
            r#"{"type":"fixed","name":"F","size":8}"#,
            Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8; 4]].iter()).unwrap()),
        ),
        (r#"["null","int","string"]"#, Arc::new(Int64Array::from(vec![1]))),
        (r#"{"type":"int","logicalType":"date"}"#, Arc::new(TimestampSecondArray::from(vec![0]))),
    ] {
        let error = written(of, column).unwrap_err();
        assert!(
            error.contains("the column `c` is ") && error.contains(", and the field takes "),
            "{of}: {error}"
        );
    }
}
