use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::partitions::read_entries;
use super::{Code, Conf, PartitionEntry, Partitions, Queue, kind_of, produce, sys};
use crate::{Error, ErrorKind, Result};

/// What a callback of librdkafka has noted. Callbacks only note: the thread that polls acts when the poll
/// call has returned, so that no callback ever runs inside another piece of the client's state.
pub(crate) enum Noted {
    Rebalance(Rebalance),
    Error(Error),
    Statistics(String),
}

/// A change of the group's assignment, to be answered by [`Client::assign`] or its sisters.
pub(crate) struct Rebalance {
    pub(crate) kind: RebalanceKind,
    /// Whether only the listed partitions change (cooperative and KIP-848).
    pub(crate) incremental: bool,
    pub(crate) partitions: Vec<PartitionEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RebalanceKind {
    Assign,
    Revoke,
    /// Taken away by the coordinator: another member may own them already.
    Lost,
}

#[derive(Default)]
struct Notebook {
    notes: Mutex<VecDeque<Noted>>,
}

impl Notebook {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Noted>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Consumer,
    Producer,
}

/// An owned `rd_kafka_t`. Dropping it joins librdkafka's threads, which may take as long as a request in
/// flight: only threads of this crate hold one, never the caller's.
pub(crate) struct Client {
    rk: *mut sys::rd_kafka_t,
    notebook: Arc<Notebook>,
}

// SAFETY: librdkafka's handle is thread-safe; the notebook is behind a mutex.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    pub(crate) fn new(role: Role, conf: &Conf) -> Result<Self> {
        let native = conf.to_native()?;
        let notebook = Arc::new(Notebook::default());
        let kind = match role {
            Role::Consumer => sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
            Role::Producer => sys::rd_kafka_type_t::RD_KAFKA_PRODUCER,
        };
        let mut text = [0 as c_char; 512];
        // SAFETY: `native` is valid; the opaque pointer is kept alive by `notebook` in Self until the client is
        // destroyed, which is after the last callback; the callbacks match the signatures.
        let rk = unsafe {
            let conf = native.as_ptr();
            sys::rd_kafka_conf_set_opaque(conf, Arc::as_ptr(&notebook) as *mut c_void);
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            sys::rd_kafka_conf_set_stats_cb(conf, Some(on_statistics));
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            match role {
                Role::Consumer => sys::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance)),
                Role::Producer => sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(produce::on_delivery)),
            }
            sys::rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len())
        };
        if rk.is_null() {
            // SAFETY: librdkafka wrote a NUL-terminated text.
            let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
            return Err(Error::new(ErrorKind::InvalidConfig, "create the Kafka client", text));
        }
        let _ = native.release(); // librdkafka owns it now
        let client = Client { rk, notebook };
        // SAFETY: the handle is valid. Without it a token refresh waits for the application's next poll. It
        // fails only where SASL is not configured, which is no fault.
        unsafe {
            let error = sys::rd_kafka_sasl_background_callbacks_enable(rk);
            if !error.is_null() {
                sys::rd_kafka_error_destroy(error);
            }
            if role == Role::Consumer {
                sys::rd_kafka_poll_set_consumer(rk);
            }
        }
        Ok(client)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_t {
        self.rk
    }

    /// Serves the main queue until it is empty, and gives what was noted, in order.
    pub(crate) fn poll_consumer(&self) -> VecDeque<Noted> {
        loop {
            // SAFETY: valid handle; a returned message is destroyed below.
            let message = unsafe { sys::rd_kafka_consumer_poll(self.rk, 0) };
            if message.is_null() {
                break;
            }
            // SAFETY: the message is valid until destroyed, and ours.
            unsafe {
                let error = super::message::error_of(message).unwrap_or_else(|| stray(message));
                self.notebook.lock().push_back(Noted::Error(error));
                sys::rd_kafka_message_destroy(message);
            }
        }
        self.take_notes()
    }

    /// Serves callbacks of a producer for at most `wait`, and gives what was noted.
    pub(crate) fn poll_producer(&self, wait: Duration) -> VecDeque<Noted> {
        // SAFETY: valid handle.
        unsafe { sys::rd_kafka_poll(self.rk, millis(wait)) };
        self.take_notes()
    }

    pub(crate) fn take_notes(&self) -> VecDeque<Noted> {
        std::mem::take(&mut *self.notebook.lock())
    }

    pub(crate) fn subscribe(&self, topics: &[String]) -> Result<()> {
        let mut list = Partitions::new();
        for topic in topics {
            list.add(topic, -1, i64::from(sys::RD_KAFKA_OFFSET_INVALID));
        }
        // SAFETY: both pointers are valid for the call.
        let code = Code::from(unsafe { sys::rd_kafka_subscribe(self.rk, list.as_ptr()) });
        check(code, "subscribe")
    }

    /// Answers an assignment: all partitions (eager) or those that are added (incremental).
    pub(crate) fn assign(&self, list: &Partitions, incremental: bool) -> Result<()> {
        if incremental {
            // SAFETY: both pointers are valid for the call.
            return own_error(
                unsafe { sys::rd_kafka_incremental_assign(self.rk, list.as_ptr()) },
                "assign partitions",
            );
        }
        // SAFETY: both pointers are valid for the call.
        check(unsafe { sys::rd_kafka_assign(self.rk, list.as_ptr()) }.into(), "assign partitions")
    }

    /// Answers a revocation: all partitions (eager) or those that are named (incremental).
    pub(crate) fn unassign(&self, list: &Partitions, incremental: bool) -> Result<()> {
        if incremental {
            // SAFETY: both pointers are valid for the call.
            let error = unsafe { sys::rd_kafka_incremental_unassign(self.rk, list.as_ptr()) };
            return own_error(error, "give partitions back");
        }
        // SAFETY: a null list means "none".
        check(unsafe { sys::rd_kafka_assign(self.rk, std::ptr::null()) }.into(), "give partitions back")
    }

    /// Moves the fetch position of one partition. `STATE` means that its fetcher has not started yet.
    pub(crate) fn seek(&self, topic: &str, partition: i32, offset: i64, wait: Duration) -> Code {
        let mut list = Partitions::new();
        list.add(topic, partition, offset);
        // SAFETY: both pointers are valid for the call.
        let error = unsafe { sys::rd_kafka_seek_partitions(self.rk, list.as_ptr(), millis(wait)) };
        if !error.is_null() {
            // SAFETY: the error is ours and valid.
            let code = unsafe { sys::rd_kafka_error_code(error) }.into();
            // SAFETY: destroyed once.
            unsafe { sys::rd_kafka_error_destroy(error) };
            return code;
        }
        list.entries().first().map_or(Code::OK, |e| e.code)
    }

    /// Stops fetching the partitions, also before they are assigned.
    pub(crate) fn pause(&self, list: &Partitions) {
        // SAFETY: both pointers are valid for the call, which waits for librdkafka's own thread only.
        unsafe { sys::rd_kafka_pause_partitions(self.rk, list.as_ptr()) };
    }

    /// Goes on fetching a partition. Nothing happens if it is not paused. The answer says nothing: where the
    /// group pauses a partition at the same moment, the request gets lost, and is to be made again.
    pub(crate) fn resume(&self, topic: &str, partition: i32) {
        let mut list = Partitions::new();
        list.add(topic, partition, super::INVALID);
        // SAFETY: both pointers are valid for the call, which waits for librdkafka's own thread only.
        unsafe { sys::rd_kafka_resume_partitions(self.rk, list.as_ptr()) };
    }

    /// Sends a commit; the answer arrives on `replies` with `id`.
    pub(crate) fn commit(&self, offsets: &Partitions, replies: &Queue, id: usize) -> Result<()> {
        // SAFETY: list and queue are valid; librdkafka copies the list; the opaque value is a number, never
        // followed as a pointer.
        let code = unsafe {
            sys::rd_kafka_commit_queue(self.rk, offsets.as_ptr(), replies.as_ptr(), None, id as *mut c_void)
        };
        check(code.into(), "commit offsets")
    }

    /// Starts to leave the group; `queue` is to be served until [`closed`](Self::closed).
    pub(crate) fn start_close(&self, queue: &Queue) -> Result<()> {
        // SAFETY: both pointers are valid for the call.
        own_error(unsafe { sys::rd_kafka_consumer_close_queue(self.rk, queue.as_ptr()) }, "leave the group")
    }

    pub(crate) fn closed(&self) -> bool {
        // SAFETY: valid handle.
        unsafe { sys::rd_kafka_consumer_closed(self.rk) == 1 }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once, and every queue holds the client alive. A consumer that was closed in
        // order has left its group by now; one that was not is not waited for.
        unsafe { sys::rd_kafka_destroy_flags(self.rk, sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE as c_int) };
    }
}

pub(super) fn millis(wait: Duration) -> c_int {
    c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX)
}

pub(super) fn check(code: Code, operation: &'static str) -> Result<()> {
    if code.is_ok() { Ok(()) } else { Err(error_from(code, operation, code.describe())) }
}

pub(super) fn error_from(code: Code, operation: &'static str, detail: String) -> Error {
    Error::new(kind_of(code), operation, detail).with_code(code.0)
}

/// A record on the main queue: its partition's own queue was not cut off, and the record is lost to it.
///
/// # Safety
/// The message is valid and no error.
unsafe fn stray(message: *const sys::rd_kafka_message_t) -> Error {
    let error = Error::new(
        ErrorKind::Fatal,
        "consume",
        "a record came outside its partition's queue and cannot be delivered in order; start a new consumer",
    );
    // SAFETY: by the caller's promise; the topic's name lives as long as the message.
    unsafe {
        if (*message).rkt.is_null() {
            return error;
        }
        let topic = CStr::from_ptr(sys::rd_kafka_topic_name((*message).rkt)).to_string_lossy();
        error.with_topic(topic).with_partition((*message).partition).with_offset((*message).offset)
    }
}

/// Turns an owned error object (null for none) into a result.
pub(super) fn own_error(error: *mut sys::rd_kafka_error_t, operation: &'static str) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null error is valid and ours to destroy; its text lives until then.
    unsafe {
        let code = Code::from(sys::rd_kafka_error_code(error));
        let detail = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
        let fatal = sys::rd_kafka_error_is_fatal(error) == 1;
        sys::rd_kafka_error_destroy(error);
        let kind = if fatal { ErrorKind::Fatal } else { kind_of(code) };
        Err(Error::new(kind, operation, detail).with_code(code.0))
    }
}

/// The notebook behind a callback's opaque pointer.
///
/// # Safety
/// `opaque` is the pointer that [`Client::new`] set, while its client lives.
unsafe fn notebook<'a>(opaque: *mut c_void) -> &'a Notebook {
    // SAFETY: by the caller's promise.
    unsafe { &*opaque.cast::<Notebook>() }
}

unsafe extern "C" fn on_rebalance(
    rk: *mut sys::rd_kafka_t,
    err: sys::rd_kafka_resp_err_t,
    partitions: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka passes its own handle, a valid list and our opaque.
    unsafe {
        let protocol = sys::rd_kafka_rebalance_protocol(rk);
        let incremental = !protocol.is_null() && CStr::from_ptr(protocol).to_bytes() == b"COOPERATIVE";
        let kind = if Code::from(err) == Code::ASSIGN_PARTITIONS {
            RebalanceKind::Assign
        } else if sys::rd_kafka_assignment_lost(rk) == 1 {
            RebalanceKind::Lost
        } else {
            RebalanceKind::Revoke
        };
        let partitions = read_entries(partitions);
        notebook(opaque).lock().push_back(Noted::Rebalance(Rebalance { kind, incremental, partitions }));
    }
}

unsafe extern "C" fn on_error(
    rk: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka passes its own handle, a NUL-terminated text and our opaque.
    unsafe {
        let mut detail = without_timing(&CStr::from_ptr(reason).to_string_lossy()).to_owned();
        let mut code = Code(code);
        let mut kind = kind_of(code);
        if code == Code::FATAL {
            let mut text = [0 as c_char; 512];
            code = sys::rd_kafka_fatal_error(rk, text.as_mut_ptr(), text.len()).into();
            detail = CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned();
            kind = if kind_of(code) == ErrorKind::Fenced { ErrorKind::Fenced } else { ErrorKind::Fatal };
        }
        let error = Error::new(kind, "talk to the cluster", detail).with_code(code.0);
        notebook(opaque).lock().push_back(Noted::Error(error));
    }
}

/// Without the end `(after 3ms in state CONNECT, 1 identical error(s) suppressed)`, which tells nobody anything.
fn without_timing(reason: &str) -> &str {
    match reason.rfind(" (after ") {
        Some(at) if reason[at..].contains("in state ") => &reason[..at],
        _ => reason,
    }
}

unsafe extern "C" fn on_statistics(
    _: *mut sys::rd_kafka_t,
    json: *mut c_char,
    len: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: `len` bytes at `json` are valid for the call; returning 0 leaves them with librdkafka.
    unsafe {
        let text = String::from_utf8_lossy(std::slice::from_raw_parts(json.cast::<u8>(), len)).into_owned();
        notebook(opaque).lock().push_back(Noted::Statistics(text));
    }
    0
}

/// Runs on whichever thread of librdkafka logs.
unsafe extern "C" fn on_log(
    _: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: both are NUL-terminated for the call.
    let (facility, text) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(text)) };
    let (facility, text) = (facility.to_string_lossy(), text.to_string_lossy());
    match level {
        0..=3 => tracing::warn!(target: "gristmill::librdkafka", %facility, "{text}"),
        4..=5 => tracing::info!(target: "gristmill::librdkafka", %facility, "{text}"),
        _ => tracing::debug!(target: "gristmill::librdkafka", %facility, "{text}"),
    }
}
