//! Columns of single values, and how they are written.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::*;
use arrow_array::{ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBufferBuilder, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};
use prost_reflect::{EnumDescriptor, Kind};

use super::row::{Bad, Fed, another, inside};
use super::wire::{self, Wire};

/// Which rows have a value.
#[derive(Debug)]
pub(super) struct Valid(pub(super) BooleanBufferBuilder);

impl Valid {
    pub(super) fn new() -> Valid {
        Valid(BooleanBufferBuilder::new(0))
    }

    pub(super) fn finish(&mut self) -> Option<NullBuffer> {
        let nulls = NullBuffer::new(self.0.finish());
        (nulls.null_count() > 0).then_some(nulls)
    }
}

/// How a field of one value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int32,
    Sint32,
    Uint32,
    Int64,
    Sint64,
    Uint64,
    Fixed32,
    Sfixed32,
    Fixed64,
    Sfixed64,
    Float,
    Double,
    Text,
    Bytes,
    Enum,
}

#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) form: Form,
    pub(super) values: Values,
    /// None where there is always a value.
    pub(super) valid: Option<Valid>,
    /// It is the one field of a message.
    pub(super) wrapped: bool,
    names: Option<Arc<Names>>,
}

#[derive(Debug)]
pub(super) enum Values {
    Bool(BooleanBufferBuilder),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Text(Variable),
    Bytes(Variable),
}

#[derive(Debug)]
pub(super) struct Variable {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

/// The names of an enum's values.
#[derive(Debug)]
pub(super) struct Names {
    names: HashMap<i32, Box<str>>,
    /// What is read where there is none.
    default: i32,
}

impl Names {
    pub(super) fn new(of: &EnumDescriptor) -> Names {
        let mut names = HashMap::new();
        // In the order of the source: of several names of a number the first is its name.
        for value in &of.enum_descriptor_proto().value {
            names.entry(value.number()).or_insert_with(|| value.name().into());
        }
        Names { names, default: of.default_value().number() }
    }
}

pub(super) fn taken_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])))
}

impl Variable {
    pub(super) fn new() -> Variable {
        Variable { offsets: vec![0], data: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.offsets.push(self.data.len() as i32);
    }

    pub(super) fn get(&self, row: usize) -> &[u8] {
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.data.truncate(self.offsets[self.offsets.len() - 1] as usize);
    }

    pub(super) fn finish_text(
        &mut self,
        nulls: Option<NullBuffer>,
    ) -> std::result::Result<StringArray, ArrowError> {
        let data = std::mem::take(&mut self.data);
        StringArray::try_new(taken_offsets(&mut self.offsets), data.into(), nulls)
    }

    fn finish_bytes(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<BinaryArray, ArrowError> {
        let data = std::mem::take(&mut self.data);
        BinaryArray::try_new(taken_offsets(&mut self.offsets), data.into(), nulls)
    }
}

impl Scalar {
    pub(super) fn new(kind: &Kind, nullable: bool, wrapped: bool, names: Option<Arc<Names>>) -> Scalar {
        let (form, values) = match kind {
            Kind::Bool => (Form::Bool, Values::Bool(BooleanBufferBuilder::new(0))),
            Kind::Int32 => (Form::Int32, Values::Int32(Vec::new())),
            Kind::Sint32 => (Form::Sint32, Values::Int32(Vec::new())),
            Kind::Sfixed32 => (Form::Sfixed32, Values::Int32(Vec::new())),
            Kind::Int64 => (Form::Int64, Values::Int64(Vec::new())),
            Kind::Sint64 => (Form::Sint64, Values::Int64(Vec::new())),
            Kind::Sfixed64 => (Form::Sfixed64, Values::Int64(Vec::new())),
            Kind::Uint32 => (Form::Uint32, Values::Uint32(Vec::new())),
            Kind::Fixed32 => (Form::Fixed32, Values::Uint32(Vec::new())),
            Kind::Uint64 => (Form::Uint64, Values::Uint64(Vec::new())),
            Kind::Fixed64 => (Form::Fixed64, Values::Uint64(Vec::new())),
            Kind::Float => (Form::Float, Values::Float(Vec::new())),
            Kind::Double => (Form::Double, Values::Double(Vec::new())),
            Kind::Bytes => (Form::Bytes, Values::Bytes(Variable::new())),
            Kind::Enum(_) => (Form::Enum, Values::Text(Variable::new())),
            Kind::String | Kind::Message(_) => (Form::Text, Values::Text(Variable::new())),
        };
        Scalar { form, values, valid: nullable.then(Valid::new), wrapped, names }
    }

    /// Makes texts of numbers.
    pub(super) fn as_text(&mut self) {
        self.values = Values::Text(Variable::new());
    }

    pub(super) fn data_type(&self) -> DataType {
        match &self.values {
            Values::Bool(_) => DataType::Boolean,
            Values::Int32(_) => DataType::Int32,
            Values::Int64(_) => DataType::Int64,
            Values::Uint32(_) => DataType::UInt32,
            Values::Uint64(_) => DataType::UInt64,
            Values::Float(_) => DataType::Float32,
            Values::Double(_) => DataType::Float64,
            Values::Text(_) => DataType::Utf8,
            Values::Bytes(_) => DataType::Binary,
        }
    }

    pub(super) fn weight(&self) -> u64 {
        match &self.values {
            Values::Bool(_) => 1,
            Values::Int32(_) | Values::Uint32(_) | Values::Float(_) => 5,
            Values::Int64(_) | Values::Uint64(_) | Values::Double(_) => 9,
            Values::Text(_) | Values::Bytes(_) => 5,
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.values {
            Values::Bool(values) => values.len(),
            Values::Int32(values) => values.len(),
            Values::Int64(values) => values.len(),
            Values::Uint32(values) => values.len(),
            Values::Uint64(values) => values.len(),
            Values::Float(values) => values.len(),
            Values::Double(values) => values.len(),
            Values::Text(values) | Values::Bytes(values) => values.len(),
        }
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::Int32(values) => values.truncate(rows),
            Values::Int64(values) => values.truncate(rows),
            Values::Uint32(values) => values.truncate(rows),
            Values::Uint64(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Double(values) => values.truncate(rows),
            Values::Text(values) | Values::Bytes(values) => values.truncate(rows),
        }
        if let Some(valid) = &mut self.valid {
            valid.0.truncate(rows);
        }
    }

    pub(super) fn wire(&self) -> Wire {
        match self.form {
            Form::Fixed32 | Form::Sfixed32 | Form::Float => Wire::Fixed32,
            Form::Fixed64 | Form::Sfixed64 | Form::Double => Wire::Fixed64,
            Form::Text | Form::Bytes => Wire::Length,
            _ => Wire::Varint,
        }
    }

    pub(super) fn is_packable(&self) -> bool {
        !self.wrapped && self.wire() != Wire::Length
    }

    /// The value of a row, in the place of one that is there.
    #[inline]
    pub(super) fn accept(&mut self, row: usize, wire: Wire, at: &mut &[u8], grown: &mut u64) -> Fed {
        if !self.wrapped {
            return self.read(row, wire, at, grown);
        }
        let mut inner = inside(1, wire, at)?;
        while !inner.is_empty() {
            match wire::tag(&mut inner)? {
                (1, wire) => self.read(row, wire, &mut inner, grown)?,
                (number, wire) => wire::skip(number, wire, &mut inner)?,
            }
        }
        if self.len() == row {
            self.default();
            self.present();
        }
        Ok(())
    }

    #[inline]
    fn read(&mut self, row: usize, wire: Wire, at: &mut &[u8], grown: &mut u64) -> Fed {
        if wire != self.wire() {
            return Err(another(wire, self.wire()));
        }
        if self.len() > row {
            self.truncate(row);
        }
        match (&mut self.values, self.form) {
            (Values::Bool(values), _) => values.append(wire::varint(at)? != 0),
            (Values::Int32(values), Form::Sint32) => values.push(wire::zigzag32(wire::varint(at)?)),
            (Values::Int32(values), Form::Sfixed32) => values.push(i32::from_le_bytes(wire::fixed(at)?)),
            (Values::Int32(values), _) => values.push(wire::varint(at)? as i32),
            (Values::Int64(values), Form::Sint64) => values.push(wire::zigzag(wire::varint(at)?)),
            (Values::Int64(values), Form::Sfixed64) => values.push(i64::from_le_bytes(wire::fixed(at)?)),
            (Values::Int64(values), _) => values.push(wire::varint(at)? as i64),
            (Values::Uint32(values), Form::Fixed32) => values.push(u32::from_le_bytes(wire::fixed(at)?)),
            (Values::Uint32(values), _) => values.push(wire::varint(at)? as u32),
            (Values::Uint64(values), Form::Fixed64) => values.push(u64::from_le_bytes(wire::fixed(at)?)),
            (Values::Uint64(values), _) => values.push(wire::varint(at)?),
            (Values::Float(values), _) => values.push(f32::from_le_bytes(wire::fixed(at)?)),
            (Values::Double(values), _) => values.push(f64::from_le_bytes(wire::fixed(at)?)),
            (Values::Bytes(values), _) => {
                let bytes = wire::length(at)?;
                *grown += bytes.len() as u64;
                values.push(bytes);
            }
            (Values::Text(values), form) => {
                let number = match form {
                    Form::Text => {
                        let bytes = wire::length(at)?;
                        if let Err(fault) = std::str::from_utf8(bytes) {
                            return Err(Bad::malformed(format!(
                                "it is not UTF-8 text: invalid at byte {}",
                                fault.valid_up_to()
                            )));
                        }
                        *grown += bytes.len() as u64;
                        values.push(bytes);
                        self.present();
                        return Ok(());
                    }
                    Form::Fixed32 => i128::from(u32::from_le_bytes(wire::fixed(at)?)),
                    Form::Sfixed32 => i128::from(i32::from_le_bytes(wire::fixed(at)?)),
                    Form::Fixed64 => i128::from(u64::from_le_bytes(wire::fixed(at)?)),
                    Form::Sfixed64 => i128::from(i64::from_le_bytes(wire::fixed(at)?)),
                    Form::Sint32 => i128::from(wire::zigzag32(wire::varint(at)?)),
                    Form::Sint64 => i128::from(wire::zigzag(wire::varint(at)?)),
                    Form::Int64 => i128::from(wire::varint(at)? as i64),
                    Form::Uint32 => i128::from(wire::varint(at)? as u32),
                    Form::Uint64 => i128::from(wire::varint(at)?),
                    Form::Bool => i128::from(wire::varint(at)? != 0),
                    _ => i128::from(wire::varint(at)? as i32),
                };
                let before = values.data.len();
                push_text(values, form, self.names.as_deref(), number);
                *grown += (values.data.len() - before) as u64;
            }
        }
        self.present();
        Ok(())
    }

    #[inline]
    fn present(&mut self) {
        if let Some(valid) = &mut self.valid {
            valid.0.append(true);
        }
    }

    /// What Protobuf says of a field that is not there.
    fn default(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) => values.push(0),
            Values::Uint32(values) => values.push(0),
            Values::Uint64(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Double(values) => values.push(0.0),
            Values::Text(values) if self.form != Form::Text => {
                let default = self.names.as_ref().map_or(0, |names| names.default);
                push_text(values, self.form, self.names.as_deref(), default.into());
            }
            Values::Text(values) | Values::Bytes(values) => values.push(b""),
        }
    }

    /// A row without a value.
    pub(super) fn absent(&mut self) {
        match &mut self.valid {
            Some(valid) => {
                valid.0.append(false);
                match &mut self.values {
                    Values::Text(values) | Values::Bytes(values) => values.push(b""),
                    _ => self.default(),
                }
            }
            None => self.default(),
        }
    }

    pub(super) fn finish(&mut self) -> std::result::Result<ArrayRef, ArrowError> {
        let nulls = self.valid.as_mut().and_then(Valid::finish);
        fn numbers<P: ArrowPrimitiveType>(
            values: &mut Vec<P::Native>,
            nulls: Option<NullBuffer>,
        ) -> std::result::Result<ArrayRef, ArrowError> {
            let values = ScalarBuffer::from(std::mem::take(values));
            Ok(Arc::new(PrimitiveArray::<P>::try_new(values, nulls)?))
        }
        match &mut self.values {
            Values::Bool(values) => Ok(Arc::new(BooleanArray::new(values.finish(), nulls))),
            Values::Int32(values) => numbers::<Int32Type>(values, nulls),
            Values::Int64(values) => numbers::<Int64Type>(values, nulls),
            Values::Uint32(values) => numbers::<UInt32Type>(values, nulls),
            Values::Uint64(values) => numbers::<UInt64Type>(values, nulls),
            Values::Float(values) => numbers::<Float32Type>(values, nulls),
            Values::Double(values) => numbers::<Float64Type>(values, nulls),
            Values::Text(values) => Ok(Arc::new(values.finish_text(nulls)?)),
            Values::Bytes(values) => Ok(Arc::new(values.finish_bytes(nulls)?)),
        }
    }
}

/// A number as text: the name of an enum's value, and its digits where it has none, as in Protobuf's JSON.
fn push_text(values: &mut Variable, form: Form, names: Option<&Names>, number: i128) {
    let name = names.and_then(|of| of.names.get(&i32::try_from(number).ok()?));
    match (name, form) {
        (Some(name), _) => values.push(name.as_bytes()),
        (None, Form::Bool) => values.push(if number == 0 { b"false" } else { b"true" }),
        (None, _) => values.push(number.to_string().as_bytes()),
    }
}
