//! Columns that change while the pipeline runs.
//!
//! **Guarantee.** Who meets records of a schema that this process did not see before goes on, from those records on, with the
//! columns that a start would have now: rows have no column less for having come after the start. But for a schema that cannot
//! read what the one at hand does: that is left to a restart, and its records are dead letters.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill::SchemaRegistry;
use gristmill_codec::SchemaId;
use gristmill_sinks::BigQueryStore;
use tokio::sync::Mutex;

use crate::check::Checked;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::prepare;
use crate::reload::Plans;

/// How long a subject's newest schema may take to arrive at the registry's node that is asked, once another has told it.
const LAG: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

/// Ids of schemas that were looked at; beyond it they are looked at again.
const MAX_IDS: usize = 10_000;

/// Takes the columns of the registry's latest schema.
#[derive(Debug)]
pub(crate) struct Follower {
    checked: Checked,
    registry: SchemaRegistry,
    /// Those that have to have the columns before the first row.
    tables: Option<Arc<BigQueryStore>>,
    plans: Arc<Plans>,
    metrics: Arc<Metrics>,
    looked: Mutex<HashSet<SchemaId>>,
}

impl Follower {
    /// None where the columns are not the registry's to say.
    pub(crate) fn new(
        checked: Checked,
        registry: Option<SchemaRegistry>,
        tables: Option<Arc<BigQueryStore>>,
        plans: Arc<Plans>,
        metrics: Arc<Metrics>,
    ) -> Option<Self> {
        let registry = registry.filter(|_| prepare::registry_says_columns(&checked))?;
        Some(Follower { checked, registry, tables, plans, metrics, looked: Mutex::default() })
    }

    /// Sends a plan with other columns, if a schema that records name, and that the registry knows, has come with them; tables have
    /// them then.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// What a start would say of those columns.
    pub(crate) async fn look(&self, id: SchemaId) -> Result<(), Error> {
        let mut looked = self.looked.lock().await;
        if looked.contains(&id) {
            return Ok(());
        }
        let plans = self.plans.change().await;
        let before = plans.borrow().clone();
        let end = Instant::now() + LAG;
        let written = match id {
            SchemaId::Id(_) => None,
            // It was asked for already, to read by.
            SchemaId::Guid(_) => self.registry.schema_by_guid(&id.to_string()).await.ok(),
        };
        let plan = loop {
            let (plan, latest) = prepare::plan_now(&self.checked, &self.registry, &before).await?;
            // Ids rise: one that is newer than the latest schema's is of a replica that knows more.
            let is_known = match id {
                SchemaId::Id(id) => latest.id >= id,
                SchemaId::Guid(_) => written.as_ref().is_some_and(|written| written.text == latest.text),
            };
            if plan.is_some() || is_known || Instant::now() >= end {
                break plan;
            }
            tokio::time::sleep(PAUSE).await;
        };
        if let Some(plan) = plan {
            if let Some(tables) = &self.tables {
                prepare::ready_tables(&self.checked, tables, &plan).await?;
            }
            tracing::info!(
                schema = %id,
                added = names(&plan.schema, &before.schema),
                gone = names(&before.schema, &plan.schema),
                "goes on with the columns of the latest schema"
            );
            self.metrics.column_changes.inc();
            plans.send_replace(Arc::new(plan));
        }
        if looked.len() >= MAX_IDS {
            looked.clear();
        }
        looked.insert(id);
        Ok(())
    }
}

/// Of the columns of one schema those that another has not.
fn names(of: &arrow_schema::Schema, without: &arrow_schema::Schema) -> String {
    let names = of.fields().iter().filter(|field| without.field_with_name(field.name()).is_err());
    names.map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}
