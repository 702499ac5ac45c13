//! Reading a pipeline file: every mistake at once, each with its line and what was probably meant.

use std::fmt;
use std::path::{Path, PathBuf};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::file::{Format, GroupProtocol, PipelineFile};
use crate::secret::Reference;

/// The largest pipeline file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The deepest nesting that is read; no pipeline needs half of it.
const MAX_DEPTH: usize = 64;

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The field, such as `sink.files.rotate.age`; empty for the file itself.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// All mistakes of a file; never empty.
#[derive(Clone, Debug)]
pub struct Problems {
    file: PathBuf,
    list: Vec<Problem>,
}

impl Problems {
    /// The mistakes in the order of their lines.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }
}

/// `file:line:column: field: message`, a line each, as compilers print.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if p.line > 0 {
                write!(f, ":{}:{}", p.line, p.column)?;
            }
            if !p.field.is_empty() {
                write!(f, ": {}", p.field)?;
            }
            write!(f, ": {}", p.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A checked pipeline file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checked {
    /// What the file says.
    pub pipeline: PipelineFile,
    /// The file's folder, to which its paths are relative.
    pub base: PathBuf,
}

impl Checked {
    /// A path of the file, made absolute against the file's folder.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }
}

/// The JSON Schema of a pipeline file.
pub fn schema() -> Value {
    let mut schema = Value::from(schemars::schema_for!(PipelineFile));
    describe(&mut schema);
    schema
}

/// Descriptions come from doc comments, wrapped for the source: one line a paragraph reads better.
fn describe(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(text) if key == "description" => *text = text.replace('\n', " "),
                    other => describe(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(describe),
        _ => {}
    }
}

/// Reads and checks the pipeline file at `path`.
///
/// # Errors
/// [`Problems`] with every mistake found.
pub fn check(path: &Path) -> Result<Checked, Problems> {
    let text = read(path)?;
    check_text(path, &text)
}

fn read(path: &Path) -> Result<String, Problems> {
    let whole = |message: String| Problems {
        file: path.into(),
        list: vec![Problem { line: 0, column: 0, field: String::new(), message }],
    };
    let size = std::fs::metadata(path).map_err(|e| whole(format!("cannot be read: {e}")))?.len();
    if size > MAX_FILE {
        return Err(whole(format!("has {size} bytes; a pipeline file has {MAX_FILE} at most")));
    }
    std::fs::read_to_string(path).map_err(|e| whole(format!("cannot be read: {e}")))
}

fn check_text(path: &Path, text: &str) -> Result<Checked, Problems> {
    let document = Document::parse(path, text)?;
    let pipeline: PipelineFile = document.typed(&schema())?;
    let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let checked = Checked { pipeline, base };
    let mut problems = Vec::new();
    contradictions(&checked, &mut |pointer, message| problems.push(document.problem(pointer, message)));
    document.finish(problems)?;
    Ok(checked)
}

/// What a schema cannot say: fields that exclude each other, files that must be there, secrets that must
/// resolve.
fn contradictions(checked: &Checked, report: &mut dyn FnMut(&str, String)) {
    let p = &checked.pipeline;
    let decode = &p.decode;
    match decode.format {
        Format::Json => {
            match &decode.fields {
                None => report(
                    "/decode",
                    "`json` needs `fields`: the columns and their types, such as `order_id: string not null`"
                        .into(),
                ),
                Some(fields) => {
                    for mistake in fields.arrow_schema().err().unwrap_or_default() {
                        // `customer.email`, `lines[].sku`
                        let pointer = mistake
                            .path
                            .split('.')
                            .filter(|step| !step.is_empty())
                            .map(|step| format!("/{}", escape(step.trim_end_matches("[]"))))
                            .collect::<String>();
                        report(&format!("/decode/fields{pointer}"), mistake.message);
                    }
                }
            }
            for (set, name) in
                [(decode.subject.is_some(), "subject"), (decode.schema_file.is_some(), "schema_file")]
            {
                if set {
                    report(
                        &format!("/decode/{name}"),
                        format!("`{name}` belongs to `format: avro`; remove it"),
                    );
                }
            }
        }
        Format::Avro => {
            if decode.fields.is_some() {
                report(
                    "/decode/fields",
                    "`fields` belongs to `format: json`; Avro's columns come from the schema".into(),
                );
            }
            if p.schema_registry.is_none() {
                report(
                    "/decode/format",
                    "`avro` needs `schema_registry`: records name their schema by its id there".into(),
                );
            }
            if decode.subject.is_some() && decode.schema_file.is_some() {
                report(
                    "/decode/schema_file",
                    "`subject` and `schema_file` exclude each other; keep one".into(),
                );
            }
            if decode.subject.is_none() && decode.schema_file.is_none() && p.source.kafka.topics.len() > 1 {
                report(
                    "/decode",
                    "several topics need `subject` or `schema_file`: one pipeline has one set of columns"
                        .into(),
                );
            }
            if let Some(file) = &decode.schema_file {
                must_exist(checked, "/decode/schema_file", file, report);
            }
        }
        Format::Bytes => {
            for (set, name) in [
                (decode.fields.is_some(), "fields"),
                (decode.subject.is_some(), "subject"),
                (decode.schema_file.is_some(), "schema_file"),
            ] {
                if set {
                    report(
                        &format!("/decode/{name}"),
                        format!("`{name}` has no meaning for `format: bytes`; remove it"),
                    );
                }
            }
        }
    }
    if let (Some(fields), true) = (&decode.fields, decode.kafka_columns) {
        for (name, _) in fields.fields().filter(|(name, _)| name.starts_with("_kafka_")) {
            let text = "names that begin with `_kafka_` are Gristmill's own; rename the field, or write `kafka_columns: false`";
            report(&format!("/decode/fields/{}", escape(name)), text.into());
        }
    }
    for (i, topic) in p.source.kafka.topics.iter().enumerate() {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(legal) {
            let text = "is not a topic's name (letters, digits, `.`, `_`, `-`); patterns are not supported, list the topics";
            report(&format!("/source/kafka/topics/{i}"), format!("`{topic}` {text}"));
        }
    }
    for (pointer, zero) in [
        ("/sink/files/rotate/age", p.sink.files.rotate.age.0 == 0),
        ("/sink/files/rotate/bytes", p.sink.files.rotate.bytes.0 == 0),
    ] {
        if zero {
            report(pointer, "must be above 0".into());
        }
    }
    for (i, step) in p.transforms.iter().enumerate() {
        must_exist(checked, &format!("/transforms/{i}/wasm"), &step.wasm, report);
    }
    if let Some(dead) = &p.dead_letters {
        match (&dead.folder, &dead.topic) {
            (None, None) => report("/dead_letters", "name a `folder` or a `topic`".into()),
            (Some(_), Some(_)) => {
                report("/dead_letters/topic", "`folder` and `topic` exclude each other; keep one".into())
            }
            (Some(folder), None) if checked.path(folder) == checked.path(&p.sink.files.folder) => {
                report(
                    "/dead_letters/folder",
                    "is the sink's folder: who reads the rows would find dead letters; name another".into(),
                );
            }
            (None, Some(topic)) if p.source.kafka.topics.contains(topic) => {
                report(
                    "/dead_letters/topic",
                    format!("`{topic}` is read by this pipeline: its dead letters would come back for ever"),
                );
            }
            _ => {}
        }
    }
    let mut topics = p.source.kafka.topics.iter().enumerate().collect::<Vec<_>>();
    topics.sort_by_key(|(_, name)| *name);
    for pair in topics.windows(2) {
        if pair[0].1 == pair[1].1 {
            let at = pair[0].0.max(pair[1].0);
            report(&format!("/source/kafka/topics/{at}"), format!("`{}` is named twice", pair[0].1));
        }
    }
    for (key, value) in &p.source.kafka.properties {
        let pointer = format!("/source/kafka/properties/{}", escape(key));
        if let Some(field) = owned_property(key) {
            report(&pointer, format!("this property belongs to Gristmill; {field}"));
        }
        secret_resolves(checked, &pointer, value, report);
    }
    if p.source.kafka.session_timeout.is_some() && p.source.kafka.group_protocol == GroupProtocol::Consumer {
        let text = "with `group_protocol: consumer` the broker sets it; remove it";
        report("/source/kafka/session_timeout", text.into());
    }
    if let Some(registry) = &p.schema_registry {
        for (name, value) in [("password", &registry.password), ("bearer_token", &registry.bearer_token)] {
            if let Some(value) = value {
                secret_resolves(checked, &format!("/schema_registry/{name}"), value, report);
            }
        }
        if registry.password.is_some() != registry.username.is_some() {
            report("/schema_registry", "`username` and `password` go together".into());
        }
        if registry.bearer_token.is_some() && registry.username.is_some() {
            report(
                "/schema_registry/bearer_token",
                "`bearer_token` and `username` exclude each other; keep one".into(),
            );
        }
        for url in registry.url.split(',') {
            if !url.trim().starts_with("http://") && !url.trim().starts_with("https://") {
                report(
                    "/schema_registry/url",
                    format!("`{}` must begin with http:// or https://", url.trim()),
                );
            }
        }
    }
    if let Some(http) = &p.http
        && http.listen.parse::<std::net::SocketAddr>().is_err()
    {
        report(
            "/http/listen",
            format!("`{}` is not an address and port, such as `127.0.0.1:9600`", http.listen),
        );
    }
    if let Some(template) = &p.sink.files.directories
        && let Err(error) = gristmill_sinks::DirectoryTemplate::parse(template)
    {
        report("/sink/files/directories", error.to_string());
    }
}

/// Which pipeline field says what a librdkafka property would say.
fn owned_property(key: &str) -> Option<&'static str> {
    Some(match key {
        "bootstrap.servers" | "metadata.broker.list" => "write `source.kafka.bootstrap_servers`",
        "group.id" => "write `source.kafka.group`",
        "group.protocol" | "partition.assignment.strategy" => "write `source.kafka.group_protocol`",
        "session.timeout.ms" => "write `source.kafka.session_timeout`",
        "auto.offset.reset" => "write `source.kafka.start`",
        "isolation.level" => "write `source.kafka.isolation`",
        "enable.auto.commit" | "enable.auto.offset.store" | "auto.commit.interval.ms" => {
            "offsets are committed when their files are published; remove it"
        }
        "queued.max.messages.kbytes"
        | "queued.min.messages"
        | "fetch.message.max.bytes"
        | "max.partition.fetch.bytes"
        | "fetch.max.bytes" => "write `memory`",
        _ => return None,
    })
}

fn must_exist(checked: &Checked, pointer: &str, path: &Path, report: &mut dyn FnMut(&str, String)) {
    let path = checked.path(path);
    if !path.is_file() {
        report(pointer, format!("there is no file {}", path.display()));
    }
}

fn secret_resolves(
    checked: &Checked,
    pointer: &str,
    value: &Reference,
    report: &mut dyn FnMut(&str, String),
) {
    if let Err(error) = value.resolve(&checked.base) {
        report(pointer, error);
    }
}

fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// A YAML document as JSON, with the place of each value.
pub(crate) struct Document {
    file: PathBuf,
    value: Value,
    /// JSON pointer -> (line, column). A few hundred at most: a scan is fine.
    places: Vec<(String, (usize, usize))>,
}

impl Document {
    pub(crate) fn load(path: &Path) -> Result<Document, Problems> {
        Document::parse(path, &read(path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Document, Problems> {
        let fail = |line, column, message: String| Problems {
            file: path.into(),
            list: vec![Problem { line, column, field: String::new(), message }],
        };
        let documents = MarkedYaml::load_from_str(text).map_err(|e| {
            fail(e.marker().line(), e.marker().col() + 1, format!("is not YAML: {}", e.info()))
        })?;
        let [root] = &documents[..] else {
            let message = match documents.len() {
                0 => "is empty".to_owned(),
                n => format!("holds {n} documents; a pipeline file holds one"),
            };
            return Err(fail(0, 0, message));
        };
        let mut document = Document { file: path.into(), value: Value::Null, places: Vec::new() };
        let mut problems = Vec::new();
        document.value = document.convert(root, String::new(), 0, &mut problems);
        document.finish(problems)?;
        Ok(document)
    }

    fn convert(
        &mut self,
        node: &MarkedYaml<'_>,
        at: String,
        depth: usize,
        problems: &mut Vec<Problem>,
    ) -> Value {
        let place = (node.span.start.line(), node.span.start.col() + 1);
        if !self.places.iter().any(|(p, _)| *p == at) {
            self.places.push((at.clone(), place));
        }
        let mut refuse = |message: &str| {
            problems.push(Problem {
                line: place.0,
                column: place.1,
                field: dotted(&at),
                message: message.into(),
            });
            Value::Null
        };
        if depth > MAX_DEPTH {
            return refuse("is nested too deeply");
        }
        match &node.data {
            YamlData::Value(scalar) => match scalar {
                Scalar::Null => Value::Null,
                Scalar::Boolean(b) => Value::Bool(*b),
                Scalar::Integer(i) => Value::from(*i),
                Scalar::FloatingPoint(f) => match serde_json::Number::from_f64(f.into_inner()) {
                    Some(number) => Value::Number(number),
                    None => refuse("is not a finite number"),
                },
                Scalar::String(s) => Value::String(s.to_string()),
            },
            YamlData::Sequence(items) => Value::Array(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.convert(item, format!("{at}/{i}"), depth + 1, problems))
                    .collect(),
            ),
            YamlData::Mapping(map) => {
                let mut object = Map::new();
                for (key, value) in map {
                    let name = match &key.data {
                        YamlData::Value(Scalar::String(s)) => s.to_string(),
                        YamlData::Value(Scalar::Integer(i)) => i.to_string(),
                        YamlData::Value(Scalar::Boolean(b)) => b.to_string(),
                        _ => {
                            problems.push(Problem {
                                line: key.span.start.line(),
                                column: key.span.start.col() + 1,
                                field: dotted(&at),
                                message: "a key must be text".into(),
                            });
                            continue;
                        }
                    };
                    let here = format!("{at}/{}", escape(&name));
                    // A mistake in a field is shown at its name.
                    self.places.push((here.clone(), (key.span.start.line(), key.span.start.col() + 1)));
                    let value = self.convert(value, here, depth + 1, problems);
                    object.insert(name, value);
                }
                Value::Object(object)
            }
            YamlData::Tagged(tag, _) => refuse(&format!("has the tag `{tag:?}`; tags have no meaning here")),
            _ => refuse("is an alias or not a YAML value that has a meaning here"),
        }
    }

    /// Checks against `schema`, then reads as `T`.
    pub(crate) fn typed<T: DeserializeOwned>(&self, schema: &Value) -> Result<T, Problems> {
        let validator: Validator =
            jsonschema::validator_for(schema).expect("our own schema is a JSON Schema; a test reads it");
        let mut problems = Vec::new();
        for error in validator.iter_errors(&self.value) {
            self.explain(&error, schema, &mut problems);
        }
        self.finish(problems)?;
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let pointer: String =
                error.path().iter().map(|s| format!("/{}", escape(&s.to_string()))).collect();
            Problems {
                file: self.file.clone(),
                list: vec![self.problem(&pointer, error.inner().to_string())],
            }
        })
    }

    fn explain(&self, error: &ValidationError<'_>, schema: &Value, problems: &mut Vec<Problem>) {
        let at = error.instance_path().as_str().to_owned();
        match error.kind() {
            // An optional section is "null or that section": what is wrong inside the section is meant.
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                let choices = choices(context);
                if !choices.is_empty() {
                    let choices: Vec<&str> = choices.iter().map(String::as_str).collect();
                    problems.push(self.problem(&at, one_of(error.instance(), &choices)));
                    return;
                }
                let inner = context.iter().find(|branch| {
                    !branch.iter().any(|e| {
                        matches!(e.kind(), ValidationErrorKind::Type { .. })
                            && e.instance_path().as_str() == at
                    })
                });
                match inner.or(context.first()) {
                    Some(branch) => branch.iter().for_each(|e| self.explain(e, schema, problems)),
                    None => problems.push(self.problem(&at, error.to_string())),
                }
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = known_fields(error, schema);
                for name in unexpected {
                    let pointer = format!("{at}/{}", escape(name));
                    let message = match nearest(name, known.iter().map(String::as_str)) {
                        Some(meant) => format!("there is no such field; did you mean `{meant}`?"),
                        None => format!("there is no such field; here stand {}", known.join(", ")),
                    };
                    problems.push(self.problem(&pointer, message));
                }
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                problems.push(self.problem(&at, format!("`{name}` is missing")));
            }
            ValidationErrorKind::Enum { options } => {
                let options: Vec<&str> =
                    options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                problems.push(self.problem(&at, one_of(error.instance(), &options)));
            }
            ValidationErrorKind::Type { kind } => {
                let wanted = match kind {
                    TypeKind::Single(t) => t.to_string(),
                    TypeKind::Multiple(types) => types
                        .iter()
                        .map(|t| t.to_string())
                        .filter(|t| t != "null")
                        .collect::<Vec<_>>()
                        .join(" or "),
                };
                let wanted = match &wanted[..] {
                    "object" => "fields (name: value)".to_owned(),
                    "array" => "a list".to_owned(),
                    "string" => "text".to_owned(),
                    "boolean" => "true or false".to_owned(),
                    "integer" => "a whole number".to_owned(),
                    "number" => "a number".to_owned(),
                    other => other.to_owned(),
                };
                let got = match &**error.instance() {
                    Value::Null => "nothing",
                    Value::Bool(_) => "true or false",
                    Value::Number(_) => "a number",
                    Value::String(_) => "text",
                    Value::Array(_) => "a list",
                    Value::Object(_) => "fields",
                };
                problems.push(self.problem(&at, format!("must be {wanted}, is {got}")));
            }
            ValidationErrorKind::Pattern { .. } => {
                problems.push(self.problem(&at, explain_pattern(error, schema)));
            }
            ValidationErrorKind::MinItems { .. } => problems.push(self.problem(&at, "is empty".into())),
            ValidationErrorKind::MaxItems { limit } => {
                problems.push(self.problem(&at, format!("takes {limit} at most for now")));
            }
            _ => problems.push(self.problem(&at, error.to_string())),
        }
    }

    pub(crate) fn problem(&self, pointer: &str, message: String) -> Problem {
        // Where the field itself is missing, its parent's place is the nearest.
        let mut at = pointer;
        let (line, column) = loop {
            if let Some((_, place)) = self.places.iter().find(|(p, _)| p == at) {
                break *place;
            }
            match at.rfind('/') {
                Some(i) => at = &at[..i],
                None => break (0, 0),
            }
        };
        Problem { line, column, field: dotted(pointer), message }
    }

    /// `Ok` without problems.
    pub(crate) fn finish(&self, mut problems: Vec<Problem>) -> Result<(), Problems> {
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by(|a, b| (a.line, a.column, &a.field).cmp(&(b.line, b.column, &b.field)));
        problems.dedup();
        Err(Problems { file: self.file.clone(), list: problems })
    }
}

fn dotted(pointer: &str) -> String {
    let steps = pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~"));
    let mut out = String::new();
    for step in steps {
        if step.bytes().all(|b| b.is_ascii_digit()) && !step.is_empty() {
            out.push_str(&format!("[{step}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&step);
        }
    }
    out
}

/// The words of an enum, whose schema is one branch a word; empty for any other choice.
fn choices(branches: &[Vec<ValidationError<'_>>]) -> Vec<String> {
    let mut words = Vec::new();
    for branch in branches {
        match branch.first().map(|e| e.kind()) {
            Some(ValidationErrorKind::Constant { expected_value }) => {
                words.extend(expected_value.as_str().map(str::to_owned));
            }
            _ => return Vec::new(),
        }
    }
    words
}

fn known_fields(error: &ValidationError<'_>, schema: &Value) -> Vec<String> {
    let path = error.schema_path().as_str().to_owned();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    resolve_path(parent, schema)
        .and_then(|s| s.get("properties"))
        .and_then(Value::as_object)
        .map(|p| p.keys().cloned().collect())
        .unwrap_or_default()
}

/// Follows a schema path, through references.
fn resolve_path<'s>(path: &str, schema: &'s Value) -> Option<&'s Value> {
    let mut node = schema;
    for step in path.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        node = if step == "$ref" {
            schema.pointer(node.get("$ref")?.as_str()?.strip_prefix('#')?)?
        } else {
            match node {
                Value::Object(map) => map.get(&step)?,
                Value::Array(items) => items.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            }
        };
    }
    Some(node)
}

fn explain_pattern(error: &ValidationError<'_>, schema: &Value) -> String {
    let path = error.schema_path().as_str().to_owned();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let subschema = resolve_path(parent, schema);
    let text = error.instance().as_str().unwrap_or_default().to_owned();
    let title = subschema.and_then(|s| s.get("title")).and_then(Value::as_str);
    let example = subschema.and_then(|s| s.pointer("/examples/0")).and_then(Value::as_str);
    match (title, example) {
        (Some(title), Some(example)) => format!("`{text}` is not a {title}, such as `{example}`"),
        _ => match error.kind() {
            ValidationErrorKind::Pattern { pattern } => format!("`{text}` does not match {pattern}"),
            _ => error.to_string(),
        },
    }
}

fn one_of(value: &Value, options: &[&str]) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = options.join(", ");
    match nearest(&text, options.iter().copied()) {
        Some(meant) => format!("`{text}` is none of {list}; did you mean `{meant}`?"),
        None => format!("`{text}` is none of {list}"),
    }
}

/// The known name that was probably meant, if one is near.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::damerau_levenshtein(&name.to_lowercase(), k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}
