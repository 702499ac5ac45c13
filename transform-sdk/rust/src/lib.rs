//! Write a Kafka transform in Rust: a function from a record to an outcome.
//!
//! Compiled for `wasm32-unknown-unknown` with the linker `wasm-component-ld`, the crate that holds it is a
//! WebAssembly component that Gristmill runs in a sandbox, called once a batch. Natively it is an ordinary
//! library, and `cargo test` tests it: see [`testing`].
//!
//! ```
//! use gristmill_transform::{Config, Context, Edit, Outcome, Record, Reject};
//!
//! /// What the pipeline file may say.
//! #[derive(serde::Deserialize, Config)]
//! pub struct Settings {
//!     /// Values longer than this are rejected.
//!     max_bytes: usize,
//!     /// Text put before each value.
//!     #[serde(default)]
//!     prefix: String,
//! }
//!
//! /// Puts a prefix before each value, drops tombstones, and sends empty values to an output of their own.
//! #[gristmill_transform::record(reads(values), config = Settings, outputs(empty = "empty values"))]
//! fn prefix(record: &Record<'_>, ctx: &Context<Settings>, out: &mut Edit<'_>) -> Result<Outcome, Reject> {
//!     let Some(value) = record.value() else { return Ok(Outcome::Drop) };
//!     if value.len() > ctx.config.max_bytes {
//!         return Err(Reject::new("TOO_LONG", format!("{} bytes", value.len())));
//!     }
//!     if value.is_empty() {
//!         out.route(prefix::EMPTY);
//!     }
//!     out.set_value([ctx.config.prefix.as_bytes(), value].concat());
//!     Ok(Outcome::Keep)
//! }
//!
//! use gristmill_transform::testing::{Harness, TestRecord};
//!
//! let mut harness = Harness::<prefix::Transform>::new(serde_json::json!({"max_bytes": 10, "prefix": "> "})).unwrap();
//! let answers = harness.apply(&[TestRecord::value("hello"), TestRecord::value("much too long")]);
//! assert_eq!(answers[0].kept().unwrap().value_text(), "> hello");
//! assert_eq!(answers[1].rejected().unwrap().code(), "TOO_LONG");
//! ```
//!
//! # What a transform may count on
//!
//! - It sees records in offset order, each once. It should not remember anything from one record to the
//!   next: batches are cut anywhere, and an instance is replaced at any time.
//! - A panic, an endless loop or too much memory costs the record that causes it, not the pipeline: that
//!   record is rejected by the runtime. The text of a panic is in the reject's message.
//! - There is no clock, no randomness, no file, no network. Log lines and metrics count only if the call
//!   in which they were made is accepted.
#![deny(missing_docs)]

// So that the macros' paths hold in this crate's own tests too.
#[allow(unused_extern_crates, reason = "only tests use it")]
extern crate self as gristmill_transform;

#[cfg(target_arch = "wasm32")]
mod allocator;
mod config;
mod edit;
mod run;
#[cfg(any(target_arch = "wasm32", test))]
mod size_class;
mod telemetry;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(target_arch = "wasm32")]
mod wasm;

pub use config::{Config, NoConfig};
pub use edit::{Edit, Emit, Outcome, Output, Reject};
pub use gristmill_records::{Header, Headers, Record};
pub use gristmill_transform_macros::{Config, record};
pub use run::{Context, Manifest, Reads, Transform};
pub use telemetry::{log, metrics, schema};

/// What the code that the macros write needs. Not for anybody else.
#[doc(hidden)]
pub mod private {
    pub use serde_json;

    pub use crate::run::{Declared, Native};
    #[cfg(target_arch = "wasm32")]
    pub use crate::wasm::{Cell, apply, bindings, configure, describe};
}
