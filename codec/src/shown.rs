use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StructArray};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// Digits of a decimal that a number of JSON keeps with every reader.
const JSON_DIGITS: u8 = 15;

/// Each row as a JSON object, for people and for comparing: nulls are left out, and decimals of more than 15 digits are texts,
/// since most readers make floats of JSON's numbers. Inside of maps they are numbers.
///
/// # Errors
/// [`ErrorKind::UnsupportedType`]: a type or a value that JSON does not have.
pub fn rows_as_json(rows: &RecordBatch) -> Result<Vec<Map<String, Value>>> {
    let rows = json_lines(rows, false)?;
    let rows = serde_json::Deserializer::from_slice(&rows).into_iter();
    rows.collect::<std::result::Result<_, _>>().map_err(|e| unshown(&e))
}

/// As [`rows_as_json`], a line each, with nulls or without.
pub(crate) fn json_lines(rows: &RecordBatch, nulls: bool) -> Result<Vec<u8>> {
    let columns = rows.columns().iter().map(exact).collect::<std::result::Result<Vec<_>, _>>();
    let columns = columns.map_err(|e| unshown(&e))?;
    let fields = rows.schema_ref().fields().iter().zip(&columns);
    let fields: Fields = fields.map(|(field, column)| typed(field, column)).collect();
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
    let mut text = Vec::new();
    let mut writer = arrow_json::WriterBuilder::new()
        .with_explicit_nulls(nulls)
        .build::<_, arrow_json::writer::LineDelimited>(&mut text);
    let written = rows.and_then(|rows| writer.write(&rows)).and_then(|()| writer.finish());
    written.map_err(|e| unshown(&e))?;
    Ok(text)
}

fn unshown(e: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::UnsupportedType, format!("rows cannot be shown as JSON: {e}"))
}

fn typed(field: &Field, column: &ArrayRef) -> Field {
    Field::new(field.name(), column.data_type().clone(), field.is_nullable())
}

fn exact(array: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Decimal128(precision, _) | DataType::Decimal256(precision, _)
            if *precision > JSON_DIGITS =>
        {
            cast(array, &DataType::Utf8)?
        }
        DataType::Struct(fields) if !fields.is_empty() => {
            let parent = array.as_struct();
            let members = parent.columns().iter().map(exact).collect::<std::result::Result<Vec<_>, _>>()?;
            let fields: Fields =
                fields.iter().zip(&members).map(|(field, member)| typed(field, member)).collect();
            Arc::new(StructArray::try_new(fields, members, parent.nulls().cloned())?)
        }
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let values = exact(list.values())?;
            let field = Arc::new(typed(field, &values));
            Arc::new(ListArray::try_new(field, list.offsets().clone(), values, list.nulls().cloned())?)
        }
        _ => array.clone(),
    })
}

#[cfg(test)]
mod tests {
    use arrow_array::Decimal128Array;
    use serde_json::json;

    use super::*;

    #[test]
    fn digits_that_a_float_has_not_are_kept() {
        let decimal = |value: i128, precision| -> ArrayRef {
            Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(precision, 2).unwrap())
        };
        let large = decimal(1_234_567_890_123_456_789_012, 30);
        let field = Arc::new(Field::new("large", large.data_type().clone(), true));
        let inside: ArrayRef = Arc::new(StructArray::from(vec![(field, large.clone())]));
        let columns = [("large", large), ("small", decimal(1_250, 10)), ("inside", inside)];
        let shown = rows_as_json(&RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let text = "12345678901234567890.12";
        let expected = json!({"large": text, "small": 12.5, "inside": {"large": text}});
        assert_eq!(Value::from(shown[0].clone()), expected);
    }
}
