//! Whether bytes are exactly one datum of a schema, before anything is made of them.
//!
//! arrow-avro takes any non-zero byte for `true` and any union branch that is not null's for the other
//! one, finds invalid UTF-8 and unknown enum symbols only when the whole batch is flushed, does not look
//! at a decimal's precision, and reads trailing bytes as the next record. So every datum is walked here
//! first: what arrow-avro then still refuses is what schema resolution forbids.

use arrow_array::types::{Decimal128Type, Decimal256Type, DecimalType};
use arrow_buffer::i256;

use super::schema::{AvroSchemaGraph, Node, NodeId};

/// Why bytes are not one datum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DatumFault {
    pub(super) what: &'static str,
    at: usize,
    /// Innermost first.
    path: Vec<String>,
}

impl std::fmt::Display for DatumFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            f.write_str("field ")?;
            for (i, part) in self.path.iter().rev().enumerate() {
                if i > 0 && !part.starts_with('[') {
                    f.write_str(".")?;
                }
                f.write_str(part)?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{} at byte {} of the record's body", self.what, self.at)
    }
}

/// The fault is boxed: a good datum shall not pay for its size at every step.
pub(super) type Walked<T> = Result<T, Box<DatumFault>>;

/// How deep the values of a recursive schema may nest.
const MAX_DEPTH: usize = 64;

/// Array and map items that take no bytes (null, empty records) which one datum may have.
const FREE_ITEMS: u64 = 65_536;

/// Checks that `bytes` is one datum and nothing more. Gives the number of array and map items in it.
pub(super) fn check(graph: &AvroSchemaGraph, bytes: &[u8]) -> Walked<u64> {
    let mut walk = Walk::new(graph, bytes);
    walk.value(graph.root, 0)?;
    if walk.at < bytes.len() {
        return walk.fault("bytes after the end of the record");
    }
    Ok(walk.items)
}

/// On its way through a datum.
pub(super) struct Walk<'a> {
    nodes: &'a [Node],
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    items: u64,
    max_items: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(graph: &'a AvroSchemaGraph, bytes: &'a [u8]) -> Self {
        let max_items = FREE_ITEMS.max(bytes.len() as u64);
        Walk { nodes: &graph.nodes, bytes, at: 0, items: 0, max_items }
    }

    #[cold]
    pub(super) fn fault<T>(&self, what: &'static str) -> Walked<T> {
        Err(Box::new(DatumFault { what, at: self.at, path: Vec::new() }))
    }

    pub(super) fn value(&mut self, id: NodeId, depth: usize) -> Walked<()> {
        if depth > MAX_DEPTH {
            return self.fault("deeper nesting than is allowed");
        }
        let nodes = self.nodes;
        match &nodes[id as usize] {
            Node::Null => Ok(()),
            Node::Boolean => match self.take(1)? {
                [0 | 1] => Ok(()),
                _ => self.fault("a boolean that is neither 0 nor 1"),
            },
            Node::Int => {
                let n = self.long()?;
                if i32::try_from(n).is_err() {
                    return self.fault("an int beyond 32 bits");
                }
                Ok(())
            }
            Node::Long => self.long().map(drop),
            Node::Float => self.take(4).map(drop),
            Node::Double => self.take(8).map(drop),
            Node::Bytes => self.sized().map(drop),
            Node::String => match std::str::from_utf8(self.sized()?) {
                Ok(_) => Ok(()),
                Err(_) => self.fault("a string that is not UTF-8"),
            },
            Node::Fixed(size) => self.take(*size).map(drop),
            Node::Decimal { fixed, precision } => {
                let digits = match fixed {
                    Some(size) => self.take(*size)?,
                    None => self.sized()?,
                };
                if decimal_fits(digits, *precision) {
                    Ok(())
                } else {
                    self.fault("a decimal beyond its precision")
                }
            }
            Node::Enum(symbols) => {
                let n = self.long()?;
                if n < 0 || n >= i64::from(*symbols) {
                    return self.fault("an enum symbol that the writer schema does not have");
                }
                Ok(())
            }
            Node::Array(item) => self.blocks(|walk| walk.value(*item, depth + 1)),
            Node::Map(item) => self.blocks(|walk| {
                if std::str::from_utf8(walk.sized()?).is_err() {
                    return walk.fault("a map key that is not UTF-8");
                }
                walk.value(*item, depth + 1)
            }),
            Node::Union(branches) => {
                let branch = self.long()?;
                match usize::try_from(branch).ok().and_then(|branch| branches.get(branch)) {
                    Some(&id) => self.value(id, depth + 1),
                    None => self.fault("a union branch that the writer schema does not have"),
                }
            }
            Node::Record(fields) => {
                for (name, id) in fields {
                    if let Err(mut fault) = self.value(*id, depth + 1) {
                        fault.path.push(name.clone());
                        return Err(fault);
                    }
                }
                Ok(())
            }
            Node::Open => self.fault("a type without a definition"),
        }
    }

    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Walked<()>) -> Walked<()> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let end = if count < 0 {
                let size = self.long()?;
                match usize::try_from(size).ok().and_then(|size| self.at.checked_add(size)) {
                    Some(end) if end <= self.bytes.len() => Some(end),
                    _ => return self.fault("a block size beyond the end of the record"),
                }
            } else {
                None
            };
            self.items = self.items.saturating_add(count.unsigned_abs());
            if self.items > self.max_items {
                return self.fault("more array or map items than the record can hold");
            }
            for i in 0..count.unsigned_abs() {
                if let Err(mut fault) = item(self) {
                    fault.path.push(format!("[{i}]"));
                    return Err(fault);
                }
            }
            if end.is_some_and(|end| end != self.at) {
                return self.fault("a block whose size is not that of its items");
            }
        }
    }

    #[inline]
    pub(super) fn take(&mut self, n: usize) -> Walked<&'a [u8]> {
        match self.bytes[self.at..].get(..n) {
            Some(taken) => {
                self.at += n;
                Ok(taken)
            }
            None => self.fault("the end of a truncated record"),
        }
    }

    #[inline]
    pub(super) fn sized(&mut self) -> Walked<&'a [u8]> {
        let n = self.long()?;
        match usize::try_from(n) {
            Ok(n) => self.take(n),
            Err(_) => self.fault("a negative length"),
        }
    }

    /// A zig-zag variable-length integer of at most ten bytes.
    #[inline]
    pub(super) fn long(&mut self) -> Walked<i64> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1))
            }
            _ => self.long_of_several_bytes(),
        }
    }

    fn long_of_several_bytes(&mut self) -> Walked<i64> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if i == 9 && byte > 1 {
                    break;
                }
                self.at += i + 1;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        if self.bytes.len() - self.at < 10 {
            return self.fault("the end of a truncated record");
        }
        self.fault("a number beyond 64 bits")
    }
}

/// Whether big-endian two's complement digits are within a precision.
fn decimal_fits(digits: &[u8], precision: u8) -> bool {
    if precision <= 38 {
        extended(digits).is_some_and(|bytes| {
            Decimal128Type::is_valid_decimal_precision(i128::from_be_bytes(bytes), precision)
        })
    } else {
        extended(digits).is_some_and(|bytes| {
            Decimal256Type::is_valid_decimal_precision(i256::from_be_bytes(bytes), precision)
        })
    }
}

/// A big-endian number in two's complement in so many bytes, if they hold it.
pub(super) fn extended<const WIDTH: usize>(digits: &[u8]) -> Option<[u8; WIDTH]> {
    let sign = if digits.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let cut = digits.len().saturating_sub(WIDTH);
    let kept = &digits[cut..];
    // What is cut must be sign, and the sign bit must survive the cut.
    if digits[..cut].iter().any(|&b| b != sign) || (cut > 0 && (kept[0] ^ sign) & 0x80 != 0) {
        return None;
    }
    let mut out = [sign; WIDTH];
    out[WIDTH - kept.len()..].copy_from_slice(kept);
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(text: &str) -> AvroSchemaGraph {
        AvroSchemaGraph::parse(text, []).unwrap()
    }

    #[test]
    fn faults_name_the_field_and_the_byte() {
        let graph = graph(
            r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"},
                {"name":"lines","type":{"type":"array","items":{"type":"record","name":"L","fields":[{"name":"ok","type":"boolean"}]}}}]}"#,
        );
        let say = |bytes: &[u8]| check(&graph, bytes).map_err(|f| f.to_string());
        assert_eq!(say(&[2, 4, 0, 1, 0]), Ok(2));
        assert_eq!(
            say(&[2, 4, 0, 2, 0]),
            Err("field lines[1].ok: a boolean that is neither 0 nor 1 at byte 4 of the record's body".into())
        );
        assert_eq!(
            say(&[2, 4, 0]),
            Err("field lines[1].ok: the end of a truncated record at byte 3 of the record's body".into())
        );
        assert_eq!(
            say(&[2, 0, 9]),
            Err("bytes after the end of the record at byte 2 of the record's body".into())
        );
        assert_eq!(
            say(&[]),
            Err("field id: the end of a truncated record at byte 0 of the record's body".into())
        );
        assert_eq!(
            say(&[0x80, 0x80, 0x80, 0x80, 0x10, 0]),
            Err("field id: an int beyond 32 bits at byte 5 of the record's body".into())
        );
        // Two items of one byte each, said to take three.
        assert_eq!(
            say(&[2, 3, 6, 1, 1, 0]),
            Err("field lines: a block whose size is not that of its items at byte 5 of the record's body"
                .into())
        );
        assert_eq!(say(&[2, 3, 4, 1, 1, 0]), Ok(2));
    }

    #[test]
    fn items_that_take_no_bytes_are_bounded() {
        let graph = graph(r#"{"type":"array","items":"null"}"#);
        assert_eq!(
            check(&graph, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0]).unwrap_err().what,
            "more array or map items than the record can hold"
        );
    }

    #[test]
    fn a_recursive_datum_ends_at_the_depth_limit() {
        let graph = graph(r#"{"type":"record","name":"T","fields":[{"name":"next","type":["null","T"]}]}"#);
        let mut bytes = vec![2; 10];
        bytes.push(0);
        assert!(check(&graph, &bytes).is_ok());
        let mut bytes = vec![2; 100_000];
        bytes.push(0);
        assert_eq!(check(&graph, &bytes).unwrap_err().what, "deeper nesting than is allowed");
    }

    #[test]
    fn decimals_are_held_to_their_precision() {
        assert!(decimal_fits(&[], 1));
        assert!(decimal_fits(&[0x63], 2) && !decimal_fits(&[0x64], 2));
        assert!(decimal_fits(&[0xff; 40], 1));
        assert!(decimal_fits(&[0x9d], 2) && !decimal_fits(&[0x9c], 2));
        let mut wide = vec![0; 20];
        wide.push(0xff);
        assert!(decimal_fits(&wide, 3));
        assert!(!decimal_fits(&[[0x7f].as_slice(), &[0xff; 15]].concat(), 38));
        assert!(!decimal_fits(&[[0x00].as_slice(), &[0xff; 16]].concat(), 38));
        assert!(decimal_fits(&[[0x00].as_slice(), &[0xff; 16]].concat(), 39));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let graph = graph(r#"{"type":"record","name":"R","fields":[
                {"name":"u","type":["null","long","string",{"type":"map","values":"R"}]},
                {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":50,"scale":2}},
                {"name":"a","type":{"type":"array","items":"double"}},{"name":"f","type":{"type":"fixed","name":"F","size":3}}]}"#);
            let _ = check(&graph, &bytes);
        }
    }
}
