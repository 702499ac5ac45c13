use std::ffi::{CStr, CString, c_char};
use std::sync::Arc;
use std::time::Duration;

use super::client::{check, error_from, millis};
use super::{Client, Code, PartitionEntry, Partitions, Queue, sys};
use crate::{Error, ErrorKind, Result};

const DESCRIBE: &str = "read the topic's id";

/// Blocking questions to the cluster, each bounded by its `wait`. Never called by the thread that polls.
impl Client {
    /// The committed offset of each partition that has one; the others come with a negative offset.
    pub(crate) fn committed(&self, list: &Partitions, wait: Duration) -> Result<Vec<PartitionEntry>> {
        // SAFETY: both pointers are valid for the call.
        let code = Code::from(unsafe { sys::rd_kafka_committed(self.as_ptr(), list.as_ptr(), millis(wait)) });
        check(code, "read committed offsets")?;
        let entries = list.entries();
        match entries.iter().find(|e| !e.code.is_ok()) {
            Some(e) => Err(error_from(e.code, "read committed offsets", e.code.describe())
                .with_topic(e.topic.clone())
                .with_partition(e.partition)),
            None => Ok(entries),
        }
    }

    /// First and last-plus-one offset of a partition.
    pub(crate) fn watermarks(&self, topic: &str, partition: i32, wait: Duration) -> Result<(i64, i64)> {
        let name = topic_name(topic, "read the partition's end")?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: all pointers are valid for the call.
        let code = unsafe {
            sys::rd_kafka_query_watermark_offsets(
                self.as_ptr(),
                name.as_ptr(),
                partition,
                &mut low,
                &mut high,
                millis(wait),
            )
        };
        check(code.into(), "read the partition's end")
            .map_err(|e| e.with_topic(topic).with_partition(partition))
            .map(|()| (low, high))
    }

    /// The first offset of each partition whose record is as late as the time in milliseconds that stands in
    /// the list as its offset; negative where there is none.
    pub(crate) fn offsets_for_times(&self, list: &Partitions, wait: Duration) -> Result<Vec<PartitionEntry>> {
        let operation = "find the offsets of a time";
        // SAFETY: both pointers are valid for the call.
        let code = Code::from(unsafe {
            sys::rd_kafka_offsets_for_times(self.as_ptr(), list.as_ptr(), millis(wait))
        });
        check(code, operation)?;
        let entries = list.entries();
        match entries.iter().find(|e| !e.code.is_ok()) {
            Some(e) => Err(error_from(e.code, operation, e.code.describe())
                .with_topic(e.topic.clone())
                .with_partition(e.partition)),
            None => Ok(entries),
        }
    }

    /// Number of partitions of a topic.
    pub(crate) fn partition_count(&self, topic: &str, wait: Duration) -> Result<i32> {
        let operation = "read the topic's metadata";
        let name = topic_name(topic, operation)?;
        // SAFETY: handle and name are valid; the topic object and the metadata are destroyed before returning;
        // `topic_cnt` and `partition_cnt` entries are initialised.
        unsafe {
            let handle = sys::rd_kafka_topic_new(self.as_ptr(), name.as_ptr(), std::ptr::null_mut());
            if handle.is_null() {
                return Err(Error::new(ErrorKind::InvalidArgument, operation, "the name is not allowed")
                    .with_topic(topic));
            }
            let mut metadata = std::ptr::null();
            let code =
                Code::from(sys::rd_kafka_metadata(self.as_ptr(), 0, handle, &mut metadata, millis(wait)));
            sys::rd_kafka_topic_destroy(handle);
            check(code, operation).map_err(|e| e.with_topic(topic))?;
            let (code, count) = if (*metadata).topic_cnt == 1 {
                let topic = (*metadata).topics;
                (Code::read(&raw const (*topic).err), (*topic).partition_cnt)
            } else {
                (Code::UNKNOWN_TOPIC, 0)
            };
            sys::rd_kafka_metadata_destroy(metadata);
            check(code, operation).map_err(|e| e.with_topic(topic))?;
            Ok(count)
        }
    }

    /// The cluster's id, as soon as a broker has told it.
    pub(crate) fn cluster_id(&self, wait: Duration) -> Result<String> {
        // SAFETY: valid handle; the text is copied and then freed by librdkafka's allocator.
        unsafe {
            let id = sys::rd_kafka_clusterid(self.as_ptr(), millis(wait));
            if id.is_null() {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    "read the cluster's id",
                    format!("no broker told it within {wait:?}"),
                ));
            }
            let text = CStr::from_ptr(id).to_string_lossy().into_owned();
            sys::rd_kafka_mem_free(self.as_ptr(), id.cast());
            Ok(text)
        }
    }

    /// The topic's id (KIP-516): changes when a topic is deleted and created again.
    pub(crate) fn topic_id(self: &Arc<Self>, topic: &str, wait: Duration) -> Result<[u8; 16]> {
        let name = topic_name(topic, DESCRIBE)?;
        let queue = Queue::new(self);
        let mut names = [name.as_ptr()];
        // SAFETY: names live through the call, which copies them; collection, options and event are destroyed
        // before returning; what is read from the event lives as long as the event.
        unsafe {
            let collection = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
            let options = sys::rd_kafka_AdminOptions_new(
                self.as_ptr(),
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            );
            let mut text = [0 as c_char; 256];
            let code = sys::rd_kafka_AdminOptions_set_request_timeout(
                options,
                millis(wait).max(1),
                text.as_mut_ptr(),
                text.len(),
            );
            if Code::from(code).is_ok() {
                sys::rd_kafka_DescribeTopics(self.as_ptr(), collection, options, queue.as_ptr());
            }
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(collection);
            check(code.into(), DESCRIBE)?;
            let event = sys::rd_kafka_queue_poll(queue.as_ptr(), millis(wait + Duration::from_millis(500)));
            if event.is_null() {
                return Err(Error::new(ErrorKind::TimedOut, DESCRIBE, format!("no answer within {wait:?}"))
                    .with_topic(topic));
            }
            let id = read_topic_id(event);
            sys::rd_kafka_event_destroy(event);
            id.map_err(|e| e.with_topic(topic))
        }
    }
}

/// # Safety
/// The event is valid and the answer to DescribeTopics of one topic.
unsafe fn read_topic_id(event: *mut sys::rd_kafka_event_t) -> Result<[u8; 16]> {
    // SAFETY: by the caller's promise; everything read here belongs to the event.
    unsafe {
        let code = Code::of_event(event);
        if !code.is_ok() {
            let detail =
                CStr::from_ptr(sys::rd_kafka_event_error_string(event)).to_string_lossy().into_owned();
            return Err(error_from(code, DESCRIBE, detail));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let missing =
            || Error::new(ErrorKind::Malformed, DESCRIBE, "the broker's answer does not name the topic");
        if result.is_null() || count != 1 {
            return Err(missing());
        }
        let description = *topics;
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null() && !Code::from(sys::rd_kafka_error_code(error)).is_ok() {
            let detail = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
            return Err(error_from(sys::rd_kafka_error_code(error).into(), DESCRIBE, detail));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return Err(missing());
        }
        let (high, low) =
            (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id));
        if high == 0 && low == 0 {
            return Err(Error::new(ErrorKind::Refused, DESCRIBE, "the broker is too old to have topic ids"));
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        Ok(bytes)
    }
}

fn topic_name(topic: &str, operation: &'static str) -> Result<CString> {
    CString::new(topic).map_err(|_| {
        Error::new(ErrorKind::InvalidArgument, operation, "a topic's name cannot hold a NUL byte")
    })
}
