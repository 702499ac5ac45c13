//! How records name their schema: in front of the value, or in a header; after the
//! [wire format](https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format).

use std::collections::BTreeSet;
use std::fmt;

use crate::decoded::{Cause, Fault};

/// Bytes in front of a value: a zero byte, and the id.
pub(crate) const PREFIX: usize = 5;

/// How records name a schema of the Schema Registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaId {
    /// Its id: a zero byte and four bytes, big-endian.
    Id(u32),
    /// Its GUID: a byte 1 and sixteen bytes.
    Guid([u8; 16]),
}

impl From<u32> for SchemaId {
    fn from(id: u32) -> Self {
        SchemaId::Id(id)
    }
}

impl PartialEq<u32> for SchemaId {
    fn eq(&self, id: &u32) -> bool {
        *self == SchemaId::Id(*id)
    }
}

/// The number, or the GUID as registries write it.
impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaId::Id(id) => id.fmt(f),
            SchemaId::Guid(guid) => {
                for (i, byte) in guid.iter().enumerate() {
                    let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

/// The value of a record, or its key, and the header that may name its schema.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Of the record's last header `__value_schema_id`, or `__key_schema_id`, the value. With it nothing is in front of the bytes.
    pub schema_header: Option<&'a [u8]>,
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value { bytes, schema_header: None }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Value::from(bytes.as_slice())
    }
}

/// A value, apart from what names its schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framed<'a> {
    pub(crate) id: SchemaId,
    /// What the header has behind the id; none if the id is in front of the value.
    behind: Option<&'a [u8]>,
    pub(crate) body: &'a [u8],
}

impl<'a> Framed<'a> {
    /// Reads what stands behind the id.
    pub(crate) fn behind<T>(&mut self, read: impl FnOnce(&mut &'a [u8]) -> T) -> T {
        match &mut self.behind {
            Some(behind) => read(behind),
            None => read(&mut self.body),
        }
    }
}

/// The id at the beginning of some bytes, and what is behind it.
fn id(bytes: &[u8]) -> Option<(SchemaId, &[u8])> {
    let (magic, rest) = bytes.split_first()?;
    match magic {
        0 => rest.split_first_chunk::<4>().map(|(id, rest)| (SchemaId::Id(u32::from_be_bytes(*id)), rest)),
        1 => rest.split_first_chunk::<16>().map(|(guid, rest)| (SchemaId::Guid(*guid), rest)),
        _ => None,
    }
}

/// A value apart from its schema's id, which has to be there.
pub(crate) fn split<'a>(value: Option<Value<'a>>) -> Result<Framed<'a>, Fault> {
    let value = there(value)?;
    let (what, bytes) = match value.schema_header {
        Some(header) => ("the header with the schema's id", header),
        None => ("the value", value.bytes),
    };
    if let Some((id, rest)) = id(bytes) {
        return Ok(match value.schema_header {
            Some(_) => Framed { id, behind: Some(rest), body: value.bytes },
            None => Framed { id, behind: None, body: rest },
        });
    }
    let told = match bytes.first() {
        Some(0 | 1) | None => {
            format!("{what} has {} bytes, too few for a schema id of the Schema Registry", bytes.len())
        }
        Some(first) => {
            let hint = if *first == b'{' { "; it looks like JSON" } else { "" };
            format!("{what} does not start with the Schema Registry's magic byte 0 or 1{hint}")
        }
    };
    Err(Fault::new(Cause::Malformed, told))
}

/// The value, if it is not a tombstone.
pub(crate) fn there(value: Option<Value<'_>>) -> Result<Value<'_>, Fault> {
    value.ok_or_else(|| Fault::new(Cause::NullValue, "the value is null (a tombstone)"))
}

/// Why a record of a schema that nobody gave cannot be decoded.
pub(crate) fn unknown_schema(id: SchemaId) -> Fault {
    Fault::new(Cause::UnknownSchema, format!("writer schema {id} is not known to the Schema Registry"))
}

/// The ids that values name and that are not known, ascending.
pub(crate) fn unknown_ids<'a, V: Into<Value<'a>>>(
    values: impl IntoIterator<Item = Option<V>>,
    known: impl Fn(SchemaId) -> bool,
) -> Vec<SchemaId> {
    let mut unknown = BTreeSet::new();
    for value in values.into_iter().flatten() {
        let value = value.into();
        match id(value.schema_header.unwrap_or(value.bytes)) {
            Some((id, _)) if !known(id) => {
                unknown.insert(id);
            }
            _ => {}
        }
    }
    unknown.into_iter().collect()
}

/// A value as a serialiser writes it: the prefix, and what comes behind it.
pub(crate) fn framed(id: u32, behind: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(5 + behind.len() + body.len());
    value.push(0);
    value.extend(id.to_be_bytes());
    value.extend(behind);
    value.extend(body);
    value
}
