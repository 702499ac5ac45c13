//! One partition's worker: ledger first, then records, then checkpoints.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill::{AssignedPartition, BeginAt, Delivery, PartitionStream, Token};
use gristmill_sinks::{Checkpoint, LedgerCounters, PartitionId, PartitionSink, Stage};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::metrics::RejectLabels;
use crate::shared::Shared;
use crate::stages::{Processed, Stages};

/// What a worker is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read on.
    Run,
    /// Finish the open checkpoint, then end.
    Finish,
    /// The partition is someone else's: drop what is open, then end.
    Abandon,
}

/// The longest that a worker waits before it looks at the age of its open files again.
const TICK: Duration = Duration::from_millis(250);

/// Runs one partition until it is revoked, finished, or fails.
pub(crate) async fn run(
    assigned: AssignedPartition,
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
) -> Result<(), Error> {
    let (topic, partition) = (assigned.topic.clone(), assigned.partition);
    work(assigned, shared, orders).await.map_err(|e| e.of_partition(&topic, partition))
}

async fn work(
    assigned: AssignedPartition,
    shared: Arc<Shared>,
    mut orders: watch::Receiver<Order>,
) -> Result<(), Error> {
    let topic_id = shared.topic_id(&assigned);
    let id = PartitionId {
        pipeline: shared.pipeline.clone(),
        cluster: shared.cluster.clone(),
        topic: assigned.topic.to_string(),
        topic_id,
        partition: assigned.partition,
    };
    let start = shared.start_of(&assigned, topic_id).await?;
    let (sink, next) = PartitionSink::open(shared.sink.clone(), id, start).await.map_err(Error::sink)?;
    sweep(&shared, sink.id());
    let stages = shared.plan.open(&assigned.topic, assigned.partition)?;
    let stream = assigned.begin(begin_at(next));
    let mut worker =
        Worker { shared, sink, stages, stream, topic_id, last: None, counted: LedgerCounters::default() };
    worker.count_recovery();
    loop {
        tokio::select! {
            biased;
            changed = orders.changed() => {
                let order = if changed.is_ok() { *orders.borrow() } else { Order::Abandon };
                match order {
                    Order::Run => {}
                    Order::Finish => return worker.checkpoint().await,
                    Order::Abandon => return worker.abandon().await,
                }
            }
            delivery = worker.stream.next() => match delivery {
                Some(delivery) => worker.take(delivery).await?,
                None => return worker.abandon().await,
            },
            () = tokio::time::sleep(TICK) => {}
        }
        if worker.sink.due(Instant::now()) {
            worker.checkpoint().await?;
        }
    }
}

/// Deletes what a killed predecessor staged for ranges that are sealed by now, beside the work.
fn sweep(shared: &Shared, id: &PartitionId) {
    let (config, id) = (shared.sink.clone(), id.clone());
    tokio::spawn(async move {
        match gristmill_sinks::sweep_orphans(&config, &id).await {
            Ok(report) => {
                tracing::debug!(topic = id.topic, partition = id.partition, deleted = report.deleted, "swept")
            }
            Err(error) => {
                tracing::warn!(%error, "staged objects of a predecessor are left for the next start")
            }
        }
    });
}

/// A ledger that starts at 0 may start before the partition's first record.
fn begin_at(next: i64) -> BeginAt {
    if next == 0 { BeginAt::Earliest } else { BeginAt::Offset(next) }
}

struct Worker {
    shared: Arc<Shared>,
    sink: PartitionSink,
    stages: Stages,
    stream: PartitionStream,
    topic_id: [u8; 16],
    /// The last delivery that the open checkpoint holds.
    last: Option<Token>,
    /// What of the ledger's counters is in the metrics already.
    counted: LedgerCounters,
}

impl Worker {
    async fn take(&mut self, delivery: Delivery) -> Result<(), Error> {
        let Delivery { batch, next, token } = delivery;
        let leader_epoch = batch.leader_epoch();
        if !batch.is_empty() {
            let records = batch.len() as u64;
            let bytes = batch.byte_size() as u64;
            // Guests and decoders take as long as their limits allow: not on the reactor's time.
            let stages = &mut self.stages;
            let transformed = tokio::task::block_in_place(|| stages.transform(batch))?;
            if let Some(applied) = transformed.applied() {
                self.shared.count_transform(applied);
            }
            for id in self.stages.missing_schemas(&transformed) {
                // Without it the records that name it are rejected, each with the reason.
                if let Some(schema) = self.shared.writer_schema(id).await? {
                    self.stages.add_schema(id, &schema);
                }
            }
            let stages = &mut self.stages;
            let start = Instant::now();
            let processed = tokio::task::block_in_place(|| stages.decode(&transformed))?;
            self.shared.metrics.decode_seconds.inc_by(start.elapsed().as_secs_f64());
            self.keep(records, processed).await?;
            self.shared.metrics.bytes_in.inc_by(bytes);
            self.shared.metrics.records_in.inc_by(records);
        }
        self.sink.advance(next, leader_epoch).map_err(Error::sink)?;
        self.last = Some(token);
        Ok(())
    }

    /// Gives rows and rejects to the sink.
    async fn keep(&mut self, records: u64, processed: Processed) -> Result<(), Error> {
        let metrics = &self.shared.metrics;
        self.sink.tally(records, processed.dropped);
        metrics.records_dropped.inc_by(processed.dropped);
        let start = Instant::now();
        for part in &processed.outputs {
            self.sink.append(&part.output, &part.rows, &part.coords).await.map_err(Error::sink)?;
        }
        metrics.write_seconds.inc_by(start.elapsed().as_secs_f64());
        for reject in processed.rejects {
            let stage = match reject.stage {
                Stage::Transform => "transform",
                Stage::Write => "write",
                _ => "decode",
            };
            let labels = RejectLabels { stage, code: self.shared.bounded_code(&reject.code) };
            metrics.records_rejected.get_or_create(&labels).inc();
            if !self.shared.has_dead_letters {
                let (offset, code, message) = (reject.offset, reject.code, reject.message);
                return Err(Error::new(
                    ErrorKind::DeadLetter,
                    format!(
                        "the record at offset {offset} is rejected ({code}: {message}) and the pipeline has no `dead_letters`; add them to set such records aside, or mend the transform; everything before offset {} is published",
                        self.sink.first()
                    ),
                ));
            }
            self.sink.reject(reject).map_err(Error::sink)?;
        }
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<(), Error> {
        if self.sink.position() > self.sink.first() {
            self.topic_is_the_same().await?;
        }
        let start = Instant::now();
        let outcome = self.sink.checkpoint().await.map_err(Error::sink)?;
        self.shared.metrics.checkpoint_seconds.inc_by(start.elapsed().as_secs_f64());
        self.count_recovery();
        match outcome {
            Checkpoint::Published(published) => {
                let m = &self.shared.metrics;
                m.checkpoints.inc();
                m.rows_written.inc_by(published.rows);
                m.files.inc_by(published.files.len() as u64);
                m.file_bytes.inc_by(published.bytes);
                m.dead_letters.inc_by(published.rejects);
                tracing::debug!(
                    "published partition={} first={} next={} rows={}",
                    self.stream.partition(),
                    published.first,
                    published.next,
                    published.rows
                );
                if let Some(token) = self.last.take() {
                    self.stream.complete_through(&token);
                }
            }
            Checkpoint::Adopted { next } => {
                self.last = None;
                // If the partition was revoked meanwhile, the stream has ended and says so next.
                self.stream.seek(begin_at(next));
            }
            // Nothing to publish, and no position worth an entry yet.
            Checkpoint::Nothing => {}
        }
        Ok(())
    }

    /// Offsets of a topic that was deleted and created again mean nothing in the ledger of the old one.
    async fn topic_is_the_same(&mut self) -> Result<(), Error> {
        let Some(now) = self.shared.topic_id_now(self.stream.topic()).await? else { return Ok(()) };
        if now == self.topic_id {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Source,
            format!(
                "the topic was deleted and created again while it was read; what was read of the old one from offset {} on was not written. Start the pipeline again: the new topic has a ledger of its own and is read from its beginning",
                self.sink.first()
            ),
        ))
    }

    async fn abandon(self) -> Result<(), Error> {
        self.sink.abandon().await;
        Ok(())
    }

    fn count_recovery(&mut self) {
        let (now, before) = (self.sink.counters(), std::mem::take(&mut self.counted));
        let m = &self.shared.metrics;
        let (topic, partition) = (self.stream.topic(), self.stream.partition());
        let note = |what: &str, new: u64| {
            if new > 0 {
                tracing::info!(%topic, partition, next = self.sink.first(), "{what}");
            }
            new
        };
        m.entries_adopted.inc_by(note("adopted an entry of another owner", now.adopted - before.adopted));
        m.entries_republished
            .inc_by(note("published an entry of a predecessor", now.republished - before.republished));
        m.entries_recognised.inc_by(note(
            "recognised an entry as our own after a lost reply",
            now.recognised_own - before.recognised_own,
        ));
        self.counted = now;
    }
}
