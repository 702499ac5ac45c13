//! Question: what does it cost, over arrow-json and arrow-avro alone, that one bad row never costs another? And what do columns cost
//! of Protobuf, beside prost's structs, which have the schema compiled in, and prost-reflect's messages, which have not?
//!
//! Axes: format (JSON, Avro, Protobuf); all rows good, or one in a hundred of the wrong type. Batches of 1,000 rows
//! of 20 fields, one thread, best of many runs; ratios are within one run, and the first line runs the
//! same thing twice to show the noise.
//!
//! Not measured: the network, the registry, transforms, writing.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::types::Value;
use arrow_schema::SchemaRef;
use base64::Engine as _;
use gristmill_codec::{
    AvroDecoder, JsonDecoder, JsonOptions, ProtobufDecoder, ProtobufOptions, SchemaSpec,
    inline_protobuf_imports,
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};

const ROWS: usize = 1000;

/// The best time of a run, in ns a row.
fn best(mut run: impl FnMut()) -> f64 {
    let end = Instant::now() + Duration::from_millis(1500);
    let mut best = f64::MAX;
    while Instant::now() < end {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_nanos() as f64 / ROWS as f64);
    }
    best
}

fn json_rows(bad_every: usize) -> Vec<Vec<u8>> {
    (0..ROWS)
        .map(|i| {
            let fields: Vec<String> = (0..20)
                .map(|f| match f % 4 {
                    0 if f == 0 && bad_every > 0 && i % bad_every == 7 => format!(r#""f{f}":"not a number""#),
                    0 => format!(r#""f{f}":{}"#, i * 1_000_003 + f),
                    1 => format!(r#""f{f}":"customer name {}""#, i * f),
                    2 => format!(r#""f{f}":{}.25"#, i),
                    _ => format!(r#""f{f}":{}"#, i % 2 == 0),
                })
                .collect();
            format!("{{{}}}", fields.join(",")).into_bytes()
        })
        .collect()
}

fn json_schema() -> SchemaRef {
    let fields: Vec<String> =
        (0..20).map(|f| format!(r#""f{f}":"{}""#, ["int64", "string", "float64", "bool"][f % 4])).collect();
    let spec: SchemaSpec =
        serde_json::from_str(&format!("{{{}}}", fields.join(","))).expect("a map of fields");
    spec.arrow_schema().expect("valid types")
}

fn avro_schema(nullable: bool) -> String {
    let fields: Vec<String> = (0..20)
        .map(|f| {
            let name = ["long", "string", "double", "boolean"][f % 4];
            let ty = if nullable && f == 0 { r#"["null","long"]"#.into() } else { format!("\"{name}\"") };
            format!(r#"{{"name":"f{f}","type":{ty}}}"#)
        })
        .collect();
    format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","))
}

fn avro_rows(schema: &str, nullable: bool, bad_every: usize) -> Vec<Vec<u8>> {
    let schema = apache_avro::Schema::parse_str(schema).expect("a schema");
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().expect("a writer");
    (0..ROWS)
        .map(|i| {
            let fields = (0..20)
                .map(|f| {
                    let value = match f % 4 {
                        0 => Value::Long((i * 1_000_003 + f) as i64),
                        1 => Value::String(format!("customer name {}", i * f)),
                        2 => Value::Double(i as f64 + 0.25),
                        _ => Value::Boolean(i % 2 == 0),
                    };
                    let value = match (nullable && f == 0, bad_every > 0 && i % bad_every == 7) {
                        (true, true) => Value::Union(0, Box::new(Value::Null)),
                        (true, false) => Value::Union(1, Box::new(value)),
                        _ => value,
                    };
                    (format!("f{f}"), value)
                })
                .collect();
            let datum = writer.write_value_to_vec(Value::Record(fields)).expect("a value of the schema");
            [&[0, 0, 0, 0, 1], datum.as_slice()].concat()
        })
        .collect()
}

/// As generated code has it.
#[derive(Clone, PartialEq, prost::Message)]
#[rustfmt::skip]
struct Compiled {
    #[prost(int64, tag = 1)] f0: i64, #[prost(string, tag = 2)] f1: String, #[prost(double, tag = 3)] f2: f64, #[prost(bool, tag = 4)] f3: bool,
    #[prost(int64, tag = 5)] f4: i64, #[prost(string, tag = 6)] f5: String, #[prost(double, tag = 7)] f6: f64, #[prost(bool, tag = 8)] f7: bool,
    #[prost(int64, tag = 9)] f8: i64, #[prost(string, tag = 10)] f9: String, #[prost(double, tag = 11)] f10: f64, #[prost(bool, tag = 12)] f11: bool,
    #[prost(int64, tag = 13)] f12: i64, #[prost(string, tag = 14)] f13: String, #[prost(double, tag = 15)] f14: f64, #[prost(bool, tag = 16)] f15: bool,
    #[prost(int64, tag = 17)] f16: i64, #[prost(string, tag = 18)] f17: String, #[prost(double, tag = 19)] f18: f64, #[prost(bool, tag = 20)] f19: bool,
}

fn protobuf_schema() -> String {
    let fields: String = (0..20)
        .map(|f| format!("{} f{f} = {}; ", ["int64", "string", "double", "bool"][f % 4], f + 1))
        .collect();
    format!("syntax = \"proto3\"; message R {{ {fields} }}")
}

fn protobuf_rows(bad_every: usize) -> Vec<Vec<u8>> {
    let row = |i: usize| {
        let (number, text) =
            (|f: usize| (i * 1_000_003 + f) as i64, |f: usize| format!("customer name {}", i * f));
        let (double, is) = (i as f64 + 0.25, i.is_multiple_of(2));
        #[rustfmt::skip]
        let row = Compiled {
            f0: number(0), f1: text(1), f2: double, f3: is, f4: number(4), f5: text(5), f6: double, f7: is, f8: number(8),
            f9: text(9), f10: double, f11: is, f12: number(12), f13: text(13), f14: double, f15: is, f16: number(16),
            f17: text(17), f18: double, f19: is,
        };
        let mut value = row.encode_to_vec();
        if bad_every > 0 && i % bad_every == 7 {
            // A text for the first field, at the end.
            value.extend([10, 1, b'x']);
        }
        value
    };
    (0..ROWS).map(row).collect()
}

fn tagged(rows: &[Vec<u8>]) -> impl Iterator<Item = (u64, Option<&[u8]>)> {
    rows.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_slice())))
}

fn main() {
    let schema = json_schema();
    let (good, bad) = (json_rows(0), json_rows(100));
    let size = good.iter().map(Vec::len).sum::<usize>() / ROWS;
    let mut ours = JsonDecoder::new(schema.clone(), JsonOptions::default()).expect("types JSON has");
    assert_eq!(ours.decode(tagged(&bad)).expect("decoded").undecodable.len(), 10);
    let first = best(|| drop(black_box(ours.decode(tagged(&good)))));
    let second = best(|| drop(black_box(ours.decode(tagged(&good)))));
    let noise = (first / second - 1.0).abs();
    println!("A/A noise {:.1} %", noise * 100.0);
    let json = first.min(second);
    let json_alone = best(|| {
        let mut decoder = arrow_json::ReaderBuilder::new(Arc::clone(&schema))
            .with_batch_size(ROWS)
            .build_decoder()
            .expect("a decoder");
        for row in &good {
            decoder.decode(row).expect("good rows");
        }
        black_box(decoder.flush().expect("good rows"));
    });
    let json_bad = best(|| drop(black_box(ours.decode(tagged(&bad)))));
    println!(
        "JSON, {size} bytes a row: {json:.0} ns a row, arrow-json alone {json_alone:.0} ns; 1 % bad {json_bad:.0} ns"
    );

    let writer = avro_schema(false);
    let good = avro_rows(&writer, false, 0);
    let size = good.iter().map(Vec::len).sum::<usize>() / ROWS;
    let mut ours = AvroDecoder::new(&writer).expect("a reader schema");
    ours.add_writer_schema(1, &writer).expect("the same schema");
    let avro = best(|| drop(black_box(ours.decode(tagged(&good)))));
    let mut store =
        arrow_avro::schema::SchemaStore::new_with_type(arrow_avro::schema::FingerprintAlgorithm::Id);
    store
        .set(arrow_avro::schema::Fingerprint::Id(1), arrow_avro::schema::AvroSchema::new(writer.clone()))
        .expect("a new store");
    let mut alone = arrow_avro::reader::ReaderBuilder::new()
        .with_batch_size(ROWS + 1)
        .with_writer_schema_store(store)
        .build_decoder()
        .expect("a decoder");
    let avro_alone = best(|| {
        for row in &good {
            alone.decode(row).expect("good rows");
        }
        black_box(alone.flush().expect("good rows"));
    });
    let nullable = avro_schema(true);
    let bad = avro_rows(&nullable, true, 100);
    let mut strict = AvroDecoder::new(&writer).expect("a reader schema");
    strict.add_writer_schema(1, &nullable).expect("a schema that can be read");
    assert_eq!(strict.decode(tagged(&bad)).expect("decoded").undecodable.len(), 10);
    let avro_bad = best(|| drop(black_box(strict.decode(tagged(&bad)))));
    println!(
        "Avro, {size} bytes a row: {avro:.0} ns a row, arrow-avro alone {avro_alone:.0} ns; 1 % bad {avro_bad:.0} ns"
    );

    let schema = protobuf_schema();
    let good = protobuf_rows(0);
    let size = good.iter().map(Vec::len).sum::<usize>() / ROWS;
    let mut options = ProtobufOptions::default();
    options.bare = true;
    let mut ours = ProtobufDecoder::new(&schema, &options).expect("a schema");
    let protobuf = best(|| drop(black_box(ours.decode(tagged(&good)))));
    let structs = best(|| {
        let rows = good.iter().map(|row| Compiled::decode(row.as_slice()).expect("good rows"));
        drop(black_box(rows.collect::<Vec<_>>()));
    });
    let set = inline_protobuf_imports(&schema, []).expect("a schema");
    let set = base64::engine::general_purpose::STANDARD.decode(set).expect("base64");
    let pool = DescriptorPool::decode(set.as_slice()).expect("descriptions");
    let of = pool.get_message_by_name("R").expect("the message");
    let messages = best(|| {
        let rows =
            good.iter().map(|row| DynamicMessage::decode(of.clone(), row.as_slice()).expect("good rows"));
        drop(black_box(rows.collect::<Vec<_>>()));
    });
    let bad = protobuf_rows(100);
    assert_eq!(ours.decode(tagged(&bad)).expect("decoded").undecodable.len(), 10);
    let protobuf_bad = best(|| drop(black_box(ours.decode(tagged(&bad)))));
    println!(
        "Protobuf, {size} bytes a row: {protobuf:.0} ns a row, prost's structs {structs:.0} ns, prost-reflect's messages {messages:.0} ns; 1 % bad {protobuf_bad:.0} ns"
    );

    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    println!(
        "{}",
        serde_json::json!({
            "json_over_arrow_json": round(json / json_alone),
            "json_one_percent_bad": round(json_bad / json),
            "avro_over_arrow_avro": round(avro / avro_alone),
            "avro_one_percent_bad": round(avro_bad / avro),
            "protobuf_over_structs": round(protobuf / structs),
            "protobuf_over_messages": round(protobuf / messages),
            "protobuf_one_percent_bad": round(protobuf_bad / protobuf),
            "noise": round(noise),
        })
    );
}
