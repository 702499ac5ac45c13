use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

use crate::call::{Failure, Worker};
use crate::contract::{self, Configuration, RecordTransform, RecordTransformPre};
use crate::engine::ticks;
use crate::error::root_cause;
use crate::guest::Guest;
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
    batch: RecordTransformPre<Guest>,
    judge: OnceLock<Result<RecordTransformPre<Guest>, Error>>,
    /// Metric names in use.
    series: Arc<Mutex<BTreeSet<String>>>,
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

    /// The limits it was loaded with.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Checks `config` against the manifest's schema and makes an instance that has accepted it.
    ///
    /// The check covers types, required and unknown fields, enumerations and bounds; what else the schema
    /// says is left to the transform.
    ///
    /// # Errors
    /// Kind `Configure`: the schema or the transform refused the configuration, or the transform trapped
    /// or took too long over it. Kind `Host`: no free instance slot.
    pub fn instantiate(&self, stream: &Stream, config: &Value) -> Result<Instance, Error> {
        let manifest = self.manifest();
        let wrong = schema::check(&manifest.config_schema, config);
        if !wrong.is_empty() {
            return Err(Error::new(
                ErrorKind::Configure,
                format!("transform {}: the configuration does not fit: {}", manifest.name, wrong.join("; ")),
            ));
        }
        let seed = Seed {
            stream: stream.clone(),
            config: config.to_string(),
            redactor: Arc::new(Redactor::new(&manifest.config_schema, config)),
            schemas: Arc::default(),
        };
        let worker = self.worker(&seed)?;
        Ok(Instance::new(self.clone(), seed, worker))
    }

    /// A fresh, configured instance.
    pub(crate) fn worker(&self, seed: &Seed) -> Result<Worker, Error> {
        self.configured(&self.inner.batch, seed)
    }

    /// The same in the build that counts fuel, compiled when it is first needed.
    pub(crate) fn judge(&self, seed: &Seed) -> Result<Worker, Error> {
        let inner = &*self.inner;
        let prepared = inner
            .judge
            .get_or_init(|| prepare(&inner.shared, &inner.shared.engines.judge, &inner.digest, &inner.wasm));
        self.configured(prepared.as_ref().map_err(Clone::clone)?, seed)
    }

    fn configured(&self, pre: &RecordTransformPre<Guest>, seed: &Seed) -> Result<Worker, Error> {
        let (name, limits) = (&self.manifest().name, &self.inner.limits);
        let guest = Guest::new(
            limits.clone(),
            seed.redactor.clone(),
            seed.schemas.clone(),
            self.inner.series.clone(),
        );
        let refused = |what: String| {
            let what = seed.redactor.redact(what);
            Error::new(ErrorKind::Configure, format!("transform {name}: {what}"))
        };
        let mut worker = worker(pre, guest, limits).map_err(|e| match e {
            Failure::Host(text) => Error::host(format!("transform {name}: {text}")),
            failure => refused(format!("it did not start: {}", failure.message())),
        })?;
        let configuration = Configuration {
            config: &seed.config,
            topic: &seed.stream.topic,
            partition: seed.stream.partition,
        };
        match worker.bindings.call_configure(&mut worker.store, configuration) {
            Ok(Ok(())) => Ok(worker),
            Ok(Err(text)) => Err(refused(format!("it refuses its configuration: {text}"))),
            Err(e) => {
                let failure = Failure::of(&e, worker.store.data(), limits, limits.configure_time());
                Err(refused(format!("configure failed: {}", startup_message(&failure, limits))))
            }
        }
    }
}

/// Instantiates without configuring.
fn worker(pre: &RecordTransformPre<Guest>, guest: Guest, limits: &Limits) -> Result<Worker, Failure> {
    let mut store = Store::new(pre.engine(), guest);
    store.limiter(|guest| guest);
    store.set_hostcall_fuel(usize::try_from(limits.output_bytes()).unwrap_or(usize::MAX));
    store.set_epoch_deadline(ticks(limits.configure_time()));
    // Only the build that judges counts fuel; it is given for a record, not for the start.
    _ = store.set_fuel(u64::MAX);
    match pre.instantiate(&mut store) {
        Ok(bindings) => Ok(Worker { store, bindings }),
        Err(e) if e.is::<wasmtime::PoolConcurrencyLimitError>() => Err(Failure::Host(
            "no free instance slot: stop other pipelines of this process or raise max_instances of the runtime".into(),
        )),
        Err(e) => Err(Failure::of(&e, store.data(), limits, limits.configure_time())),
    }
}

fn startup_message(failure: &Failure, limits: &Limits) -> String {
    match failure {
        Failure::Time(_) => {
            format!("limit configure_time of {:?}: it was still running after it", limits.configure_time())
        }
        failure => failure.message(),
    }
}

fn prepare(
    shared: &Shared,
    engine: &Engine,
    digest: &str,
    wasm: &[u8],
) -> Result<RecordTransformPre<Guest>, Error> {
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
    contract::check(engine, &component)?;
    let mut linker = Linker::new(engine);
    RecordTransform::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest: &mut Guest| guest)
        .map_err(|e| Error::host(format!("the host's own functions do not link: {e:#}")))?;
    let pre = linker
        .instantiate_pre(&component)
        .map_err(|e| unfit("the component does not fit the contract", e))?;
    RecordTransformPre::new(pre).map_err(|e| unfit("the component does not fit the contract", e))
}

fn describe(pre: &RecordTransformPre<Guest>, limits: &Arc<Limits>) -> Result<Manifest, Error> {
    let guest = Guest::new(limits.clone(), Arc::default(), Arc::default(), Arc::default());
    let failed = |failure: Failure| match failure {
        Failure::Host(text) => Error::host(text),
        failure => Error::load(format!("describe failed: {}", startup_message(&failure, limits))),
    };
    let mut worker = worker(pre, guest, limits).map_err(failed)?;
    match worker.bindings.call_describe(&mut worker.store) {
        Ok(manifest) => Manifest::read(manifest)
            .map_err(|text| Error::load(format!("the manifest makes no sense: {text}"))),
        Err(e) => Err(failed(Failure::of(&e, worker.store.data(), limits, limits.configure_time()))),
    }
}
