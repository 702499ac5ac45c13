//! Random schemas, values and evolved reader schemas: our columns against apache-avro's values.

use std::fmt::Write as _;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_schema::DataType;
use gristmill_codec::{AvroDecoder, AvroEncoder, AvroOptions};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::avro::datum;

/// A type that Arrow has a column for.
#[derive(Debug, Clone)]
enum Ty {
    Bool,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Date,
    Millis,
    Micros,
    Decimal(u8, u8),
    Fixed(usize),
    Enum(usize),
    Array(Box<Ty>),
    Map(Box<Ty>),
    /// A union with null, which comes first or second.
    Opt(Box<Ty>, bool),
    /// A union of several types, and of null, which comes first.
    Union(Vec<Ty>, bool),
    Record(Vec<Ty>),
}

fn ty() -> impl Strategy<Value = Ty> {
    let leaf = prop_oneof![
        Just(Ty::Bool),
        Just(Ty::Int),
        Just(Ty::Long),
        Just(Ty::Float),
        Just(Ty::Double),
        Just(Ty::Bytes),
        Just(Ty::Text),
        Just(Ty::Date),
        Just(Ty::Millis),
        Just(Ty::Micros),
        (1u8..=38).prop_flat_map(|p| (Just(p), 0..=p)).prop_map(|(p, s)| Ty::Decimal(p, s)),
        (1usize..9).prop_map(Ty::Fixed),
        (1usize..5).prop_map(Ty::Enum),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|t| Ty::Array(Box::new(t))),
            1 => inner.clone().prop_map(|t| Ty::Map(Box::new(t))),
            3 => (inner.clone(), any::<bool>()).prop_map(|(t, first)| match t {
                Ty::Opt(..) => t,
                t => Ty::Opt(Box::new(t), first),
            }),
            2 => prop::collection::vec(inner, 1..4).prop_map(Ty::Record),
        ]
    })
}

/// A small generator, so that values follow from a type and a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    /// Small, large and extreme numbers alike.
    fn long(&mut self) -> i64 {
        let n = self.roll() as i64;
        match self.below(4) {
            0 => n % 100,
            1 => [i64::MIN, i64::MAX, 0, -1][(n & 3) as usize],
            _ => n >> self.below(64),
        }
    }

    fn int(&mut self) -> i32 {
        match self.below(6) {
            0 => [i32::MIN, i32::MAX][self.below(2) as usize],
            _ => self.long() as i32,
        }
    }

    fn text(&mut self) -> String {
        (0..self.below(6)).map(|_| ['a', 'é', '\0', '漢', '"', 'z'][self.below(6) as usize]).collect()
    }
}

/// The schema of the type. Names of named types follow from the path, so that reader and writer agree.
fn schema(ty: &Ty, path: &str) -> Json {
    match ty {
        Ty::Bool => json!("boolean"),
        Ty::Int => json!("int"),
        Ty::Long => json!("long"),
        Ty::Float => json!("float"),
        Ty::Double => json!("double"),
        Ty::Bytes => json!("bytes"),
        Ty::Text => json!("string"),
        Ty::Date => json!({"type": "int", "logicalType": "date"}),
        Ty::Millis => json!({"type": "long", "logicalType": "timestamp-millis"}),
        Ty::Micros => json!({"type": "long", "logicalType": "timestamp-micros"}),
        Ty::Decimal(p, s) => json!({"type": "bytes", "logicalType": "decimal", "precision": p, "scale": s}),
        Ty::Fixed(n) => json!({"type": "fixed", "name": format!("X{path}"), "size": n}),
        Ty::Enum(n) => json!({"type": "enum", "name": format!("E{path}"), "symbols": symbols(*n)}),
        Ty::Array(t) => json!({"type": "array", "items": schema(t, &format!("{path}i"))}),
        Ty::Map(t) => json!({"type": "map", "values": schema(t, &format!("{path}v"))}),
        Ty::Opt(t, true) => json!(["null", schema(t, path)]),
        Ty::Opt(t, false) => json!([schema(t, path), "null"]),
        Ty::Union(types, null) => {
            let types = types.iter().enumerate().map(|(i, t)| schema(t, &format!("{path}u{i}")));
            null.then(|| json!("null")).into_iter().chain(types).collect()
        }
        Ty::Record(fields) => {
            let fields: Vec<Json> = fields
                .iter()
                .enumerate()
                .map(|(i, t)| json!({"name": format!("f{i}"), "type": schema(t, &format!("{path}_{i}"))}))
                .collect();
            json!({"type": "record", "name": format!("R{path}"), "fields": fields})
        }
    }
}

fn symbols(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("S{i}")).collect()
}

fn value(ty: &Ty, dice: &mut Dice) -> Value {
    match ty {
        Ty::Bool => Value::Boolean(dice.below(2) == 1),
        Ty::Int => Value::Int(dice.int()),
        Ty::Long => Value::Long(dice.long()),
        Ty::Float => Value::Float(f32::from_bits(dice.roll() as u32)),
        Ty::Double => Value::Double(f64::from_bits(dice.roll())),
        Ty::Bytes => Value::Bytes((0..dice.below(5)).map(|_| dice.roll() as u8).collect()),
        Ty::Text => Value::String(dice.text()),
        Ty::Date => Value::Date(dice.int()),
        Ty::Millis => Value::TimestampMillis(dice.long()),
        Ty::Micros => Value::TimestampMicros(dice.long()),
        Ty::Decimal(p, _) => {
            let limit = 10i128.pow((*p).into());
            let n = ((i128::from(dice.long()) << 64) | i128::from(dice.roll())) % limit;
            Value::Decimal(Decimal::from(n.to_be_bytes()))
        }
        Ty::Fixed(n) => Value::Fixed(*n, (0..*n).map(|_| dice.roll() as u8).collect()),
        Ty::Enum(n) => {
            let i = dice.below(*n as u64) as u32;
            Value::Enum(i, format!("S{i}"))
        }
        Ty::Array(t) => Value::Array((0..dice.below(4)).map(|_| value(t, dice)).collect()),
        Ty::Map(t) => {
            Value::Map((0..dice.below(3)).map(|i| (format!("k{i}{}", dice.text()), value(t, dice))).collect())
        }
        Ty::Opt(t, null_first) => {
            let null = dice.below(3) == 0;
            let branch = u32::from(null != *null_first);
            Value::Union(branch, Box::new(if null { Value::Null } else { value(t, dice) }))
        }
        Ty::Union(types, null) => match dice.below(types.len() as u64 + u64::from(*null)) {
            0 if *null => Value::Union(0, Box::new(Value::Null)),
            branch => {
                let of = &types[branch as usize - usize::from(*null)];
                Value::Union(branch as u32, Box::new(value(of, dice)))
            }
        },
        Ty::Record(fields) => {
            Value::Record(fields.iter().enumerate().map(|(i, t)| (format!("f{i}"), value(t, dice))).collect())
        }
    }
}

/// Types with unions anywhere, of which each type has a name of its own. Times are tried one by one: not all have a text.
fn with_unions() -> impl Strategy<Value = Ty> {
    let leaf = prop_oneof![
        Just(Ty::Bool),
        Just(Ty::Int),
        Just(Ty::Long),
        Just(Ty::Float),
        Just(Ty::Double),
        Just(Ty::Bytes),
        Just(Ty::Text),
        (1u8..=38).prop_flat_map(|p| (Just(p), 0..=p)).prop_map(|(p, s)| Ty::Decimal(p, s)),
        (1usize..9).prop_map(Ty::Fixed),
        (1usize..5).prop_map(Ty::Enum),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|t| Ty::Array(Box::new(t))),
            2 => (inner.clone(), any::<bool>()).prop_map(|(t, first)| match t {
                Ty::Opt(..) | Ty::Union(..) => t,
                t => Ty::Opt(Box::new(t), first),
            }),
            3 => (prop::collection::vec(inner.clone(), 2..5), any::<bool>()).prop_map(|(types, null)| {
                let mut names = std::collections::HashSet::new();
                let fits = |t: &Ty| !matches!(t, Ty::Opt(..) | Ty::Union(..)) && names.insert(kind(t));
                let mut types: Vec<Ty> = types.into_iter().filter(fits).collect();
                for more in [Ty::Bool, Ty::Text] {
                    if types.len() < 2 && types.iter().all(|t| kind(t) != kind(&more)) {
                        types.push(more);
                    }
                }
                Ty::Union(types, null)
            }),
            2 => prop::collection::vec(inner, 1..4).prop_map(Ty::Record),
        ]
    })
}

/// What two types of a union must not share. Named types have names by their place.
fn kind(ty: &Ty) -> &'static str {
    match ty {
        Ty::Bool => "boolean",
        Ty::Int => "int",
        Ty::Long => "long",
        Ty::Float => "float",
        Ty::Double => "double",
        Ty::Bytes | Ty::Decimal(..) => "bytes",
        Ty::Text => "string",
        Ty::Array(_) => "array",
        Ty::Fixed(_) => "X",
        Ty::Enum(_) => "E",
        Ty::Record(_) => "R",
        other => panic!("not in a union: {other:?}"),
    }
}

/// A value inside of JSON.
fn as_json(ty: &Ty, value: &Value, path: &str) -> String {
    let float = |f: f64, text: String| match f {
        f if f.is_nan() => "\"NaN\"".into(),
        f if f.is_infinite() => format!("\"{}Infinity\"", if f < 0.0 { "-" } else { "" }),
        _ => text,
    };
    match (ty, value) {
        (_, Value::Null) => "null".into(),
        (_, Value::Boolean(b)) => b.to_string(),
        (_, Value::Int(n)) => n.to_string(),
        (_, Value::Long(n)) => n.to_string(),
        (_, Value::Float(f)) => float((*f).into(), serde_json::to_string(f).unwrap()),
        (_, Value::Double(f)) => float(*f, serde_json::to_string(f).unwrap()),
        (_, Value::Bytes(b) | Value::Fixed(_, b)) => format!("\"{}\"", base64(b)),
        (_, Value::String(s) | Value::Enum(_, s)) => json!(s).to_string(),
        (Ty::Decimal(_, scale), Value::Decimal(d)) => {
            let mut out = String::new();
            of_value(&Value::Decimal(d.clone()), &mut out);
            let (sign, digits) = out.strip_prefix('-').map_or(("", out.as_str()), |digits| ("-", digits));
            let scale = usize::from(*scale);
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, part) = digits.split_at(digits.len() - scale);
            format!("\"{sign}{whole}{}{part}\"", if scale > 0 { "." } else { "" })
        }
        (Ty::Opt(t, _), Value::Union(_, inner)) => as_json(t, inner, path),
        (Ty::Union(types, null), Value::Union(branch, inner)) => match **inner {
            Value::Null => "null".into(),
            _ => {
                let i = *branch as usize - usize::from(*null);
                let path = format!("{path}u{i}");
                let mut name = kind(&types[i]).to_owned();
                if name.len() == 1 {
                    name += &path;
                }
                format!("{{\"{name}\":{}}}", as_json(&types[i], inner, &path))
            }
        },
        (Ty::Array(t), Value::Array(items)) => {
            let items: Vec<_> = items.iter().map(|item| as_json(t, item, &format!("{path}i"))).collect();
            format!("[{}]", items.join(","))
        }
        (Ty::Record(types), Value::Record(fields)) => {
            let fields = types.iter().zip(fields).enumerate();
            let fields = fields
                .map(|(i, (t, (name, v)))| format!("\"{name}\":{}", as_json(t, v, &format!("{path}_{i}"))));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        other => panic!("{other:?}"),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// The value with a text of JSON where its type is a union.
fn with_texts(ty: &Ty, value: &Value, path: &str) -> Value {
    match (ty, value) {
        (Ty::Union(..), Value::Union(_, inner)) if **inner == Value::Null => Value::Null,
        (Ty::Union(..), _) => Value::String(as_json(ty, value, path)),
        (Ty::Opt(t, _), Value::Union(branch, inner)) => {
            Value::Union(*branch, Box::new(with_texts(t, inner, path)))
        }
        (Ty::Array(t), Value::Array(items)) => {
            Value::Array(items.iter().map(|item| with_texts(t, item, &format!("{path}i"))).collect())
        }
        (Ty::Record(types), Value::Record(fields)) => {
            let fields = types.iter().zip(fields).enumerate();
            let fields =
                fields.map(|(i, (t, (name, v)))| (name.clone(), with_texts(t, v, &format!("{path}_{i}"))));
            Value::Record(fields.collect())
        }
        _ => value.clone(),
    }
}

/// A reader schema that Avro can resolve the writer's to: fields dropped, added with a default, moved,
/// promoted, made nullable.
fn evolve(schema: &Json, dice: &mut Dice, top: bool) -> Json {
    match schema {
        Json::String(name) => match (name.as_str(), dice.below(4)) {
            ("int", 0) => json!("long"),
            ("int", 1) => json!("double"),
            ("long", 0) => json!("double"),
            ("float", 0) => json!("double"),
            _ => schema.clone(),
        },
        Json::Array(branches) => {
            // The branch that is not null may evolve; what was nullable stays so.
            branches.iter().map(|b| if b == "null" { b.clone() } else { evolve(b, dice, true) }).collect()
        }
        Json::Object(object) => {
            let mut object = object.clone();
            match object["type"].as_str().unwrap() {
                "array" => object["items"] = evolve(&object["items"].clone(), dice, false),
                "map" => object["values"] = evolve(&object["values"].clone(), dice, false),
                "record" => {
                    let mut fields = Vec::new();
                    for field in object["fields"].as_array().unwrap() {
                        if dice.below(6) == 0 {
                            continue;
                        }
                        let mut field = field.clone();
                        field["type"] = evolve(&field["type"].clone(), dice, false);
                        let at = dice.below(fields.len() as u64 + 1) as usize;
                        fields.insert(at, field);
                    }
                    let added = [
                        json!({"name": "new_text", "type": "string", "default": "dé"}),
                        json!({"name": "new_long", "type": "long", "default": -5}),
                        json!({"name": "new_null", "type": ["null", "int"], "default": null}),
                        json!({"name": "new_list", "type": {"type": "array", "items": "int"}, "default": [1, 2]}),
                    ];
                    if dice.below(2) == 0 || fields.is_empty() {
                        fields.push(added[dice.below(4) as usize].clone());
                    }
                    object["fields"] = fields.into();
                }
                _ => {}
            }
            if !top && dice.below(5) == 0 { json!(["null", object]) } else { object.into() }
        }
        other => other.clone(),
    }
}

/// A value as text, the same for equal values whichever library it comes from. Floats by their bits.
fn of_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Boolean(b) => write!(out, "{b}").unwrap(),
        Value::Int(n) | Value::Date(n) => write!(out, "{n}").unwrap(),
        Value::Long(n) | Value::TimestampMillis(n) | Value::TimestampMicros(n) => write!(out, "{n}").unwrap(),
        Value::Float(f) => write!(out, "f{:x}", f.to_bits()).unwrap(),
        Value::Double(f) => write!(out, "d{:x}", f.to_bits()).unwrap(),
        Value::Bytes(b) | Value::Fixed(_, b) => write!(out, "{b:?}").unwrap(),
        Value::String(s) | Value::Enum(_, s) => write!(out, "{s:?}").unwrap(),
        Value::Decimal(d) => {
            let bytes: Vec<u8> = d.try_into().unwrap();
            let sign = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = [sign; 16];
            wide[16 - bytes.len()..].copy_from_slice(&bytes);
            write!(out, "{}", i128::from_be_bytes(wide)).unwrap();
        }
        Value::Union(_, inner) => of_value(inner, out),
        Value::Array(items) => list(out, items.len(), |i, out| of_value(&items[i], out)),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            list(out, entries.len(), |i, out| {
                write!(out, "{:?}=", entries[i].0).unwrap();
                of_value(entries[i].1, out);
            });
        }
        Value::Record(fields) => list(out, fields.len(), |i, out| {
            write!(out, "{}=", fields[i].0).unwrap();
            of_value(&fields[i].1, out);
        }),
        other => panic!("no such value is generated: {other:?}"),
    }
}

fn of_array(array: &dyn Array, i: usize, out: &mut String) {
    if array.is_null(i) {
        return out.push_str("null");
    }
    match array.data_type() {
        DataType::Boolean => write!(out, "{}", array.as_boolean().value(i)).unwrap(),
        DataType::Int32 => write!(out, "{}", array.as_primitive::<Int32Type>().value(i)).unwrap(),
        DataType::Date32 => write!(out, "{}", array.as_primitive::<Date32Type>().value(i)).unwrap(),
        DataType::Int64 => write!(out, "{}", array.as_primitive::<Int64Type>().value(i)).unwrap(),
        DataType::Timestamp(arrow_schema::TimeUnit::Millisecond, _) => {
            write!(out, "{}", array.as_primitive::<TimestampMillisecondType>().value(i)).unwrap();
        }
        DataType::Timestamp(_, _) => {
            write!(out, "{}", array.as_primitive::<TimestampMicrosecondType>().value(i)).unwrap();
        }
        DataType::Float32 => {
            write!(out, "f{:x}", array.as_primitive::<Float32Type>().value(i).to_bits()).unwrap()
        }
        DataType::Float64 => {
            write!(out, "d{:x}", array.as_primitive::<Float64Type>().value(i).to_bits()).unwrap()
        }
        DataType::Decimal128(..) => {
            write!(out, "{}", array.as_primitive::<Decimal128Type>().value(i)).unwrap()
        }
        DataType::Binary => write!(out, "{:?}", array.as_binary::<i32>().value(i)).unwrap(),
        DataType::FixedSizeBinary(_) => write!(out, "{:?}", array.as_fixed_size_binary().value(i)).unwrap(),
        DataType::Utf8 => write!(out, "{:?}", array.as_string::<i32>().value(i)).unwrap(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(i);
            list(out, items.len(), |i, out| of_array(&items, i, out));
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(i);
            let mut order: Vec<usize> = (0..entries.len()).collect();
            let keys = entries.column(0).as_string::<i32>();
            order.sort_by_key(|&k| keys.value(k));
            list(out, order.len(), |n, out| {
                write!(out, "{:?}=", keys.value(order[n])).unwrap();
                of_array(entries.column(1), order[n], out);
            });
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            list(out, fields.len(), |c, out| {
                write!(out, "{}=", fields[c].name()).unwrap();
                of_array(columns.column(c), i, out);
            });
        }
        other => panic!("no such column is promised: {other}"),
    }
}

fn list(out: &mut String, n: usize, mut item: impl FnMut(usize, &mut String)) {
    out.push('[');
    for i in 0..n {
        if i > 0 {
            out.push(',');
        }
        item(i, out);
    }
    out.push(']');
}

fn framed(id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0], id.to_be_bytes().as_slice(), datum].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Two writers of one reader, interleaved: every datum that apache-avro resolves is the same row here.
    #[test]
    fn columns_are_what_apache_avro_resolves(fields in prop::collection::vec(ty(), 1..6), seed in any::<u64>(), rows in 1usize..12) {
        let mut dice = Dice(seed);
        let ty = Ty::Record(fields);
        let first = schema(&ty, "");
        let reader = evolve(&first, &mut dice, true);
        let (writer_text, reader_text) = (first.to_string(), reader.to_string());
        let writer = Schema::parse_str(&writer_text).unwrap();
        let reader_schema = Schema::parse_str(&reader_text).unwrap();

        let resolver = GenericDatumReader::builder(&writer).reader_schema(&reader_schema).build().unwrap();

        let mut decoder = AvroDecoder::new(&reader_text).unwrap();
        decoder.add_writer_schema(1, &writer_text).unwrap();
        // The reader's own schema writes too.
        decoder.add_writer_schema(2, &reader_text).unwrap();

        let mut input = Vec::new();
        let mut expected = Vec::new();
        for i in 0..rows {
            let blocks = dice.below(2) == 0;
            let bytes = datum(&writer, value(&ty, &mut dice), blocks);
            let resolved = resolver.read_value(&mut bytes.as_slice()).unwrap();
            let mut text = String::new();
            of_value(&resolved, &mut text);
            expected.push(text);
            input.push(if i % 3 == 2 {
                framed(2, &datum(&reader_schema, resolved, false))
            } else {
                framed(1, &bytes)
            });
        }
        let decoded = decoder.decode(input.iter().enumerate().map(|(i, r)| (i as u64, Some(r.as_slice())))).unwrap();
        prop_assert_eq!(&decoded.undecodable, &[], "{} -> {}", writer_text, reader_text);
        let whole = arrow_array::StructArray::from(decoded.batch);
        for (i, expected) in expected.iter().enumerate() {
            let mut text = String::new();
            of_array(&whole, i, &mut text);
            prop_assert_eq!(&text, expected, "{} -> {}", writer_text, reader_text);
        }
    }

    /// Damaged data: every row is accounted for in order, and is decoded to what it is decoded to alone.
    #[test]
    fn a_damaged_datum_costs_no_other(
        fields in prop::collection::vec(ty(), 1..5),
        seed in any::<u64>(),
        damage in prop::collection::vec((0u8..5, any::<prop::sample::Index>(), any::<u8>()), 1..16),
    ) {
        let mut dice = Dice(seed);
        let ty = Ty::Record(fields);
        let first = schema(&ty, "");
        let reader = evolve(&first, &mut dice, true).to_string();
        let first = first.to_string();
        let writer = Schema::parse_str(&first).unwrap();
        let mut decoder = AvroDecoder::new(&reader).unwrap();
        decoder.add_writer_schema(1, &first).unwrap();
        let rows: Vec<Vec<u8>> = damage
            .iter()
            .map(|(kind, at, byte)| {
                let value = value(&ty, &mut dice);
                let mut row = framed(1, &datum(&writer, value, at.index(2) == 0));
                let at = at.index(row.len());
                match kind {
                    0 => row[at] = *byte,
                    1 => row.truncate(at),
                    2 => row.push(*byte),
                    _ => {}
                }
                row
            })
            .collect();
        let tags: Vec<u64> = (0..rows.len() as u64).map(|i| 900 - 7 * i).collect();
        let whole = decoder.decode(tags.iter().copied().zip(rows.iter().map(|r| Some(r.as_slice())))).unwrap();
        prop_assert_eq!(whole.rows.len() + whole.undecodable.len(), rows.len());
        let (mut good, mut bad) = (0, 0);
        for (tag, row) in tags.iter().zip(&rows) {
            let alone = decoder.decode([(*tag, Some(row.as_slice()))]).unwrap();
            if let Some(undecodable) = alone.undecodable.first() {
                prop_assert_eq!(undecodable, &whole.undecodable[bad]);
                bad += 1;
            } else {
                prop_assert_eq!(whole.rows[good], *tag);
                let (mut ours, mut theirs) = (String::new(), String::new());
                of_array(&arrow_array::StructArray::from(alone.batch), 0, &mut ours);
                of_array(&arrow_array::StructArray::from(whole.batch.clone()), good, &mut theirs);
                prop_assert_eq!(ours, theirs);
                good += 1;
            }
        }
    }

    /// Unions anywhere: texts of JSON, and the columns around them.
    #[test]
    fn unions_are_what_their_values_are(fields in prop::collection::vec(with_unions(), 1..6), seed in any::<u64>(), rows in 1usize..12) {
        let mut dice = Dice(seed);
        let ty = Ty::Record(fields);
        let text = schema(&ty, "").to_string();
        let writer = Schema::parse_str(&text).unwrap();
        let mut options = AvroOptions::default();
        options.recursive_as_json = true;
        let mut decoder = AvroDecoder::with_options(&text, &options).unwrap();
        decoder.add_writer_schema(1, &text).unwrap();
        let values: Vec<Value> = (0..rows).map(|_| value(&ty, &mut dice)).collect();
        let input: Vec<Vec<u8>> = values.iter().map(|v| framed(1, &datum(&writer, v.clone(), dice.below(2) == 0))).collect();
        let decoded = decoder.decode(input.iter().map(|r| (0, Some(r.as_slice())))).unwrap();
        prop_assert_eq!(&decoded.undecodable, &[], "{}", text);
        let mut encoder = AvroEncoder::new(&decoded.batch.schema(), &text, 7).unwrap();
        let written = encoder.encode(&decoded.batch).unwrap();
        let reader = GenericDatumReader::builder(&writer).build().unwrap();
        let whole = arrow_array::StructArray::from(decoded.batch);
        for (i, row) in values.iter().enumerate() {
            let (mut ours, mut expected) = (String::new(), String::new());
            of_array(&whole, i, &mut ours);
            of_value(&with_texts(&ty, row, ""), &mut expected);
            prop_assert_eq!(&ours, &expected, "{}", text);
            // Written again, it is the value that it was, but for what a NaN is made of.
            prop_assert_eq!(&written[i][..5], &[0, 0, 0, 0, 7]);
            let read = reader.read_value(&mut &written[i][5..]).unwrap();
            let mut again = String::new();
            of_value(&with_texts(&ty, &read, ""), &mut again);
            prop_assert_eq!(&again, &expected, "{}", text);
        }
        // Damage costs a row, and nothing else.
        let damaged = input.iter().map(|row| {
            let mut row = row.clone();
            let at = 5 + dice.below(row.len() as u64 - 4) as usize;
            match row.get_mut(at) {
                Some(byte) => *byte = byte.wrapping_add(1 + dice.below(255) as u8),
                None => row.push(0),
            }
            row
        });
        let damaged: Vec<Vec<u8>> = damaged.collect();
        let decoded = decoder.decode(damaged.iter().map(|r| (0, Some(r.as_slice())))).unwrap();
        prop_assert_eq!(decoded.rows.len() + decoded.undecodable.len(), rows);
    }

    #[test]
    fn random_bytes_never_panic(rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20), fields in prop::collection::vec(ty(), 1..5)) {
        let schema = schema(&Ty::Record(fields), "").to_string();
        let mut decoder = AvroDecoder::new(&schema).unwrap();
        decoder.add_writer_schema(1, &schema).unwrap();
        let rows: Vec<Vec<u8>> = rows.iter().map(|r| framed(1, r)).collect();
        let decoded = decoder.decode(rows.iter().map(|r| (0, Some(r.as_slice())))).unwrap();
        prop_assert_eq!(decoded.rows.len() + decoded.undecodable.len(), rows.len());
    }
}
