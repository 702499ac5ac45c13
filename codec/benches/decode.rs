//! Question: what does it cost, over arrow-json and arrow-avro alone, that one bad row never costs another?
//!
//! Axes: format (JSON, Avro); all rows good, or one in a hundred of the wrong type. Batches of 1,000 rows
//! of 20 fields, one thread, best of many runs; ratios are within one run, and the first line runs the
//! same thing twice to show the noise.
//!
//! Not measured: the network, the registry, transforms, writing.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::types::Value;
use arrow_schema::SchemaRef;
use gristmill_codec::{AvroDecoder, JsonDecoder, JsonOptions, SchemaSpec};

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

    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    println!(
        "{}",
        serde_json::json!({
            "json_over_arrow_json": round(json / json_alone),
            "json_one_percent_bad": round(json_bad / json),
            "avro_over_arrow_avro": round(avro / avro_alone),
            "avro_one_percent_bad": round(avro_bad / avro),
            "noise": round(noise),
        })
    );
}
