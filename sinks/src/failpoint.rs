//! Crashes on demand, **for tests only**: they prove what happens when a process dies between two steps.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::process::{Signal, getpid, kill_process};

use crate::error::{Error, ErrorKind, Result};

/// The environment variable that arms a failpoint in a whole process: `name:n`, such as `after-stage:3`, acts
/// at the n-th hit, counted over all partitions; several are separated by commas. It kills the process with
/// SIGKILL; `name:n:stop` freezes it with SIGSTOP instead, and it goes on after SIGCONT: a zombie.
pub const FAILPOINT_VARIABLE: &str = "GRISTMILL_FAILPOINT";

/// Where a checkpoint can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failpoint {
    /// `after-stage`: all files of a checkpoint are uploaded, nothing is sealed.
    AfterStage,
    /// `after-seal`: the entry exists, nothing is published.
    AfterSeal,
    /// `after-move`: one more file is at its final name.
    AfterMove,
    /// `before-commit`: everything is published and delivered, the caller does not know it yet.
    BeforeCommit,
    /// `lost-reply-seal`: the entry was created, and the reply is dropped: the outcome is unknown.
    LostReplySeal,
}

impl FromStr for Failpoint {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "after-stage" => Failpoint::AfterStage,
            "after-seal" => Failpoint::AfterSeal,
            "after-move" => Failpoint::AfterMove,
            "before-commit" => Failpoint::BeforeCommit,
            "lost-reply-seal" => Failpoint::LostReplySeal,
            _ => return Err(Error::new(ErrorKind::InvalidConfig, format!("there is no failpoint {name:?}"))),
        })
    }
}

/// A set of armed failpoints; empty in production. Clones share their counters.
#[derive(Clone, Debug, Default)]
pub struct Failpoints {
    armed: Option<Arc<[Armed]>>,
}

#[derive(Debug)]
struct Armed {
    point: Failpoint,
    at: u64,
    hits: AtomicU64,
    effect: Effect,
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    /// The call fails.
    Fail,
    /// The process gets this signal.
    Signal(Signal),
}

impl Failpoints {
    /// No failpoints.
    pub fn none() -> Self {
        Self::default()
    }

    /// One failpoint that acts at its `nth` hit, inside this process: the call fails with
    /// [`ErrorKind::Injected`] instead of killing the process.
    pub fn in_process(point: Failpoint, nth: u64) -> Self {
        Failpoints {
            armed: Some(Arc::new([Armed { point, at: nth, hits: AtomicU64::new(0), effect: Effect::Fail }])),
        }
    }

    /// What [`FAILPOINT_VARIABLE`] says, read once in a process. `lost-reply-seal` drops the reply instead of
    /// sending a signal.
    ///
    /// # Errors
    /// `InvalidConfig` if the variable cannot be read as failpoints: a test that arms nothing would prove
    /// nothing.
    pub fn from_environment() -> Result<Self> {
        static ARMED: OnceLock<Result<Failpoints, String>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| match std::env::var(FAILPOINT_VARIABLE) {
            Err(_) => Ok(Failpoints::none()),
            Ok(text) => Self::parse(&text).map_err(|e| e.to_string()),
        });
        armed.clone().map_err(|e| Error::new(ErrorKind::InvalidConfig, format!("{FAILPOINT_VARIABLE}: {e}")))
    }

    fn parse(text: &str) -> Result<Self> {
        let one = |spec: &str| {
            let (spec, signal) = match spec.strip_suffix(":stop") {
                Some(rest) => (rest, Signal::STOP),
                None => (spec, Signal::KILL),
            };
            let (name, nth) = spec.split_once(':').unwrap_or((spec, "1"));
            let at = nth.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                Error::new(ErrorKind::InvalidConfig, format!("{nth:?} in {spec:?} is not a count from 1"))
            })?;
            Ok(Armed { point: name.parse()?, at, hits: AtomicU64::new(0), effect: Effect::Signal(signal) })
        };
        let armed =
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(one).collect::<Result<Vec<_>>>()?;
        Ok(Failpoints { armed: (!armed.is_empty()).then(|| armed.into()) })
    }

    /// Dies or fails here if this is the hit that was asked for.
    pub(crate) fn hit(&self, point: Failpoint) -> Result<()> {
        if self.is_due(point) {
            return Err(Error::new(ErrorKind::Injected, format!("failpoint {point:?} was hit")));
        }
        Ok(())
    }

    /// Whether a reply is to be dropped here.
    pub(crate) fn loses_reply(&self) -> bool {
        self.is_due(Failpoint::LostReplySeal)
    }

    fn is_due(&self, point: Failpoint) -> bool {
        let Some(armed) = &self.armed else { return false };
        let mut due = false;
        for a in armed.iter().filter(|a| a.point == point) {
            if a.hits.fetch_add(1, Ordering::Relaxed) + 1 == a.at {
                match a.effect {
                    Effect::Signal(signal) if point != Failpoint::LostReplySeal => {
                        // SIGKILL: nothing may run after it, not even destructors; that is the point.
                        let _ = kill_process(getpid(), signal);
                        due |= signal == Signal::KILL;
                    }
                    _ => due = true,
                }
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_at_the_hit_that_was_asked_for_and_only_there() {
        let points = Failpoints::in_process(Failpoint::AfterMove, 2);
        points.hit(Failpoint::AfterSeal).unwrap();
        points.hit(Failpoint::AfterMove).unwrap();
        assert_eq!(points.hit(Failpoint::AfterMove).unwrap_err().kind(), ErrorKind::Injected);
        points.hit(Failpoint::AfterMove).unwrap();
    }

    #[test]
    fn a_misspelt_failpoint_is_an_error() {
        assert!(Failpoints::parse("after-lunch:1").is_err());
        assert!(Failpoints::parse("after-seal:0").is_err());
        assert!(
            Failpoints::parse("after-seal:3, lost-reply-seal").unwrap().armed.is_some_and(|a| a.len() == 2)
        );
        assert!(Failpoints::parse("after-stage:2:stop").is_ok());
        assert!(Failpoints::parse("after-stage:2:sleep").is_err());
        assert!(Failpoints::parse("").unwrap().armed.is_none());
    }
}
