//! Values without a column as texts of JSON: a datum with such a text as a string where its schema has a union of several types, or
//! a record that contains itself.
//!
//! As in the JSON encoding of Avro's specification, a value of such a union is an object with one member, which has the name of
//! its type. Other than there, a value that may only be null beside is written without, bytes are base64, decimals are texts, and dates
//! and times as ISO 8601 has them. Of other logical types the value itself is written.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use arrow_array::temporal_conversions::{
    date32_to_datetime, time32ms_to_time, time64us_to_time, timestamp_ms_to_datetime,
    timestamp_ns_to_datetime, timestamp_us_to_datetime,
};
use arrow_array::types::{Decimal256Type, DecimalType};
use arrow_buffer::i256;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::datum::{Walk, Walked, extended};
use super::places::{Instead, Place, may_be_null, name};
use super::schema::{AvroSchemaGraph, Node, NodeId};

/// Bytes of JSON in one datum at the most: so many, and so many for each of its own bytes, so that a batch has a bound too. Names of
/// fields are long, and what is null takes a byte.
const MAX_JSON: (usize, usize) = (64 << 10, 256);

/// The datum with texts in these places. It is one: `datum::check` has said so.
pub(super) fn with_texts(
    graph: &AvroSchemaGraph,
    places: &BTreeMap<Place, Instead>,
    bytes: &[u8],
) -> Walked<Vec<u8>> {
    let room = MAX_JSON.1.saturating_mul(bytes.len()).saturating_add(MAX_JSON.0);
    let mut rewriting =
        Rewriting { graph, places, walk: Walk::new(graph, bytes), copied: 0, out: Vec::new(), room };
    rewriting.value(graph.root)?;
    rewriting.copy();
    Ok(rewriting.out)
}

struct Rewriting<'a> {
    graph: &'a AvroSchemaGraph,
    places: &'a BTreeMap<Place, Instead>,
    walk: Walk<'a>,
    /// Up to here, the datum is in `out`.
    copied: usize,
    out: Vec<u8>,
    /// Bytes of JSON that may come.
    room: usize,
}

impl<'a> Rewriting<'a> {
    fn copy(&mut self) {
        self.out.extend_from_slice(&self.walk.bytes[self.copied..self.walk.at]);
        self.copied = self.walk.at;
    }

    fn value(&mut self, id: NodeId) -> Walked<()> {
        let graph = self.graph;
        match &graph.nodes[id as usize] {
            Node::Array(item) => self.blocks(|this| this.place((id, 0), *item)),
            Node::Map(item) => self.blocks(|this| {
                this.walk.sized()?;
                this.place((id, 0), *item)
            }),
            Node::Union(branches) => {
                let branch = self.walk.long()?;
                self.value(branches[branch as usize])
            }
            Node::Record(fields) => {
                fields.iter().enumerate().try_for_each(|(i, (_, of))| self.place((id, i), *of))
            }
            node => pass(&mut self.walk, node),
        }
    }

    /// Blocks without their sizes in bytes, which may change.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Walked<()>) -> Walked<()> {
        loop {
            self.copy();
            let count = count(&mut self.walk)?;
            self.copied = self.walk.at;
            long(&mut self.out, count as i64);
            if count == 0 {
                return Ok(());
            }
            (0..count).try_for_each(|_| item(self))?;
        }
    }

    fn place(&mut self, place: Place, of: NodeId) -> Walked<()> {
        let Some(instead) = self.places.get(&place) else { return self.value(of) };
        self.copy();
        match instead {
            Instead::Nothing => self.walk.value(of, 0)?,
            Instead::Json(tags) => self.text(tags, of)?,
        }
        self.copied = self.walk.at;
        Ok(())
    }

    fn text(&mut self, tags: &[Option<String>], of: NodeId) -> Walked<()> {
        let graph = self.graph;
        let (branch, id) = match &graph.nodes[of as usize] {
            Node::Union(branches) => {
                let branch = self.walk.long()? as usize;
                (branch, branches[branch])
            }
            _ => (0, of),
        };
        if graph.nodes[id as usize] == Node::Null {
            long(&mut self.out, 0);
            return Ok(());
        }
        let mut writer = Writer { graph, walk: &mut self.walk, out: Vec::new(), room: &mut self.room };
        writer.tagged(tags[branch].as_deref(), id)?;
        let text = writer.out;
        if may_be_null(graph, of) {
            long(&mut self.out, 1);
        }
        long(&mut self.out, text.len() as i64);
        self.out.extend_from_slice(&text);
        Ok(())
    }
}

/// Goes past a value that is made of no others.
pub(super) fn pass(walk: &mut Walk<'_>, node: &Node) -> Walked<()> {
    match node {
        Node::Boolean => walk.take(1).map(drop),
        Node::Int | Node::Long | Node::Enum(_) => walk.long().map(drop),
        Node::Float => walk.take(4).map(drop),
        Node::Double => walk.take(8).map(drop),
        Node::Bytes | Node::String | Node::Decimal { fixed: None, .. } => walk.sized().map(drop),
        Node::Fixed(size) | Node::Decimal { fixed: Some(size), .. } => walk.take(*size).map(drop),
        _ => Ok(()),
    }
}

/// How many items a block has.
pub(super) fn count(walk: &mut Walk<'_>) -> Walked<u64> {
    let count = walk.long()?;
    if count < 0 {
        walk.long()?;
    }
    Ok(count.unsigned_abs())
}

/// A zig-zag variable-length integer.
pub(super) fn long(out: &mut Vec<u8>, n: i64) {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes a value as JSON.
struct Writer<'w, 'a> {
    graph: &'a AvroSchemaGraph,
    walk: &'w mut Walk<'a>,
    out: Vec<u8>,
    room: &'w mut usize,
}

impl Writer<'_, '_> {
    fn put(&mut self, text: impl AsRef<[u8]>) -> Walked<()> {
        let text = text.as_ref();
        let Some(room) = self.room.checked_sub(text.len()) else {
            return self.walk.fault("it would be more than 256 times as long");
        };
        *self.room = room;
        self.out.extend_from_slice(text);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Walked<()> {
        self.put(Value::from(text).to_string())
    }

    fn tagged(&mut self, tag: Option<&str>, id: NodeId) -> Walked<()> {
        let Some(tag) = tag else { return self.value(id) };
        self.put("{")?;
        self.text(tag)?;
        self.put(":")?;
        self.value(id)?;
        self.put("}")
    }

    fn value(&mut self, id: NodeId) -> Walked<()> {
        let graph = self.graph;
        let about = graph.about(id);
        let logical = about.and_then(|about| about.logical.as_deref());
        match &graph.nodes[id as usize] {
            Node::Open | Node::Null => self.put("null"),
            Node::Boolean => match self.walk.take(1)? {
                [0] => self.put("false"),
                _ => self.put("true"),
            },
            Node::Int | Node::Long => {
                let n = self.walk.long()?;
                match logical.map(|logical| time(logical, n)) {
                    None => self.put(n.to_string()),
                    Some(Some(text)) => self.text(&text),
                    Some(None) => self.walk.fault("a date or time that no text stands for"),
                }
            }
            Node::Float => {
                let bytes = self.walk.take(4)?.first_chunk();
                let n = f32::from_le_bytes(*bytes.expect("four"));
                self.float(n.into(), serde_json::to_string(&n))
            }
            Node::Double => {
                let bytes = self.walk.take(8)?.first_chunk();
                let n = f64::from_le_bytes(*bytes.expect("eight"));
                self.float(n, serde_json::to_string(&n))
            }
            Node::String => {
                let bytes = self.walk.sized()?;
                self.text(&String::from_utf8_lossy(bytes))
            }
            Node::Bytes => {
                let bytes = self.walk.sized()?;
                self.text(&BASE64_STANDARD.encode(bytes))
            }
            Node::Fixed(size) => {
                let bytes = self.walk.take(*size)?;
                self.text(&BASE64_STANDARD.encode(bytes))
            }
            Node::Decimal { fixed, precision } => {
                let digits = match fixed {
                    Some(size) => self.walk.take(*size)?,
                    None => self.walk.sized()?,
                };
                let value = i256::from_be_bytes(extended(digits).unwrap_or_default());
                let scale = about.map_or(0, |about| about.scale);
                self.text(&Decimal256Type::format_decimal(value, *precision, scale as i8))
            }
            Node::Enum(_) => {
                let symbol = self.walk.long()? as usize;
                let symbol = about.and_then(|about| about.symbols.get(symbol));
                self.text(symbol.map_or("", String::as_str))
            }
            Node::Array(item) => {
                self.put("[")?;
                let mut first = true;
                loop {
                    let count = count(self.walk)?;
                    for _ in 0..count {
                        if !std::mem::take(&mut first) {
                            self.put(",")?;
                        }
                        self.value(*item)?;
                    }
                    if count == 0 {
                        return self.put("]");
                    }
                }
            }
            Node::Map(item) => self.map(*item),
            Node::Union(branches) => {
                let branch = branches[self.walk.long()? as usize];
                let is_null = |id: &NodeId| graph.nodes[*id as usize] == Node::Null;
                let is_one_of_several =
                    !is_null(&branch) && branches.iter().filter(|id| !is_null(id)).count() > 1;
                let tag = is_one_of_several.then(|| name(graph, branch));
                self.tagged(tag, branch)
            }
            Node::Record(fields) => {
                for (i, (name, of)) in fields.iter().enumerate() {
                    self.put(if i == 0 { "{" } else { "," })?;
                    self.text(name)?;
                    self.put(":")?;
                    self.value(*of)?;
                }
                self.put(if fields.is_empty() { "{}" } else { "}" })
            }
        }
    }

    fn float(&mut self, n: f64, text: serde_json::Result<String>) -> Walked<()> {
        match text {
            Ok(text) if n.is_finite() => self.put(text),
            // As in the JSON of Protobuf.
            _ if n.is_nan() => self.put("\"NaN\""),
            _ if n > 0.0 => self.put("\"Infinity\""),
            _ => self.put("\"-Infinity\""),
        }
    }

    /// A key that comes twice has its last value, as in Avro's own maps: in JSON it would be an error to some readers.
    fn map(&mut self, item: NodeId) -> Walked<()> {
        self.put("{")?;
        let start = self.out.len();
        let mut entries: Vec<Range<usize>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut again = false;
        loop {
            let count = count(self.walk)?;
            for _ in 0..count {
                if !entries.is_empty() {
                    self.put(",")?;
                }
                let key = std::str::from_utf8(self.walk.sized()?).unwrap_or_default();
                let begin = self.out.len();
                self.text(key)?;
                self.put(":")?;
                self.value(item)?;
                let entry = begin..self.out.len();
                match places.get(key) {
                    Some(at) => {
                        entries[*at] = entry;
                        again = true;
                    }
                    None => {
                        places.insert(key, entries.len());
                        entries.push(entry);
                    }
                }
            }
            if count == 0 {
                break;
            }
        }
        if again {
            let entries: Vec<Vec<u8>> = entries.into_iter().map(|entry| self.out[entry].to_vec()).collect();
            self.out.truncate(start);
            self.out.extend(entries.join(&b','));
        }
        self.put("}")
    }
}

/// A number of a logical type as a text, as other columns of times become JSON.
fn time(logical: &str, n: i64) -> Option<String> {
    let in_utc = |at: Option<String>| at.map(|at| at + "Z");
    let day = i32::try_from(n).ok();
    match logical {
        "date" => date32_to_datetime(day?).map(|at| at.date().to_string()),
        "time-millis" => time32ms_to_time(day?).map(|at| at.to_string()),
        "time-micros" => time64us_to_time(n).map(|at| at.to_string()),
        "timestamp-millis" => in_utc(timestamp_ms_to_datetime(n).map(|at| format!("{at:?}"))),
        "timestamp-micros" => in_utc(timestamp_us_to_datetime(n).map(|at| format!("{at:?}"))),
        "timestamp-nanos" => in_utc(timestamp_ns_to_datetime(n).map(|at| format!("{at:?}"))),
        "local-timestamp-millis" => timestamp_ms_to_datetime(n).map(|at| format!("{at:?}")),
        "local-timestamp-micros" => timestamp_us_to_datetime(n).map(|at| format!("{at:?}")),
        "local-timestamp-nanos" => timestamp_ns_to_datetime(n).map(|at| format!("{at:?}")),
        _ => Some(n.to_string()),
    }
}

/// A field's default as the text that its values become; nothing if it is not of the type.
pub(super) fn of_default(graph: &AvroSchemaGraph, id: NodeId, default: &Value) -> Option<String> {
    let mut datum = Vec::new();
    encode(graph, id, default, 0, &mut datum)?;
    let mut walk = Walk::new(graph, &datum);
    let mut room = MAX_JSON.0;
    let mut writer = Writer { graph, walk: &mut walk, out: Vec::new(), room: &mut room };
    writer.value(id).ok()?;
    String::from_utf8(writer.out).ok()
}

/// A record's default may have its own type's defaults in it.
const MAX_DEFAULT_DEPTH: usize = 64;

/// "Complex Types", "default" of Avro's specification: a union's is of its first type, bytes are code points up to 255. What a record does
/// not have is its field's default.
fn encode(
    graph: &AvroSchemaGraph,
    id: NodeId,
    default: &Value,
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    if depth > MAX_DEFAULT_DEPTH || out.len() > MAX_JSON.0 {
        return None;
    }
    let depth = depth + 1;
    let bytes = |text: &str| text.chars().map(|c| u8::try_from(c as u32).ok()).collect::<Option<Vec<u8>>>();
    match &graph.nodes[id as usize] {
        Node::Open => return None,
        Node::Null => default.as_null()?,
        Node::Boolean => out.push(default.as_bool()?.into()),
        Node::Int => long(out, i32::try_from(default.as_i64()?).ok()?.into()),
        Node::Long => long(out, default.as_i64()?),
        Node::Float => out.extend((default.as_f64()? as f32).to_le_bytes()),
        Node::Double => out.extend(default.as_f64()?.to_le_bytes()),
        Node::String => {
            let text = default.as_str()?;
            long(out, text.len() as i64);
            out.extend_from_slice(text.as_bytes());
        }
        Node::Bytes | Node::Decimal { fixed: None, .. } => {
            let bytes = bytes(default.as_str()?)?;
            long(out, bytes.len() as i64);
            out.extend(bytes);
        }
        Node::Fixed(size) | Node::Decimal { fixed: Some(size), .. } => {
            out.extend(bytes(default.as_str()?).filter(|bytes| bytes.len() == *size)?);
        }
        Node::Enum(_) => {
            let symbols = &graph.about(id)?.symbols;
            let symbol = symbols.iter().position(|symbol| default == symbol.as_str())?;
            long(out, symbol as i64);
        }
        Node::Array(item) => {
            for value in default.as_array()? {
                long(out, 1);
                encode(graph, *item, value, depth, out)?;
            }
            long(out, 0);
        }
        Node::Map(item) => {
            for (key, value) in default.as_object()? {
                long(out, 1);
                long(out, key.len() as i64);
                out.extend_from_slice(key.as_bytes());
                encode(graph, *item, value, depth, out)?;
            }
            long(out, 0);
        }
        Node::Union(branches) => {
            long(out, 0);
            encode(graph, *branches.first()?, default, depth, out)?;
        }
        Node::Record(fields) => {
            let object = default.as_object()?;
            for (i, (name, of)) in fields.iter().enumerate() {
                let own = || graph.about(id)?.fields.get(i)?.default.as_ref();
                encode(graph, *of, object.get(name).or_else(own)?, depth, out)?;
            }
        }
    }
    Some(())
}
