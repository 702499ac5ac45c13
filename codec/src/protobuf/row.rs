//! What rows are made by: reading a message, and why it is none.

use super::wire::{self, Wire};
use crate::decoded::{Cause, Fault};

/// Why a message does not become a row: where, by dotted path, and what.
#[derive(Debug)]
pub(super) struct Bad {
    path: String,
    cause: Cause,
    what: String,
    too_large: bool,
}

impl Bad {
    pub(super) fn malformed(what: impl Into<String>) -> Bad {
        Bad { path: String::new(), cause: Cause::Malformed, what: what.into(), too_large: false }
    }

    pub(super) fn mismatch(what: impl Into<String>) -> Bad {
        Bad { path: String::new(), cause: Cause::Mismatch, what: what.into(), too_large: false }
    }

    pub(super) fn too_large() -> Bad {
        Bad { too_large: true, ..Bad::mismatch("its columns would take more than 2 GiB") }
    }

    /// Whether it is for the rows before it too.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    pub(super) fn within(self, name: &str) -> Bad {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{name}.{}", self.path) };
        Bad { path, ..self }
    }

    pub(super) fn fault(self, message: &str) -> Fault {
        let place = if self.path.is_empty() { String::new() } else { format!("field {}: ", self.path) };
        let what = match self.cause {
            Cause::Malformed => format!("not one message `{message}`: {place}{}", self.what),
            _ => format!("{place}{}", self.what),
        };
        Fault::new(self.cause, what)
    }
}

impl From<&'static str> for Bad {
    fn from(what: &'static str) -> Bad {
        Bad::malformed(what)
    }
}

/// Columns have 32-bit offsets.
pub(super) const MAX_BYTES: u64 = i32::MAX as u64;
pub(super) type Fed<T = ()> = std::result::Result<T, Bad>;

/// The bytes of a message.
#[inline]
pub(super) fn inside<'a>(number: u32, wire: Wire, at: &mut &'a [u8]) -> Fed<&'a [u8]> {
    match wire {
        Wire::Length => Ok(wire::length(at)?),
        Wire::Group => Ok(wire::group(number, at)?),
        other => Err(another(other, Wire::Length)),
    }
}

pub(super) fn another(got: Wire, expected: Wire) -> Bad {
    Bad::mismatch(format!("it is written as {}, where the schema has {}", got.name(), expected.name()))
}
