//! The Schema Registry's prefix of a value: the magic byte 0 and the id of a schema in four bytes, big-endian; after the
//! [wire format](https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format).

use std::collections::BTreeSet;

use crate::decoded::{Cause, Fault};

/// Bytes in front of what the schema says.
const PREFIX: usize = 5;

/// Schema id and body of a value.
pub(crate) fn split(value: Option<&[u8]>) -> Result<(u32, &[u8]), Fault> {
    let value = there(value)?;
    let Some((&[magic, a, b, c, d], body)) = value.split_first_chunk::<PREFIX>() else {
        return Err(Fault::new(
            Cause::Malformed,
            format!("{} bytes are too few for the Schema Registry's prefix of {PREFIX}", value.len()),
        ));
    };
    if magic != 0 {
        let hint = if magic == b'{' { "; it looks like JSON" } else { "" };
        return Err(Fault::new(
            Cause::Malformed,
            format!("the value does not start with the Schema Registry's magic byte 0{hint}"),
        ));
    }
    Ok((u32::from_be_bytes([a, b, c, d]), body))
}

/// The value, if it is not a tombstone.
pub(crate) fn there(value: Option<&[u8]>) -> Result<&[u8], Fault> {
    value.ok_or_else(|| Fault::new(Cause::NullValue, "the value is null (a tombstone)"))
}

/// Why a record of a schema that nobody gave cannot be decoded.
pub(crate) fn unknown_schema(id: u32) -> Fault {
    Fault::new(Cause::UnknownSchema, format!("writer schema {id} is not known to the Schema Registry"))
}

/// The ids that values name and that are not known, ascending.
pub(crate) fn unknown_ids<'a>(
    values: impl IntoIterator<Item = Option<&'a [u8]>>,
    known: impl Fn(u32) -> bool,
) -> Vec<u32> {
    let mut unknown = BTreeSet::new();
    for value in values {
        if let Some(&[0, a, b, c, d, ..]) = value {
            let id = u32::from_be_bytes([a, b, c, d]);
            if !known(id) {
                unknown.insert(id);
            }
        }
    }
    unknown.into_iter().collect()
}

/// A value as a serialiser writes it: the prefix, and what comes behind it.
pub(crate) fn framed(id: u32, behind: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(PREFIX + behind.len() + body.len());
    value.push(0);
    value.extend(id.to_be_bytes());
    value.extend(behind);
    value.extend(body);
    value
}
