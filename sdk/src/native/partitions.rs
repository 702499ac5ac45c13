use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;

use super::{Code, sys};

/// An owned list of partitions with offsets.
pub(crate) struct Partitions(*mut sys::rd_kafka_topic_partition_list_t);

// SAFETY: the list is plain memory without thread affinity, owned by one value.
unsafe impl Send for Partitions {}

/// One entry of a list.
#[derive(Clone, Debug)]
pub(crate) struct PartitionEntry {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// What was committed beside the offset; `None` if that is nothing.
    pub(crate) metadata: Option<String>,
    pub(crate) code: Code,
}

impl Partitions {
    pub(crate) fn new() -> Self {
        // SAFETY: a fresh list that this value owns.
        Partitions(unsafe { sys::rd_kafka_topic_partition_list_new(8) })
    }

    /// Adds a partition. A topic name with a NUL byte cannot exist and is left out.
    pub(crate) fn add(&mut self, topic: &str, partition: i32, offset: i64) -> &mut Self {
        if let Ok(topic) = CString::new(topic) {
            // SAFETY: the list is ours; the returned element lives until the list changes.
            unsafe {
                (*sys::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), partition)).offset = offset
            };
        }
        self
    }

    /// Adds a partition whose offset is to be committed with `metadata`.
    pub(crate) fn add_with_metadata(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        metadata: &str,
    ) -> &mut Self {
        let Ok(topic) = CString::new(topic) else { return self };
        // SAFETY: the list is ours; the returned element is new (without metadata) and lives until the list changes.
        // The copy comes from librdkafka's allocator, since the list frees it there when it is destroyed.
        unsafe {
            let element = sys::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), partition);
            (*element).offset = offset;
            if !metadata.is_empty() {
                let copy = sys::rd_kafka_mem_malloc(std::ptr::null_mut(), metadata.len());
                if !copy.is_null() {
                    std::ptr::copy_nonoverlapping(metadata.as_ptr(), copy.cast(), metadata.len());
                    (*element).metadata = copy;
                    (*element).metadata_size = metadata.len();
                }
            }
        }
        self
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0
    }

    pub(crate) fn entries(&self) -> Vec<PartitionEntry> {
        // SAFETY: the list is ours and valid.
        unsafe { read_entries(self.0) }
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

/// Reads a list.
///
/// # Safety
/// The list is null or valid for the call.
pub(super) unsafe fn read_entries(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<PartitionEntry> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: by the caller's promise: `cnt` elements are initialised, and hold NUL-terminated topic names and
    // `metadata_size` bytes of metadata. They are read field by field, since the code may be one that the enum does
    // not have.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let elements = (*list).elems;
        (0..count)
            .map(|i| {
                let element = elements.add(i);
                PartitionEntry {
                    topic: CStr::from_ptr((*element).topic).to_string_lossy().into(),
                    partition: (*element).partition,
                    offset: (*element).offset,
                    metadata: read_metadata((*element).metadata, (*element).metadata_size),
                    code: Code::read(&raw const (*element).err),
                }
            })
            .collect()
    }
}

/// # Safety
/// `bytes` is null, or `len` bytes there are initialised.
unsafe fn read_metadata(bytes: *const c_void, len: usize) -> Option<String> {
    if bytes.is_null() || len == 0 {
        return None;
    }
    // SAFETY: by the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    Some(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_goes_into_a_list_and_comes_out_of_it() {
        let mut list = Partitions::new();
        list.add("t", 0, 7).add_with_metadata("t", 1, 8, "mine ä").add_with_metadata("t", 2, 9, "");
        let found: Vec<_> = list.entries().into_iter().map(|e| (e.partition, e.offset, e.metadata)).collect();
        assert_eq!(found, [(0, 7, None), (1, 8, Some("mine ä".to_owned())), (2, 9, None)]);
    }
}
