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
//! # Typed rows
//!
//! Where records are decoded before they are transformed (Avro, or JSON with declared fields), a function may take a
//! typed row instead: only the columns that it names cross into the sandbox, and only those that it computes come back.
//!
//! ```
//! use gristmill_transform::{Columns, Context, Decimal128, Reject, Row, RowEdit, RowOutcome};
//!
//! /// What is read: by name, or by path. What may be null is an `Option`.
//! #[derive(Row)]
//! struct Order<'a> {
//!     total: Decimal128<18, 2>,
//!     #[row(path = "customer.email")]
//!     email: Option<&'a str>,
//! }
//!
//! /// What is computed.
//! #[derive(Columns)]
//! struct Masked<'a> {
//!     #[column(replace = "customer.email")]
//!     email: Option<&'a str>,
//!     #[column(add)]
//!     domain: Option<&'a str>,
//! }
//!
//! /// Cuts e-mail addresses down to their domain, and refuses negative totals.
//! #[gristmill_transform::row(remove("internal_note"), rename("total" = "amount"))]
//! fn domains<'a>(order: &Order<'a>, _: &Context, _: &mut RowEdit<Masked<'a>>) -> Result<RowOutcome<Masked<'a>>, Reject> {
//!     if order.total.0 < 0 {
//!         return Err(Reject::new("NEGATIVE_TOTAL", "the total is below zero"));
//!     }
//!     let domain = order.email.and_then(|email| email.split_once('@')).map(|(_, domain)| domain);
//!     Ok(RowOutcome::Keep(Masked { email: None, domain }))
//! }
//!
//! use gristmill_transform::testing::RowHarness;
//! use serde_json::json;
//!
//! let mut harness = RowHarness::<domains::Transform>::new(json!({})).unwrap();
//! let answers = harness.apply(&[
//!     json!({"total": "12.50", "customer": {"email": "ada@example.org"}}),
//!     json!({"total": "-1"}),
//! ]);
//! assert_eq!(answers[0].kept().unwrap().computed["domain"], "example.org");
//! assert_eq!(answers[1].rejected().unwrap().code(), "NEGATIVE_TOTAL");
//! ```
//!
//! A column that is a struct, also in a list or a map, is read as a struct that derives [`Value`](derive@Value), and computed
//! as one that derives [`Compute`](derive@Compute):
//!
//! ```
//! use gristmill_transform::{Columns, Compute, Context, Elements, List, Reject, Row, RowEdit, RowOutcome, Value};
//!
//! #[derive(Value)]
//! struct Line<'a> {
//!     sku: &'a str,
//!     count: i64,
//!     price_cents: i64,
//! }
//!
//! #[derive(Row)]
//! struct Order<'a> {
//!     lines: List<'a, Line<'a>>,
//! }
//!
//! #[derive(Compute)]
//! struct Total<'a> {
//!     sku: &'a str,
//!     cents: i64,
//! }
//!
//! #[derive(Columns)]
//! struct Totals<'a> {
//!     #[column(replace = "lines")]
//!     totals: Elements<Total<'a>>,
//! }
//!
//! /// Multiplies.
//! #[gristmill_transform::row]
//! fn totals<'a>(order: &Order<'a>, _: &Context, _: &mut RowEdit<Totals<'a>>) -> Result<RowOutcome<Totals<'a>>, Reject> {
//!     let total = |line: Line<'a>| Total { sku: line.sku, cents: line.count * line.price_cents };
//!     Ok(RowOutcome::Keep(Totals { totals: Elements(order.lines.iter().map(total).collect()) }))
//! }
//!
//! use gristmill_transform::testing::RowHarness;
//! use serde_json::json;
//!
//! let mut harness = RowHarness::<totals::Transform>::new(json!({})).unwrap();
//! let answers = harness.apply(&[json!({"lines": [{"sku": "a", "count": 3, "price_cents": 250}]})]);
//! assert_eq!(answers[0].kept().unwrap().computed["lines"], json!([{"sku": "a", "cents": 750}]));
//! ```
//!
//! # Whole columns
//!
//! A function may also take all rows of a call, for loops that become vectors and for work that rows share. The row and what
//! is computed are declared as before; each row gets a verdict, in their order.
//!
//! ```
//! use gristmill_transform::{Columns, Context, Row, Rows, RowsEdit};
//!
//! #[derive(Row)]
//! struct Reading {
//!     celsius: Option<f64>,
//! }
//!
//! #[derive(Columns)]
//! struct Converted {
//!     #[column(add)]
//!     fahrenheit: Option<f64>,
//! }
//!
//! /// Adds degrees Fahrenheit.
//! #[gristmill_transform::columns]
//! fn convert<'a>(readings: &Rows<'a, Reading>, _: &Context, out: &mut RowsEdit<'_, Converted>) {
//!     let celsius = readings.columns().celsius;
//!     let fahrenheit: Vec<f64> = celsius.values().unwrap_or_default().iter().map(|c| c * 1.8 + 32.0).collect();
//!     for (row, value) in fahrenheit.into_iter().enumerate() {
//!         out.keep(Converted { fahrenheit: celsius.is_valid(row).then_some(value) });
//!     }
//! }
//!
//! use gristmill_transform::testing::RowHarness;
//! use serde_json::json;
//!
//! let mut harness = RowHarness::<convert::Transform>::new(json!({})).unwrap();
//! let answers = harness.apply(&[json!({"celsius": 100.0}), json!({})]);
//! assert_eq!(answers[0].kept().unwrap().computed["fahrenheit"], 212.0);
//! assert_eq!(answers[1].kept().unwrap().computed["fahrenheit"], json!(null));
//! ```
//!
//! With the feature `arrow` these columns are also [arrow-rs](https://docs.rs/arrow-array) arrays, of version 60, for its kernels, and the
//! answer may be a record batch that has the computed columns. Arrays add 0.4 MB to a component, and the comparisons of `arrow-ord` another
//! 1.7 MB.
//!
//! ```
//! # #[cfg(feature = "arrow")] {
//! use std::sync::Arc;
//!
//! use arrow_array::{Int64Array, RecordBatch, Scalar};
//! use gristmill_transform::{Columns, Context, Row, Rows, RowsEdit};
//!
//! #[derive(Row)]
//! struct Order {
//!     cents: Option<i64>,
//! }
//!
//! #[derive(Columns)]
//! struct Amount {
//!     #[column(add)]
//!     amount: Option<i64>,
//! }
//!
//! /// Leaves out small orders, and those without a price.
//! #[gristmill_transform::columns]
//! fn large<'a>(orders: &Rows<'a, Order>, _: &Context, out: &mut RowsEdit<'_, Amount>) {
//!     let orders = orders.to_arrow();
//!     let large = arrow_ord::cmp::gt_eq(&orders["cents"], &Scalar::new(Int64Array::from(vec![1_000])));
//!     let computed = RecordBatch::try_from_iter([("amount", Arc::clone(&orders["cents"]))]);
//!     out.keep_where(&large.expect("two columns of numbers"), &computed.expect("a batch"));
//! }
//!
//! use gristmill_transform::testing::RowHarness;
//! use serde_json::json;
//!
//! let mut harness = RowHarness::<large::Transform>::new(json!({})).unwrap();
//! let answers = harness.apply(&[json!({"cents": 1200}), json!({"cents": 999}), json!({})]);
//! assert_eq!(answers[0].kept().unwrap().computed["amount"], 1200);
//! assert!(answers[1].is_dropped() && answers[2].is_dropped());
//! # }
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
mod columns;
mod config;
mod edit;
#[cfg(not(target_arch = "wasm32"))]
mod native;
mod run;
#[cfg(any(target_arch = "wasm32", test))]
mod size_class;
mod telemetry;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(target_arch = "wasm32")]
mod wasm;

/// arrow-rs's arrays, of the version that this crate takes.
#[cfg(feature = "arrow")]
pub use arrow_array;
pub use columns::{
    Batch, Column, ColumnTransform, Columns, Compute, DataType, Date32, Date64, Decimal, Decimal128,
    Decimal256, Elements, Entries, Field, List, Map, Row, RowEdit, RowOutcome, Rows, RowsEdit, TimeMicros,
    TimeMillis, TimeNanos, TimeSeconds, TimeUnit, TimestampMicros, TimestampMillis, TimestampNanos,
    TimestampSeconds, Value,
};
pub use config::{Config, NoConfig};
pub use edit::{Edit, Emit, Outcome, Output, Reject};
pub use gristmill_records::{Header, Headers, Record};
pub use gristmill_transform_macros::{Columns, Compute, Config, Row, Value, columns, record, row};
pub use run::{Context, Manifest, Reads, Transform};
pub use telemetry::{log, metrics, schema};

/// What the code that the macros write needs. Not for anybody else.
#[doc(hidden)]
pub mod private {
    pub use gristmill_records::EditWriter;
    pub use serde_json;

    pub use crate::columns::private::*;
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::native::NativeExports;
    pub use crate::run::{Declared, Native};
    #[cfg(target_arch = "wasm32")]
    pub use crate::wasm::{
        Cell, ColumnCell, apply, apply_columns, bindings, columns, configure, configure_columns, describe,
        describe_columns,
    };

    /// The root of a struct's subtree.
    pub fn struct_of(children: u32) -> Vec<crate::Field> {
        vec![crate::Field { children, ..crate::Field::leaf(crate::DataType::Struct, false) }]
    }

    /// The subtree of a computed column, with its name.
    pub fn named(name: &str, mut fields: Vec<crate::Field>) -> Vec<crate::Field> {
        fields[0].name = name.to_owned();
        fields
    }
}

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
