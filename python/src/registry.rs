//! The Schema Registry.

use std::sync::Arc;

use gristmill::{RegistryConfig, Schema, SchemaReference, SchemaRegistry, SchemaType};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::blocking::wait;
use crate::error::Failure;
use crate::process::OfProcess;
use crate::value_format::seconds;

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

    /// The schema's id.
    fn register(
        &self,
        py: Python<'_>,
        subject: &str,
        text: &str,
        schema_type: &str,
        references: Vec<(String, String, i32)>,
    ) -> PyResult<u32> {
        let (client, references) = (self.client()?, named(references));
        let schema_type = self::schema_type(schema_type)?;
        let registered = wait(py, client.register(subject, &schema_type, text, &references))?;
        Ok(registered.map_err(Failure::from)?.id)
    }

    /// Whether it is, and the registry's reasons.
    fn compatibility(
        &self,
        py: Python<'_>,
        subject: &str,
        text: &str,
        schema_type: &str,
        references: Vec<(String, String, i32)>,
    ) -> PyResult<(bool, Vec<String>)> {
        let (client, references) = (self.client()?, named(references));
        let schema_type = self::schema_type(schema_type)?;
        let answer = wait(py, client.compatibility(subject, &schema_type, text, &references))?;
        let answer = answer.map_err(Failure::from)?;
        Ok((answer.is_compatible, answer.messages))
    }

    fn by_id<'py>(&self, py: Python<'py>, id: u32) -> PyResult<Bound<'py, PyDict>> {
        as_dict(py, wait(py, self.client()?.schema_by_id(id))?)
    }

    fn latest<'py>(&self, py: Python<'py>, subject: &str) -> PyResult<Bound<'py, PyDict>> {
        as_dict(py, wait(py, self.client()?.latest(subject))?)
    }

    fn version<'py>(&self, py: Python<'py>, subject: &str, version: i32) -> PyResult<Bound<'py, PyDict>> {
        as_dict(py, wait(py, self.client()?.version(subject, version))?)
    }
}

impl Registry {
    pub(crate) fn client(&self) -> Result<&SchemaRegistry, Failure> {
        self.0.get()
    }
}

pub(crate) fn schema_type(name: &str) -> Result<SchemaType, Failure> {
    match name {
        "AVRO" => Ok(SchemaType::Avro),
        "JSON" => Ok(SchemaType::Json),
        "PROTOBUF" => Ok(SchemaType::Protobuf),
        _ => Err(Failure::invalid_argument(format!("type: {name:?} is not one of AVRO, JSON, PROTOBUF"))),
    }
}

fn named(references: Vec<(String, String, i32)>) -> Vec<SchemaReference> {
    references
        .into_iter()
        .map(|(name, subject, version)| SchemaReference { name, subject, version })
        .collect()
}

fn as_dict(
    py: Python<'_>,
    schema: Result<Arc<Schema>, gristmill::RegistryError>,
) -> PyResult<Bound<'_, PyDict>> {
    let schema = schema.map_err(Failure::from)?;
    let found = PyDict::new(py);
    found.set_item("id", schema.id)?;
    found.set_item("type", schema.schema_type.as_str())?;
    found.set_item("text", &schema.text)?;
    found.set_item("subject", &schema.subject)?;
    found.set_item("version", schema.version)?;
    let references = schema.references.iter().map(|r| (&r.name, &r.subject, r.version));
    found.set_item("references", references.collect::<Vec<_>>())?;
    Ok(found)
}
