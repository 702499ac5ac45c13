use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::time::Duration;

use super::client::millis;
use super::partitions::read_entries;
use super::{Client, Code, MessageRef, PartitionEntry, sys};

type WakeFn = Box<dyn Fn() + Send + Sync>;

/// An owned native queue, with its wake-up.
pub(crate) struct Queue {
    queue: *mut sys::rd_kafka_queue_t,
    wake: Option<*mut WakeFn>,
    /// Keeps the handle alive for as long as the queue exists.
    client: Arc<Client>,
}

// SAFETY: native queues are thread-safe; `wake` is only freed by the owner, after it was disabled.
unsafe impl Send for Queue {}

/// The broker's answer to a commit.
#[derive(Debug)]
pub(crate) struct CommitReply {
    pub(crate) id: usize,
    pub(crate) code: Code,
    pub(crate) partitions: Vec<PartitionEntry>,
}

impl Queue {
    /// A queue of its own, for replies.
    pub(crate) fn new(client: &Arc<Client>) -> Self {
        // SAFETY: valid handle; the result is never null.
        Self::own(client, unsafe { sys::rd_kafka_queue_new(client.as_ptr()) })
    }

    /// The queue of group and error events.
    pub(crate) fn consumer(client: &Arc<Client>) -> Option<Self> {
        // SAFETY: valid handle; null where the client is no group member.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(client.as_ptr()) };
        (!queue.is_null()).then(|| Self::own(client, queue))
    }

    /// The queue of one partition, cut off from the main queue. To be taken before the partition is assigned.
    pub(crate) fn partition(client: &Arc<Client>, topic: &str, partition: i32) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: valid handle and name; null where the partition cannot exist. A null target ends forwarding.
        unsafe {
            let queue = sys::rd_kafka_queue_get_partition(client.as_ptr(), topic.as_ptr(), partition);
            if queue.is_null() {
                return None;
            }
            sys::rd_kafka_queue_forward(queue, std::ptr::null_mut());
            Some(Self::own(client, queue))
        }
    }

    fn own(client: &Arc<Client>, queue: *mut sys::rd_kafka_queue_t) -> Self {
        Queue { queue, wake: None, client: client.clone() }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.queue
    }

    /// Calls `wake` whenever the empty queue gets something. It runs on a thread of librdkafka that holds the
    /// queue's lock: it must not touch the queue.
    pub(crate) fn on_filled(mut self, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let wake: *mut WakeFn = Box::into_raw(Box::new(Box::new(wake)));
        // SAFETY: `wake` stays allocated until `drop` has disabled the callback.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue, Some(on_filled), wake.cast()) };
        self.wake = Some(wake);
        self
    }

    /// Takes every message that is there, without waiting; each is released as soon as `each` has seen it.
    ///
    /// By callback, not by `rd_kafka_consume_batch_queue`: that one moves the partition's position to one past
    /// the offset of *every* message, also of the event for the partition's end. A rebalance resumes from that
    /// position, and would then skip the record that is written there next.
    pub(crate) fn drain<F: FnMut(MessageRef<'_>)>(&mut self, mut each: F) {
        // SAFETY: valid queue; `on_message::<F>` gets back the same closure, borrowed for the call, on this thread.
        unsafe {
            let closure = (&raw mut each).cast();
            sys::rd_kafka_consume_callback_queue(self.queue, 0, Some(on_message::<F>), closure)
        };
    }

    /// Serves callbacks that were forwarded here, for at most `wait`. Messages are dropped.
    pub(crate) fn serve(&mut self, wait: Duration) {
        let mut messages = [std::ptr::null_mut(); 16];
        // SAFETY: the buffer has room for as many pointers as is said; each that is filled is ours to destroy.
        unsafe {
            let taken = sys::rd_kafka_consume_batch_queue(
                self.queue,
                millis(wait),
                messages.as_mut_ptr(),
                messages.len(),
            );
            for message in &messages[..usize::try_from(taken).unwrap_or(0)] {
                sys::rd_kafka_message_destroy(*message);
            }
        }
    }

    /// The next answer to a commit, if one is there or comes within `wait`.
    pub(crate) fn next_commit_reply(&mut self, wait: Duration) -> Option<CommitReply> {
        loop {
            // SAFETY: valid queue; a returned event is destroyed below.
            let event = unsafe { sys::rd_kafka_queue_poll(self.queue, millis(wait)) };
            if event.is_null() {
                return None;
            }
            // SAFETY: the event is valid until destroyed; its list belongs to it.
            let reply = unsafe {
                let is_commit = sys::rd_kafka_event_type(event) == sys::RD_KAFKA_EVENT_OFFSET_COMMIT;
                let reply = is_commit.then(|| CommitReply {
                    id: sys::rd_kafka_event_opaque(event) as usize,
                    code: Code::of_event(event),
                    partitions: read_entries(sys::rd_kafka_event_topic_partition_list(event)),
                });
                sys::rd_kafka_event_destroy(event);
                reply
            };
            if reply.is_some() {
                return reply;
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: disabling takes the queue's lock, under which wake-ups run: after it none runs or will run, so
        // the closure may be freed. The queue is destroyed once, before the client that `self` keeps alive.
        unsafe {
            if let Some(wake) = self.wake.take() {
                sys::rd_kafka_queue_cb_event_enable(self.queue, None, std::ptr::null_mut());
                drop(Box::from_raw(wake));
            }
            sys::rd_kafka_queue_destroy(self.queue);
        }
        let _ = &self.client;
    }
}

unsafe extern "C" fn on_filled(_: *mut sys::rd_kafka_t, wake: *mut c_void) {
    // SAFETY: the pointer that `on_filled` of the queue set, not freed before it is disabled.
    unsafe { (*wake.cast::<WakeFn>())() }
}

unsafe extern "C" fn on_message<F: FnMut(MessageRef<'_>)>(
    message: *mut sys::rd_kafka_message_t,
    each: *mut c_void,
) {
    // SAFETY: librdkafka lends a valid message for the call; the pointer is the closure of `drain`.
    unsafe { (*each.cast::<F>())(MessageRef::lent(message)) }
}
