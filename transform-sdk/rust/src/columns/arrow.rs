//! Columns as arrow-rs arrays, and arrays as computed columns.

use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch, RecordBatchOptions, make_array, new_null_array};
use arrow_buffer::Buffer;
use arrow_data::ArrayData;
use arrow_schema::{DataType as ArrowType, Field as ArrowField, Fields, Schema, TimeUnit as ArrowUnit};

use super::compute::Array;
use super::read::{Batch, Nodes, Validity};
use super::schema::{Change, DataType, Field, Need, TimeUnit, members};

/// The columns of `needs`, copied.
pub(super) fn record_batch(batch: &Batch<'_>, needs: &[Need]) -> RecordBatch {
    let (mut fields, mut arrays) = (Vec::with_capacity(needs.len()), Vec::with_capacity(needs.len()));
    for (need, slot) in needs.iter().zip(batch.slots) {
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
    ArrayData::builder(arrow_type(fields))
        .len(len)
        .null_bit_buffer(validity)
        .buffers(buffers)
        .child_data(children)
        .build()
        .expect("the host has checked its columns")
}

/// The columns that a transform computes, found in `batch` by their names.
///
/// # Panics
/// If they are not those of `changes`, each of its type.
pub(super) fn computed(batch: &RecordBatch, changes: Vec<Change>) -> Vec<ArrayData> {
    let wanted: Vec<(String, Vec<Field>)> = changes
        .into_iter()
        .filter_map(|change| match change {
            Change::Replace(path, fields) => Some((path.to_owned(), fields)),
            Change::Add(fields) => Some((fields[0].name.clone(), fields)),
            Change::Remove(_) | Change::Rename(..) => None,
        })
        .collect();
    let names = || wanted.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(other) =
        batch.schema_ref().fields().iter().find(|f| !wanted.iter().any(|(name, _)| name == f.name()))
    {
        panic!("the transform computes no column {}; it computes {}", other.name(), names());
    }
    let column = |(name, fields): &(String, Vec<Field>)| {
        let Some(column) = batch.column_by_name(name) else {
            panic!("the computed column {name} is not there; the transform computes {}", names());
        };
        let (found, declared) = (column.data_type(), arrow_type(fields));
        assert!(
            is_of(found, &declared),
            "the computed column {name} is {found}, and declared as {declared}: cast it"
        );
        let nulls = column.null_count();
        assert!(
            fields[0].nullable || nulls == 0,
            "{nulls} values of the computed column {name} are null: declare an `Option`"
        );
        column.to_data()
    };
    wanted.iter().map(column).collect()
}

/// Whether the layouts and their meaning are the same. What lists and maps call their elements is no matter, nor what may be null:
/// the host checks what is.
fn is_of(found: &ArrowType, declared: &ArrowType) -> bool {
    match (found, declared) {
        (ArrowType::List(found), ArrowType::List(declared)) => is_of(found.data_type(), declared.data_type()),
        (ArrowType::Map(found, _), ArrowType::Map(declared, _)) => {
            match (found.data_type(), declared.data_type()) {
                (ArrowType::Struct(found), ArrowType::Struct(declared)) => {
                    found.iter().zip(declared).all(|(f, d)| is_of(f.data_type(), d.data_type()))
                }
                _ => false,
            }
        }
        (ArrowType::Struct(found), ArrowType::Struct(declared)) => {
            found.len() == declared.len()
                && found
                    .iter()
                    .zip(declared)
                    .all(|(f, d)| f.name() == d.name() && is_of(f.data_type(), d.data_type()))
        }
        _ => found == declared,
    }
}

/// An array as builders take it.
pub(super) fn view(data: &ArrayData) -> Array<'_> {
    let (offset, len) = (data.offset(), data.len());
    let validity = data.nulls().map(|nulls| (nulls.validity(), nulls.offset()));
    // A part of a struct has parts of its members for children, so only the others have an offset.
    let children = || data.child_data().iter().map(view).collect::<Vec<_>>();
    let offsets = || match len {
        0 => &[0],
        _ => &data.buffers()[0].typed_data::<i32>()[offset..=offset + len],
    };
    let plain = |width: usize| &data.buffers()[0][offset * width..];
    let none = Array { validity, ..Array::default() };
    match data.data_type() {
        ArrowType::Boolean => Array { first_bit: offset, values: plain(0), ..none },
        ArrowType::Utf8 | ArrowType::Binary => {
            Array { offsets: offsets(), values: &data.buffers()[1], ..none }
        }
        ArrowType::FixedSizeBinary(width) => Array { values: plain(*width as usize), ..none },
        ArrowType::Struct(_) => Array { children: children(), ..none },
        ArrowType::List(_) => Array { offsets: offsets(), children: children(), ..none },
        ArrowType::Map(..) => Array { offsets: offsets(), children: children().remove(0).children, ..none },
        other => {
            Array { values: plain(other.primitive_width().expect("a type that can be declared")), ..none }
        }
    }
}
