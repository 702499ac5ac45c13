//! Schemas, and how they refer to each other.

use std::collections::HashMap;

use serde_json::Value;

use super::invalid;
use crate::error::Result;

/// Of all texts together.
const MAX_TEXT: usize = 8 << 20;

/// The schema, and those that it refers to.
pub(super) struct Documents {
    pub(super) all: Vec<Value>,
    pub(super) by_name: HashMap<String, usize>,
}

impl Documents {
    pub(super) fn parse<'a>(
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

    pub(super) fn root(&self) -> At<'_> {
        At { document: 0, base: &self.all[0], value: &self.all[0] }
    }
}

pub(super) fn plain(name: &str) -> &str {
    name.trim_end_matches('#').trim_start_matches("./")
}

/// Of a fragment of a URI.
pub(super) fn decoded(fragment: &str) -> String {
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
pub(super) fn id_of(schema: &Value) -> Option<&str> {
    let id = schema.get("$id").or_else(|| schema.get("id"))?.as_str()?;
    (!id.starts_with('#')).then_some(id)
}

pub(super) fn anchor_of(schema: &Value) -> Option<&str> {
    let anchor = schema.get("$anchor").and_then(Value::as_str);
    let id = schema.get("$id").or_else(|| schema.get("id")).and_then(Value::as_str);
    anchor.or_else(|| id?.strip_prefix('#'))
}

/// A schema, and where its references are looked up.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) document: usize,
    /// The nearest schema around it that has a name, or the document.
    pub(super) base: &'a Value,
    pub(super) value: &'a Value,
}

impl<'a> At<'a> {
    /// A part of it that is a schema.
    pub(super) fn of(self, value: &'a Value) -> At<'a> {
        let base = if id_of(value).is_some() { value } else { self.base };
        At { value, base, ..self }
    }

    pub(super) fn get(self, name: &str) -> Option<At<'a>> {
        self.value.get(name).map(|value| self.of(value))
    }

    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.value.get(name)?.as_str()
    }

    pub(super) fn list(self, name: &str) -> &'a [Value] {
        self.value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}
