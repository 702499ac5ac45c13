//! What a schema asks of objects that are written from columns.

use std::collections::HashSet;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, FieldRef, Fields, Schema};

use super::documents::Documents;
use super::shape::{Kind, Shape, Written};
use super::walk::Walk;
use super::{invalid, no_object};
use crate::error::{Error, ErrorKind, Result, joined};
use crate::field_spec::is_text;

/// How objects of a JSON Schema are written from columns, as far as the schema says it.
#[derive(Debug, Clone)]
pub(crate) struct Writing {
    root: Shape,
    /// Nulls are written, else left out.
    pub(crate) nulls: bool,
}

impl Writing {
    /// Why rows cannot be written so that the schema has them, if they cannot: a null that it does not have.
    pub(crate) fn unfit(&self, rows: &RecordBatch) -> Option<String> {
        let Kind::Object { fields, required } = &self.root.kind else { return None };
        let columns = rows.schema_ref().fields().iter().zip(rows.columns());
        self.members("", columns, fields, required, None)
    }

    fn members<'a>(
        &self,
        path: &str,
        mut columns: impl Iterator<Item = (&'a FieldRef, &'a ArrayRef)>,
        fields: &[(String, Shape)],
        required: &HashSet<String>,
        parent: Option<&NullBuffer>,
    ) -> Option<String> {
        columns.find_map(|(column, values)| {
            let (name, shape) = fields.iter().find(|(name, _)| name == column.name())?;
            let may_be_null = if self.nulls { shape.nullable } else { !required.contains(name) };
            self.look(&joined(path, name), values, shape, may_be_null, parent)
        })
    }

    fn look(
        &self,
        path: &str,
        values: &ArrayRef,
        shape: &Shape,
        may_be_null: bool,
        parent: Option<&NullBuffer>,
    ) -> Option<String> {
        let nulls = values.logical_nulls();
        let is_there = |row: usize| parent.is_none_or(|parent| parent.is_valid(row));
        let null = nulls.as_ref().filter(|_| !may_be_null);
        if null.is_some_and(|nulls| (0..values.len()).any(|row| nulls.is_null(row) && is_there(row))) {
            let why = match shape.nullable {
                true => "the property is required beside others that may be left out and not be null",
                false => "the property cannot be null",
            };
            return Some(format!("the column `{path}`: it has a null, and {why}"));
        }
        let valid = NullBuffer::union(nulls.as_ref(), parent);
        match (&shape.kind, values.data_type()) {
            (Kind::Object { fields, required }, DataType::Struct(columns)) => {
                let columns = columns.iter().zip(values.as_struct().columns());
                self.members(path, columns, fields, required, valid.as_ref())
            }
            (Kind::List(item), DataType::List(_)) => {
                let list = values.as_list::<i32>();
                // Nulls of lists are always written.
                self.look(&format!("{path}[]"), list.values(), item, item.nullable, None)
            }
            (Kind::Map(value), DataType::Map(..)) => {
                let may_be_null = self.nulls && value.nullable;
                self.look(&format!("{path}[]"), values.as_map().values(), value, may_be_null, None)
            }
            _ => None,
        }
    }
}

/// That columns may become objects that a JSON Schema describes: each is a property of its type, and what is required is there.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`], with the column; [`ErrorKind::UnsupportedType`] for one of another type.
pub(crate) fn writing<'a>(
    columns: &Schema,
    schema: &str,
    references: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Writing> {
    let documents = Documents::parse(schema, references)?;
    let root = Walk::new(&documents).root()?;
    let Kind::Object { fields, required } = &root.kind else { return Err(no_object()) };
    fits_object("", columns.fields(), fields, required)?;
    let mut found = Nulls::default();
    found.look(&root);
    // Both at once cannot be written: then no null is, and what needs one is refused.
    let nulls = found.has_to_be && !found.may_not_be;
    Ok(Writing { root, nulls })
}

/// What properties of a schema, at any depth, ask of nulls.
#[derive(Default)]
struct Nulls {
    /// One is required and may be null.
    has_to_be: bool,
    /// One may be left out and not be null.
    may_not_be: bool,
}

impl Nulls {
    fn look(&mut self, shape: &Shape) {
        match &shape.kind {
            Kind::Object { fields, required } => {
                for (name, shape) in fields {
                    let is_required = required.contains(name);
                    self.has_to_be |= is_required && shape.nullable;
                    self.may_not_be |= !is_required && !shape.nullable;
                    self.look(shape);
                }
            }
            Kind::List(item) => self.look(item),
            Kind::Map(value) => {
                self.has_to_be |= value.nullable;
                self.look(value);
            }
            Kind::Null | Kind::Any(_) | Kind::Several | Kind::Value(..) => {}
        }
    }
}

fn fits_object(
    path: &str,
    columns: &Fields,
    fields: &[(String, Shape)],
    required: &HashSet<String>,
) -> Result<()> {
    for column in columns {
        let path = joined(path, column.name());
        let Some((_, shape)) = fields.iter().find(|(name, _)| name == column.name()) else {
            let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
            return Err(invalid(format!(
                "the column `{path}` has no property in the JSON Schema, which has {}; leave the column out, or register a schema with it",
                names.join(", ")
            )));
        };
        fits(&path, column.data_type(), shape)?;
    }
    let missing = fields.iter().find(|(name, _)| required.contains(name) && columns.find(name).is_none());
    match missing {
        Some((name, _)) => Err(invalid(format!(
            "the property `{}` is required, and there is no such column",
            joined(path, name)
        ))),
        None => Ok(()),
    }
}

fn fits(path: &str, column: &DataType, shape: &Shape) -> Result<()> {
    let fits = match (&shape.kind, column) {
        (_, DataType::Null) => true,
        (Kind::Object { fields, required }, DataType::Struct(columns)) => {
            return fits_object(path, columns, fields, required);
        }
        (Kind::List(item), DataType::List(column) | DataType::LargeList(column)) => {
            return self::fits(&format!("{path}[]"), column.data_type(), item);
        }
        (Kind::Map(value), DataType::Map(entries, _)) => {
            return match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => {
                    self::fits(&format!("{path}[]"), pair[1].data_type(), value)
                }
                _ => Ok(()),
            };
        }
        (Kind::Value(written, of), column) => match written {
            Written::Text => match of {
                DataType::Timestamp(..) => {
                    matches!(column, DataType::Timestamp(_, Some(_))) || is_text(column)
                }
                DataType::Date32 => matches!(column, DataType::Date32 | DataType::Date64) || is_text(column),
                _ => is_text(column),
            },
            Written::Integer => column.is_integer(),
            // More digits than a float has are written as texts.
            Written::Number => {
                column.is_integer()
                    || column.is_floating()
                    || matches!(column, DataType::Decimal128(..=15, _))
            }
            Written::Boolean => *column == DataType::Boolean,
        },
        _ => false,
    };
    match fits {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::UnsupportedType,
            format!("the column `{path}`: it is {column}, and the property is {}", shape.kind.name()),
        )),
    }
}
