//! Columns of messages as JSON.

use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::row::{Bad, Fed};
use super::scalar::{Valid, Variable};

#[derive(Debug)]
pub(super) struct Json {
    pub(super) of: MessageDescriptor,
    pub(super) texts: Variable,
    pub(super) valid: Option<Valid>,
    /// Of the open row: a message that comes again is added.
    pub(super) open: Option<DynamicMessage>,
}

impl Json {
    pub(super) fn end_row(&mut self, grown: &mut u64) -> Fed {
        let text = self.open.take().map(|message| {
            // Names of enums may be long.
            let mut written = Bounded(Vec::new());
            if serde_json::to_writer(&mut written, &message).is_err() {
                return Err(Bad::mismatch(match written.0.len() >= MAX_JSON {
                    true => "its JSON would have more than 64 MiB",
                    false => "it has no form in Protobuf's JSON",
                }));
            }
            let value = serde_json::from_slice::<serde_json::Value>(&written.0);
            let sorted = value.map(|mut value| {
                // The entries of maps come in any order.
                value.sort_all_objects();
                value.to_string()
            });
            sorted.map_err(|_| Bad::mismatch("it nests too deep for JSON"))
        });
        let text = text.transpose()?;
        *grown += text.as_ref().map_or(0, String::len) as u64;
        self.push(text.as_deref());
        Ok(())
    }

    pub(super) fn push(&mut self, text: Option<&str>) {
        self.texts.push(text.unwrap_or_default().as_bytes());
        if let Some(valid) = &mut self.valid {
            valid.0.append(text.is_some());
        }
    }
}

/// Bytes of one JSON text.
const MAX_JSON: usize = 64 << 20;

/// Takes so many at most.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        match self.0.len() < MAX_JSON {
            true => Ok(bytes.len()),
            false => Err(std::io::Error::other("too long")),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
