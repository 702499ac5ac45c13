//! The way through a schema to the shape of what it describes.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow_schema::{DataType, TimeUnit};
use serde_json::{Map, Value};

use super::documents::{At, Documents, anchor_of, decoded, id_of, plain};
use super::invalid;
use super::shape::{Kind, Shape, Written};
use crate::error::{Error, ErrorKind, Result, at_field, joined};

/// How deep a schema may nest and refer: far beyond any table.
const MAX_DEPTH: usize = 32;
/// How many schemas are looked at: they may be referred to many times.
const MAX_NODES: usize = 20_000;

pub(super) struct Walk<'a> {
    documents: &'a Documents,
    /// Schemas with a name, and with an anchor, by their document.
    ids: HashMap<(usize, &'a str), &'a Value>,
    anchors: HashMap<(usize, &'a str), &'a Value>,
    /// The schemas that lead here, by where they are.
    open: Vec<*const Value>,
    nodes: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(documents: &'a Documents) -> Self {
        let (mut ids, mut anchors) = (HashMap::new(), HashMap::new());
        for (number, document) in documents.all.iter().enumerate() {
            let mut open = vec![document];
            while let Some(value) = open.pop() {
                if let Some(id) = id_of(value) {
                    ids.entry((number, plain(id))).or_insert(value);
                }
                if let Some(anchor) = anchor_of(value) {
                    anchors.entry((number, anchor)).or_insert(value);
                }
                match value {
                    // What is data there is no schema.
                    Value::Object(members) => open.extend(
                        members
                            .iter()
                            .filter(|(name, _)| {
                                !["default", "examples", "const", "enum"].contains(&name.as_str())
                            })
                            .map(|(_, inner)| inner),
                    ),
                    Value::Array(items) => open.extend(items),
                    _ => {}
                }
            }
        }
        Walk { documents, ids, anchors, open: Vec::new(), nodes: 0 }
    }

    pub(super) fn root(&mut self) -> Result<Shape> {
        self.shape("", self.documents.root())
    }

    /// What a `$ref` means.
    fn resolve(&self, at: At<'a>, reference: &str) -> Option<At<'a>> {
        let (name, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let name = plain(name);
        let from = if name.is_empty() || id_of(at.base).map(plain) == Some(name) {
            At { value: at.base, ..at }
        } else {
            let absolute = |name: &str| {
                let base = id_of(at.base)?.rsplit_once('/')?.0;
                Some(format!("{base}/{name}"))
            };
            let named = |name: &str| {
                let within = self.ids.get(&(at.document, name)).copied();
                let document = self.documents.by_name.get(name).copied();
                match (within, document) {
                    (_, Some(document)) if document != at.document => {
                        let value = &self.documents.all[document];
                        Some(At { document, base: value, value })
                    }
                    (Some(value), _) => Some(At { base: value, value, ..at }),
                    _ => None,
                }
            };
            named(name).or_else(|| named(&absolute(name)?)).or_else(|| {
                // One inside that is called by a name that is relative to the document's.
                named(name.rsplit_once('/')?.1)
            })?
        };
        match fragment {
            "" => Some(from),
            pointer if pointer.starts_with('/') => {
                let mut there = from;
                for step in decoded(pointer).split('/').skip(1) {
                    let step = step.replace("~1", "/").replace("~0", "~");
                    let value = match there.value {
                        Value::Array(items) => items.get(step.parse::<usize>().ok()?)?,
                        value => value.get(&step)?,
                    };
                    there = there.of(value);
                }
                Some(there)
            }
            anchor => self.anchors.get(&(from.document, anchor)).map(|value| from.of(value)),
        }
    }

    fn shape(&mut self, path: &str, at: At<'a>) -> Result<Shape> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(invalid(format!("the schema has more than {MAX_NODES} parts")));
        }
        let place: *const Value = at.value;
        if self.open.contains(&place) {
            return Ok(Shape::any("it contains itself"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(invalid(at_field(path, format!("it nests deeper than {MAX_DEPTH} levels"))));
        }
        self.open.push(place);
        let shape = self.shape_of(path, at);
        self.open.pop();
        shape
    }

    fn shape_of(&mut self, path: &str, at: At<'a>) -> Result<Shape> {
        let schema = match at.value {
            Value::Object(schema) => schema,
            Value::Bool(true) => return Ok(Shape::any(ANYTHING)),
            Value::Bool(false) => return Ok(Shape::null()),
            _ => {
                let text = "it is neither an object nor a boolean, so it is no schema";
                return Err(invalid(at_field(path, text)));
            }
        };
        // All that it is at once.
        let mut parts = Vec::new();
        if OWN_WORDS.iter().any(|word| schema.contains_key(*word)) {
            parts.push(self.typed(path, at, schema)?);
        }
        if let Some(reference) = at.text("$ref") {
            let target = self.resolve(at, reference).ok_or_else(|| {
                invalid(at_field(
                    path,
                    format!("`$ref` leads to `{reference}`, which is not there and not among the references"),
                ))
            })?;
            parts.push(self.shape(path, target)?);
        }
        for part in at.list("allOf").iter().filter(|part| says_types(part)) {
            parts.push(self.shape(path, at.of(part))?);
        }
        for either in ["oneOf", "anyOf"] {
            let branches = at.list(either);
            let mut found: Option<Shape> = None;
            for branch in branches.iter().filter(|branch| says_types(branch)) {
                let shape = self.shape(path, at.of(branch))?;
                found = Some(match found {
                    None => shape,
                    Some(found) => found.or(shape),
                });
            }
            // A branch that says nothing of types lets any through, if nothing else says them.
            let is_open = branches.iter().any(|branch| !says_types(branch));
            if let Some(found) = found {
                parts.push(if is_open { found.or(Shape::any(ANYTHING)) } else { found });
            }
        }
        let mut shape = parts.into_iter().reduce(Shape::and).unwrap_or_else(|| Shape::any(ANYTHING));
        if let Kind::Object { fields, required } = &mut shape.kind {
            required.extend(names(schema.get("required")).map(str::to_owned));
            // Connect says the order.
            fields.sort_by_key(|(name, _)| connect_index(at, name));
        }
        // As OpenAPI has it.
        shape.nullable |= schema.get("nullable") == Some(&Value::Bool(true));
        Ok(shape)
    }

    /// What a schema says by `type`, or by its values.
    fn typed(&mut self, path: &str, at: At<'a>, schema: &'a Map<String, Value>) -> Result<Shape> {
        let mut nullable = false;
        let mut types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => {
                let (types, may_be_null) = guessed(schema);
                nullable = may_be_null;
                types
            }
        };
        let before = types.len();
        types.retain(|name| *name != "null");
        nullable |= types.len() < before;
        if types.contains(&"number") {
            types.retain(|name| *name != "integer");
        }
        let kind = match types.as_slice() {
            [] if before > 0 => Kind::Null,
            [] => return Ok(Shape::any(ANYTHING)),
            ["string"] => Kind::Value(Written::Text, text_type(at)),
            ["integer"] => Kind::Value(Written::Integer, integer_type(at)),
            ["number"] => Kind::Value(Written::Number, number_type(path, at)?),
            ["boolean"] => Kind::Value(Written::Boolean, DataType::Boolean),
            ["array"] => self.array(path, at)?,
            ["object"] => self.object(path, at)?,
            [one] => {
                return Err(invalid(at_field(path, format!("`{one}` is not a type of JSON Schema"))));
            }
            several => Kind::Any(format!("it may be {}", several.join(" or "))),
        };
        Ok(Shape { nullable: nullable || matches!(kind, Kind::Null), kind })
    }

    fn array(&mut self, path: &str, at: At<'a>) -> Result<Kind> {
        let items =
            at.get("items").filter(|items| !items.value.is_array() && at.value.get("prefixItems").is_none());
        Ok(match items {
            Some(items) => Kind::List(Box::new(self.shape(&format!("{path}[]"), items)?)),
            None => Kind::Any("its items may be anything".into()),
        })
    }

    fn object(&mut self, path: &str, at: At<'a>) -> Result<Kind> {
        let properties = match at.value.get("properties") {
            None => None,
            Some(Value::Object(properties)) => Some(properties),
            Some(_) => return Err(invalid(at_field(path, "`properties` is not an object"))),
        };
        if let Some(properties) = properties.filter(|properties| !properties.is_empty()) {
            let mut fields = Vec::with_capacity(properties.len());
            // One that may not be there is none.
            for (name, property) in properties.iter().filter(|(_, property)| **property != Value::Bool(false))
            {
                fields.push((name.clone(), self.shape(&joined(path, name), at.of(property))?));
            }
            return Ok(Kind::Object { fields, required: HashSet::new() });
        }
        let patterns = at.value.get("patternProperties").and_then(Value::as_object);
        let value = match (at.get("additionalProperties"), patterns) {
            // None besides those of the one pattern.
            (Some(others), Some(patterns)) if patterns.len() == 1 && *others.value == Value::Bool(false) => {
                patterns.values().next().map(|value| at.of(value))
            }
            (Some(value), None) if value.value.is_object() => Some(value),
            _ => None,
        };
        Ok(match value {
            Some(value) => Kind::Map(Box::new(self.shape(&format!("{path}[]"), value)?)),
            None => Kind::Any("its members may be anything".into()),
        })
    }

    pub(super) fn describe(&mut self, path: &str, at: At<'a>, told: &mut BTreeMap<String, String>) {
        self.nodes += 1;
        let place: *const Value = at.value;
        if self.nodes > MAX_NODES || self.open.len() >= MAX_DEPTH || self.open.contains(&place) {
            return;
        }
        self.open.push(place);
        if let Some(text) = at.text("description") {
            told.entry(path.to_owned()).or_insert_with(|| text.to_owned());
        }
        if let Some(target) = at.text("$ref").and_then(|to| self.resolve(at, to)) {
            self.describe(path, target, told);
        }
        for parts in ["allOf", "oneOf", "anyOf"] {
            for part in at.list(parts) {
                self.describe(path, at.of(part), told);
            }
        }
        for (name, property) in at.value.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.describe(&joined(path, name), at.of(property), told);
        }
        if let Some(items) = at.get("items").filter(|items| items.value.is_object()) {
            self.describe(path, items, told);
        }
        self.open.pop();
    }
}

const ANYTHING: &str = "it may be anything";

/// Words by which a schema says a type itself.
const OWN_WORDS: [&str; 7] =
    ["type", "enum", "const", "properties", "items", "additionalProperties", "patternProperties"];

/// Whether a schema says something of types, and does not only ask something of values.
fn says_types(schema: &Value) -> bool {
    match schema {
        Value::Object(schema) => {
            let by_others = ["$ref", "allOf", "oneOf", "anyOf"];
            OWN_WORDS.iter().chain(&by_others).any(|word| schema.contains_key(*word))
        }
        _ => schema == &Value::Bool(false),
    }
}

/// The types of a schema that does not name them, and whether they leave null through.
fn guessed(schema: &Map<String, Value>) -> (Vec<&'static str>, bool) {
    let values: Vec<&Value> = match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(values)), _) => values.iter().collect(),
        (_, Some(value)) => vec![value],
        // What these say is of objects and arrays alone: any other value, null among them, is as well.
        _ if schema.contains_key("properties") => return (vec!["object"], true),
        _ if schema.contains_key("items") => return (vec!["array"], true),
        _ => return (Vec::new(), true),
    };
    let mut types: Vec<&'static str> = values
        .iter()
        .map(|value| match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        })
        .collect();
    types.sort_unstable();
    types.dedup();
    (types, false)
}

fn names(required: Option<&Value>) -> impl Iterator<Item = &str> {
    required.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The place that Kafka Connect gives a property.
fn connect_index(at: At<'_>, name: &str) -> Option<u64> {
    let property = at.value.get("properties")?.get(name)?;
    let branches = property.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let mut places = std::iter::once(property).chain(branches);
    places.find_map(|place| place.get("connect.index")?.as_u64())
}

fn text_type(at: At<'_>) -> DataType {
    match at.text("format") {
        Some("date-time") => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Some("date") => DataType::Date32,
        _ => DataType::Utf8,
    }
}

/// What Kafka Connect calls a type with a meaning of its own.
fn connect_name<'a>(at: At<'a>) -> Option<&'a str> {
    at.text("title").and_then(|title| title.strip_prefix("org.apache.kafka.connect.data."))
}

fn integer_type(at: At<'_>) -> DataType {
    match (connect_name(at), at.text("connect.type")) {
        (Some("Date"), _) => DataType::Date32,
        (Some("Timestamp"), _) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        (_, Some("int8")) => DataType::Int8,
        (_, Some("int16")) => DataType::Int16,
        (_, Some("int32")) => DataType::Int32,
        _ => DataType::Int64,
    }
}

fn number_type(path: &str, at: At<'_>) -> Result<DataType> {
    if connect_name(at) == Some("Decimal") {
        let parameter =
            |name: &str| at.value.get("connect.parameters")?.get(name)?.as_str()?.parse::<u8>().ok();
        let (precision, scale) = (parameter("connect.decimal.precision").unwrap_or(38), parameter("scale"));
        return match scale {
            Some(scale) if scale <= precision && (1..=38).contains(&precision) => {
                Ok(DataType::Decimal128(precision, scale as i8))
            }
            _ => Err(Error::new(
                ErrorKind::UnsupportedType,
                at_field(path, "a decimal of Kafka Connect says its `scale`, and has 38 digits at most"),
            )),
        };
    }
    Ok(if at.text("connect.type") == Some("float32") { DataType::Float32 } else { DataType::Float64 })
}
