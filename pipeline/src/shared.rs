//! What the workers of a pipeline share.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gristmill::{AssignedPartition, Consumer, SchemaRegistry, SchemaType};
use gristmill_codec::SchemaId;
use gristmill_sinks::{LedgerEnd, PartitionId, SinkConfig};
use gristmill_smt::Level;
use tokio::sync::watch;

use crate::commands::Commands;
use crate::epochs::Epochs;
use crate::error::{Error, NO_REGISTRY};
use crate::exits::{self, Place};
use crate::follow::Follower;
use crate::group_offset::{Author, Span, Verdict, judge};
use crate::metrics::{GuestLabels, Metrics, TransformLabels, TransformRejectLabels, VerdictLabels};
use crate::prepare::{self, WriterSchema};
use crate::replay::Replay;
use crate::stages::{Missing, Report, StagePlan};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pipeline: String,
    /// The pipeline file, as the user named it.
    pub(crate) file: PathBuf,
    pub(crate) cluster: String,
    pub(crate) consumer: Consumer,
    /// As it is now: components may be replaced, columns come.
    pub(crate) plan: watch::Receiver<Arc<StagePlan>>,
    /// Of a pipeline whose columns are the registry's to say.
    pub(crate) follower: Option<Follower>,
    pub(crate) sink: SinkConfig,
    /// Of a pipeline that changes rows in place.
    pub(crate) epochs: Option<Epochs>,
    pub(crate) has_dead_letters: bool,
    pub(crate) registry: Option<SchemaRegistry>,
    /// The cluster tells no topic ids.
    pub(crate) names_for_ids: bool,
    /// The range that is replayed; none for a live pipeline.
    pub(crate) replay: Option<Arc<Replay>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) unknown_schemas: Mutex<HashSet<(SchemaId, &'static SchemaType)>>,
    pub(crate) codes: Mutex<HashSet<String>>,
}

/// How long a cluster that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long a schema that a record names may take to arrive at the registry that we ask.
const REGISTRY_LAG: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
const MAX_UNKNOWN: usize = 10_000;
const MAX_CODES: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The topic's id at the assignment; zeros where the cluster tells none.
    pub(crate) fn topic_id(&self, assigned: &AssignedPartition) -> [u8; 16] {
        assigned.topic_id.unwrap_or_default()
    }

    /// The topic's id now; `None` where the cluster tells none. A cluster that does not answer is asked again
    /// for a minute: brokers restart.
    pub(crate) async fn topic_id_now(&self, topic: &str) -> Result<Option<[u8; 16]>, Error> {
        if self.names_for_ids {
            return Ok(None);
        }
        let deadline = Instant::now() + ASK_AGAIN;
        loop {
            match self.consumer.topic_id(topic).await {
                Ok(id) => return Ok(Some(id)),
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tracing::warn!(%error, "asking again");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(Error::source(error)),
            }
        }
    }

    /// The earliest offset that a partition has, and the one after its last; asked for again as [`Self::topic_id_now`].
    pub(crate) async fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        let deadline = Instant::now() + ASK_AGAIN;
        loop {
            match self.consumer.watermarks(topic, partition).await {
                Ok(ends) => return Ok(ends),
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tracing::warn!(%error, "asking again");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(Error::source(error)),
            }
        }
    }

    /// Where the ledger of a partition starts if it has none, after a look at whether ledger and group agree.
    /// Nothing is created or published before that.
    ///
    /// A topic that was deleted and created again starts at its beginning, whatever the group has committed:
    /// that offset is the old topic's. Otherwise at the group's offset, or as the file says. 0 means the earliest
    /// record that there is.
    pub(crate) async fn start_of(
        &self,
        assigned: &AssignedPartition,
        id: &PartitionId,
    ) -> Result<i64, Error> {
        let at = Place::of(&self.file, id);
        let end = gristmill_sinks::ledger_end(&self.sink, id).await.map_err(Error::sink)?;
        let span = end.as_ref().map(Span::of);
        let recreated = span.is_none_or(|s| s.start == s.next) && self.was_created_again(id).await?;
        let author = Author::of(assigned.group_metadata.as_deref(), id);
        let committed = assigned.group_offset.map(|offset| (offset, author.clone()));
        let verdict = judge(span, committed, recreated);
        if let Some(stop) = exits::refusal(at, &verdict) {
            return Err(stop);
        }
        if verdict == Verdict::StartAtGroup {
            return Ok(assigned.start_offset().unwrap_or(0));
        }
        if let Some(end) = end {
            let ours = assigned.group_offset.filter(|_| author == Author::Ours);
            self.newest_files_are_there(at, &end, ours).await?;
        }
        Ok(0)
    }

    /// Refuses a replay whose ledger says more than its files can come to.
    pub(crate) async fn replay_is_whole(
        &self,
        assigned: &AssignedPartition,
        id: &PartitionId,
    ) -> Result<(), Error> {
        let end = gristmill_sinks::ledger_end(&self.sink, id).await.map_err(Error::sink)?;
        let Some(end) = end else { return Ok(()) };
        let is_ours = Author::of(assigned.group_metadata.as_deref(), id) == Author::Ours;
        let ours = assigned.group_offset.filter(|_| is_ours);
        self.newest_files_are_there(Place::of(&self.file, id), &end, ours).await
    }

    /// Whether the state store knows another topic of that name.
    async fn was_created_again(&self, id: &PartitionId) -> Result<bool, Error> {
        let known = gristmill_sinks::known_topic_ids(&self.sink, &id.topic).await.map_err(Error::sink)?;
        Ok(known.iter().any(|other| *other != id.topic_id))
    }

    /// A file of the newest entry that is gone was published and then deleted, or lost before. What we committed was
    /// published; for the rest, the order of publishing may prove a loss.
    async fn newest_files_are_there(
        &self,
        at: Place<'_>,
        end: &LedgerEnd,
        committed: Option<i64>,
    ) -> Result<(), Error> {
        let Some(tip) = end.tip.as_deref().filter(|tip| committed.is_none_or(|c| c < tip.next)) else {
            return Ok(());
        };
        let missing = gristmill_sinks::missing_files(&self.sink, tip).await.map_err(Error::sink)?;
        if let Some(file) = missing.lost.first() {
            let range = (tip.first, tip.next);
            return Err(match &self.replay {
                Some(_) => exits::replay_lost_file(range, file),
                None => exits::lost_file(at, range, file),
            });
        }
        let verify = Commands::of(at.file).verify(self.replay.as_ref().map(|replay| replay.name()));
        for file in &missing.gone {
            tracing::warn!(
                topic = at.topic,
                partition = at.partition,
                file = file.final_name,
                rows = file.rows,
                "a file of the newest ledger entry is gone: deleted after it was published, or lost before; \
                 `{verify}` lists all that are"
            );
        }
        Ok(())
    }

    /// Streams of the newest entry are gone, and nobody knows whether they were committed.
    pub(crate) async fn gone_stream(&self, id: &PartitionId, error: gristmill_sinks::Error) -> Error {
        let end = gristmill_sinks::ledger_end(&self.sink, id).await.ok().flatten();
        match end.and_then(|end| end.tip) {
            Some(tip) if self.replay.is_none() => {
                exits::gone_stream(Place::of(&self.file, id), (tip.first, tip.next), &error)
            }
            _ => Error::sink(error),
        }
    }

    /// The schema that records were written with; `None` if there is none that can be used. One that the
    /// registry does not know is asked for a little longer: its replicas lag.
    pub(crate) async fn writer_schema(&self, missing: Missing) -> Result<Option<String>, Error> {
        let Missing { id, language, .. } = missing;
        let registry = self.registry.as_ref().ok_or_else(|| Error::config(NO_REGISTRY))?;
        if lock(&self.unknown_schemas).contains(&(id, language)) {
            return Ok(None);
        }
        let deadline = Instant::now() + REGISTRY_LAG;
        loop {
            match prepare::writer_schema(registry, id, language).await? {
                WriterSchema::Known(schema) => return Ok(Some(schema)),
                WriterSchema::Unknown if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                WriterSchema::Unknown | WriterSchema::Unusable => {
                    let mut unknown = lock(&self.unknown_schemas);
                    if unknown.len() >= MAX_UNKNOWN {
                        unknown.clear();
                    }
                    unknown.insert((id, language));
                    return Ok(None);
                }
            }
        }
    }

    /// Codes come from guests: beyond a number of different ones they are counted as `other`.
    pub(crate) fn bounded_code(&self, code: &str) -> String {
        let mut codes = lock(&self.codes);
        if codes.contains(code) || codes.len() < MAX_CODES {
            codes.insert(code.to_owned());
            return code.to_owned();
        }
        "other".to_owned()
    }

    /// Counts what a batch cost, and passes on what the transforms logged and counted.
    pub(crate) fn count_transforms(&self, reports: &[Report]) {
        let m = &self.metrics;
        for report in reports {
            let transform = &report.transform;
            let of = TransformLabels { transform: transform.clone() };
            m.transform_seconds.get_or_create(&of).inc_by(report.stats.guest_time.as_secs_f64());
            m.transforms_seconds.inc_by(report.stats.guest_time.as_secs_f64());
            m.transform_calls.get_or_create(&of).inc_by(report.stats.calls);
            m.transform_failures.get_or_create(&of).inc_by(report.stats.failed_calls);
            let memory = i64::try_from(report.stats.memory).unwrap_or(i64::MAX);
            let most = m.transform_memory.get_or_create(&of);
            if memory > most.get() {
                most.set(memory);
            }
            let verdicts = [
                ("kept", report.kept),
                ("dropped", report.dropped),
                ("emitted", report.emitted),
                ("rejected", report.rejects.values().sum::<u64>() as usize),
                ("passed_by", report.passed_by),
            ];
            for (verdict, records) in verdicts.into_iter().filter(|(_, records)| *records > 0) {
                let labels = VerdictLabels { transform: transform.clone(), verdict };
                m.transform_records.get_or_create(&labels).inc_by(records as u64);
            }
            for (code, records) in &report.rejects {
                let code = self.bounded_code(code);
                let labels = TransformRejectLabels { transform: transform.clone(), code };
                m.transform_rejects.get_or_create(&labels).inc_by(*records);
            }
            for (name, observed) in &report.metrics.histograms {
                m.guest_histograms.add(transform, name, observed);
            }
            for (name, by) in &report.metrics.counters {
                let labels = GuestLabels { transform: transform.clone(), name: name.clone() };
                m.guest.get_or_create(&labels).inc_by(*by);
            }
            for line in &report.logs {
                let message = &line.message;
                match line.level {
                    Level::Trace => tracing::trace!(target: "transform", %transform, "{message}"),
                    Level::Debug => tracing::debug!(target: "transform", %transform, "{message}"),
                    Level::Info => tracing::info!(target: "transform", %transform, "{message}"),
                    Level::Warn => tracing::warn!(target: "transform", %transform, "{message}"),
                    Level::Error => tracing::error!(target: "transform", %transform, "{message}"),
                }
            }
            for warning in &report.warnings {
                tracing::warn!(%transform, %warning, "the transform");
            }
        }
    }
}
