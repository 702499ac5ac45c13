//! How values become columns, as Python says it.

use std::time::Duration;

use gristmill::SchemaRegistry;
use gristmill_codec::SchemaSpec;
use gristmill_pipeline::{AvroColumns, ValueFormat};
use pyo3::prelude::*;

use crate::error::Failure;
use crate::registry::Registry;

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
    Avro { registry: SchemaRegistry, subject: Option<String>, schema: Option<String> },
}

impl Described {
    /// For the values of a topic.
    pub(crate) fn of(&self, topic: &str) -> ValueFormat {
        match self {
            Described::Bytes => ValueFormat::Bytes,
            Described::Json(spec) => ValueFormat::Json(spec.clone()),
            Described::Avro { registry, subject, schema } => ValueFormat::Avro {
                registry: registry.clone(),
                columns: match schema {
                    Some(schema) => AvroColumns::Schema(schema.clone()),
                    None => AvroColumns::Latest(subject.clone().unwrap_or_else(|| format!("{topic}-value"))),
                },
            },
        }
    }
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

    #[staticmethod]
    #[pyo3(signature = (registry, subject, schema))]
    fn avro(registry: &Registry, subject: Option<String>, schema: Option<String>) -> Result<Self, Failure> {
        Ok(Format(Described::Avro { registry: registry.client()?.clone(), subject, schema }))
    }
}

impl Format {
    pub(crate) fn described(&self) -> &Described {
        &self.0
    }
}
