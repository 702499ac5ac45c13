//! The fields of a record as people write them in a pipeline file.

use std::fmt;
use std::sync::Arc;

use arrow_schema::extension::EXTENSION_TYPE_NAME_KEY;
use arrow_schema::{DataType, Field, Fields, Metadata, Schema, SchemaRef, TimeUnit};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// The declared fields of a record, in the order of the file.
///
/// Deserialised from a map of field name to type:
///
/// ```
/// let spec: gristmill_codec::SchemaSpec = serde_json::from_str(r#"{
///     "order_id": "int64 not null",
///     "total": "decimal(18,2)",
///     "placed_at": "timestamp_ms",
///     "tags": "list<string>",
///     "customer": {"name": "string", "email": "string"},
///     "lines": [{"sku": "string not null", "quantity": "int32"}]
/// }"#)?;
/// let schema = spec.arrow_schema().unwrap();
/// assert_eq!(schema.field(0).to_string(), r#"Field { "order_id": Int64 }"#);
/// assert!(schema.field_with_name("total").unwrap().is_nullable());
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// | type | Arrow |
/// |---|---|
/// | `string` | `Utf8` |
/// | `json`: any value of JSON | `Utf8`, its text, with the [extension type](https://arrow.apache.org/docs/format/CanonicalExtensions.html#json) `arrow.json` |
/// | `bytes` | `Binary` (not from JSON) |
/// | `bool` | `Boolean` |
/// | `int8` `int16` `int32` `int64`, `uint8` … `uint64` | the same |
/// | `float32` `float64` | the same |
/// | `decimal(p,s)`, p up to 38 | `Decimal128(p, s)` |
/// | `date` | `Date32` |
/// | `timestamp_s` `timestamp_ms` `timestamp_us` `timestamp_ns` | `Timestamp(unit, UTC)` |
/// | `list<T>`, or a list with one type in it | `List` |
/// | `map<T>` (keys are strings) | `Map` |
/// | a map of fields | `Struct` |
///
/// Every field is nullable unless its type ends in `not null`; also inside: `list<string not null>`.
/// A nested map of fields is always nullable itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaSpec {
    fields: Vec<(String, FieldSpec)>,
}

/// The declared type of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldSpec {
    /// A type by its name, such as `int64 not null`.
    Type(String),
    /// A struct with these fields.
    Struct(SchemaSpec),
    /// A list of such elements.
    List(Box<FieldSpec>),
}

/// One mistake in a [`SchemaSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecMistake {
    /// The path of the field, such as `customer.email` or `lines[].sku`; empty for the whole.
    pub path: String,
    /// What is wrong and what was probably meant.
    pub message: String,
}

impl fmt::Display for SpecMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "field {}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for SpecMistake {}

/// How deep fields may nest: far beyond any table, far below the stack.
const MAX_DEPTH: usize = 32;

const PLAIN: &[(&str, DataType)] = &[
    ("string", DataType::Utf8),
    ("bytes", DataType::Binary),
    ("bool", DataType::Boolean),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("date", DataType::Date32),
];

const TIMESTAMPS: &[(&str, TimeUnit)] = &[
    ("timestamp_s", TimeUnit::Second),
    ("timestamp_ms", TimeUnit::Millisecond),
    ("timestamp_us", TimeUnit::Microsecond),
    ("timestamp_ns", TimeUnit::Nanosecond),
];

/// The type whose columns are [`json_field`]s.
const JSON: &str = "json";
const JSON_EXTENSION: &str = "arrow.json";

/// A column of texts that are JSON.
pub(crate) fn json_field(name: &str, nullable: bool) -> Field {
    let extension = (EXTENSION_TYPE_NAME_KEY.to_owned(), JSON_EXTENSION.to_owned());
    Field::new(name, DataType::Utf8, nullable).with_metadata(Metadata::from_iter([extension]))
}

/// Whether a column's texts are JSON.
pub(crate) fn is_json(field: &Field) -> bool {
    field.extension_type_name() == Some(JSON_EXTENSION)
}

/// Whether a column is of texts.
pub(crate) fn is_text(column: &DataType) -> bool {
    column.is_string() || matches!(column, DataType::Dictionary(_, of) if of.is_string())
}

const SHAPES: &[&str] = &["decimal(18,2)", "list<string>", "map<string>"];

/// What people write who come from elsewhere, and what they mean.
const ELSEWHERE: &[(&str, &str)] = &[
    ("str", "string"),
    ("text", "string"),
    ("utf8", "string"),
    ("varchar", "string"),
    ("char", "string"),
    ("uuid", "string"),
    ("enum", "string"),
    ("binary", "bytes"),
    ("blob", "bytes"),
    ("boolean", "bool"),
    ("byte", "int8"),
    ("short", "int16"),
    ("smallint", "int16"),
    ("int", "int32"),
    ("integer", "int32"),
    ("i32", "int32"),
    ("i64", "int64"),
    ("long", "int64"),
    ("bigint", "int64"),
    ("u32", "uint32"),
    ("u64", "uint64"),
    ("float", "float32"),
    ("real", "float32"),
    ("f32", "float32"),
    ("f64", "float64"),
    ("double", "float64"),
    ("number", "float64"),
    ("numeric", "decimal(18,2)"),
    ("decimal", "decimal(18,2)"),
    ("date32", "date"),
    ("timestamp", "timestamp_ms"),
    ("datetime", "timestamp_ms"),
    ("timestamp_millis", "timestamp_ms"),
    ("timestamp-millis", "timestamp_ms"),
    ("timestamp_micros", "timestamp_us"),
    ("timestamp-micros", "timestamp_us"),
    ("time", "timestamp_ms"),
    ("array", "list<string>"),
    ("list", "list<string>"),
    ("map", "map<string>"),
    ("object", "a nested map of fields"),
    ("struct", "a nested map of fields"),
    ("record", "a nested map of fields"),
];

impl SchemaSpec {
    /// A spec from fields in order.
    pub fn new(fields: impl IntoIterator<Item = (String, FieldSpec)>) -> Self {
        Self { fields: fields.into_iter().collect() }
    }

    /// The fields in order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &FieldSpec)> {
        self.fields.iter().map(|(name, spec)| (name.as_str(), spec))
    }

    /// The Arrow schema that the spec declares.
    ///
    /// # Errors
    ///
    /// Every mistake at once: unknown types (with the nearest valid one), impossible decimals, empty or
    /// doubled names, no fields at all.
    pub fn arrow_schema(&self) -> Result<SchemaRef, Vec<SpecMistake>> {
        let mut mistakes = Vec::new();
        let fields = self.arrow_fields("", 1, &mut mistakes);
        if mistakes.is_empty() { Ok(Arc::new(Schema::new(fields))) } else { Err(mistakes) }
    }

    fn arrow_fields(&self, path: &str, depth: usize, mistakes: &mut Vec<SpecMistake>) -> Fields {
        let mut note =
            |path: &str, message: String| mistakes.push(SpecMistake { path: path.into(), message });
        if self.fields.is_empty() {
            note(path, "no fields are declared; declare at least one, as `name: type`".into());
        }
        if depth > MAX_DEPTH {
            note(path, format!("nested deeper than {MAX_DEPTH} levels"));
            return Fields::empty();
        }
        let mut seen = std::collections::HashSet::new();
        let mut fields = Vec::new();
        for (name, spec) in &self.fields {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if name.trim().is_empty() {
                mistakes.push(SpecMistake { path: path.clone(), message: "a field name is empty".into() });
            }
            if !seen.insert(name) {
                mistakes.push(SpecMistake { path: path.clone(), message: "declared twice".into() });
            }
            fields.extend(spec.arrow_field(name, &path, depth, mistakes));
        }
        fields.into()
    }

    /// A JSON Schema (2020-12) for the spec itself, to be put into that of a pipeline file.
    pub fn json_schema() -> serde_json::Value {
        let plain = PLAIN.iter().map(|(name, _)| *name).chain([JSON]);
        let names: Vec<&str> = plain.chain(TIMESTAMPS.iter().map(|(name, _)| *name)).collect();
        let pattern = format!(
            r"^\s*({}|decimal\(\s*[0-9]+\s*,\s*[0-9]+\s*\)|(list|map)<.+>)(\s+not\s+null)?\s*$",
            names.join("|")
        );
        let field = serde_json::json!({"anyOf": [
            {"type": "string", "pattern": pattern, "examples": ["string", "int64 not null", "decimal(18,2)", "list<string>"]},
            {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/FieldSpec"}},
            {"type": "array", "minItems": 1, "maxItems": 1, "items": {"$ref": "#/$defs/FieldSpec"}}
        ]});
        serde_json::json!({
            "type": "object",
            "description": "field name to type, in the order of the columns",
            "minProperties": 1,
            "additionalProperties": {"$ref": "#/$defs/FieldSpec"},
            "$defs": {"FieldSpec": field}
        })
    }
}

impl FieldSpec {
    fn arrow_field(
        &self,
        name: &str,
        path: &str,
        depth: usize,
        mistakes: &mut Vec<SpecMistake>,
    ) -> Option<Field> {
        match self {
            FieldSpec::Type(text) => match parse_type(text, depth) {
                Ok(field) => Some(field.with_name(name)),
                Err(message) => {
                    mistakes.push(SpecMistake { path: path.into(), message });
                    None
                }
            },
            FieldSpec::Struct(spec) => {
                let fields = spec.arrow_fields(path, depth + 1, mistakes);
                Some(Field::new_struct(name, fields, true))
            }
            FieldSpec::List(element) => {
                if depth > MAX_DEPTH {
                    mistakes.push(SpecMistake {
                        path: path.into(),
                        message: format!("nested deeper than {MAX_DEPTH} levels"),
                    });
                    return None;
                }
                let element = element.arrow_field(ITEM, &format!("{path}[]"), depth + 1, mistakes)?;
                Some(Field::new_list(name, element, true))
            }
        }
    }
}

/// What Arrow calls the elements of a list.
const ITEM: &str = Field::LIST_FIELD_DEFAULT_NAME;

/// A map from texts.
pub(crate) fn map_of(value: Field) -> DataType {
    let entry = vec![Field::new("key", DataType::Utf8, false), value.with_name("value")];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry.into()), false)), false)
}

/// Parses `type [not null]`: a field without a name.
fn parse_type(text: &str, depth: usize) -> Result<Field, String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH} levels"));
    }
    let lower = text.trim().to_ascii_lowercase();
    let (body, nullable) = match strip_not_null(&lower) {
        Some(body) => (body, false),
        None => (lower.as_str(), true),
    };
    if body.is_empty() {
        return Err("the type is empty; write one such as `string`".into());
    }
    let of = |data_type: DataType| Field::new("", data_type, nullable);
    if let Some((_, data_type)) = PLAIN.iter().find(|(name, _)| *name == body) {
        return Ok(of(data_type.clone()));
    }
    if body == JSON {
        return Ok(json_field("", nullable));
    }
    if let Some((_, unit)) = TIMESTAMPS.iter().find(|(name, _)| *name == body) {
        return Ok(of(DataType::Timestamp(*unit, Some("UTC".into()))));
    }
    if let Some(inner) = argument(body, "decimal", '(', ')') {
        return Ok(of(parse_decimal(inner)?));
    }
    if let Some(inner) = argument(body, "list", '<', '>') {
        let element = parse_type(inner, depth + 1)?;
        return Ok(of(DataType::List(Arc::new(element.with_name(ITEM)))));
    }
    if let Some(inner) = argument(body, "map", '<', '>') {
        // `map<string, T>` as elsewhere is taken as well: keys are strings in JSON and Avro anyway.
        let value = match inner.split_once(',') {
            Some((key, value)) if key.trim() == "string" => value,
            _ => inner,
        };
        return Ok(of(map_of(parse_type(value, depth + 1)?)));
    }
    Err(unknown_type(body))
}

fn strip_not_null(text: &str) -> Option<&str> {
    let before_null = text.strip_suffix("null")?;
    let before_not =
        before_null.trim_end().strip_suffix("not").filter(|_| before_null.ends_with(char::is_whitespace))?;
    (before_not.is_empty() || before_not.ends_with([' ', '\t', '>', ')'])).then(|| before_not.trim_end())
}

fn argument<'a>(text: &'a str, name: &str, open: char, close: char) -> Option<&'a str> {
    text.strip_prefix(name)?.trim_start().strip_prefix(open)?.strip_suffix(close).map(str::trim)
}

fn parse_decimal(inner: &str) -> Result<DataType, String> {
    let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
    let number = |text: &str| text.trim().parse::<u32>().ok();
    match (number(precision), number(scale)) {
        (Some(precision @ 1..=38), Some(scale)) if scale <= precision => {
            Ok(DataType::Decimal128(precision as u8, scale as i8))
        }
        (Some(_), Some(_)) => Err(format!(
            "`decimal({inner})` cannot be: the precision is 1 to 38 digits, of which the scale says how many stand after the point"
        )),
        _ => Err(format!("`decimal({inner})` needs a precision and a scale, such as `decimal(18,2)`")),
    }
}

fn unknown_type(body: &str) -> String {
    let shown: String = body.chars().take(60).collect();
    let head = body.split(['<', '(', '[', ' ']).next().unwrap_or(body);
    if let Some((_, meant)) = ELSEWHERE.iter().find(|(name, _)| *name == body || *name == head) {
        return format!("`{shown}` is not a type; did you mean `{meant}`?");
    }
    let candidates =
        PLAIN.iter().map(|(n, _)| *n).chain(TIMESTAMPS.iter().map(|(n, _)| *n)).chain(SHAPES.iter().copied());
    let nearest = candidates
        .map(|candidate| {
            let name = candidate.split(['<', '(']).next().unwrap_or(candidate);
            (distance(head, name), candidate)
        })
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, candidate)) if distance <= 2 && distance < head.chars().count() => {
            format!("`{shown}` is not a type; did you mean `{candidate}`?")
        }
        _ => format!(
            "`{shown}` is not a type; the types are string, bytes, bool, int8 to int64, uint8 to uint64, float32, float64, date, json, timestamp_s, _ms, _us, _ns, decimal(p,s), list<T>, map<T>, or a nested map of fields"
        ),
    }
}

/// Edits between two words (Levenshtein), of which the first is cut to what can matter.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(24).collect();
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(a.len())
}

/// The name under which a type is declared in a spec; Arrow's own name for types that have none.
pub(crate) fn type_name(data_type: &DataType) -> String {
    if let Some((name, _)) = PLAIN.iter().find(|(_, plain)| plain == data_type) {
        return (*name).into();
    }
    match data_type {
        DataType::Timestamp(unit, _) => TIMESTAMPS
            .iter()
            .find(|(_, u)| u == unit)
            .map_or_else(|| data_type.to_string(), |(name, _)| (*name).into()),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::List(element) => format!("list<{}>", type_name(element.data_type())),
        DataType::Struct(_) => "an object".into(),
        other => other.to_string(),
    }
}

impl<'de> Deserialize<'de> for SchemaSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldMap;
        impl<'de> Visitor<'de> for FieldMap {
            type Value = SchemaSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of field name to type")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SchemaSpec, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(SchemaSpec { fields })
            }
        }
        deserializer.deserialize_map(FieldMap)
    }
}

impl<'de> Deserialize<'de> for FieldSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnySpec;
        impl<'de> Visitor<'de> for AnySpec {
            type Value = FieldSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type such as `int64 not null`, a map of fields, or a list with one type in it")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FieldSpec, E> {
                Ok(FieldSpec::Type(text.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FieldSpec, A::Error> {
                SchemaSpec::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(FieldSpec::Struct)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FieldSpec, A::Error> {
                let element = seq.next_element()?;
                match (element, seq.next_element::<FieldSpec>()?) {
                    (Some(element), None) => Ok(FieldSpec::List(Box::new(element))),
                    _ => Err(A::Error::custom("a list has exactly one type in it: that of its elements")),
                }
            }
        }
        deserializer.deserialize_any(AnySpec)
    }
}

impl Serialize for SchemaSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (name, spec) in &self.fields {
            map.serialize_entry(name, spec)?;
        }
        map.end()
    }
}

impl Serialize for FieldSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            FieldSpec::Type(text) => serializer.serialize_str(text),
            FieldSpec::Struct(spec) => spec.serialize(serializer),
            FieldSpec::List(element) => {
                let mut seq = serializer.serialize_seq(Some(1))?;
                seq.serialize_element(element)?;
                seq.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mistakes(json: &str) -> Vec<String> {
        let spec: SchemaSpec = serde_json::from_str(json).unwrap();
        spec.arrow_schema().unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_what_was_meant() {
        assert_eq!(
            mistakes(
                r#"{"id": "in64", "name": "varchar", "c": {"e": "strng", "e": "string"}, "l": [{"q": "long not null"}],
                    "d": "decimal(40,2)", "x": "list<flaot64>", "y": "quantum", "z": ""}"#
            ),
            [
                "field id: `in64` is not a type; did you mean `int64`?",
                "field name: `varchar` is not a type; did you mean `string`?",
                "field c.e: `strng` is not a type; did you mean `string`?",
                "field c.e: declared twice",
                "field l[].q: `long` is not a type; did you mean `int64`?",
                "field d: `decimal(40,2)` cannot be: the precision is 1 to 38 digits, of which the scale says how many stand after the point",
                "field x: `flaot64` is not a type; did you mean `float64`?",
                "field y: `quantum` is not a type; the types are string, bytes, bool, int8 to int64, uint8 to uint64, float32, float64, date, json, timestamp_s, _ms, _us, _ns, decimal(p,s), list<T>, map<T>, or a nested map of fields",
                "field z: the type is empty; write one such as `string`",
            ]
        );
        assert_eq!(mistakes("{}"), ["no fields are declared; declare at least one, as `name: type`"]);
    }

    #[test]
    fn not_null_applies_where_it_stands() {
        let spec: SchemaSpec =
            serde_json::from_str(r#"{"a": "list<string not null>", "b": "LIST<string>  not  null", "c": "map<string, int64> not null"}"#)
                .unwrap();
        let schema = spec.arrow_schema().unwrap();
        let element = |i: usize| match schema.field(i).data_type() {
            DataType::List(element) => element.is_nullable(),
            other => panic!("{other}"),
        };
        assert!(schema.field(0).is_nullable() && !element(0));
        assert!(!schema.field(1).is_nullable() && element(1));
        assert!(matches!(schema.field(2).data_type(), DataType::Map(_, false)));
    }

    #[test]
    fn a_spec_survives_serialisation() {
        let text = r#"{"b":"int64 not null","a":{"x":"date"},"l":[["bool"]]}"#;
        let spec: SchemaSpec = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), text);
    }

    #[test]
    fn deep_nesting_ends_in_a_mistake() {
        let spec: SchemaSpec = serde_json::from_str(&format!(
            r#"{{"a": "{}string{}"}}"#,
            "list<".repeat(5000),
            ">".repeat(5000)
        ))
        .unwrap();
        assert!(spec.arrow_schema().unwrap_err()[0].message.contains("deeper than 32"));
    }

    proptest! {
        #[test]
        fn no_type_text_panics(text in "(list<|map<|decimal|\\(|[0-9]{1,12}|,|>|\\)| |not|null|string|int64|é){0,9}") {
            let _ = SchemaSpec::new([("f".into(), FieldSpec::Type(text))]).arrow_schema();
        }
    }
}
