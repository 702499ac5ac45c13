//! How values become columns, as Python says it.

use std::time::Duration;

use gristmill::{SchemaRegistry, SchemaType};
use gristmill_codec::{AvroOptions, ProtobufOptions, SchemaSpec};
use gristmill_pipeline::{ColumnsSchema, ValueFormat, WriteFormat, WriteSchema};
use pyo3::prelude::*;

use crate::error::Failure;
use crate::registry::{Registry, schema_type};

/// Seconds as Python writes them.
pub(crate) fn seconds(seconds: f64) -> Result<Duration, Failure> {
    // Clocks end before such times do.
    const LONG: f64 = 1e9;
    Duration::try_from_secs_f64(seconds.min(LONG))
        .map_err(|_| Failure::invalid_argument(format!("{seconds} is not a number of seconds, 0 or more")))
}

/// How values become columns.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Format(Described);

/// For the values of any topic.
#[derive(Clone)]
pub(crate) enum Described {
    Bytes,
    Json(SchemaSpec),
    /// With a schema; the registry has it, or it is given and values are bare.
    Of {
        language: SchemaType,
        registry: Option<SchemaRegistry>,
        subject: Option<String>,
        schema: Option<String>,
        /// Of Protobuf.
        message: Option<String>,
        recursive_as_json: bool,
    },
}

impl Described {
    /// For the values of a topic.
    pub(crate) fn of(&self, topic: &str) -> ValueFormat {
        match self {
            Described::Bytes => ValueFormat::Bytes,
            Described::Json(spec) => ValueFormat::Json(spec.clone()),
            Described::Of { language, registry, subject, schema, message, recursive_as_json } => {
                let registry = registry.clone();
                let columns = match schema {
                    Some(schema) => ColumnsSchema::Schema(schema.clone()),
                    None => ColumnsSchema::Latest(subject_of(subject, topic)),
                };
                match (language, registry) {
                    (SchemaType::Avro, Some(registry)) => {
                        let mut options = AvroOptions::default();
                        options.recursive_as_json = *recursive_as_json;
                        ValueFormat::Avro { registry, columns, options }
                    }
                    (SchemaType::Protobuf, registry) => {
                        let mut options = ProtobufOptions::default();
                        options.message = message.clone();
                        options.recursive_as_json = *recursive_as_json;
                        ValueFormat::Protobuf { registry, columns, options }
                    }
                    (_, registry) => {
                        ValueFormat::JsonSchema { registry, columns, recursive_as_json: *recursive_as_json }
                    }
                }
            }
        }
    }

    /// To write records of a topic: with the schema, which is new or known, or the latest of the subject.
    pub(crate) fn written(
        &self,
        topic: &str,
        schema: Option<String>,
        new: bool,
    ) -> Result<WriteFormat, Failure> {
        let Described::Of { language, registry, subject, message, .. } = self else {
            return Err(Failure::invalid_argument("rows are written as JSON, Avro, Protobuf or JsonSchema"));
        };
        let message = message.clone();
        Ok(match (registry, schema) {
            (Some(registry), schema) => WriteFormat::Registered {
                registry: registry.clone(),
                subject: subject_of(subject, topic),
                language: language.clone(),
                schema: match schema {
                    None => WriteSchema::Latest,
                    Some(schema) if new => WriteSchema::New(schema),
                    Some(schema) => WriteSchema::Known(schema),
                },
                message,
            },
            (None, Some(schema)) if *language == SchemaType::Protobuf => {
                WriteFormat::BareProtobuf { schema, message }
            }
            (None, Some(schema)) => WriteFormat::JsonBySchema(schema),
            (None, None) => WriteFormat::Json,
        })
    }
}

fn subject_of(subject: &Option<String>, topic: &str) -> String {
    subject.clone().unwrap_or_else(|| format!("{topic}-value"))
}

#[pymethods]
impl Format {
    #[staticmethod]
    fn bytes() -> Self {
        Format(Described::Bytes)
    }

    /// `fields`: as in a pipeline file's `decode.fields`, as JSON.
    #[staticmethod]
    fn json(fields: &str) -> Result<Self, Failure> {
        let spec: SchemaSpec = serde_json::from_str(fields)
            .map_err(|e| Failure::new("invalid_config", format!("the fields cannot be read: {e}")))?;
        if let Err(mistakes) = spec.arrow_schema() {
            let told: Vec<String> =
                mistakes.iter().map(|m| format!("field {}: {}", m.path, m.message)).collect();
            return Err(Failure::new("invalid_config", told.join("; ")));
        }
        Ok(Format(Described::Json(spec)))
    }

    /// `language`: `AVRO`, `PROTOBUF` or `JSON`. Without a registry there is a schema.
    #[staticmethod]
    #[pyo3(signature = (language, registry, subject, schema, message, recursive_as_json))]
    fn of(
        language: &str,
        registry: Option<&Registry>,
        subject: Option<String>,
        schema: Option<String>,
        message: Option<String>,
        recursive_as_json: bool,
    ) -> Result<Self, Failure> {
        let registry = registry.map(Registry::client).transpose()?.cloned();
        let language = schema_type(language)?;
        Ok(Format(Described::Of { language, registry, subject, schema, message, recursive_as_json }))
    }
}

impl Format {
    pub(crate) fn described(&self) -> &Described {
        &self.0
    }
}
