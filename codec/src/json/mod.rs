//! JSON objects to Arrow columns against a declared schema.

mod columns;
mod explain;
mod scalars;
mod syntax;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_json::ReaderBuilder;
use arrow_schema::{DataType, Field, SchemaRef};

use crate::decoded::{Cause, Decoded, Fault, Sorting, isolate, remove_rows};
use crate::error::{Error, ErrorKind, Result};
use crate::framing::{self, SchemaId, Value};
use crate::raw::check_total;
use columns::ExactColumns;

/// How a [`JsonDecoder`] reads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JsonOptions {
    /// Refuse a record that has a member which the schema does not declare, at any depth.
    /// By default such members are ignored.
    pub strict: bool,
    /// Let reasons quote the record. Off by default: reasons go to logs and dead letters, which more
    /// people may read than the topic.
    pub show_values: bool,
    /// Skip the Schema Registry's prefix (a zero byte and four bytes of schema id) where a value has it.
    /// By default such a value is undecodable.
    pub registry_prefix: bool,
    /// Say which schema ids in front of values are new, by [`JsonDecoder::missing_schemas`]. Off by default: JSON is read without
    /// them.
    pub schema_ids: bool,
    /// How deep objects and arrays may nest, the record itself being 1. Default 64, at most 128.
    pub max_depth: usize,
}

impl Default for JsonOptions {
    fn default() -> Self {
        Self { strict: false, show_values: false, registry_prefix: false, schema_ids: false, max_depth: 64 }
    }
}

/// Decodes JSON objects, one a record, straight to Arrow columns.
///
/// # What fits
///
/// - A value is exactly one JSON object (RFC 8259). Bytes after it, several objects, a bare array or
///   scalar, an empty value: undecodable. A null value (tombstone) is undecodable with
///   [`Cause::NullValue`], so that the caller can apply a policy of its own.
/// - Members are matched by name; of several with one name the last counts. Missing and `null` are the
///   same, and fit every field that is not declared `not null`.
/// - Numbers are exact: no fraction is cut off an integer, no digit rounded off a decimal, and no float
///   overflows to infinity. `1.0` and `1e3` are integers. A number in quotes is a number too.
/// - Time stamps: a whole number in the declared unit, or RFC 3339 text with `Z` or an offset (digits
///   below the unit are dropped). Dates: `2026-11-22`, or days since 1970-01-01.
/// - Strings take strings only, bools `true` and `false` only.
///
/// # Cost
///
/// A batch without a type mismatch is decoded once. Otherwise every row is looked at once to find the
/// culprits, and the rest is decoded again: about three times the cost, however many they are.
#[derive(Debug, Clone)]
pub struct JsonDecoder {
    schema: SchemaRef,
    options: JsonOptions,
    /// Ids of writer schemas that were seen.
    writers: BTreeSet<SchemaId>,
}

impl JsonDecoder {
    /// A decoder for objects with the fields of `schema`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnsupportedType`] for a type that JSON text has no agreed form for here (bytes,
    /// dictionaries, unions, views and so on), with the path of the field; [`ErrorKind::InvalidSchema`]
    /// for a schema without fields or with one name twice.
    pub fn new(schema: SchemaRef, options: JsonOptions) -> Result<Self> {
        if schema.fields().is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidSchema,
                "the schema declares no fields; declare at least one",
            ));
        }
        check_fields(schema.fields(), "")?;
        let options = JsonOptions { max_depth: options.max_depth.clamp(1, 128), ..options };
        Ok(Self { schema, options, writers: BTreeSet::new() })
    }

    /// The Arrow schema of every batch this decoder makes: the one it was given.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The ids of writer schemas in front of these values that [`add_writer_schema`](Self::add_writer_schema) was not told of,
    /// ascending; none without [`schema_ids`](JsonOptions::schema_ids).
    pub fn missing_schemas<'a, V: Into<Value<'a>>>(
        &self,
        values: impl IntoIterator<Item = Option<V>>,
    ) -> Vec<SchemaId> {
        match self.options.schema_ids {
            true => framing::unknown_ids(values, |id| self.writers.contains(&id)),
            false => Vec::new(),
        }
    }

    /// Says that a writer schema is known.
    pub fn add_writer_schema(&mut self, id: impl Into<SchemaId>) {
        self.writers.insert(id.into());
    }

    /// Decodes rows of (tag, value). No row costs another; see [`Decoded`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] if the values add up to more than 2 GiB.
    pub fn decode<'a, V: Into<Value<'a>>>(
        &mut self,
        rows: impl IntoIterator<Item = (u64, Option<V>)>,
    ) -> Result<Decoded> {
        let mut sorting = Sorting::default();
        let mut texts: Vec<Cow<'_, [u8]>> = Vec::new();
        let mut total = 0u64;
        for (tag, value) in rows {
            match self.text(value.map(Into::into)) {
                Err(fault) => sorting.refuse(tag, fault),
                Ok(text) => {
                    total += text.len() as u64;
                    check_total(total)?;
                    sorting.accept(tag);
                    texts.push(text);
                }
            }
        }
        let mut batch = self.columns(&texts);
        if batch.is_none() {
            let mismatches = texts.iter().enumerate().filter_map(|(i, text)| Some((i, self.mismatch(text)?)));
            let mismatches: Vec<(usize, Fault)> = mismatches.collect();
            let bad: Vec<usize> = mismatches.iter().map(|(i, _)| *i).collect();
            sorting.withdraw(mismatches);
            remove_rows(&mut texts, &bad);
            batch = self.columns(&texts);
        }
        if batch.is_none() {
            // Something that cannot be explained; the rows that it sits in can be found all the same.
            let bad = isolate(texts.len(), |range| self.columns(&texts[range]).is_some());
            let fault = Fault::new(Cause::Mismatch, "the object does not fit the declared schema");
            sorting.withdraw(bad.iter().map(|&i| (i, fault.clone())));
            remove_rows(&mut texts, &bad);
            batch = self.columns(&texts);
        }
        let batch = batch.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "rows that fit one by one do not fit together; decode fewer rows at once",
            )
        })?;
        Ok(sorting.finish(batch))
    }

    /// The JSON text of a value, known to be one well-formed object.
    fn text<'a>(&self, value: Option<Value<'a>>) -> Result<Cow<'a, [u8]>, Fault> {
        let text = match framing::there(value)?.bytes {
            [0, _, _, _, _, text @ ..] if self.options.registry_prefix => text,
            [1, rest @ ..] if self.options.registry_prefix && rest.len() >= 16 => &rest[16..],
            [0, _, _, _, _, ..] => {
                return Err(Fault::new(
                    Cause::Malformed,
                    "the value starts with the Schema Registry's prefix, not with JSON: its format is JSON Schema",
                ));
            }
            value => value,
        };
        match syntax::check_object(text, self.options.max_depth) {
            Ok(text) => Ok(text),
            Err(fault) => Err(Fault::new(
                Cause::Malformed,
                format!("not one JSON object: {} at byte {}", fault.what, fault.at),
            )),
        }
    }

    /// All rows as columns, or `None` if any of them does not fit the schema.
    fn columns(&self, texts: &[Cow<'_, [u8]>]) -> Option<RecordBatch> {
        if texts.is_empty() {
            return Some(RecordBatch::new_empty(self.schema.clone()));
        }
        // A decoder that refused a batch cannot be used again, and a new one costs little beside a batch.
        let mut decoder = ReaderBuilder::new(self.schema.clone())
            .with_batch_size(texts.len())
            .with_strict_mode(self.options.strict)
            .with_decoder_factory(Arc::new(ExactColumns))
            .build_decoder()
            .ok()?;
        for (i, text) in texts.iter().enumerate() {
            let read = decoder.decode(text).ok()?;
            if decoder.len() != i + 1 || decoder.has_partial_record() || read < text.trim_ascii_end().len() {
                return None;
            }
        }
        let batch = decoder.flush().ok()??;
        (batch.num_rows() == texts.len()).then_some(batch)
    }

    /// Why a well-formed object does not fit the schema, if it does not.
    fn mismatch(&self, text: &[u8]) -> Option<Fault> {
        let text = std::str::from_utf8(text).ok()?;
        let (strict, show_values) = (self.options.strict, self.options.show_values);
        let reason = explain::explain(text, self.schema.fields(), strict, show_values)?;
        Some(Fault::new(Cause::Mismatch, reason))
    }
}

fn check_fields<'a>(fields: impl IntoIterator<Item = &'a Arc<Field>>, path: &str) -> Result<()> {
    let mut names = std::collections::HashSet::new();
    for field in fields {
        let path = if path.is_empty() { field.name().clone() } else { format!("{path}.{}", field.name()) };
        if !names.insert(field.name()) {
            return Err(Error::new(ErrorKind::InvalidSchema, format!("field {path}: declared twice")));
        }
        check_type(field.data_type(), &path)?;
    }
    Ok(())
}

fn check_type(data_type: &DataType, path: &str) -> Result<()> {
    match data_type {
        DataType::Struct(fields) => check_fields(fields, path),
        DataType::List(element) => check_type(element.data_type(), &format!("{path}[]")),
        DataType::Map(entries, false) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 && *pair[0].data_type() == DataType::Utf8 => {
                check_type(pair[1].data_type(), &format!("{path}[]"))
            }
            _ => Err(unsupported(data_type, path)),
        },
        DataType::Boolean | DataType::Utf8 => Ok(()),
        DataType::Decimal128(_, scale) if *scale < 0 => Err(unsupported(data_type, path)),
        scalar => match columns::scalar_fits(scalar, columns::Token::Number("0")) {
            Some(_) => Ok(()),
            None => Err(unsupported(data_type, path)),
        },
    }
}

fn unsupported(data_type: &DataType, path: &str) -> Error {
    Error::new(
        ErrorKind::UnsupportedType,
        format!(
            "field {path}: JSON cannot be read as {data_type}; declare it as string and convert it in a transform"
        ),
    )
}
