//! Arrow columns as Protobuf messages.

use std::collections::{HashMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema as ArrowSchema, TimeUnit};
use prost::Message as _;
use prost::encoding::encode_varint;
use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};

use super::decimal::{self, Digits};
use super::numbers::Meaning;
use super::schema::{MAX_DEPTH, Schema, is_json, wrapped};
use crate::error::{Error, ErrorKind, Result, joined};
use crate::field_spec::is_text;
use crate::framing;

/// Encodes rows as Protobuf messages: with a schema id and message indexes in front, as the Schema Registry's serialisers write
/// them, or bare.
///
/// Columns and fields meet by name, and by the types of [`ProtobufDecoder`](crate::ProtobufDecoder); an integer of any width goes
/// into a field that holds its value. What has its default is not written, where the field does not tell the two apart.
#[derive(Debug)]
pub struct ProtobufEncoder {
    members: Vec<Member>,
    /// In front of each message.
    front: Vec<u8>,
    id: Option<u32>,
}

/// A field, and the column that it is made of.
#[derive(Debug)]
struct Member {
    name: String,
    number: u32,
    /// Which column.
    at: usize,
    /// As the column has to be, for its values to be read.
    as_type: DataType,
    shape: Shape,
    value: Value,
    /// Of those of the message.
    oneof: Option<usize>,
    /// A value that is the default is written too.
    presence: bool,
    required: bool,
    /// A message between two keys, without a length.
    group: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    Repeated { packed: bool },
    Map,
}

/// How one value is written.
#[derive(Debug)]
enum Value {
    Scalar(Kind),
    Enum(HashMap<String, i32>),
    Message(Vec<Member>),
    Numbers(Meaning),
    /// With so many digits behind the point.
    Decimal(i8),
    /// The text is Protobuf's JSON of a message.
    Json(MessageDescriptor),
    /// A message of one field.
    Wrapped(Kind),
}

impl ProtobufEncoder {
    /// For rows with these columns, as a message of `schema`, which is as [`ProtobufDecoder::new`](crate::ProtobufDecoder::new) takes
    /// it. Without an `id` messages are bare.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSchema`] if the text is not a schema, does not have the message, or a column has no field in it;
    /// [`ErrorKind::UnsupportedType`] if a column has another type than its field.
    pub fn new(
        columns: &ArrowSchema,
        schema: &str,
        message: Option<&str>,
        id: Option<u32>,
    ) -> Result<ProtobufEncoder> {
        let schema = Schema::parse(schema)?;
        let message = schema.message(message)?;
        let members = members(&message, columns.fields().iter().map(|field| &**field), "", 0)?;
        let indexes = schema.indexes(&message).or_else(|| id.is_none().then(Vec::new)).ok_or_else(|| {
            let text =
                format!("the message `{}` is of an import, which records cannot name", message.full_name());
            Error::new(ErrorKind::InvalidSchema, text)
        })?;
        let mut front = Vec::new();
        match indexes.as_slice() {
            // As serialisers shorten it.
            [0] => front.push(0),
            indexes => {
                let zigzag = |number: i64| (number << 1 ^ number >> 63) as u64;
                encode_varint(zigzag(indexes.len() as i64), &mut front);
                indexes.iter().for_each(|index| encode_varint(zigzag(*index), &mut front));
            }
        }
        Ok(ProtobufEncoder { members, front, id })
    }

    /// A value for each row.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedType`] for a value that the schema has no form for, such as a null where the field has none. Nothing
    /// of the batch counts then.
    pub fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let columns = fitting(&self.members, rows.columns())?;
        let mut values = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let mut message = Vec::new();
            write_message(&self.members, &columns, row, &mut message)?;
            values.push(match self.id {
                Some(id) => framing::framed(id, &self.front, &message),
                None => message,
            });
        }
        Ok(values)
    }
}

fn unsupported(path: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::UnsupportedType, format!("the column `{path}`: {what}"))
}

fn members<'a>(
    message: &MessageDescriptor,
    columns: impl Iterator<Item = &'a Field>,
    path: &str,
    depth: usize,
) -> Result<Vec<Member>> {
    if depth > MAX_DEPTH {
        return Err(unsupported(path, format!("it nests deeper than {MAX_DEPTH} levels")));
    }
    let mut members = Vec::new();
    for (at, column) in columns.enumerate() {
        let path = joined(path, column.name());
        let field = message.get_field_by_name(column.name()).ok_or_else(|| {
            let names: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
            let text = format!(
                "the column `{path}` has no field in the message `{}`, which has {}; leave the column out, or register a schema with it",
                message.full_name(),
                names.join(", ")
            );
            Error::new(ErrorKind::InvalidSchema, text)
        })?;
        if members.iter().any(|other: &Member| other.number == field.number()) {
            return Err(Error::new(ErrorKind::InvalidSchema, format!("the column `{path}` is there twice")));
        }
        members.push(member(message, &field, at, column, &path, depth)?);
    }
    let is_there = |field: &FieldDescriptor| members.iter().any(|member| member.number == field.number());
    if let Some(field) = message.fields().find(|field| field.is_required() && !is_there(field)) {
        return Err(Error::new(
            ErrorKind::InvalidSchema,
            format!("the field `{}` is required, and there is no such column", joined(path, field.name())),
        ));
    }
    // Serialisers write fields in the order of their numbers.
    members.sort_by_key(|member| member.number);
    Ok(members)
}

fn member(
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    at: usize,
    column: &Field,
    path: &str,
    depth: usize,
) -> Result<Member> {
    let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
    // Of nulls alone there is no value to write; a type has to be there.
    let nulls = (Shape::Single, Value::Scalar(Kind::Bool), DataType::Boolean);
    let oneof = oneof.and_then(|oneof| message.oneofs().position(|other| other == oneof));
    let (shape, value, as_type) = match (field.is_map(), field.is_list(), column.data_type()) {
        (_, _, DataType::Null) => nulls,
        (true, _, DataType::Map(entries, sorted)) => {
            let Kind::Message(entry) = field.kind() else { return Err(unsupported(path, "it is no map")) };
            let DataType::Struct(pair) = entries.data_type() else {
                return Err(unsupported(path, "a map without entries"));
            };
            // What keys and values are called is each library's own.
            let named =
                pair.iter().zip(["key", "value"]).map(|(field, name)| field.as_ref().clone().with_name(name));
            let mut named: Vec<Field> = named.collect();
            // Keys that are numbers are texts in columns.
            if let Some(key) = named.first_mut().filter(|key| is_text(key.data_type())) {
                key.set_data_type(key_type(&entry.map_entry_key_field().kind()));
            }
            let inner = members(&entry, named.iter(), path, depth + 1)?;
            let types = typed(&inner, &named);
            let entries = entries.as_ref().clone().with_data_type(DataType::Struct(types.into()));
            (Shape::Map, Value::Message(inner), DataType::Map(entries.into(), *sorted))
        }
        (false, true, DataType::List(item) | DataType::LargeList(item)) => {
            let (value, item_type) =
                value_of(&field.kind(), Digits::of(field), item.data_type(), &format!("{path}[]"), depth)?;
            let item = item.as_ref().clone().with_data_type(item_type);
            (Shape::Repeated { packed: field.is_packed() }, value, DataType::List(item.into()))
        }
        (false, false, data_type) => {
            let (value, data_type) = value_of(&field.kind(), Digits::of(field), data_type, path, depth)?;
            (Shape::Single, value, data_type)
        }
        (map, _, other) => {
            let kind = if map { "a map" } else { "repeated" };
            return Err(unsupported(path, format!("it is {other}, and the field is {kind}")));
        }
    };
    Ok(Member {
        name: path.to_owned(),
        number: field.number(),
        at,
        as_type,
        shape,
        value,
        oneof,
        presence: field.supports_presence(),
        required: field.cardinality() == Cardinality::Required,
        group: field.is_group(),
    })
}

/// As keys of a map are written.
fn key_type(kind: &Kind) -> DataType {
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => DataType::Int64,
        Kind::Uint32 | Kind::Fixed32 => DataType::UInt32,
        Kind::Uint64 | Kind::Fixed64 => DataType::UInt64,
        _ => DataType::Utf8,
    }
}

/// The fields as the members need them, in the order of the columns.
fn typed(members: &[Member], columns: &[Field]) -> Vec<Field> {
    let of = |at: usize| members.iter().find(|member| member.at == at).map(|member| member.as_type.clone());
    let types = columns.iter().enumerate();
    types.map(|(at, field)| field.clone().with_data_type(of(at).unwrap_or(DataType::Null))).collect()
}

/// How values of a column are written, and as which type they are read.
fn value_of(
    kind: &Kind,
    digits: Option<Digits>,
    column: &DataType,
    path: &str,
    depth: usize,
) -> Result<(Value, DataType)> {
    let other =
        |expected: &str| Err(unsupported(path, format!("it is {column}, and the field takes {expected}")));
    let is_text = is_text(column);
    let Kind::Message(message) = kind else {
        if let Kind::Enum(of) = kind {
            let names = of.values().map(|value| (value.name().to_owned(), value.number())).collect();
            return match is_text {
                true => Ok((Value::Enum(names), DataType::Utf8)),
                false if column.is_integer() => Ok((Value::Scalar(Kind::Int32), DataType::Int32)),
                false => other("the names of an enum"),
            };
        }
        let (fits, as_type, expected) = match kind {
            Kind::Bool => (*column == DataType::Boolean, DataType::Boolean, "booleans"),
            Kind::String => (is_text, DataType::Utf8, "texts"),
            Kind::Bytes => (
                matches!(
                    column,
                    DataType::Binary
                        | DataType::LargeBinary
                        | DataType::BinaryView
                        | DataType::FixedSizeBinary(_)
                ),
                DataType::Binary,
                "bytes",
            ),
            Kind::Float => (*column == DataType::Float32, DataType::Float32, "floats of 32 bits"),
            Kind::Double => {
                (matches!(column, DataType::Float32 | DataType::Float64), DataType::Float64, "floats")
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => (column.is_integer(), DataType::Int32, "integers"),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (column.is_integer(), DataType::Int64, "integers"),
            Kind::Uint32 | Kind::Fixed32 => (column.is_integer(), DataType::UInt32, "integers"),
            _ => (column.is_integer(), DataType::UInt64, "integers"),
        };
        return match fits {
            true => Ok((Value::Scalar(kind.clone()), as_type)),
            false => other(expected),
        };
    };
    if let Some(kind) = wrapped(message) {
        let (_, as_type) = value_of(&kind, None, column, path, depth)?;
        return Ok((Value::Wrapped(kind), as_type));
    }
    if let Some(meaning) = Meaning::of(message) {
        return match (meaning, column) {
            (Meaning::Timestamp, DataType::Timestamp(_, Some(_))) => {
                Ok((Value::Numbers(meaning), column.clone()))
            }
            (Meaning::Timestamp, _) => other("times with a zone"),
            (Meaning::Date, DataType::Date32) => Ok((Value::Numbers(meaning), DataType::Date32)),
            (Meaning::Date, _) => other("dates"),
            (Meaning::TimeOfDay, DataType::Time32(_) | DataType::Time64(_)) => {
                Ok((Value::Numbers(meaning), DataType::Time64(TimeUnit::Nanosecond)))
            }
            (Meaning::TimeOfDay, _) => other("times of a day"),
        };
    }
    match column {
        DataType::Decimal128(_, scale) if decimal::is_decimal(message) => match digits {
            // Values would be rounded.
            Some(digits) if *scale > digits.scale() => {
                other(&format!("{} digits behind the point", digits.scale()))
            }
            Some(digits) => Ok((Value::Decimal(digits.scale()), digits.data_type())),
            None => Ok((Value::Decimal(*scale), column.clone())),
        },
        DataType::Struct(fields) if !is_json(message) => {
            let inner = members(message, fields.iter().map(|field| &**field), path, depth + 1)?;
            let own: Vec<Field> = fields.iter().map(|field| field.as_ref().clone()).collect();
            let types = typed(&inner, &own);
            Ok((Value::Message(inner), DataType::Struct(types.into())))
        }
        _ if is_text => Ok((Value::Json(message.clone()), DataType::Utf8)),
        _ => other(&format!("the message `{}`, as a struct or as a text of JSON", message.full_name())),
    }
}

/// The columns of members, as these read them.
fn fitting(members: &[Member], columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let each = members.iter().map(|member| {
        let column = &columns[member.at];
        if *column.data_type() == member.as_type {
            return Ok(column.clone());
        }
        cast_with_options(column, &member.as_type, &options)
            .map_err(|_| unsupported(&member.name, format!("a value does not fit {}", member.as_type)))
    });
    each.collect()
}

fn write_message(members: &[Member], columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut chosen: Vec<usize> = Vec::new();
    for (member, column) in members.iter().zip(columns) {
        if column.is_null(row) {
            if member.required || !member.presence {
                let text = "it has a null, and the field has none: make it `optional` in the schema, or fill the column";
                return Err(unsupported(&member.name, text));
            }
            continue;
        }
        if let Some(oneof) = member.oneof {
            if chosen.contains(&oneof) {
                return Err(unsupported(
                    &member.name,
                    "another member of its oneof has a value in the same row",
                ));
            }
            chosen.push(oneof);
        }
        member.write(column, row, out)?;
    }
    Ok(())
}

fn key(number: u32, wire: u32, out: &mut Vec<u8>) {
    encode_varint(u64::from(number << 3 | wire), out);
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

impl Member {
    fn write(&self, column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<()> {
        match self.shape {
            Shape::Single => {
                let before = out.len();
                let is_default = self.write_one(column, row, out)?;
                if is_default && !self.presence {
                    out.truncate(before);
                }
            }
            Shape::Repeated { packed } => {
                let items = column.as_list::<i32>().value(row);
                if items.null_count() > 0 {
                    return Err(unsupported(&self.name, "a list has a null in it, which Protobuf has not"));
                }
                if packed && !items.is_empty() {
                    let mut all = Vec::new();
                    for item in 0..items.len() {
                        self.value.write(&self.name, &items, item, &mut all)?;
                    }
                    key(self.number, 2, out);
                    write_bytes(&all, out);
                    return Ok(());
                }
                for item in 0..items.len() {
                    self.write_one(&items, item, out)?;
                }
            }
            Shape::Map => {
                let Value::Message(members) = &self.value else { return Ok(()) };
                let entries = column.as_map().value(row);
                let columns = fitting(members, entries.columns())?;
                let mut keys = HashSet::new();
                for entry in 0..entries.len() {
                    if columns.iter().any(|column| column.is_null(entry)) {
                        return Err(unsupported(
                            &self.name,
                            "a map has a null in it, which Protobuf has not",
                        ));
                    }
                    let mut message = Vec::new();
                    write_message(&members[..1], &columns[..1], entry, &mut message)?;
                    if !keys.insert(message.clone()) {
                        return Err(unsupported(&self.name, "a map has a key twice"));
                    }
                    write_message(&members[1..], &columns[1..], entry, &mut message)?;
                    key(self.number, 2, out);
                    write_bytes(&message, out);
                }
            }
        }
        Ok(())
    }
}

impl Member {
    /// A value with its key; says whether it is what is read where there is none.
    fn write_one(&self, column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<bool> {
        if let (Value::Message(members), true) = (&self.value, self.group) {
            key(self.number, 3, out);
            write_message(members, &fitting(members, column.as_struct().columns())?, row, out)?;
            key(self.number, 4, out);
            return Ok(false);
        }
        key(self.number, self.value.wire(), out);
        self.value.write(&self.name, column, row, out)
    }
}

impl Value {
    fn wire(&self) -> u32 {
        match self {
            Value::Scalar(kind) => wire_of(kind),
            Value::Enum(_) => 0,
            Value::Message(_)
            | Value::Numbers(_)
            | Value::Decimal(_)
            | Value::Json(_)
            | Value::Wrapped(_) => 2,
        }
    }

    /// Writes a value that is not null; says whether it is what is read where there is none.
    fn write(&self, path: &str, column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<bool> {
        Ok(match self {
            Value::Scalar(kind) => write_scalar(kind, column, row, out),
            Value::Enum(names) => {
                let text = column.as_string::<i32>().value(row);
                let number = names.get(text).copied().or_else(|| text.parse().ok()).ok_or_else(|| {
                    let mut known: Vec<&str> = names.keys().map(String::as_str).collect();
                    known.sort_unstable();
                    unsupported(
                        path,
                        format!("it holds a text that is no name of the enum: {}", known.join(", ")),
                    )
                })?;
                encode_varint(i64::from(number) as u64, out);
                number == 0
            }
            Value::Message(members) => {
                let columns = fitting(members, column.as_struct().columns())?;
                let mut message = Vec::new();
                write_message(members, &columns, row, &mut message)?;
                write_bytes(&message, out);
                false
            }
            Value::Wrapped(kind) => {
                let mut message = Vec::new();
                key(1, wire_of(kind), &mut message);
                if write_scalar(kind, column, row, &mut message) {
                    message.clear();
                }
                write_bytes(&message, out);
                false
            }
            Value::Numbers(meaning) => {
                let parts = meaning.parts(column, row).ok_or_else(|| {
                    unsupported(path, format!("a value is outside of what a {} may be", meaning.name()))
                })?;
                let mut message = Vec::new();
                for (number, part) in (1..).zip(parts).filter(|(_, part)| *part != 0) {
                    key(number, 0, &mut message);
                    encode_varint(part as u64, &mut message);
                }
                write_bytes(&message, out);
                false
            }
            Value::Decimal(scale) => {
                let mut message = Vec::new();
                decimal::write(column.as_primitive::<Decimal128Type>().value(row), *scale, &mut message);
                write_bytes(&message, out);
                false
            }
            Value::Json(of) => {
                let text = column.as_string::<i32>().value(row);
                let mut json = serde_json::Deserializer::from_str(text);
                let message = DynamicMessage::deserialize(of.clone(), &mut json);
                let message = message.ok().filter(|_| json.end().is_ok()).ok_or_else(|| {
                    unsupported(path, format!("a text is not the JSON of one message `{}`", of.full_name()))
                })?;
                write_bytes(&message.encode_to_vec(), out);
                false
            }
        })
    }
}

fn wire_of(kind: &Kind) -> u32 {
    match kind {
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => 1,
        Kind::String | Kind::Bytes | Kind::Message(_) => 2,
        Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => 5,
        _ => 0,
    }
}

fn write_scalar(kind: &Kind, column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> bool {
    let mut whole = |number: i64| {
        match kind {
            Kind::Sint32 | Kind::Sint64 => encode_varint((number << 1 ^ number >> 63) as u64, out),
            Kind::Sfixed32 => out.extend((number as i32).to_le_bytes()),
            Kind::Sfixed64 => out.extend(number.to_le_bytes()),
            _ => encode_varint(number as u64, out),
        }
        number == 0
    };
    match column.data_type() {
        DataType::Int32 => whole(i64::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => whole(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt32 => {
            let number = column.as_primitive::<UInt32Type>().value(row);
            match kind {
                Kind::Fixed32 => out.extend(number.to_le_bytes()),
                _ => encode_varint(u64::from(number), out),
            }
            number == 0
        }
        DataType::UInt64 => {
            let number = column.as_primitive::<UInt64Type>().value(row);
            match kind {
                Kind::Fixed64 => out.extend(number.to_le_bytes()),
                _ => encode_varint(number, out),
            }
            number == 0
        }
        DataType::Float32 => {
            let number = column.as_primitive::<Float32Type>().value(row);
            out.extend(number.to_le_bytes());
            // The negative zero is not what is read where there is none.
            number.to_bits() == 0
        }
        DataType::Float64 => {
            let number = column.as_primitive::<Float64Type>().value(row);
            out.extend(number.to_le_bytes());
            number.to_bits() == 0
        }
        DataType::Boolean => {
            let value = column.as_boolean().value(row);
            out.push(u8::from(value));
            !value
        }
        DataType::Utf8 => {
            let text = column.as_string::<i32>().value(row);
            write_bytes(text.as_bytes(), out);
            text.is_empty()
        }
        _ => {
            let bytes = column.as_binary::<i32>().value(row);
            write_bytes(bytes, out);
            bytes.is_empty()
        }
    }
}
