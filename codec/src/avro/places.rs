//! Where a schema has types without a column, which become texts of JSON, and what that is in the schema of a writer.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::schema::{AvroSchemaGraph, MAX_DEPTH, Node, NodeId};
use crate::error::{Error, ErrorKind, Result};

/// Where a type is used: the number of a record's field, or 0 for the items of an array or the values of a map.
pub(super) type Place = (NodeId, usize);

/// What a place of a writer's schema has instead of its values.
#[derive(Debug)]
pub(super) enum Instead {
    /// Texts, with what the types are called by, one for each branch of a union. What has none is written as it is.
    Json(Tags),
    /// Nothing: the reader does not read it.
    Nothing,
}

pub(super) type Tags = Vec<Option<String>>;

/// A place whose type has no column.
pub(super) struct Misfit {
    pub(super) place: Place,
    /// Dotted, with `[]` for items.
    path: String,
    why: String,
}

impl Misfit {
    pub(super) fn error(&self) -> Error {
        let Misfit { path, why, .. } = self;
        Error::new(
            ErrorKind::UnsupportedType,
            format!(
                "field {path}: {why} has no Arrow column; `recursive: json` makes it a text of JSON, or leave the field out of the \
                 reader schema"
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
        // What is deeper is refused for that.
        if self.open.len() > MAX_DEPTH || !self.seen.insert(node) {
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
        let types = types(self.graph, of);
        let why = if let Some(itself) = types.iter().find(|id| self.open.contains(id)) {
            format!("the type `{}` contains itself, so it", name(self.graph, *itself))
        } else if types.len() > 1 {
            "a union of several types besides null".to_owned()
        } else if matches!(&self.graph.nodes[of as usize], Node::Union(branches) if branches.len() == 1) {
            "a union of one type".to_owned()
        } else {
            return types.iter().for_each(|id| self.look(*id, path));
        };
        self.found.push(Misfit { place, path: path.to_owned(), why });
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

/// The places of a writer's schema that the reader has JSON in; and those that it does not read and in which something contains
/// itself: arrow-avro takes no such schema, not even to pass over it.
///
/// # Errors
/// [`ErrorKind::IncompatibleSchema`]: a type that the reader has in two places, in two ways.
pub(super) fn of_writer(
    writer: &AvroSchemaGraph,
    reader: &AvroSchemaGraph,
    json: &BTreeSet<Place>,
) -> Result<BTreeMap<Place, Instead>> {
    let mut pairs = Pairs { writer, reader, json, seen: HashSet::new(), found: BTreeMap::new() };
    pairs.types(writer.root, reader.root, 0)?;
    let mut endless = HashMap::new();
    let of = |place: &Place| match &writer.nodes[place.0 as usize] {
        Node::Record(fields) => fields[place.1].1,
        _ => place.0,
    };
    let found = pairs.found.into_iter().filter_map(|(place, found)| match found {
        Found::Json(tags) => Some((place, Instead::Json(tags))),
        Found::Unread => is_endless(writer, of(&place), &mut endless, 0).then_some((place, Instead::Nothing)),
        Found::Read => None,
    });
    Ok(found.collect())
}

/// Whether something contains itself there.
fn is_endless(
    graph: &AvroSchemaGraph,
    id: NodeId,
    known: &mut HashMap<NodeId, Option<bool>>,
    depth: usize,
) -> bool {
    if let Some(known) = known.get(&id) {
        // Nothing of one that is looked at.
        return known.unwrap_or(true);
    }
    if depth > MAX_DEPTH {
        return true;
    }
    known.insert(id, None);
    let mut is_endless = |id: &NodeId| is_endless(graph, *id, known, depth + 1);
    let found = match &graph.nodes[id as usize] {
        Node::Array(item) | Node::Map(item) => is_endless(item),
        Node::Union(branches) => branches.iter().any(&mut is_endless),
        Node::Record(fields) => fields.iter().any(|(_, of)| is_endless(of)),
        _ => false,
    };
    known.insert(id, Some(found));
    found
}

enum Found {
    Unread,
    Read,
    Json(Tags),
}

struct Pairs<'a> {
    writer: &'a AvroSchemaGraph,
    reader: &'a AvroSchemaGraph,
    json: &'a BTreeSet<Place>,
    seen: HashSet<(NodeId, NodeId)>,
    found: BTreeMap<Place, Found>,
}

impl Pairs<'_> {
    fn types(&mut self, written: NodeId, read: NodeId, depth: usize) -> Result<()> {
        let [read] = types(self.reader, read)[..] else { return Ok(()) };
        let written = types(self.writer, written);
        // Of several, only one can be what is read.
        let several = written.len() > 1;
        for written in written {
            if !several || self.is_named_alike(written, read) {
                self.pair(written, read, depth + 1)?;
            }
        }
        Ok(())
    }

    fn is_named_alike(&self, written: NodeId, read: NodeId) -> bool {
        let (of_writer, of_reader) = (name(self.writer, written), name(self.reader, read));
        let is_alias = |graph: &AvroSchemaGraph, id: NodeId, name: &str| {
            graph.about(id).is_some_and(|about| about.aliases.iter().any(|alias| alias == name))
        };
        of_writer == of_reader
            || is_alias(self.reader, read, of_writer)
            || is_alias(self.writer, written, of_reader)
    }

    fn pair(&mut self, written: NodeId, read: NodeId, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH || !self.seen.insert((written, read)) {
            return Ok(());
        }
        let (writer, reader) = (self.writer, self.reader);
        match (&writer.nodes[written as usize], &reader.nodes[read as usize]) {
            (Node::Array(w), Node::Array(r)) | (Node::Map(w), Node::Map(r)) => {
                self.place(((written, 0), *w), ((read, 0), *r), depth)
            }
            (Node::Record(w), Node::Record(r)) => {
                let mut is_read = vec![false; w.len()];
                let fields = fields(writer, written);
                for (i, (name, of)) in r.iter().enumerate() {
                    let about = reader.about(read).and_then(|about| about.fields.get(i));
                    let aliases = about.into_iter().flat_map(|about| &about.aliases);
                    let found =
                        std::iter::once(name).chain(aliases).find_map(|name| fields.get(name.as_str()));
                    // A second one that it is read as has its default.
                    let Some(&field) = found.filter(|field| !is_read[**field]) else { continue };
                    is_read[field] = true;
                    self.place(((written, field), w[field].1), ((read, i), *of), depth)?;
                }
                for (field, is_read) in is_read.into_iter().enumerate() {
                    if !is_read {
                        self.found.entry((written, field)).or_insert(Found::Unread);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn place(&mut self, written: (Place, NodeId), read: (Place, NodeId), depth: usize) -> Result<()> {
        let found = match self.json.contains(&read.0) {
            true => Found::Json(self.tags(written.1, read.1)),
            false => Found::Read,
        };
        let is_read = matches!(found, Found::Read);
        let known = self.found.entry(written.0).or_insert(Found::Unread);
        match (&*known, &found) {
            (Found::Unread, _) => *known = found,
            (Found::Json(known), Found::Json(found)) if known == found => {}
            (Found::Read, Found::Read) => {}
            _ => {
                let record = name(self.writer, written.0.0);
                return Err(Error::new(
                    ErrorKind::IncompatibleSchema,
                    format!("its type `{record}` is read in two ways, which have not the same JSON"),
                ));
            }
        }
        if is_read { self.types(written.1, read.1, depth) } else { Ok(()) }
    }

    /// What values are called by: as the reader calls them, so that those of all writers are alike.
    fn tags(&self, written: NodeId, read: NodeId) -> Tags {
        let read = types(self.reader, read);
        let tag = |id: NodeId| {
            let own = name(self.writer, id);
            let named = |name: &str| read.iter().any(|id| self::name(self.reader, *id) == name);
            let alike = || read.iter().find(|read| self.is_named_alike(id, **read));
            let promoted = || promotions(own).iter().copied().find(|name| named(name));
            let found = match named(own) {
                true => own,
                false => alike().map(|id| name(self.reader, *id)).or_else(promoted).unwrap_or(own),
            };
            // What the reader has one type for needs no name.
            let is_only = read.len() == 1 && named(found);
            (!is_only).then(|| found.to_owned())
        };
        match &self.writer.nodes[written as usize] {
            Node::Union(branches) => branches.iter().map(|branch| tag(*branch)).collect(),
            _ => vec![tag(written)],
        }
    }
}

/// A record's fields by name, and by the aliases that no field has for its name; arrow-avro looks at these too.
fn fields(graph: &AvroSchemaGraph, record: NodeId) -> HashMap<&str, usize> {
    let Node::Record(fields) = &graph.nodes[record as usize] else { return HashMap::new() };
    let mut found: HashMap<&str, usize> =
        fields.iter().enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
    let about = graph.about(record).into_iter().flat_map(|about| about.fields.iter().enumerate());
    for (i, about) in about {
        for alias in &about.aliases {
            found.entry(alias).or_insert(i);
        }
    }
    found
}

/// What a number may be read as: "Schema Resolution" of Avro's specification. Texts and bytes, which it allows too, are not the same
/// in JSON.
fn promotions(name: &str) -> &[&str] {
    match name {
        "int" => &["long", "float", "double"],
        "long" => &["float", "double"],
        "float" => &["double"],
        _ => &[],
    }
}
