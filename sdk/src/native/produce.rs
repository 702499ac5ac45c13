use std::ffi::{CStr, CString, c_int, c_void};
use std::time::Duration;

use gristmill_records::Header;

use super::client::{check, error_from, millis};
use super::{Client, Code, sys};
use crate::{Error, ErrorKind, Result};

/// Called once per record that was enqueued, on the producer's thread.
pub(crate) type OnDelivery = Box<dyn FnOnce(Result<DeliveryReport>) + Send>;

/// Where a record came to lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeliveryReport {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// One record for [`Client::produce`].
pub(crate) struct ProduceRequest<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) headers: &'a mut dyn Iterator<Item = Header<'a>>,
}

/// A record that was not enqueued, with the callback that will not be called.
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) queue_full: bool,
    pub(crate) on_delivery: OnDelivery,
}

impl Client {
    /// Copies a record into the queue. Does not wait: a full queue is told by [`Refused::queue_full`].
    pub(crate) fn produce(
        &self,
        record: ProduceRequest<'_>,
        on_delivery: OnDelivery,
    ) -> Result<(), Box<Refused>> {
        let refuse = |kind, detail: &str, on_delivery| {
            let error = Error::new(kind, "produce", detail).with_topic(record.topic);
            Box::new(Refused { error, queue_full: false, on_delivery })
        };
        let Ok(topic) = CString::new(record.topic) else {
            return Err(refuse(
                ErrorKind::InvalidArgument,
                "a topic's name cannot hold a NUL byte",
                on_delivery,
            ));
        };
        // SAFETY: a fresh list of headers; librdkafka takes it over when the record is accepted.
        let headers = unsafe { sys::rd_kafka_headers_new(8) };
        for header in record.headers {
            let (value, len) = header.value.map_or((std::ptr::null(), 0), |v| (v.as_ptr(), v.len()));
            // SAFETY: name and value are valid for their lengths, and are copied; a null value is Kafka's null.
            unsafe {
                sys::rd_kafka_header_add(
                    headers,
                    header.name.as_ptr().cast(),
                    header.name.len() as isize,
                    value.cast(),
                    len as isize,
                )
            };
        }
        let bytes = |bytes: Option<&[u8]>| sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
            ptr: bytes.map_or(std::ptr::null_mut(), |b| b.as_ptr() as *mut c_void),
            size: bytes.map_or(0, <[u8]>::len),
        };
        let opaque = Box::into_raw(Box::new(on_delivery));
        use sys::rd_kafka_vtype_t as T;
        use sys::rd_kafka_vu_s__bindgen_ty_1 as U;
        let vu = |vtype, u| sys::rd_kafka_vu_s { vtype, u };
        let values = [
            vu(T::RD_KAFKA_VTYPE_TOPIC, U { cstr: topic.as_ptr() }),
            vu(T::RD_KAFKA_VTYPE_PARTITION, U { i32_: record.partition.unwrap_or(-1) }),
            vu(T::RD_KAFKA_VTYPE_MSGFLAGS, U { i: sys::RD_KAFKA_MSG_F_COPY as c_int }),
            vu(T::RD_KAFKA_VTYPE_KEY, U { mem: bytes(record.key) }),
            vu(T::RD_KAFKA_VTYPE_VALUE, U { mem: bytes(record.value) }),
            // 0 means "now".
            vu(T::RD_KAFKA_VTYPE_TIMESTAMP, U { i64_: record.timestamp.unwrap_or(0) }),
            vu(T::RD_KAFKA_VTYPE_OPAQUE, U { ptr: opaque.cast() }),
            vu(T::RD_KAFKA_VTYPE_HEADERS, U { headers }),
        ];
        // SAFETY: the array and all that it points to are valid for the call; key and value are copied. On success
        // librdkafka owns headers and opaque (until the report); on failure both stay ours.
        let error = unsafe { sys::rd_kafka_produceva(self.as_ptr(), values.as_ptr(), values.len()) };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the error is valid and ours; headers and opaque were not taken.
        unsafe {
            let code = Code::from(sys::rd_kafka_error_code(error));
            let detail = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
            sys::rd_kafka_error_destroy(error);
            sys::rd_kafka_headers_destroy(headers);
            let on_delivery = *Box::from_raw(opaque);
            let error = error_from(code, "produce", detail).with_topic(record.topic);
            Err(Box::new(Refused { error, queue_full: code == Code::QUEUE_FULL, on_delivery }))
        }
    }

    /// Records that are queued or in flight.
    pub(crate) fn in_queue(&self) -> usize {
        // SAFETY: valid handle.
        usize::try_from(unsafe { sys::rd_kafka_outq_len(self.as_ptr()) }).unwrap_or(0)
    }

    /// Sends what lingers at once and serves reports for at most `wait`.
    pub(crate) fn flush_producer(&self, wait: Duration) -> Result<()> {
        // SAFETY: valid handle.
        check(unsafe { sys::rd_kafka_flush(self.as_ptr(), millis(wait)) }.into(), "flush")
    }

    /// Gives up everything that is queued or in flight; each record gets its report.
    pub(crate) fn purge(&self) {
        // SAFETY: valid handle.
        unsafe {
            sys::rd_kafka_purge(
                self.as_ptr(),
                (sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT) as c_int,
            )
        };
    }
}

/// The delivery report callback.
pub(super) unsafe extern "C" fn on_delivery(
    _: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    _: *mut c_void,
) {
    // SAFETY: librdkafka passes a valid message. Its private pointer is the box that `produce` gave with the
    // record, and each record is reported once.
    unsafe {
        let opaque = (*message)._private.cast::<OnDelivery>();
        if opaque.is_null() {
            return;
        }
        let callback = Box::from_raw(opaque);
        let code = Code::read(&raw const (*message).err);
        let outcome = if code.is_ok() {
            Ok(DeliveryReport { partition: (*message).partition, offset: (*message).offset })
        } else {
            let topic = CStr::from_ptr(sys::rd_kafka_topic_name((*message).rkt)).to_string_lossy();
            Err(error_from(code, "produce", code.describe())
                .with_topic(topic)
                .with_partition((*message).partition))
        };
        callback(outcome);
    }
}
