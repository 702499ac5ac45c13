use alloc::vec::Vec;

use crate::NULL_LEN;

/// One record header. Kafka's headers are ordered, may repeat a name, and may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name as it came; Kafka says UTF-8, brokers do not check it.
    pub name: &'a [u8],
    /// The value; `None` is null, which is not the same as empty.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// A header with a value.
    pub fn new(name: &'a str, value: &'a [u8]) -> Self {
        Header { name: name.as_bytes(), value: Some(value) }
    }
}

/// The headers of one record, in order: an iterator over the layout in the [crate docs](crate).
///
/// The bytes may come from a guest. Iteration never panics: it ends at the first header that does not
/// fit, and [`Headers::is_valid`] tells whether there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Reads headers from encoded bytes.
    pub fn from_encoded(bytes: &'a [u8]) -> Self {
        Headers { rest: bytes }
    }

    /// The encoded bytes that are still to be read.
    pub fn as_encoded(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether there is no header (left).
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether every byte belongs to a whole header.
    pub fn is_valid(&self) -> bool {
        let mut rest = *self;
        while rest.next().is_some() {}
        rest.rest.is_empty()
    }

    /// The **last** header of that name, which is the one that Kafka's `lastHeader` gives.
    pub fn last_named(&self, name: &str) -> Option<Header<'a>> {
        self.filter(|h| h.name == name.as_bytes()).last()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let (name_len, rest) = self.rest.split_first_chunk::<4>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let value_len = u32::from_le_bytes(*value_len);
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*name_len) as usize)?;
        let (value, rest) = if value_len == NULL_LEN {
            (None, rest)
        } else {
            let (value, rest) = rest.split_at_checked(value_len as usize)?;
            (Some(value), rest)
        };
        self.rest = rest;
        Some(Header { name, value })
    }
}

/// Appends headers to an arena in the layout of the [crate docs](crate).
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> HeaderWriter<'a> {
    /// Writes at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        HeaderWriter { out }
    }

    /// Appends one header.
    ///
    /// # Panics
    /// If name or value is 4 GiB or longer, which Kafka's own record format cannot carry.
    pub fn push(&mut self, header: Header<'_>) -> &mut Self {
        let len = |n: usize| {
            u32::try_from(n).ok().filter(|n| *n != NULL_LEN).expect("a Kafka header is under 2 GiB")
        };
        self.out.extend_from_slice(&len(header.name.len()).to_le_bytes());
        self.out.extend_from_slice(&header.value.map_or(NULL_LEN, |v| len(v.len())).to_le_bytes());
        self.out.extend_from_slice(header.name);
        self.out.extend_from_slice(header.value.unwrap_or_default());
        self
    }
}
