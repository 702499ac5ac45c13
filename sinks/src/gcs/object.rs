//! What the JSON API says of objects.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Generation, Stat};

/// The key of the custom metadata that names the staged object that an object was uploaded as. A copy keeps
/// it, so a copy that was made by a publisher who then died is told from a stranger's file.
pub(super) const STAGED_AS: &str = "gristmill-staged";

/// Everything but RFC 3986's unreserved characters: an object's name is one segment of a path.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(super) fn encode(name: &str) -> String {
    utf8_percent_encode(name, NAME).to_string()
}

/// An object's resource: <https://cloud.google.com/storage/docs/json_api/v1/objects>.
#[derive(Debug, Deserialize)]
pub(super) struct Resource {
    pub(super) name: String,
    #[serde(deserialize_with = "number")]
    generation: u64,
    #[serde(default, deserialize_with = "number")]
    size: u64,
    #[serde(default)]
    crc32c: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl Resource {
    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn crc32c(&self) -> Result<u32> {
        self.crc32c.as_deref().and_then(parse_crc32c).ok_or_else(|| {
            let text = format!("the store tells no crc32c of {}", self.name);
            Error::new(ErrorKind::Unsupported, text)
        })
    }

    pub(super) fn stat(&self) -> Result<Stat> {
        Ok(Stat { generation: self.generation(), bytes: self.size, crc32c: self.crc32c()? })
    }

    /// Whether this object is the upload that was staged under that name, or a copy of it.
    pub(super) fn was_staged_as(&self, staged: &str) -> bool {
        self.metadata.get(STAGED_AS).is_some_and(|name| name == staged)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ResourceList {
    #[serde(default)]
    pub(super) items: Vec<Resource>,
    #[serde(default, rename = "nextPageToken")]
    pub(super) next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rewritten {
    pub(super) done: bool,
    pub(super) rewrite_token: Option<String>,
}

/// 64-bit numbers are strings in Google's JSON.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Text(String),
        Plain(u64),
    }
    match Number::deserialize(deserializer)? {
        Number::Plain(n) => Ok(n),
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// CRC-32C as the API writes it: base64 of four bytes, most significant first.
pub(super) fn format_crc32c(crc: u32) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

pub(super) fn parse_crc32c(text: &str) -> Option<u32> {
    Some(u32::from_be_bytes(STANDARD.decode(text).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_read_back_and_rubbish_does_not() {
        // "123456789" has the CRC-32C e3069283.
        assert_eq!(format_crc32c(crc32c::crc32c(b"123456789")), "4waSgw==");
        assert_eq!(parse_crc32c("4waSgw=="), Some(0xe306_9283));
        assert_eq!(parse_crc32c("4waS"), None);
        assert_eq!(parse_crc32c("*"), None);
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(encode("a/b c+d=1/ä.x"), "a%2Fb%20c%2Bd%3D1%2F%C3%A4.x");
    }

    #[test]
    fn a_resource_without_a_generation_is_refused() {
        let whole = r#"{"name": "a", "generation": "17", "size": "3", "crc32c": "4waSgw=="}"#;
        let resource: Resource = serde_json::from_str(whole).unwrap();
        assert_eq!((resource.generation(), resource.size()), (Generation(17), 3));
        assert!(serde_json::from_str::<Resource>(r#"{"name": "a", "size": "3"}"#).is_err());
        assert!(serde_json::from_str::<Resource>(r#"{"name": "a", "generation": "-1"}"#).is_err());
    }
}
