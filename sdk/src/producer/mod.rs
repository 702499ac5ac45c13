mod config;
mod record;

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use gristmill_records::Header;
use tokio::sync::{Notify, oneshot};

pub use config::{Compression, ProducerConfig, ProducerConfigBuilder};
pub use record::ProducerRecord;

use crate::native::{Client, DeliveryReport, Noted, OnDelivery, ProduceRequest, Refused, Role};
use crate::{Error, ErrorKind, Result};

/// An idempotent producer: a record is reported as delivered when all in-sync replicas have it, and lies in
/// its partition once and in the order of sending, whatever was retried.
///
/// Cheap to clone; clones share one connection and one buffer. A full buffer makes sending wait; it is not an
/// error. Dropping the last clone goes on delivering what is buffered for up to 5 s, without waiting for it;
/// [`close`](Self::close) waits.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    client: Slot,
    /// Told at every delivery report: there may be room again.
    room: Arc<Notify>,
    /// Set when the client can go on no more, or was closed.
    ended: Arc<Mutex<Option<Error>>>,
    orders: Mutex<mpsc::Sender<Order>>,
}

/// The client, until the serving thread takes it out to destroy it: that may block, so no thread of the
/// caller's may be the last to hold it. Held for reading through one call that does not wait.
type Slot = Arc<RwLock<Option<Arc<Client>>>>;

enum Order {
    Flush { until: Instant, done: oneshot::Sender<Result<()>> },
    Close { until: Instant, done: Option<oneshot::Sender<Result<()>>> },
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// The partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// A record that is in the buffer; as a future, its delivery report.
///
/// Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "only the report tells whether the record was delivered"]
pub struct PendingDelivery {
    report: oneshot::Receiver<Result<Delivered>>,
}

impl Future for PendingDelivery {
    type Output = Result<Delivered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        pin!(&mut self.report).poll(cx).map(|report| report.unwrap_or_else(|_| Err(closed())))
    }
}

/// What became of the records of one [`Producer::send_all`], by their index.
#[derive(Debug)]
pub struct SendReport {
    outcomes: Vec<Result<Delivered>>,
}

impl SendReport {
    /// The outcome of each record, in the order in which they were given.
    pub fn outcomes(&self) -> &[Result<Delivered>] {
        &self.outcomes
    }

    /// Whether every record was delivered.
    pub fn is_complete(&self) -> bool {
        self.outcomes.iter().all(Result::is_ok)
    }

    /// The records that were not delivered: index and reason.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Error)> {
        self.outcomes.iter().enumerate().filter_map(|(i, o)| Some((i, o.as_ref().err()?)))
    }

    /// The first failure as an error, for callers who want all or nothing.
    ///
    /// # Errors
    /// The error of the first record that was not delivered.
    pub fn into_result(self) -> Result<Vec<Delivered>> {
        self.outcomes.into_iter().collect()
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("buffered", &self.inner.buffered()).finish_non_exhaustive()
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "produce", "the producer was closed before the record was delivered")
}

impl Producer {
    /// Starts a producer. Returns before a broker has answered.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if librdkafka refuses the settings, [`ErrorKind::Other`] if no thread can
    /// be started.
    pub fn new(config: ProducerConfig) -> Result<Producer> {
        let client = Arc::new(Client::new(Role::Producer, &config.to_conf())?);
        let ended = Arc::new(Mutex::new(None));
        let (orders, taken) = mpsc::channel();
        let slot: Slot = Arc::new(RwLock::new(Some(client.clone())));
        let serve = {
            let (slot, ended) = (slot.clone(), ended.clone());
            move || {
                serve(&client, &taken, &ended);
                slot.write().unwrap_or_else(PoisonError::into_inner).take();
                drop(client);
            }
        };
        std::thread::Builder::new()
            .name("gristmill-send".into())
            .spawn(serve)
            .map_err(|e| Error::new(ErrorKind::Other, "start the producer's thread", e.to_string()))?;
        let inner = Inner { client: slot, room: Arc::new(Notify::new()), ended, orders: Mutex::new(orders) };
        Ok(Producer { inner: Arc::new(inner) })
    }

    /// Puts a record into the buffer, waiting while it is full, and gives its report as a future.
    ///
    /// The order of calls is the order in a partition. Cancel safe: if it does not return, the record was not
    /// taken.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`], [`ErrorKind::InvalidArgument`], [`ErrorKind::NotFound`] for a partition that is
    /// known not to exist, [`ErrorKind::Fatal`] and [`ErrorKind::Fenced`] once the producer cannot go on,
    /// [`ErrorKind::Closed`].
    pub async fn enqueue(&self, record: ProducerRecord) -> Result<PendingDelivery> {
        let (reply, report) = oneshot::channel();
        let room = self.inner.room.clone();
        let mut on_delivery: OnDelivery = Box::new(move |outcome: Result<DeliveryReport>| {
            let outcome = outcome.map(|r| Delivered { partition: r.partition, offset: r.offset });
            let _ = reply.send(outcome);
            room.notify_waiters();
        });
        loop {
            let mut room = pin!(self.inner.room.notified());
            // Registered before the attempt, so that room made in between is not missed.
            room.as_mut().enable();
            if let Some(error) = self.inner.ended() {
                return Err(error);
            }
            let refused = match self.inner.produce(&record, on_delivery) {
                Ok(()) => return Ok(PendingDelivery { report }),
                Err(refused) => *refused,
            };
            if !refused.queue_full {
                return Err(refused.error);
            }
            on_delivery = refused.on_delivery;
            // The limit counts librdkafka's memory too, which is given back a little after the report.
            let _ = tokio::time::timeout(Duration::from_millis(100), room).await;
        }
    }

    /// Writes a record and waits for its report.
    ///
    /// Not cancel safe: a record that is in the buffer will be delivered.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue), and what the brokers say; [`ErrorKind::TimedOut`] after the
    /// `delivery_timeout`, when it is not known whether the record was written.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivered> {
        self.enqueue(record).await?.await
    }

    /// Writes records and waits for all reports: one failure does not hide the others.
    ///
    /// Not cancel safe: what is in the buffer will be delivered.
    pub async fn send_all(&self, records: impl IntoIterator<Item = ProducerRecord>) -> SendReport {
        let records = records.into_iter();
        let mut pending = Vec::with_capacity(records.size_hint().0);
        for record in records {
            pending.push(self.enqueue(record).await);
        }
        let mut outcomes = Vec::with_capacity(pending.len());
        for delivery in pending {
            outcomes.push(match delivery {
                Ok(delivery) => delivery.await,
                Err(error) => Err(error),
            });
        }
        SendReport { outcomes }
    }

    /// Records in the buffer or on their way.
    pub fn buffered(&self) -> usize {
        self.inner.buffered()
    }

    /// Sends what lingers, and waits until every record so far has its report.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] after `deadline`: the rest stays buffered. [`ErrorKind::Closed`].
    pub async fn flush(&self, deadline: Duration) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.inner.order(Order::Flush { until: Instant::now() + deadline, done });
        outcome.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Delivers what is buffered within `deadline`, gives up the rest (each gets its report), and ends the
    /// producer for all its clones.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] if records were given up.
    pub async fn close(self, deadline: Duration) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.inner.order(Order::Close { until: Instant::now() + deadline, done: Some(done) });
        match tokio::time::timeout(deadline + Duration::from_secs(1), outcome).await {
            Ok(result) => result.unwrap_or(Ok(())),
            Err(_) => Err(Error::new(
                ErrorKind::TimedOut,
                "close the producer",
                format!("not done within {deadline:?}"),
            )),
        }
    }
}

impl Inner {
    fn order(&self, order: Order) {
        // An error means that the thread has ended: the reply channel then tells it.
        let _ = self.orders.lock().unwrap_or_else(PoisonError::into_inner).send(order);
    }

    fn ended(&self) -> Option<Error> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn produce(
        &self,
        record: &ProducerRecord,
        on_delivery: OnDelivery,
    ) -> std::result::Result<(), Box<Refused>> {
        let mut headers = record.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() });
        let request = ProduceRequest {
            topic: &record.topic,
            partition: record.partition,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            timestamp: record.timestamp,
            headers: &mut headers,
        };
        match &*self.client.read().unwrap_or_else(PoisonError::into_inner) {
            Some(client) => client.produce(request, on_delivery),
            None => Err(Box::new(Refused { error: closed(), queue_full: false, on_delivery })),
        }
    }

    fn buffered(&self) -> usize {
        self.client.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |c| c.in_queue())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.order(Order::Close { until: Instant::now() + Duration::from_secs(5), done: None });
    }
}

/// The thread that serves delivery reports, until the producer is closed.
fn serve(client: &Client, orders: &mpsc::Receiver<Order>, ended: &Mutex<Option<Error>>) {
    let end = |error: Error| *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    let mut flushes = Vec::new();
    loop {
        let wait = if flushes.is_empty() { Duration::from_millis(50) } else { Duration::from_millis(1) };
        for note in client.poll_producer(wait) {
            if let Noted::Error(error) = note {
                if error.is_fatal() {
                    tracing::error!(%error, "the producer cannot go on");
                    end(error);
                } else {
                    tracing::debug!(%error, "the producer goes on");
                }
            }
        }
        while let Ok(order) = orders.try_recv() {
            match order {
                Order::Flush { until, done } => flushes.push((until, done)),
                Order::Close { until, done } => {
                    end(closed());
                    let outcome = drain(client, until);
                    if let Some(done) = done {
                        let _ = done.send(outcome);
                    }
                    // Reports of flushes that waited follow from the dropped senders.
                    return;
                }
            }
        }
        if flushes.is_empty() {
            continue;
        }
        let empty = client.flush_producer(Duration::from_millis(20)).is_ok();
        let now = Instant::now();
        let mut later = Vec::new();
        for (until, done) in flushes {
            if empty {
                let _ = done.send(Ok(()));
            } else if now >= until {
                let text = format!("{} records are still on their way", client.in_queue());
                let _ = done.send(Err(Error::new(ErrorKind::TimedOut, "flush", text)));
            } else {
                later.push((until, done));
            }
        }
        flushes = later;
    }
}

fn drain(client: &Client, until: Instant) -> Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if client.flush_producer(left.min(Duration::from_millis(100))).is_ok() {
            return Ok(());
        }
        if left.is_zero() {
            break;
        }
    }
    let given_up = client.in_queue();
    client.purge();
    // Purged records still get their reports.
    let _ = client.flush_producer(Duration::from_millis(500));
    let text = format!("{given_up} records could not be delivered in time and were given up");
    Err(Error::new(ErrorKind::TimedOut, "close the producer", text))
}
