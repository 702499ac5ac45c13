//! Arrow's types as BigQuery's, after [its documentation of data types](https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types).

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, LargeStringArray, ListArray, MapArray, RecordBatch, StructArray, UInt64Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_cast::{CastOptions, cast, cast_with_options};
use arrow_json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow_select::take::take;

use super::columns::{Column, Repetition, is_json, is_json_text};

/// Digits of a NUMERIC, and of them those behind the point.
const NUMERIC: (u8, i8) = (38, 9);
/// Of a BIGNUMERIC. It has 76 whole digits and a part of a 77th.
const BIGNUMERIC: (u8, i8) = (76, 38);
/// Names that BigQuery keeps for itself, in any case.
const RESERVED: [&str; 7] =
    ["_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier", "_change_"];
/// Of a row on its way by [change data capture](https://cloud.google.com/bigquery/docs/change-data-capture): `UPSERT` or `DELETE`.
pub const CHANGE_TYPE: &str = "_CHANGE_TYPE";
/// Of such a row: of two rows with the same key the one with the higher number holds, whichever comes first. Up to four
/// hexadecimal numbers with `/` between them.
pub const CHANGE_SEQUENCE_NUMBER: &str = "_CHANGE_SEQUENCE_NUMBER";
/// How deep structs may nest.
const MAX_DEPTH: usize = 15;
const MAX_NAME: usize = 300;

/// A column of a table: what `CREATE TABLE` would say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type in GoogleSQL, such as `NUMERIC` or `ARRAY<STRUCT<sku STRING>>`.
    pub data_type: String,
    /// Whether there is always a value.
    pub required: bool,
}

/// The columns of a table that takes rows of `schema`.
///
/// # Errors
/// One sentence for each column that BigQuery cannot take.
pub fn table_columns(schema: &Schema) -> Result<Vec<TableColumn>, Vec<String>> {
    let columns = columns_for(schema)?.into_iter().map(|column| TableColumn {
        data_type: column.sql_type(),
        required: column.mode == Repetition::Required,
        name: column.name,
    });
    Ok(columns.collect())
}

/// The same, with their parts.
pub(super) fn columns_for(schema: &Schema) -> Result<Vec<Column>, Vec<String>> {
    let mut mistakes = Vec::new();
    let mut columns = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for field in schema.fields() {
        check_name(field.name(), field.name(), &mut names, &mut mistakes);
        match taken_field(field.name(), field, 1) {
            Ok(taken) => columns.push(Column::of(field, &taken)),
            Err(wrong) => mistakes.push(wrong),
        }
        members(field.name(), field.data_type(), &mut mistakes);
    }
    if mistakes.is_empty() { Ok(columns) } else { Err(mistakes) }
}

fn members(path: &str, data_type: &DataType, mistakes: &mut Vec<String>) {
    match data_type {
        // What is inside has no names of columns.
        data_type if is_json(data_type) => {}
        DataType::Struct(fields) => {
            let mut names = Vec::new();
            for field in fields {
                let path = format!("{path}.{}", field.name());
                check_name(&path, field.name(), &mut names, mistakes);
                members(&path, field.data_type(), mistakes);
            }
        }
        DataType::List(item) => members(path, item.data_type(), mistakes),
        _ => {}
    }
}

/// The name that a column has in BigQuery: letters, digits and `_`, for everything else a `_`, and one in front of a digit at the
/// beginning.
pub(super) fn column_name(name: &str) -> String {
    let clean = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let first = name.chars().next().filter(|c| !c.is_ascii_digit());
    first.is_none().then_some('_').into_iter().chain(clean).collect()
}

fn check_name(path: &str, name: &str, names: &mut Vec<String>, mistakes: &mut Vec<String>) {
    let name = column_name(name);
    let lower = name.to_lowercase();
    if name.len() > MAX_NAME {
        mistakes.push(format!(
            "column {path:?} has a name of more than the {MAX_NAME} letters that BigQuery has"
        ));
    } else if RESERVED.iter().any(|reserved| lower.starts_with(reserved)) {
        mistakes.push(format!("column {path:?} has a name that BigQuery keeps for itself"));
    } else if names.contains(&lower) {
        mistakes.push(format!(
            "column {path:?} would be named as another in BigQuery, which knows no case, and letters, digits and `_` alone: `{name}`"
        ));
    }
    names.push(lower);
}

/// The rows as BigQuery takes them in Arrow's form.
///
/// # Errors
/// A value that does not fit: never a null or another value in its place.
pub(super) fn rows_for(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| with_empty_lists(&taken(column, field.data_type())?));
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}

fn taken(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    match (array.data_type(), to) {
        (of, _) if is_json(of) => json_texts(array),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let parent = array.as_struct();
            let members =
                parent.columns().iter().zip(fields).map(|(member, to)| taken(member, to.data_type()));
            let members = members.collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), members, parent.nulls().cloned())?))
        }
        (DataType::List(_), DataType::List(field)) => {
            let list = array.as_list::<i32>();
            let values = taken(list.values(), field.data_type())?;
            let nulls = list.nulls().cloned();
            Ok(Arc::new(ListArray::try_new(field.clone(), list.offsets().clone(), values, nulls)?))
        }
        _ => cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}

fn json_texts(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let array = &with_json_told(array, &Field::new("value", array.data_type().clone(), true))?;
    let field = Arc::new(Field::new("value", array.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(RawJson));
    let mut encoder = make_encoder(&field, array, &options)?;
    let mut texts = StringBuilder::new();
    let mut text = Vec::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        let text = std::str::from_utf8(&text).map_err(|e| ArrowError::JsonError(e.to_string()))?;
        texts.append_value(text);
    }
    Ok(Arc::new(texts.finish()))
}

/// Large texts, which no column here is, go into JSON as they are.
#[derive(Debug)]
struct RawJson;

impl EncoderFactory for RawJson {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let texts = array.as_string_opt::<i64>();
        Ok(texts.map(|texts| NullableEncoder::new(Box::new(RawTexts(texts)), texts.nulls().cloned())))
    }
}

struct RawTexts<'a>(&'a LargeStringArray);

impl Encoder for RawTexts<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.value(row).as_bytes());
    }
}

/// With large texts for those that are JSON already: arrow-json does not tell which field of a map it is at.
fn with_json_told(array: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    Ok(match (array.data_type(), field.data_type()) {
        (DataType::Utf8, _) if is_json_text(field) => cast(array, &DataType::LargeUtf8)?,
        (DataType::LargeUtf8, _) => cast(array, &DataType::Utf8)?,
        (DataType::Struct(_), DataType::Struct(fields)) if !fields.is_empty() => {
            let parent = array.as_struct();
            let (fields, members) = all_told(parent.columns(), fields)?;
            Arc::new(StructArray::try_new(fields, members, parent.nulls().cloned())?)
        }
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let values = with_json_told(list.values(), item)?;
            let item = Arc::new(item.as_ref().clone().with_data_type(values.data_type().clone()));
            Arc::new(ListArray::try_new(item, list.offsets().clone(), values, list.nulls().cloned())?)
        }
        (DataType::Map(..), DataType::Map(entries_field, sorted)) => {
            let DataType::Struct(pair) = entries_field.data_type() else { return Ok(array.clone()) };
            let map = array.as_map();
            let (pair, columns) = all_told(map.entries().columns(), pair)?;
            let entries = StructArray::try_new(pair, columns, map.entries().nulls().cloned())?;
            let field = Arc::new(entries_field.as_ref().clone().with_data_type(entries.data_type().clone()));
            Arc::new(MapArray::try_new(field, map.offsets().clone(), entries, map.nulls().cloned(), *sorted)?)
        }
        _ => array.clone(),
    })
}

fn all_told(columns: &[ArrayRef], fields: &Fields) -> Result<(Fields, Vec<ArrayRef>), ArrowError> {
    let columns = columns.iter().zip(fields).map(|(column, field)| with_json_told(column, field));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let typed = fields.iter().zip(&columns);
    let typed =
        typed.map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
    Ok((typed.collect::<Vec<Field>>().into(), columns))
}

/// Null lists as empty ones: a REPEATED column has no nulls.
fn with_empty_lists(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Struct(fields) => {
            let parent = array.as_struct();
            let members = parent.columns().iter().map(with_empty_lists).collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), members, parent.nulls().cloned())?))
        }
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let (mut values, mut offsets) = (list.values().clone(), list.offsets().clone());
            if list.null_count() > 0 {
                // What lies behind a null is left out.
                let lists = (0..list.len()).map(|row| match list.is_valid(row) {
                    true => offsets[row]..offsets[row + 1],
                    false => 0..0,
                });
                let lists: Vec<_> = lists.collect();
                let kept = UInt64Array::from_iter_values(lists.iter().cloned().flatten().map(|at| at as u64));
                values = take(&values, &kept, None)?;
                offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.len()));
            }
            Ok(Arc::new(ListArray::try_new(field.clone(), offsets, with_empty_lists(&values)?, None)?))
        }
        _ => Ok(array.clone()),
    }
}

/// The schema of those rows.
///
/// # Errors
/// As [`table_columns`].
pub(super) fn schema_for(schema: &Schema) -> Result<SchemaRef, Vec<String>> {
    table_columns(schema)?;
    let fields = schema.fields().iter();
    let fields = fields.map(|field| taken_field(field.name(), field, 1).map_err(|wrong| vec![wrong]));
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<Field>, _>>()?)))
}

/// The same of rows that end with [`CHANGE_TYPE`] and [`CHANGE_SEQUENCE_NUMBER`], which are no columns of the table.
///
/// # Errors
/// As [`table_columns`].
pub(super) fn changes_schema_for(schema: &Schema) -> Result<SchemaRef, Vec<String>> {
    let own = schema.fields().len().saturating_sub(CHANGE_FIELDS.len());
    let (columns, ends) = schema.fields().split_at(own);
    if !ends.iter().map(|field| (field.name().as_str(), field.data_type())).eq(CHANGE_FIELDS) {
        return Err(vec![format!(
            "rows that are changes end with {CHANGE_TYPE} and {CHANGE_SEQUENCE_NUMBER}"
        )]);
    }
    let mut fields = schema_for(&Schema::new(columns.to_vec()))?.fields().to_vec();
    fields.extend(ends.iter().cloned());
    Ok(Arc::new(Schema::new(fields)))
}

const CHANGE_FIELDS: [(&str, &DataType); 2] =
    [(CHANGE_TYPE, &DataType::Utf8), (CHANGE_SEQUENCE_NUMBER, &DataType::Utf8)];

/// A field with the name and the type that BigQuery takes.
fn taken_field(path: &str, field: &Field, depth: usize) -> Result<Field, String> {
    let data_type = converted(path, field.data_type(), depth)?;
    Ok(field.clone().with_name(column_name(field.name())).with_data_type(data_type))
}

/// The type of Arrow that BigQuery reads as the column's type.
fn converted(path: &str, data_type: &DataType, depth: usize) -> Result<DataType, String> {
    if depth > MAX_DEPTH {
        return Err(format!("column {path} nests deeper than {MAX_DEPTH} levels"));
    }
    let field = |field: &FieldRef| -> Result<FieldRef, String> {
        Ok(Arc::new(taken_field(&format!("{path}.{}", field.name()), field, depth + 1)?))
    };
    Ok(match data_type {
        DataType::Boolean | DataType::Utf8 | DataType::Binary | DataType::Date32 => data_type.clone(),
        DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32 => DataType::Int64,
        // Beyond 2^63 there is no INT64.
        DataType::UInt64 => DataType::Decimal128(NUMERIC.0, NUMERIC.1),
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            decimal(path, *precision, *scale)?
        }
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(field).collect::<Result<Fields, _>>()?)
        }
        data_type if is_json(data_type) => DataType::Utf8,
        DataType::List(item) => DataType::List(field(item)?),
        other => {
            return Err(format!("column {path} is of type {other}, which the BigQuery sink cannot take"));
        }
    })
}

/// Never FLOAT64: the digits are kept, or the column is refused.
fn decimal(path: &str, precision: u8, scale: i8) -> Result<DataType, String> {
    let (whole, fraction) = (i16::from(precision) - i16::from(scale), i16::from(scale.max(0)));
    let fits = |(most, behind): (u8, i8)| {
        fraction <= i16::from(behind) && whole <= i16::from(most) - i16::from(behind)
    };
    if fits(NUMERIC) {
        return Ok(DataType::Decimal128(NUMERIC.0, NUMERIC.1));
    }
    if fits(BIGNUMERIC) {
        return Ok(DataType::Decimal256(BIGNUMERIC.0, BIGNUMERIC.1));
    }
    Err(format!(
        "column {path} is decimal({precision},{scale}), and a BIGNUMERIC has 38 digits before the point and 38 behind it: make it \
         a string"
    ))
}
