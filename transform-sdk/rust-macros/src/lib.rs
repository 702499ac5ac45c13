//! The macros of `gristmill-transform`. Use them through that crate, which documents and tests them.
#![deny(missing_docs)]

mod arguments;
mod config;
mod record;
mod row;
mod structs;

use proc_macro::TokenStream;
use quote::quote;

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

/// Implements `gristmill_transform::Config` by the fields of a struct or the names of an enum: its JSON Schema, with the doc
/// comments as descriptions and the names that serde gives, which the host checks a pipeline's `config` against.
///
/// | on a field | |
/// |---|---|
/// | `#[config(secret)]` | blotted out of log lines, errors and messages of dead letters |
/// | `#[config(minimum = 0, maximum = 9)]` | bounds of a number |
/// | `#[serde(default)]` | it may be left out |
///
/// On the struct, `#[config(check = "Settings::check")]` names a `fn(&Settings) -> Result<(), String>` that has the last word.
#[proc_macro_derive(Config, attributes(config, serde))]
pub fn config(item: TokenStream) -> TokenStream {
    config::expand(item.into()).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Makes a component's transform of a function from a typed row to an outcome.
///
/// ```text
/// #[gristmill_transform::row(
///     name, version, outputs(..), config = ..,   // as for `record`
///     remove("internal_note", "customer.phone"), // columns that are left out, by path
///     rename("order_id" = "id"),                 // columns that get another name
/// )]
/// fn mask<'a>(
///     order: &Order<'a>,                         // #[derive(Row)]: what is read
///     ctx: &Context<Settings>,
///     out: &mut RowEdit<Masked<'a>>,             // #[derive(Columns)]: what is computed; `()` is nothing
/// ) -> Result<RowOutcome<Masked<'a>>, Reject>
/// ```
///
/// What is not named goes on as it is. Beside the function comes a module of the same name, as for `record`.
#[proc_macro_attribute]
pub fn row(arguments: TokenStream, item: TokenStream) -> TokenStream {
    row::expand(row::Takes::Row, arguments.into(), item.into())
        .unwrap_or_else(|e| e.to_compile_error())
        .into()
}

/// Makes a component's transform of a function on the whole columns of a call.
///
/// ```text
/// #[gristmill_transform::columns(..)]            // as for `row`
/// fn mask<'a>(
///     orders: &Rows<'a, Order<'a>>,              // rows and columns of what `Order`, #[derive(Row)], reads
///     ctx: &Context<Settings>,
///     out: &mut RowsEdit<'_, Masked<'a>>,        // takes a verdict on each row, in their order
/// )
/// ```
///
/// For loops that a compiler makes vectors of, and for work that many rows share. What becomes of a row must not depend on
/// the others: batches are cut anywhere. A row without a verdict, or a verdict too many, is a panic. Fields of the row that
/// are read as columns alone are dead code to the compiler: `#[expect(dead_code)]` on the row says that it is meant.
#[proc_macro_attribute]
pub fn columns(arguments: TokenStream, item: TokenStream) -> TokenStream {
    row::expand(row::Takes::Rows, arguments.into(), item.into())
        .unwrap_or_else(|e| e.to_compile_error())
        .into()
}

/// Implements `gristmill_transform::Row`: each field is read from the column of its name.
///
/// `#[row(path = "customer.email")]` reads another column, or a member of a struct. `#[row(optional)]` on an `Option`
/// reads null where there is no such column.
///
/// | field | column |
/// |---|---|
/// | `bool`, `i8` to `i64`, `u8` to `u64`, `f32`, `f64` | the same |
/// | `&str`, `&[u8]`, `&[u8; N]` | string, bytes, fixed(N) |
/// | `Decimal128<P, S>`, `Decimal`, `Decimal256` | decimal(P,S), any of up to 38 digits, any of more |
/// | `Date32`, `Date64`, `TimeSeconds` .. `TimeNanos` | the same |
/// | `TimestampSeconds` .. `TimestampNanos` | timestamp of that unit, with or without a time zone |
/// | `List<T>`, `Map<K, V>` | list, map, of any of these |
/// | a struct with `#[derive(Value)]` | struct |
/// | `Option<T>` | the same, where it may be null; without it a column that may be null is refused |
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(item: TokenStream) -> TokenStream {
    row::derive_row(item.into()).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Implements `gristmill_transform::Columns`: each field is a column that the transform computes.
///
/// `#[column(add)]` puts it after the others, under the field's name or `add = ".."`; `#[column(replace)]` puts it in the
/// place of the column of that name, or of `replace = ".."`, which may be a member of a struct.
///
/// Fields are of the types of a `Row`, or `String`, `Cow<str>`, `Vec<u8>`, `Cow<[u8]>`, `[u8; N]`, `Elements<T>` for a
/// list, `Entries<K, V>` for a map, a struct with `#[derive(Compute)]`, and `Option` of any of these; not `Decimal`,
/// `Decimal256`, `List`, `Map`.
#[proc_macro_derive(Columns, attributes(column))]
pub fn derive_columns(item: TokenStream) -> TokenStream {
    row::derive_columns(item.into()).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Implements `gristmill_transform::Value`: a column that is a struct is read as this one, member by member, by name.
///
/// `#[value(name = "..")]` reads a member of another name; `#[value(optional)]` on an `Option` reads null where there is no
/// such member. Fields are of the types of a `Row`; members that no field names are left aside.
#[proc_macro_derive(Value, attributes(value))]
pub fn derive_value(item: TokenStream) -> TokenStream {
    structs::derive_value(item.into()).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Implements `gristmill_transform::Compute`: a column of this struct is computed, with a member for each field.
///
/// `#[compute(name = "..")]` gives a member another name. Fields are of the types of `Columns`.
#[proc_macro_derive(Compute, attributes(compute))]
pub fn derive_compute(item: TokenStream) -> TokenStream {
    structs::derive_compute(item.into()).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// The transform's code for this machine, as `gristmill transform bench --native` asks for it.
fn native(exports: &proc_macro2::TokenStream) -> Option<proc_macro2::TokenStream> {
    std::env::var_os("GRISTMILL_NATIVE_EXPORT")?;
    Some(quote! {
        #[cfg(not(target_arch = "wasm32"))]
        #[unsafe(no_mangle)]
        pub static GRISTMILL_NATIVE: ::gristmill_transform::private::NativeExports =
            ::gristmill_transform::private::NativeExports::#exports;
    })
}
