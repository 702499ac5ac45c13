use std::ffi::{CStr, CString, c_int};
use std::time::Duration;

use super::client::{Role, check, millis};
use super::{Client, Conf, sys};
use crate::{Error, ErrorKind, Result};

/// librdkafka's mock cluster, with the client handle that it needs for its threads and log.
pub(crate) struct NativeMock {
    cluster: *mut sys::rd_kafka_mock_cluster_t,
    _client: Client,
}

// SAFETY: the mock's calls lock; the pointer is destroyed once, by the owner.
unsafe impl Send for NativeMock {}
// SAFETY: as above.
unsafe impl Sync for NativeMock {}

impl NativeMock {
    pub(crate) fn new(brokers: i32) -> Result<Self> {
        let client = Client::new(Role::Producer, &Conf::default())?;
        // SAFETY: valid handle, which lives longer than the cluster (field order and Drop).
        let cluster = unsafe { sys::rd_kafka_mock_cluster_new(client.as_ptr(), brokers) };
        if cluster.is_null() {
            return Err(Error::new(ErrorKind::Other, "start the mock cluster", "librdkafka refused it"));
        }
        Ok(NativeMock { cluster, _client: client })
    }

    pub(crate) fn bootstrap(&self) -> String {
        // SAFETY: the text belongs to the cluster.
        unsafe { CStr::from_ptr(sys::rd_kafka_mock_cluster_bootstraps(self.cluster)) }
            .to_string_lossy()
            .into_owned()
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32, replicas: i32) -> Result<()> {
        let operation = "create a topic of the mock cluster";
        let name = text(topic, operation)?;
        // SAFETY: valid cluster and name.
        let code =
            unsafe { sys::rd_kafka_mock_topic_create(self.cluster, name.as_ptr(), partitions, replicas) };
        check(code.into(), operation).map_err(|e| e.with_topic(topic))
    }

    pub(crate) fn fail_next(&self, api_key: i16, codes: &[i32]) {
        let codes: Vec<_> =
            codes.iter().filter_map(|c| sys::rd_kafka_resp_err_t::try_from(*c).ok()).collect();
        // SAFETY: valid cluster; the array is copied.
        unsafe {
            sys::rd_kafka_mock_push_request_errors_array(self.cluster, api_key, codes.len(), codes.as_ptr());
        }
    }

    pub(crate) fn set_broker_up(&self, broker: i32, up: bool) -> Result<()> {
        // SAFETY: valid cluster; an unknown broker gives an error code.
        let code = unsafe {
            if up {
                sys::rd_kafka_mock_broker_set_up(self.cluster, broker)
            } else {
                sys::rd_kafka_mock_broker_set_down(self.cluster, broker)
            }
        };
        check(code.into(), "switch a broker of the mock cluster")
    }

    pub(crate) fn set_round_trip(&self, broker: i32, time: Duration) -> Result<()> {
        // SAFETY: valid cluster; an unknown broker gives an error code.
        let code = unsafe { sys::rd_kafka_mock_broker_set_rtt(self.cluster, broker, millis(time)) };
        check(code.into(), "slow down a broker of the mock cluster")
    }

    pub(crate) fn set_leader(&self, topic: &str, partition: i32, broker: i32) -> Result<()> {
        let operation = "move a partition of the mock cluster";
        let name = text(topic, operation)?;
        // SAFETY: valid cluster and name; what does not exist gives an error code.
        let code = unsafe {
            sys::rd_kafka_mock_partition_set_leader(self.cluster, name.as_ptr(), partition, broker)
        };
        check(code.into(), operation).map_err(|e| e.with_topic(topic).with_partition(partition))
    }

    pub(crate) fn set_group_coordinator(&self, group: &str, broker: i32) -> Result<()> {
        let operation = "move a group of the mock cluster";
        let name = text(group, operation)?;
        // SAFETY: valid cluster and names; an unknown broker gives an error code.
        let code = unsafe {
            sys::rd_kafka_mock_coordinator_set(self.cluster, c"group".as_ptr(), name.as_ptr(), broker)
        };
        check(code.into(), operation)
    }

    pub(crate) fn set_group_rebalance_delay(&self, delay: Duration) {
        // SAFETY: valid cluster.
        unsafe { sys::rd_kafka_mock_group_initial_rebalance_delay_ms(self.cluster, millis(delay) as c_int) };
    }
}

fn text(name: &str, operation: &'static str) -> Result<CString> {
    CString::new(name)
        .map_err(|_| Error::new(ErrorKind::InvalidArgument, operation, "a name cannot hold a NUL byte"))
}

impl Drop for NativeMock {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once, before the client (a field, dropped after this).
        unsafe { sys::rd_kafka_mock_cluster_destroy(self.cluster) }
    }
}
