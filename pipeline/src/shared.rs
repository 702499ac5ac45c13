//! What the workers of a pipeline share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gristmill::{AssignedPartition, Consumer, SchemaRegistry};
use gristmill_sinks::SinkConfig;
use gristmill_smt::{Applied, Level};

use crate::error::Error;
use crate::metrics::{GuestLabels, Metrics};
use crate::prepare;
use crate::replay::Replay;
use crate::stages::StagePlan;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pipeline: String,
    pub(crate) cluster: String,
    pub(crate) consumer: Consumer,
    pub(crate) plan: StagePlan,
    pub(crate) sink: SinkConfig,
    pub(crate) has_dead_letters: bool,
    pub(crate) registry: Option<SchemaRegistry>,
    /// The cluster tells no topic ids.
    pub(crate) names_for_ids: bool,
    /// The range that is replayed; none for a live pipeline.
    pub(crate) replay: Option<Arc<Replay>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) unknown_schemas: Mutex<HashSet<u32>>,
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

    /// Where the ledger of a partition starts that has none.
    ///
    /// A topic that was deleted and created again starts at its beginning, whatever the group has committed:
    /// that offset is the old topic's. Otherwise at the group's offset, or as the file says. 0 means the earliest
    /// record that there is.
    pub(crate) async fn start_of(&self, assigned: &AssignedPartition, id: [u8; 16]) -> Result<i64, Error> {
        let known =
            gristmill_sinks::known_topic_ids(&self.sink, &assigned.topic).await.map_err(Error::sink)?;
        if known.iter().any(|other| *other != id) {
            return Ok(0);
        }
        Ok(assigned.start_offset().unwrap_or(0))
    }

    /// The schema that records were written with; `None` if there is none that can be used. One that the
    /// registry does not know is asked for a little longer: its replicas lag.
    pub(crate) async fn writer_schema(&self, id: u32) -> Result<Option<String>, Error> {
        let registry = self.registry.as_ref().expect("a file with `format: avro` has a registry");
        if lock(&self.unknown_schemas).contains(&id) {
            return Ok(None);
        }
        let deadline = Instant::now() + REGISTRY_LAG;
        loop {
            match prepare::writer_schema(registry, id).await? {
                Some(schema) => return Ok(Some(schema)),
                None if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                None => {
                    let mut unknown = lock(&self.unknown_schemas);
                    if unknown.len() >= MAX_UNKNOWN {
                        unknown.clear();
                    }
                    unknown.insert(id);
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

    /// Counts what a batch cost, and passes on what the transform logged and counted.
    pub(crate) fn count_transform(&self, applied: &Applied) {
        let (m, stats) = (&self.metrics, applied.stats());
        m.transform_seconds.inc_by(stats.guest_time.as_secs_f64());
        m.transform_calls.inc_by(stats.calls);
        m.transform_failures.inc_by(stats.failed_calls);
        for (name, by) in &applied.metrics().counters {
            m.guest.get_or_create(&GuestLabels { name: name.clone() }).inc_by(*by);
        }
        for line in applied.logs() {
            let message = &line.message;
            match line.level {
                Level::Trace => tracing::trace!(target: "transform", "{message}"),
                Level::Debug => tracing::debug!(target: "transform", "{message}"),
                Level::Info => tracing::info!(target: "transform", "{message}"),
                Level::Warn => tracing::warn!(target: "transform", "{message}"),
                Level::Error => tracing::error!(target: "transform", "{message}"),
            }
        }
        for warning in applied.warnings() {
            tracing::warn!(%warning, "the transform");
        }
    }
}
