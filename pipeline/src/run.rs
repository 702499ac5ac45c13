//! A running pipeline: one consumer, one worker a partition.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill::{AssignedPartition, Consumer, ConsumerEvent, Topics};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::check::Checked;
use crate::epochs::Epochs;
use crate::error::{Error, ErrorKind};
use crate::follow::Follower;
use crate::metrics::Metrics;
use crate::partition::{self, Order};
use crate::prepare::{self, Prepared};
use crate::reload::{self, Plans};
use crate::replay::{self, ReplayProgress, ReplayRequest};
use crate::shared::Shared;
use crate::start;
use crate::status::{Readiness, StatusServer};

/// What a running pipeline is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Run on.
    No,
    /// Finish the open checkpoints, then end.
    Finish,
    /// Drop the open checkpoints and end at once.
    Drop,
}

/// How a pipeline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every open checkpoint was finished.
    Finished,
    /// An open checkpoint was dropped; its records are read again at the next start.
    Dropped,
}

/// A pipeline that is ready to run.
///
/// **Guarantee.** Every committed record of the source becomes, exactly once, what the transform makes of it:
/// rows in visible files, a dead letter (at least once), or a drop; across crashes, restarts, rebalances
/// and a second process that does not know that it was replaced. The ledger (`gristmill-sinks`) gives it.
#[derive(Debug)]
pub struct Pipeline {
    prepared: Prepared,
    metrics: Arc<Metrics>,
}

impl Pipeline {
    /// Loads the transform, fetches the columns' schema, opens the folders. Nothing is read from Kafka.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], [`ErrorKind::Transform`], [`ErrorKind::SchemaRegistry`], [`ErrorKind::Sink`].
    pub async fn prepare(checked: Checked) -> Result<Pipeline, Error> {
        Ok(Pipeline::of(prepare::prepare(checked, false).await?))
    }

    /// As [`Pipeline::prepare`], for a cluster that tells no topic ids, such as librdkafka's mock cluster: the
    /// topic's name stands in for its id, so a re-created topic is not noticed.
    ///
    /// # Errors
    /// As for [`Pipeline::prepare`].
    pub async fn prepare_without_topic_ids(checked: Checked) -> Result<Pipeline, Error> {
        Ok(Pipeline::of(prepare::prepare(checked, true).await?))
    }

    fn of(mut prepared: Prepared) -> Pipeline {
        let metrics = Arc::<Metrics>::default();
        if let Some(gcs) = prepared.gcs.take() {
            let _ = metrics.gcs.set(gcs);
        }
        Pipeline { prepared, metrics }
    }

    /// As [`Pipeline::prepare`], for a bounded range once more, beside the live pipeline: with an id, a group, a
    /// folder and a ledger of its own ([`Checked::replay`]). The bounds become offsets here, at the first start;
    /// a later start has the same ones.
    ///
    /// **Guarantee.** As of [`Pipeline`], for the records of the range and no other. Running it ends with
    /// [`Ended::Finished`] when everything of the range is published; [`ReplayProgress::is_complete`] tells that
    /// from a stop.
    ///
    /// # Errors
    /// As for [`Pipeline::prepare`]; [`ErrorKind::Config`] too if the place is taken, the range has no record, or
    /// the replay was started with other bounds; [`ErrorKind::Source`].
    pub async fn prepare_replay(checked: &Checked, request: &ReplayRequest) -> Result<Pipeline, Error> {
        Ok(Pipeline { prepared: prepare::prepare_replay(checked, request).await?, metrics: Arc::default() })
    }

    /// How far a replay has come; `None` for a live pipeline.
    pub fn replay_progress(&self) -> Option<ReplayProgress> {
        self.prepared.replay.clone().map(ReplayProgress)
    }

    /// The pipeline's counters.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Runs until `stop` says otherwise or something fails that cannot be tried again.
    ///
    /// Needs a multi-threaded tokio runtime: transforms run on its threads. Dropping the future is safe at
    /// any point, as a crash is.
    ///
    /// # Errors
    /// The first error of any partition; the others are then stopped as on [`Stop::Drop`].
    pub async fn run(self, mut stop: watch::Receiver<Stop>) -> Result<Ended, Error> {
        let Pipeline { prepared, metrics } = self;
        if prepared.replay.as_ref().is_some_and(|replay| replay.is_complete()) {
            return Ok(Ended::Finished);
        }
        let mut complete = pin!(replay::complete(prepared.replay.clone()));
        let readiness = Arc::new(Readiness::default());
        let server = match prepared.listen {
            Some(address) => {
                let server = StatusServer::start(address, metrics.clone(), readiness.clone())
                    .await
                    .map_err(|e| Error::status(address, e))?;
                tracing::info!(address = %server.address(), "serving /metrics, /livez and /readyz");
                Some(server)
            }
            None => None,
        };
        let shutdown = prepared.shutdown;
        let epochs = match &prepared.counting {
            Some(config) => {
                let topics = Topics::connect(config).map_err(Error::source)?;
                Some(Epochs::new(topics, prepared.sink.clone(), prepared.names_for_ids))
            }
            None => None,
        };
        let consumer = Consumer::start(prepared.consumer).map_err(Error::source)?;
        let cluster = start::cluster(&consumer, &prepared.bootstrap_servers).await?;
        if !prepared.names_for_ids {
            let letters = prepared.dead_letter_topic.as_deref();
            start::topics_are_there(&consumer, &prepared.topics, letters).await?;
        }
        let (plans, plan) = Plans::new(prepared.plan);
        let plans = Arc::new(plans);
        let checked = prepared.loader.checked().clone();
        let _reload =
            AbortOnDrop(tokio::spawn(reload::watch(prepared.loader, plans.clone(), metrics.clone())));
        let registry = prepared.registry.clone();
        let follower = Follower::new(checked, registry, prepared.tables, plans, metrics.clone());
        let shared = Arc::new(Shared {
            pipeline: prepared.name,
            file: prepared.file,
            cluster,
            consumer,
            plan,
            follower,
            sink: prepared.sink,
            epochs,
            has_dead_letters: prepared.has_dead_letters,
            registry: prepared.registry,
            names_for_ids: prepared.names_for_ids,
            replay: prepared.replay,
            metrics,
            unknown_schemas: Mutex::default(),
            codes: Mutex::default(),
        });
        let mut workers =
            Workers { shared: shared.clone(), tasks: JoinSet::new(), running: HashMap::new(), started: 0 };
        let mut deadline: Option<Instant> = None;
        let result = loop {
            tokio::select! {
                event = shared.consumer.next_event() => match event {
                    Some(ConsumerEvent::Assigned(partitions)) => {
                        // While stopping, a new partition is left to the other members.
                        if deadline.is_none() {
                            readiness.set(true);
                            partitions.into_iter().for_each(|p| workers.start(p));
                        }
                    }
                    Some(ConsumerEvent::Revoked(partitions)) | Some(ConsumerEvent::Lost(partitions)) => {
                        for p in partitions {
                            workers.abandon(&p.topic, p.partition);
                        }
                    }
                    Some(ConsumerEvent::Error(error))
                        if error.kind() == gristmill::ErrorKind::OffsetOutOfRange && workers.position_lost(&error) => {}
                    // A partition that stands still for good would be skipped in silence; a pipeline that reads
                    // nothing, and that trying again does not help, has to say so.
                    Some(ConsumerEvent::Error(error))
                        if error.is_fatal() || (!error.is_retryable() && (error.partition().is_some() || workers.running.is_empty())) =>
                    {
                        break Err(if shared.replay.is_some() { replay::unreadable(error) } else { Error::source(error) });
                    }
                    Some(ConsumerEvent::Error(error)) => tracing::warn!(%error, "Kafka"),
                    Some(_) => {}
                    None => break Err(Error::new(ErrorKind::Source, "the consumer ended by itself")),
                },
                Some(ended) = workers.tasks.join_next() => {
                    let (number, result) = match ended {
                        Ok(ended) => ended,
                        Err(panic) => break Err(Error::new(ErrorKind::Sink, format!("a worker panicked: {panic}"))),
                    };
                    workers.running.remove(&number);
                    shared.metrics.partitions.set(workers.running.len() as i64);
                    if let Err(error) = result {
                        break Err(error);
                    }
                    if deadline.is_some() && workers.running.is_empty() {
                        break Ok(Ended::Finished);
                    }
                }
                finished = &mut complete => break finished.map(|()| Ended::Finished),
                changed = stop.changed() => {
                    let order = if changed.is_ok() { *stop.borrow() } else { Stop::Drop };
                    match order {
                        Stop::No => {}
                        Stop::Finish => {
                            readiness.set(false);
                            deadline = Some(Instant::now() + shutdown);
                            workers.order_all(Order::Finish);
                            if workers.running.is_empty() {
                                break Ok(Ended::Finished);
                            }
                        }
                        Stop::Drop => break Ok(Ended::Dropped),
                    }
                }
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    break Ok(Ended::Dropped);
                }
            }
        };
        readiness.set(false);
        workers.tasks.shutdown().await;
        drop(workers);
        if let Some(shared) = Arc::into_inner(shared) {
            // What is published counts, whether the group hears of it in time or not: the ledger knows.
            if let Err(error) = shared.consumer.close(CLOSE).await {
                tracing::warn!(%error, "the group was not left in time");
            }
        }
        drop(server);
        result
    }
}

/// A task that ends with the run.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How long leaving the group may take.
const CLOSE: Duration = Duration::from_secs(10);

struct Worker {
    topic: Arc<str>,
    partition: i32,
    orders: watch::Sender<Order>,
}

impl Worker {
    /// Gives an order to a worker that has none yet.
    fn order(&self, order: Order) {
        self.orders.send_if_modified(|now| {
            let changes = *now == Order::Run;
            *now = if changes { order } else { *now };
            changes
        });
    }
}

struct Workers {
    shared: Arc<Shared>,
    tasks: JoinSet<(u64, Result<(), Error>)>,
    /// By a number of their own: a partition may come back before its last worker has ended.
    running: HashMap<u64, Worker>,
    started: u64,
}

impl Workers {
    fn start(&mut self, assigned: AssignedPartition) {
        self.started += 1;
        let number = self.started;
        let (orders, received) = watch::channel(Order::Run);
        let (topic, partition) = (assigned.topic.clone(), assigned.partition);
        self.running.insert(number, Worker { topic, partition, orders });
        self.shared.metrics.partitions.set(self.running.len() as i64);
        let shared = self.shared.clone();
        self.tasks.spawn(async move { (number, partition::run(assigned, shared, received).await) });
    }

    fn abandon(&self, topic: &str, partition: i32) {
        for worker in self.running.values().filter(|w| *w.topic == *topic && w.partition == partition) {
            worker.orders.send_replace(Order::Abandon);
        }
    }

    /// Tells the worker of the error's partition that there is nothing to read where it is; whether there is one.
    fn position_lost(&self, error: &gristmill::Error) -> bool {
        let (Some(topic), Some(partition)) = (error.topic(), error.partition()) else { return false };
        let mut found = false;
        for worker in self.running.values().filter(|w| *w.topic == *topic && w.partition == partition) {
            // One that is ending already says what there is to say.
            worker.order(Order::PositionLost);
            found = true;
        }
        found
    }

    fn order_all(&self, order: Order) {
        for worker in self.running.values() {
            worker.order(order);
        }
    }
}
