//! Everything that touches librdkafka's C interface, and all `unsafe` code of the crate.
//!
//! Above this module there are only owned values: a [`Client`] that is destroyed once, [`Partitions`],
//! [`Queue`]s that are disabled before their wake-up is freed, messages that are copied and released.

mod admin;
mod client;
mod code;
mod conf;
mod message;
#[cfg(feature = "mock")]
mod mock;
mod partitions;
mod produce;
mod queue;

pub(crate) use client::{Client, Noted, Rebalance, RebalanceKind, Role};
pub(crate) use code::{Code, kind_of};
pub(crate) use conf::Conf;
pub(crate) use message::MessageRef;
#[cfg(feature = "mock")]
pub(crate) use mock::NativeMock;
pub(crate) use partitions::{PartitionEntry, Partitions};
pub(crate) use produce::{DeliveryReport, OnDelivery, ProduceRequest, Refused};
pub(crate) use queue::{CommitReply, Queue};

pub(crate) use rdkafka_sys as sys;

/// Logical offsets. librdkafka is told none of them as a place to fetch from.
pub(crate) const BEGINNING: i64 = sys::RD_KAFKA_OFFSET_BEGINNING as i64;
pub(crate) const END: i64 = sys::RD_KAFKA_OFFSET_END as i64;
pub(crate) const INVALID: i64 = sys::RD_KAFKA_OFFSET_INVALID as i64;

/// The version of librdkafka that is linked.
pub(crate) fn version() -> String {
    // SAFETY: takes nothing; the text is static and ends in a zero.
    let version = unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_version_str()) };
    version.to_string_lossy().into_owned()
}
