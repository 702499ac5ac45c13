//! What goes wrong, and when: scripted for single requests, or at random from a seed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Op {
    /// An object in one request, with its metadata.
    Insert,
    /// The start of a resumable upload.
    ResumableStart,
    /// Bytes of a resumable upload, also the last ones.
    ResumableChunk,
    /// A question how far a resumable upload has come; with a total, it may also end the upload.
    ResumableStatus,
    /// The end of a resumable upload that is not wanted any more.
    ResumableCancel,
    /// The content of an object.
    GetMedia,
    /// The metadata of an object.
    GetMetadata,
    /// One page of a listing.
    List,
    /// The removal of an object.
    Delete,
    /// An atomic move inside a bucket.
    Move,
    /// One call of a copy.
    Rewrite,
    /// The metadata of a bucket.
    BucketGet,
    /// The question which permissions the caller has.
    TestPermissions,
    /// Anything that the token services are asked for.
    Token,
    /// A request that this fake does not know; answered with 404.
    Unknown,
}

impl Op {
    pub(super) fn mutates(self) -> bool {
        use Op::*;
        matches!(self, Insert | ResumableStart | ResumableChunk | ResumableCancel | Delete | Move | Rewrite)
    }
}

/// The requests that a fault may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Those for one operation.
    Op(Op),
    /// Those that create, change or delete something.
    Mutating,
    /// All but those to the token services.
    Any,
}

impl From<Op> for On {
    fn from(op: Op) -> On {
        On::Op(op)
    }
}

impl On {
    fn covers(self, op: Op) -> bool {
        match self {
            On::Op(one) => one == op,
            On::Mutating => op.mutates(),
            On::Any => op != Op::Token,
        }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing is done; the reply has this status and Google's error body.
    Status(u16),
    /// Nothing is done; the reply has this status and a `Retry-After`, rounded up to seconds.
    Throttle {
        /// 429 or 503.
        status: u16,
        /// When to come again.
        retry_after: Duration,
    },
    /// The request is carried out; the reply has this status all the same. A 503 that lies.
    StatusAfter(u16),
    /// The request is carried out; the connection is closed without a reply.
    DropReply,
    /// Nothing is done; the connection is closed without a reply.
    Reset,
    /// Of an upload, half of the body is read, what of it is persistable is persisted, and the connection
    /// is closed. Of a download, half of the body is sent.
    CutBody,
    /// Of a chunk, half is persisted (rounded down to what is persistable), and the reply says so, as Google's
    /// does at times.
    PersistPart,
    /// The request is carried out and answered that much later, also if the client does not wait.
    Delay(Duration),
    /// The connection is closed without a reply, and the request is carried out that much later.
    /// Preconditions and tokens are looked at then.
    Late(Duration),
    /// A byte of the content is flipped; the checksum in the header is the right one.
    Corrupt,
}

impl Effect {
    /// The effect in a word, for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Effect::Status(_) => "status",
            Effect::Throttle { .. } => "throttle",
            Effect::StatusAfter(_) => "status after",
            Effect::DropReply => "drop reply",
            Effect::Reset => "reset",
            Effect::CutBody => "cut body",
            Effect::PersistPart => "persist part",
            Effect::Delay(_) => "delay",
            Effect::Late(_) => "late",
            Effect::Corrupt => "corrupt",
        }
    }

    fn can_happen_to(&self, op: Op) -> bool {
        match self {
            Effect::CutBody => matches!(op, Op::Insert | Op::ResumableChunk | Op::GetMedia),
            Effect::PersistPart => op == Op::ResumableChunk,
            Effect::Late(_) => op.mutates(),
            Effect::Corrupt => op == Op::GetMedia,
            _ => true,
        }
    }
}

/// The faults of one [`FakeGcs`](super::FakeGcs).
#[derive(Debug, Default)]
pub struct Faults(Mutex<Plan>);

#[derive(Debug, Default)]
struct Plan {
    scripted: Vec<Scripted>,
    random: Option<Random>,
    injected: BTreeMap<(Op, &'static str), u64>,
}

#[derive(Debug)]
struct Scripted {
    on: On,
    effect: Effect,
    /// Due at 1; counts the requests that it could hit.
    nth: u64,
}

#[derive(Debug)]
struct Random {
    rng: StdRng,
    rate: f64,
    effects: Vec<Effect>,
}

impl Faults {
    /// The next such request suffers the effect. Faults for the same requests wait in the order of calls,
    /// and a request suffers one at most.
    ///
    /// # Panics
    /// If the effect cannot happen to the operation, such as [`Effect::Corrupt`] to a deletion.
    pub fn next(&self, on: impl Into<On>, effect: Effect) {
        self.nth(on, 1, effect);
    }

    /// The `n`th such request from now on suffers the effect; 1 is the next one.
    ///
    /// # Panics
    /// If `n` is 0 or the effect cannot happen to the operation.
    pub fn nth(&self, on: impl Into<On>, n: u64, effect: Effect) {
        let on = on.into();
        assert!(n > 0, "requests count from 1");
        if let On::Op(op) = on {
            assert!(effect.can_happen_to(op), "{effect:?} cannot happen to {op:?}");
        }
        self.plan().scripted.push(Scripted { on, effect, nth: n });
    }

    /// From now on each request, unless a scripted fault hits it, suffers one of the effects (of those that
    /// can happen to it) with this probability. The same seed and order of requests give the same faults.
    ///
    /// # Panics
    /// If the rate is not a probability.
    pub fn random(&self, seed: u64, rate: f64, effects: &[Effect]) {
        assert!((0.0..=1.0).contains(&rate), "a rate is from 0 to 1");
        let rng = StdRng::seed_from_u64(seed);
        self.plan().random = Some(Random { rng, rate, effects: effects.to_vec() });
    }

    /// No more faults, scripted or random. What was injected stays counted.
    pub fn clear(&self) {
        let mut plan = self.plan();
        plan.scripted.clear();
        plan.random = None;
    }

    /// How many scripted faults have not hit a request yet.
    pub fn pending(&self) -> usize {
        self.plan().scripted.len()
    }

    /// How often each effect, by [`Effect::name`], was done to each operation.
    pub fn injected(&self) -> BTreeMap<(Op, &'static str), u64> {
        self.plan().injected.clone()
    }

    /// What this request suffers.
    pub(super) fn due(&self, op: Op) -> Option<Effect> {
        let mut plan = self.plan();
        let effect = match plan.scripted_for(op) {
            Some(at) => Some(plan.scripted.remove(at).effect),
            None if op == Op::Token => None,
            None => plan.random.as_mut().and_then(|random| random.draw(op)),
        }?;
        *plan.injected.entry((op, effect.name())).or_default() += 1;
        Some(effect)
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn scripted_for(&mut self, op: Op) -> Option<usize> {
        let mut due = None;
        for (at, fault) in self.scripted.iter_mut().enumerate() {
            if !fault.on.covers(op) || !fault.effect.can_happen_to(op) {
                continue;
            }
            if fault.nth > 1 {
                fault.nth -= 1;
            } else {
                due = due.or(Some(at));
            }
        }
        due
    }
}

impl Random {
    fn draw(&mut self, op: Op) -> Option<Effect> {
        if !self.rng.random_bool(self.rate) {
            return None;
        }
        let possible: Vec<_> = self.effects.iter().filter(|e| e.can_happen_to(op)).collect();
        if possible.is_empty() {
            return None;
        }
        Some(possible[self.rng.random_range(0..possible.len())].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_the_request_that_was_named_and_each_request_suffers_one() {
        let faults = Faults::default();
        faults.nth(Op::List, 2, Effect::Status(500));
        faults.next(On::Any, Effect::Reset);
        faults.next(Op::Delete, Effect::DropReply);
        assert_eq!(faults.due(Op::Token), None);
        assert_eq!(faults.due(Op::List), Some(Effect::Reset));
        assert_eq!(faults.due(Op::List), Some(Effect::Status(500)));
        assert_eq!(faults.due(Op::List), None);
        assert_eq!(faults.due(Op::Delete), Some(Effect::DropReply));
        assert_eq!(faults.pending(), 0);
        assert_eq!(faults.injected()[&(Op::List, "status")], 1);
    }

    #[test]
    fn one_seed_gives_one_sequence_of_faults_that_can_happen() {
        let draw = |seed| {
            let faults = Faults::default();
            faults.random(seed, 0.5, &[Effect::Reset, Effect::Corrupt, Effect::DropReply]);
            (0..200).map(|_| faults.due(Op::Delete)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let hits = draw(1).into_iter().flatten().collect::<Vec<_>>();
        assert!((60..140).contains(&hits.len()) && !hits.contains(&Effect::Corrupt), "{hits:?}");
    }
}
