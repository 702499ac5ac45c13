//! What two schemas of a message may differ in, for the one to read what the other wrote.

use std::collections::{HashMap, HashSet};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::decimal::Digits;
use super::schema::{is_json, wrapped};
use crate::error::joined;

/// Why what a writer wrote cannot be read by the columns' schema, if it cannot: what has changed beyond what the wire format bears.
pub(super) fn conflict(reader: &MessageDescriptor, writer: &MessageDescriptor) -> Option<String> {
    let mut open = vec![(String::new(), reader.clone(), writer.clone())];
    let mut seen: HashSet<(String, String)> = HashSet::new();
    while let Some((path, reader, writer)) = open.pop() {
        if !seen.insert((reader.full_name().to_owned(), writer.full_name().to_owned())) {
            continue;
        }
        for read in reader.fields() {
            let path = joined(&path, read.name());
            match writer.get_field(read.number()) {
                None if read.is_required() => {
                    return Some(format!("field {path}: it is required, and the writer has none"));
                }
                None => {}
                Some(written) => {
                    if let Some(conflict) = field_conflict(&read, &written, &path, &mut open, &mut seen) {
                        return Some(conflict);
                    }
                }
            }
        }
        if let Some(name) = split_choice(&reader, &writer) {
            let path = joined(&path, &name);
            return Some(format!(
                "field {path}: it is a member of a oneof, with others that the writer may have beside it"
            ));
        }
    }
    None
}

/// A field of a oneof of the reader, of which a writer may have another member in the same message.
fn split_choice(reader: &MessageDescriptor, writer: &MessageDescriptor) -> Option<String> {
    reader.oneofs().filter(|oneof| !oneof.is_synthetic()).find_map(|oneof| {
        let written = oneof
            .fields()
            .filter_map(|read| Some((read.name().to_owned(), writer.get_field(read.number())?)));
        let written: Vec<(String, FieldDescriptor)> = written.collect();
        let choice = |field: &FieldDescriptor| {
            field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic())
                .map(|oneof| oneof.full_name().to_owned())
        };
        let (_, first) = written.first()?;
        let first = choice(first);
        let apart = written[1..].iter().find(|(_, field)| first.is_none() || choice(field) != first)?;
        Some(apart.0.clone())
    })
}

fn field_conflict(
    read: &FieldDescriptor,
    written: &FieldDescriptor,
    path: &str,
    open: &mut Vec<(String, MessageDescriptor, MessageDescriptor)>,
    seen: &mut HashSet<(String, String)>,
) -> Option<String> {
    use Kind::*;
    let shape = |field: &FieldDescriptor| match field {
        field if field.is_map() => "a map",
        field if field.is_list() => "repeated",
        _ => "single",
    };
    let (reader, writer) = (shape(read), shape(written));
    if reader != writer && (reader, writer) != ("repeated", "single") {
        return Some(format!("field {path}: the writer's is {writer}, the columns' schema's {reader}"));
    }
    match (read.kind(), written.kind()) {
        (Message(reader), Message(writer)) => {
            let is_special = is_special(&reader) || is_special(&writer) || Digits::of(read).is_some();
            if is_special && reader.full_name() != writer.full_name() {
                return Some(format!(
                    "field {path}: the writer's is {}, the columns' schema's {}",
                    writer.full_name(),
                    reader.full_name()
                ));
            }
            open.push((path.to_owned(), reader, writer));
            None
        }
        (Enum(reader), Enum(writer)) => {
            let pair = (reader.full_name().to_owned(), writer.full_name().to_owned());
            if !seen.insert(pair) {
                return None;
            }
            let mut names: HashMap<i32, Vec<&str>> = HashMap::new();
            for value in &reader.enum_descriptor_proto().value {
                names.entry(value.number()).or_default().push(value.name());
            }
            writer.enum_descriptor_proto().value.iter().find_map(|value| {
                let known = names.get(&value.number()).filter(|known| !known.contains(&value.name()))?;
                Some(format!(
                    "field {path}: {} is `{}` to the writer and `{}` to the columns' schema",
                    value.number(),
                    value.name(),
                    known[0]
                ))
            })
        }
        (reader, writer) if reader == writer => None,
        // What is wider, and written in the same way.
        (Int64, Int32) | (Uint64 | Int64, Uint32) | (Sint64, Sint32) | (Bytes, String) => None,
        (Int32 | Int64, Enum(_)) | (Int32 | Int64 | Uint32 | Uint64, Bool) => None,
        (reader, writer) => {
            Some(format!("field {path}: the writer's is {writer:?}, the columns' schema's {reader:?}"))
        }
    }
}

/// Whether a message is a value of its own, not a struct of its fields.
fn is_special(message: &MessageDescriptor) -> bool {
    matches!(message.full_name(), "google.protobuf.Timestamp" | "google.type.Date" | "google.type.TimeOfDay")
        || is_json(message)
        || wrapped(message).is_some()
}
