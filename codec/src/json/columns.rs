//! Our own columns inside arrow-json, for the types where its defaults lose data without a word: it
//! cuts fractions off integers and times, rounds decimals, and turns 1e999 into infinity.

use std::sync::Arc;

use arrow_array::builder::{PrimitiveBuilder, StringBuilder};
use arrow_array::types::*;
use arrow_array::{ArrayRef, ArrowPrimitiveType};
use arrow_json::reader::{ArrayDecoder, DecoderContext, DecoderFactory, Tape, TapeElement};
use arrow_schema::{ArrowError, DataType, FieldRef, TimeUnit};

use crate::field_spec::is_json;

use super::scalars::{date_text, decimal, exact, float32, float64, timestamp_text};

/// How a field of a scalar type reads the text of a number and of a string.
#[derive(Debug, Clone, Copy)]
pub(super) enum Token<'a> {
    Number(&'a str),
    Text(&'a str),
}

impl<'a> Token<'a> {
    /// The text, for types that take a number in quotes as well (as protobuf's JSON writes int64).
    fn digits(self) -> &'a str {
        match self {
            Token::Number(text) | Token::Text(text) => text,
        }
    }
}

fn integer<T: TryFrom<i128>>(token: Token<'_>) -> Option<T> {
    exact(token.digits(), 0).and_then(|n| T::try_from(n).ok())
}

fn timestamp(token: Token<'_>, unit: TimeUnit) -> Option<i64> {
    match token {
        Token::Number(text) => {
            let number: i64 = exact(text, 0)?.try_into().ok()?;
            // Seconds are written as milliseconds where a format has no seconds: they have to fit there.
            if unit == TimeUnit::Second {
                number.checked_mul(1000)?;
            }
            Some(number)
        }
        Token::Text(text) => timestamp_text(text, unit),
    }
}

fn date(token: Token<'_>) -> Option<i32> {
    match token {
        Token::Number(text) => exact(text, 0).and_then(|n| n.try_into().ok()),
        Token::Text(text) => date_text(text),
    }
}

/// Whether a scalar token fits a type that is read by this module; `None` for a type that is not.
pub(super) fn scalar_fits(data_type: &DataType, token: Token<'_>) -> Option<bool> {
    Some(match data_type {
        DataType::Int8 => integer::<i8>(token).is_some(),
        DataType::Int16 => integer::<i16>(token).is_some(),
        DataType::Int32 => integer::<i32>(token).is_some(),
        DataType::Int64 => integer::<i64>(token).is_some(),
        DataType::UInt8 => integer::<u8>(token).is_some(),
        DataType::UInt16 => integer::<u16>(token).is_some(),
        DataType::UInt32 => integer::<u32>(token).is_some(),
        DataType::UInt64 => integer::<u64>(token).is_some(),
        DataType::Float32 => float32(token.digits()).is_some(),
        DataType::Float64 => float64(token.digits()).is_some(),
        DataType::Decimal128(p, s) => decimal(token.digits(), *p, *s).is_some(),
        DataType::Date32 => date(token).is_some(),
        DataType::Timestamp(unit, _) => timestamp(token, *unit).is_some(),
        _ => return None,
    })
}

/// Gives arrow-json the columns of this module.
#[derive(Debug)]
pub(super) struct ExactColumns;

impl DecoderFactory for ExactColumns {
    fn make_default_decoder(
        &self,
        _context: &DecoderContext,
        field: &FieldRef,
        _is_nullable: bool,
    ) -> Result<Option<Box<dyn ArrayDecoder>>, ArrowError> {
        let data_type = field.data_type();
        if is_json(field) {
            return Ok(Some(Box::new(JsonText)));
        }
        fn column<P: ArrowPrimitiveType>(
            data_type: &DataType,
            read: impl Fn(Token<'_>) -> Option<P::Native> + Send + 'static,
        ) -> Box<dyn ArrayDecoder> {
            Box::new(ExactColumn::<P, _> {
                data_type: data_type.clone(),
                read,
                primitive: std::marker::PhantomData,
            })
        }
        Ok(Some(match data_type {
            DataType::Int8 => column::<Int8Type>(data_type, integer),
            DataType::Int16 => column::<Int16Type>(data_type, integer),
            DataType::Int32 => column::<Int32Type>(data_type, integer),
            DataType::Int64 => column::<Int64Type>(data_type, integer),
            DataType::UInt8 => column::<UInt8Type>(data_type, integer),
            DataType::UInt16 => column::<UInt16Type>(data_type, integer),
            DataType::UInt32 => column::<UInt32Type>(data_type, integer),
            DataType::UInt64 => column::<UInt64Type>(data_type, integer),
            DataType::Float32 => column::<Float32Type>(data_type, |t| float32(t.digits())),
            DataType::Float64 => column::<Float64Type>(data_type, |t| float64(t.digits())),
            &DataType::Decimal128(p, s) => {
                column::<Decimal128Type>(data_type, move |t| decimal(t.digits(), p, s))
            }
            DataType::Date32 => column::<Date32Type>(data_type, date),
            DataType::Timestamp(TimeUnit::Second, _) => {
                column::<TimestampSecondType>(data_type, |t| timestamp(t, TimeUnit::Second))
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                column::<TimestampMillisecondType>(data_type, |t| timestamp(t, TimeUnit::Millisecond))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                column::<TimestampMicrosecondType>(data_type, |t| timestamp(t, TimeUnit::Microsecond))
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                column::<TimestampNanosecondType>(data_type, |t| timestamp(t, TimeUnit::Nanosecond))
            }
            _ => return Ok(None),
        }))
    }
}

/// A column of any JSON values, each as its text without spaces.
struct JsonText;

impl ArrayDecoder for JsonText {
    fn decode(&mut self, tape: &Tape<'_>, pos: &[u32]) -> Result<ArrayRef, ArrowError> {
        let mut builder = StringBuilder::new();
        let mut text = String::new();
        for &p in pos {
            if tape.get(p) == TapeElement::Null {
                builder.append_null();
                continue;
            }
            text.clear();
            write_json(tape, p, &mut text)?;
            builder.append_value(&text);
        }
        Ok(Arc::new(builder.finish()))
    }
}

/// No deeper than the syntax was let through.
fn write_json(tape: &Tape<'_>, at: u32, text: &mut String) -> Result<(), ArrowError> {
    let quoted = |i| serde_json::to_string(tape.get_string(i)).map_err(|_| mismatch());
    match tape.get(at) {
        TapeElement::Null => text.push_str("null"),
        TapeElement::True => text.push_str("true"),
        TapeElement::False => text.push_str("false"),
        TapeElement::Number(i) => text.push_str(tape.get_string(i)),
        TapeElement::String(i) => text.push_str(&quoted(i)?),
        TapeElement::StartList(end) => {
            text.push('[');
            let mut next = at + 1;
            while next < end {
                if next > at + 1 {
                    text.push(',');
                }
                write_json(tape, next, text)?;
                next = tape.next(next, "a value")?;
            }
            text.push(']');
        }
        TapeElement::StartObject(end) => {
            text.push('{');
            let mut next = at + 1;
            while next < end {
                if next > at + 1 {
                    text.push(',');
                }
                write_json(tape, next, text)?;
                text.push(':');
                write_json(tape, next + 1, text)?;
                next = tape.next(next + 1, "a value")?;
            }
            text.push('}');
        }
        _ => return Err(mismatch()),
    }
    Ok(())
}

struct ExactColumn<P, F> {
    data_type: DataType,
    read: F,
    primitive: std::marker::PhantomData<fn() -> P>,
}

impl<P, F> ArrayDecoder for ExactColumn<P, F>
where
    P: ArrowPrimitiveType,
    F: Fn(Token<'_>) -> Option<P::Native> + Send,
{
    fn decode(&mut self, tape: &Tape<'_>, pos: &[u32]) -> Result<ArrayRef, ArrowError> {
        let mut builder =
            PrimitiveBuilder::<P>::with_capacity(pos.len()).with_data_type(self.data_type.clone());
        for &p in pos {
            let token = match tape.get(p) {
                TapeElement::Null => {
                    builder.append_null();
                    continue;
                }
                TapeElement::Number(i) => Token::Number(tape.get_string(i)),
                TapeElement::String(i) => Token::Text(tape.get_string(i)),
                _ => return Err(mismatch()),
            };
            builder.append_value((self.read)(token).ok_or_else(mismatch)?);
        }
        Ok(Arc::new(builder.finish()))
    }
}

/// The text is never shown: the row is explained, without its values, once it is alone.
fn mismatch() -> ArrowError {
    ArrowError::JsonError(String::new())
}
