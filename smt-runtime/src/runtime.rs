use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::Cache;
use crate::engine::Engines;
use crate::{Error, Limits, Transform};

/// How a [`Runtime`] is set up.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    cache_dir: Option<PathBuf>,
    max_instances: u32,
    max_memory: u64,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        RuntimeConfig { cache_dir: None, max_instances: 256, max_memory: 1 << 30 }
    }
}

impl RuntimeConfig {
    /// No cache on disk, 256 instances, up to 1 GiB of memory each.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps compiled components in this directory. It must belong to the user of this process with mode
    /// 0700; it is made so where it is missing, and refused where it is otherwise.
    #[must_use]
    pub fn with_cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// `$XDG_CACHE_HOME/gristmill/aot`, or `~/.cache/gristmill/aot`; none where neither variable is set.
    pub fn default_cache_dir() -> Option<PathBuf> {
        Some(crate::guest_build::user_cache()?.join("aot"))
    }

    /// Most instances alive at a time, of all transforms together. Each reserves 4 GiB of address space
    /// and uses what the guest touches.
    #[must_use]
    pub fn with_max_instances(mut self, instances: u32) -> Self {
        self.max_instances = instances.max(1);
        self
    }

    /// The most that [`Limits::memory`] may allow, in bytes; 4 GiB at most.
    #[must_use]
    pub fn with_max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = bytes.clamp(65536, 1 << 32);
        self
    }

    /// See [`with_max_instances`](RuntimeConfig::with_max_instances).
    pub fn max_instances(&self) -> u32 {
        self.max_instances
    }

    /// See [`with_max_memory`](RuntimeConfig::with_max_memory).
    pub fn max_memory(&self) -> u64 {
        self.max_memory
    }
}

/// Loads transforms. One for a process: it owns the engines, the pool of instances and the thread that
/// ticks the epoch. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) engines: Engines,
    pub(crate) cache: Option<Cache>,
    pub(crate) config: RuntimeConfig,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts the engines.
    ///
    /// # Errors
    /// Kind `Host`: a cache directory that others can write, or too little address space for the pool.
    pub fn new(config: RuntimeConfig) -> Result<Self, Error> {
        let cache = config.cache_dir.as_deref().map(Cache::open).transpose()?;
        let engines = Engines::new(&config)?;
        Ok(Runtime { shared: Arc::new(Shared { engines, cache, config }) })
    }

    /// Compiles a component, or takes it from the cache, checks what it imports and asks it for its
    /// manifest. Takes up to seconds where it compiles: not for an async thread.
    ///
    /// # Errors
    /// Kind `Load` for a component that cannot be run here, `Limit` for limits that contradict each other
    /// or the runtime's, `Host` for our own trouble.
    pub fn load(&self, wasm: &[u8], limits: Limits) -> Result<Transform, Error> {
        Transform::load(self.shared.clone(), wasm, limits)
    }

    /// [`load`](Runtime::load) from a file.
    ///
    /// # Errors
    /// As `load`, with the path; kind `Load` where the file cannot be read.
    pub fn load_file(&self, path: impl AsRef<Path>, limits: Limits) -> Result<Transform, Error> {
        let path = path.as_ref();
        let wasm = std::fs::read(path).map_err(|e| Error::load(format!("{}: {e}", path.display())))?;
        self.load(&wasm, limits).map_err(|e| e.within(path.display()))
    }
}
