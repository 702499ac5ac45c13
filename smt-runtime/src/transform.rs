use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use arrow_schema::SchemaRef;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Store};

use crate::call::{Failure, Worker};
use crate::columns::{Answer, Bound, ColumnInstance, Offered};
use crate::contract::{Bindings, ColumnConfiguration, Configuration, Program, SimpleConfiguration};
use crate::engine::ticks;
use crate::error::root_cause;
use crate::guest::Guest;
use crate::runner::Runner;
use crate::runtime::Shared;
use crate::secrets::Redactor;
use crate::{Error, ErrorKind, Instance, Limits, Manifest, schema};

/// A loaded transform. Cheap to clone; [`instantiate`](Transform::instantiate) it once for each stream.
#[derive(Clone)]
pub struct Transform {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// Kept for the build that judges records, which few transforms ever need.
    wasm: Box<[u8]>,
    digest: String,
    manifest: Manifest,
    limits: Arc<Limits>,
    batch: Program,
    judge: OnceLock<Result<Program, Error>>,
    /// Metric names in use.
    series: Arc<Mutex<BTreeSet<String>>>,
}

/// What a transform works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Records as they come from Kafka.
    Records,
    /// Decoded, typed columns.
    Columns,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Records => "records",
            Kind::Columns => "columns",
        })
    }
}

/// The stream that an instance works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
}

/// What a fresh instance needs; kept so that one can be made at any time.
pub(crate) struct Seed {
    pub(crate) stream: Stream,
    pub(crate) config: String,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) schemas: Arc<BTreeMap<u32, Arc<str>>>,
    pub(crate) columns: Option<SeedColumns>,
}

/// Of a transform of columns.
pub(crate) struct SeedColumns {
    offered: Offered,
    /// Other rows pass the transform by.
    for_some: bool,
    /// What the first instance answered; each later one has to answer the same.
    bound: Option<Arc<Bound>>,
}

impl std::fmt::Debug for Transform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transform")
            .field("name", &self.manifest().name)
            .field("version", &self.manifest().version)
            .field("digest", &self.inner.digest)
            .finish()
    }
}

impl Transform {
    pub(crate) fn load(shared: Arc<Shared>, wasm: &[u8], limits: Limits) -> Result<Self, Error> {
        limits.check(shared.config.max_memory())?;
        let digest: String = Sha256::digest(wasm).iter().map(|b| format!("{b:02x}")).collect();
        let limits = Arc::new(limits);
        let batch = prepare(&shared, &shared.engines.batch, &digest, wasm)?;
        let manifest = describe(&batch, &limits)?;
        Ok(Transform {
            inner: Arc::new(Inner {
                shared,
                wasm: wasm.into(),
                digest,
                manifest,
                limits,
                batch,
                judge: OnceLock::new(),
                series: Arc::default(),
            }),
        })
    }

    /// What the transform says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// What the component imports, such as `gristmill:transform/log@0.1.0`: all that it can reach.
    pub fn imports(&self) -> Vec<String> {
        self.inner.batch.imports()
    }

    /// The limits it was loaded with.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Whether it works on records or on columns.
    pub fn kind(&self) -> Kind {
        match &self.inner.batch {
            Program::Records(_) => Kind::Records,
            Program::Columns(_) | Program::Simple(_) => Kind::Columns,
        }
    }

    /// Checks `config` against the manifest's schema and makes an instance that has accepted it, of a transform of
    /// records.
    ///
    /// The check covers types, required and unknown fields, enumerations and bounds; what else the schema
    /// says is left to the transform.
    ///
    /// # Errors
    /// Kind `Configure`: the schema or the transform refused the configuration, the transform trapped
    /// or took too long over it, or it is of another kind. Kind `Host`: no free instance slot.
    pub fn instantiate(&self, stream: &Stream, config: &Value) -> Result<Instance, Error> {
        let seed = self.seed(stream, config, Kind::Records)?;
        let (worker, _) = self.configured(&self.inner.batch, &seed)?;
        Ok(Instance::new(Runner::new(self.clone(), seed, worker)))
    }

    /// As [`instantiate`](Self::instantiate), for a transform of columns: `schema` is that of every batch it will get.
    ///
    /// # Errors
    /// Those of `instantiate`; kind `Configure` also if a column that the transform needs is missing or of another
    /// type, or if what it wants to do with the columns makes no sense.
    pub fn instantiate_columns(
        &self,
        stream: &Stream,
        config: &Value,
        schema: &SchemaRef,
    ) -> Result<ColumnInstance, Error> {
        self.bound(stream, config, schema, false)
    }

    /// As [`instantiate_columns`](Self::instantiate_columns), where only some rows are given to the transform and the
    /// others go through [`ColumnInstance::pass_by`]: what it adds may be null in the output.
    ///
    /// # Errors
    /// Those of `instantiate_columns`; kind `Configure` also if it replaces a column by one of another type.
    pub fn instantiate_columns_for_some(
        &self,
        stream: &Stream,
        config: &Value,
        schema: &SchemaRef,
    ) -> Result<ColumnInstance, Error> {
        self.bound(stream, config, schema, true)
    }

    fn bound(
        &self,
        stream: &Stream,
        config: &Value,
        schema: &SchemaRef,
        for_some: bool,
    ) -> Result<ColumnInstance, Error> {
        let mut seed = self.seed(stream, config, Kind::Columns)?;
        let refused = |what: String| {
            Error::new(ErrorKind::Configure, format!("transform {}: {what}", self.manifest().name))
        };
        let offered = Offered::new(schema.clone()).map_err(refused)?;
        seed.columns = Some(SeedColumns { offered, for_some, bound: None });
        let (worker, bound) = self.configured(&self.inner.batch, &seed)?;
        let bound = Arc::new(bound.ok_or_else(|| Error::host(Failure::other_kind().message()))?);
        if let Some(columns) = &mut seed.columns {
            columns.bound = Some(bound.clone());
        }
        Ok(ColumnInstance::new(Runner::new(self.clone(), seed, worker), bound))
    }

    fn seed(&self, stream: &Stream, config: &Value, kind: Kind) -> Result<Seed, Error> {
        let manifest = self.manifest();
        let refused =
            |what: String| Error::new(ErrorKind::Configure, format!("transform {}: {what}", manifest.name));
        if self.kind() != kind {
            return Err(refused(format!("it is a transform of {}, and it is used on {kind}", self.kind())));
        }
        let wrong = schema::check(&manifest.config_schema, config);
        if !wrong.is_empty() {
            return Err(refused(format!("the configuration does not fit: {}", wrong.join("; "))));
        }
        Ok(Seed {
            stream: stream.clone(),
            config: config.to_string(),
            redactor: Arc::new(Redactor::new(&manifest.config_schema, config).map_err(refused)?),
            schemas: Arc::default(),
            columns: None,
        })
    }

    /// A fresh, configured instance.
    pub(crate) fn worker(&self, seed: &Seed) -> Result<Worker, Error> {
        self.configured(&self.inner.batch, seed).map(|(worker, _)| worker)
    }

    /// The same in the build that counts fuel, compiled when it is first needed.
    pub(crate) fn judge(&self, seed: &Seed) -> Result<Worker, Error> {
        let inner = &*self.inner;
        let prepared = inner
            .judge
            .get_or_init(|| prepare(&inner.shared, &inner.shared.engines.judge, &inner.digest, &inner.wasm));
        self.configured(prepared.as_ref().map_err(Clone::clone)?, seed).map(|(worker, _)| worker)
    }

    /// With what a transform of columns has bound, the first time.
    fn configured(&self, pre: &Program, seed: &Seed) -> Result<(Worker, Option<Bound>), Error> {
        let (name, limits) = (&self.manifest().name, &self.inner.limits);
        let guest = Guest::new(
            limits.clone(),
            seed.redactor.clone(),
            seed.schemas.clone(),
            self.inner.series.clone(),
        );
        let refused = |what: String| {
            let what = seed.redactor.shown(&what);
            Error::new(ErrorKind::Configure, format!("transform {name}: {what}"))
        };
        let mut worker = worker(pre, guest, limits).map_err(|e| match e {
            Failure::Host(text) => Error::host(format!("transform {name}: {text}")),
            failure => refused(format!("it did not start: {}", failure.message())),
        })?;
        let answer = configure(&mut worker, seed).map_err(|e| {
            let failure = Failure::of(&e, worker.store.data(), limits, limits.configure_timeout());
            refused(format!("configure failed: {}", startup_message(&failure, limits)))
        })?;
        let answer = answer.map_err(|text| match &seed.columns {
            None => refused(format!("it refuses its configuration: {text}")),
            Some(_) => refused(format!("it cannot work with its configuration and these columns: {text}")),
        })?;
        let bound = match (&seed.columns, answer) {
            (Some(SeedColumns { bound: Some(bound), .. }), Some(answer)) => match bound.answer == answer {
                true => None,
                false => {
                    return Err(refused(
                        "a fresh instance binds the columns otherwise than the first".into(),
                    ));
                }
            },
            (Some(columns), Some(answer)) => {
                Some(columns.offered.bind(answer, columns.for_some).map_err(refused)?)
            }
            _ => None,
        };
        Ok((worker, bound))
    }
}

/// Calls `configure` of the instance's kind: the guest's refusal, or what it bound if it works on columns.
fn configure(worker: &mut Worker, seed: &Seed) -> wasmtime::Result<Result<Option<Answer>, String>> {
    let (config, topic, partition) = (&seed.config, &seed.stream.topic, seed.stream.partition);
    match &worker.bindings {
        Bindings::Records(bindings) => {
            let configuration = Configuration { config, topic, partition };
            bindings.call_configure(&mut worker.store, configuration).map(|answer| answer.map(|()| None))
        }
        Bindings::Columns(bindings) => {
            let fields: Vec<_> = seed.columns.iter().flat_map(|c| &c.offered.fields).collect();
            let configuration = ColumnConfiguration { config, topic, partition, fields: &fields };
            let answer = bindings.call_configure_columns(&mut worker.store, configuration)?;
            Ok(answer.map(|binding| Some(Answer::Columns(binding))))
        }
        Bindings::Simple(bindings) => {
            let columns = seed.columns.iter().flat_map(|c| c.offered.typed_columns()).collect();
            let (config, topic) = (config.clone(), topic.clone());
            let configuration = SimpleConfiguration { config, topic, partition, columns };
            let answer = bindings.call_configure_simple(&mut worker.store, &configuration)?;
            Ok(answer.map(|binding| Some(Answer::Simple(binding))))
        }
    }
}

/// Instantiates without configuring.
fn worker(pre: &Program, guest: Guest, limits: &Limits) -> Result<Worker, Failure> {
    let mut store = Store::new(pre.engine(), guest);
    store.limiter(|guest| guest);
    store.set_hostcall_fuel(usize::try_from(limits.output_bytes()).unwrap_or(usize::MAX));
    store.set_epoch_deadline(ticks(limits.configure_timeout()));
    // Only the build that judges counts fuel; it is given for a record, not for the start.
    _ = store.set_fuel(u64::MAX);
    match pre.instantiate(&mut store) {
        Ok(bindings) => Ok(Worker { store, bindings }),
        Err(e) if e.is::<wasmtime::PoolConcurrencyLimitError>() => Err(Failure::Host(
            "no free instance slot: each partition has an instance of each transform; run more members of the group, or \
             raise max_instances of the runtime"
                .into(),
        )),
        Err(e) => Err(Failure::of(&e, store.data(), limits, limits.configure_timeout())),
    }
}

fn startup_message(failure: &Failure, limits: &Limits) -> String {
    match failure {
        Failure::Time(_) => {
            format!(
                "limit configure_timeout of {:?}: it was still running after it",
                limits.configure_timeout()
            )
        }
        failure => failure.message(),
    }
}

fn prepare(shared: &Shared, engine: &Engine, digest: &str, wasm: &[u8]) -> Result<Program, Error> {
    match wasm.get(..8) {
        Some(b"\0asm\x0d\0\x01\0") => {}
        Some(b"\0asm\x01\0\0\0") => {
            return Err(Error::load(
                "this is a core WebAssembly module, not a component: link it with wasm-component-ld, as \
                 `gristmill transform build` does",
            ));
        }
        _ => return Err(Error::load("this is not a WebAssembly component")),
    }
    let unfit = |what: &str, e: wasmtime::Error| Error::load(format!("{what}: {}", root_cause(&e)));
    let component = match &shared.cache {
        Some(cache) => cache.component(engine, digest, wasm),
        None => Component::new(engine, wasm),
    }
    .map_err(|e| unfit("the component does not compile", e))?;
    Program::link(engine, &component)
}

fn describe(pre: &Program, limits: &Arc<Limits>) -> Result<Manifest, Error> {
    let guest = Guest::new(limits.clone(), Arc::default(), Arc::default(), Arc::default());
    let failed = |failure: Failure| match failure {
        Failure::Host(text) => Error::host(text),
        failure => Error::load(format!("describe failed: {}", startup_message(&failure, limits))),
    };
    let mut worker = worker(pre, guest, limits).map_err(failed)?;
    match worker.bindings.describe(&mut worker.store) {
        Ok(manifest) => Manifest::read(manifest)
            .map_err(|text| Error::load(format!("the manifest makes no sense: {text}"))),
        Err(e) => Err(failed(Failure::of(&e, worker.store.data(), limits, limits.configure_timeout()))),
    }
}
