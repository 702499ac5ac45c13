//! What the end-to-end tests share: a real Apache Kafka on loopback ports.
//!
//! [`RealKafka::start`] fetches the broker's jars through Maven once (`tests/kafka/pom.xml`, into the user's
//! cache folder), formats storage in a temporary folder, starts one JVM a node, and waits until each is ready.
//! Nothing outlives the test process: nodes are stopped when the value is dropped, at exit, and by the kernel if
//! the process is killed.
#![deny(missing_docs)]

pub mod campaign;
mod jars;
mod kafka;
mod nodes;
pub mod orders;
pub mod pipeline;
mod produce;
mod progress;
mod topics;

pub use jars::connect_libs;
pub use kafka::{RealKafka, shared_kafka};
pub use nodes::spawn;
pub use produce::{OrderProducer, Sent, Way};
pub use topics::{TransactionalProducer, unique};

/// Prints a line past the test harness, which shows what `println!` prints only of tests that fail.
pub fn say(text: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// `GRISTMILL_SEED`, or a new seed; it is printed.
pub fn seed() -> u64 {
    let seed = std::env::var("GRISTMILL_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    say(format_args!("GRISTMILL_SEED={seed}"));
    seed
}

/// Seconds of CPU time of this thread.
pub fn thread_cpu() -> f64 {
    // SAFETY: all zeros is a valid rusage, and the call fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
