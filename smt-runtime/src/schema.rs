//! The part of JSON Schema that is checked before a configuration goes to the guest. The schema comes from
//! the guest: no regular expressions, no remote references, bounded depth. The guest's own parser has the
//! last word, so a keyword that is not known here is not checked.

use serde_json::Value;

pub(crate) const MAX_DEPTH: u32 = 32;

/// Follows `$ref`s into the same document, a bounded number of them.
pub(crate) fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..MAX_DEPTH {
        match schema["$ref"].as_str().and_then(|reference| referred(root, reference)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

/// What a `$ref` into the same document is to: a JSON pointer as a URI's fragment (RFC 6901, section 6).
pub(crate) fn referred<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let fragment = percent_encoding::percent_decode_str(reference.strip_prefix('#')?);
    root.pointer(&fragment.decode_utf8_lossy())
}

/// Everything in `config` that does not fit, as sentences. They name places and expectations, never values.
pub(crate) fn check(schema: &Value, config: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    check_at(schema, schema, config, "config", 0, &mut wrong);
    wrong
}

fn check_at(root: &Value, schema: &Value, value: &Value, path: &str, depth: u32, wrong: &mut Vec<String>) {
    if depth > MAX_DEPTH || wrong.len() >= 20 {
        return;
    }
    let schema = resolve(root, schema);
    if let Some(wanted) = types(schema)
        && !wanted.iter().any(|t| is_type(t, value))
    {
        wrong.push(format!("{path} is {}, wanted {}", type_name(value), wanted.join(" or ")));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        wrong.push(format!("{path} is not one of {}", allowed.join(", ")));
    }
    if let Some(n) = value.as_f64() {
        for (keyword, fits, words) in [
            ("minimum", (|n, b| n >= b) as fn(f64, f64) -> bool, "at least"),
            ("maximum", |n, b| n <= b, "at most"),
            ("exclusiveMinimum", |n, b| n > b, "above"),
            ("exclusiveMaximum", |n, b| n < b, "below"),
        ] {
            if let Some(bound) = schema[keyword].as_f64()
                && !fits(n, bound)
            {
                wrong.push(format!("{path} must be {words} {bound}"));
            }
        }
    }
    if let Some(text) = value.as_str() {
        let len = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|min| len < min) {
            wrong.push(format!("{path} must have at least {} characters", schema["minLength"]));
        }
        if schema["maxLength"].as_u64().is_some_and(|max| len > max) {
            wrong.push(format!("{path} must have at most {} characters", schema["maxLength"]));
        }
    }
    if let Some(items) = value.as_array() {
        if schema["minItems"].as_u64().is_some_and(|min| (items.len() as u64) < min) {
            wrong.push(format!("{path} must have at least {} items", schema["minItems"]));
        }
        for (i, item) in items.iter().enumerate() {
            check_at(root, &schema["items"], item, &format!("{path}[{i}]"), depth + 1, wrong);
        }
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                wrong.push(format!("{path}.{name} is missing"));
            }
        }
        let known = schema["properties"].as_object();
        for (name, field) in fields {
            match known.and_then(|k| k.get(name)) {
                Some(sub) => check_at(root, sub, field, &format!("{path}.{name}"), depth + 1, wrong),
                None if schema["additionalProperties"] == Value::Bool(false) => {
                    let known: Vec<_> = known.into_iter().flatten().map(|(n, _)| n.as_str()).collect();
                    wrong.push(match known.is_empty() {
                        true => format!("{path}.{name} is not known: this transform takes no configuration"),
                        false => format!("{path}.{name} is not known: there are {}", known.join(", ")),
                    });
                }
                None => {}
            }
        }
    }
}

fn types(schema: &Value) -> Option<Vec<&str>> {
    match &schema["type"] {
        Value::String(t) => Some(vec![t]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn is_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_is_followed_by_its_name_as_a_uri_writes_it() {
        let schema = json!({"$ref": "#/$defs/My%20%C3%A4", "$defs": {"My ä": {"type": "string"}}});
        assert_eq!(check(&schema, &json!(1)), ["config is a number, wanted string"]);
    }

    #[test]
    fn every_mistake_is_named_at_once_without_its_value() {
        let schema = json!({
            "type": "object",
            "properties": {
                "mask": {"type": "string", "minLength": 1},
                "limit": {"type": "integer", "minimum": 0},
                "mode": {"enum": ["drop", "reject"]},
            },
            "required": ["mask", "limit", "fields"],
            "additionalProperties": false,
        });
        let mut wrong = check(&schema, &json!({"mask": "", "limit": -5, "mode": "s3cret", "lmit": 1}));
        // The order of fields depends on how serde_json was built.
        wrong.sort();
        let unknown = wrong.remove(2);
        assert!(unknown.starts_with("config.lmit is not known: there are "), "{unknown}");
        assert_eq!(
            wrong,
            [
                "config.fields is missing",
                "config.limit must be at least 0",
                "config.mask must have at least 1 characters",
                "config.mode is not one of \"drop\", \"reject\"",
            ]
        );
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        assert!(check(&json!({"$ref": "#"}), &json!({})).is_empty());
        let nested = json!({"properties": {"a": {"$ref": "#"}}});
        assert!(check(&nested, &json!({"a": {"a": {"a": {}}}})).is_empty());
    }
}
