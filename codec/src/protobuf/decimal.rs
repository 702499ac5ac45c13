//! Kafka Connect's `Decimal`: digits, and where the point is, in each value. What a field says of all its values is in the
//! `params` of its [`field_meta`], as Connect's converter writes it.
//!
//! [`field_meta`]: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/serdes-protobuf.html

use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array};
use arrow_schema::{ArrowError, DataType};
use prost::encoding::encode_varint;
use prost_reflect::{FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::row::{Bad, Fed, another};
use super::scalar::Valid;
use super::wire::{self, Wire};

/// The most digits of a column.
const MAX_DIGITS: u8 = 38;

/// Whether a message is such a value.
pub(super) fn is_decimal(message: &MessageDescriptor) -> bool {
    let kind = |number: u32| message.get_field(number).filter(|f| !f.is_list()).map(|field| field.kind());
    message.full_name() == "confluent.type.Decimal"
        && (kind(1), kind(2), kind(3)) == (Some(Kind::Bytes), Some(Kind::Uint32), Some(Kind::Int32))
}

/// How many digits the values of a field have at most, and how many of them behind the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digits {
    precision: u8,
    scale: i8,
}

impl Digits {
    /// None where the field is no `Decimal`, does not say its scale, or has more digits than a column.
    pub(super) fn of(field: &FieldDescriptor) -> Option<Digits> {
        let Kind::Message(message) = field.kind() else { return None };
        if !is_decimal(&message) {
            return None;
        }
        let meta = field.parent_pool().get_extension_by_name("confluent.field_meta")?;
        let options = field.options();
        let meta = options.get_extension(&meta);
        let params = meta.as_message()?.get_field_by_name("params")?;
        let param = |name: &str| -> Option<Option<u8>> {
            match params.as_map()?.get(&MapKey::String(name.to_owned())) {
                None => Some(None),
                Some(Value::String(digits)) => digits.parse().ok().map(Some),
                Some(_) => None,
            }
        };
        let (precision, scale) = (param("precision")?.unwrap_or(MAX_DIGITS), param("scale")??);
        let fits = (1..=MAX_DIGITS).contains(&precision) && scale <= precision;
        fits.then_some(Digits { precision, scale: scale as i8 })
    }

    pub(super) fn scale(self) -> i8 {
        self.scale
    }

    pub(super) fn data_type(self) -> DataType {
        DataType::Decimal128(self.precision, self.scale)
    }

    /// A value of the column; no digit is ever left out.
    fn value(self, open: &Open) -> Fed<i128> {
        let too_large = || Bad::mismatch(format!("it has more digits than {} has", self.data_type()));
        let number = whole(&open.unscaled).ok_or_else(too_large)?;
        let more = i64::from(self.scale) - i64::from(open.scale);
        let power = |of: u64| u32::try_from(of).ok().and_then(|of| 10i128.checked_pow(of));
        let number = match (number, power(more.unsigned_abs())) {
            (0, _) => 0,
            (_, None) => return Err(too_large()),
            (_, Some(power)) if more >= 0 => number.checked_mul(power).ok_or_else(too_large)?,
            (_, Some(power)) if number % power == 0 => number / power,
            _ => {
                return Err(Bad::mismatch(format!(
                    "it has {} digits behind the point, and {} has fewer",
                    open.scale,
                    self.data_type()
                )));
            }
        };
        match number.unsigned_abs() < 10u128.pow(u32::from(self.precision)) {
            true => Ok(number),
            false => Err(too_large()),
        }
    }
}

/// Two's complement, the highest byte first, as Java's `BigInteger` has it; none if it has more than 128 bits.
fn whole(bytes: &[u8]) -> Option<i128> {
    let Some(first) = bytes.first() else { return Some(0) };
    let fill = if first & 0x80 == 0 { 0 } else { 0xff };
    let (front, rest) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut all = [fill; 16];
    all[16 - rest.len()..].copy_from_slice(rest);
    let is_sign = front.iter().all(|byte| *byte == fill) && all[0] & 0x80 == fill & 0x80;
    is_sign.then(|| i128::from_be_bytes(all))
}

/// The open row's.
#[derive(Debug, Default)]
pub(super) struct Open {
    unscaled: Vec<u8>,
    scale: i32,
}

#[derive(Debug)]
pub(super) struct Decimals {
    digits: Digits,
    pub(super) values: Vec<i128>,
    pub(super) valid: Option<Valid>,
    pub(super) open: Option<Open>,
}

impl Decimals {
    pub(super) fn new(digits: Digits, nullable: bool) -> Decimals {
        Decimals { digits, values: Vec::new(), valid: nullable.then(Valid::new), open: None }
    }

    pub(super) fn feed(&mut self, mut at: &[u8]) -> Fed {
        let open = self.open.get_or_insert_default();
        while !at.is_empty() {
            match wire::tag(&mut at)? {
                (1, Wire::Length) => wire::length(&mut at)?.clone_into(&mut open.unscaled),
                (3, Wire::Varint) => open.scale = wire::varint(&mut at)? as i32,
                // The digits that there are say how many there are.
                (2, Wire::Varint) => _ = wire::varint(&mut at)?,
                (1, other) => return Err(another(other, Wire::Length)),
                (2 | 3, other) => return Err(another(other, Wire::Varint)),
                (number, wire) => wire::skip(number, wire, &mut at)?,
            }
        }
        Ok(())
    }

    pub(super) fn end_row(&mut self) -> Fed {
        let value = self.open.take().map(|open| self.digits.value(&open)).transpose()?;
        self.push(value);
        Ok(())
    }

    pub(super) fn push(&mut self, value: Option<i128>) {
        self.values.push(value.unwrap_or_default());
        if let Some(valid) = &mut self.valid {
            valid.0.append(value.is_some());
        }
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.valid.iter_mut().for_each(|valid| valid.0.truncate(rows));
        self.open = None;
    }

    pub(super) fn finish(&mut self) -> std::result::Result<ArrayRef, ArrowError> {
        let nulls = self.valid.as_mut().and_then(Valid::finish);
        let values = Decimal128Array::try_new(std::mem::take(&mut self.values).into(), nulls)?;
        Ok(Arc::new(values.with_precision_and_scale(self.digits.precision, self.digits.scale)?))
    }
}

/// The message of a value, as Connect's converter writes it.
pub(super) fn write(number: i128, scale: i8, out: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    // As few bytes as tell the sign.
    let is_sign = |at: usize| bytes[at] == if bytes[at + 1] & 0x80 == 0 { 0 } else { 0xff };
    let from = (0..15).take_while(|at| is_sign(*at)).count();
    encode_varint(1 << 3 | 2, out);
    encode_varint((16 - from) as u64, out);
    out.extend(&bytes[from..]);
    encode_varint(2 << 3, out);
    encode_varint(u64::from(number.unsigned_abs().checked_ilog10().unwrap_or(0) + 1), out);
    if scale != 0 {
        encode_varint(3 << 3, out);
        encode_varint(i64::from(scale) as u64, out);
    }
}
