//! Config values that the manifest's schema marks `writeOnly`: found once, blotted out of every text.

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use serde_json::Value;

use crate::schema;

/// Places of the configuration under parts of the schema that are looked at. Schemas of people stay far below; the schema
/// comes from the guest, and can branch without end.
const MAX_VISITS: usize = 1_000_000;
const MAX_DEPTH: u32 = 256;
/// Characters of a message.
const MAX_SHOWN: usize = 2_000;
/// A schema that says nothing of a value.
static ANYTHING: LazyLock<Value> = LazyLock::new(|| Value::Object(Default::default()));

#[derive(Debug, Default)]
pub(crate) struct Redactor {
    /// Longest first, so that a secret that contains another goes whole.
    secrets: Vec<String>,
}

impl Redactor {
    /// Refuses a schema of which it cannot see all that applies: what it overlooked would be in logs.
    pub(crate) fn new(schema: &Value, config: &Value) -> Result<Self, String> {
        if !has_marks(schema) {
            return Ok(Redactor::default());
        }
        let mut search = Search { root: schema, found: BTreeSet::new(), seen: HashSet::new() };
        search.visit(schema, config, false, 0)?;
        let mut secrets: Vec<_> = search.found.into_iter().collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Ok(Redactor { secrets })
    }

    pub(crate) fn redact(&self, mut text: String) -> String {
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        text
    }

    /// What comes from a guest, for people's terminals: without secrets, of bounded length, on one line.
    pub(crate) fn shown(&self, text: &str) -> String {
        let text = self.redact(text.to_owned());
        text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

struct Search<'a> {
    root: &'a Value,
    found: BTreeSet<String>,
    /// Part of the schema, value, and whether it is secret: what was seen once says nothing new.
    seen: HashSet<(*const Value, *const Value, bool)>,
}

impl Search<'_> {
    /// Where it is open whether a part of the schema applies, it does.
    fn visit(&mut self, schema: &Value, value: &Value, secret: bool, depth: u32) -> Result<(), String> {
        let Value::Object(keywords) = schema else { return Ok(()) };
        if !self.seen.insert((schema, value, secret)) {
            return Ok(());
        }
        if depth > MAX_DEPTH || self.seen.len() > MAX_VISITS {
            let text = "its config-schema has so many branches that what is secret in the configuration cannot be found";
            return Err(text.to_owned());
        }
        let secret = secret || keywords.get("writeOnly") == Some(&Value::Bool(true));
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(n) if secret => _ = self.found.insert(n.to_string()),
            Value::String(s) if secret && !s.is_empty() => {
                self.found.insert(s.clone());
                // As it looks inside a quoted text.
                let escaped = Value::String(s.clone()).to_string();
                self.found.insert(escaped[1..escaped.len() - 1].to_owned());
            }
            Value::Number(_) | Value::String(_) => {}
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    for sub in of_item(schema, i) {
                        self.visit(sub, item, secret, depth + 1)?;
                    }
                    if secret {
                        self.visit(&ANYTHING, item, secret, depth + 1)?;
                    }
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    for sub in of_field(schema, name) {
                        self.visit(sub, field, secret, depth + 1)?;
                    }
                    if secret {
                        self.visit(&ANYTHING, field, secret, depth + 1)?;
                    }
                }
            }
        }
        let referred = match keywords.get("$ref").map(|r| r.as_str().unwrap_or_default()) {
            None => None,
            Some(reference) => {
                let missing = || {
                    let shown: String = reference.chars().take(100).collect();
                    format!(
                        "its config-schema refers to {shown:?}, which is not in it, and so what is secret in the configuration \
                         cannot be found"
                    )
                };
                Some(schema::referred(self.root, reference).ok_or_else(missing)?)
            }
        };
        for sub in referred.into_iter().chain(in_place(schema)) {
            self.visit(sub, value, secret, depth + 1)?;
        }
        Ok(())
    }
}

/// Whether anything in the schema is marked as secret.
fn has_marks(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get("writeOnly") == Some(&Value::Bool(true)) || fields.values().any(has_marks)
        }
        Value::Array(items) => items.iter().any(has_marks),
        _ => false,
    }
}

/// Beside `$ref`, the keywords whose schemas apply to the same value.
fn in_place(schema: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|k| schema[k].as_array()).flatten();
    let one = ["if", "then", "else", "not"].into_iter().filter_map(|k| schema.get(k));
    lists.chain(one).chain(schema["dependentSchemas"].as_object().into_iter().flat_map(|subs| subs.values()))
}

fn of_item(schema: &Value, i: usize) -> impl Iterator<Item = &Value> {
    // `items` was a list before draft 2020-12.
    let by_place = ["prefixItems", "items"].into_iter().filter_map(move |k| schema[k].get(i));
    let all = ["items", "additionalItems", "unevaluatedItems", "contains"];
    by_place.chain(all.into_iter().filter_map(|k| schema.get(k)))
}

fn of_field<'a>(schema: &'a Value, name: &'a str) -> impl Iterator<Item = &'a Value> {
    let named = schema["properties"].get(name);
    let patterns = schema["patternProperties"].as_object().into_iter().flat_map(|subs| subs.values());
    let others = ["additionalProperties", "unevaluatedProperties"].into_iter().filter_map(|k| schema.get(k));
    named.into_iter().chain(patterns).chain(others.filter(move |_| named.is_none()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marked_values_are_found_wherever_they_are() {
        let schema = json!({
            "properties": {
                "token": {"type": "string", "writeOnly": true},
                "nested": {"$ref": "#/$defs/n"},
                "list": {"items": {"writeOnly": true}},
                "plain": {"type": "string"},
            },
            "$defs": {"n": {"properties": {"pin": {"writeOnly": true}}}},
        });
        let config = json!({"token": "tok\"en", "nested": {"pin": 4711}, "list": ["a1b2"], "plain": "seen"});
        let redactor = Redactor::new(&schema, &config).unwrap();
        assert_eq!(redactor.redact("tok\"en tok\\\"en 4711 a1b2 seen".into()), "*** *** *** *** seen");
    }

    #[test]
    fn marks_under_any_keyword_are_found() {
        let secret = json!({"writeOnly": true});
        for schema in [
            json!({"patternProperties": {"^t": secret}}),
            json!({"additionalProperties": secret}),
            json!({"unevaluatedProperties": secret}),
            json!({"properties": {"t": {"$ref": "#/$defs/text", "writeOnly": true}}, "$defs": {"text": {}}}),
            json!({"properties": {"t": {"not": secret}}}),
            json!({"properties": {"t": {"if": {}, "then": secret}}}),
            json!({"properties": {"t": {"if": {}, "else": {"allOf": [secret]}}}}),
            json!({"dependentSchemas": {"t": {"properties": {"t": secret}}}}),
            secret.clone(),
        ] {
            let redactor = Redactor::new(&schema, &json!({"t": "hunter2"})).unwrap();
            assert_eq!(redactor.redact("hunter2".into()), "***", "{schema}");
        }
        for schema in [
            json!({"prefixItems": [{}, secret]}),
            json!({"items": [{}, secret]}),
            json!({"prefixItems": [{}], "items": {"anyOf": [secret]}}),
            json!({"contains": secret}),
            json!({"unevaluatedItems": secret}),
        ] {
            let redactor = Redactor::new(&schema, &json!(["host", "hunter2"])).unwrap();
            assert_eq!(redactor.redact("hunter2".into()), "***", "{schema}");
        }
    }

    #[test]
    fn what_lies_inside_a_secret_is_secret_whatever_the_schema_says_of_it() {
        let schema = json!({"properties": {"login": {"writeOnly": true}}});
        let redactor = Redactor::new(&schema, &json!({"login": {"user": "ada", "pins": [4711]}})).unwrap();
        assert_eq!(redactor.redact("ada 4711".into()), "*** ***");
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends_and_hides_nothing() {
        let secret = json!({"writeOnly": true});
        for schema in [
            json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}, {"properties": {"t": secret}}]}),
            json!({"$ref": "#", "properties": {"t": secret}}),
            json!({"anyOf": [{"oneOf": [{"$ref": "#"}, {"not": {"$ref": "#/anyOf/0"}}]}, {"properties": {"t": secret}}]}),
            json!({"properties": {"t": {"$ref": "#/$defs/My%20%C3%A4"}}, "$defs": {"My ä": secret}}),
        ] {
            let redactor = Redactor::new(&schema, &json!({"t": "hunter2"})).unwrap();
            assert_eq!(redactor.redact("hunter2".into()), "***", "{schema}");
        }
        // Ten kinds of a node, each with nodes in it, five deep.
        let kinds: Vec<_> =
            (0..10).map(|_| json!({"properties": {"args": {"items": {"$ref": "#"}}, "t": secret}})).collect();
        let mut config = json!({"t": "hunter2"});
        for _ in 0..5 {
            config = json!({"args": [config.clone(), config]});
        }
        let redactor = Redactor::new(&json!({"oneOf": kinds}), &config).unwrap();
        assert_eq!(redactor.redact("hunter2".into()), "***");
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_refused_where_there_are_marks() {
        let schema =
            json!({"properties": {"t": {"$ref": "https://example.org/s"}, "u": {"writeOnly": true}}});
        let refusal = Redactor::new(&schema, &json!({"t": "x"})).unwrap_err();
        assert!(refusal.contains("\"https://example.org/s\", which is not in it"), "{refusal}");
        let schema = json!({"properties": {"t": {"$ref": "https://example.org/s"}}});
        Redactor::new(&schema, &json!({"t": "x"})).unwrap();
    }
}
