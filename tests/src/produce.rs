//! Producers that do what a test needs: commit, abort, or neither.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::orders::Order;

const WAIT: Duration = Duration::from_secs(30);

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("linger.ms", "1");
    config
}

fn enqueue(producer: &BaseProducer, topic: &str, batch: &[(i32, Order)]) {
    for (partition, order) in batch {
        let headers = order.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(*value) })
        });
        let mut record = BaseRecord::to(topic)
            .partition(*partition)
            .key(&order.id)
            .timestamp(order.timestamp)
            .headers(headers);
        record.payload = order.value.as_ref();
        let mut sent = producer.send(record);
        while let Err((error, record)) = sent {
            assert_eq!(
                error.rdkafka_error_code(),
                Some(rdkafka::types::RDKafkaErrorCode::QueueFull),
                "{error}"
            );
            producer.poll(Duration::from_millis(10));
            sent = producer.send(record);
        }
    }
}

/// Produces orders: outside of transactions, in one that is committed, or in one that is aborted.
pub struct OrderProducer {
    plain: BaseProducer,
    transactional: BaseProducer,
}

impl std::fmt::Debug for OrderProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrderProducer").finish_non_exhaustive()
    }
}

impl OrderProducer {
    /// Connects, and registers the transactional id.
    ///
    /// # Panics
    /// If the cluster does not answer; so do the other methods.
    pub fn new(bootstrap: &str, id: &str) -> Self {
        let plain = config(bootstrap).create().expect("the settings are right");
        let transactional: BaseProducer =
            config(bootstrap).set("transactional.id", id).create().expect("the settings are right");
        transactional.init_transactions(WAIT).expect("the broker answers");
        OrderProducer { plain, transactional }
    }

    /// Produces outside of a transaction, and waits until all are acknowledged.
    pub fn plain(&self, topic: &str, batch: &[(i32, Order)]) {
        enqueue(&self.plain, topic, batch);
        self.plain.flush(WAIT).expect("the broker answers");
    }

    /// Produces in one transaction and commits it.
    pub fn committed(&self, topic: &str, batch: &[(i32, Order)]) {
        self.transactional.begin_transaction().expect("none is open");
        enqueue(&self.transactional, topic, batch);
        self.transactional.commit_transaction(WAIT).expect("it is committed");
    }

    /// Produces in one transaction, so that the records are in the log, and aborts it.
    pub fn aborted(&self, topic: &str, batch: &[(i32, Order)]) {
        self.transactional.begin_transaction().expect("none is open");
        enqueue(&self.transactional, topic, batch);
        self.transactional.flush(WAIT).expect("the broker answers");
        self.transactional.abort_transaction(WAIT).expect("it is aborted");
    }
}
