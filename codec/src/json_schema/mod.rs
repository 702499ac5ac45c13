//! JSON Schemas as Arrow columns: which types objects have that a schema describes.

mod documents;
mod shape;
mod walk;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};

use crate::error::{Error, ErrorKind, Result, at_field};
use documents::Documents;
use shape::{Kind, arrow_fields};
use walk::Walk;
pub(crate) use writing::{Writing, writing};

/// The columns of objects that a JSON Schema describes, for a [`JsonDecoder`](crate::JsonDecoder) to read them by; any draft.
///
/// `references` are name and text of the schemas that it refers to, and that those refer to.
///
/// | JSON Schema | Arrow |
/// |---|---|
/// | `integer` | `Int64`; by Kafka Connect's `connect.type` `Int8` to `Int32` |
/// | `number` | `Float64`; `Float32` by `connect.type`, `Decimal128` where Connect says that it is one |
/// | `boolean`, `string` | `Boolean`, `Utf8` |
/// | `string` with the format `date-time`, `date` | `Timestamp(us, UTC)`, `Date32` |
/// | Connect's `Date`, `Timestamp` | `Date32`, `Timestamp(ms, UTC)` |
/// | `array` with one schema for items | `List` |
/// | `object` with `properties` | `Struct`; members without a property are left out |
/// | `object` with `additionalProperties` alone | `Map` |
/// | `enum`, `const` | the type of the values |
/// | `null` or one other type, in any way | the type, nullable |
///
/// Not null is what is `required` and cannot be `null`. `allOf`, and what stands beside `$ref`, `oneOf` or `anyOf`, is all of it at
/// once; of objects that are one of several, each property has a column. What has several types, none, or contains itself has no
/// column of a type: `as_json` makes it a text of JSON, and without it is refused.
///
/// Schemas only say which columns there are: what else they ask of values (`minimum`, `pattern`) is not looked at.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`] if a text is not a JSON Schema of objects, or a reference leads nowhere;
/// [`ErrorKind::UnsupportedType`] for what has no column. Both name the field.
pub fn json_schema_columns<'a>(
    schema: &str,
    references: impl IntoIterator<Item = (&'a str, &'a str)>,
    as_json: bool,
) -> Result<SchemaRef> {
    let documents = Documents::parse(schema, references)?;
    let root = Walk::new(&documents).root()?;
    let Kind::Object { fields, required } = root.kind else {
        return Err(match root.kind {
            Kind::Any(why) => unsupported("", &why),
            _ => no_object(),
        });
    };
    Ok(Arc::new(Schema::new(arrow_fields("", &fields, &required, as_json)?)))
}

/// What a JSON Schema says, in `description`, of itself (the empty path) and of the fields that columns are made of, by dotted
/// path.
///
/// # Errors
///
/// As for [`json_schema_columns`].
pub fn json_schema_descriptions<'a>(
    schema: &str,
    references: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<String, String>> {
    let documents = Documents::parse(schema, references)?;
    let mut told = BTreeMap::new();
    Walk::new(&documents).describe("", documents.root(), &mut told);
    Ok(told)
}

fn no_object() -> Error {
    invalid(
        "the schema does not describe an object with `properties`, so it has no fields to make columns of",
    )
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidSchema, message)
}

fn unsupported(path: &str, why: &str) -> Error {
    let told =
        format!("{why}, so it has no Arrow column of one type; `recursive: json` makes it a text of JSON");
    Error::new(ErrorKind::UnsupportedType, at_field(path, told))
}
