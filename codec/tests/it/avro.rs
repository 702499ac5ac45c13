//! Avro in the registry's wire format, case by case. Data are encoded by apache-avro.

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use gristmill_codec::{AvroDecoder, Cause, Decoded, ErrorKind, inline_avro_references};

/// A datum as apache-avro writes it; `blocks` makes it write arrays and maps in blocks with sizes.
pub(crate) fn datum(schema: &Schema, value: Value, blocks: bool) -> Vec<u8> {
    let writer =
        GenericDatumWriter::builder(schema).maybe_target_block_size(blocks.then_some(1)).build().unwrap();
    writer.write_value_to_vec(value).unwrap()
}

fn encode(id: u32, schema: &str, value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    let mut bytes = vec![0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(datum(&schema, value, false));
    bytes
}

pub(crate) fn record(fields: &[(&str, Value)]) -> Value {
    Value::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

fn decode(decoder: &mut AvroDecoder, rows: &[Vec<u8>]) -> Decoded {
    decoder.decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_slice())))).unwrap()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a dyn Array {
    batch.column_by_name(name).unwrap()
}

const V1: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"int"},{"name":"note","type":"string"}]}"#;
const V2: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"gone","type":{"type":"array","items":"string"}},
    {"name":"id","type":"long"},{"name":"remark","type":["null","string"]},{"name":"extra","type":"double"}]}"#;
const READER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"long"},
    {"name":"remark","type":["null","string"],"default":null,"aliases":["note"]},{"name":"channel","type":"string","default":"web"}]}"#;

fn v1(id: i32, note: &str) -> Vec<u8> {
    encode(1, V1, record(&[("id", Value::Int(id)), ("note", Value::String(note.into()))]))
}

fn v2(id: i64, remark: Option<&str>) -> Vec<u8> {
    let remark = match remark {
        Some(text) => Value::Union(1, Box::new(Value::String(text.into()))),
        None => Value::Union(0, Box::new(Value::Null)),
    };
    let gone = Value::Array(vec![Value::String("x".into())]);
    encode(
        2,
        V2,
        record(&[("gone", gone), ("id", Value::Long(id)), ("remark", remark), ("extra", Value::Double(0.5))]),
    )
}

fn two_writers() -> AvroDecoder {
    let mut decoder = AvroDecoder::new(READER).unwrap();
    decoder.add_writer_schema(1, V1).unwrap();
    decoder.add_writer_schema(2, V2).unwrap();
    decoder
}

#[test]
fn mixed_writer_schemas_become_one_batch_in_the_order_of_the_rows() {
    let mut decoder = two_writers();
    let rows = [v1(1, "a"), v2(2, None), v1(3, "c"), v2(4, Some("d")), v2(5, Some("e"))];
    for _ in 0..2 {
        let decoded = decode(&mut decoder, &rows);
        assert_eq!(decoded.undecodable, []);
        assert_eq!(decoded.rows, [0, 1, 2, 3, 4]);
        assert_eq!(decoded.batch.schema(), decoder.schema());
        assert_eq!(column(&decoded.batch, "id").as_primitive::<Int64Type>().values(), &[1, 2, 3, 4, 5]);
        let remarks: Vec<_> = column(&decoded.batch, "remark").as_string::<i32>().iter().collect();
        assert_eq!(remarks, [Some("a"), None, Some("c"), Some("d"), Some("e")]);
        assert!(column(&decoded.batch, "channel").as_string::<i32>().iter().all(|c| c == Some("web")));
    }
}

#[test]
fn each_kind_of_bad_row_is_set_aside_with_its_reason_and_costs_no_other() {
    let mut decoder = two_writers();
    let good = v1(7, "s3cret");
    let cut = |n: usize| good[..good.len() - n].to_vec();
    let with = |at: usize, byte: u8| {
        let mut row = good.clone();
        row[at] = byte;
        row
    };
    let cases: Vec<(Option<Vec<u8>>, Cause, &str)> = vec![
        (None, Cause::NullValue, "the value is null (a tombstone)"),
        (
            Some(vec![]),
            Cause::Malformed,
            "the value has 0 bytes, too few for a schema id of the Schema Registry",
        ),
        (
            Some(vec![0, 0, 0]),
            Cause::Malformed,
            "the value has 3 bytes, too few for a schema id of the Schema Registry",
        ),
        (
            Some(with(0, 2)),
            Cause::Malformed,
            "the value does not start with the Schema Registry's magic byte 0 or 1",
        ),
        (
            Some(b"{\"id\": 1}".to_vec()),
            Cause::Malformed,
            "the value does not start with the Schema Registry's magic byte 0 or 1; it looks like JSON",
        ),
        (Some(with(4, 9)), Cause::UnknownSchema, "writer schema 9 is not known to the Schema Registry"),
        (
            Some(cut(3)),
            Cause::Malformed,
            "not one datum of writer schema 1: field note: the end of a truncated record at byte 2 of the record's body",
        ),
        (
            Some([good.clone(), vec![0]].concat()),
            Cause::Malformed,
            "not one datum of writer schema 1: bytes after the end of the record at byte 8 of the record's body",
        ),
        (
            Some([good.clone(), good[5..].to_vec()].concat()),
            Cause::Malformed,
            "not one datum of writer schema 1: bytes after the end of the record at byte 8 of the record's body",
        ),
        (
            Some(with(8, 0xff)),
            Cause::Malformed,
            "not one datum of writer schema 1: field note: a string that is not UTF-8 at byte 8 of the record's body",
        ),
    ];
    let mut rows: Vec<Option<Vec<u8>>> = Vec::new();
    for (row, ..) in &cases {
        rows.push(Some(good.clone()));
        rows.push(row.clone());
    }
    rows.push(Some(v2(8, None)));
    let decoded = decoder.decode(rows.iter().enumerate().map(|(i, r)| (i as u64, r.as_deref()))).unwrap();
    assert_eq!(decoded.rows.len(), cases.len() + 1);
    for ((i, (_, cause, reason)), undecodable) in cases.iter().enumerate().zip(&decoded.undecodable) {
        assert_eq!(
            (undecodable.row, undecodable.cause, undecodable.reason.as_str()),
            (2 * i as u64 + 1, *cause, *reason)
        );
    }
    assert_eq!(decoded.undecodable.len(), cases.len());
}

#[test]
fn rows_that_schema_resolution_refuses_are_isolated() {
    let writer = r#"{"type":"record","name":"R","fields":[{"name":"n","type":["null","int"]},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B","C"]}}]}"#;
    let reader = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"int"},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["B","A"]}}]}"#;
    let row = |n: Option<i32>, e: u32| {
        let n =
            n.map_or(Value::Union(0, Box::new(Value::Null)), |n| Value::Union(1, Box::new(Value::Int(n))));
        let symbol = ["A", "B", "C"][e as usize];
        encode(5, writer, record(&[("n", n), ("e", Value::Enum(e, symbol.into()))]))
    };
    let mut decoder = AvroDecoder::new(reader).unwrap();
    decoder.add_writer_schema(5, writer).unwrap();
    let rows =
        [row(Some(1), 0), row(None, 0), row(Some(2), 2), row(Some(3), 1), row(None, 2), row(Some(4), 0)];
    let decoded = decode(&mut decoder, &rows);
    assert_eq!(decoded.rows, [0, 3, 5]);
    assert_eq!(column(&decoded.batch, "n").as_primitive::<Int32Type>().values(), &[1, 3, 4]);
    let symbols: Vec<_> = column(&decoded.batch, "e").as_string::<i32>().iter().flatten().collect();
    assert_eq!(symbols, ["A", "B", "A"]);
    assert_eq!(
        decoded.undecodable.iter().map(|u| (u.row, u.cause)).collect::<Vec<_>>(),
        [(1, Cause::Mismatch), (2, Cause::Mismatch), (4, Cause::Mismatch)]
    );
    assert!(
        decoded.undecodable[0]
            .reason
            .starts_with("a datum of writer schema 5 does not fit the reader schema"),
        "{}",
        decoded.undecodable[0].reason
    );
}

#[test]
fn a_writer_schema_that_cannot_be_read_costs_only_its_own_rows() {
    let mut decoder = two_writers();
    let other =
        r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"}]}"#;
    let error = decoder.add_writer_schema(3, other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IncompatibleSchema);
    assert!(
        error
            .to_string()
            .starts_with("writer schema 3: it cannot be read with the reader schema: field `id`: "),
        "{error}"
    );
    let bad = encode(3, other, record(&[("id", Value::String("x".into()))]));
    assert_eq!(decoder.missing_schemas([Some(bad.as_slice())]), [0u32; 0]);
    let decoded = decode(&mut decoder, &[v1(1, "a"), bad, v1(2, "b")]);
    assert_eq!(decoded.rows, [0, 2]);
    assert_eq!(decoded.undecodable[0].cause, Cause::IncompatibleSchema);
    assert_eq!(decoder.add_writer_schema(4, "{").unwrap_err().kind(), ErrorKind::InvalidSchema);
}

#[test]
fn missing_schemas_are_named_once_and_in_order() {
    let decoder = two_writers();
    let rows = [
        v1(1, "a"),
        encode(9, "\"int\"", Value::Int(1)),
        encode(4, "\"int\"", Value::Int(1)),
        encode(9, "\"int\"", Value::Int(2)),
        vec![1, 0, 0, 0, 3],
        vec![0],
    ];
    let values = rows.iter().map(|r| Some(r.as_slice())).chain([None]);
    assert_eq!(decoder.missing_schemas(values), [4, 9]);
}

const RICH: &str = r#"{"type":"record","name":"Rich","namespace":"a.b","doc":"d","fields":[
    {"name":"dec","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
    {"name":"fdec","type":["null",{"type":"fixed","name":"FD","size":8,"logicalType":"decimal","precision":10,"scale":3}],"default":null},
    {"name":"wide","type":{"type":"bytes","logicalType":"decimal","precision":50,"scale":1}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"tms","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"tus","type":[{"type":"long","logicalType":"timestamp-micros"},"null"]},
    {"name":"local","type":{"type":"long","logicalType":"local-timestamp-millis"}},
    {"name":"time","type":{"type":"int","logicalType":"time-millis"}},
    {"name":"uuid","type":{"type":"string","logicalType":"uuid"}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["X","Y"]}},
    {"name":"okind","type":["null","Kind"]},
    {"name":"inner","type":{"type":"record","name":"Inner","fields":[{"name":"k","type":"Kind"},{"name":"f","type":"float"}]}},
    {"name":"oinner","type":["null","Inner"]},
    {"name":"list","type":{"type":"array","items":["null","Inner"]}},
    {"name":"map","type":{"type":"map","values":{"type":"array","items":"long"}}},
    {"name":"fix","type":{"type":"fixed","name":"F3","size":3}},
    {"name":"raw","type":"bytes"},
    {"name":"nothing","type":"null"},
    {"name":"flag","type":"boolean"}]}"#;

#[test]
fn logical_types_named_types_and_nesting_arrive_as_documented() {
    use apache_avro::Decimal;
    let some = |v: Value| Value::Union(1, Box::new(v));
    let inner =
        |k: u32| record(&[("k", Value::Enum(k, ["X", "Y"][k as usize].into())), ("f", Value::Float(1.5))]);
    let value = record(&[
        ("dec", Value::Decimal(Decimal::from((-1234i64).to_be_bytes()))),
        ("fdec", some(Value::Decimal(Decimal::from(9_999_999_999i64.to_be_bytes())))),
        ("wide", Value::Decimal(Decimal::from((1i128 << 100).to_be_bytes()))),
        ("day", Value::Date(11)),
        ("tms", Value::TimestampMillis(1500)),
        ("tus", Value::Union(0, Box::new(Value::TimestampMicros(1501)))),
        ("local", Value::LocalTimestampMillis(7)),
        ("time", Value::TimeMillis(8)),
        ("uuid", Value::Uuid("3f2b9a52-6f0e-4a57-9d5e-0f6f3c2f9f11".parse().unwrap())),
        ("kind", Value::Enum(1, "Y".into())),
        ("okind", some(Value::Enum(0, "X".into()))),
        ("inner", inner(1)),
        ("oinner", Value::Union(0, Box::new(Value::Null))),
        ("list", Value::Array(vec![some(inner(0)), Value::Union(0, Box::new(Value::Null)), some(inner(1))])),
        ("map", Value::Map([("m".to_owned(), Value::Array(vec![Value::Long(5), Value::Long(6)]))].into())),
        ("fix", Value::Fixed(3, vec![1, 2, 3])),
        ("raw", Value::Bytes(vec![0xff])),
        ("nothing", Value::Null),
        ("flag", Value::Boolean(true)),
    ]);
    let row = encode(1, RICH, value);
    let mut decoder = AvroDecoder::new(RICH).unwrap();
    decoder.add_writer_schema(1, RICH).unwrap();
    let decoded = decode(&mut decoder, &[row.clone(), row]);
    assert_eq!(decoded.undecodable, []);
    let batch = &decoded.batch;
    assert_eq!(column(batch, "dec").as_primitive::<Decimal128Type>().value(1), -1234);
    assert_eq!(column(batch, "fdec").as_primitive::<Decimal128Type>().value(1), 9_999_999_999);
    assert_eq!(column(batch, "wide").as_primitive::<Decimal256Type>().value(0).to_i128(), Some(1 << 100));
    assert_eq!(column(batch, "day").as_primitive::<Date32Type>().value(0), 11);
    assert_eq!(column(batch, "tms").as_primitive::<TimestampMillisecondType>().value(0), 1500);
    assert_eq!(
        *column(batch, "tms").data_type(),
        DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
    );
    assert_eq!(column(batch, "tus").as_primitive::<TimestampMicrosecondType>().value(0), 1501);
    assert_eq!(*column(batch, "local").data_type(), DataType::Timestamp(TimeUnit::Millisecond, None));
    assert_eq!(column(batch, "time").as_primitive::<Time32MillisecondType>().value(0), 8);
    assert_eq!(column(batch, "uuid").as_string::<i32>().value(0), "3f2b9a52-6f0e-4a57-9d5e-0f6f3c2f9f11");
    assert_eq!(column(batch, "kind").as_string::<i32>().value(0), "Y");
    assert_eq!(column(batch, "okind").as_string::<i32>().value(0), "X");
    assert_eq!(column(batch, "inner").as_struct().column(0).as_string::<i32>().value(0), "Y");
    assert!(column(batch, "oinner").is_null(0));
    let list = column(batch, "list").as_list::<i32>().value(0);
    assert!(list.is_valid(0) && list.is_null(1));
    assert_eq!(list.as_struct().column(0).as_string::<i32>().value(2), "Y");
    let entries = column(batch, "map").as_map().value(0);
    assert_eq!(entries.column(0).as_string::<i32>().value(0), "m");
    assert_eq!(entries.column(1).as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[5, 6]);
    assert_eq!(column(batch, "fix").as_fixed_size_binary().value(0), [1, 2, 3]);
    assert_eq!(column(batch, "raw").as_binary::<i32>().value(0), [0xff]);
    assert!(column(batch, "flag").as_boolean().value(0));
}

#[test]
fn reader_schemas_without_columns_are_refused_with_the_field() {
    for (schema, kind, part) in [
        (r#""string""#, ErrorKind::InvalidSchema, "not a record"),
        (
            r#"{"type":"record","name":"T","fields":[{"name":"t","type":["null","T"]}]}"#,
            ErrorKind::UnsupportedType,
            "`T` contains itself",
        ),
        (
            r#"{"type":"record","name":"T","fields":[{"name":"a","type":{"type":"array","items":["int","string"]}}]}"#,
            ErrorKind::UnsupportedType,
            "field a[]: a union of several types",
        ),
        (
            r#"{"type":"record","name":"T","fields":[{"name":"a","type":"Nope"}]}"#,
            ErrorKind::InvalidSchema,
            "`Nope`, which nothing defines",
        ),
    ] {
        let error = AvroDecoder::new(schema).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_the_reader_leaves_out_may_be_anything() {
    let reader = r#"{"type":"record","name":"T","fields":[{"name":"id","type":"long"}]}"#;
    let writer = r#"{"type":"record","name":"T","fields":[
        {"name":"u","type":["int","string",{"type":"map","values":["null","double"]}]},{"name":"id","type":"long"}]}"#;
    let mut decoder = AvroDecoder::new(reader).unwrap();
    decoder.add_writer_schema(1, writer).unwrap();
    let map = Value::Map([("k".to_owned(), Value::Union(1, Box::new(Value::Double(1.0))))].into());
    let rows = [(0, Value::Int(1)), (1, Value::String("s".into())), (2, map)].map(|(branch, v)| {
        encode(1, writer, record(&[("u", Value::Union(branch, Box::new(v))), ("id", Value::Long(7))]))
    });
    let decoded = decode(&mut decoder, &rows);
    assert_eq!(decoded.undecodable, []);
    assert_eq!(column(&decoded.batch, "id").as_primitive::<Int64Type>().values(), &[7, 7, 7]);
}

#[test]
fn a_writer_schema_that_contains_itself_is_read_over_where_the_reader_leaves_it_out() {
    let reader = r#"{"type":"record","name":"T","fields":[{"name":"after","type":"string"},{"name":"id","type":"long"}]}"#;
    let writer = r#"{"type":"record","name":"T","fields":[{"name":"id","type":"long"},{"name":"next","type":["null","T"],"default":null},
        {"name":"all","type":{"type":"array","items":"T"},"default":[]},{"name":"after","type":"string"}]}"#;
    let mut decoder = AvroDecoder::new(reader).unwrap();
    decoder.add_writer_schema(1, writer).unwrap();
    let node = |id, next: Value, all: Vec<Value>| {
        record(&[
            ("id", Value::Long(id)),
            ("next", next),
            ("all", Value::Array(all)),
            ("after", Value::String(format!("after {id}"))),
        ])
    };
    let null = || Value::Union(0, Box::new(Value::Null));
    let leaf = node(3, null(), vec![]);
    let inner = node(2, Value::Union(1, Box::new(leaf.clone())), vec![leaf.clone(), leaf]);
    let row = node(1, Value::Union(1, Box::new(inner.clone())), vec![inner]);
    let schema = Schema::parse_str(writer).unwrap();
    let rows = [false, true]
        .map(|blocks| [&[0, 0, 0, 0, 1], datum(&schema, row.clone(), blocks).as_slice()].concat());
    let decoded = decode(&mut decoder, &rows);
    assert_eq!(decoded.undecodable, []);
    assert_eq!(column(&decoded.batch, "id").as_primitive::<Int64Type>().values(), &[1, 1]);
    assert_eq!(column(&decoded.batch, "after").as_string::<i32>().value(1), "after 1");
}

#[test]
fn referenced_schemas_are_inlined() {
    let order = r#"{"type":"record","name":"Order","fields":[{"name":"to","type":"c.Address"},{"name":"from","type":["null","c.Address"]}]}"#;
    let address =
        r#"{"type":"record","name":"Address","namespace":"c","fields":[{"name":"street","type":"string"}]}"#;
    let whole = inline_avro_references(order, [address]).unwrap();
    let mut decoder = AvroDecoder::new(&whole).unwrap();
    decoder.add_writer_schema(1, &whole).unwrap();
    let to = record(&[("street", Value::String("Main".into()))]);
    let row = encode(1, &whole, record(&[("to", to.clone()), ("from", Value::Union(1, Box::new(to)))]));
    let decoded = decode(&mut decoder, &[row]);
    assert_eq!(decoded.undecodable, []);
    assert_eq!(column(&decoded.batch, "from").as_struct().column(0).as_string::<i32>().value(0), "Main");
}

/// Why data are walked before arrow-avro sees them.
#[test]
fn what_arrow_avro_alone_would_accept_or_lose() {
    use arrow_avro::reader::ReaderBuilder;
    use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
    let alone = |schema: &str| {
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        store.set(Fingerprint::Id(1), AvroSchema::new(schema.to_owned())).unwrap();
        ReaderBuilder::new().with_writer_schema_store(store).build_decoder().unwrap()
    };
    // A union branch that does not exist, and a boolean that is neither, are taken for values.
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"u","type":["null","int"]},{"name":"b","type":"boolean"}]}"#;
    let nonsense = [0, 0, 0, 0, 1, 14, 2, 9];
    let mut decoder = alone(schema);
    decoder.decode(&nonsense).unwrap();
    assert_eq!(decoder.flush().unwrap().unwrap().num_rows(), 1);
    // One string that is not UTF-8 costs the whole batch.
    let mut decoder = alone(V1);
    decoder.decode(&v1(1, "good")).unwrap();
    decoder.decode(&[0, 0, 0, 0, 1, 2, 2, 0xff]).unwrap();
    assert!(decoder.flush().is_err());

    let mut ours = AvroDecoder::new(schema).unwrap();
    ours.add_writer_schema(1, schema).unwrap();
    let decoded = decode(&mut ours, &[nonsense.to_vec()]);
    assert_eq!(
        decoded.undecodable[0].reason,
        "not one datum of writer schema 1: field u: a union branch that the writer schema does not have at byte 1 of the record's body"
    );
}
