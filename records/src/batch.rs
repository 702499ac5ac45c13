use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::{Header, HeaderWriter, NULL_LEN, ROW_WORDS, Record, Rows};

/// The undecoded records of one topic partition, in offset order. Frozen, and cheap to clone.
///
/// It owns its bytes: it never holds a librdkafka message, which would pin that message's whole fetch
/// response. See the [crate docs](crate) for the layout.
#[derive(Clone)]
pub struct RawBatch {
    inner: Arc<Inner>,
}

struct Inner {
    topic: Arc<str>,
    topic_id: Option<[u8; 16]>,
    partition: i32,
    leader_epoch: Option<i32>,
    index: Vec<u32>,
    keys: Bytes,
    values: Bytes,
    headers: Bytes,
    timestamps: Vec<i64>,
    offsets: Vec<i64>,
}

impl RawBatch {
    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.inner.topic
    }

    /// The topic's id (KIP-516), where the broker tells it; it changes when a topic is re-created.
    pub fn topic_id(&self) -> Option<[u8; 16]> {
        self.inner.topic_id
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.inner.partition
    }

    /// Leader epoch of the last record, where known (KIP-320).
    pub fn leader_epoch(&self) -> Option<i32> {
        self.inner.leader_epoch
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.inner.offsets.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.inner.offsets.is_empty()
    }

    /// Bytes that the batch keeps in memory, index and columns included.
    pub fn byte_size(&self) -> usize {
        let i = &*self.inner;
        i.keys.len() + i.values.len() + i.headers.len() + size_of_val(&i.index[..]) + 16 * i.offsets.len()
    }

    /// Offset of the first record.
    pub fn first_offset(&self) -> Option<i64> {
        self.inner.offsets.first().copied()
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Option<i64> {
        self.inner.offsets.last().copied()
    }

    /// The batch as borrowed slices.
    pub fn rows(&self) -> Rows<'_> {
        let i = &*self.inner;
        Rows {
            index: &i.index,
            keys: &i.keys,
            values: &i.values,
            headers: &i.headers,
            timestamps: &i.timestamps,
            offsets: &i.offsets,
        }
    }

    /// Record `i`, if there is one.
    pub fn get(&self, i: usize) -> Option<Record<'_>> {
        self.rows().get(i)
    }

    /// All records in offset order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.rows().iter()
    }
}

/// Shape, not content: record bytes may be personal data and must not reach a log.
impl fmt::Debug for RawBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBatch")
            .field("topic", &self.inner.topic)
            .field("partition", &self.inner.partition)
            .field("records", &self.len())
            .field("first_offset", &self.first_offset())
            .field("last_offset", &self.last_offset())
            .field("bytes", &self.byte_size())
            .finish()
    }
}

/// Why a record could not be added to a batch. The builder is as it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// An arena would reach 4 GiB: freeze this batch and start another.
    Full,
    /// The offset is not above that of the record before it.
    OffsetNotIncreasing {
        /// Offset of the last record in the batch.
        last: i64,
        /// The offset that was refused.
        offset: i64,
    },
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushError::Full => write!(f, "the batch is full: an arena would reach 4 GiB"),
            PushError::OffsetNotIncreasing { last, offset } => {
                write!(f, "offset {offset} does not come after offset {last}")
            }
        }
    }
}

impl core::error::Error for PushError {}

/// Collects records into a [`RawBatch`]: one copy of each record's bytes.
#[derive(Debug)]
pub struct RawBatchBuilder {
    topic: Arc<str>,
    topic_id: Option<[u8; 16]>,
    partition: i32,
    leader_epoch: Option<i32>,
    index: Vec<u32>,
    keys: Vec<u8>,
    values: Vec<u8>,
    headers: Vec<u8>,
    timestamps: Vec<i64>,
    offsets: Vec<i64>,
    repeated_offsets: bool,
}

impl RawBatchBuilder {
    /// An empty batch of `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        RawBatchBuilder {
            topic: topic.into(),
            topic_id: None,
            partition,
            leader_epoch: None,
            index: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            headers: Vec::new(),
            timestamps: Vec::new(),
            offsets: Vec::new(),
            repeated_offsets: false,
        }
    }

    /// Lets records have the offset of the one before them: those that a transform has made of one record.
    #[must_use]
    pub fn with_repeated_offsets(mut self) -> Self {
        self.repeated_offsets = true;
        self
    }

    /// Sets the topic's id.
    #[must_use]
    pub fn topic_id(mut self, id: Option<[u8; 16]>) -> Self {
        self.topic_id = id;
        self
    }

    /// Reserves room for `records` more records with `bytes` bytes of values.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.index.reserve(records * ROW_WORDS);
        self.timestamps.reserve(records);
        self.offsets.reserve(records);
        self.values.reserve(bytes);
    }

    /// Adds a record. `timestamp` is in milliseconds, [`NO_TIMESTAMP`](crate::NO_TIMESTAMP) for none.
    ///
    /// # Errors
    /// [`PushError`]; the batch is then unchanged.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = Header<'h>>,
    ) -> Result<(), PushError> {
        if let Some(&last) = self.offsets.last()
            && (offset < last || (offset == last && !self.repeated_offsets))
        {
            return Err(PushError::OffsetNotIncreasing { last, offset });
        }
        let (keys, values, head) = (self.keys.len(), self.values.len(), self.headers.len());
        let fits = |start: usize, more: usize| (start + more) < NULL_LEN as usize;
        if !fits(keys, key.map_or(0, <[u8]>::len)) || !fits(values, value.map_or(0, <[u8]>::len)) {
            return Err(PushError::Full);
        }
        let mut writer = HeaderWriter::new(&mut self.headers);
        for header in headers {
            writer.push(header);
        }
        let headers_len = self.headers.len() - head;
        if !fits(head, headers_len) {
            self.headers.truncate(head);
            return Err(PushError::Full);
        }
        let put = |arena: &mut Vec<u8>, cell: Option<&[u8]>| match cell {
            Some(bytes) => {
                arena.extend_from_slice(bytes);
                bytes.len() as u32
            }
            None => NULL_LEN,
        };
        let key_len = put(&mut self.keys, key);
        let value_len = put(&mut self.values, value);
        self.index.extend_from_slice(&[
            keys as u32,
            key_len,
            values as u32,
            value_len,
            head as u32,
            headers_len as u32,
        ]);
        self.timestamps.push(timestamp);
        self.offsets.push(offset);
        Ok(())
    }

    /// Notes the leader epoch of the record just pushed.
    pub fn set_leader_epoch(&mut self, epoch: i32) {
        self.leader_epoch = (epoch >= 0).then_some(epoch);
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of record content so far.
    pub fn content_bytes(&self) -> usize {
        self.keys.len() + self.values.len() + self.headers.len()
    }

    /// Freezes the batch.
    pub fn build(self) -> RawBatch {
        RawBatch {
            inner: Arc::new(Inner {
                topic: self.topic,
                topic_id: self.topic_id,
                partition: self.partition,
                leader_epoch: self.leader_epoch,
                index: self.index,
                keys: self.keys.into(),
                values: self.values.into(),
                headers: self.headers.into(),
                timestamps: self.timestamps,
                offsets: self.offsets,
            }),
        }
    }
}
