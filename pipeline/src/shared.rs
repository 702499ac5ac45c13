//! What the workers of a pipeline share.

use std::sync::Arc;

use gristmill::{AssignedPartition, Consumer, SchemaRegistry};
use gristmill_sinks::SinkConfig;
use gristmill_smt::{Applied, Level};

use crate::error::Error;
use crate::metrics::{GuestLabels, Metrics};
use crate::prepare;
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
    pub(crate) metrics: Arc<Metrics>,
}

impl Shared {
    /// The topic's id at the assignment; zeros where the cluster tells none.
    pub(crate) fn topic_id(&self, assigned: &AssignedPartition) -> [u8; 16] {
        assigned.topic_id.unwrap_or_default()
    }

    /// The topic's id now; `None` where the cluster tells none.
    pub(crate) async fn topic_id_now(&self, topic: &str) -> Result<Option<[u8; 16]>, Error> {
        if self.names_for_ids {
            return Ok(None);
        }
        self.consumer.topic_id(topic).await.map(Some).map_err(Error::source)
    }

    /// The schema that records were written with.
    pub(crate) async fn writer_schema(&self, id: u32) -> Result<String, Error> {
        let registry = self.registry.as_ref().expect("a file with `format: avro` has a registry");
        prepare::writer_schema(registry, id).await
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
