//! Why a JSON object does not fit the declared schema: the first field that does not, what was expected
//! there and what kind of thing is. arrow-json's own messages quote the record, so they are not used.

use std::borrow::Cow;
use std::fmt::Write as _;

use arrow_schema::{DataType, Field, Fields};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::{Token, scalar_fits};
use crate::field_spec::{is_json, type_name};

/// The first mismatch of an object that is known to be well-formed. `None`: there is none to be found.
pub(super) fn explain(object: &str, fields: &Fields, strict: bool, show_values: bool) -> Option<String> {
    let raw: &RawValue = serde_json::from_str(object.trim()).ok()?;
    let mut search = Search { strict, show_values, path: String::new() };
    search.fields(raw, fields)
}

struct Search {
    strict: bool,
    show_values: bool,
    path: String,
}

impl Search {
    fn fields(&mut self, object: &RawValue, fields: &Fields) -> Option<String> {
        let Some(members) = members(object) else {
            return Some(self.unexpected("an object", object));
        };
        for field in fields {
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(field.name());
            // As in the columns, the last of several members of one name counts.
            let found = match members.iter().rev().find(|(name, _)| name == field.name()) {
                None if field.is_nullable() => None,
                None => Some(format!("field {}: missing, and declared `not null`", self.path)),
                Some((_, value)) => self.field(value, field),
            };
            if found.is_some() {
                return found;
            }
            self.path.truncate(length);
        }
        if self.strict
            && let Some(i) = members.iter().position(|(name, _)| !fields.iter().any(|f| f.name() == name))
        {
            let whose =
                if self.path.is_empty() { "the object".to_owned() } else { format!("field {}", self.path) };
            return Some(if self.show_values {
                format!("{whose} has the undeclared member {:?}", members[i].0)
            } else {
                format!("{whose} has an undeclared member (its {} of {})", ordinal(i + 1), members.len())
            });
        }
        None
    }

    fn field(&mut self, value: &RawValue, field: &Field) -> Option<String> {
        if value.get() == "null" {
            return (!field.is_nullable())
                .then(|| format!("field {}: null, and declared `not null`", self.path));
        }
        match field.data_type() {
            _ if is_json(field) => None,
            DataType::Struct(fields) => self.fields(value, fields),
            DataType::List(element) => {
                let Some(elements) = elements(value) else {
                    return Some(self.unexpected("an array", value));
                };
                let length = self.path.len();
                for (i, inner) in elements.iter().enumerate() {
                    let _ = write!(self.path, "[{i}]");
                    let found = self.field(inner, element);
                    if found.is_some() {
                        return found;
                    }
                    self.path.truncate(length);
                }
                None
            }
            DataType::Map(entries, _) => {
                let Some(members) = members(value) else {
                    return Some(self.unexpected("an object", value));
                };
                let DataType::Struct(pair) = entries.data_type() else { return None };
                let length = self.path.len();
                for (i, (name, inner)) in members.iter().enumerate() {
                    // The keys of a map are data.
                    let _ = if self.show_values {
                        write!(self.path, "[{name:?}]")
                    } else {
                        write!(self.path, "[{} entry]", ordinal(i + 1))
                    };
                    let found = self.field(inner, &pair[1]);
                    if found.is_some() {
                        return found;
                    }
                    self.path.truncate(length);
                }
                None
            }
            DataType::Boolean => match value.get() {
                "true" | "false" => None,
                _ => Some(self.unexpected("bool", value)),
            },
            DataType::Utf8 => (!value.get().starts_with('"')).then(|| self.unexpected("string", value)),
            scalar => {
                let raw = value.get();
                let text: Cow<'_, str>;
                let token = match raw.as_bytes().first() {
                    Some(b'"') => {
                        text = serde_json::from_str::<String>(raw).ok()?.into();
                        Token::Text(&text)
                    }
                    Some(b'-' | b'0'..=b'9') => Token::Number(raw),
                    _ => return Some(self.unexpected(&type_name(scalar), value)),
                };
                match scalar_fits(scalar, token) {
                    Some(false) => Some(self.unexpected(&type_name(scalar), value)),
                    _ => None,
                }
            }
        }
    }

    fn unexpected(&self, expected: &str, found: &RawValue) -> String {
        let raw = found.get();
        let kind = match raw.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "a bool",
            Some(b'n') => "null",
            _ => "a number",
        };
        let fitting = matches!(kind, "a string" | "a number")
            && !matches!(expected, "an object" | "an array" | "bool" | "string");
        let mut message = if self.path.is_empty() { String::new() } else { format!("field {}: ", self.path) };
        let _ = write!(message, "expected {expected}, got {kind}");
        if fitting {
            message.push_str(" that does not fit it exactly");
        }
        if self.show_values {
            let shown: String = raw.chars().take(200).collect();
            let _ = write!(message, ": {shown}");
        }
        message
    }
}

fn ordinal(n: usize) -> String {
    let suffix = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

/// The members of an object in order, with their raw text; `None` if it is not an object.
fn members(value: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(value.get()).deserialize_map(Members).ok()
}

fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de RawValue>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                elements.push(element);
            }
            Ok(elements)
        }
    }
    serde_json::Deserializer::from_str(value.get()).deserialize_seq(Elements).ok()
}
