//! Runs transforms on the records of a stream: sandboxed WebAssembly components, called once a batch. They work on
//! records as they are ([`Instance`]) or on typed Arrow columns ([`ColumnInstance`]); the component says which.
//!
//! What is promised:
//! - A transform cannot reach anything but the records that it is given and `log`, `metrics` and `schemas`
//!   of `wit/transform.wit`: no files, network, clock, randomness. A component that imports anything else
//!   is refused when it is loaded.
//! - Every input row is accounted for exactly once, in order: it goes on, is dropped, or is a [`Reject`].
//!   What a transform answers is checked word by word before any of it is used.
//! - One record that makes the transform trap, loop, eat memory or answer nonsense is found and rejected
//!   alone; the others go on. A transform that is simply broken ends in an error, not in a heap of rejects.
//! - A transform uses no more than its [`Limits`] and cannot bring the process down.
//!
//! ```no_run
//! use gristmill_records::RawBatchBuilder;
//! use gristmill_smt::{Limits, Runtime, RuntimeConfig, Stream};
//!
//! let runtime = Runtime::new(RuntimeConfig::new())?;
//! let transform = runtime.load_file("mask.wasm", Limits::default())?;
//! let stream = Stream { topic: "orders".into(), partition: 0 };
//! let mut instance = transform.instantiate(&stream, &serde_json::json!({"mask": "***"}))?;
//!
//! let mut batch = RawBatchBuilder::new("orders", 0);
//! batch.push(7, -1, None, Some(b"{}"), []).expect("the first record fits");
//! let applied = instance.apply(&batch.build())?;
//! for record in applied.records() {
//!     println!("offset {} goes to output {}: {:?}", record.offset, record.output, record.value);
//! }
//! for reject in applied.rejects() {
//!     println!("offset {} is rejected: {}: {}", reject.offset, reject.code, reject.message);
//! }
//! # Ok::<(), gristmill_smt::Error>(())
//! ```
#![deny(missing_docs)]

mod applied;
mod cache;
mod call;
mod columns;
mod contract;
mod engine;
mod error;
pub mod fixtures;
mod guest;
mod guest_build;
mod instance;
mod limits;
mod manifest;
mod native;
mod runner;
mod runtime;
mod schema;
mod secrets;
mod support;
mod telemetry;
mod transform;

pub use applied::{Applied, OutputRecord, Reject, Stats};
pub use columns::{AppliedColumns, ColumnInstance, OutputRow};
pub use error::{Error, ErrorKind};
pub use guest_build::{BuiltGuest, GuestOptions, GuestToolchain, build_guest, build_guest_with};
pub use instance::Instance;
pub use limits::Limits;
pub use manifest::{ColumnNeed, Manifest, Output, Reads};
pub use native::{NativeInstance, NativeRows, NativeTransform};
pub use runtime::{Runtime, RuntimeConfig};
pub use support::{Support, support};
pub use telemetry::{Histogram, Level, LogLine, Metrics};
pub use transform::{Kind, Stream, Transform};

#[cfg(fuzzing)]
#[doc(hidden)]
pub use columns::fuzzing;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
