//! What a transform answers to the columns of its stream: which it reads, and what becomes of them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StructArray, cast::AsArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use super::fields::{Place, flatten, unflatten};
use crate::contract::{Binding, SimpleBinding, columns};

/// The columns of a stream, as a transform is told of them.
pub(crate) struct Offered {
    pub(super) schema: SchemaRef,
    pub(crate) fields: Vec<columns::Field>,
    pub(super) places: Vec<Place>,
}

/// What a transform said to the columns: a fresh instance has to say the same.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Columns(Binding),
    Simple(SimpleBinding),
}

/// What a transform has bound to the columns of a stream.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) answer: Answer,
    /// For each column that a simple transform reads, the position of its array in what is read.
    pub(super) slots: Vec<Option<usize>>,
    pub(super) wide_as_texts: bool,
    /// For each computed column, where the one is that it replaces.
    replaced: Vec<Option<Vec<usize>>>,
    pub(super) reads: Vec<Vec<usize>>,
    pub(super) computed: Vec<FieldRef>,
    columns: Vec<Column>,
    pub(super) input: SchemaRef,
    pub(super) output: SchemaRef,
}

/// A column of the output, or a member of a struct that changes.
#[derive(Debug)]
struct Column {
    field: FieldRef,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The input's, by its position in its level.
    Input(usize),
    /// A computed one.
    Computed(usize),
    /// A struct of the input with other members.
    Struct(usize, Vec<Column>),
}

impl Offered {
    /// # Errors
    /// A column of a type that transforms cannot take.
    pub(crate) fn new(schema: SchemaRef) -> Result<Self, String> {
        let (fields, places) = flatten(schema.fields())?;
        Ok(Offered { schema, fields, places })
    }

    /// Checks what a guest answered.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    ///
    /// With `for_some`, other rows pass the transform by: what it replaces keeps its type, and what it adds may be null.
    pub(crate) fn bind(&self, answer: Answer, for_some: bool) -> Result<Bound, String> {
        let translated;
        let (binding, slots, wide_as_texts) = match &answer {
            Answer::Columns(binding) => (binding, Vec::new(), false),
            Answer::Simple(simple) => {
                translated = self.translate(simple)?;
                (&translated.binding, translated.slots, simple.wide_integers_as_texts)
            }
        };
        let mut reads = Vec::with_capacity(binding.reads.len());
        for (i, field) in binding.reads.iter().enumerate() {
            let place = self.place(*field, "reads")?;
            if binding.reads[..i].contains(field) {
                return Err(format!("it reads the field {} twice", place.name));
            }
            reads.push(place.path.clone());
        }
        let computed = unflatten(&binding.computed)?;
        let mut plan =
            Plan { offered: self, changes: vec![None; self.fields.len()], computed: &computed, for_some };
        let mut replaced = vec![None; computed.len()];
        let mut added = Vec::new();
        let mut next = 0;
        for change in &binding.changes {
            let mut take = || {
                next += 1;
                match next <= computed.len() {
                    true => Ok(next - 1),
                    false => {
                        Err(format!("it changes more columns than the {} that it computes", computed.len()))
                    }
                }
            };
            match change {
                columns::Change::Remove(field) => plan.change(*field, Planned::Remove, "removes")?,
                columns::Change::Rename(rename) => {
                    plan.change(rename.field, Planned::Rename(&rename.name), "renames")?;
                }
                columns::Change::Replace(field) => {
                    let with = take()?;
                    plan.change(*field, Planned::Replace(with), "replaces")?;
                    replaced[with] = Some(self.places[*field as usize].path.clone());
                }
                columns::Change::Add => added.push(take()?),
            }
        }
        if next < computed.len() {
            return Err(format!("it computes {} columns and uses {next}", computed.len()));
        }
        let mut at = 0;
        let mut columns = plan.level(self.schema.fields(), &mut at)?;
        let add = |k: usize| {
            let field = computed[k].as_ref().clone();
            let nullable = for_some || field.is_nullable();
            Column { field: Arc::new(field.with_nullable(nullable)), source: Source::Computed(k) }
        };
        columns.extend(added.into_iter().map(add));
        if columns.is_empty() {
            return Err("it removes all columns".into());
        }
        let fields = distinct(&columns, "the output")?;
        let output = Arc::new(Schema::new_with_metadata(fields, self.schema.metadata().clone()));
        let input = self.schema.clone();
        Ok(Bound { reads, computed, columns, input, output, slots, wide_as_texts, replaced, answer })
    }

    fn place(&self, field: u32, verb: &str) -> Result<&Place, String> {
        match self.places.get(field as usize) {
            None => Err(format!("it {verb} field {field}, there are {}", self.places.len())),
            Some(place) if place.inside => Err(format!(
                "it {verb} {}, which is inside a list or a map: only these as a whole",
                place.name
            )),
            Some(place) => Ok(place),
        }
    }
}

#[derive(Clone, Copy)]
enum Planned<'a> {
    Remove,
    Rename(&'a str),
    Replace(usize),
}

struct Plan<'a> {
    offered: &'a Offered,
    /// By field.
    changes: Vec<Option<Planned<'a>>>,
    computed: &'a [FieldRef],
    for_some: bool,
}

impl<'a> Plan<'a> {
    fn change(&mut self, field: u32, change: Planned<'a>, verb: &str) -> Result<(), String> {
        let place = self.offered.place(field, verb)?;
        let slot = &mut self.changes[field as usize];
        if slot.replace(change).is_some() {
            return Err(format!("it changes the field {} twice", place.name));
        }
        Ok(())
    }

    /// What becomes of the fields of one level; `at` is the number of its first one, and then of what follows it.
    fn level(&self, fields: &Fields, at: &mut usize) -> Result<Vec<Column>, String> {
        let mut columns = Vec::with_capacity(fields.len());
        for (i, field) in fields.iter().enumerate() {
            let number = *at;
            let end = number + 1 + descendants(field);
            let inner = self.changes[number + 1..end].iter().any(Option::is_some);
            let name = &self.offered.places[number].name;
            match self.changes[number] {
                Some(_) if inner => {
                    return Err(format!("it changes both the field {name} and one of its members"));
                }
                Some(Planned::Remove) => {}
                Some(Planned::Rename(new)) => {
                    let field = Arc::new(field.as_ref().clone().with_name(new));
                    columns.push(Column { field, source: Source::Input(i) });
                }
                Some(Planned::Replace(k)) => {
                    let mut with = self.computed[k].clone();
                    if self.for_some {
                        if with.data_type() != field.data_type() {
                            return Err(format!(
                                "it replaces {name}, which is {}, by {}: where some rows pass a transform by, a column that \
                                 it replaces keeps its type",
                                field.data_type(),
                                with.data_type()
                            ));
                        }
                        let nullable = with.is_nullable() || field.is_nullable();
                        with = Arc::new(with.as_ref().clone().with_nullable(nullable));
                    }
                    columns.push(Column { field: with, source: Source::Computed(k) });
                }
                None if inner => {
                    let DataType::Struct(members) = field.data_type() else {
                        return Err(format!("it changes what is inside {name}"));
                    };
                    *at = number + 1;
                    let members = self.level(members, at)?;
                    if members.is_empty() {
                        return Err(format!("it removes all members of {name}: remove {name} itself"));
                    }
                    let fields = distinct(&members, name)?;
                    let field = field.as_ref().clone().with_data_type(DataType::Struct(fields));
                    columns.push(Column { field: Arc::new(field), source: Source::Struct(i, members) });
                }
                None => columns.push(Column { field: field.clone(), source: Source::Input(i) }),
            }
            *at = end;
        }
        Ok(columns)
    }
}

fn descendants(field: &Field) -> usize {
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().map(|f| 1 + descendants(f)).sum(),
        DataType::List(child) | DataType::Map(child, _) => 1 + descendants(child),
        _ => 0,
    }
}

fn distinct(columns: &[Column], place: &str) -> Result<Fields, String> {
    let mut names = std::collections::HashSet::new();
    for column in columns {
        let name = column.field.name();
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            return Err(format!("a name in {place} is not 1 to 255 bytes without control characters"));
        }
        if !names.insert(name) {
            return Err(format!("{place} would have two fields {name}"));
        }
    }
    Ok(columns.iter().map(|c| c.field.clone()).collect())
}

impl Bound {
    /// The arrays that are read, with the nulls of each and of what it is in.
    pub(super) fn read(&self, batch: &RecordBatch) -> Vec<(ArrayRef, Option<NullBuffer>)> {
        let read = |path: &Vec<usize>| {
            let mut array = batch.column(path[0]).clone();
            let mut nulls = array.nulls().cloned();
            for member in &path[1..] {
                array = array.as_struct().column(*member).clone();
                nulls = NullBuffer::union(nulls.as_ref(), array.nulls());
            }
            (array, nulls)
        };
        self.reads.iter().map(read).collect()
    }

    /// Number and dotted name of each field that is read.
    pub(super) fn fields_read(&self) -> Vec<(u32, String)> {
        let (_, places) = flatten(self.input.fields()).unwrap_or_default();
        let numbered = |path: &Vec<usize>| {
            let number = places.iter().position(|place| place.path == *path)?;
            Some((number as u32, places[number].name.clone()))
        };
        self.reads.iter().filter_map(numbered).collect()
    }

    /// What rows become that pass the transform by.
    pub(super) fn pass_by(&self, batch: &RecordBatch) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let rows = batch.num_rows();
        let computed: Vec<ArrayRef> = (self.computed.iter().zip(&self.replaced))
            .map(|(field, replaced)| match replaced {
                None => arrow_array::new_null_array(field.data_type(), rows),
                Some(path) => path[1..].iter().fold(batch.column(path[0]).clone(), |array, member| {
                    array.as_struct().column(*member).clone()
                }),
            })
            .collect();
        self.output(batch.columns(), &computed, rows)
    }

    /// The output's rows from the input's, one for one, and the computed columns.
    pub(super) fn output(
        &self,
        input: &[ArrayRef],
        computed: &[ArrayRef],
        rows: usize,
    ) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let columns = assemble(&self.columns, input, computed, rows)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.output.clone(), columns, &options)
    }

    /// Which top-level columns of the input are in the output, whole or in part.
    pub(super) fn passes(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().filter_map(|column| match column.source {
            Source::Input(i) | Source::Struct(i, _) => Some(i),
            Source::Computed(_) => None,
        })
    }
}

fn assemble(
    columns: &[Column],
    input: &[ArrayRef],
    computed: &[ArrayRef],
    rows: usize,
) -> Result<Vec<ArrayRef>, arrow_schema::ArrowError> {
    let mut arrays = Vec::with_capacity(columns.len());
    for column in columns {
        arrays.push(match &column.source {
            Source::Input(i) => input[*i].clone(),
            Source::Computed(k) => computed[*k].clone(),
            Source::Struct(i, members) => {
                let whole = input[*i].as_struct();
                let members = assemble(members, whole.columns(), computed, rows)?;
                let DataType::Struct(fields) = column.field.data_type() else {
                    unreachable!("only structs get other members");
                };
                let (fields, nulls) = (fields.clone(), whole.nulls().cloned());
                Arc::new(StructArray::try_new_with_length(fields, members, nulls, rows)?)
            }
        });
    }
    Ok(arrays)
}
