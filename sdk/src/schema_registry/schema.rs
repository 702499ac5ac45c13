use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{RegistryError, RegistryErrorKind};

/// The language a schema is written in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchemaType {
    /// Apache Avro, the registry's default.
    Avro,
    /// JSON Schema.
    Json,
    /// Protocol Buffers.
    Protobuf,
    /// A type that this version has no name for.
    Other(String),
}

impl SchemaType {
    /// The registry's name for it.
    pub fn as_str(&self) -> &str {
        match self {
            SchemaType::Avro => "AVRO",
            SchemaType::Json => "JSON",
            SchemaType::Protobuf => "PROTOBUF",
            SchemaType::Other(name) => name,
        }
    }

    pub(super) fn from_wire(name: Option<String>) -> Self {
        match name.as_deref() {
            None | Some("" | "AVRO") => SchemaType::Avro,
            Some("JSON") => SchemaType::Json,
            Some("PROTOBUF") => SchemaType::Protobuf,
            Some(_) => SchemaType::Other(name.unwrap_or_default()),
        }
    }
}

impl fmt::Display for SchemaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A schema's mention of another: the name it uses for it, and where it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchemaReference {
    /// The full name of a type (Avro), or the name of an import (Protobuf, JSON Schema).
    pub name: String,
    /// The subject that the other schema is registered under.
    pub subject: String,
    /// Its version there.
    pub version: i32,
}

/// A schema that another one refers to, directly or through others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReferencedSchema {
    /// How and where it was referred to.
    pub reference: SchemaReference,
    /// Its text.
    pub text: String,
}

/// A schema as registered, with everything it refers to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Schema {
    /// The id that records carry; 0 of a schema that was found by its GUID.
    pub id: u32,
    /// The language of the text.
    pub schema_type: SchemaType,
    /// The schema itself.
    pub text: String,
    /// The subject it was asked for by; not known for a look-up by id.
    pub subject: Option<String>,
    /// The version in that subject.
    pub version: Option<i32>,
    /// Its own references.
    pub references: Vec<SchemaReference>,
    /// Everything it refers to, each once, what is referred to before what refers to it.
    pub referenced: Vec<ReferencedSchema>,
}

impl Schema {
    /// The texts of everything the schema refers to, what is referred to before what refers to it.
    pub fn referenced_texts(&self) -> impl Iterator<Item = &str> {
        self.referenced.iter().map(|referenced| referenced.text.as_str())
    }
}

/// A schema as the registry sends it, before its references are fetched.
#[derive(Clone, Debug)]
pub(super) struct Registered {
    pub(super) id: u32,
    pub(super) schema_type: SchemaType,
    pub(super) text: String,
    pub(super) subject: Option<String>,
    pub(super) version: Option<i32>,
    pub(super) references: Vec<SchemaReference>,
    pub(super) refusing_rule: Option<String>,
}

impl Registered {
    /// The schema, or why its records must not be read here.
    pub(super) fn with_references(
        &self,
        referenced: Vec<ReferencedSchema>,
    ) -> Result<Arc<Schema>, RegistryError> {
        if let Some(rule) = &self.refusing_rule {
            return Err(RegistryError::new(RegistryErrorKind::UnsupportedRules, rule.clone()));
        }
        Ok(Arc::new(Schema {
            id: self.id,
            schema_type: self.schema_type.clone(),
            text: self.text.clone(),
            subject: self.subject.clone(),
            version: self.version,
            references: self.references.clone(),
            referenced,
        }))
    }
}

/// Body of `GET /schemas/ids/{id}` and `GET /subjects/{subject}/versions/{version}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireSchema {
    id: Option<i64>,
    subject: Option<String>,
    version: Option<i32>,
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<SchemaReference>>,
    #[serde(default)]
    rule_set: Option<WireRuleSet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRuleSet {
    #[serde(default)]
    migration_rules: Option<Vec<WireRule>>,
    #[serde(default)]
    domain_rules: Option<Vec<WireRule>>,
    #[serde(default)]
    encoding_rules: Option<Vec<WireRule>>,
}

#[derive(Deserialize)]
struct WireRule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    disabled: bool,
}

impl WireSchema {
    /// `asked_id` stands in where the answer has no id, as an answer by id has not.
    pub(super) fn registered(self, asked_id: Option<u32>) -> Result<Registered, String> {
        let id = match (asked_id, self.id) {
            (Some(id), _) => id,
            (None, Some(id)) => {
                u32::try_from(id).map_err(|_| format!("the schema id {id} is not a 32-bit number"))?
            }
            (None, None) => return Err("the answer has no schema id".into()),
        };
        Ok(Registered {
            id,
            schema_type: SchemaType::from_wire(self.schema_type),
            text: self.schema,
            subject: self.subject,
            version: self.version,
            references: self.references.unwrap_or_default(),
            refusing_rule: self.rule_set.and_then(|rules| rules.refusal()),
        })
    }
}

impl WireRuleSet {
    /// The first active rule that a reader would have to run.
    fn refusal(&self) -> Option<String> {
        [&self.migration_rules, &self.domain_rules, &self.encoding_rules]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|rule| !rule.disabled)
            .find_map(WireRule::refusal)
    }
}

impl WireRule {
    fn refusal(&self) -> Option<String> {
        let kind = self.kind.as_deref().unwrap_or("");
        let mode = self.mode.as_deref().unwrap_or("");
        let name = if self.name.is_empty() { "without a name" } else { &self.name };
        if kind.to_ascii_uppercase().starts_with("ENCRYPT") {
            return Some(format!(
                "the schema has the encryption rule {name}, and records are not decrypted here"
            ));
        }
        match mode {
            // Run by whoever writes, or only when an old reader is served: never by us.
            "WRITE" | "DOWNGRADE" => None,
            "READ" | "WRITEREAD" | "UPGRADE" | "UPDOWN" => Some(format!(
                "the schema has the rule {name} of mode {mode}, which readers must run and which is not run here"
            )),
            other => Some(format!("the schema has the rule {name} of the unknown mode {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(rules: &str) -> Option<String> {
        let body = format!(r#"{{"schema": "\"string\"", "ruleSet": {rules}}}"#);
        serde_json::from_str::<WireSchema>(&body).unwrap().registered(Some(1)).unwrap().refusing_rule
    }

    #[test]
    fn rules_that_a_reader_must_run_refuse_the_schema_and_others_do_not() {
        for mode in ["READ", "WRITEREAD", "UPGRADE", "UPDOWN", "TELEPORT"] {
            for set in ["domainRules", "migrationRules", "encodingRules"] {
                let rule = format!(r#"{{"{set}": [{{"name": "r", "mode": "{mode}", "type": "CEL"}}]}}"#);
                assert!(refusal(&rule).unwrap().contains("the rule r"), "{rule}");
                let off = format!(
                    r#"{{"{set}": [{{"name": "r", "mode": "{mode}", "type": "CEL", "disabled": true}}]}}"#
                );
                assert_eq!(refusal(&off), None, "{off}");
            }
        }
        for kind in ["ENCRYPT", "ENCRYPT_PAYLOAD"] {
            let rule =
                format!(r#"{{"domainRules": [{{"name": "pii", "mode": "WRITE", "type": "{kind}"}}]}}"#);
            assert!(refusal(&rule).unwrap().contains("encryption rule pii"));
        }
        assert_eq!(refusal(r#"{"domainRules": [{"name": "r", "mode": "WRITE", "type": "CEL"}]}"#), None);
        assert_eq!(refusal(r#"{"domainRules": null, "migrationRules": []}"#), None);
        assert_eq!(refusal("null"), None);
    }
}
