//! An Avro schema as a graph to walk a datum with, and as one self-contained text for arrow-avro.
//!
//! Avro 1.11 specification, "Schema Declaration" and "Logical Types".

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};

/// Index of a [`Node`] in its [`AvroSchemaGraph`].
pub(super) type NodeId = u32;

/// One type, as far as a datum's bytes depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A named type whose definition is still being read: only seen while parsing.
    Open,
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    /// A decimal: `fixed` of this size, or bytes.
    Decimal {
        fixed: Option<usize>,
        precision: u8,
    },
    /// So many symbols.
    Enum(u32),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<(String, NodeId)>),
}

/// A parsed schema.
#[derive(Debug, Clone)]
pub(super) struct AvroSchemaGraph {
    pub(super) nodes: Vec<Node>,
    pub(super) root: NodeId,
    /// The schema without foreign attributes, every referenced type defined at its first use,
    /// and without the logical types that have no column of their own here (`uuid`, `duration`).
    pub(super) text: String,
    /// What the bytes of a datum do not depend on.
    about: HashMap<NodeId, About>,
}

/// What a schema says of a type, but for what a datum's bytes depend on.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    /// Full name of a named type.
    pub(super) name: String,
    pub(super) symbols: Vec<String>,
    pub(super) logical: Option<String>,
    /// Of a decimal.
    pub(super) scale: u8,
    /// Other full names of a named type.
    pub(super) aliases: Vec<String>,
    /// Of a record, one a member.
    pub(super) fields: Vec<AboutField>,
    pub(super) doc: Option<String>,
}

/// What a schema says of a field.
#[derive(Debug, Clone, Default)]
pub(super) struct AboutField {
    pub(super) aliases: Vec<String>,
    pub(super) default: Option<Value>,
    pub(super) doc: Option<String>,
}

const PRIMITIVES: &[(&str, Node)] = &[
    ("null", Node::Null),
    ("boolean", Node::Boolean),
    ("int", Node::Int),
    ("long", Node::Long),
    ("float", Node::Float),
    ("double", Node::Double),
    ("bytes", Node::Bytes),
    ("string", Node::String),
];

/// Types within types of one schema; a value that nests a third as deep is refused.
pub(super) const MAX_DEPTH: usize = 200;

/// Nodes in one schema: far beyond real ones, and a bound for what a registry can make us hold.
pub(super) const MAX_NODES: usize = 100_000;

impl AvroSchemaGraph {
    /// Parses a schema; `references` are the texts of the schemas that it refers to by full name, in any
    /// order.
    pub(super) fn parse<'a>(text: &str, references: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let value = parse_json(text, "the schema")?;
        let mut parser = Parser::default();
        for reference in references {
            let value = parse_json(reference, "a referenced schema")?;
            parser.collect_definitions(&value, "");
        }
        let (root, normal) = parser.node(&value, "", "")?;
        Ok(Self { nodes: parser.nodes, root, text: normal.to_string(), about: parser.about })
    }

    pub(super) fn about(&self, node: NodeId) -> Option<&About> {
        self.about.get(&node)
    }
}

fn parse_json(text: &str, what: &str) -> Result<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        // A bare name such as `string` is a legal answer of a registry for a primitive schema.
        Err(_) if PRIMITIVES.iter().any(|(name, _)| *name == text.trim()) => {
            Ok(Value::String(text.trim().into()))
        }
        Err(e) => Err(Error::new(ErrorKind::InvalidSchema, format!("{what} is not JSON: {e}"))),
    }
}

#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    /// Named types whose definition has been seen, by full name.
    named: HashMap<String, NodeId>,
    /// Named types of referenced schemas, with the namespace around them, until they are needed.
    referenced: HashMap<String, (Value, String)>,
    about: HashMap<NodeId, About>,
    /// Types around the one that is read.
    depth: usize,
}

impl Parser {
    fn push(&mut self, node: Node) -> Result<NodeId> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Error::new(
                ErrorKind::InvalidSchema,
                format!("the schema has more than {MAX_NODES} types"),
            ));
        }
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as NodeId)
    }

    /// Remembers every named type in a referenced schema without reading it yet.
    fn collect_definitions(&mut self, value: &Value, namespace: &str) {
        match value {
            Value::Array(branches) => branches.iter().for_each(|b| self.collect_definitions(b, namespace)),
            Value::Object(object) => {
                let mut inner = namespace.to_owned();
                if let (Some(kind), Some(name)) = (text_of(object, "type"), text_of(object, "name"))
                    && matches!(kind, "record" | "error" | "enum" | "fixed")
                {
                    let (full, space) = full_name(name, text_of(object, "namespace"), namespace);
                    self.referenced.entry(full).or_insert_with(|| (value.clone(), namespace.to_owned()));
                    inner = space;
                }
                for key in ["type", "items", "values"] {
                    if let Some(nested @ (Value::Object(_) | Value::Array(_))) = object.get(key) {
                        self.collect_definitions(nested, &inner);
                    }
                }
                if let Some(Value::Array(fields)) = object.get("fields") {
                    for field in fields {
                        if let Some(nested) = field.get("type") {
                            self.collect_definitions(nested, &inner);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn node(&mut self, value: &Value, namespace: &str, path: &str) -> Result<(NodeId, Value)> {
        if self.depth >= MAX_DEPTH {
            return Err(invalid(path, &format!("types that nest deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let read = self.read(value, namespace, path);
        self.depth -= 1;
        read
    }

    fn read(&mut self, value: &Value, namespace: &str, path: &str) -> Result<(NodeId, Value)> {
        match value {
            Value::String(name) => self.name(name, namespace, path),
            Value::Array(branches) => self.union(branches, namespace, path),
            Value::Object(object) => match object.get("type") {
                Some(Value::String(kind)) => self.object(kind, object, value, namespace, path),
                Some(nested) => self.node(nested, namespace, path),
                None => Err(invalid(path, "a type without the attribute `type`")),
            },
            _ => Err(invalid(path, "something that is not a type (a name, an object or a union is)")),
        }
    }

    fn name(&mut self, name: &str, namespace: &str, path: &str) -> Result<(NodeId, Value)> {
        if let Some((_, node)) = PRIMITIVES.iter().find(|(primitive, _)| *primitive == name) {
            return Ok((self.push(node.clone())?, Value::String(name.into())));
        }
        let (full, _) = full_name(name, None, namespace);
        // Avro's own implementations also find a bare name outside the namespace it is used in.
        for candidate in [full.as_str(), name] {
            if let Some(&id) = self.named.get(candidate) {
                return Ok((id, Value::String(candidate.into())));
            }
            if let Some((definition, around)) = self.referenced.remove(candidate) {
                return self.node(&definition, &around, path);
            }
        }
        Err(invalid(
            path,
            &format!(
                "the type `{full}`, which nothing defines; if it is in another schema, give that one as a reference"
            ),
        ))
    }

    fn union(&mut self, branches: &[Value], namespace: &str, path: &str) -> Result<(NodeId, Value)> {
        if branches.is_empty() {
            return Err(invalid(path, "a union without types"));
        }
        let mut ids = Vec::with_capacity(branches.len());
        let mut texts = Vec::with_capacity(branches.len());
        for branch in branches {
            if branch.is_array() {
                return Err(invalid(path, "a union directly inside a union"));
            }
            let (id, text) = self.node(branch, namespace, path)?;
            ids.push(id);
            texts.push(text);
        }
        Ok((self.push(Node::Union(ids))?, Value::Array(texts)))
    }

    fn object(
        &mut self,
        kind: &str,
        object: &Map<String, Value>,
        value: &Value,
        namespace: &str,
        path: &str,
    ) -> Result<(NodeId, Value)> {
        match kind {
            "array" | "map" => {
                let key = if kind == "array" { "items" } else { "values" };
                let items =
                    object.get(key).ok_or_else(|| invalid(path, &format!("{kind} without `{key}`")))?;
                let (item, text) = self.node(items, namespace, &format!("{path}[]"))?;
                let id = self.push(if kind == "array" { Node::Array(item) } else { Node::Map(item) })?;
                Ok((id, json!({"type": kind, (key): text})))
            }
            "record" | "error" => {
                let named = self.open(object, namespace, path)?;
                let Some(Value::Array(fields)) = object.get("fields") else {
                    return Err(invalid(path, "a record without `fields`"));
                };
                let mut members = Vec::with_capacity(fields.len());
                let mut texts = Vec::with_capacity(fields.len());
                let mut about = About { doc: text_of(object, "doc").map(str::to_owned), ..About::default() };
                for field in fields {
                    let (member, text) = self.field(field, &named.namespace, path)?;
                    let aliases = field.get("aliases").and_then(Value::as_array).into_iter().flatten();
                    about.fields.push(AboutField {
                        aliases: aliases.filter_map(Value::as_str).map(str::to_owned).collect(),
                        default: field.get("default").cloned(),
                        doc: field.get("doc").and_then(Value::as_str).map(str::to_owned),
                    });
                    members.push(member);
                    texts.push(text);
                }
                (about.name, about.aliases) = (named.full(), named.aliases(object));
                self.about.insert(named.id, about);
                self.nodes[named.id as usize] = Node::Record(members);
                Ok((named.id, named.text("record", object, [("fields", Value::Array(texts))])))
            }
            "enum" => {
                let Some(Value::Array(symbols)) = object.get("symbols") else {
                    return Err(invalid(path, "an enum without `symbols`"));
                };
                if symbols.is_empty() || !symbols.iter().all(Value::is_string) {
                    return Err(invalid(path, "an enum whose symbols are not names"));
                }
                let named = self.open(object, namespace, path)?;
                self.nodes[named.id as usize] = Node::Enum(symbols.len() as u32);
                let names = symbols.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                let (name, aliases) = (named.full(), named.aliases(object));
                let about = About { name, aliases, symbols: names, ..About::default() };
                self.about.insert(named.id, about);
                let mut extra = vec![("symbols", Value::Array(symbols.clone()))];
                if let Some(default) = object.get("default") {
                    extra.push(("default", default.clone()));
                }
                Ok((named.id, named.text("enum", object, extra)))
            }
            "fixed" => {
                let Some(size) = object.get("size").and_then(Value::as_u64).filter(|&n| n <= i32::MAX as u64)
                else {
                    return Err(invalid(path, "a fixed without a valid `size`"));
                };
                let named = self.open(object, namespace, path)?;
                let mut extra = vec![("size", json!(size))];
                let about = self.about.entry(named.id).or_default();
                (about.name, about.aliases) = (named.full(), named.aliases(object));
                self.nodes[named.id as usize] = match decimal(object, Some(size as usize)) {
                    Some((precision, scale)) => {
                        about.scale = scale;
                        extra.extend(decimal_text(precision, scale));
                        Node::Decimal { fixed: Some(size as usize), precision }
                    }
                    None => Node::Fixed(size as usize),
                };
                Ok((named.id, named.text("fixed", object, extra)))
            }
            "bytes" => match decimal(object, None) {
                Some((precision, scale)) => {
                    let id = self.push(Node::Decimal { fixed: None, precision })?;
                    self.about.insert(id, About { scale, ..About::default() });
                    let text =
                        std::iter::once(("type", json!("bytes"))).chain(decimal_text(precision, scale));
                    Ok((id, text.map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>().into()))
                }
                None => self.name("bytes", namespace, path),
            },
            "int" | "long" => {
                let (id, text) = self.name(kind, namespace, path)?;
                let logical = text_of(object, "logicalType").or_else(|| debezium_time(object));
                let logical = logical.filter(|logical| match kind {
                    "int" => matches!(*logical, "date" | "time-millis"),
                    _ => matches!(
                        *logical,
                        "time-micros"
                            | "timestamp-millis"
                            | "timestamp-micros"
                            | "timestamp-nanos"
                            | "local-timestamp-millis"
                            | "local-timestamp-micros"
                            | "local-timestamp-nanos"
                    ),
                });
                let Some(logical) = logical else { return Ok((id, text)) };
                self.about.insert(id, About { logical: Some(logical.to_owned()), ..About::default() });
                Ok((id, json!({"type": kind, "logicalType": logical})))
            }
            // `{"type": "string"}` with attributes of others, or a name in a needless object.
            other => {
                debug_assert!(value.is_object());
                self.name(other, namespace, path)
            }
        }
    }

    fn field(&mut self, field: &Value, namespace: &str, path: &str) -> Result<((String, NodeId), Value)> {
        let name = field
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| invalid(path, "a field without a name"))?;
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let declared = field.get("type").ok_or_else(|| invalid(&path, "a field without a type"))?;
        let (id, text) = self.node(declared, namespace, &path)?;
        let mut normal = Map::new();
        normal.insert("name".into(), json!(name));
        normal.insert("type".into(), text);
        if let Some(default) = field.get("default") {
            normal.insert("default".into(), default.clone());
        }
        for key in ["aliases", "doc"] {
            if let Some(value) = field.get(key).filter(|value| key != "doc" || value.is_string()) {
                normal.insert(key.into(), value.clone());
            }
        }
        Ok(((name.to_owned(), id), normal.into()))
    }

    /// Starts the definition of a named type, which may refer to itself from now on.
    fn open(&mut self, object: &Map<String, Value>, namespace: &str, path: &str) -> Result<Named> {
        let name =
            text_of(object, "name").ok_or_else(|| invalid(path, "a record, enum or fixed without a name"))?;
        let (full, space) = full_name(name, text_of(object, "namespace"), namespace);
        if PRIMITIVES.iter().any(|(primitive, _)| *primitive == full) {
            return Err(invalid(path, &format!("a type with the name of another, `{full}`")));
        }
        let id = self.push(Node::Open)?;
        if self.named.insert(full.clone(), id).is_some() {
            return Err(invalid(path, &format!("a second definition of the type `{full}`")));
        }
        // The main schema's definition counts, should a reference have one of the same name.
        self.referenced.remove(&full);
        let short = full.rsplit('.').next().unwrap_or(&full).to_owned();
        Ok(Named { id, short, namespace: space })
    }
}

struct Named {
    id: NodeId,
    short: String,
    namespace: String,
}

impl Named {
    /// Other full names of the type: those without a namespace are in its own.
    fn aliases(&self, object: &Map<String, Value>) -> Vec<String> {
        let aliases = object.get("aliases").and_then(Value::as_array).into_iter().flatten();
        aliases.filter_map(Value::as_str).map(|alias| full_name(alias, None, &self.namespace).0).collect()
    }

    fn full(&self) -> String {
        match self.namespace.as_str() {
            "" => self.short.clone(),
            namespace => format!("{namespace}.{}", self.short),
        }
    }

    fn text<'a>(
        &self,
        kind: &str,
        object: &Map<String, Value>,
        extra: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Value {
        let mut text = Map::new();
        text.insert("type".into(), json!(kind));
        text.insert("name".into(), json!(self.short));
        text.insert("namespace".into(), json!(self.namespace));
        for key in ["aliases", "doc"] {
            if let Some(value) = object.get(key).filter(|value| key != "doc" || value.is_string()) {
                text.insert(key.into(), value.clone());
            }
        }
        for (key, value) in extra {
            text.insert(key.into(), value);
        }
        text.into()
    }
}

fn text_of<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// Full name of a definition or reference, and the namespace it opens.
pub(super) fn full_name(name: &str, own: Option<&str>, around: &str) -> (String, String) {
    match name.rsplit_once('.') {
        Some(("", short)) => (short.to_owned(), String::new()),
        Some((namespace, _)) => (name.to_owned(), namespace.to_owned()),
        None => match own.unwrap_or(around) {
            "" => (name.to_owned(), String::new()),
            namespace => (format!("{namespace}.{name}"), namespace.to_owned()),
        },
    }
}

/// [Debezium's temporal types](https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-temporal-types),
/// which Kafka Connect's AvroConverter names in an attribute of its own. They have no zone. Connect's own types have Avro's
/// logical types already.
fn debezium_time(object: &Map<String, Value>) -> Option<&'static str> {
    Some(match text_of(object, "connect.name")?.strip_prefix("io.debezium.time.")? {
        "Date" => "date",
        "Time" => "time-millis",
        "MicroTime" => "time-micros",
        "Timestamp" => "local-timestamp-millis",
        "MicroTimestamp" => "local-timestamp-micros",
        "NanoTimestamp" => "local-timestamp-nanos",
        _ => return None,
    })
}

/// Precision and scale, if the attributes declare a valid decimal; Avro ignores an invalid one.
fn decimal(object: &Map<String, Value>, fixed: Option<usize>) -> Option<(u8, u8)> {
    if text_of(object, "logicalType") != Some("decimal") {
        return None;
    }
    let precision = object.get("precision")?.as_u64().filter(|p| (1..=76).contains(p))?;
    let scale = object.get("scale").map_or(Some(0), Value::as_u64).filter(|&scale| scale <= precision)?;
    // A fixed of n bytes holds floor(log10(2^(8n-1) - 1)) digits. Beyond 32 bytes there is no column.
    let room = match fixed {
        Some(size @ 1..=32) => ((8 * size - 1) as f64 * std::f64::consts::LOG10_2).floor() as u64,
        Some(_) => 0,
        None => 76,
    };
    (precision <= room).then_some((precision as u8, scale as u8))
}

fn decimal_text(precision: u8, scale: u8) -> [(&'static str, Value); 3] {
    [("logicalType", json!("decimal")), ("precision", json!(precision)), ("scale", json!(scale))]
}

fn invalid(path: &str, what: &str) -> Error {
    let place = if path.is_empty() { "the schema".to_owned() } else { format!("field {path}") };
    Error::new(ErrorKind::InvalidSchema, format!("{place} has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AvroSchemaGraph> {
        AvroSchemaGraph::parse(text, [])
    }

    #[test]
    fn what_a_schema_says_of_its_fields_is_kept_and_does_no_harm() {
        let text = r#"{"type":"record","name":"Order","doc":"An order.","fields":[
            {"name":"id","type":"long","doc":"Of the shop."}, {"name":"n","type":"int","doc":7},
            {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
                {"name":"sku","type":{"type":"enum","name":"Sku","doc":"e","symbols":["A"]},"doc":"Of the article."}]}}},
            {"name":"first","type":["null","Line"],"doc":"The first of them.","default":null}]}"#;
        let parsed = parse(&parse(text).unwrap().text).unwrap();
        let expected = [
            ("", "An order."),
            ("first", "The first of them."),
            ("first.sku", "Of the article."),
            ("id", "Of the shop."),
            ("lines.sku", "Of the article."),
        ];
        let found = crate::avro_descriptions(&parsed.text).unwrap();
        assert!(found.iter().map(|(path, doc)| (path.as_str(), doc.as_str())).eq(expected), "{found:?}");
        let schema = crate::AvroDecoder::new(text).unwrap().schema();
        assert!(schema.fields().iter().all(|field| !field.metadata().contains_key("avro.doc")), "{schema:?}");
    }

    #[test]
    fn references_are_inlined_at_their_first_use_whatever_their_order() {
        let order = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
            {"name":"a","type":"common.Address"},{"name":"b","type":["null","common.Address"]},{"name":"m","type":"common.Money"}]}"#;
        let address = r#"{"type":"record","name":"Address","namespace":"common","doc":"x","fields":[{"name":"country","type":"Country"}]}"#;
        let rest = r#"[{"type":"enum","name":"Country","namespace":"common","symbols":["AT","FI"]},
            {"type":"record","name":"common.Money","fields":[{"name":"c","type":"Country"},{"name":"n","type":"long"}]}]"#;
        for references in [[address, rest], [rest, address]] {
            let graph = AvroSchemaGraph::parse(order, references).unwrap();
            let text: Value = serde_json::from_str(&graph.text).unwrap();
            assert_eq!(text["fields"][0]["type"]["fields"][0]["type"]["symbols"], json!(["AT", "FI"]));
            assert_eq!(text["fields"][1]["type"][1], json!("common.Address"));
            assert_eq!(text["fields"][2]["type"]["fields"][0]["type"], json!("common.Country"));
            assert!(parse(&graph.text).is_ok(), "self-contained");
        }
        let error = parse(order).unwrap_err();
        assert_eq!(
            error.to_string(),
            "field a has the type `common.Address`, which nothing defines; if it is in another schema, give that one as a reference"
        );
    }

    #[test]
    fn invalid_logical_types_are_ignored_as_avro_says() {
        for (text, node) in [
            (r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":5}"#, Node::Bytes),
            (r#"{"type":"bytes","logicalType":"decimal","precision":0}"#, Node::Bytes),
            (
                r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
                Node::Decimal { fixed: None, precision: 9 },
            ),
            (r#"{"type":"fixed","name":"F","size":2,"logicalType":"decimal","precision":5}"#, Node::Fixed(2)),
            (
                r#"{"type":"fixed","name":"F","size":2,"logicalType":"decimal","precision":4}"#,
                Node::Decimal { fixed: Some(2), precision: 4 },
            ),
            (r#"{"type":"string","logicalType":"uuid"}"#, Node::String),
            (r#"{"type":"string","logicalType":"date"}"#, Node::String),
        ] {
            let graph = parse(text).unwrap();
            assert_eq!(graph.nodes[graph.root as usize], node, "{text}");
        }
    }

    #[test]
    fn times_that_debezium_names_are_times() {
        for (kind, name, logical) in [
            ("int", "Date", Some("date")),
            ("int", "Time", Some("time-millis")),
            ("long", "MicroTime", Some("time-micros")),
            ("long", "Timestamp", Some("local-timestamp-millis")),
            ("long", "MicroTimestamp", Some("local-timestamp-micros")),
            ("long", "NanoTimestamp", Some("local-timestamp-nanos")),
            ("long", "NanoTime", None),
            ("long", "Date", None),
        ] {
            let text = format!(
                r#"{{"type":"{kind}","connect.version":1,"connect.name":"io.debezium.time.{name}"}}"#
            );
            let parsed: Value = serde_json::from_str(&parse(&text).unwrap().text).unwrap();
            assert_eq!(parsed.get("logicalType").and_then(Value::as_str), logical, "{text}");
        }
    }

    #[test]
    fn mistakes_name_the_field() {
        for (text, message) in [
            ("{", "the schema is not JSON: EOF while parsing an object at line 1 column 1"),
            (
                r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"array"}}]}"#,
                "field a has array without `items`",
            ),
            (
                r#"{"type":"record","name":"R","fields":[{"name":"a","type":[["null"]]}]}"#,
                "field a has a union directly inside a union",
            ),
            (
                r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"record","name":"R","fields":[]}}]}"#,
                "field a has a second definition of the type `R`",
            ),
            ("17", "the schema has something that is not a type (a name, an object or a union is)"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
        let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(5000), "}".repeat(5000));
        assert_eq!(parse(&deep).unwrap_err().kind(), ErrorKind::InvalidSchema);
    }

    #[test]
    fn what_contains_itself_is_described_once() {
        let tree = r#"{"type":"record","name":"T","doc":"d","fields":[{"name":"l","type":["null","T"],"doc":"x"},{"name":"r","type":["null","T"]}]}"#;
        let found = crate::avro_descriptions(tree).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["", "l"]);
    }

    #[test]
    fn a_chain_of_references_ends() {
        let links: Vec<String> = (0..5_000)
            .map(|n| {
                format!(r#"{{"type":"record","name":"A{n}","fields":[{{"name":"f","type":"A{}"}}]}}"#, n + 1)
            })
            .collect();
        let references = format!("[{}]", links.join(","));
        let error = AvroSchemaGraph::parse(
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"A0"}]}"#,
            [references.as_str()],
        );
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("has types that nest deeper than 200"), "{error}");
    }
}
