//! Protobuf schemas as registries and files have them, and what of them says which columns there are.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use prost::Message as _;
use prost_reflect::{DescriptorPool, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use prost_types::FileDescriptorSet;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::error::{Error, ErrorKind, Result};

/// What a schema is called, to itself; imports have the names by which it imports them.
const OWN_NAME: &str = "schema.proto";
/// Of all texts together.
const MAX_TEXT: usize = 8 << 20;
/// How deep brackets may nest: the compiler goes down with them on the stack.
const MAX_BRACKETS: usize = 64;
/// How deep messages may nest: far beyond any table.
pub(super) const MAX_DEPTH: usize = 32;

/// Files that registries and Kafka Connect take for granted, besides those of `google/protobuf`.
const KNOWN: &[(&str, &str)] = &[
    ("confluent/meta.proto", include_str!("known/confluent_meta.proto")),
    ("confluent/type/decimal.proto", include_str!("known/confluent_decimal.proto")),
    ("google/type/date.proto", include_str!("known/google_date.proto")),
    ("google/type/timeofday.proto", include_str!("known/google_timeofday.proto")),
];

/// Puts a Protobuf schema and what it imports into one text that stands by itself: a `FileDescriptorSet` in base64, the schema
/// last.
///
/// `schema` is the source of a `.proto` file, or a `FileDescriptorProto` in base64, as Confluent's serialiser for Python
/// registers it, or such a set. `imports` are name and text of what it imports, in any order, and what that imports; what is in
/// `google/protobuf` and `confluent`, and `google/type/date.proto` and `timeofday.proto`, need not be given.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`] if a text is not a schema or an import is missing.
pub fn inline_protobuf_imports<'a>(
    schema: &str,
    imports: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<String> {
    if let Some(set) = descriptor_set(schema) {
        // It stands by itself already.
        Schema::of(set)?;
        return Ok(schema.to_owned());
    }
    let imports: HashMap<String, String> =
        imports.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    let sizes = imports.values().map(String::len).sum::<usize>() + schema.len();
    if sizes > MAX_TEXT {
        return Err(invalid(format!("the schema and its imports have more than {MAX_TEXT} bytes")));
    }
    let root = file(OWN_NAME, schema).map_err(|e| invalid(told(&e)))?;
    let name = root.name().to_owned();
    let mut known = ChainFileResolver::new();
    known.add(Given { root, imports });
    known.add(GoogleFileResolver::new());
    known.add(Known);
    let mut compiler = protox::Compiler::with_file_resolver(known);
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file(&name).map_err(|e| match e.is_file_not_found() {
        true => invalid(format!("{}; give it as a reference", told(&e))),
        false => invalid(told(&e)),
    })?;
    Ok(BASE64.encode(compiler.encode_file_descriptor_set()))
}

/// The names that a `.proto` file imports others by; those that come with Protobuf are left out.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`] if the text is not a schema.
pub fn protobuf_imports(schema: &str) -> Result<Vec<String>> {
    let file = file(OWN_NAME, schema).map_err(|e| invalid(told(&e)))?;
    let known =
        |name: &str| GoogleFileResolver::new().open_file(name).is_ok() || Known.open_file(name).is_ok();
    Ok(file.file_descriptor_proto().dependency.iter().filter(|name| !known(name)).cloned().collect())
}

/// What a compiler says, with the place, in one line.
fn told(error: &protox::Error) -> String {
    format!("{error:?}").lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidSchema, message)
}

/// Source text, or a description in base64.
fn file(name: &str, text: &str) -> Result<File, protox::Error> {
    if let Some(Ok(mut described)) =
        BASE64.decode(text.trim()).ok().map(|bytes| File::decode_file_descriptor_proto(&*bytes))
        && !described.name().is_empty()
    {
        if name != OWN_NAME && described.name() != name {
            // The compiler looks for a file by the name that it is imported by.
            let mut proto = described.file_descriptor_proto().clone();
            proto.name = Some(name.to_owned());
            described = File::from_file_descriptor_proto(proto);
        }
        return Ok(described);
    }
    if deepest(text) > MAX_BRACKETS {
        let deep = std::io::Error::other(format!("brackets nest deeper than {MAX_BRACKETS} levels"));
        return Err(protox::Error::new(deep));
    }
    File::from_source(name, text)
}

/// How deep brackets nest, at most; those in comments and strings count too.
fn deepest(text: &str) -> usize {
    let (mut open, mut most) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' | b'(' | b'<' => {
                open += 1;
                most = most.max(open);
            }
            b'}' | b']' | b')' | b'>' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// The schema itself and what it imports.
struct Given {
    root: File,
    imports: HashMap<String, String>,
}

impl FileResolver for Given {
    fn resolve_path(&self, path: &std::path::Path) -> Option<String> {
        path.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == self.root.name() {
            return Ok(self.root.clone());
        }
        let text = self.imports.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        file(name, text)
    }
}

struct Known;

impl FileResolver for Known {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let known = KNOWN.iter().find(|(known, _)| *known == name);
        let (_, text) = known.ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, text)
    }
}

fn descriptor_set(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(text.trim()).ok()?;
    let set = FileDescriptorSet::decode(&*bytes).ok()?;
    // A description of one file may read as a set of some sort; it has no names then.
    (!set.file.is_empty() && set.file.iter().all(|file| file.name.is_some())).then_some(bytes)
}

/// A schema that stands by itself.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    pool: DescriptorPool,
    root: FileDescriptor,
}

impl Schema {
    /// What [`inline_protobuf_imports`] gives, or a text that needs no imports.
    pub(super) fn parse(text: &str) -> Result<Schema> {
        if let Some(set) = descriptor_set(text) {
            return Schema::of(set);
        }
        let whole = inline_protobuf_imports(text, [])?;
        Schema::of(BASE64.decode(whole).map_err(|e| invalid(e.to_string()))?)
    }

    fn of(set: Vec<u8>) -> Result<Schema> {
        let broken = |e: prost_reflect::DescriptorError| {
            invalid("the descriptions contradict each other").with_source(e)
        };
        let names = FileDescriptorSet::decode(&*set).map_err(|e| invalid(e.to_string()))?.file;
        let root = names.last().and_then(|file| file.name.clone()).unwrap_or_default();
        let pool = DescriptorPool::decode(&*set).map_err(broken)?;
        let root = pool.get_file_by_name(&root).ok_or_else(|| invalid("it has no files"))?;
        Ok(Schema { pool, root })
    }

    /// The message that columns are made of.
    pub(super) fn message(&self, name: Option<&str>) -> Result<MessageDescriptor> {
        let all: Vec<MessageDescriptor> = self.root.messages().collect();
        if let Some(name) = name {
            let full = self.pool.get_message_by_name(name.trim_start_matches('.'));
            let short = || all.iter().find(|message| message.name() == name).cloned();
            return full
                .or_else(short)
                .ok_or_else(|| invalid(format!("it has no message `{name}`; it has {}", listed(&all))));
        }
        match all.as_slice() {
            [] => Err(invalid("it has no messages")),
            [only] => Ok(only.clone()),
            several => {
                let used: HashSet<String> = several.iter().flat_map(parts).collect();
                let mut roots = several.iter().filter(|message| !used.contains(message.full_name()));
                match (roots.next(), roots.next()) {
                    (Some(root), None) => Ok(root.clone()),
                    _ => Err(invalid(format!(
                        "it has several messages, so that it does not say which one records are: {}; give `message`",
                        listed(several)
                    ))),
                }
            }
        }
    }

    /// The message with this full name.
    pub(super) fn named(&self, full_name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(full_name)
    }

    /// The messages that indexes in front of a record may mean: serialisers do not agree on whether the messages that maps are made
    /// of count.
    pub(super) fn indexed(&self, indexes: &[i64]) -> Vec<MessageDescriptor> {
        let mut meant: Vec<MessageDescriptor> = Vec::new();
        for counts_maps in [false, true] {
            let mut at: Option<MessageDescriptor> = None;
            for (i, index) in indexes.iter().enumerate() {
                let Ok(index) = usize::try_from(*index) else { return Vec::new() };
                at = match (i, at) {
                    (0, _) => self.root.messages().nth(index),
                    (_, Some(message)) => message
                        .child_messages()
                        .filter(|child| counts_maps || !child.is_map_entry())
                        .nth(index),
                    (_, None) => None,
                };
            }
            meant.extend(at.filter(|message| !meant.contains(message)));
        }
        meant
    }

    /// The indexes that are written in front of a message, as Java's serialiser counts them.
    pub(super) fn indexes(&self, message: &MessageDescriptor) -> Option<Vec<i64>> {
        let place = |mut among: Box<dyn Iterator<Item = MessageDescriptor> + '_>, of: &MessageDescriptor| {
            among.position(|other| other == *of).map(|at| at as i64)
        };
        let mut indexes = Vec::new();
        let mut at = message.clone();
        while let Some(parent) = at.parent_message() {
            indexes.push(place(Box::new(parent.child_messages().filter(|m| !m.is_map_entry())), &at)?);
            at = parent;
        }
        indexes.push(place(Box::new(self.root.messages()), &at)?);
        indexes.reverse();
        Some(indexes)
    }

    /// The comments in front of messages and fields.
    pub(super) fn comments(&self) -> Comments {
        let mut by_place = HashMap::new();
        for file in self.pool.files() {
            let proto = file.file_descriptor_proto();
            for location in proto.source_code_info.iter().flat_map(|info| &info.location) {
                let text = location.leading_comments.as_deref().or(location.trailing_comments.as_deref());
                let text = text.map(str::trim).filter(|text| !text.is_empty());
                if let Some(text) = text {
                    let lines: Vec<&str> = text.lines().map(str::trim).collect();
                    by_place.insert((file.name().to_owned(), location.path.clone()), lines.join(" "));
                }
            }
        }
        Comments { by_place }
    }
}

/// What a schema says in comments, by file and path there.
#[derive(Debug)]
pub(super) struct Comments {
    by_place: HashMap<(String, Vec<i32>), String>,
}

impl Comments {
    /// Of a message (the empty path) and of the fields in it, by dotted path.
    pub(super) fn of(&self, message: &MessageDescriptor) -> BTreeMap<String, String> {
        let mut told = BTreeMap::new();
        if let Some(text) = self.at(message.parent_file().name(), message.path()) {
            told.insert(String::new(), text.clone());
        }
        self.fields(message, "", &mut Vec::new(), &mut told);
        told
    }

    fn fields(
        &self,
        message: &MessageDescriptor,
        path: &str,
        open: &mut Vec<String>,
        told: &mut BTreeMap<String, String>,
    ) {
        if open.len() >= MAX_DEPTH || open.iter().any(|name| name == message.full_name()) {
            return;
        }
        open.push(message.full_name().to_owned());
        for field in message.fields() {
            let path = joined(path, field.name());
            if let Some(text) = self.at(message.parent_file().name(), field.path()) {
                told.insert(path.clone(), text.clone());
            }
            if let (Kind::Message(child), false) = (field.kind(), field.is_map()) {
                self.fields(&child, &path, open, told);
            }
        }
        open.pop();
    }

    fn at(&self, file: &str, path: &[i32]) -> Option<&String> {
        self.by_place.get(&(file.to_owned(), path.to_vec()))
    }
}

pub(super) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn listed(messages: &[MessageDescriptor]) -> String {
    messages.iter().map(|message| format!("`{}`", message.full_name())).collect::<Vec<_>>().join(", ")
}

/// Full names of the messages that fields of a message are, itself left out.
fn parts(message: &MessageDescriptor) -> Vec<String> {
    let mut found = HashSet::new();
    let mut open = vec![message.clone()];
    while let Some(next) = open.pop() {
        for field in next.fields() {
            if let Kind::Message(part) = field.kind()
                && found.insert(part.full_name().to_owned())
            {
                open.push(part);
            }
        }
    }
    found.remove(message.full_name());
    found.into_iter().collect()
}

/// Why what a writer wrote cannot be read by the columns' schema, if it cannot: what has changed beyond what the wire format bears.
pub(super) fn conflict(
    reader: &MessageDescriptor,
    writer: &MessageDescriptor,
    path: &str,
    seen: &mut HashSet<(String, String)>,
) -> Option<String> {
    if !seen.insert((reader.full_name().to_owned(), writer.full_name().to_owned())) {
        return None;
    }
    reader.fields().find_map(|read| {
        let path = joined(path, read.name());
        match writer.get_field(read.number()) {
            Some(written) => field_conflict(&read, &written, &path, seen),
            None if read.is_required() => {
                Some(format!("field {path}: it is required, and the writer has none"))
            }
            None => None,
        }
    })
}

fn field_conflict(
    read: &FieldDescriptor,
    written: &FieldDescriptor,
    path: &str,
    seen: &mut HashSet<(String, String)>,
) -> Option<String> {
    use Kind::*;
    let shape = |field: &FieldDescriptor| match field {
        field if field.is_map() => "a map",
        field if field.is_list() => "repeated",
        _ => "single",
    };
    let (reader, writer) = (shape(read), shape(written));
    if reader != writer && (reader, writer) != ("repeated", "single") {
        return Some(format!("field {path}: the writer's is {writer}, the columns' schema's {reader}"));
    }
    match (read.kind(), written.kind()) {
        (Message(reader), Message(writer)) => {
            if is_special(&reader) != is_special(&writer)
                || (is_special(&reader) && reader.full_name() != writer.full_name())
            {
                return Some(format!(
                    "field {path}: the writer's is {}, the columns' schema's {}",
                    writer.full_name(),
                    reader.full_name()
                ));
            }
            conflict(&reader, &writer, path, seen)
        }
        (Enum(reader), Enum(writer)) => writer.values().find_map(|value| {
            let there =
                reader.values().any(|other| other.number() == value.number() && other.name() == value.name());
            let other = reader.get_value(value.number()).filter(|_| !there)?;
            Some(format!(
                "field {path}: {} is `{}` to the writer and `{}` to the columns' schema",
                value.number(),
                value.name(),
                other.name()
            ))
        }),
        (reader, writer) if reader == writer => None,
        // What is wider, and written in the same way.
        (Int64, Int32)
        | (Uint64 | Int64, Uint32)
        | (Sint64, Sint32)
        | (Bytes, String)
        | (Int32 | Int64, Enum(_)) => None,
        (Int32 | Int64 | Uint32 | Uint64, Bool) => None,
        (reader, writer) => {
            Some(format!("field {path}: the writer's is {writer:?}, the columns' schema's {reader:?}"))
        }
    }
}

/// Whether a message is a value of its own, not a struct of its fields.
fn is_special(message: &MessageDescriptor) -> bool {
    matches!(message.full_name(), "google.protobuf.Timestamp" | "google.type.Date" | "google.type.TimeOfDay")
        || is_json(message)
        || wrapped(message).is_some()
}

/// Whether a message is any JSON value.
pub(super) fn is_json(message: &MessageDescriptor) -> bool {
    matches!(
        message.full_name(),
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue"
    )
}

/// What is inside of a message that is there to make one value nullable.
pub(super) fn wrapped(message: &MessageDescriptor) -> Option<Kind> {
    let name = message.full_name().strip_prefix("google.protobuf.")?.strip_suffix("Value")?;
    let known = ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"];
    let inside = message.get_field(1).filter(|field| !field.is_list()).map(|field| field.kind());
    inside.filter(|kind| known.contains(&name) && !matches!(kind, Kind::Message(_) | Kind::Enum(_)))
}
