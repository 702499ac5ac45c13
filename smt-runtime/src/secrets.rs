//! Config values that the manifest's schema marks `writeOnly`: found once, blotted out of every text.

use serde_json::Value;

use crate::schema;

#[derive(Default)]
pub(crate) struct Redactor {
    /// Longest first, so that a secret that contains another goes whole.
    secrets: Vec<String>,
}

impl Redactor {
    pub(crate) fn new(schema: &Value, config: &Value) -> Self {
        let mut secrets = Vec::new();
        collect(schema, schema, config, false, 0, &mut secrets);
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        secrets.dedup();
        Redactor { secrets }
    }

    pub(crate) fn redact(&self, mut text: String) -> String {
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        text
    }
}

fn collect(root: &Value, schema: &Value, value: &Value, secret: bool, depth: u32, found: &mut Vec<String>) {
    if depth > schema::MAX_DEPTH {
        return;
    }
    let schema = schema::resolve(root, schema);
    let secret = secret || schema["writeOnly"] == Value::Bool(true);
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(n) if secret => found.push(n.to_string()),
        Value::String(s) if secret && !s.is_empty() => {
            found.push(s.clone());
            // As it looks inside a quoted text.
            let escaped = Value::String(s.clone()).to_string();
            found.push(escaped[1..escaped.len() - 1].to_owned());
        }
        Value::Number(_) | Value::String(_) => {}
        Value::Array(items) => {
            for item in items {
                collect(root, &schema["items"], item, secret, depth + 1, found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let sub = match &schema["properties"][name] {
                    Value::Null => &schema["additionalProperties"],
                    sub => sub,
                };
                collect(root, sub, field, secret, depth + 1, found);
            }
        }
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for sub in schema[keyword].as_array().into_iter().flatten() {
            collect(root, sub, value, secret, depth + 1, found);
        }
    }
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
        let redactor = Redactor::new(&schema, &config);
        assert_eq!(redactor.redact("tok\"en tok\\\"en 4711 a1b2 seen".into()), "*** *** *** *** seen");
    }
}
