//! Columns as arrow-rs arrays, and arrays as computed columns.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array as ArrowArray, ArrayRef, RecordBatch, RecordBatchOptions, make_array, new_null_array,
};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType as ArrowType, Field as ArrowField, Fields, Schema, TimeUnit as ArrowUnit};

use super::compute::{Array, runs};
use super::read::{Batch, Nodes, Validity};
use super::row::Columns;
use super::schema::{Change, DataType, Field, Need, TimeUnit, members};
use crate::Output;

/// The columns of `needs`, copied.
pub(super) fn record_batch(batch: &Batch<'_>, needs: &[Need]) -> RecordBatch {
    let (mut fields, mut arrays) = (Vec::with_capacity(needs.len()), Vec::with_capacity(needs.len()));
    for (i, (need, slot)) in needs.iter().zip(batch.slots).enumerate() {
        // A path that is read in two ways is one column.
        if needs[..i].iter().any(|before| before.path == need.path) {
            continue;
        }
        let array = match slot {
            Some(slot) => make_array(copied(&slot.fields, &mut Nodes::at(batch, slot.at))),
            None => new_null_array(&arrow_type(&(need.example)()), batch.rows),
        };
        fields.push(ArrowField::new(need.path, array.data_type().clone(), need.nullable));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .expect("the host has checked its columns")
}

fn arrow_unit(unit: TimeUnit) -> ArrowUnit {
    match unit {
        TimeUnit::Second => ArrowUnit::Second,
        TimeUnit::Millisecond => ArrowUnit::Millisecond,
        TimeUnit::Microsecond => ArrowUnit::Microsecond,
        TimeUnit::Nanosecond => ArrowUnit::Nanosecond,
    }
}

/// The type of a subtree, whose children have their names and say whether they may be null.
fn arrow_type(fields: &[Field]) -> ArrowType {
    let children = || members(fields).map(arrow_field).collect::<Fields>();
    let only_child = || children()[0].clone();
    match &fields[0].data_type {
        DataType::Boolean => ArrowType::Boolean,
        DataType::Int8 => ArrowType::Int8,
        DataType::Int16 => ArrowType::Int16,
        DataType::Int32 => ArrowType::Int32,
        DataType::Int64 => ArrowType::Int64,
        DataType::Uint8 => ArrowType::UInt8,
        DataType::Uint16 => ArrowType::UInt16,
        DataType::Uint32 => ArrowType::UInt32,
        DataType::Uint64 => ArrowType::UInt64,
        DataType::Float32 => ArrowType::Float32,
        DataType::Float64 => ArrowType::Float64,
        DataType::Utf8 => ArrowType::Utf8,
        DataType::Binary => ArrowType::Binary,
        DataType::FixedSizeBinary(bytes) => ArrowType::FixedSizeBinary(*bytes as i32),
        DataType::Decimal128(precision, scale) => ArrowType::Decimal128(*precision, *scale),
        DataType::Decimal256(precision, scale) => ArrowType::Decimal256(*precision, *scale),
        DataType::Date32 => ArrowType::Date32,
        DataType::Date64 => ArrowType::Date64,
        DataType::Time32(unit) => ArrowType::Time32(arrow_unit(*unit)),
        DataType::Time64(unit) => ArrowType::Time64(arrow_unit(*unit)),
        DataType::Timestamp(unit, zone) => {
            ArrowType::Timestamp(arrow_unit(*unit), zone.as_deref().map(Into::into))
        }
        DataType::Struct => ArrowType::Struct(children()),
        DataType::List => ArrowType::List(only_child()),
        DataType::Map => ArrowType::Map(only_child(), false),
    }
}

fn arrow_field(subtree: &[Field]) -> ArrowField {
    ArrowField::new(&subtree[0].name, arrow_type(subtree), subtree[0].nullable)
}

/// The column that comes next in `nodes`, with its children.
fn copied(fields: &[Field], nodes: &mut Nodes<'_>) -> ArrayData {
    let len = nodes.values();
    let Validity(validity) = nodes.begin();
    let validity = (!validity.is_empty()).then(|| Buffer::from(validity));
    // What is not the validity.
    let buffers = (1..fields[0].data_type.buffers()).map(|_| Buffer::from(nodes.buffer::<u8>())).collect();
    let children = members(fields).map(|member| copied(member, nodes)).collect();
    let data = ArrayData::builder(arrow_type(fields))
        .len(len)
        .null_bit_buffer(validity)
        .buffers(buffers)
        .child_data(children);
    match cfg!(debug_assertions) {
        true => data.build().expect("the host has checked its columns"),
        // SAFETY: as where texts are read: a `Batch` is made by this crate alone, of what the host has checked.
        false => unsafe { data.build_unchecked() },
    }
}

/// A computed column, and its type as it was declared.
#[derive(Debug)]
pub(super) struct Computed {
    name: String,
    array: ArrayRef,
    data: ArrayData,
    declared: Vec<Field>,
    /// Whether a null is anywhere where none was declared. It may be in rows that do not go on.
    is_suspect: bool,
}

/// The columns that a transform computes, found in `batch` by their names.
///
/// # Panics
/// If they are not those of `changes`, each of its type.
pub(super) fn computed(batch: &RecordBatch, changes: Vec<Change>) -> Vec<Computed> {
    let wanted: Vec<(String, Vec<Field>)> = changes
        .into_iter()
        .filter_map(|change| match change {
            Change::Replace(path, fields) => Some((path.to_owned(), fields)),
            Change::Add(fields) => Some((fields[0].name.clone(), fields)),
            Change::Remove(_) | Change::Rename(..) => None,
        })
        .collect();
    let names = match wanted.len() {
        0 => "none".to_owned(),
        _ => wanted.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let is_doubled = |name: &str| {
        wanted.iter().filter(|(other, _)| other == name).count() > 1
            || batch.schema_ref().fields().iter().filter(|f| f.name() == name).count() > 1
    };
    if let Some((name, _)) = wanted.iter().find(|(name, _)| is_doubled(name)) {
        panic!("two columns are called {name}: which is which cannot be told; compute them row by row");
    }
    let mut others =
        batch.schema_ref().fields().iter().filter(|f| !wanted.iter().any(|(name, _)| name == f.name()));
    if let Some(other) = others.next() {
        panic!("the transform computes no column {}; it computes {names}", other.name());
    }
    let column = |(name, declared): (String, Vec<Field>)| {
        let Some(column) = batch.column_by_name(&name) else {
            panic!("the computed column {name} is not there; the transform computes {names}");
        };
        let (found, wanted) = (column.data_type(), arrow_type(&declared));
        assert!(
            is_of(found, &declared),
            "the computed column {name} is {found}, and was declared as {wanted}: it has to be of that type"
        );
        let is_suspect = stray_null(&name, &declared, column, None).is_some();
        Computed { name, array: column.clone(), data: column.to_data(), declared, is_suspect }
    };
    wanted.into_iter().map(column).collect()
}

/// Whether the layouts and their meaning are the same, as where typed rows are read: a timestamp may have any zone, or none; a struct
/// may have its members in any order, and more; and what lists and maps call their elements is no matter.
fn is_of(found: &ArrowType, declared: &[Field]) -> bool {
    match (found, &declared[0].data_type) {
        (ArrowType::List(found), DataType::List) => is_of(found.data_type(), &declared[1..]),
        (ArrowType::Map(found, _), DataType::Map) => match found.data_type() {
            ArrowType::Struct(entry) if entry.len() == 2 => {
                let mut declared = members(&declared[1..]);
                entry.iter().all(|f| declared.next().is_some_and(|d| is_of(f.data_type(), d)))
            }
            _ => false,
        },
        (ArrowType::Struct(found), DataType::Struct) => members(declared).all(|declared| {
            found.find(&declared[0].name).is_some_and(|(_, f)| is_of(f.data_type(), declared))
        }),
        (ArrowType::Timestamp(found, _), DataType::Timestamp(declared, _)) => *found == arrow_unit(*declared),
        _ => *found == arrow_type(declared),
    }
}

/// Where a null is and none was declared; not where a list or a struct around it is null.
fn stray_null(
    name: &str,
    declared: &[Field],
    array: &dyn ArrowArray,
    around: Option<&NullBuffer>,
) -> Option<String> {
    let nulls = array.nulls();
    if !declared[0].nullable && array.null_count() > 0 {
        let is_stray = |row: &usize| array.is_null(*row) && around.is_none_or(|n| n.is_valid(*row));
        match (0..array.len()).filter(is_stray).count() {
            0 => {}
            stray => {
                return Some(format!(
                    "{stray} values of the computed column {name} are null: declare an `Option`"
                ));
            }
        }
    }
    let is_there = |row: usize| array.is_valid(row) && around.is_none_or(|n| n.is_valid(row));
    // Of the lists that are there.
    let parts = |offsets: &[i32], of: &dyn ArrowArray, declared: &[Field]| {
        let name = format!("{name}[]");
        let runs = runs(0..array.len(), is_there).filter(|(is_there, _)| *is_there);
        let mut parts = runs.map(|(_, rows)| (offsets[rows.start] as usize, offsets[rows.end] as usize));
        parts.find_map(|(start, end)| stray_null(&name, declared, &of.slice(start, end - start), None))
    };
    match declared[0].data_type {
        DataType::Struct => {
            let around = NullBuffer::union(around, nulls);
            members(declared).find_map(|member| {
                let of = array.as_struct().column_by_name(&member[0].name)?;
                stray_null(&format!("{name}.{}", member[0].name), member, of, around.as_ref())
            })
        }
        DataType::List => {
            let list = array.as_list::<i32>();
            parts(list.value_offsets(), list.values(), &declared[1..])
        }
        DataType::Map => {
            let map = array.as_map();
            let mut columns = map.entries().columns().iter().zip(members(&declared[1..]));
            columns.find_map(|(of, declared)| parts(map.value_offsets(), of, declared))
        }
        _ => None,
    }
}

/// Rows that are emitted, and which row each is of.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) output: Output,
    computed: Vec<Computed>,
    of: Vec<usize>,
    next: usize,
}

impl Extra {
    /// # Panics
    /// As [`computed`].
    pub(super) fn new(output: Output, columns: &RecordBatch, changes: Vec<Change>, of: Vec<usize>) -> Self {
        let computed = if changes.is_empty() { Vec::new() } else { computed(columns, changes) };
        Extra { output, computed, of, next: 0 }
    }

    /// The row that the next one is of.
    pub(super) fn due(&self) -> Option<usize> {
        self.of.get(self.next).copied()
    }

    /// Those of a row, once.
    pub(super) fn take(&mut self, row: usize) -> Range<usize> {
        let start = self.next;
        self.next += self.of[start..].iter().take_while(|of| **of == row).count();
        start..self.next
    }

    /// # Panics
    /// If there is a null in these rows where none was declared.
    pub(super) fn append<T: Columns>(&self, builders: &mut T::Builders, rows: Range<usize>) {
        if !rows.is_empty() {
            self.computed.iter().for_each(|column| column.check(&rows));
            let arrays: Vec<Array<'_>> = self.computed.iter().map(Computed::view).collect();
            T::append_arrays(builders, &arrays, &[rows]);
        }
    }
}

impl Computed {
    /// As builders take it.
    pub(super) fn view(&self) -> Array<'_> {
        view(&self.data, &self.declared)
    }

    /// # Panics
    /// If there is a null in these rows where none was declared.
    pub(super) fn check(&self, rows: &Range<usize>) {
        if self.is_suspect {
            let part = self.array.slice(rows.start, rows.len());
            if let Some(stray) = stray_null(&self.name, &self.declared, &part, None) {
                panic!("{stray}");
            }
        }
    }
}

fn view<'a>(data: &'a ArrayData, declared: &[Field]) -> Array<'a> {
    let (offset, len) = (data.offset(), data.len());
    let validity = data.nulls().map(|nulls| (nulls.validity(), nulls.offset()));
    let offsets = || match len {
        0 => &[0],
        _ => &data.buffers()[0].typed_data::<i32>()[offset..=offset + len],
    };
    let child = |number: usize| &data.child_data()[number];
    let plain = |width: usize| &data.buffers()[0][offset * width..];
    let none = Array { validity, ..Array::default() };
    match data.data_type() {
        ArrowType::Boolean => Array { first_bit: offset, values: plain(0), ..none },
        ArrowType::Utf8 | ArrowType::Binary => {
            Array { offsets: offsets(), values: &data.buffers()[1], ..none }
        }
        ArrowType::FixedSizeBinary(width) => Array { values: plain(*width as usize), ..none },
        // A part of a struct has parts of its members for children, so only the others have an offset.
        ArrowType::Struct(found) => {
            let number = |member: &[Field]| found.find(&member[0].name).expect("its type has it").0;
            let children = members(declared).map(|member| view(child(number(member)), member)).collect();
            Array { children, ..none }
        }
        ArrowType::List(_) => {
            Array { offsets: offsets(), children: vec![view(child(0), &declared[1..])], ..none }
        }
        ArrowType::Map(..) => {
            let entries = child(0).child_data().iter().zip(members(&declared[1..]));
            Array {
                offsets: offsets(),
                children: entries.map(|(of, declared)| view(of, declared)).collect(),
                ..none
            }
        }
        other => {
            Array { values: plain(other.primitive_width().expect("a type that can be declared")), ..none }
        }
    }
}
