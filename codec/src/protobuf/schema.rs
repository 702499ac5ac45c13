//! Protobuf schemas as registries and files have them, and what of them says which columns there are.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use prost::Message as _;
use prost_reflect::{DescriptorPool, FileDescriptor, Kind, MessageDescriptor};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::error::{Error, ErrorKind, Result, joined};

/// What a schema is called, to itself, which no import is; imports have the names by which it imports them.
const OWN_NAME: &str = "<schema>";
/// Of all texts together.
const MAX_TEXT: usize = 8 << 20;
/// How deep brackets may nest: the compiler goes down with them on the stack.
const MAX_BRACKETS: usize = 64;
/// Files that a schema may import, and they.
const MAX_IMPORTS: usize = 256;
/// Ways by which public imports may lead to files.
const MAX_WAYS: u64 = 10_000;
/// What the compiler gets for all of that, in bytes.
const STACK: usize = 16 << 20;
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
    if imports.len() > MAX_IMPORTS {
        return Err(invalid(format!("the schema has more than {MAX_IMPORTS} imports")));
    }
    with_stack(|| compiled(schema, imports))?
}

fn compiled(schema: &str, imports: HashMap<String, String>) -> Result<String> {
    let root = file(OWN_NAME, schema).map_err(|e| invalid(told(&e)))?;
    is_read(root.file_descriptor_proto())?;
    let parsed = imports.iter().filter_map(|(name, text)| file(name, text).ok());
    let parsed: Vec<File> = parsed.chain([root.clone()]).collect();
    has_few_ways(parsed.iter().map(File::file_descriptor_proto))?;
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

/// How deep brackets nest, at most; not those in comments and strings.
fn deepest(text: &str) -> usize {
    let (mut open, mut most) = (0usize, 0);
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = match (byte, after.first()) {
            (b'/', Some(b'/')) => behind(after, b"\n"),
            (b'/', Some(b'*')) => behind(&after[1..], b"*/"),
            (b'"' | b'\'', _) => behind_string(after, *byte),
            _ => after,
        };
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

fn behind<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    let found = text.windows(end.len()).position(|window| window == end);
    found.map_or(&[], |at| &text[at + end.len()..])
}

/// Strings end in their line.
fn behind_string(text: &[u8], quote: u8) -> &[u8] {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'\n' => return &text[at..],
            byte if byte == quote => return &text[at + 1..],
            _ => at += 1,
        }
    }
    &[]
}

/// Runs what goes down on the stack with schemas where there is enough of it.
fn with_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run);
        let thread =
            thread.map_err(|e| Error::new(ErrorKind::Internal, format!("no thread for a schema: {e}")))?;
        thread
            .join()
            .map_err(|_| Error::new(ErrorKind::Internal, "the compiler of Protobuf schemas panicked"))
    })
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
        let file = file(name, text)?;
        is_read(file.file_descriptor_proto()).map_err(protox::Error::new)?;
        Ok(file)
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

/// Whether prost-reflect reads a file's syntax: of others it panics.
fn is_read(file: &FileDescriptorProto) -> Result<()> {
    match file.syntax() {
        "" | "proto2" | "proto3" => Ok(()),
        other => {
            Err(invalid(format!("{} has the syntax `{other}`; proto2 and proto3 are read here", file.name())))
        }
    }
}

/// That files import others publicly in few ways: names are looked for in each of them.
fn has_few_ways<'a>(files: impl Iterator<Item = &'a FileDescriptorProto>) -> Result<()> {
    fn ways<'a>(
        name: &'a str,
        files: &HashMap<&'a str, Vec<&'a str>>,
        known: &mut HashMap<&'a str, u64>,
    ) -> u64 {
        if let Some(ways) = known.get(name) {
            return *ways;
        }
        // A circle is refused later.
        known.insert(name, 1);
        let through = files.get(name).into_iter().flatten();
        let ways = through.fold(1u64, |sum, import| sum.saturating_add(ways(import, files, known)));
        known.insert(name, ways);
        ways
    }
    let public = |file: &'a FileDescriptorProto| {
        let at = file.public_dependency.iter().filter_map(|at| usize::try_from(*at).ok());
        let imports = at.filter_map(|at| file.dependency.get(at)).map(String::as_str).collect();
        (file.name(), imports)
    };
    let files: HashMap<&str, Vec<&str>> = files.map(public).collect();
    if files.len() > 2 * MAX_IMPORTS {
        return Err(invalid(format!("the schema has more than {MAX_IMPORTS} imports")));
    }
    let mut known = HashMap::new();
    match files.keys().map(|name| ways(name, &files, &mut known)).max() {
        Some(most) if most > MAX_WAYS => {
            Err(invalid("its `import public` lead to one file by thousands of ways".to_owned()))
        }
        _ => Ok(()),
    }
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
        let files = FileDescriptorSet::decode(&*set).map_err(|e| invalid(e.to_string()))?.file;
        files.iter().try_for_each(is_read)?;
        with_stack(|| has_few_ways(files.iter()))??;
        let root = files.last().and_then(|file| file.name.clone()).unwrap_or_default();
        let pool = with_stack(|| DescriptorPool::decode(&*set))?.map_err(broken)?;
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
            several => Err(invalid(format!(
                "it has several messages, so that it does not say which one records are: {}; give `message`",
                listed(several)
            ))),
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
            // A map's message is never a record.
            meant.extend(at.filter(|message| !message.is_map_entry() && !meant.contains(message)));
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

fn listed(messages: &[MessageDescriptor]) -> String {
    messages.iter().map(|message| format!("`{}`", message.full_name())).collect::<Vec<_>>().join(", ")
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
