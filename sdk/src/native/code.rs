use std::ffi::{CStr, c_int};
use std::fmt;

use super::sys;
use crate::ErrorKind;

/// An error code of Kafka (positive) or librdkafka (negative); 0 is success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

macro_rules! codes {
    ($($name:ident = $native:ident;)*) => {
        impl Code { $(pub(crate) const $name: Code = Code(sys::rd_kafka_resp_err_t::$native as i32);)* }
    };
}

codes! {
    OK = RD_KAFKA_RESP_ERR_NO_ERROR;
    PARTITION_EOF = RD_KAFKA_RESP_ERR__PARTITION_EOF;
    ASSIGN_PARTITIONS = RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    STATE = RD_KAFKA_RESP_ERR__STATE;
    OUTDATED = RD_KAFKA_RESP_ERR__OUTDATED;
    PREV_IN_PROGRESS = RD_KAFKA_RESP_ERR__PREV_IN_PROGRESS;
    QUEUE_FULL = RD_KAFKA_RESP_ERR__QUEUE_FULL;
    AUTO_OFFSET_RESET = RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET;
    OFFSET_OUT_OF_RANGE = RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    FATAL = RD_KAFKA_RESP_ERR__FATAL;
    UNKNOWN_TOPIC = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    UNKNOWN_MEMBER_ID = RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    ILLEGAL_GENERATION = RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
    REBALANCE_IN_PROGRESS = RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
    NON_EMPTY_GROUP = RD_KAFKA_RESP_ERR_NON_EMPTY_GROUP;
    STALE_MEMBER_EPOCH = RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH;
    FENCED_MEMBER_EPOCH = RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH;
}

impl Code {
    /// Reads a code as the number that it is: one that this version does not name is no value of the enum.
    ///
    /// # Safety
    /// The pointer is valid, and what it points to is initialised.
    pub(super) unsafe fn read(code: *const sys::rd_kafka_resp_err_t) -> Self {
        // SAFETY: by the caller's promise; a C enum is an int.
        Code(unsafe { code.cast::<i32>().read() })
    }

    /// The error of an event.
    ///
    /// # Safety
    /// The event is valid.
    pub(super) unsafe fn of_event(event: *mut sys::rd_kafka_event_t) -> Self {
        unsafe extern "C" {
            /// Declared to give a number, for the same reason.
            fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
        }
        // SAFETY: by the caller's promise; the function gives a C enum, which is an int.
        Code(unsafe { rd_kafka_event_error(event) })
    }

    pub(crate) fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// Kafka's own sentence for the code.
    pub(crate) fn describe(self) -> String {
        match sys::rd_kafka_resp_err_t::try_from(self.0) {
            // SAFETY: the function takes any code and gives a static string.
            Ok(code) => unsafe { CStr::from_ptr(sys::rd_kafka_err2str(code)) }.to_string_lossy().into_owned(),
            Err(_) => format!("error code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.describe())
    }
}

impl From<sys::rd_kafka_resp_err_t> for Code {
    fn from(code: sys::rd_kafka_resp_err_t) -> Self {
        Code(code as i32)
    }
}

/// The condition behind a code.
pub(crate) fn kind_of(code: Code) -> ErrorKind {
    use sys::rd_kafka_resp_err_t as E;
    let Ok(native) = E::try_from(code.0) else { return ErrorKind::Other };
    match native {
        E::RD_KAFKA_RESP_ERR__TRANSPORT
        | E::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
        | E::RD_KAFKA_RESP_ERR__RESOLVE
        | E::RD_KAFKA_RESP_ERR__WAIT_COORD
        // A broker that hangs is taken out of the cluster's metadata, and its requests end with this.
        | E::RD_KAFKA_RESP_ERR__DESTROY_BROKER
        | E::RD_KAFKA_RESP_ERR__UNKNOWN_BROKER
        | E::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION
        | E::RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE
        | E::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
        | E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
        | E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS
        | E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND => ErrorKind::Unreachable,
        E::RD_KAFKA_RESP_ERR__TIMED_OUT
        | E::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT
        | E::RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE
        | E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT => ErrorKind::TimedOut,
        E::RD_KAFKA_RESP_ERR__AUTHENTICATION
        | E::RD_KAFKA_RESP_ERR__SSL
        | E::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED => ErrorKind::Unauthenticated,
        E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
        | E::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
        | E::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED => ErrorKind::Unauthorized,
        E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
        | E::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | E::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
        | E::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND => ErrorKind::NotFound,
        E::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE | E::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET => {
            ErrorKind::OffsetOutOfRange
        }
        E::RD_KAFKA_RESP_ERR__LOG_TRUNCATION => ErrorKind::LogTruncated,
        E::RD_KAFKA_RESP_ERR__FENCED
        | E::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID
        | E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH
        | E::RD_KAFKA_RESP_ERR_PRODUCER_FENCED => ErrorKind::Fenced,
        E::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS
        | E::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION
        | E::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID
        | E::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH
        | E::RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH
        | E::RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST
        | E::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS
        | E::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE
        | E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR
        | E::RD_KAFKA_RESP_ERR__STATE
        | E::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED => ErrorKind::Rebalancing,
        E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE | E::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE => {
            ErrorKind::TooLarge
        }
        E::RD_KAFKA_RESP_ERR__INVALID_ARG => ErrorKind::InvalidArgument,
        E::RD_KAFKA_RESP_ERR__BAD_MSG
        | E::RD_KAFKA_RESP_ERR_INVALID_MSG
        | E::RD_KAFKA_RESP_ERR__BAD_COMPRESSION => ErrorKind::Malformed,
        E::RD_KAFKA_RESP_ERR__DESTROY
        | E::RD_KAFKA_RESP_ERR__PURGE_QUEUE
        | E::RD_KAFKA_RESP_ERR__PURGE_INFLIGHT => ErrorKind::Closed,
        E::RD_KAFKA_RESP_ERR__FATAL => ErrorKind::Fatal,
        _ if code.0 > 0 => ErrorKind::Refused,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_has_no_name_here_stays_a_number() {
        let unknown = 30_000_i32;
        // SAFETY: the pointer is to a live number; it is never read as the enum.
        let code = unsafe { Code::read((&raw const unknown).cast()) };
        assert_eq!(code, Code(unknown));
        assert_eq!(code.describe(), "error code 30000");
        assert_eq!(kind_of(code), ErrorKind::Other);
    }

    #[test]
    fn a_broker_that_left_the_cluster_with_our_request_is_a_broker_that_did_not_answer() {
        for native in [
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__DESTROY_BROKER,
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNKNOWN_BROKER,
        ] {
            assert_eq!(kind_of(native.into()), ErrorKind::Unreachable, "{:?}", Code::from(native));
        }
    }
}
