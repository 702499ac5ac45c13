use arrow_array::cast::AsArray;
use arrow_array::{Array, downcast_temporal_array};
use arrow_buffer::OffsetBuffer;
use arrow_schema::DataType;

/// The rows of `array` that hold, at any depth, a date, time or timestamp that no text stands for: a time of day beyond 24
/// hours, or a year beyond about 262,000. JSON cannot say them.
pub fn times_without_text(array: &dyn Array) -> Vec<usize> {
    let mut rows = match array.data_type() {
        DataType::Struct(_) => {
            let mut rows: Vec<usize> =
                array.as_struct().columns().iter().flat_map(|member| times_without_text(member)).collect();
            rows.sort_unstable();
            rows.dedup();
            rows
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            lists(list.offsets(), &times_without_text(list.values()))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            lists(map.offsets(), &times_without_text(map.entries()))
        }
        DataType::Time32(_) | DataType::Time64(_) => downcast_temporal_array!(
            array => (0..array.len()).filter(|row| array.value_as_time(*row).is_none()).collect(),
            _ => Vec::new(),
        ),
        data_type if data_type.is_temporal() => downcast_temporal_array!(
            array => (0..array.len()).filter(|row| array.value_as_datetime(*row).is_none()).collect(),
            _ => Vec::new(),
        ),
        _ => Vec::new(),
    };
    rows.retain(|row| array.is_valid(*row));
    rows
}

/// The rows in whose lists one of `items` is.
fn lists(offsets: &OffsetBuffer<i32>, items: &[usize]) -> Vec<usize> {
    let mut rows: Vec<usize> = items
        .iter()
        .map(|item| offsets.partition_point(|offset| *offset as usize <= *item))
        // Items before the first list and after the last belong to none.
        .filter(|after| *after > 0 && *after < offsets.len())
        .map(|after| after - 1)
        .collect();
    rows.dedup();
    rows
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::*;
    use arrow_buffer::NullBuffer;
    use arrow_schema::{Field, TimeUnit};

    use super::*;

    #[test]
    fn only_rows_whose_times_have_no_text_are_found() {
        let seconds = Time32SecondArray::from(vec![Some(0), Some(86_399), Some(86_400), None, Some(-1)]);
        assert_eq!(times_without_text(&seconds), [2, 4]);
        let micros = Time64MicrosecondArray::from(vec![86_399_999_999, 86_400_000_000]);
        assert_eq!(times_without_text(&micros), [1]);
        let millis = TimestampMillisecondArray::from(vec![i64::MAX, 0, -62_135_596_800_000]);
        assert_eq!(times_without_text(&millis.with_timezone("UTC")), [0]);
        assert_eq!(times_without_text(&TimestampNanosecondArray::from(vec![i64::MAX, i64::MIN])), [0; 0]);
        assert_eq!(times_without_text(&Date32Array::from(vec![i32::MAX, 0, i32::MIN])), [0, 2]);
        assert_eq!(times_without_text(&Date64Array::from(vec![i64::MAX, 0])), [0]);
        assert_eq!(times_without_text(&Int64Array::from(vec![i64::MAX])), [0; 0]);
    }

    #[test]
    fn they_are_found_inside_structs_lists_and_maps_unless_these_are_null() {
        let bad = || Arc::new(Date32Array::from(vec![0, i32::MAX, i32::MAX, 0])) as ArrayRef;
        let field = |name: &str| Arc::new(Field::new(name, DataType::Date32, true));
        let nulls = NullBuffer::from(vec![true, false, true, true]);
        let structs = StructArray::new(vec![field("d")].into(), vec![bad()], Some(nulls));
        assert_eq!(times_without_text(&structs), [2]);
        // [0], [], [bad, bad], [0], and a slice of it.
        let offsets = OffsetBuffer::from_lengths([1, 0, 2, 1]);
        let list = ListArray::new(field("item"), offsets, bad(), None);
        assert_eq!(times_without_text(&list), [2]);
        assert_eq!(times_without_text(&list.slice(2, 2)), [0]);
        assert_eq!(times_without_text(&list.slice(3, 1)), [0; 0]);
        let keys = Arc::new(StringArray::from(vec!["a", "b", "c", "d"])) as ArrayRef;
        let key = Arc::new(Field::new("key", DataType::Utf8, false));
        let entries = StructArray::new(vec![key, field("value")].into(), vec![keys, bad()], None);
        let entry = Arc::new(Field::new("entries", entries.data_type().clone(), false));
        let map = MapArray::new(entry, OffsetBuffer::from_lengths([3, 1]), entries, None, false);
        assert_eq!(times_without_text(&map), [0]);
        let time = DataType::Time32(TimeUnit::Second);
        assert_eq!(times_without_text(&new_null_array(&time, 3)), [0; 0]);
    }
}
