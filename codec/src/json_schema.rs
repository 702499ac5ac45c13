//! JSON Schemas as Arrow columns: which types objects have that a schema describes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::field_spec::{json_field, map_of};

/// How deep a schema may nest and refer: far beyond any table.
const MAX_DEPTH: usize = 32;
/// How many schemas are looked at: they may be referred to many times.
const MAX_NODES: usize = 20_000;

/// The columns of objects that a JSON Schema describes, for a [`JsonDecoder`](crate::JsonDecoder) to read them by; any draft.
///
/// `references` are name and text of the schemas that it refers to, and that those refer to.
///
/// | JSON Schema | Arrow |
/// |---|---|
/// | `integer` | `Int64`; by Kafka Connect's `connect.type` `Int8` to `Int32` |
/// | `number` | `Float64`; `Float32` by `connect.type`, `Decimal128` where Connect says that it is one |
/// | `boolean`, `string` | `Boolean`, `Utf8` |
/// | `string` with the format `date-time`, `date` | `Timestamp(us, UTC)`, `Date32` |
/// | Connect's `Date`, `Timestamp` | `Date32`, `Timestamp(ms, UTC)` |
/// | `array` with one schema for items | `List` |
/// | `object` with `properties` | `Struct`; members without a property are left out |
/// | `object` with `additionalProperties` alone | `Map` |
/// | `enum`, `const` | the type of the values |
/// | `null` or one other type, in any way | the type, nullable |
///
/// Not null is what is `required` and has no `null`. `allOf` is all of it at once. What has several types, none, or contains
/// itself has no column of a type: `as_json` makes it a text of JSON, and without it is refused.
///
/// Schemas only say which columns there are: what else they ask of values (`minimum`, `pattern`) is not looked at.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`] if a text is not a JSON Schema of objects, or a reference leads nowhere;
/// [`ErrorKind::UnsupportedType`] for what has no column. Both name the field.
pub fn json_schema_columns<'a>(
    schema: &str,
    references: impl IntoIterator<Item = (&'a str, &'a str)>,
    as_json: bool,
) -> Result<SchemaRef> {
    Ok(columns_of(&Documents::parse(schema, references)?, as_json)?.0)
}

fn columns_of(documents: &Documents, as_json: bool) -> Result<(SchemaRef, Walk<'_>)> {
    let mut walk = Walk::new(documents, as_json);
    let root = walk.shape("", At { document: 0, value: &documents.all[0] })?;
    match root.data_type {
        Some(DataType::Struct(fields)) => Ok((Arc::new(Schema::new(fields)), walk)),
        _ => Err(invalid(
            "the schema does not describe an object with `properties`, so it has no fields to make columns of",
        )),
    }
}

/// Whether objects that a JSON Schema describes may have a null wherever a column has one. Columns have to fit it: each is a
/// property, and what is required is there.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`], with the column.
pub(crate) fn takes_nulls<'a>(
    columns: &Schema,
    schema: &str,
    references: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<bool> {
    let documents = Documents::parse(schema, references)?;
    let (described, walk) = columns_of(&documents, true)?;
    let names: Vec<&str> = described.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(column) = columns.fields().iter().find(|column| !names.contains(&column.name().as_str())) {
        return Err(invalid(format!(
            "the column `{}` has no property in the JSON Schema, which has {}; leave the column out, or register a schema with it",
            column.name(),
            names.join(", ")
        )));
    }
    let mut required = described.fields().iter().filter(|field| !field.is_nullable());
    match required.find(|field| columns.index_of(field.name()).is_err()) {
        Some(field) => {
            Err(invalid(format!("the property `{}` is required, and there is no such column", field.name())))
        }
        None => Ok(!walk.leaves_out),
    }
}

/// What a JSON Schema says, in `description`, of itself (the empty path) and of the fields that columns are made of, by dotted
/// path.
///
/// # Errors
///
/// As for [`json_schema_columns`].
pub fn json_schema_descriptions<'a>(
    schema: &str,
    references: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<String, String>> {
    let documents = Documents::parse(schema, references)?;
    let mut walk = Walk::new(&documents, true);
    let mut told = BTreeMap::new();
    walk.describe("", At { document: 0, value: &documents.all[0] }, &mut told)?;
    Ok(told)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidSchema, message)
}

fn at_field(path: &str, message: impl std::fmt::Display) -> String {
    if path.is_empty() { message.to_string() } else { format!("field {path}: {message}") }
}

/// The schema, and those that it refers to.
struct Documents {
    all: Vec<Value>,
    by_name: HashMap<String, usize>,
}

impl Documents {
    fn parse<'a>(
        schema: &str,
        references: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Documents> {
        let parsed = |what: &str, text: &str| -> Result<Value> {
            serde_json::from_str(text).map_err(|e| invalid(format!("{what} is not JSON: {e}")))
        };
        let mut documents = Documents { all: vec![parsed("the schema", schema)?], by_name: HashMap::new() };
        for (name, text) in references {
            let document = parsed(&format!("the reference `{name}`"), text)?;
            for name in [Some(name), id_of(&document)].into_iter().flatten() {
                documents.by_name.insert(name.trim_end_matches('#').to_owned(), documents.all.len());
            }
            documents.all.push(document);
        }
        Ok(documents)
    }

    /// What a `$ref` in a document means.
    fn resolve(&self, document: usize, reference: &str) -> Option<At<'_>> {
        let (name, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let at = |document: usize| At { document, value: &self.all[document] };
        let from = if name.is_empty() || id_of(&self.all[document]) == Some(name) {
            at(document)
        } else if let Some(named) = self.by_name.get(name) {
            at(*named)
        } else {
            let base = id_of(&self.all[document]).and_then(|id| Some(id.rsplit_once('/')?.0));
            let absolute = base.and_then(|base| self.by_name.get(&format!("{base}/{name}")));
            match absolute {
                Some(named) => at(*named),
                None => At { document, value: with_id(&self.all[document], name, 0)? },
            }
        };
        let value = match fragment {
            "" => from.value,
            pointer if pointer.starts_with('/') => from.value.pointer(&decoded(pointer))?,
            anchor => with_anchor(from.value, anchor, 0)?,
        };
        Some(At { value, ..from })
    }
}

/// Of a fragment of a URI.
fn decoded(fragment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = fragment.as_bytes();
    while let [byte, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (*byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(of)) => {
                bytes.push(of);
                rest = &after[2..];
            }
            (byte, _) => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn id_of(schema: &Value) -> Option<&str> {
    schema.get("$id").or_else(|| schema.get("id"))?.as_str()
}

/// The part of a document that is called so.
fn with_id<'a>(value: &'a Value, id: &str, depth: usize) -> Option<&'a Value> {
    found(value, depth, &|schema| id_of(schema).is_some_and(|own| own.trim_end_matches('#') == id))
}

fn with_anchor<'a>(value: &'a Value, anchor: &str, depth: usize) -> Option<&'a Value> {
    found(value, depth, &|schema| {
        schema.get("$anchor").and_then(Value::as_str) == Some(anchor)
            || id_of(schema).and_then(|id| id.strip_prefix('#')) == Some(anchor)
    })
}

fn found<'a>(value: &'a Value, depth: usize, is: &dyn Fn(&Value) -> bool) -> Option<&'a Value> {
    if depth > 2 * MAX_DEPTH {
        return None;
    }
    match value {
        Value::Object(_) if is(value) => Some(value),
        Value::Object(members) => members.values().find_map(|inner| found(inner, depth + 1, is)),
        Value::Array(items) => items.iter().find_map(|inner| found(inner, depth + 1, is)),
        _ => None,
    }
}

/// A schema, and the document that its references are in.
#[derive(Clone, Copy)]
struct At<'a> {
    document: usize,
    value: &'a Value,
}

impl<'a> At<'a> {
    fn of(self, value: &'a Value) -> At<'a> {
        At { value, ..self }
    }

    fn get(self, name: &str) -> Option<At<'a>> {
        self.value.get(name).map(|value| self.of(value))
    }

    fn text(self, name: &str) -> Option<&'a str> {
        self.value.get(name)?.as_str()
    }
}

/// What a schema makes of values.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    /// None: null alone.
    data_type: Option<DataType>,
    /// The text is any JSON.
    is_json: bool,
    nullable: bool,
}

impl Shape {
    fn of(data_type: DataType) -> Shape {
        Shape { data_type: Some(data_type), is_json: false, nullable: false }
    }

    fn null() -> Shape {
        Shape { data_type: None, is_json: false, nullable: true }
    }

    fn json() -> Shape {
        Shape { data_type: Some(DataType::Utf8), is_json: true, nullable: true }
    }

    fn field(self, name: &str, nullable: bool) -> Field {
        let nullable = nullable || self.nullable;
        match self.data_type {
            Some(data_type) if !self.is_json => Field::new(name, data_type, nullable),
            _ => json_field(name, nullable),
        }
    }
}

#[derive(Default)]
struct Members<'a> {
    properties: Vec<(&'a String, At<'a>)>,
    required: Vec<&'a str>,
}

struct Walk<'a> {
    documents: &'a Documents,
    as_json: bool,
    /// The schemas that lead here, by where they are.
    open: Vec<*const Value>,
    nodes: usize,
    /// A property may be left out, and may not be null.
    leaves_out: bool,
}

impl<'a> Walk<'a> {
    fn new(documents: &'a Documents, as_json: bool) -> Self {
        Walk { documents, as_json, open: Vec::new(), nodes: 0, leaves_out: false }
    }

    fn shape(&mut self, path: &str, at: At<'a>) -> Result<Shape> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(invalid(format!("the schema has more than {MAX_NODES} parts")));
        }
        let place: *const Value = at.value;
        if self.open.contains(&place) {
            return self.without_type(path, "it contains itself");
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(invalid(at_field(path, format!("it nests deeper than {MAX_DEPTH} levels"))));
        }
        self.open.push(place);
        let shape = self.shape_of(path, at);
        self.open.pop();
        shape
    }

    /// What no column of a type can hold.
    fn without_type(&self, path: &str, why: &str) -> Result<Shape> {
        if self.as_json && !path.is_empty() {
            return Ok(Shape::json());
        }
        let told = format!(
            "{why}, so it has no Arrow column of one type; `recursive: json` makes it a text of JSON"
        );
        Err(Error::new(ErrorKind::UnsupportedType, at_field(path, told)))
    }

    fn shape_of(&mut self, path: &str, at: At<'a>) -> Result<Shape> {
        let schema = match at.value {
            Value::Object(schema) => schema,
            Value::Bool(true) => return self.without_type(path, "it may be anything"),
            Value::Bool(false) => return Ok(Shape::null()),
            _ => {
                return Err(invalid(at_field(
                    path,
                    "it is neither an object nor a boolean, so it is no schema",
                )));
            }
        };
        if let Some(reference) = at.text("$ref") {
            let target = self.documents.resolve(at.document, reference).ok_or_else(|| {
                invalid(at_field(
                    path,
                    format!("`$ref` leads to `{reference}`, which is not there and not among the references"),
                ))
            })?;
            return self.shape(path, target);
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            return self.all_of(path, at, schema, parts);
        }
        for either in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(either).and_then(Value::as_array) {
                return self.either(path, at, branches);
            }
        }
        self.typed(path, at, schema)
    }

    /// What a schema says by `type`, or by its values.
    fn typed(&mut self, path: &str, at: At<'a>, schema: &'a Map<String, Value>) -> Result<Shape> {
        let mut nullable = schema.get("nullable") == Some(&Value::Bool(true));
        let mut types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => self.guessed(schema),
        };
        let before = types.len();
        types.retain(|name| *name != "null");
        nullable |= types.len() < before;
        if types.contains(&"number") {
            types.retain(|name| *name != "integer");
        }
        let mut shape = match types.as_slice() {
            [] if before > 0 => Shape::null(),
            [] => return self.without_type(path, "it may be anything"),
            ["string"] => Shape::of(text_type(at)),
            ["integer"] => Shape::of(integer_type(at)),
            ["number"] => Shape::of(number_type(path, at)?),
            ["boolean"] => Shape::of(DataType::Boolean),
            ["array"] => self.array(path, at)?,
            ["object"] => self.object(path, at)?,
            [one] => return Err(invalid(at_field(path, format!("`{one}` is not a type of JSON Schema")))),
            several => return self.without_type(path, &format!("it may be {}", several.join(" or "))),
        };
        shape.nullable |= nullable;
        Ok(shape)
    }

    /// The types of a schema that does not name them.
    fn guessed(&self, schema: &'a Map<String, Value>) -> Vec<&'static str> {
        let values = match (schema.get("enum"), schema.get("const")) {
            (Some(Value::Array(values)), _) => values.iter().collect(),
            (_, Some(value)) => vec![value],
            _ if schema.contains_key("properties") => return vec!["object"],
            _ if schema.contains_key("items") => return vec!["array"],
            _ => Vec::new(),
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
        types
    }

    /// A schema with `oneOf` or `anyOf`.
    fn either(&mut self, path: &str, at: At<'a>, branches: &'a [Value]) -> Result<Shape> {
        let mut found: Option<Shape> = None;
        let mut nullable = false;
        for branch in branches {
            let shape = self.shape(path, at.of(branch))?;
            nullable |= shape.nullable;
            found = match (found, shape) {
                (found, Shape { data_type: None, .. }) => found,
                (None, shape) => Some(shape),
                (Some(found), shape)
                    if found.data_type == shape.data_type && found.is_json == shape.is_json =>
                {
                    Some(found)
                }
                _ => return self.without_type(path, "it may have one of several types"),
            };
        }
        let mut shape = found.unwrap_or_else(Shape::null);
        shape.nullable |= nullable;
        Ok(shape)
    }

    /// A schema that is all of several at once: their properties together, or the one type that all have.
    fn all_of(
        &mut self,
        path: &str,
        at: At<'a>,
        schema: &'a Map<String, Value>,
        parts: &'a [Value],
    ) -> Result<Shape> {
        let members = self.members(at);
        if !members.properties.is_empty() {
            return self.of_members(path, &members);
        }
        let says = |schema: &Map<String, Value>, besides: &[&str]| {
            let names = ["type", "enum", "const", "items", "additionalProperties"];
            names.iter().chain(besides).any(|name| schema.contains_key(*name))
        };
        let mut all: Option<Shape> = match says(schema, &[]) {
            true => Some(self.typed(path, at, schema)?),
            false => None,
        };
        for part in parts {
            // One that only asks something of values says nothing of types.
            if !part.as_object().is_some_and(|part| says(part, &["$ref", "allOf", "oneOf", "anyOf"])) {
                continue;
            }
            let shape = self.shape(path, at.of(part))?;
            all = match all {
                None => Some(shape),
                Some(all) if all.data_type == shape.data_type && all.is_json == shape.is_json => {
                    Some(Shape { nullable: all.nullable && shape.nullable, ..all })
                }
                Some(_) => return self.without_type(path, "it has to be of several types at once"),
            };
        }
        match all {
            Some(all) => Ok(all),
            None => self.without_type(path, "it may be anything"),
        }
    }

    /// The properties of a schema and of all that it is as well.
    fn members(&mut self, at: At<'a>) -> Members<'a> {
        let mut members = Members::default();
        let mut open = vec![at];
        let mut seen: Vec<*const Value> = Vec::new();
        while let Some(at) = open.pop() {
            self.nodes += 1;
            let place: *const Value = at.value;
            if seen.contains(&place) || self.nodes > MAX_NODES {
                continue;
            }
            seen.push(place);
            if let Some(properties) = at.value.get("properties").and_then(Value::as_object) {
                members.properties.extend(properties_of(properties, at));
            }
            members.required.extend(names(at.value.get("required")));
            let parts = at.value.get("allOf").and_then(Value::as_array).into_iter().flatten();
            open.extend(parts.rev().map(|part| at.of(part)));
            let target = at.text("$ref").and_then(|to| self.documents.resolve(at.document, to));
            open.extend(target);
        }
        members
    }

    fn of_members(&mut self, path: &str, members: &Members<'a>) -> Result<Shape> {
        let mut fields: Vec<Field> = Vec::new();
        for (name, property) in &members.properties {
            let below = if path.is_empty() { (*name).clone() } else { format!("{path}.{name}") };
            let shape = self.shape(&below, *property)?;
            if shape.data_type.is_none() && !self.as_json {
                return self.without_type(&below, "it is always null");
            }
            let required = members.required.contains(&name.as_str());
            self.leaves_out |= !required && !shape.nullable;
            let field = shape.field(name, !required);
            match fields.iter_mut().find(|other| other.name() == *name) {
                None => fields.push(field),
                Some(other) if other.data_type() == field.data_type() => {
                    other.set_nullable(other.is_nullable() && field.is_nullable());
                }
                Some(_) => return self.without_type(&below, "it has to be of several types at once"),
            }
        }
        Ok(Shape::of(DataType::Struct(fields.into())))
    }

    fn array(&mut self, path: &str, at: At<'a>) -> Result<Shape> {
        let items =
            at.get("items").filter(|items| !items.value.is_array() && at.value.get("prefixItems").is_none());
        let Some(items) = items else { return self.without_type(path, "its items may be anything") };
        let item = self.shape(&format!("{path}[]"), items)?;
        Ok(Shape::of(DataType::List(Arc::new(item.field(Field::LIST_FIELD_DEFAULT_NAME, false)))))
    }

    fn object(&mut self, path: &str, at: At<'a>) -> Result<Shape> {
        if at.value.get("properties").is_some_and(|properties| !properties.is_object()) {
            return Err(invalid(at_field(path, "`properties` is not an object")));
        }
        let members = self.members(at);
        if members.properties.is_empty() {
            let patterns = at.value.get("patternProperties").and_then(Value::as_object);
            let value = match (at.get("additionalProperties"), patterns) {
                (_, Some(patterns)) if patterns.len() == 1 => {
                    patterns.values().next().map(|value| at.of(value))
                }
                (Some(value), None) if value.value.is_object() => Some(value),
                _ => None,
            };
            let Some(value) = value else { return self.without_type(path, "its members may be anything") };
            let value = self.shape(&format!("{path}[]"), value)?;
            return Ok(Shape::of(map_of(value.field("value", false))));
        }
        self.of_members(path, &members)
    }

    fn describe(&mut self, path: &str, at: At<'a>, told: &mut BTreeMap<String, String>) -> Result<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES
            || self.open.len() >= MAX_DEPTH
            || self.open.contains(&(at.value as *const Value))
        {
            return Ok(());
        }
        self.open.push(at.value);
        if let Some(text) = at.text("description") {
            told.entry(path.to_owned()).or_insert_with(|| text.to_owned());
        }
        if let Some(target) = at.text("$ref").and_then(|to| self.documents.resolve(at.document, to)) {
            self.describe(path, target, told)?;
        }
        for parts in ["allOf", "oneOf", "anyOf"] {
            for part in at.value.get(parts).and_then(Value::as_array).into_iter().flatten() {
                self.describe(path, at.of(part), told)?;
            }
        }
        for (name, property) in at.value.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.describe(&below, at.of(property), told)?;
        }
        if let Some(items) = at.get("items").filter(|items| items.value.is_object()) {
            self.describe(path, items, told)?;
        }
        self.open.pop();
        Ok(())
    }
}

fn names(required: Option<&Value>) -> Vec<&str> {
    required.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// In the order of the text, or that of Kafka Connect where it says one.
fn properties_of<'a>(properties: &'a Map<String, Value>, at: At<'a>) -> Vec<(&'a String, At<'a>)> {
    let mut all: Vec<(&String, At<'_>)> =
        properties.iter().map(|(name, value)| (name, at.of(value))).collect();
    let index = |property: &At<'_>| {
        let branches = property.value.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let mut places = std::iter::once(property.value).chain(branches);
        places.find_map(|place| place.get("connect.index")?.as_u64())
    };
    all.sort_by_key(|(_, property)| index(property));
    all
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
