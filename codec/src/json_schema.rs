//! JSON Schemas as Arrow columns: which types objects have that a schema describes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result, at_field};
use crate::field_spec::{json_field, map_of};

/// How deep a schema may nest and refer: far beyond any table.
const MAX_DEPTH: usize = 32;
/// How many schemas are looked at: they may be referred to many times.
const MAX_NODES: usize = 20_000;
/// Of all texts together.
const MAX_TEXT: usize = 8 << 20;

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
/// Not null is what is `required` and cannot be `null`. `allOf`, and what stands beside `$ref`, `oneOf` or `anyOf`, is all of it at
/// once; of objects that are one of several, each property has a column. What has several types, none, or contains itself has no
/// column of a type: `as_json` makes it a text of JSON, and without it is refused.
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
    let documents = Documents::parse(schema, references)?;
    let root = Walk::new(&documents).root()?;
    let Kind::Object { fields, required } = root.kind else {
        return Err(match root.kind {
            Kind::Any(why) => unsupported("", &why),
            _ => no_object(),
        });
    };
    Ok(Arc::new(Schema::new(arrow_fields("", &fields, &required, as_json)?)))
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
    let mut told = BTreeMap::new();
    Walk::new(&documents).describe("", documents.root(), &mut told);
    Ok(told)
}

/// How objects of a JSON Schema are written from columns, as far as the schema says it.
#[derive(Debug, Clone)]
pub(crate) struct Writing {
    /// Nulls are written, else left out.
    pub(crate) nulls: bool,
    /// Columns that have to have a value in each row, by name: with what is wrong otherwise.
    pub(crate) never_null: Vec<(String, &'static str)>,
}

/// That columns may become objects that a JSON Schema describes: each is a property of its type, and what is required is there.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`], with the column; [`ErrorKind::UnsupportedType`] for one of another type.
pub(crate) fn writing<'a>(
    columns: &Schema,
    schema: &str,
    references: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Writing> {
    let documents = Documents::parse(schema, references)?;
    let root = Walk::new(&documents).root()?;
    let Kind::Object { fields, required } = &root.kind else { return Err(no_object()) };
    fits_object("", columns.fields(), fields, required)?;
    let mut found = Nulls::default();
    found.look(&root);
    // Both at once cannot be written: then no null is, and what needs one is refused.
    let nulls = found.has_to_be && !found.may_not_be;
    let never_null = fields.iter().filter(|(name, _)| required.contains(name)).filter_map(|(name, shape)| {
        match shape.nullable {
            false => Some((name.clone(), "it has a null, and the property is required and cannot be null")),
            true if !nulls => Some((
                name.clone(),
                "it has a null, and the property is required beside others that may be left out and not be null",
            )),
            true => None,
        }
    });
    Ok(Writing { nulls, never_null: never_null.collect() })
}

/// What properties of a schema, at any depth, ask of nulls.
#[derive(Default)]
struct Nulls {
    /// One is required and may be null.
    has_to_be: bool,
    /// One may be left out and not be null.
    may_not_be: bool,
}

impl Nulls {
    fn look(&mut self, shape: &Shape) {
        match &shape.kind {
            Kind::Object { fields, required } => {
                for (name, shape) in fields {
                    let is_required = required.contains(name);
                    self.has_to_be |= is_required && shape.nullable;
                    self.may_not_be |= !is_required && !shape.nullable;
                    self.look(shape);
                }
            }
            Kind::List(item) => self.look(item),
            Kind::Map(value) => {
                self.has_to_be |= value.nullable;
                self.look(value);
            }
            Kind::Null | Kind::Any(_) | Kind::Several | Kind::Value(..) => {}
        }
    }
}

fn fits_object(
    path: &str,
    columns: &Fields,
    fields: &[(String, Shape)],
    required: &HashSet<String>,
) -> Result<()> {
    for column in columns {
        let path = joined(path, column.name());
        let Some((_, shape)) = fields.iter().find(|(name, _)| name == column.name()) else {
            let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
            return Err(invalid(format!(
                "the column `{path}` has no property in the JSON Schema, which has {}; leave the column out, or register a schema with it",
                names.join(", ")
            )));
        };
        fits(&path, column.data_type(), shape)?;
    }
    let missing = fields.iter().find(|(name, _)| required.contains(name) && columns.find(name).is_none());
    match missing {
        Some((name, _)) => Err(invalid(format!(
            "the property `{}` is required, and there is no such column",
            joined(path, name)
        ))),
        None => Ok(()),
    }
}

fn fits(path: &str, column: &DataType, shape: &Shape) -> Result<()> {
    let fits = match (&shape.kind, column) {
        (_, DataType::Null) => true,
        (Kind::Object { fields, required }, DataType::Struct(columns)) => {
            return fits_object(path, columns, fields, required);
        }
        (Kind::List(item), DataType::List(column) | DataType::LargeList(column)) => {
            return self::fits(&format!("{path}[]"), column.data_type(), item);
        }
        (Kind::Map(value), DataType::Map(entries, _)) => {
            return match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => {
                    self::fits(&format!("{path}[]"), pair[1].data_type(), value)
                }
                _ => Ok(()),
            };
        }
        (Kind::Value(written, of), column) => match written {
            Written::Text => match of {
                DataType::Timestamp(..) => {
                    matches!(column, DataType::Timestamp(_, Some(_))) || is_text(column)
                }
                DataType::Date32 => matches!(column, DataType::Date32 | DataType::Date64) || is_text(column),
                _ => is_text(column),
            },
            Written::Integer => column.is_integer(),
            // More digits than a float has are written as texts.
            Written::Number => {
                column.is_integer()
                    || column.is_floating()
                    || matches!(column, DataType::Decimal128(..=15, _))
            }
            Written::Boolean => *column == DataType::Boolean,
        },
        _ => false,
    };
    match fits {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::UnsupportedType,
            format!("the column `{path}`: it is {column}, and the property is {}", shape.kind.name()),
        )),
    }
}

fn is_text(column: &DataType) -> bool {
    column.is_string() || matches!(column, DataType::Dictionary(_, of) if of.is_string())
}

fn no_object() -> Error {
    invalid(
        "the schema does not describe an object with `properties`, so it has no fields to make columns of",
    )
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidSchema, message)
}

fn unsupported(path: &str, why: &str) -> Error {
    let told =
        format!("{why}, so it has no Arrow column of one type; `recursive: json` makes it a text of JSON");
    Error::new(ErrorKind::UnsupportedType, at_field(path, told))
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
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
        let mut bytes = 0;
        let mut parsed = |what: &str, text: &str| -> Result<Value> {
            bytes += text.len();
            if bytes > MAX_TEXT {
                return Err(invalid(format!(
                    "the schema and its references have more than {MAX_TEXT} bytes"
                )));
            }
            serde_json::from_str(text).map_err(|e| invalid(format!("{what} is not JSON: {e}")))
        };
        let mut documents = Documents { all: vec![parsed("the schema", schema)?], by_name: HashMap::new() };
        for (name, text) in references {
            documents.by_name.insert(plain(name).to_owned(), documents.all.len());
            documents.all.push(parsed(&format!("the reference `{name}`"), text)?);
        }
        // What a reference is called goes before what it calls itself.
        for (number, document) in documents.all.iter().enumerate() {
            if let Some(id) = id_of(document) {
                documents.by_name.entry(plain(id).to_owned()).or_insert(number);
            }
        }
        Ok(documents)
    }

    fn root(&self) -> At<'_> {
        At { document: 0, base: &self.all[0], value: &self.all[0] }
    }
}

fn plain(name: &str) -> &str {
    name.trim_end_matches('#').trim_start_matches("./")
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

/// The name that a schema has, where it is not an anchor.
fn id_of(schema: &Value) -> Option<&str> {
    let id = schema.get("$id").or_else(|| schema.get("id"))?.as_str()?;
    (!id.starts_with('#')).then_some(id)
}

fn anchor_of(schema: &Value) -> Option<&str> {
    let anchor = schema.get("$anchor").and_then(Value::as_str);
    let id = schema.get("$id").or_else(|| schema.get("id")).and_then(Value::as_str);
    anchor.or_else(|| id?.strip_prefix('#'))
}

/// A schema, and where its references are looked up.
#[derive(Clone, Copy)]
struct At<'a> {
    document: usize,
    /// The nearest schema around it that has a name, or the document.
    base: &'a Value,
    value: &'a Value,
}

impl<'a> At<'a> {
    /// A part of it that is a schema.
    fn of(self, value: &'a Value) -> At<'a> {
        let base = if id_of(value).is_some() { value } else { self.base };
        At { value, base, ..self }
    }

    fn get(self, name: &str) -> Option<At<'a>> {
        self.value.get(name).map(|value| self.of(value))
    }

    fn text(self, name: &str) -> Option<&'a str> {
        self.value.get(name)?.as_str()
    }

    fn list(self, name: &str) -> &'a [Value] {
        self.value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

/// What a schema makes of values.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    kind: Kind,
    /// It may be null.
    nullable: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Null alone, or nothing.
    Null,
    /// No one type, and why.
    Any(String),
    /// One of several types, objects among them.
    Several,
    Value(Written, DataType),
    List(Box<Shape>),
    Map(Box<Shape>),
    Object {
        fields: Vec<(String, Shape)>,
        required: HashSet<String>,
    },
}

/// How JSON has a value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Written {
    Text,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    fn has_members(&self) -> bool {
        matches!(self, Kind::Object { .. } | Kind::Map(_))
    }

    fn name(&self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Any(_) | Kind::Several => "of no one type, which is not written from columns",
            Kind::Value(Written::Text, DataType::Timestamp(..)) => "a `date-time`",
            Kind::Value(Written::Text, DataType::Date32) => "a `date`",
            Kind::Value(Written::Text, _) => "a `string`",
            Kind::Value(Written::Integer, _) => "an `integer`",
            Kind::Value(Written::Number, _) => "a `number`",
            Kind::Value(Written::Boolean, _) => "a `boolean`",
            Kind::List(_) => "an `array`",
            Kind::Map(_) | Kind::Object { .. } => "an `object`",
        }
    }
}

impl Shape {
    fn any(why: impl Into<String>) -> Shape {
        Shape { kind: Kind::Any(why.into()), nullable: true }
    }

    fn null() -> Shape {
        Shape { kind: Kind::Null, nullable: true }
    }

    /// The column of it.
    fn field(&self, name: &str, path: &str, nullable: bool, as_json: bool) -> Result<Field> {
        let nullable = nullable || self.nullable;
        Ok(match &self.kind {
            Kind::Null if as_json => json_field(name, true),
            Kind::Null => return Err(unsupported(path, "it is always null")),
            Kind::Any(_) | Kind::Several if as_json => json_field(name, nullable),
            Kind::Any(why) => return Err(unsupported(path, why)),
            Kind::Several => return Err(unsupported(path, SEVERAL)),
            Kind::Value(_, data_type) => Field::new(name, data_type.clone(), nullable),
            Kind::List(item) => {
                let item =
                    item.field(Field::LIST_FIELD_DEFAULT_NAME, &format!("{path}[]"), false, as_json)?;
                Field::new_list(name, item, nullable)
            }
            Kind::Map(value) => {
                let value = value.field("value", &format!("{path}[]"), false, as_json)?;
                Field::new(name, map_of(value), nullable)
            }
            Kind::Object { fields, required } => {
                Field::new_struct(name, arrow_fields(path, fields, required, as_json)?, nullable)
            }
        })
    }

    /// What is one of two.
    fn or(self, other: Shape) -> Shape {
        let nullable = self.nullable || other.nullable;
        let kind = match (self.kind, other.kind) {
            (Kind::Null, kind) | (kind, Kind::Null) => kind,
            (own, other) if own == other => own,
            (Kind::Several, _) | (_, Kind::Several) => Kind::Several,
            (Kind::Any(why), other) | (other, Kind::Any(why)) if !other.has_members() => Kind::Any(why),
            (Kind::List(own), Kind::List(other)) => Kind::List(Box::new(own.or(*other))),
            (Kind::Map(own), Kind::Map(other)) => Kind::Map(Box::new(own.or(*other))),
            (Kind::Value(own, _), Kind::Value(other, _)) => match (own, other) {
                (Written::Integer, Written::Number) | (Written::Number, Written::Integer) => {
                    Kind::Value(Written::Number, DataType::Float64)
                }
                // Of texts, one that is a time and another are texts.
                (Written::Text, Written::Text) => Kind::Value(Written::Text, DataType::Utf8),
                _ => Kind::Any(SEVERAL.into()),
            },
            (Kind::Object { fields: own, required: a }, Kind::Object { fields: other, required: b }) => {
                // One of them alone has it: then it may not be there.
                let required = a.intersection(&b).cloned().collect();
                Kind::Object { fields: union(own, other, Shape::or), required }
            }
            (own, other) if own.has_members() || other.has_members() => Kind::Several,
            _ => Kind::Any(SEVERAL.into()),
        };
        Shape { kind, nullable }
    }

    /// What is both at once.
    fn and(self, other: Shape) -> Shape {
        let nullable = self.nullable && other.nullable;
        let kind = match (self.kind, other.kind) {
            (Kind::Any(_), kind) | (kind, Kind::Any(_)) => kind,
            (own, other) if own == other => own,
            // What the objects among them have must not be lost.
            (Kind::Several, other) | (other, Kind::Several) if !other.has_members() => other,
            (Kind::Several, _) | (_, Kind::Several) => Kind::Several,
            (Kind::List(own), Kind::List(other)) => Kind::List(Box::new(own.and(*other))),
            (Kind::Map(own), Kind::Map(other)) => Kind::Map(Box::new(own.and(*other))),
            (Kind::Value(a, own), Kind::Value(b, other)) => match (a, b) {
                (Written::Integer, Written::Number) => Kind::Value(a, own),
                (Written::Number, Written::Integer) => Kind::Value(b, other),
                (Written::Text, Written::Text) if own == DataType::Utf8 => Kind::Value(b, other),
                (Written::Text, Written::Text) if other == DataType::Utf8 => Kind::Value(a, own),
                _ => at_once(),
            },
            (Kind::Object { fields: own, required: a }, Kind::Object { fields: other, required: b }) => {
                let required = a.union(&b).cloned().collect();
                Kind::Object { fields: union(own, other, Shape::and), required }
            }
            // Its members are any others besides.
            (Kind::Object { fields, required }, Kind::Map(_))
            | (Kind::Map(_), Kind::Object { fields, required }) => Kind::Object { fields, required },
            _ => at_once(),
        };
        Shape { kind, nullable }
    }
}

const SEVERAL: &str = "it may have one of several types";

fn at_once() -> Kind {
    Kind::Any("it has to be of several types at once".into())
}

/// The fields of both; of those that both have, what `both` makes of them.
fn union(
    own: Vec<(String, Shape)>,
    other: Vec<(String, Shape)>,
    both: impl Fn(Shape, Shape) -> Shape,
) -> Vec<(String, Shape)> {
    let mut places: HashMap<String, usize> =
        own.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
    let mut fields = own;
    for (name, shape) in other {
        match places.get(&name) {
            Some(place) => {
                let own = std::mem::replace(&mut fields[*place].1, Shape::null());
                fields[*place].1 = both(own, shape);
            }
            None => {
                places.insert(name.clone(), fields.len());
                fields.push((name, shape));
            }
        }
    }
    fields
}

fn arrow_fields(
    path: &str,
    fields: &[(String, Shape)],
    required: &HashSet<String>,
    as_json: bool,
) -> Result<Fields> {
    let fields = fields
        .iter()
        .map(|(name, shape)| shape.field(name, &joined(path, name), !required.contains(name), as_json));
    fields.collect::<Result<Vec<Field>>>().map(Fields::from)
}

struct Walk<'a> {
    documents: &'a Documents,
    /// Schemas with a name, and with an anchor, by their document.
    ids: HashMap<(usize, &'a str), &'a Value>,
    anchors: HashMap<(usize, &'a str), &'a Value>,
    /// The schemas that lead here, by where they are.
    open: Vec<*const Value>,
    nodes: usize,
}

impl<'a> Walk<'a> {
    fn new(documents: &'a Documents) -> Self {
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

    fn root(&mut self) -> Result<Shape> {
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

    fn describe(&mut self, path: &str, at: At<'a>, told: &mut BTreeMap<String, String>) {
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
