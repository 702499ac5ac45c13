//! Schemas as arrow-avro is given them: each use of a named type with its definition, since it does not resolve a name that the
//! writer's schema refers to; and with other types where it is given other values.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::json;
use super::places::{Place, may_be_null};
use super::schema::{AvroSchemaGraph, Node, NodeId, full_name};
use crate::error::{Error, ErrorKind, Result};

/// What the type of a place is replaced by.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Replaced {
    /// A string, or null where it could be.
    Text,
    Null,
}

/// A schema's text.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    /// Upper bound of what one record can add to columns that is not in its bytes: defaults and the names of enum symbols.
    pub(super) weight: u64,
}

/// Bytes of a schema with all its types where they are used, which bounds what arrow-avro makes of it.
const MAX_TEXT: usize = 4 << 20;

/// Objects and lists within each other, of which serde_json takes 128.
const MAX_NESTING: usize = 120;

/// Of the schema that columns are made of, with the defaults of its fields.
///
/// # Errors
/// [`ErrorKind::InvalidSchema`]: a default that is no value of its type. [`ErrorKind::UnsupportedType`]: a schema that is too large.
pub(super) fn of_reader(
    graph: &AvroSchemaGraph,
    places: impl Fn(&Place) -> Option<Replaced>,
) -> Result<Text> {
    written(graph, places, true)
}

/// Of a schema that records were written with, whose defaults mean nothing.
///
/// # Errors
/// [`ErrorKind::UnsupportedType`]: a schema that is too large.
pub(super) fn of_writer(
    graph: &AvroSchemaGraph,
    places: impl Fn(&Place) -> Option<Replaced>,
) -> Result<String> {
    Ok(written(graph, places, false)?.text)
}

fn written(
    graph: &AvroSchemaGraph,
    places: impl Fn(&Place) -> Option<Replaced>,
    is_reader: bool,
) -> Result<Text> {
    let schema: Value = serde_json::from_str(&graph.text)
        .map_err(|e| Error::new(ErrorKind::Internal, "a schema of ours is not JSON").with_source(e))?;
    let mut definitions = HashMap::new();
    define(&schema, &mut definitions);
    let mut writing = Writing {
        graph,
        places,
        is_reader,
        definitions,
        open: Vec::new(),
        nesting: 0,
        out: String::new(),
        weight: 1,
    };
    writing.node(&schema, graph.root)?;
    Ok(Text { text: writing.out, weight: writing.weight })
}

/// Remembers the definitions of named types.
fn define<'a>(text: &'a Value, found: &mut HashMap<String, &'a Value>) {
    match text {
        Value::Array(branches) => branches.iter().for_each(|branch| define(branch, found)),
        Value::Object(object) => {
            if let Some(name) = defined_name(object) {
                found.insert(name, text);
            }
            ["items", "values"].iter().filter_map(|key| object.get(*key)).for_each(|of| define(of, found));
            let fields = object.get("fields").and_then(Value::as_array).into_iter().flatten();
            fields.filter_map(|field| field.get("type")).for_each(|of| define(of, found));
        }
        _ => {}
    }
}

/// Of a definition as the parser writes them, with its namespace.
fn defined_name(definition: &Map<String, Value>) -> Option<String> {
    let namespace = definition.get("namespace").and_then(Value::as_str);
    Some(full_name(definition.get("name")?.as_str()?, namespace, "").0)
}

struct Writing<'a, F> {
    graph: &'a AvroSchemaGraph,
    places: F,
    is_reader: bool,
    definitions: HashMap<String, &'a Value>,
    /// Named types around.
    open: Vec<String>,
    nesting: usize,
    out: String,
    weight: u64,
}

impl<'a, F: Fn(&Place) -> Option<Replaced>> Writing<'a, F> {
    fn put(&mut self, text: &str) -> Result<()> {
        self.out.push_str(text);
        match self.out.len() > MAX_TEXT {
            true => Err(self.too_large("it has more than 4 MiB with each type where it is used")),
            false => Ok(()),
        }
    }

    fn too_large(&self, what: &str) -> Error {
        Error::new(ErrorKind::UnsupportedType, format!("the schema is too large: {what}"))
    }

    fn value(&mut self, value: &Value) -> Result<()> {
        self.put(&value.to_string())
    }

    fn node(&mut self, text: &Value, id: NodeId) -> Result<()> {
        let (graph, nesting) = (self.graph, self.nesting);
        match (text, &graph.nodes[id as usize]) {
            (Value::String(name), _) => match self.definitions.get(name).copied() {
                Some(definition) if !self.open.contains(name) => self.node(definition, id),
                _ => self.value(text),
            },
            (Value::Array(texts), Node::Union(ids)) => {
                self.nest(1)?;
                for (i, (text, id)) in texts.iter().zip(ids).enumerate() {
                    self.put(if i == 0 { "[" } else { "," })?;
                    self.node(text, *id)?;
                }
                self.nesting = nesting;
                self.put("]")
            }
            (Value::Object(object), node) => {
                self.nest(1)?;
                let name = defined_name(object);
                self.open.extend(name.clone());
                self.object(object, node, id)?;
                self.open.truncate(self.open.len() - usize::from(name.is_some()));
                self.nesting = nesting;
                Ok(())
            }
            _ => self.value(text),
        }
    }

    fn nest(&mut self, by: usize) -> Result<()> {
        self.nesting += by;
        match self.nesting > MAX_NESTING {
            true => Err(self.too_large("its types nest too deep, with each where it is used")),
            false => Ok(()),
        }
    }

    fn object(&mut self, object: &Map<String, Value>, node: &Node, id: NodeId) -> Result<()> {
        let mut first = true;
        for (key, value) in object {
            // It says nothing to arrow-avro.
            if key == "doc" {
                continue;
            }
            self.put(if std::mem::take(&mut first) { "{" } else { "," })?;
            self.value(&json!(key))?;
            self.put(":")?;
            match (key.as_str(), node) {
                ("items", Node::Array(item)) | ("values", Node::Map(item)) => {
                    self.place(value, (id, 0), *item)?
                }
                ("fields", Node::Record(members)) => {
                    self.nest(2)?;
                    self.put("[")?;
                    let fields = value.as_array().into_iter().flatten().zip(members).enumerate();
                    for (i, (field, (_, of))) in fields {
                        if i > 0 {
                            self.put(",")?;
                        }
                        self.field(field, (id, i), *of)?;
                    }
                    self.put("]")?;
                }
                ("symbols", _) => {
                    let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                    self.weight += names.map(str::len).max().unwrap_or(0) as u64;
                    self.value(value)?;
                }
                _ => self.value(value)?,
            }
        }
        self.put("}")
    }

    fn place(&mut self, text: &Value, place: Place, of: NodeId) -> Result<()> {
        match (self.places)(&place) {
            None => self.node(text, of),
            Some(Replaced::Null) => self.put("\"null\""),
            Some(Replaced::Text) if may_be_null(self.graph, of) => self.put(r#"["null","string"]"#),
            Some(Replaced::Text) => self.put("\"string\""),
        }
    }

    fn field(&mut self, field: &Value, place: Place, of: NodeId) -> Result<()> {
        self.put("{\"name\":")?;
        self.value(&field["name"])?;
        if let Some(aliases) = field.get("aliases") {
            self.put(",\"aliases\":")?;
            self.value(aliases)?;
        }
        let default = field.get("default").filter(|_| self.is_reader);
        let default = default.map(|default| {
            self.default(place, of, default).ok_or_else(|| {
                let name = field["name"].as_str().unwrap_or_default();
                Error::new(
                    ErrorKind::InvalidSchema,
                    format!("field {name} has a default that is not of its type"),
                )
            })
        });
        let default = default.transpose()?;
        self.put(",\"type\":")?;
        // A default is of a union's first type.
        let is_text = default.as_ref().is_some_and(|default| !default.is_null());
        match (self.places)(&place) {
            Some(Replaced::Text) if is_text && may_be_null(self.graph, of) => {
                self.put(r#"["string","null"]"#)?
            }
            _ => self.place(&field["type"], place, of)?,
        }
        if let Some(default) = default {
            let text = default.to_string();
            if !(default.is_null() || default.is_boolean() || default.is_number()) {
                self.weight += text.len() as u64;
            }
            self.put(",\"default\":")?;
            self.put(&text)?;
        }
        self.put("}")
    }

    /// A default with texts where there are such instead; nothing if it is not of its type there.
    fn default(&self, place: Place, of: NodeId, default: &Value) -> Option<Value> {
        match (self.places)(&place) {
            Some(Replaced::Text) if default.is_null() && may_be_null(self.graph, of) => Some(Value::Null),
            Some(Replaced::Text) => json::of_default(self.graph, of, default).map(Value::String),
            Some(Replaced::Null) => Some(Value::Null),
            None => self.inside(of, default),
        }
    }

    fn inside(&self, of: NodeId, default: &Value) -> Option<Value> {
        Some(match (&self.graph.nodes[of as usize], default) {
            (Node::Array(item), Value::Array(items)) => {
                let items = items.iter().map(|value| self.default((of, 0), *item, value));
                items.collect::<Option<Vec<_>>>()?.into()
            }
            (Node::Map(item), Value::Object(entries)) => {
                let entries =
                    entries.iter().map(|(k, v)| Some((k.clone(), self.default((of, 0), *item, v)?)));
                Value::Object(entries.collect::<Option<_>>()?)
            }
            (Node::Record(fields), Value::Object(members)) => {
                let mut members = members.clone();
                for (i, (name, id)) in fields.iter().enumerate() {
                    if let Some(member) = members.get_mut(name) {
                        *member = self.default((of, i), *id, member)?;
                    }
                }
                Value::Object(members)
            }
            (Node::Union(branches), _) => {
                match branches.iter().find(|b| self.graph.nodes[**b as usize] != Node::Null) {
                    Some(branch) if !default.is_null() => self.inside(*branch, default)?,
                    _ => default.clone(),
                }
            }
            _ => default.clone(),
        })
    }
}
