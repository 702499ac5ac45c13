//! Producers of every kind: plain, idempotent, and transactional ones that commit or abort.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext};

use crate::orders::Order;

/// How long a broker may be away.
const WAIT: Duration = Duration::from_secs(60);

/// The header that names an order, whatever has become of its key and value.
pub(crate) const ORDER_HEADER: &str = "order";

/// How orders are produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Without idempotence: a retry may write a record twice, and both count.
    Plain,
    /// Idempotent, outside of transactions.
    Idempotent,
    /// In one transaction, which is committed.
    Committed,
    /// In one transaction, which is aborted once its records are in the log.
    Aborted,
}

/// What the producer knows of a batch in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Every record is in the log and visible.
    Visible,
    /// No record is visible.
    Hidden,
    /// A broker was away for too long: only the log can tell.
    Unknown,
}

#[derive(Default)]
struct Failures(AtomicU64);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

type Client = BaseProducer<Failures>;

/// Produces orders in any [`Way`]. All of it blocks.
pub struct OrderProducer {
    bootstrap: String,
    id: String,
    plain: Client,
    idempotent: Client,
    transactional: Client,
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
    /// If the cluster does not answer.
    pub fn new(bootstrap: &str, id: &str) -> Self {
        OrderProducer {
            bootstrap: bootstrap.to_owned(),
            id: id.to_owned(),
            plain: client(bootstrap, &[("enable.idempotence", "false")]),
            idempotent: client(bootstrap, &[("enable.idempotence", "true")]),
            transactional: transactional(bootstrap, id),
        }
    }

    /// Produces a batch and waits until its fate is known, as far as it can be.
    pub fn send(&mut self, way: Way, topic: &str, batch: &[(i32, Order)]) -> Sent {
        match way {
            Way::Plain => outside(&self.plain, topic, batch),
            Way::Idempotent => outside(&self.idempotent, topic, batch),
            Way::Committed | Way::Aborted => {
                let sent = transaction(&self.transactional, topic, batch, way == Way::Committed);
                sent.unwrap_or_else(|error| {
                    // The new one's registration ends what the old one left open.
                    crate::say(format_args!("{}: a transaction is given up: {error}", self.id));
                    self.transactional = transactional(&self.bootstrap, &self.id);
                    Sent::Unknown
                })
            }
        }
    }

    /// Produces outside of a transaction.
    ///
    /// # Panics
    /// Unless all are acknowledged.
    pub fn plain(&self, topic: &str, batch: &[(i32, Order)]) {
        assert_eq!(outside(&self.idempotent, topic, batch), Sent::Visible, "all are acknowledged");
    }

    /// Produces in one transaction and commits it.
    ///
    /// # Panics
    /// Unless it is committed.
    pub fn committed(&self, topic: &str, batch: &[(i32, Order)]) {
        let sent = transaction(&self.transactional, topic, batch, true).expect("the coordinator answers");
        assert_eq!(sent, Sent::Visible, "it is committed");
    }

    /// Produces in one transaction, so that the records are in the log, and aborts it.
    ///
    /// # Panics
    /// Unless it is aborted.
    pub fn aborted(&self, topic: &str, batch: &[(i32, Order)]) {
        let sent = transaction(&self.transactional, topic, batch, false).expect("the coordinator answers");
        assert_eq!(sent, Sent::Hidden, "it is aborted");
    }
}

fn client(bootstrap: &str, settings: &[(&str, &str)]) -> Client {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("linger.ms", "5")
        // A broker that is frozen keeps its connections: not for the default of a minute.
        .set("socket.timeout.ms", "4000");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create_with_context(Failures::default()).expect("the settings are right")
}

fn transactional(bootstrap: &str, id: &str) -> Client {
    let client = client(bootstrap, &[("transactional.id", id)]);
    again(|| client.init_transactions(WAIT)).expect("the coordinator answers");
    client
}

/// A step of a transaction, again while that may help.
fn again(mut step: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let start = Instant::now();
    loop {
        match step() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && start.elapsed() < WAIT => {}
            result => return result,
        }
    }
}

fn outside(client: &Client, topic: &str, batch: &[(i32, Order)]) -> Sent {
    let before = client.context().0.load(Ordering::Relaxed);
    enqueue(client, topic, batch);
    let flushed = client.flush(WAIT);
    if flushed.is_ok() && client.context().0.load(Ordering::Relaxed) == before {
        Sent::Visible
    } else {
        Sent::Unknown
    }
}

fn transaction(
    client: &Client,
    topic: &str,
    batch: &[(i32, Order)],
    commit: bool,
) -> Result<Sent, KafkaError> {
    client.begin_transaction()?;
    enqueue(client, topic, batch);
    client.flush(WAIT)?;
    if commit {
        again(|| client.commit_transaction(WAIT))?;
        return Ok(Sent::Visible);
    }
    again(|| client.abort_transaction(WAIT))?;
    Ok(Sent::Hidden)
}

fn enqueue(client: &Client, topic: &str, batch: &[(i32, Order)]) {
    for (partition, order) in batch {
        let name = OwnedHeaders::new().insert(Header { key: ORDER_HEADER, value: Some(&order.id) });
        let headers = order
            .headers
            .iter()
            .fold(name, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        let mut record = BaseRecord::to(topic)
            .partition(*partition)
            .key(&order.key)
            .timestamp(order.timestamp)
            .headers(headers);
        record.payload = order.value.as_ref();
        let mut sent = client.send(record);
        while let Err((error, record)) = sent {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            client.poll(Duration::from_millis(10));
            sent = client.send(record);
        }
    }
}
