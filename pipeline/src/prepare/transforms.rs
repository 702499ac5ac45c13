//! The components of a file, loaded and bound.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use gristmill_smt::{Kind, Runtime, RuntimeConfig, Stream, Transform};

use super::{MAX_COMPONENT, is_cdc, read_bounded};
use crate::check::Checked;
use crate::error::Error;
use crate::file::TransformStep;
use crate::predicate::Of;
use crate::stages::{TransformPlan, kafka_column_of_its_own};

/// Whether transforms of columns can be given changes.
pub(super) fn fit_for_changes(checked: &Checked, transforms: &[TransformPlan]) -> Result<(), Error> {
    if !is_cdc(checked) {
        return Ok(());
    }
    for (i, plan) in transforms.iter().enumerate().filter(|(_, plan)| plan.transform.kind() == Kind::Columns)
    {
        let why = match (&plan.when, plan.transform.manifest().outputs.is_empty()) {
            (Some(_), _) => "`when` asks columns of which a deletion tells the key alone",
            (None, false) => "it routes rows to other outputs, and a deletion tells the key alone",
            (None, true) => continue,
        };
        let text =
            format!("with `mode: cdc` a transform of columns is given every row and gives one for it: {why}");
        return Err(checked.mistake(&step(i, ""), text));
    }
    Ok(())
}

/// The first partition of the first topic: what it is told, the others are.
fn first_stream(checked: &Checked) -> Stream {
    Stream { topic: checked.pipeline.source.kafka.topics[0].clone(), partition: 0 }
}

/// Instances in a process: one for each transform and partition. They are address space until they are used.
const MAX_INSTANCES: u32 = 1024;

/// Loads the components of a file's transforms.
#[derive(Debug)]
pub(crate) struct Loader {
    checked: Checked,
    /// None where there is no transform.
    runtime: Option<Runtime>,
}

impl Loader {
    pub(crate) fn new(checked: &Checked) -> Result<Self, Error> {
        let mut config = RuntimeConfig::new().with_max_instances(MAX_INSTANCES);
        if let Some(folder) = RuntimeConfig::default_cache_dir() {
            config = config.with_cache_dir(folder);
        }
        let is_needed = !checked.pipeline.transforms.is_empty();
        let runtime = is_needed.then(|| Runtime::new(config).map_err(Error::transform)).transpose()?;
        Ok(Loader { checked: checked.clone(), runtime })
    }

    pub(crate) fn checked(&self) -> &Checked {
        &self.checked
    }

    pub(crate) fn all(&self) -> Result<Vec<TransformPlan>, Error> {
        let mut plans: Vec<TransformPlan> = Vec::new();
        for i in 0..self.checked.pipeline.transforms.len() {
            let plan = self.one(i)?;
            let before = plans.last().map(|before| before.transform.kind());
            if plan.transform.kind() == Kind::Records && before == Some(Kind::Columns) {
                let text = format!(
                    "{} works on records, which are columns once transforms[{}] was there: put transforms of records before those \
                     of columns",
                    plan.transform.manifest().name,
                    i - 1
                );
                return Err(self.checked.mistake(&step(i, ""), text));
            }
            plans.push(plan);
        }
        Ok(plans)
    }

    /// One of them. What can be said of it before its columns are known is said now, not at the first partition.
    pub(crate) fn one(&self, i: usize) -> Result<TransformPlan, Error> {
        let (checked, of_file) = (&self.checked, &self.checked.pipeline.transforms[i]);
        let runtime = self.runtime.as_ref().expect("there is a transform");
        let transform = load(checked, runtime, i, of_file)?;
        let config = serde_json::Value::Object(of_file.config.clone());
        let config = crate::secret::resolve_in(&config, &checked.base)
            .map_err(|e| checked.mistake(&step(i, "/config"), e))?;
        let config = Arc::new(config);
        let plan = TransformPlan { transform, config, when: of_file.when.clone() };
        if plan.transform.kind() == Kind::Records {
            let stream = first_stream(checked);
            plan.transform
                .instantiate(&stream, &plan.config)
                .map_err(|e| refused(checked, &step(i, "/config"), e))?;
            plan.predicate(&stream.topic, Of::Records).map_err(|e| checked.mistake(&step(i, "/when"), e))?;
        }
        Ok(plan)
    }

    /// The columns of the rows that leave the transforms, of those that are decoded.
    pub(crate) fn columns_after(
        &self,
        transforms: &[TransformPlan],
        decoded: SchemaRef,
    ) -> Result<SchemaRef, Error> {
        columns_after(&self.checked, transforms, decoded)
    }

    /// The file of a component that may be replaced.
    pub(crate) fn replaceable(&self, i: usize) -> Option<PathBuf> {
        let step = self.checked.pipeline.transforms.get(i)?;
        step.reload.then(|| self.checked.path(&step.wasm))
    }
}

/// The columns of the rows that leave the transforms, of those that are decoded.
pub(super) fn columns_after(
    checked: &Checked,
    transforms: &[TransformPlan],
    decoded: SchemaRef,
) -> Result<SchemaRef, Error> {
    let mut schema = decoded;
    for (i, plan) in transforms.iter().enumerate().filter(|(_, plan)| plan.transform.kind() == Kind::Columns)
    {
        plan.predicate(&first_stream(checked).topic, Of::Columns(&schema))
            .map_err(|e| checked.mistake(&step(i, "/when"), e))?;
        let bound = plan.bind(&first_stream(checked), &schema);
        let bound = bound.map_err(|e| refused(checked, &step(i, ""), e))?;
        let output = plan.output(&bound);
        if let Some(name) = kafka_column_of_its_own(&schema, &output) {
            let text = format!("it makes a column {name}, which is Gristmill's own: give it another name");
            return Err(checked.mistake(&step(i, ""), text));
        }
        schema = output;
    }
    Ok(schema)
}

/// An error of the runtime before the first record: most are a mistake in the file or in what it names.
fn refused(checked: &Checked, pointer: &str, error: gristmill_smt::Error) -> Error {
    match error.kind() {
        gristmill_smt::ErrorKind::Host => Error::transform(error),
        _ => checked.mistake(pointer, error),
    }
}

/// Where a transform is in the file, or what of it.
fn step(i: usize, of: &str) -> String {
    format!("/transforms/{i}{of}")
}

fn load(checked: &Checked, runtime: &Runtime, i: usize, of_file: &TransformStep) -> Result<Transform, Error> {
    let path = checked.path(&of_file.wasm);
    let bytes = read_bounded(&path, MAX_COMPONENT)?;
    let transform = runtime.load(&bytes, of_file.limits.limits());
    let transform = transform.map_err(|e| match e.kind() {
        gristmill_smt::ErrorKind::Host => Error::transform(e),
        _ => checked.mistake(&step(i, "/wasm"), format_args!("{}: {e}", path.display())),
    })?;
    if let Some(wanted) = &of_file.sha256
        && wanted != transform.digest()
    {
        let text = format!(
            "{} has the SHA-256 {}, the pipeline file wants {wanted}: put the component back, or write the new digest",
            path.display(),
            transform.digest()
        );
        return Err(checked.mistake(&step(i, "/sha256"), text));
    }
    Ok(transform)
}
