//! Where a schema has types without a column, which become texts of JSON; and schemas that say so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::json::{self, Instead};
use super::schema::{AvroSchemaGraph, Node, NodeId};
use crate::error::{Error, ErrorKind, Result};

/// Where a type is used: the number of a record's field, or 0 for the items of an array or the values of a map.
pub(super) type Place = (NodeId, usize);

/// A place whose type has no column.
pub(super) struct Misfit {
    pub(super) place: Place,
    /// Dotted, with `[]` for items.
    path: String,
    /// The record that contains itself; nothing of a union of several types.
    itself: Option<String>,
}

impl Misfit {
    pub(super) fn error(&self) -> Error {
        let why = match &self.itself {
            Some(name) => format!("the type `{name}` contains itself, so it has no Arrow column"),
            None => "a union of several types besides null has no Arrow column".to_owned(),
        };
        Error::new(
            ErrorKind::UnsupportedType,
            format!(
                "field {}: {why}; `recursive: json` makes it a text of JSON, or leave the field out of the reader schema",
                self.path
            ),
        )
    }
}

/// The misfits among the columns of a reader schema. Without what lies behind them, nothing contains itself.
pub(super) fn misfits(graph: &AvroSchemaGraph) -> Vec<Misfit> {
    let mut search = Search { graph, open: Vec::new(), seen: HashSet::new(), found: Vec::new() };
    search.look(graph.root, "");
    search.found
}

struct Search<'a> {
    graph: &'a AvroSchemaGraph,
    open: Vec<NodeId>,
    seen: HashSet<NodeId>,
    found: Vec<Misfit>,
}

impl Search<'_> {
    fn look(&mut self, node: NodeId, path: &str) {
        if !self.seen.insert(node) {
            return;
        }
        self.open.push(node);
        match &self.graph.nodes[node as usize] {
            Node::Array(item) | Node::Map(item) => self.place((node, 0), *item, &format!("{path}[]")),
            Node::Record(fields) => {
                for (i, (name, id)) in fields.iter().enumerate() {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    self.place((node, i), *id, &path);
                }
            }
            _ => {}
        }
        self.open.pop();
    }

    fn place(&mut self, place: Place, of: NodeId, path: &str) {
        let branches = types(self.graph, of);
        let itself = branches.iter().find(|branch| self.open.contains(branch));
        let itself = itself.map(|branch| name(self.graph, *branch).to_owned());
        match branches.as_slice() {
            [one] if itself.is_none() => self.look(*one, path),
            [] => {}
            _ => self.found.push(Misfit { place, path: path.to_owned(), itself }),
        }
    }
}

/// What a value may be besides null.
pub(super) fn types(graph: &AvroSchemaGraph, id: NodeId) -> Vec<NodeId> {
    match &graph.nodes[id as usize] {
        Node::Union(branches) => {
            branches.iter().copied().filter(|branch| graph.nodes[*branch as usize] != Node::Null).collect()
        }
        Node::Null => Vec::new(),
        _ => vec![id],
    }
}

pub(super) fn may_be_null(graph: &AvroSchemaGraph, id: NodeId) -> bool {
    match &graph.nodes[id as usize] {
        Node::Union(branches) => branches.iter().any(|branch| graph.nodes[*branch as usize] == Node::Null),
        node => *node == Node::Null,
    }
}

/// What Avro's JSON encoding calls a branch of a union.
pub(super) fn name(graph: &AvroSchemaGraph, id: NodeId) -> &str {
    match &graph.nodes[id as usize] {
        Node::Open | Node::Null => "null",
        Node::Boolean => "boolean",
        Node::Int => "int",
        Node::Long => "long",
        Node::Float => "float",
        Node::Double => "double",
        Node::Bytes | Node::Decimal { fixed: None, .. } => "bytes",
        Node::String => "string",
        Node::Array(_) => "array",
        Node::Map(_) => "map",
        Node::Union(_) => "union",
        Node::Fixed(_) | Node::Decimal { .. } | Node::Enum(_) | Node::Record(_) => {
            graph.about(id).map_or("", |about| about.name.as_str())
        }
    }
}

/// The places of a writer's schema that the reader has JSON in; and where a type contains itself that the reader does not read.
///
/// # Errors
/// A type that the reader has in two places, as JSON in one only.
pub(super) fn of_writer(
    writer: &AvroSchemaGraph,
    reader: &AvroSchemaGraph,
    places: &BTreeSet<Place>,
) -> Result<BTreeMap<Place, Instead>> {
    let mut pairs = Pairs { writer, reader, places, seen: HashSet::new(), found: BTreeMap::new() };
    pairs.types(writer.root, reader.root)?;
    // arrow-avro takes no schema that contains itself, not even to pass over it.
    for misfit in misfits(writer).into_iter().filter(|misfit| misfit.itself.is_some()) {
        pairs.found.entry(misfit.place).or_insert(Some(Instead::Nothing));
    }
    Ok(pairs.found.into_iter().filter_map(|(place, instead)| Some((place, instead?))).collect())
}

struct Pairs<'a> {
    writer: &'a AvroSchemaGraph,
    reader: &'a AvroSchemaGraph,
    places: &'a BTreeSet<Place>,
    seen: HashSet<(NodeId, NodeId)>,
    /// Nothing for what is read as it is.
    found: BTreeMap<Place, Option<Instead>>,
}

impl Pairs<'_> {
    fn types(&mut self, written: NodeId, read: NodeId) -> Result<()> {
        let [read] = types(self.reader, read)[..] else { return Ok(()) };
        types(self.writer, written).into_iter().try_for_each(|written| self.pair(written, read))
    }

    fn pair(&mut self, written: NodeId, read: NodeId) -> Result<()> {
        if !self.seen.insert((written, read)) {
            return Ok(());
        }
        let (writer, reader) = (self.writer, self.reader);
        match (&writer.nodes[written as usize], &reader.nodes[read as usize]) {
            (Node::Array(w), Node::Array(r)) | (Node::Map(w), Node::Map(r)) => {
                self.place(((written, 0), *w), ((read, 0), *r))
            }
            (Node::Record(w), Node::Record(r)) => r.iter().enumerate().try_for_each(|(i, (name, id))| {
                let aliases = reader.about(read).into_iter().flat_map(|about| &about.aliases);
                let aliases = aliases.filter(|(_, field)| *field == i).map(|(alias, _)| alias);
                let mut names = std::iter::once(name).chain(aliases);
                let found = names.find_map(|name| w.iter().position(|(written, _)| written == name));
                let Some(field) = found else { return Ok(()) };
                self.place(((written, field), w[field].1), ((read, i), *id))
            }),
            _ => Ok(()),
        }
    }

    fn place(&mut self, written: (Place, NodeId), read: (Place, NodeId)) -> Result<()> {
        let is_json = self.places.contains(&read.0);
        let instead = is_json.then(|| Instead::Json(self.tags(written.1, read.1)));
        let known = self.found.entry(written.0).or_insert(instead);
        if known.is_some() != is_json {
            let record = name(self.writer, written.0.0);
            return Err(Error::new(
                ErrorKind::IncompatibleSchema,
                format!("the type `{record}` is read in two ways, and has JSON in one of them only"),
            ));
        }
        match is_json {
            true => Ok(()),
            false => self.types(written.1, read.1),
        }
    }

    /// What values are called by: as the reader calls them, so that those of all writers are alike.
    fn tags(&self, written: NodeId, read: NodeId) -> Vec<Option<String>> {
        let read = types(self.reader, read);
        let read: Vec<&str> = read.iter().map(|id| name(self.reader, *id)).collect();
        let tag = |id: NodeId| {
            let own = name(self.writer, id);
            let found =
                promotions(own).iter().copied().find(|promoted| read.contains(promoted)).unwrap_or(own);
            // What the reader has one type for needs no name.
            (read != [found]).then(|| found.to_owned())
        };
        match &self.writer.nodes[written as usize] {
            Node::Union(branches) => branches.iter().map(|branch| tag(*branch)).collect(),
            _ => vec![tag(written)],
        }
    }
}

/// What a type may be read as, the type itself first: "Schema Resolution" of Avro's specification.
fn promotions(name: &str) -> &[&str] {
    match name {
        "int" => &["int", "long", "float", "double"],
        "long" => &["long", "float", "double"],
        "float" => &["float", "double"],
        "string" => &["string", "bytes"],
        "bytes" => &["bytes", "string"],
        _ => &[],
    }
}

/// What the type of a place is replaced by.
pub(super) enum Replaced {
    /// A string, or null where it could be.
    Text,
    Null,
}

/// The text of a schema with something else in places, and with the defaults of a reader's fields there as JSON.
///
/// # Errors
/// [`ErrorKind::InvalidSchema`]: a default that is no value of its type.
pub(super) fn replaced(
    graph: &AvroSchemaGraph,
    places: impl Fn(&Place) -> Option<Replaced>,
) -> Result<String> {
    let text: Value = serde_json::from_str(&graph.text)
        .map_err(|e| Error::new(ErrorKind::Internal, "a schema of ours is not JSON").with_source(e))?;
    let mut definitions = HashMap::new();
    define(&text, &mut definitions);
    let mut rewriting = Rewriting { graph, places, definitions, defined: HashSet::new() };
    Ok(rewriting.node(&text, graph.root)?.to_string())
}

/// Remembers the definitions of named types.
fn define<'a>(text: &'a Value, found: &mut HashMap<String, &'a Value>) {
    match text {
        Value::Array(branches) => branches.iter().for_each(|branch| define(branch, found)),
        Value::Object(object) => {
            if let Some(name) = full_name(object) {
                found.insert(name, text);
            }
            ["items", "values"].iter().filter_map(|key| object.get(*key)).for_each(|of| define(of, found));
            let fields = object.get("fields").and_then(Value::as_array).into_iter().flatten();
            fields.filter_map(|field| field.get("type")).for_each(|of| define(of, found));
        }
        _ => {}
    }
}

fn full_name(definition: &Map<String, Value>) -> Option<String> {
    let name = definition.get("name")?.as_str()?;
    Some(match definition.get("namespace").and_then(Value::as_str) {
        None | Some("") => name.to_owned(),
        Some(namespace) => format!("{namespace}.{name}"),
    })
}

struct Rewriting<'a, F> {
    graph: &'a AvroSchemaGraph,
    places: F,
    definitions: HashMap<String, &'a Value>,
    /// What was defined may have been left out, so that another use is the first.
    defined: HashSet<String>,
}

impl<F: Fn(&Place) -> Option<Replaced>> Rewriting<'_, F> {
    fn node(&mut self, text: &Value, id: NodeId) -> Result<Value> {
        let graph = self.graph;
        match (text, &graph.nodes[id as usize]) {
            (Value::String(name), _) => match self.definitions.get(name) {
                Some(definition) if !self.defined.contains(name) => self.node(definition, id),
                _ => Ok(text.clone()),
            },
            (Value::Array(texts), Node::Union(ids)) => {
                let branches = texts.iter().zip(ids).map(|(text, id)| self.node(text, *id));
                branches.collect::<Result<Vec<_>>>().map(Value::Array)
            }
            (Value::Object(object), node) => {
                self.defined.extend(full_name(object));
                let mut object = object.clone();
                match node {
                    Node::Array(item) | Node::Map(item) => {
                        let key = if matches!(node, Node::Array(_)) { "items" } else { "values" };
                        object[key] = self.place(&object[key], (id, 0), *item)?;
                    }
                    Node::Record(fields) => {
                        let texts = object["fields"].as_array().into_iter().flatten().zip(fields).enumerate();
                        let texts = texts.map(|(i, (text, (_, of)))| self.field(text, (id, i), *of));
                        object["fields"] = texts.collect::<Result<Vec<_>>>()?.into();
                    }
                    _ => {}
                }
                Ok(Value::Object(object))
            }
            _ => Ok(text.clone()),
        }
    }

    fn place(&mut self, text: &Value, place: Place, of: NodeId) -> Result<Value> {
        match (self.places)(&place) {
            None => self.node(text, of),
            Some(Replaced::Null) => Ok(json!("null")),
            Some(Replaced::Text) if may_be_null(self.graph, of) => Ok(json!(["null", "string"])),
            Some(Replaced::Text) => Ok(json!("string")),
        }
    }

    fn field(&mut self, text: &Value, place: Place, of: NodeId) -> Result<Value> {
        let mut field = text.clone();
        field["type"] = self.place(&text["type"], place, of)?;
        let default = text.get("default").filter(|default| !default.is_null());
        match ((self.places)(&place), default) {
            (Some(Replaced::Text), Some(default)) => {
                let text = json::of_default(self.graph, of, default).ok_or_else(|| {
                    let name = field["name"].as_str().unwrap_or_default();
                    Error::new(
                        ErrorKind::InvalidSchema,
                        format!("field {name} has a default that is not of its type"),
                    )
                })?;
                field["default"] = text.into();
                if may_be_null(self.graph, of) {
                    // A default is of a union's first type.
                    field["type"] = json!(["string", "null"]);
                }
            }
            (Some(Replaced::Null), Some(_)) => field["default"] = Value::Null,
            _ => {}
        }
        Ok(field)
    }
}
