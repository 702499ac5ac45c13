//! What the host keeps for one instance, and what the guest can reach of it: log, metrics, schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::ResourceLimiter;

use crate::Limits;
use crate::contract::{columns, log, metrics, schemas, simple, types};
use crate::secrets::Redactor;
use crate::telemetry::{Level, Metrics, Telemetry};

/// Core instances, memories and tables that one component may have. Components of compiled languages
/// have a handful, interpreters up to some dozens.
pub(crate) const MAX_CORE_INSTANCES: u32 = 64;
pub(crate) const MAX_MEMORIES: u32 = 4;
pub(crate) const MAX_TABLES: u32 = 32;
pub(crate) const MAX_TABLE_ELEMENTS: usize = 100_000;

pub(crate) struct Guest {
    limits: Arc<Limits>,
    redactor: Arc<Redactor>,
    pub(crate) schemas: Arc<BTreeMap<u32, Arc<str>>>,
    telemetry: Telemetry,
    /// Names that accepted calls of any instance of the transform have used; bounded by the limit. Locked
    /// when a call that used metrics is accepted, and nothing else is locked meanwhile.
    series: Arc<Mutex<BTreeSet<String>>>,
    /// Bytes of linear memory now.
    pub(crate) memory: u64,
    /// The size that was refused last, since the call began.
    pub(crate) refused_memory: Option<u64>,
    pub(crate) refused_table: Option<usize>,
}

impl Guest {
    pub(crate) fn new(
        limits: Arc<Limits>,
        redactor: Arc<Redactor>,
        schemas: Arc<BTreeMap<u32, Arc<str>>>,
        series: Arc<Mutex<BTreeSet<String>>>,
    ) -> Self {
        Guest {
            limits,
            redactor,
            schemas,
            telemetry: Telemetry::default(),
            series,
            memory: 0,
            refused_memory: None,
            refused_table: None,
        }
    }

    /// Forgets what an earlier call left: its telemetry must not count unless that call was accepted.
    #[inline]
    pub(crate) fn begin_call(&mut self) {
        if !self.telemetry.is_empty() {
            self.telemetry = Telemetry::default();
        }
        self.refused_memory = None;
        self.refused_table = None;
    }

    /// What the guest said last, for the text of a trap.
    pub(crate) fn last_words(&self) -> Option<&str> {
        self.telemetry.logs.last().filter(|l| l.level == Level::Error).map(|l| l.message.as_str())
    }

    /// Moves the telemetry of an accepted call to `into`.
    #[inline]
    pub(crate) fn accept(&mut self, into: &mut Telemetry) {
        if self.telemetry.is_empty() {
            return;
        }
        if !self.telemetry.metrics.is_empty() {
            self.admit_series();
        }
        into.append(&self.limits, std::mem::take(&mut self.telemetry));
    }

    /// Whether this call may use the name; whether the transform may is decided when it is accepted.
    fn series(&mut self, name: &str) -> bool {
        let used = &self.telemetry.metrics;
        let known = used.counters.contains_key(name) || used.histograms.contains_key(name);
        let room = used.counters.len() + used.histograms.len() < self.limits.metric_series() as usize;
        let fits = known || (room && Metrics::is_name(name));
        self.telemetry.refused_series += u64::from(!fits);
        fits
    }

    fn admit_series(&mut self) {
        let (limit, metrics) = (self.limits.metric_series() as usize, &mut self.telemetry.metrics);
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = 0;
        let mut admit = |name: &String| {
            let fits = series.contains(name) || (series.len() < limit && series.insert(name.clone()));
            refused += u64::from(!fits);
            fits
        };
        metrics.counters.retain(|name, _| admit(name));
        metrics.histograms.retain(|name, _| admit(name));
        self.telemetry.refused_series += refused;
    }
}

impl types::Host for Guest {}

impl columns::Host for Guest {}

impl simple::Host for Guest {}

impl log::Host for Guest {
    fn log(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Trace => Level::Trace,
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        // Redacted before it is cut: half a secret is one too.
        self.telemetry.log(&self.limits, level, self.redactor.redact(message));
    }
}

impl metrics::Host for Guest {
    fn count(&mut self, name: String, by: u64) {
        if self.series(&name) {
            self.telemetry.metrics.count(name, by);
        }
    }

    fn observe(&mut self, name: String, value: f64) {
        if self.series(&name) {
            self.telemetry.metrics.observe(name, value);
        }
    }
}

impl schemas::Host for Guest {
    fn schema(&mut self, id: u32) -> Option<String> {
        self.schemas.get(&id).map(|s| s.to_string())
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory + (desired - current) as u64;
        if total > self.limits.memory() {
            self.refused_memory = Some(total);
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE_ELEMENTS {
            self.refused_table = Some(desired);
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }
}
