//! One partition's worker: ledger first, then records, then checkpoints.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill::{AssignedPartition, BeginAt, Delivery, PartitionStream, Token};
use gristmill_records::RawBatch;
use gristmill_sinks::{
    Checkpoint, LedgerCounters, NEW_COLUMN, PartitionId, PartitionSink, ROW_REFUSED, Stage,
};
use tokio::sync::{Semaphore, watch};

use crate::epochs;
use crate::error::{Error, ErrorKind};
use crate::exits::{self, Place};
use crate::group_offset;
use crate::metrics::{RejectLabels, TopicPartitionLabels};
use crate::replay;
use crate::shared::Shared;
use crate::stages::changes::Sequence;
use crate::stages::{Processed, StagePlan, Stages, Transformed};

/// What a worker is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read on.
    Run,
    /// Finish the open checkpoint, then end.
    Finish,
    /// The partition is someone else's: drop what is open, then end.
    Abandon,
    /// Kafka no longer has what comes next: finish what was read, then say what is gone.
    PositionLost,
}

/// The longest that a worker waits before it looks at the age of its open files again.
const TICK: Duration = Duration::from_millis(250);

/// How often in a row a partition's ledger is opened again while the store fails in passing, beyond the store's own
/// patience with each request.
const REOPENINGS: u32 = 10;
/// How long who has lost a partition goes on with what is under way.
const GRACE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs one partition until it is revoked, finished, or fails.
pub(crate) async fn run(
    assigned: AssignedPartition,
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
) -> Result<(), Error> {
    let (topic, partition) = (assigned.topic.clone(), assigned.partition);
    let metrics = shared.metrics.clone();
    let result = work(assigned, shared, orders).await.map_err(|e| e.of_partition(&topic, partition));
    // Whoever has it now says it.
    metrics.change_epoch.remove(&TopicPartitionLabels { topic: topic.to_string(), partition });
    result
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
    let range = match &shared.replay {
        None => None,
        Some(replay) => match replay.range(&assigned.topic, assigned.partition, topic_id)? {
            Some(range) => Some(range),
            // Assigned with its topic, and not part of the replay.
            None => return Ok(()),
        },
    };
    let start = match range {
        Some(range) => {
            shared.replay_is_whole(&assigned, &id).await?;
            range.first
        }
        None => shared.start_of(&assigned, &id).await?,
    };
    let mark = group_offset::mark(&id);
    let published = group_offset::published(assigned.group_offset, assigned.group_metadata.as_deref(), &id);
    let ledger = Opening { id: id.clone(), start, published };
    let mut patience = Patience::default();
    let Some((mut sink, next)) = patience.open(&shared, &ledger, &orders).await? else { return Ok(()) };
    sweep(&shared, sink.id());
    if let Some(range) = range.filter(|range| next < range.first) {
        let text = format!(
            "the ledger goes on at offset {next}, before the replay's range, which begins at {}: its folder was changed by hand; replay under another name",
            range.first
        );
        return Err(Error::new(ErrorKind::Sink, text));
    }
    if let Some(range) = range.filter(|range| next >= range.end) {
        // Not begun: retention may have taken the end since it was reached.
        return finish(&shared, &assigned.topic, assigned.partition, range.end).await;
    }
    let mut plans = shared.plan.clone();
    let plan = plans.borrow_and_update().clone();
    let mut stages = plan.open(&assigned.topic, assigned.partition)?;
    if let Some(by) = patience.number(&shared, &id, &orders).await? {
        number(&mut stages, &shared, by, &id);
    }
    sink.set_transform_digest(plan.digest());
    let assigned = assigned.commit_metadata(mark);
    let stream = match range {
        None => assigned.begin(begin_at(next)),
        // Never the earliest there is: that may have moved into the range.
        Some(range) => assigned.begin(BeginAt::Offset(next)).until(range.end),
    };
    let end = range.map(|range| range.end);
    let counted = LedgerCounters::default();
    let mut worker = Worker {
        shared,
        sink,
        plans,
        plan,
        stages,
        stream,
        topic_id,
        end,
        last: None,
        counted,
        published: 0,
        counted_partitions: Instant::now(),
    };
    worker.count_recovery();
    worker.came_to();
    loop {
        let published = worker.published;
        match worker.read(&mut orders).await {
            Err(error) if error.is_passing() => {
                if worker.published > published {
                    patience = Patience::default();
                }
                patience.wait(error, &id, &orders).await?;
                let opened = patience.open(&worker.shared, &ledger, &orders).await?;
                let Some((sink, next)) = opened else { return Ok(()) };
                // What was open is read again from where the ledger ends; staged files of it are left to the sweep.
                worker.go_on(sink, next);
                if let Some(by) = patience.number(&worker.shared, &id, &orders).await? {
                    number(&mut worker.stages, &worker.shared, by, &id);
                }
            }
            Err(error) => return Err(error),
            Ok(Ended::Finished) => return Ok(()),
            Ok(Ended::Abandoned) => return worker.abandon().await,
            Ok(Ended::PositionLost) => return worker.position_lost().await,
        }
    }
}

/// Why a worker stopped to read.
enum Ended {
    /// Everything is published that was to be.
    Finished,
    /// The partition is somebody else's.
    Abandoned,
    /// Kafka no longer has what comes next.
    PositionLost,
}

/// A ledger that is to be opened.
struct Opening {
    id: PartitionId,
    /// If there is none.
    start: i64,
    /// Up to which offset it was published, as the group knows.
    published: Option<i64>,
}

/// How long a store may fail in passing before the pipeline stops.
#[derive(Default)]
struct Patience {
    failures: u32,
}

impl Patience {
    /// Opens the ledger, again while that may help; `None` if the partition is somebody else's meanwhile.
    async fn open(
        &mut self,
        shared: &Shared,
        ledger: &Opening,
        orders: &watch::Receiver<Order>,
    ) -> Result<Option<(PartitionSink, i64)>, Error> {
        let Opening { id, start, published } = ledger;
        loop {
            let opened = tokio::select! {
                opened = PartitionSink::open_published(shared.sink.clone(), id.clone(), *start, *published) => opened,
                () = abandoned(orders) => return Ok(None),
            };
            match opened {
                Ok(opened) => return Ok(Some(opened)),
                Err(error) if error.kind() == gristmill_sinks::ErrorKind::Changed => {
                    return Err(shared.gone_stream(id, error).await);
                }
                Err(error) => {
                    let error = Error::sink(error);
                    if !error.is_passing() {
                        return Err(error);
                    }
                    self.wait(error, id, orders).await?;
                }
            }
        }
    }

    /// What changes are numbered by, asked for again while Kafka or the store fails in passing; `None` where they are not, or the
    /// partition is somebody else's meanwhile.
    async fn number(
        &mut self,
        shared: &Shared,
        id: &PartitionId,
        orders: &watch::Receiver<Order>,
    ) -> Result<Option<Sequence>, Error> {
        let Some(epochs) = &shared.epochs else { return Ok(None) };
        loop {
            let counted = tokio::select! {
                counted = epochs.of(id, true) => counted,
                () = abandoned(orders) => return Ok(None),
            };
            match counted {
                Ok(by) => return Ok(Some(by)),
                Err(error) if error.is_passing() => self.wait(error, id, orders).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits, or gives up with the error.
    async fn wait(
        &mut self,
        error: Error,
        id: &PartitionId,
        orders: &watch::Receiver<Order>,
    ) -> Result<(), Error> {
        self.failures += 1;
        if self.failures > REOPENINGS {
            return Err(error);
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1)).min(LONGEST_PAUSE);
        tracing::warn!(
            topic = id.topic, partition = id.partition, %error, ?pause,
            "the store or Kafka fails; nothing is lost, the partition goes on from its ledger"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = abandoned(orders) => {}
        }
        Ok(())
    }
}

/// Comes when the partition is somebody else's. Cancel safe.
async fn abandoned(orders: &watch::Receiver<Order>) {
    // On a receiver of its own: what comes meanwhile stays to be read.
    let _ = orders.clone().wait_for(|order| *order == Order::Abandon).await;
}

/// As [`abandoned`], when what is under way has had its time: a checkpoint that is nearly through is worth to the next
/// owner what it would have to read again, and the ledger arbitrates; a store that hangs is not waited for.
async fn long_abandoned(orders: &watch::Receiver<Order>) {
    abandoned(orders).await;
    tokio::time::sleep(GRACE).await;
}

/// Ends a partition of a replay: its range is published.
async fn finish(shared: &Shared, topic: &str, partition: i32, next: i64) -> Result<(), Error> {
    tracing::info!(%topic, partition, next, "finished the partition's range");
    match &shared.replay {
        Some(replay) => replay.finish(topic, partition).await,
        None => Ok(()),
    }
}

/// How many partitions are swept at a time: a member that is given a thousand must not flood the store.
static SWEEPS: Semaphore = Semaphore::const_new(4);

/// Deletes what a killed predecessor staged for ranges that are sealed by now, beside the work.
fn sweep(shared: &Shared, id: &PartitionId) {
    let (config, id) = (shared.sink.clone(), id.clone());
    tokio::spawn(async move {
        let _turn = SWEEPS.acquire().await;
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

/// Where a partition goes on after a checkpoint.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// Behind what was read.
    Here,
    /// Behind what another owner has sealed: what comes is read again from there.
    Elsewhere,
}

/// Whether there was another plan to take.
enum Taken {
    Nothing,
    Plan,
    /// Another owner has sealed: what comes is read again from there.
    Elsewhere,
}

struct Worker {
    shared: Arc<Shared>,
    sink: PartitionSink,
    /// Changes when a component is replaced, or columns come.
    plans: watch::Receiver<Arc<StagePlan>>,
    /// That of `stages`.
    plan: Arc<StagePlan>,
    stages: Stages,
    stream: PartitionStream,
    topic_id: [u8; 16],
    /// Where the replay of this partition ends; a live pipeline's never does.
    end: Option<i64>,
    /// The last delivery that the open checkpoint holds.
    last: Option<Token>,
    /// What of the ledger's counters is in the metrics already.
    counted: LedgerCounters,
    /// Checkpoints that were published.
    published: u64,
    /// When the topic's partitions were counted last.
    counted_partitions: Instant,
}

/// Has changes numbered so from now on.
fn number(stages: &mut Stages, shared: &Shared, by: Sequence, id: &PartitionId) {
    let labels = TopicPartitionLabels { topic: id.topic.clone(), partition: id.partition };
    let newest = by.epochs.last().map_or(0, |epoch| epoch.number);
    shared.metrics.change_epoch.get_or_create(&labels).set(i64::try_from(newest).unwrap_or(i64::MAX));
    stages.set_sequence(by);
}

impl Worker {
    /// Reads, writes and checkpoints until told otherwise.
    async fn read(&mut self, orders: &mut watch::Receiver<Order>) -> Result<Ended, Error> {
        // An order that a failure came between is read again.
        orders.mark_changed();
        loop {
            self.count_partitions().await?;
            if self.is_at_end() {
                self.checkpoint(false).await?;
                // Another owner may have sealed less than this one had read.
                if self.is_at_end() {
                    let next = self.sink.first();
                    finish(&self.shared, self.stream.topic(), self.stream.partition(), next).await?;
                    return Ok(Ended::Finished);
                }
            }
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    let order = if changed.is_ok() { *orders.borrow() } else { Order::Abandon };
                    match order {
                        Order::Run => {}
                        Order::Finish => {
                            self.checkpoint(false).await?;
                            return Ok(Ended::Finished);
                        }
                        Order::Abandon => return Ok(Ended::Abandoned),
                        Order::PositionLost => return Ok(Ended::PositionLost),
                    }
                }
                delivery = self.stream.next() => match delivery {
                    // A store that fails in passing may take minutes.
                    Some(delivery) => tokio::select! {
                        taken = self.take(delivery) => taken?,
                        () = long_abandoned(orders) => return Ok(Ended::Abandoned),
                    },
                    None => return Ok(Ended::Abandoned),
                },
                () = tokio::time::sleep(TICK) => {}
            }
            tokio::select! {
                done = self.go_with_plan() => { done?; }
                () = long_abandoned(orders) => return Ok(Ended::Abandoned),
            }
            if self.sink.due(Instant::now()) {
                tokio::select! {
                    done = self.checkpoint(false) => { done?; }
                    () = long_abandoned(orders) => return Ok(Ended::Abandoned),
                }
            }
        }
    }

    /// Changes that come after there are more partitions have other numbers.
    async fn count_partitions(&mut self) -> Result<(), Error> {
        match self.counted_partitions.elapsed() < epochs::LOOK_AGAIN {
            true => Ok(()),
            false => self.number_anew(false).await,
        }
    }

    /// So, too, where another owner was before.
    async fn number_anew(&mut self, takes_over: bool) -> Result<(), Error> {
        let Some(epochs) = &self.shared.epochs else { return Ok(()) };
        let by = epochs.of(self.sink.id(), takes_over).await?;
        number(&mut self.stages, &self.shared, by, self.sink.id());
        self.counted_partitions = Instant::now();
        Ok(())
    }

    /// Goes on with the components and columns that are there now.
    async fn go_with_plan(&mut self) -> Result<Taken, Error> {
        if !self.plans.has_changed().unwrap_or(false) {
            return Ok(Taken::Nothing);
        }
        let mut plan = self.plans.borrow_and_update().clone();
        // What the old component dropped must not be booked under the new one: no entry is of two.
        while plan.digest() != self.plan.digest() {
            if self.checkpoint(true).await? == Came::Elsewhere {
                self.plans.mark_changed();
                return Ok(Taken::Elsewhere);
            }
            // What has come meanwhile may be of the old one again.
            let newest = self.plans.borrow_and_update().clone();
            if Arc::ptr_eq(&plan, &newest) {
                break;
            }
            plan = newest;
        }
        let same_columns = plan.decoder == self.plan.decoder;
        let (topic, partition) = (self.stream.topic(), self.stream.partition());
        match tokio::task::block_in_place(|| plan.open(topic, partition)) {
            Ok(stages) => {
                self.stages.go_on_as(stages, same_columns);
                self.plan = plan;
                self.sink.set_transform_digest(self.plan.digest());
                Ok(Taken::Plan)
            }
            // The first partition's instance took what this one refuses.
            Err(error) if same_columns => {
                tracing::warn!(
                    %topic, partition, %error, "does not take the component that replaces the one at hand, which goes on"
                );
                Ok(Taken::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on from where the ledger ends, with a sink that was opened anew.
    fn go_on(&mut self, sink: PartitionSink, next: i64) {
        self.sink = sink;
        self.sink.set_transform_digest(self.plan.digest());
        self.counted = LedgerCounters::default();
        self.last = None;
        self.count_recovery();
        sweep(&self.shared, self.sink.id());
        // If the partition was revoked meanwhile, the stream has ended and says so next.
        self.stream.seek(self.seek_to(next));
        self.came_to();
    }

    fn seek_to(&self, next: i64) -> BeginAt {
        match self.end {
            // Never the earliest there is: that may have moved into the range of a replay.
            Some(_) => BeginAt::Offset(next),
            None => begin_at(next),
        }
    }

    async fn take(&mut self, delivery: Delivery) -> Result<(), Error> {
        let Delivery { batch, next, token } = delivery;
        let leader_epoch = batch.leader_epoch();
        if !batch.is_empty() {
            let records = batch.len() as u64;
            let bytes = batch.byte_size() as u64;
            let Some(transformed) = self.transform(&batch).await? else { return Ok(()) };
            self.shared.count_transforms(&transformed.reports);
            self.sink.originate(batch);
            let stages = &mut self.stages;
            let start = Instant::now();
            let processed = tokio::task::block_in_place(|| stages.decode(transformed))?;
            // Transforms of columns are counted by themselves.
            let transforms = processed.reports.iter().map(|report| report.stats.guest_time).sum();
            let decoding = start.elapsed().saturating_sub(transforms);
            self.shared.metrics.decode_seconds.inc_by(decoding.as_secs_f64());
            self.shared.count_transforms(&processed.reports);
            self.keep(records, processed).await?;
            self.shared.metrics.bytes_in.inc_by(bytes);
            self.shared.metrics.records_in.inc_by(records);
        }
        self.sink.advance(next, leader_epoch).map_err(Error::sink)?;
        self.last = Some(token);
        self.came_to();
        Ok(())
    }

    /// Runs the transforms of records and finds all that decoding needs; nothing if the batch is read again from elsewhere.
    async fn transform(&mut self, batch: &RawBatch) -> Result<Option<Transformed>, Error> {
        loop {
            // Guests and decoders take as long as their limits allow: not on the reactor's time.
            let stages = &mut self.stages;
            let transformed = tokio::task::block_in_place(|| stages.transform(batch.clone()))?;
            let mut found = Vec::new();
            for missing in self.stages.missing_schemas(&transformed) {
                // Without it the records that name it are rejected, each with the reason.
                if let Some(schema) = self.shared.writer_schema(missing).await? {
                    found.push((missing, schema));
                }
            }
            let shared = self.shared.clone();
            if let Some(follower) = &shared.follower {
                for (missing, _) in found.iter().filter(|(missing, _)| !missing.of_keys) {
                    if let Err(error) = follower.look(missing.id).await {
                        if !error.is_passing() {
                            // Whoever mends it finds all that was before delivered.
                            self.checkpoint(false).await?;
                        }
                        return Err(error);
                    }
                }
                match self.go_with_plan().await? {
                    Taken::Nothing => {}
                    Taken::Plan => continue,
                    Taken::Elsewhere => return Ok(None),
                }
            }
            found.iter().for_each(|(missing, schema)| self.stages.add_schema(*missing, schema));
            return Ok(Some(transformed));
        }
    }

    /// Whether everything of a replay's range was read.
    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.sink.position() >= end)
    }

    fn came_to(&self) {
        if let Some(replay) = &self.shared.replay {
            replay.came_to(self.stream.topic(), self.stream.partition(), self.sink.position());
        }
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

    async fn checkpoint(&mut self, even_empty: bool) -> Result<Came, Error> {
        if self.sink.position() > self.sink.first() {
            self.topic_is_the_same().await?;
        }
        let start = Instant::now();
        let outcome = match even_empty || self.is_at_end() {
            true => self.sink.checkpoint_in_any_case().await,
            false => self.sink.checkpoint().await,
        };
        let outcome = outcome.map_err(Error::sink)?;
        self.shared.metrics.checkpoint_seconds.inc_by(start.elapsed().as_secs_f64());
        self.count_recovery();
        match outcome {
            Checkpoint::Published(published) => {
                let m = &self.shared.metrics;
                m.checkpoints.inc();
                self.published += 1;
                m.rows_written.inc_by(published.rows);
                m.files.inc_by(published.files.len() as u64);
                m.file_bytes.inc_by(published.bytes);
                m.dead_letters.inc_by(published.rejects);
                // The sink's own; the others were counted as they came.
                for code in [ROW_REFUSED, NEW_COLUMN] {
                    if let Some(refused) = published.counts.rejected.get(code) {
                        let labels = RejectLabels { stage: "write", code: code.to_owned() };
                        m.records_rejected.get_or_create(&labels).inc_by(*refused);
                    }
                }
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
                self.number_anew(true).await?;
                // If the partition was revoked meanwhile, the stream has ended and says so next.
                self.stream.seek(self.seek_to(next));
                return Ok(Came::Elsewhere);
            }
            // Nothing to publish, and no position worth an entry yet.
            Checkpoint::Nothing => {}
        }
        Ok(Came::Here)
    }

    /// Offsets of a topic that was deleted and created again mean nothing in the ledger of the old one.
    async fn topic_is_the_same(&mut self) -> Result<(), Error> {
        let Some(now) = self.shared.topic_id_now(self.stream.topic()).await? else { return Ok(()) };
        if now == self.topic_id {
            return Ok(());
        }
        if self.shared.replay.is_some() {
            return Err(replay::created_again(self.stream.topic()));
        }
        Err(exits::created_again(Place::of(&self.shared.file, self.sink.id()), self.sink.first()))
    }

    /// Publishes what was read before the position was lost, so that nothing more is gone than has to be, and gives
    /// the error that says what is.
    async fn position_lost(mut self) -> Result<(), Error> {
        while let Ok(Some(delivery)) = tokio::time::timeout(TICK, self.stream.next()).await {
            self.take(delivery).await?;
        }
        self.checkpoint(false).await?;
        let at = Place::of(&self.shared.file, self.sink.id());
        let (earliest, end) = self.shared.watermarks(at.topic, at.partition).await?;
        // What is open beyond the last entry holds no row: it was too young to be sealed, and is read again.
        let next = self.sink.first();
        Err(match self.end {
            Some(until) => exits::replay_out_of_range(at, next, until, earliest, end),
            None => exits::out_of_range(at, next, earliest, end),
        })
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
