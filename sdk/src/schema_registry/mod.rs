//! A client of Schema Registries with Confluent's REST interface.

mod cache;
mod client;
mod config;
#[cfg(feature = "mock")]
mod embedded;
mod error;
mod schema;
mod transport;

pub use client::{Compatibility, RegisteredId, SchemaRegistry};
pub use config::{RegistryConfig, RegistryConfigBuilder};
#[cfg(feature = "mock")]
pub use embedded::EmbeddedRegistry;
pub use error::{RegistryError, RegistryErrorKind};
pub use schema::{ReferencedSchema, Schema, SchemaReference, SchemaType};
