//! Components that are replaced while the pipeline runs.
//!
//! **Guarantee.** A partition takes a new component between two checkpoints, so that every ledger entry, and every file, is of
//! the components whose digests it names. What is not taken changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, MutexGuard, watch};

use crate::error::Error;
use crate::metrics::{Metrics, ReloadLabels};
use crate::prepare::Loader;
use crate::stages::{StagePlan, TransformPlan, rows_schema};

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// What tells one file from another that has its name.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(SystemTime, u64);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp(found.modified().ok()?, found.len()))
    }
}

/// A component that may be replaced.
#[derive(Debug)]
struct Watched {
    /// Its transform's place in the list.
    number: usize,
    path: PathBuf,
    seen: Option<Stamp>,
}

/// The plan as it is now, for all partitions. One at a time changes it.
#[derive(Debug)]
pub(crate) struct Plans(Mutex<watch::Sender<Arc<StagePlan>>>);

impl Plans {
    pub(crate) fn new(plan: StagePlan) -> (Self, watch::Receiver<Arc<StagePlan>>) {
        let (sender, receiver) = watch::channel(Arc::new(plan));
        (Plans(Mutex::new(sender)), receiver)
    }

    pub(crate) async fn change(&self) -> MutexGuard<'_, watch::Sender<Arc<StagePlan>>> {
        self.0.lock().await
    }
}

/// Looks for replaced components until it is dropped; sends the plan with each that fits.
pub(crate) async fn watch(loader: Loader, plans: Arc<Plans>, metrics: Arc<Metrics>) {
    let count = plans.change().await.borrow().transforms.len();
    let mut watched: Vec<Watched> = (0..count)
        .filter_map(|number| {
            let path = loader.replaceable(number)?;
            // Looked at once in any case: it may have been replaced after it was loaded.
            Some(Watched { number, path, seen: None })
        })
        .collect();
    if watched.is_empty() {
        return;
    }
    let loader = Arc::new(loader);
    loop {
        tokio::time::sleep(INTERVAL).await;
        for file in &mut watched {
            let stamp = Stamp::of(&file.path);
            if stamp.is_none() || stamp == file.seen {
                continue;
            }
            // Before it is read: what is written to it meanwhile is seen the next time.
            file.seen = stamp;
            let plans = plans.change().await;
            let (number, plan, loader) = (file.number, plans.borrow().clone(), loader.clone());
            let before = plan.transforms[number].transform.manifest().name.clone();
            let looked = tokio::task::spawn_blocking(move || replaced(&loader, &plan, number)).await;
            let result = match looked {
                Ok(Ok(None)) => continue,
                Ok(Ok(Some(plan))) => {
                    let transform = &plan.transforms[number].transform;
                    tracing::info!(
                        transform = before,
                        sha256 = transform.digest(),
                        version = transform.manifest().version,
                        "takes the component that replaces the one at hand"
                    );
                    plans.send_replace(Arc::new(plan));
                    "taken"
                }
                Ok(Err(error)) => {
                    tracing::warn!(
                        transform = before, %error,
                        "does not take the component that replaces the one at hand, which goes on"
                    );
                    "refused"
                }
                Err(error) => {
                    tracing::warn!(transform = before, %error, "a replaced component was not looked at");
                    "refused"
                }
            };
            metrics.reloads.get_or_create(&ReloadLabels { transform: before, result }).inc();
        }
    }
}

/// The plan with the component that is there now; none if it is the same.
fn replaced(loader: &Loader, plan: &StagePlan, number: usize) -> Result<Option<StagePlan>, Error> {
    let (old, new) = (&plan.transforms[number], loader.one(number)?);
    if old.transform.digest() == new.transform.digest() {
        return Ok(None);
    }
    fits(old, &new)?;
    let mut plan = plan.clone();
    plan.transforms[number] = new;
    let rows = rows_schema(&plan.decoder, plan.changes.as_ref())?;
    let columns = loader.columns_after(&plan.transforms, rows)?;
    if columns.fields() != plan.schema.fields() {
        let first =
            columns.fields().iter().find(|field| !plan.schema.fields().iter().any(|old| old == *field));
        let what = first.map_or_else(
            || "leaves columns out".to_owned(),
            |field| format!("makes a column {} of {}", field.name(), field.data_type()),
        );
        return Err(Error::config(format!(
            "it {what}, the files have others: restart the pipeline to take it"
        )));
    }
    Ok(Some(plan))
}

fn fits(old: &TransformPlan, new: &TransformPlan) -> Result<(), Error> {
    let (was, is) = (old.transform.manifest(), new.transform.manifest());
    if was.name != is.name {
        return Err(Error::config(format!("it is {}, and not another version of {}", is.name, was.name)));
    }
    if old.transform.kind() != new.transform.kind() {
        let (was, is) = (old.transform.kind(), new.transform.kind());
        return Err(Error::config(format!(
            "it works on {is}, not on {was}: restart the pipeline to take it"
        )));
    }
    let names = |manifest: &gristmill_smt::Manifest| -> Vec<String> {
        manifest.outputs.iter().map(|output| output.name.clone()).collect()
    };
    if names(was) != names(is) {
        return Err(Error::config(format!(
            "its outputs are [{}], they were [{}]: restart the pipeline to take it",
            names(is).join(", "),
            names(was).join(", ")
        )));
    }
    Ok(())
}
