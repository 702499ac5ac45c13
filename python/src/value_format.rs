//! How values become columns, as Python says it, and the Schema Registry that it names.

use std::time::Duration;

use gristmill::{RegistryConfig, SchemaRegistry};
use gristmill_codec::SchemaSpec;
use gristmill_pipeline::{AvroColumns, ValueFormat};
use pyo3::prelude::*;

use crate::blocking::OfProcess;
use crate::error::Failure;

/// A client of a Schema Registry.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Registry(OfProcess<SchemaRegistry>);

#[pymethods]
impl Registry {
    #[new]
    #[pyo3(signature = (url, username, password, token, ca_pem, timeout))]
    fn new(
        url: &str,
        username: Option<String>,
        password: Option<String>,
        token: Option<String>,
        ca_pem: Option<Vec<u8>>,
        timeout: f64,
    ) -> Result<Self, Failure> {
        let mut config =
            RegistryConfig::builder().urls(url.split(',').map(str::trim)).timeout(seconds(timeout)?);
        if let Some(user) = username {
            config = config.basic_auth(user, password.unwrap_or_default());
        }
        if let Some(token) = token {
            config = config.bearer_token(token);
        }
        if let Some(pem) = ca_pem {
            config = config.ca_pem(pem);
        }
        Ok(Registry(OfProcess::new(SchemaRegistry::new(config.build()?)?)))
    }
}

/// Seconds as Python writes them.
pub(crate) fn seconds(seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Failure::invalid_argument(format!("{seconds} is not a number of seconds, 0 or more")))
}

/// How values become columns.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Format(Described);

enum Described {
    Bytes,
    Json(SchemaSpec),
    Avro { registry: Py<Registry>, subject: Option<String>, schema: Option<String> },
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
    fn avro(registry: Py<Registry>, subject: Option<String>, schema: Option<String>) -> Self {
        Format(Described::Avro { registry, subject, schema })
    }
}

impl Format {
    /// For the values of a topic.
    pub(crate) fn of(&self, topic: &str) -> Result<ValueFormat, Failure> {
        Ok(match &self.0 {
            Described::Bytes => ValueFormat::Bytes,
            Described::Json(spec) => ValueFormat::Json(spec.clone()),
            Described::Avro { registry, subject, schema } => ValueFormat::Avro {
                registry: registry.get().0.get()?.clone(),
                columns: match schema {
                    Some(schema) => AvroColumns::Schema(schema.clone()),
                    None => AvroColumns::Latest(subject.clone().unwrap_or_else(|| format!("{topic}-value"))),
                },
            },
        })
    }
}
