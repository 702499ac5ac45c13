//! The macros of `gristmill-transform`. Use them through that crate, which documents and tests them.
#![deny(missing_docs)]

mod config;
mod record;

use proc_macro::TokenStream;

/// Makes a component's transform of a function from a record to an outcome.
///
/// ```text
/// #[gristmill_transform::record(
///     name = "mask-orders",                      // default: the function's name, with `-` for `_`
///     version = "1.2.0",                         // default: the crate's version
///     reads(keys, values, headers, timestamps, offsets),   // default: values
///     outputs(high_value = "large orders"),      // besides `main`
///     config = Settings,                         // a type with `#[derive(Config)]`; default: none
/// )]
/// fn mask_orders(record: &Record<'_>, ctx: &Context<Settings>, out: &mut Edit<'_>) -> Result<Outcome, Reject>
/// ```
///
/// The description is the function's doc comment. Beside the function comes a module of the same name with
/// the type `Transform`, for the test harness, and a constant for each output: `mask_orders::HIGH_VALUE`.
/// On `wasm32` the crate becomes the component of this transform, so there is one in a crate.
#[proc_macro_attribute]
pub fn record(arguments: TokenStream, item: TokenStream) -> TokenStream {
    record::expand(arguments.into(), item.into()).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Implements `gristmill_transform::Config` by the fields of a struct or the names of an enum.
#[proc_macro_derive(Config, attributes(config, serde))]
pub fn config(item: TokenStream) -> TokenStream {
    config::expand(item.into()).unwrap_or_else(|e| e.to_compile_error()).into()
}
