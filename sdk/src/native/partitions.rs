use std::ffi::{CStr, CString};
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
    // SAFETY: by the caller's promise: `cnt` elements are initialised, and hold NUL-terminated topic names. They
    // are read field by field, since the code may be one that the enum does not have.
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
                    code: Code::read(&raw const (*element).err),
                }
            })
            .collect()
    }
}
