use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::names::{PartitionId, join};
use crate::store::{BoxFuture, Store};

/// Which step refused a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Its key could not be decoded.
    DecodeKey,
    /// Its value could not be decoded.
    Decode,
    /// A transform rejected it, or failed on it.
    Transform,
    /// The sink could not write it.
    Write,
}

impl Stage {
    /// Kafka Connect's name for the step (its `Stage` enum).
    pub fn connect_name(self) -> &'static str {
        match self {
            Stage::DecodeKey => "KEY_CONVERTER",
            Stage::Decode => "VALUE_CONVERTER",
            Stage::Transform => "TRANSFORMATION",
            Stage::Write => "TASK_PUT",
        }
    }

    fn component(self) -> &'static str {
        match self {
            Stage::DecodeKey | Stage::Decode => "gristmill.decode",
            Stage::Transform => "gristmill.transform",
            Stage::Write => "gristmill.write",
        }
    }
}

/// Whether dead letters carry the record or only say where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Key, value and headers are in the dead letter, and until it is delivered in the ledger.
    #[default]
    Full,
    /// Only coordinates, stage, code and message are kept; neither the dead letter nor the ledger ever holds
    /// the record.
    Omitted,
}

/// Bytes in JSON: `{"utf8": ".."}` where they are UTF-8, else `{"base64": ".."}`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Blob(pub Bytes);

impl fmt::Debug for Blob {
    /// The length alone: record values do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BlobText<T> {
    Utf8(T),
    Base64(T),
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => BlobText::Utf8(text).serialize(serializer),
            Err(_) => BlobText::Base64(STANDARD.encode(&self.0).as_str()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match BlobText::<String>::deserialize(deserializer)? {
            BlobText::Utf8(text) => text.into_bytes(),
            BlobText::Base64(text) => STANDARD.decode(text).map_err(D::Error::custom)?,
        };
        Ok(Blob(bytes.into()))
    }
}

/// The record inside a dead letter, as it was in the topic. Null is not the same as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RejectedPayload {
    /// The key.
    pub key: Option<Blob>,
    /// The value.
    pub value: Option<Blob>,
    /// The headers in order: name and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(Blob, Option<Blob>)>,
}

/// A record that did not make it, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The record's offset.
    pub offset: i64,
    /// 0 for the record itself, 1.. for what a transform emitted from it.
    pub sub: u32,
    /// Milliseconds since the Unix epoch, if the record has a timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Which step refused it.
    pub stage: Stage,
    /// Of a transform, its place in the pipeline file, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<u32>,
    /// Of a row that was refused before, and further on: what transforms before that place have emitted for it is delivered already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_from: Option<u32>,
    /// A short code for the reason.
    pub code: String,
    /// The reason.
    pub message: String,
    /// The record; absent where the payload is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<RejectedPayload>,
}

/// Which entry the dead letters of a delivery belong to.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetterContext<'a> {
    /// The partition.
    pub id: &'a PartitionId,
    /// The entry's first offset.
    pub first: i64,
    /// The entry's attempt: the same at every delivery of the entry, and another in every other ledger.
    pub attempt: Uuid,
}

impl DeadLetterContext<'_> {
    /// What tells one dead letter from all others, for those who want to drop repeated deliveries:
    /// `{topic id}/{partition}/{offset}/{sub}`.
    pub fn key(&self, letter: &DeadLetter) -> String {
        format!("{}/{}/{}/{}", self.id.topic_id_text(), self.id.partition, letter.offset, letter.sub)
    }
}

/// Where dead letters go.
pub trait DeadLetterSink: Send + Sync + fmt::Debug {
    /// Delivers all dead letters of one entry, in order, and returns once every one is acknowledged.
    ///
    /// At least once: after a crash, a lost reply or an error the same entry is delivered again, always with
    /// the same letters. An error that is retryable is tried again within the sink's limits; any other stops
    /// the partition, and nothing is lost: the letters are in the ledger.
    fn deliver<'a>(
        &'a self,
        context: DeadLetterContext<'a>,
        letters: &'a [DeadLetter],
    ) -> BoxFuture<'a, Result<()>>;
}

/// The context headers that Kafka Connect puts on its dead letters (`DeadLetterQueueReporter`), for
/// implementations that write to Kafka; every value is UTF-8 text.
///
/// `connector.name` is the pipeline id and `task.id` the partition, `exception.class.name` the reject code.
/// `gristmill.dead_letter.key` is [`DeadLetterContext::key`]. Put them after the record's own headers.
pub fn dead_letter_headers(
    context: DeadLetterContext<'_>,
    letter: &DeadLetter,
) -> Vec<(&'static str, String)> {
    let id = context.id;
    vec![
        ("__connect.errors.topic", id.topic.clone()),
        ("__connect.errors.partition", id.partition.to_string()),
        ("__connect.errors.offset", letter.offset.to_string()),
        ("__connect.errors.connector.name", id.pipeline.clone()),
        ("__connect.errors.task.id", id.partition.to_string()),
        ("__connect.errors.stage", letter.stage.connect_name().to_owned()),
        ("__connect.errors.class.name", letter.stage.component().to_owned()),
        ("__connect.errors.exception.class.name", letter.code.clone()),
        ("__connect.errors.exception.message", letter.message.clone()),
        ("gristmill.dead_letter.key", context.key(letter)),
    ]
}

/// Dead letters as JSON lines: one object for the dead letters of one entry.
///
/// Its name follows from the entry, and it is created if absent: a repeated delivery changes nothing, so here
/// each dead letter appears exactly once. The name is
/// `{prefix}/{topic}/{topic}+{incarnation}+{partition:05}+{first:020}+{attempt}.jsonl`, with 8 digits of the
/// entry's attempt, so that pipelines and ledgers that share a folder do not take each other's for theirs; a line has `topic`, `topic_id`,
/// `partition`, the fields of [`DeadLetter`], and Kafka Connect's context in `headers`.
#[derive(Clone, Debug)]
pub struct FileDeadLetters {
    store: Arc<dyn Store>,
    prefix: String,
}

#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    topic_id: &'a str,
    partition: i32,
    #[serde(flatten)]
    letter: &'a DeadLetter,
    context: serde_json::Map<String, serde_json::Value>,
}

impl FileDeadLetters {
    /// Dead letters under `prefix` of `store`; an empty prefix is the store's root.
    ///
    /// # Errors
    /// `InvalidName`.
    pub fn new(store: Arc<dyn Store>, prefix: impl Into<String>) -> Result<Self> {
        let prefix = prefix.into();
        if !prefix.is_empty() {
            crate::store::validate_name(&prefix)?;
        }
        Ok(FileDeadLetters { store, prefix })
    }

    /// The object that holds the dead letters of that entry.
    pub fn object_name(&self, context: DeadLetterContext<'_>) -> String {
        let DeadLetterContext { id, first, attempt } = context;
        let topic = &id.topic;
        let attempt = &attempt.simple().to_string()[..8];
        let file =
            format!("{topic}/{topic}+{}+{:05}+{first:020}+{attempt}.jsonl", id.incarnation(), id.partition);
        join(&self.prefix, &file)
    }
}

impl DeadLetterSink for FileDeadLetters {
    fn deliver<'a>(
        &'a self,
        context: DeadLetterContext<'a>,
        letters: &'a [DeadLetter],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let topic_id = context.id.topic_id_text();
            let lines = letters.iter().map(|letter| {
                let headers = dead_letter_headers(context, letter);
                let context_fields = headers.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
                Line {
                    topic: &context.id.topic,
                    topic_id: &topic_id,
                    partition: context.id.partition,
                    letter,
                    context: context_fields.collect(),
                }
            });
            let bytes = json_lines(lines)?;
            self.store.create_if_absent(&self.object_name(context), bytes.into()).await?;
            Ok(())
        })
    }
}

pub(crate) fn json_lines<T: Serialize>(items: impl IntoIterator<Item = T>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for item in items {
        serde_json::to_writer(&mut bytes, &item).map_err(|e| {
            Error::new(ErrorKind::Encode, "cannot write a dead letter as json").with_source(e)
        })?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_json_whether_they_are_text_or_not() {
        for bytes in [&b""[..], b"text", b"\xff\x00\xfe", "\u{1F600}".as_bytes()] {
            let blob = Blob(Bytes::copy_from_slice(bytes));
            let json = serde_json::to_string(&blob).unwrap();
            assert_eq!(serde_json::from_str::<Blob>(&json).unwrap(), blob, "{json}");
        }
        assert!(serde_json::from_str::<Blob>(r#"{"base64": "!"}"#).is_err());
    }

    #[test]
    fn a_letter_keeps_null_apart_from_empty_and_does_not_show_values() {
        let letter = DeadLetter {
            offset: 4,
            sub: 0,
            timestamp: None,
            stage: Stage::Transform,
            transform: Some(0),
            due_from: None,
            code: "bad".into(),
            message: "no".into(),
            payload: Some(RejectedPayload {
                key: None,
                value: Some(Blob(Bytes::new())),
                headers: vec![(Blob(Bytes::from_static(b"h")), None)],
            }),
        };
        let json = serde_json::to_string(&letter).unwrap();
        assert_eq!(serde_json::from_str::<DeadLetter>(&json).unwrap(), letter);
        let secret = Blob(Bytes::from_static(b"secret"));
        assert!(!format!("{secret:?}").contains("secret"));
    }
}
