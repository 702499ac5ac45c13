/// Log lines. They count only if the call in which they were written is accepted, and their number is
/// limited; a secret of the configuration is blotted out by the host.
pub mod log {
    /// How serious a line is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    #[expect(missing_docs, reason = "the names say it")]
    pub enum Level {
        Trace,
        Debug,
        Info,
        Warn,
        Error,
    }

    /// Writes a line.
    pub fn log(level: Level, message: impl AsRef<str>) {
        super::host::log(level, message.as_ref());
    }

    /// Writes a line of level debug.
    pub fn debug(message: impl AsRef<str>) {
        log(Level::Debug, message);
    }

    /// Writes a line of level info.
    pub fn info(message: impl AsRef<str>) {
        log(Level::Info, message);
    }

    /// Writes a line of level warn.
    pub fn warn(message: impl AsRef<str>) {
        log(Level::Warn, message);
    }

    /// Writes a line of level error.
    pub fn error(message: impl AsRef<str>) {
        log(Level::Error, message);
    }
}

/// Counters and histograms. A name is a letter or `_`, then letters, digits and `_`, 64 at most; it must
/// not hold data, since the number of different names is limited.
pub mod metrics {
    /// Adds to a counter.
    pub fn count(name: &str, by: u64) {
        super::host::count(name, by);
    }

    /// Puts a value into a histogram.
    pub fn observe(name: &str, value: f64) {
        super::host::observe(name, value);
    }
}

/// The text of a schema that the host fetched before the call; `None` where it did not.
pub fn schema(id: u32) -> Option<String> {
    host::schema(id)
}

#[cfg(target_arch = "wasm32")]
pub(crate) mod host {
    use super::log::Level;
    use crate::wasm::bindings::gristmill::transform as wit;

    pub(crate) fn log(level: Level, message: &str) {
        let level = match level {
            Level::Trace => wit::log::Level::Trace,
            Level::Debug => wit::log::Level::Debug,
            Level::Info => wit::log::Level::Info,
            Level::Warn => wit::log::Level::Warn,
            Level::Error => wit::log::Level::Error,
        };
        wit::log::log(level, message);
    }

    pub(crate) fn count(name: &str, by: u64) {
        wit::metrics::count(name, by);
    }

    pub(crate) fn observe(name: &str, value: f64) {
        wit::metrics::observe(name, value);
    }

    pub(crate) fn schema(id: u32) -> Option<String> {
        wit::schemas::schema(id)
    }
}

/// Natively the harness of the test on this thread takes everything down.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod host {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::log::Level;

    #[derive(Default)]
    pub(crate) struct Host {
        pub(crate) logs: Vec<(Level, String)>,
        pub(crate) counters: BTreeMap<String, u64>,
        pub(crate) observations: BTreeMap<String, Vec<f64>>,
        pub(crate) schemas: BTreeMap<u32, String>,
    }

    thread_local! {
        static HOST: RefCell<Host> = RefCell::default();
    }

    /// Runs `f` with `host` in place, and gives it back.
    pub(crate) fn with<R>(host: &mut Host, f: impl FnOnce() -> R) -> R {
        HOST.with(|h| std::mem::swap(&mut *h.borrow_mut(), host));
        let result = f();
        HOST.with(|h| std::mem::swap(&mut *h.borrow_mut(), host));
        result
    }

    fn host<R>(f: impl FnOnce(&mut Host) -> R) -> R {
        HOST.with(|h| f(&mut h.borrow_mut()))
    }

    pub(crate) fn log(level: Level, message: &str) {
        host(|h| h.logs.push((level, message.to_owned())));
    }

    pub(crate) fn count(name: &str, by: u64) {
        host(|h| *h.counters.entry(name.to_owned()).or_default() += by);
    }

    pub(crate) fn observe(name: &str, value: f64) {
        host(|h| h.observations.entry(name.to_owned()).or_default().push(value));
    }

    pub(crate) fn schema(id: u32) -> Option<String> {
        host(|h| h.schemas.get(&id).cloned())
    }
}
