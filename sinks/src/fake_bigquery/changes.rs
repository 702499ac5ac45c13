//! Rows that change others: read by the description that came with them, and applied by their numbers.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage, Value as Proto,
};
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value};

use crate::bigquery::columns::{Column, Repetition};
use crate::bigquery::{CHANGE_SEQUENCE_NUMBER, CHANGE_TYPE};

/// What became of the rows with a primary key, by the key.
pub(super) type Merged = BTreeMap<String, Newest>;

/// The newest that was said of a row.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    sequence: Vec<u64>,
    /// None if it is deleted.
    pub(super) row: Option<Map<String, Value>>,
}

/// A row that was read.
#[derive(Debug)]
pub(super) struct Change {
    key: String,
    newest: Newest,
}

impl Change {
    pub(super) fn row(&self) -> Option<&Map<String, Value>> {
        self.newest.row.as_ref()
    }
}

/// What the rows of a connection are read by.
pub(super) fn described(message: DescriptorProto) -> Result<MessageDescriptor, String> {
    let name = message.name().to_owned();
    let file = FileDescriptorProto {
        name: Some("rows.proto".to_owned()),
        message_type: vec![message],
        syntax: Some("proto2".to_owned()),
        ..Default::default()
    };
    let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: vec![file] })
        .map_err(|e| e.to_string())?;
    pool.get_message_by_name(&name).ok_or_else(|| "the description has no message".to_owned())
}

/// A column that rows have and the table does not.
pub(super) fn extra(message: &MessageDescriptor, columns: &[Column]) -> Option<String> {
    let is_known =
        |name: &str| is_pseudo(name) || columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    message.fields().map(|field| field.name().to_owned()).find(|name| !is_known(name))
}

fn is_pseudo(name: &str) -> bool {
    [CHANGE_TYPE, CHANGE_SEQUENCE_NUMBER].contains(&name)
}

/// Reads a row.
pub(super) fn read(
    message: &MessageDescriptor,
    row: &[u8],
    columns: &[Column],
    key: &[String],
) -> Result<Change, String> {
    let row = DynamicMessage::decode(message.clone(), Bytes::copy_from_slice(row))
        .map_err(|e| format!("this is no row: {e}"))?;
    let text = |name: &str| {
        let field = message.get_field_by_name(name).filter(|field| row.has_field(field))?;
        row.get_field(&field).as_str().map(str::to_owned)
    };
    let kind = text(CHANGE_TYPE).ok_or("the row has no _CHANGE_TYPE")?;
    let sequence = text(CHANGE_SEQUENCE_NUMBER).ok_or("the row has no _CHANGE_SEQUENCE_NUMBER")?;
    let sections: Vec<&str> = sequence.split('/').collect();
    let is_number = |part: &&str| (1..=16).contains(&part.len());
    if !(1..=4).contains(&sections.len()) || !sections.iter().all(is_number) {
        return Err(format!("{sequence} is no sequence number"));
    }
    let sequence = sections.iter().map(|part| u64::from_str_radix(part, 16));
    let sequence = sequence.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let values = values_of(&row, columns)?;
    let key = key.iter().map(|name| match values.get(name) {
        None | Some(Value::Null) => Err(format!("the row has no {name}, which is of the primary key")),
        Some(value) => Ok(value.clone()),
    });
    let key = Value::Array(key.collect::<Result<_, _>>()?).to_string();
    let row = match kind.as_str() {
        "UPSERT" => Some(values),
        "DELETE" => None,
        other => return Err(format!("{other} is no _CHANGE_TYPE")),
    };
    Ok(Change { key, newest: Newest { sequence, row } })
}

/// Applies a row: one with a lower number than what is there changes nothing. Says whether another row has the same number,
/// of which BigQuery takes one or the other.
pub(super) fn apply(merged: &mut Merged, change: Change) -> bool {
    let Change { key, newest } = change;
    match merged.get(&key) {
        Some(there) if there.sequence > newest.sequence => false,
        Some(there) if there.sequence == newest.sequence => there.row != newest.row,
        _ => {
            merged.insert(key, newest);
            false
        }
    }
}

fn values_of(row: &DynamicMessage, columns: &[Column]) -> Result<Map<String, Value>, String> {
    let mut values = Map::new();
    for column in columns {
        let field = row.descriptor().fields().find(|field| field.name().eq_ignore_ascii_case(&column.name));
        let field = field.filter(|field| row.has_field(field) || field.is_list());
        let value = match field {
            None if column.mode == Repetition::Required => {
                return Err(format!("the row has no {}, which is REQUIRED", column.name));
            }
            None if column.mode == Repetition::Repeated => Value::Array(Vec::new()),
            None => Value::Null,
            Some(field) => value_of(row.get_field(&field).as_ref(), &field, column)?,
        };
        values.insert(column.name.clone(), value);
    }
    Ok(values)
}

/// A value as the REST interface would show it, if it is one that its column takes.
fn value_of(value: &Proto, field: &FieldDescriptor, column: &Column) -> Result<Value, String> {
    if let Proto::List(elements) = value {
        let one = Column { mode: Repetition::Nullable, ..column.clone() };
        let elements = elements.iter().map(|element| value_of(element, field, &one));
        return Ok(Value::Array(elements.collect::<Result<_, _>>()?));
    }
    let wrong = || format!("field {} is no {}: {value:?}", field.name(), column.data_type);
    let day = jiff::civil::date(1970, 1, 1);
    let shown = match (column.data_type.as_str(), value) {
        ("BOOLEAN", Proto::Bool(value)) => Value::from(*value),
        ("INTEGER", Proto::I64(value)) => Value::from(*value),
        ("FLOAT", Proto::F64(value)) => Value::from(*value),
        ("STRING", Proto::String(text)) => Value::from(text.as_str()),
        ("JSON", Proto::String(text)) => serde_json::from_str(text).map_err(|_| wrong())?,
        ("NUMERIC" | "BIGNUMERIC", Proto::String(text)) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let is_number =
                digits.split('.').count() <= 2 && digits.starts_with(|c: char| c.is_ascii_digit());
            if !is_number || !digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
                return Err(wrong());
            }
            let is_whole = !text.contains('.');
            Value::from(if is_whole { text } else { text.trim_end_matches('0').trim_end_matches('.') })
        }
        ("BYTES", Proto::Bytes(bytes)) => Value::from(BASE64_STANDARD.encode(bytes)),
        ("DATE", Proto::I32(days)) => {
            let date = day.checked_add(jiff::SignedDuration::from_hours(i64::from(*days) * 24));
            Value::from(date.map_err(|_| wrong())?.to_string())
        }
        ("TIMESTAMP", Proto::I64(micros)) => {
            Value::from(jiff::Timestamp::from_microsecond(*micros).map_err(|_| wrong())?.to_string())
        }
        ("DATETIME", Proto::String(text)) => {
            Value::from(text.parse::<jiff::civil::DateTime>().map_err(|_| wrong())?.to_string())
        }
        ("TIME", Proto::String(text)) => {
            Value::from(text.parse::<jiff::civil::Time>().map_err(|_| wrong())?.to_string())
        }
        ("RECORD", Proto::Message(members)) => Value::Object(values_of(members, &column.columns)?),
        _ => return Err(wrong()),
    };
    Ok(shown)
}
