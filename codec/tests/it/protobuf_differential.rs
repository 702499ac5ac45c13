//! Bytes of all sorts, as our decoder and prost-reflect's read them.

use arrow_array::RecordBatch;
use gristmill_codec::rows_as_json;
use proptest::prelude::*;
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value as Read};
use serde_json::{Map, Value, json};

use crate::protobuf::{ORDER, bare, pool};

/// What may stand in a message: fields that the schema has, with values that fit them or not, in any order and number.
fn fields_of(message: &MessageDescriptor, depth: u32) -> BoxedStrategy<Vec<u8>> {
    let mut kinds: Vec<BoxedStrategy<Vec<u8>>> = Vec::new();
    for field in message.fields() {
        let number = field.number();
        let value: BoxedStrategy<(u32, Vec<u8>)> = match field.kind() {
            Kind::Message(inner) if depth > 0 => {
                fields_of(&inner, depth - 1).prop_map(|bytes| (2, bytes)).boxed()
            }
            Kind::Message(_) => Just((2, Vec::new())).boxed(),
            Kind::String => "[a-zé]{0,3}".prop_map(|text| (2, text.into_bytes())).boxed(),
            Kind::Bytes => prop::collection::vec(any::<u8>(), 0..3).prop_map(|bytes| (2, bytes)).boxed(),
            Kind::Fixed32 | Kind::Sfixed32 => {
                any::<u32>().prop_map(|n| (5, n.to_le_bytes().to_vec())).boxed()
            }
            Kind::Fixed64 | Kind::Sfixed64 => {
                any::<u64>().prop_map(|n| (1, n.to_le_bytes().to_vec())).boxed()
            }
            Kind::Float => (-9..9i8).prop_map(|n| (5, f32::from(n).to_le_bytes().to_vec())).boxed(),
            Kind::Double => (-9..9i8).prop_map(|n| (1, f64::from(n).to_le_bytes().to_vec())).boxed(),
            _ => prop_oneof![
                (0..3u64).boxed(),
                any::<u64>().boxed(),
                (-3..0i64).prop_map(|n| n as u64).boxed()
            ]
            .prop_map(|n| {
                let mut bytes = Vec::new();
                prost::encoding::encode_varint(n, &mut bytes);
                (0, bytes)
            })
            .boxed(),
        };
        let packable =
            field.is_list() && !matches!(field.kind(), Kind::Message(_) | Kind::String | Kind::Bytes);
        let packs = if packable { 0..4usize } else { 0..1 };
        let value = (value, packs).prop_map(move |((wire, bytes), packed)| {
            let (wire, bytes) = if packed > 0 { (2, bytes.repeat(packed)) } else { (wire, bytes) };
            let mut out = Vec::new();
            prost::encoding::encode_varint(u64::from(number << 3 | wire), &mut out);
            if wire == 2 {
                prost::encoding::encode_varint(bytes.len() as u64, &mut out);
            }
            out.extend(bytes);
            out
        });
        kinds.push(value.boxed());
    }
    if kinds.is_empty() {
        return Just(Vec::new()).boxed();
    }
    prop::collection::vec(prop::strategy::Union::new(kinds), 0..6).prop_map(|parts| parts.concat()).boxed()
}

/// What prost-reflect read, as rows of our columns are shown.
fn expected(message: &DynamicMessage) -> Option<Map<String, Value>> {
    let mut row = Map::new();
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        row.insert(field.name().to_owned(), shown(&message.get_field(&field), &field.kind())?);
    }
    Some(row)
}

fn time(seconds: i64, nanos: i64) -> Option<Value> {
    let in_range =
        (-62_135_596_800..=253_402_300_799).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    let time = jiff::Timestamp::new(seconds, 0).ok().filter(|_| in_range)?;
    let micros = nanos / 1000;
    let digits = match micros {
        0 => String::new(),
        _ if micros % 1000 == 0 => format!(".{:03}", micros / 1000),
        _ => format!(".{micros:06}"),
    };
    Some(json!(time.strftime(&format!("%Y-%m-%dT%H:%M:%S{digits}Z")).to_string()))
}

fn shown(value: &Read, kind: &Kind) -> Option<Value> {
    Some(match value {
        Read::Bool(it) => json!(it),
        Read::I32(it) => json!(it),
        Read::I64(it) => json!(it),
        Read::U32(it) => json!(it),
        Read::U64(it) => json!(it),
        Read::F32(it) => json!(it),
        Read::F64(it) => json!(it),
        Read::String(it) => json!(it),
        Read::Bytes(it) => json!(it.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        Read::EnumNumber(it) => {
            let of = kind.as_enum().unwrap();
            let name = of.enum_descriptor_proto().value.iter().find(|value| value.number() == *it);
            json!(name.map_or(it.to_string(), |value| value.name().to_owned()))
        }
        Read::List(items) => items.iter().map(|item| shown(item, kind)).collect::<Option<Vec<_>>>()?.into(),
        Read::Map(entries) => {
            let value = kind.as_message().unwrap().map_entry_value_field().kind();
            let mut map = Map::new();
            for (key, item) in entries {
                let key = match key {
                    MapKey::Bool(key) => key.to_string(),
                    MapKey::I32(key) => key.to_string(),
                    MapKey::I64(key) => key.to_string(),
                    MapKey::U32(key) => key.to_string(),
                    MapKey::U64(key) => key.to_string(),
                    MapKey::String(key) => key.clone(),
                };
                map.insert(key, shown(item, &value)?);
            }
            Value::Object(map)
        }
        Read::Message(message) => {
            let number = |name: &str| match &*message.get_field_by_name(name).unwrap() {
                Read::I32(number) => i64::from(*number),
                Read::I64(number) => *number,
                _ => 0,
            };
            match message.descriptor().full_name() {
                "google.protobuf.Timestamp" => time(number("seconds"), number("nanos"))?,
                "google.type.Date" => {
                    let [year, month, day] =
                        ["year", "month", "day"].map(|part| number(part).try_into().ok());
                    let date =
                        jiff::civil::Date::new(year?, month?.try_into().ok()?, day?.try_into().ok()?).ok()?;
                    json!((1..=9999).contains(&date.year()).then(|| date.to_string())?)
                }
                "google.type.TimeOfDay" => {
                    let [h, m, s] = ["hours", "minutes", "seconds"].map(|part| number(part).try_into().ok());
                    let nanos = i32::try_from(number("nanos")).ok()?;
                    let time = jiff::civil::Time::new(h?, m?, s?, nanos / 1000 * 1000).ok()?;
                    if !(0..1_000_000_000).contains(&nanos) {
                        return None;
                    }
                    let micros = nanos / 1000;
                    let digits = match micros {
                        0 => String::new(),
                        _ if micros % 1000 == 0 => format!(".{:03}", micros / 1000),
                        _ => format!(".{micros:06}"),
                    };
                    json!(format!("{:02}:{:02}:{:02}{digits}", time.hour(), time.minute(), time.second()))
                }
                "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.Empty" => {
                    json!(serde_json::to_string(message).ok()?)
                }
                name if name.starts_with("google.protobuf.") => {
                    let field = message.descriptor().get_field(1).unwrap();
                    shown(&message.get_field(&field), &field.kind())?
                }
                _ => Value::Object(expected(message)?),
            }
        }
    })
}

/// Whether a map of a row has a key twice, which we refuse and prost-reflect does not tell: it keeps the last, and so what is wrong
/// with a time before that is gone, too.
fn refuses_a_key(reason: &str) -> bool {
    reason.ends_with("the map has a key twice") || reason.starts_with("field times.")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_read_the_same(rows in prop::collection::vec(fields_of(&pool(ORDER).get_message_by_name("shop.Order").unwrap(), 3), 1..5)) {
        let of = pool(ORDER).get_message_by_name("shop.Order").unwrap();
        let mut ours = bare(ORDER);
        let decoded = ours.decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_slice())))).unwrap();
        let shown: Vec<Map<String, Value>> = rows_as_json(&decoded.batch).unwrap();
        let mut shown = decoded.rows.iter().zip(shown).peekable();
        let mut bad = decoded.undecodable.iter().peekable();
        for (i, row) in rows.iter().enumerate() {
            let theirs = DynamicMessage::decode(of.clone(), &**row).ok().and_then(|message| expected(&message));
            if let Some((_, row)) = shown.next_if(|(tag, _)| **tag == i as u64) {
                prop_assert_eq!(Some(row), theirs);
            } else {
                let bad = bad.next().unwrap();
                prop_assert!(theirs.is_none() || refuses_a_key(&bad.reason), "{}", bad.reason);
            }
        }
    }

    #[test]
    fn bytes_that_are_nothing_cost_no_row_and_no_panic(rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20)) {
        let mut ours = bare(ORDER);
        let decoded = ours.decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(row.as_slice())))).unwrap();
        prop_assert_eq!(decoded.rows.len() + decoded.undecodable.len(), rows.len());
        prop_assert_eq!(RecordBatch::num_rows(&decoded.batch), decoded.rows.len());
    }
}
