use serde::Serialize;
use serde_json::Value;

use crate::contract;
use crate::contract::types;

const MAX_SCHEMA: usize = 256 * 1024;
const MAX_TEXT: usize = 4096;
const MAX_OUTPUTS: usize = 255;
const MAX_COLUMNS: usize = 10_000;

/// What a transform says of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Its name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Its version, in the author's own scheme.
    pub version: String,
    /// What it does, in a sentence or two.
    pub description: String,
    /// JSON Schema (2020-12) of its configuration; fields with `"writeOnly": true` are secrets.
    pub config_schema: Value,
    /// Outputs besides `main`. `main` is output 0, the first of these is output 1.
    pub outputs: Vec<Output>,
    /// Which parts of a record it gets.
    pub reads: Reads,
    /// The columns that a transform of columns needs whatever its configuration says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnNeed>,
}

/// A column that a transform reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnNeed {
    /// The path, dotted: `customer.email`.
    pub path: String,
    /// The type, in words.
    pub data_type: String,
    /// Whether the transform refuses to work without it.
    pub required: bool,
}

/// A declared output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// The name that a pipeline file routes by.
    pub name: String,
    /// What goes there.
    pub description: String,
}

/// Which parts of a record a transform gets; the others read as null, empty or absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Reads {
    pub keys: bool,
    pub values: bool,
    pub headers: bool,
    pub timestamps: bool,
    pub offsets: bool,
}

impl Manifest {
    /// The number of an output by its name; `main` is 0.
    pub fn output(&self, name: &str) -> Option<u16> {
        if name == "main" {
            return Some(0);
        }
        self.outputs.iter().position(|o| o.name == name).map(|i| i as u16 + 1)
    }

    /// The name of an output by its number; 0 is `main`.
    pub fn output_name(&self, output: u16) -> Option<&str> {
        match output.checked_sub(1) {
            None => Some("main"),
            Some(i) => self.outputs.get(usize::from(i)).map(|o| o.name.as_str()),
        }
    }

    /// Checks what the guest said; the text of a refusal comes from here, the place from the caller.
    pub(crate) fn read(m: contract::Manifest) -> Result<Self, String> {
        if !is_name(&m.name) {
            return Err(format!(
                "its name {:?} is not 1 to 64 letters, digits, `-`, `_` or `.`",
                shorten(&m.name)
            ));
        }
        for (what, text) in [("version", &m.version), ("description", &m.description)] {
            if text.len() > MAX_TEXT {
                return Err(format!("its {what} has {} bytes, {MAX_TEXT} are allowed", text.len()));
            }
        }
        if m.outputs.len() > MAX_OUTPUTS {
            return Err(format!("it declares {} outputs, {MAX_OUTPUTS} are allowed", m.outputs.len()));
        }
        let mut outputs: Vec<Output> = Vec::new();
        for output in m.outputs {
            if !is_name(&output.name) || output.name == "main" {
                return Err(format!(
                    "the output name {:?} is not 1 to 64 letters, digits, `-`, `_` or `.`, or it is `main`, which is \
                     always there",
                    shorten(&output.name)
                ));
            }
            if outputs.iter().any(|o| o.name == output.name) {
                return Err(format!("the output {} is declared twice", output.name));
            }
            outputs.push(Output { name: output.name, description: shorten(&output.description).to_owned() });
        }
        if m.config_schema.len() > MAX_SCHEMA {
            return Err(format!(
                "its config-schema has {} bytes, {MAX_SCHEMA} are allowed",
                m.config_schema.len()
            ));
        }
        let config_schema: Value = serde_json::from_str(&m.config_schema)
            .map_err(|e| format!("its config-schema is not JSON: {e}"))?;
        if !config_schema.is_object() {
            return Err("its config-schema is not a JSON object".into());
        }
        let reads = Reads {
            keys: m.reads.contains(types::Reads::KEYS),
            values: m.reads.contains(types::Reads::VALUES),
            headers: m.reads.contains(types::Reads::HEADERS),
            timestamps: m.reads.contains(types::Reads::TIMESTAMPS),
            offsets: m.reads.contains(types::Reads::OFFSETS),
        };
        if m.columns.len() > MAX_COLUMNS {
            return Err(format!("it names {} columns, {MAX_COLUMNS} are allowed", m.columns.len()));
        }
        let columns = m.columns.into_iter().map(|need| ColumnNeed {
            path: shorten(&need.path).to_owned(),
            data_type: shorten(&need.data_type).to_owned(),
            required: need.required,
        });
        Ok(Manifest {
            columns: columns.collect(),
            name: m.name,
            version: m.version,
            description: m.description,
            config_schema,
            outputs,
            reads,
        })
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn shorten(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    &text[..end]
}
