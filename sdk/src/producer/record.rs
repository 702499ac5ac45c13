use std::fmt;

use gristmill_records::Header;

/// A record to be written. Null and empty are different for key, value and header values.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct ProducerRecord {
    pub(super) topic: String,
    pub(super) partition: Option<i32>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) timestamp: Option<i64>,
}

impl ProducerRecord {
    /// A record with null key and null value.
    pub fn to(topic: impl Into<String>) -> Self {
        ProducerRecord {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        }
    }

    /// Chooses the partition. Otherwise the key's murmur2 hash does, as with Kafka's own clients; without a key
    /// it is random.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Sets key and value as they are, null included.
    pub fn key_value(mut self, key: Option<Vec<u8>>, value: Option<Vec<u8>>) -> Self {
        (self.key, self.value) = (key, value);
        self
    }

    /// Appends a header; names may repeat.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.as_ref().to_vec(), Some(value.into())));
        self
    }

    /// Appends a header whose value is null.
    pub fn null_header(mut self, name: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), None));
        self
    }

    /// Appends headers as they came from another record.
    pub fn headers<'h>(mut self, headers: impl IntoIterator<Item = Header<'h>>) -> Self {
        self.headers.extend(headers.into_iter().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))));
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch. Otherwise it is the time of sending. Kafka's
    /// client cannot send 0 or less: those become the time of sending too.
    pub fn timestamp(mut self, milliseconds: i64) -> Self {
        self.timestamp = (milliseconds > 0).then_some(milliseconds);
        self
    }

    /// The topic that it is for.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

/// Shape, not content: record bytes may be personal data and must not reach a log.
impl fmt::Debug for ProducerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerRecord")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("key_bytes", &self.key.as_ref().map(Vec::len))
            .field("value_bytes", &self.value.as_ref().map(Vec::len))
            .field("headers", &self.headers.len())
            .finish_non_exhaustive()
    }
}
