use std::ffi::{CStr, c_void};
use std::marker::PhantomData;

use gristmill_records::{Header, NO_TIMESTAMP};

use super::client::error_from;
use super::{Code, sys};
use crate::Error;

/// A message, lent for as long as it takes to copy it: holding one would pin its whole fetch response.
#[derive(Clone, Copy)]
pub(crate) struct MessageRef<'a> {
    message: *mut sys::rd_kafka_message_t,
    lifetime: PhantomData<&'a sys::rd_kafka_message_t>,
}

impl<'a> MessageRef<'a> {
    /// # Safety
    /// The message is valid for `'a`.
    pub(super) unsafe fn lent(message: *mut sys::rd_kafka_message_t) -> Self {
        MessageRef { message, lifetime: PhantomData }
    }

    pub(crate) fn code(self) -> Code {
        // SAFETY: valid message.
        unsafe { Code::read(&raw const (*self.message).err) }
    }

    pub(crate) fn offset(self) -> i64 {
        // SAFETY: valid message.
        unsafe { (*self.message).offset }
    }

    /// The error that stands in place of a record.
    pub(crate) fn error(self) -> Option<Error> {
        // SAFETY: valid message.
        unsafe { error_of(self.message) }
    }

    pub(crate) fn key(self) -> Option<&'a [u8]> {
        // SAFETY: valid message; the bytes live as long as it does.
        unsafe { bytes((*self.message).key, (*self.message).key_len) }
    }

    pub(crate) fn value(self) -> Option<&'a [u8]> {
        // SAFETY: valid message; the bytes live as long as it does.
        unsafe { bytes((*self.message).payload, (*self.message).len) }
    }

    pub(crate) fn timestamp(self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: valid message and out-pointer.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.message, &mut kind) };
        match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => NO_TIMESTAMP,
            _ => timestamp,
        }
    }

    pub(crate) fn leader_epoch(self) -> i32 {
        // SAFETY: valid message.
        unsafe { sys::rd_kafka_message_leader_epoch(self.message) }
    }

    pub(crate) fn headers(self) -> MessageHeaders<'a> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: valid message and out-pointer; the headers belong to the message.
        let code = Code::from(unsafe { sys::rd_kafka_message_headers(self.message, &mut headers) });
        MessageHeaders {
            headers: if code.is_ok() { headers } else { std::ptr::null_mut() },
            at: 0,
            lifetime: PhantomData,
        }
    }
}

/// The headers of a message, in order.
pub(crate) struct MessageHeaders<'a> {
    headers: *mut sys::rd_kafka_headers_t,
    at: usize,
    lifetime: PhantomData<&'a sys::rd_kafka_message_t>,
}

impl<'a> Iterator for MessageHeaders<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut len) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: the headers are valid while the message lives; an index past the end gives an error code; name
        // and value stay valid while the message lives.
        unsafe {
            let code = sys::rd_kafka_header_get_all(self.headers, self.at, &mut name, &mut value, &mut len);
            if !Code::from(code).is_ok() {
                return None;
            }
            self.at += 1;
            Some(Header { name: CStr::from_ptr(name).to_bytes(), value: bytes(value, len) })
        }
    }
}

/// # Safety
/// `data` is null, or `len` bytes at it are valid for `'a`.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by the caller's promise.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// The error that a message stands for, with the place that it is about.
///
/// # Safety
/// The message is valid.
pub(super) unsafe fn error_of(message: *const sys::rd_kafka_message_t) -> Option<Error> {
    // SAFETY: by the caller's promise; text and topic name live as long as the message.
    unsafe {
        let code = Code::read(&raw const (*message).err);
        if code.is_ok() {
            return None;
        }
        let text = sys::rd_kafka_message_errstr(message);
        let detail = if text.is_null() {
            code.describe()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        };
        let mut error = error_from(code, "consume", detail);
        if !(*message).rkt.is_null() {
            let topic = CStr::from_ptr(sys::rd_kafka_topic_name((*message).rkt)).to_string_lossy();
            error =
                error.with_topic(topic).with_partition((*message).partition).with_offset((*message).offset);
        }
        Some(error)
    }
}
