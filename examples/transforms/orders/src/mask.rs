//! Copies a JSON object and replaces some texts on the way: no tree of it is built, and what is not masked
//! is copied as it was written.

use std::borrow::Cow;
use std::fmt;

use gristmill_transform::Config;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// What the transform decides by.
#[derive(Debug, Default)]
pub struct Order {
    pub has_id: bool,
    pub amount_cents: Option<i64>,
    pub test: bool,
}

/// Fields to mask, as a tree: `customer` -> `email`, `card`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Fields {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    masked: bool,
    children: Vec<(String, Node)>,
}

impl Default for Fields {
    fn default() -> Self {
        vec!["customer.email".into(), "customer.card".into()].try_into().expect("these are paths")
    }
}

impl TryFrom<Vec<String>> for Fields {
    type Error = String;

    fn try_from(paths: Vec<String>) -> Result<Self, String> {
        let mut root = Node::default();
        for path in paths {
            let mut node = &mut root;
            for name in path.split('.') {
                if name.is_empty() {
                    return Err(format!("{path:?} is not a path such as customer.email"));
                }
                let at = node.children.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                    node.children.push((name.to_owned(), Node::default()));
                    node.children.len() - 1
                });
                node = &mut node.children[at].1;
            }
            node.masked = true;
        }
        Ok(Fields { root })
    }
}

impl Config for Fields {
    fn schema() -> Value {
        let mut schema = Vec::<String>::schema();
        schema["default"] = serde_json::json!(["customer.email", "customer.card"]);
        schema
    }
}

/// Appends `json`, an object, to `out` with the text of `fields` replaced by `mask`.
pub fn copy(json: &str, fields: &Fields, mask: &str, out: &mut Vec<u8>) -> serde_json::Result<Order> {
    let mut order = Order::default();
    let mut source = serde_json::Deserializer::from_str(json);
    source.deserialize_map(Copy { node: &fields.root, mask, out, order: Some(&mut order) })?;
    source.end()?;
    Ok(order)
}

struct Copy<'a> {
    node: &'a Node,
    mask: &'a str,
    out: &'a mut Vec<u8>,
    /// At the top only.
    order: Option<&'a mut Order>,
}

/// A name, without a copy where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Copy<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.out.push(b'{');
        let mut first = true;
        while let Some(Name(name)) = map.next_key()? {
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            text(&name, self.out);
            self.out.push(b':');
            let raw: &RawValue = map.next_value()?;
            if let Some(order) = &mut self.order {
                order.read(&name, raw.get());
            }
            let node = self.node.children.iter().find(|(n, _)| *n == name).map(|(_, node)| node);
            self.value(node, raw).map_err(A::Error::custom)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.out.push(b'[');
        let mut first = true;
        while let Some(raw) = list.next_element::<&RawValue>()? {
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            self.value(Some(self.node), raw).map_err(A::Error::custom)?;
        }
        self.out.push(b']');
        Ok(())
    }
}

impl Copy<'_> {
    fn value(&mut self, node: Option<&Node>, raw: &RawValue) -> serde_json::Result<()> {
        let json = raw.get();
        let inner = node.filter(|n| !n.children.is_empty());
        match (json.as_bytes().first(), node) {
            // What is not there needs no mask.
            (_, Some(node)) if node.masked && json != "null" => text(self.mask, self.out),
            (Some(b'{' | b'['), _) if inner.is_some() => {
                let node = inner.expect("just checked");
                let copy = Copy { node, mask: self.mask, out: self.out, order: None };
                let mut source = serde_json::Deserializer::from_str(json);
                if json.starts_with('{') {
                    source.deserialize_map(copy)?
                } else {
                    source.deserialize_seq(copy)?
                }
            }
            _ => self.out.extend_from_slice(json.as_bytes()),
        }
        Ok(())
    }
}

/// Writes a JSON string; most need no escapes.
fn text(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a text is written to memory");
    }
}

impl Order {
    fn read(&mut self, name: &str, json: &str) {
        match name {
            "order_id" => self.has_id = json.starts_with('"') && json != "\"\"",
            "amount_cents" => self.amount_cents = json.parse().ok(),
            "test" => self.test = json == "true",
            _ => {}
        }
    }
}
