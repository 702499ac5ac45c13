use std::time::Duration;

use crate::Error;

const MIB: u64 = 1024 * 1024;
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// What a transform may use. Every limit has a default and an override; whatever is refused says which
/// limit it was, what it is set to, and what was seen.
///
/// ```
/// use std::time::Duration;
/// use gristmill_smt::Limits;
///
/// let limits = Limits::default().with_memory(16 * 1024 * 1024).with_call_timeout(Duration::from_millis(500));
/// assert_eq!(limits.memory(), 16 * 1024 * 1024);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    memory: u64,
    call_timeout: Duration,
    configure_timeout: Duration,
    search_timeout: Duration,
    record_fuel: u64,
    output_bytes: u64,
    batch_output_bytes: u64,
    output_records_per_row: u32,
    log_lines: u32,
    log_bytes: u32,
    metric_series: u32,
    max_reject_ratio: f64,
    breaker_rows: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 64 * MIB,
            call_timeout: Duration::from_secs(1),
            configure_timeout: Duration::from_secs(5),
            search_timeout: Duration::from_secs(30),
            record_fuel: 500_000_000,
            output_bytes: 32 * MIB,
            batch_output_bytes: 256 * MIB,
            output_records_per_row: 100,
            log_lines: 100,
            log_bytes: 64 * 1024,
            metric_series: 100,
            max_reject_ratio: 0.5,
            breaker_rows: 1000,
        }
    }
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident, $with:ident: $type:ty;)*) => {
        impl Limits {
            $($(#[$doc])*
            pub fn $name(&self) -> $type {
                self.$name
            }

            #[doc = concat!("Sets [`", stringify!($name), "`](Limits::", stringify!($name), ").")]
            #[must_use]
            pub fn $with(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            }
            )*
        }
    };
}

limits! {
    /// Bytes of linear memory of one instance, all its memories together. Default 64 MiB; at least one
    /// page (64 KiB), at most what [`RuntimeConfig::max_memory`](crate::RuntimeConfig::max_memory) allows.
    /// A call's input is kept within a quarter of it, and an instance that has grown over three quarters
    /// is replaced after the call.
    memory, with_memory: u64;
    /// Wall time of one call into the guest, up to half a MiB of records. Default 1 s. It is a trip-wire:
    /// what trips it is searched for the records that are to blame, and these are judged by
    /// [`record_fuel`](Limits::record_fuel), which does not depend on the machine.
    call_timeout, with_call_timeout: Duration;
    /// Wall time of `describe` and `configure`. Default 5 s.
    configure_timeout, with_configure_timeout: Duration;
    /// Wall time that one batch may spend on the search for records that break the transform. Default
    /// 30 s; after it `apply` ends in an error of kind `Limit`.
    search_timeout, with_search_timeout: Duration;
    /// WebAssembly fuel that a record may burn when it is judged alone: about one unit an instruction, and
    /// one a byte for instructions that fill or copy memory. Default 500 million, about a second on current
    /// machines.
    record_fuel, with_record_fuel: u64;
    /// Bytes of one answer, operations and data, and bytes that its records refer to; of a transform of columns also
    /// what emitted rows repeat of the columns that pass. Default 32 MiB.
    output_bytes, with_output_bytes: u64;
    /// The same, of all the answers to one batch. Default 256 MiB; after it `apply` ends in an error of kind `Limit`.
    batch_output_bytes, with_batch_output_bytes: u64;
    /// Records out per row in, over one call. Default 100.
    output_records_per_row, with_output_records_per_row: u32;
    /// Log lines of one batch that are kept; the others are counted. Default 100.
    log_lines, with_log_lines: u32;
    /// Bytes of log text of one batch that are kept. Default 64 KiB.
    log_bytes, with_log_bytes: u32;
    /// Different metric names that all instances of a transform may use; what is said under others is left
    /// out, and counted. Default 100.
    metric_series, with_metric_series: u32;
    /// The share of rejected rows at which the breaker opens. Default 0.5; 1.0 and above never opens.
    max_reject_ratio, with_max_reject_ratio: f64;
    /// Rows over which the breaker looks: before that many rows have passed it opens only if the rejected
    /// ones would be too many even if all others were fine. Default 1000.
    breaker_rows, with_breaker_rows: u32;
}

impl Limits {
    pub(crate) fn check(&self, max_memory: u64) -> Result<(), Error> {
        let mut wrong = Vec::new();
        if self.memory < 65536 || self.memory > max_memory {
            wrong.push(format!(
                "memory is {} bytes, which is not between 65536 and the runtime's max_memory of {max_memory}",
                self.memory
            ));
        }
        let times = [self.call_timeout, self.configure_timeout, self.search_timeout];
        if times.iter().any(|time| time.is_zero() || *time > MAX_TIME) {
            wrong.push(
                "call_timeout, configure_timeout and search_timeout must be above 0 and no more than a day"
                    .into(),
            );
        }
        let output = self.output_bytes.min(self.batch_output_bytes);
        if self.record_fuel == 0 || output == 0 || self.output_records_per_row == 0 {
            wrong.push(
                "record_fuel, output_bytes, batch_output_bytes and output_records_per_row must be above 0"
                    .into(),
            );
        }
        if self.max_reject_ratio.is_nan() || self.max_reject_ratio <= 0.0 {
            wrong.push(format!("max_reject_ratio is {}, which is not above 0", self.max_reject_ratio));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::limit(format!("limits: {}", wrong.join("; ")))) }
    }
}
