//! A YAML document that keeps the place of every value, and the mistakes that are found in it.

use std::fmt;
use std::path::{Path, PathBuf};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

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

/// A step of a JSON pointer.
pub(crate) fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// A YAML document as JSON, with the place of each value.
pub(crate) struct Document {
    file: PathBuf,
    value: Value,
    /// JSON pointer -> (line, column). A few hundred at most: a scan is fine.
    places: Vec<(String, (usize, usize))>,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it says may be a secret.
        f.debug_struct("Document").field("file", &self.file).finish_non_exhaustive()
    }
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
            ValidationErrorKind::MinProperties { limit } => {
                let text = match limit {
                    1 => "is empty: it says nothing".to_owned(),
                    limit => format!("has fewer than {limit} fields: it says too little"),
                };
                problems.push(self.problem(&at, text));
            }
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
