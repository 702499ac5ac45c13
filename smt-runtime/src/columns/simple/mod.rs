//! The columns of a transform of the world `simple-transform`: it names paths and types, and gets and answers lists of
//! plain values. What it binds is brought to the form of a `column-transform`, so that all behind it is the same.

mod answer;
mod given;

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, TimeUnit};
use gristmill_codec::SchemaSpec;
use gristmill_records::EditWriter;

use super::binding::Offered;
use super::fields::{MAX_FIELDS, flatten};
use crate::call::Failure;
use crate::contract::{Binding, SimpleBinding, columns, simple};

pub(super) use answer::arrays;
pub(super) use given::given;

/// A binding as a `column-transform` would have answered it.
pub(super) struct Translated {
    pub(super) binding: Binding,
    /// For each column that the guest reads, the position of its array; none if there is no such column.
    pub(super) slots: Vec<Option<usize>>,
}

impl Offered {
    /// The columns, as the guest is told of them.
    pub(crate) fn typed_columns(&self) -> Vec<simple::TypedColumn> {
        let columns = self.places.iter().filter(|place| !place.inside);
        columns
            .map(|place| {
                let field = self.field_at(&place.path);
                let not_null = if field.is_nullable() { "" } else { " not null" };
                let data_type = format!("{}{not_null}", type_name(field.data_type()));
                simple::TypedColumn { path: place.name.clone(), data_type }
            })
            .collect()
    }

    /// # Errors
    /// All that does not fit the columns, with the nearest name where one is not there.
    pub(super) fn translate(&self, simple: &SimpleBinding) -> Result<Translated, String> {
        let lists = [simple.reads.len(), simple.removes.len(), simple.renames.len()];
        let named = lists.iter().sum::<usize>() + simple.replaces.len() + simple.adds.len();
        if named > MAX_FIELDS {
            return Err(format!("it names {named} columns, {MAX_FIELDS} are allowed"));
        }
        let mut wrong = Mistakes::default();
        let (mut reads, mut slots) = (Vec::new(), Vec::new());
        for read in &simple.reads {
            match self.find(&read.path, "") {
                Err(_) if read.optional => slots.push(None),
                Err(missing) => wrong.push(missing)?,
                Ok(number) => {
                    if let Some(unlike) = read.data_type.as_deref().and_then(|t| self.unlike(number, t)) {
                        wrong.push(unlike)?;
                    }
                    slots.push(Some(reads.len()));
                    reads.push(number);
                }
            }
        }
        let (mut changes, mut computed) = (Vec::new(), Vec::new());
        for path in &simple.removes {
            match self.find(path, " to remove") {
                Ok(number) => changes.push(columns::Change::Remove(number)),
                Err(missing) => wrong.push(missing)?,
            }
        }
        for simple::SimpleRename { path, name } in &simple.renames {
            match self.find(path, " to rename") {
                Ok(field) => {
                    changes.push(columns::Change::Rename(columns::Rename { field, name: name.clone() }));
                }
                Err(missing) => wrong.push(missing)?,
            }
        }
        for column in &simple.replaces {
            match self.find(&column.path, " to replace") {
                Ok(number) => {
                    changes.push(columns::Change::Replace(number));
                    match typed(column, &self.fields[number as usize].name) {
                        Ok(fields) => computed.extend(fields),
                        Err(e) => wrong.push(e)?,
                    }
                }
                // Said of what is read already.
                Err(_) if simple.reads.iter().any(|read| !read.optional && read.path == column.path) => {}
                Err(missing) => wrong.push(missing)?,
            }
        }
        for column in &simple.adds {
            changes.push(columns::Change::Add);
            match typed(column, &column.path) {
                Ok(fields) => computed.extend(fields),
                Err(e) => wrong.push(e)?,
            }
        }
        match wrong.0.is_empty() {
            true => Ok(Translated { binding: Binding { reads, changes, computed }, slots }),
            false => Err(wrong.0.join("; ")),
        }
    }

    /// The number of a field; that there is none `wanted` for something, and the nearest name.
    fn find(&self, path: &str, wanted: &str) -> Result<u32, String> {
        let outside = || self.places.iter().enumerate().filter(|(_, place)| !place.inside);
        if let Some((number, _)) = outside().find(|(_, place)| place.name == path) {
            return Ok(number as u32);
        }
        let shown: String = path.chars().take(100).collect();
        let distance = |name: &str| strsim::damerau_levenshtein(name, &shown);
        let nearest = outside().map(|(_, place)| (distance(&place.name), place.name.as_str())).min();
        Err(match nearest {
            Some((steps, nearest)) if steps <= 2 + shown.len() / 4 => {
                format!("there is no column {shown}{wanted}; the nearest is {nearest}")
            }
            _ => {
                let names: Vec<&str> = outside().map(|(_, place)| place.name.as_str()).take(20).collect();
                format!("there is no column {shown}{wanted}; there are {}", names.join(", "))
            }
        })
    }

    /// What is wrong if the column is read as another type than its own.
    fn unlike(&self, number: u32, wanted: &str) -> Option<String> {
        let place = &self.places[number as usize];
        let name = &place.name;
        let shown: String = wanted.chars().take(100).collect();
        let (wanted, not_null) = match wanted.trim().strip_suffix("not null") {
            Some(wanted) => (wanted.trim(), true),
            None => (wanted.trim(), false),
        };
        let is = type_name(self.field_at(&place.path).data_type());
        if is != wanted {
            return Some(format!("column {name} is {is}, the transform reads it as {shown}"));
        }
        let may_be_null =
            (1..=place.path.len()).any(|depth| self.field_at(&place.path[..depth]).is_nullable());
        (not_null && may_be_null)
            .then(|| format!("column {name} may be null, the transform reads it as {shown}"))
    }

    fn field_at(&self, path: &[usize]) -> &Field {
        let mut field = self.schema.field(path[0]);
        for member in &path[1..] {
            if let DataType::Struct(members) = field.data_type() {
                field = &members[*member];
            }
        }
        field
    }
}

/// What does not fit; the first ones are enough.
#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn push(&mut self, what: String) -> Result<(), String> {
        self.0.push(what);
        if self.0.len() < 20 { Ok(()) } else { Err(self.0.join("; ")) }
    }
}

/// The contract's fields of a column to compute.
fn typed(column: &simple::TypedColumn, name: &str) -> Result<Vec<columns::Field>, String> {
    let wrong = |what: String| {
        let path: String = column.path.chars().take(100).collect();
        format!("the computed column {path}: {what}")
    };
    let spec = serde_json::json!({"value": column.data_type});
    let spec: SchemaSpec = serde_json::from_value(spec).map_err(|e| wrong(e.to_string()))?;
    let schema = spec.arrow_schema().map_err(|mistakes| {
        let said: Vec<&str> = mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
        wrong(said.join("; "))
    })?;
    let (mut fields, _) = flatten(schema.fields()).map_err(wrong)?;
    name.clone_into(&mut fields[0].name);
    Ok(fields)
}

/// A type as a pipeline file writes it, and those that none can declare in the same manner.
fn type_name(of: &DataType) -> String {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    let within = |field: &FieldRef| {
        let not_null = if field.is_nullable() { "" } else { " not null" };
        format!("{}{not_null}", type_name(field.data_type()))
    };
    match of {
        DataType::Utf8 => "string".into(),
        DataType::Binary => "bytes".into(),
        DataType::Boolean => "bool".into(),
        DataType::FixedSizeBinary(width) => format!("fixed({width})"),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision},{scale})")
        }
        DataType::Date32 => "date".into(),
        DataType::Time32(u) | DataType::Time64(u) => format!("time_{}", unit(u)),
        DataType::Timestamp(u, Some(_)) => format!("timestamp_{}", unit(u)),
        DataType::Timestamp(u, None) => format!("local_timestamp_{}", unit(u)),
        DataType::List(element) => format!("list<{}>", within(element)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(members) if members.len() == 2 => format!("map<{}>", within(&members[1])),
            _ => "map".into(),
        },
        DataType::Struct(_) => "struct".into(),
        // Of integers, floats and date64.
        plain => plain.to_string().to_lowercase(),
    }
}

/// The edit list that the verdicts stand for.
pub(super) fn edits(verdicts: &[simple::Verdict]) -> Result<(Vec<u32>, Vec<u8>), Failure> {
    let mut writer = EditWriter::new();
    let mut rest = verdicts.iter().peekable();
    while let Some(verdict) = rest.next() {
        while let Some(simple::Verdict::Emit(output)) = rest.peek() {
            writer.emit(*output, None, None, [], None);
            rest.next();
        }
        match verdict {
            simple::Verdict::Keep => writer.keep(),
            simple::Verdict::Drop => writer.drop_row(),
            simple::Verdict::Route(output) => {
                writer.route(*output);
                writer.keep();
            }
            simple::Verdict::Reject(rejection) => writer.reject(&rejection.code, &rejection.message),
            simple::Verdict::Emit(_) => {
                return Err(Failure::InvalidEdits("a row is emitted before the first verdict".into()));
            }
        }
    }
    Ok(writer.finish())
}

/// A schema of one column, for what goes through JSON.
fn schema_of(field: &Field) -> Arc<Schema> {
    Arc::new(Schema::new(vec![field.clone().with_name(VALUE)]))
}

const VALUE: &str = "v";
