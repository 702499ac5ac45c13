//! What is asserted of whatever a guest answers, for the fuzz target and for its seeds in the tests.

use std::sync::Arc;

use arrow_array::Array;
use arrow_schema::{DataType, Field, Fields, TimeUnit};

use super::decode::decode;

/// Of every shape that a column can have.
pub(super) fn fields() -> Vec<Arc<Field>> {
    let plain = vec![
        Field::new("flag", DataType::Boolean, true),
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("three", DataType::FixedSizeBinary(3), true),
        Field::new("total", DataType::Decimal128(38, 2), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ];
    let members = Fields::from(plain.clone());
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]);
    let entries = Arc::new(Field::new("entries", DataType::Struct(entries), false));
    let nested = [
        Field::new("inner", DataType::Struct(members.clone()), true),
        Field::new_list("list", Field::new("item", DataType::Struct(members), true), true),
        Field::new("map", DataType::Map(entries, false), true),
    ];
    plain.into_iter().chain(nested).map(Arc::new).collect()
}

/// Refused, or valid in full and readable to the last value.
///
/// # Panics
/// If it is neither.
pub fn columns(rows: usize, layout: &[u32], buffers: Vec<u64>) {
    let fields = fields();
    // One at a time too, so that the later ones are reached.
    for some in fields.chunks(1).chain([&fields[..]]) {
        let Ok(arrays) = decode(some, rows, layout, buffers.clone(), u64::MAX) else { continue };
        for (array, field) in arrays.iter().zip(some) {
            assert_eq!((array.len(), array.data_type()), (rows, field.data_type()));
            assert!(field.is_nullable() || array.null_count() == 0);
            array.to_data().validate_full().expect("it was checked in full");
            // Reads every value, and copies it.
            let indices = arrow_array::UInt32Array::from_iter_values((0..rows as u32).rev());
            arrow_select::take::take(array, &indices, None).expect("rows of it can be taken");
        }
    }
}
