//! What is done to a pipeline, as data: a plan can be drawn from a seed, printed and counted.

use std::fmt;
use std::time::Duration;

use gristmill_sinks::fake_gcs::Effect;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

/// Where a checkpoint can be made to die or to freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failpoint {
    /// Everything is uploaded, nothing is sealed.
    AfterStage,
    /// The entry exists, nothing is published.
    AfterSeal,
    /// One more file has its final name.
    AfterMove,
    /// Everything is published, the group does not know it.
    BeforeCommit,
}

impl Failpoint {
    /// All of them, in the order of a checkpoint.
    pub const ALL: [Failpoint; 4] =
        [Failpoint::AfterStage, Failpoint::AfterSeal, Failpoint::AfterMove, Failpoint::BeforeCommit];

    /// Its name in `GRISTMILL_FAILPOINT`.
    pub fn name(self) -> &'static str {
        match self {
            Failpoint::AfterStage => "after-stage",
            Failpoint::AfterSeal => "after-seal",
            Failpoint::AfterMove => "after-move",
            Failpoint::BeforeCommit => "before-commit",
        }
    }
}

/// How a store misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreFault {
    /// It takes its time.
    Slow,
    /// It refuses with this status.
    Refuses(u16),
    /// It does what it is asked for, and the reply is dropped or says that it failed.
    LosesReplies,
    /// It closes connections, also in the middle of an upload.
    Resets,
    /// It closes the connection, and does what it was asked for later.
    IsLate,
}

impl StoreFault {
    /// All of them.
    pub const ALL: [StoreFault; 8] = [
        StoreFault::Slow,
        StoreFault::Refuses(408),
        StoreFault::Refuses(429),
        StoreFault::Refuses(500),
        StoreFault::Refuses(503),
        StoreFault::LosesReplies,
        StoreFault::Resets,
        StoreFault::IsLate,
    ];

    /// What may happen to a request.
    pub fn effects(self) -> Vec<Effect> {
        let ms = Duration::from_millis;
        match self {
            StoreFault::Slow => vec![Effect::Delay(ms(200)), Effect::Delay(ms(3_000))],
            StoreFault::Refuses(status @ (429 | 503)) => {
                vec![Effect::Status(status), Effect::Throttle { status, retry_after: ms(1_000) }]
            }
            StoreFault::Refuses(status) => vec![Effect::Status(status)],
            StoreFault::LosesReplies => vec![Effect::DropReply, Effect::StatusAfter(503)],
            StoreFault::Resets => vec![Effect::CutBody, Effect::Reset],
            StoreFault::IsLate => vec![Effect::Late(ms(300)), Effect::Late(ms(5_000))],
        }
    }
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// SIGKILL at the nth hit of a failpoint.
    KillAt(Failpoint, u64),
    /// SIGKILL at a random moment: so long after the first entry.
    KillAtRandom(Duration),
    /// SIGKILL so long after the start of the process, whatever it does then.
    KillAtStart(Duration),
    /// The reply to the nth seal never comes.
    LoseReply(u64),
    /// SIGSTOP, at the nth hit of a failpoint, for longer than the session's timeout and until another process
    /// has published in every partition; then SIGCONT.
    FreezeAt(Failpoint, u64),
    /// As [`Fault::FreezeAt`], so long after the first entry.
    FreezeAtRandom(Duration),
    /// SIGTERM, which finishes the open checkpoints.
    Terminate,
    /// SIGKILL to a broker; it comes back once every partition has gone on without it.
    KillBroker(usize),
    /// SIGSTOP to a broker, until every partition has gone on without it.
    FreezeBroker(usize),
    /// One request of the store in six suffers this, until every partition has gone on in spite of it.
    Store(StoreFault),
}

impl Fault {
    /// Its line in the table.
    pub fn kind(self) -> Kind {
        match self {
            Fault::KillAt(at, _) => Kind::KilledAt(at),
            Fault::KillAtRandom(_) => Kind::KilledAtRandom,
            Fault::KillAtStart(_) => Kind::KilledAtStart,
            Fault::LoseReply(_) => Kind::ReplyLost,
            Fault::FreezeAt(at, _) => Kind::FrozenAt(at),
            Fault::FreezeAtRandom(_) => Kind::FrozenAtRandom,
            Fault::Terminate => Kind::Terminated,
            Fault::KillBroker(_) => Kind::BrokerKilled,
            Fault::FreezeBroker(_) => Kind::BrokerFrozen,
            Fault::Store(fault) => Kind::Store(fault),
        }
    }

    /// A fault at random; of brokers only where a cluster outlives the loss of one, of the store only where it
    /// can be made to misbehave.
    pub fn draw(random: &mut SmallRng, nodes: usize, store: bool) -> Fault {
        if store && random.random_ratio(1, 3) {
            return Fault::Store(StoreFault::ALL[random.random_range(0..StoreFault::ALL.len())]);
        }
        let failpoint = Failpoint::ALL[random.random_range(0..Failpoint::ALL.len())];
        let nth = random.random_range(1..8);
        match random.random_range(0..100) {
            0..8 if nodes >= 3 => Fault::KillBroker(random.random_range(1..=nodes)),
            8..16 if nodes >= 3 => Fault::FreezeBroker(random.random_range(1..=nodes)),
            0..45 => Fault::KillAt(failpoint, nth),
            45..65 => Fault::KillAtRandom(moment(random, 2_000)),
            65..75 => Fault::KillAtStart(moment(random, 4_000)),
            75..85 => Fault::LoseReply(nth),
            85..93 => Fault::FreezeAt(failpoint, random.random_range(1..4)),
            93..97 => Fault::FreezeAtRandom(moment(random, 2_000)),
            _ => Fault::Terminate,
        }
    }

    /// A plan with every failpoint, so many kills at random moments, and frozen owners, in a random order.
    pub fn plan(random: &mut SmallRng, kills: usize) -> Vec<Fault> {
        let mut plan: Vec<Fault> =
            Failpoint::ALL.into_iter().map(|at| Fault::KillAt(at, random.random_range(1..5))).collect();
        // After some moves: entries of one file and of many are caught between two moves.
        plan.push(Fault::KillAt(Failpoint::AfterMove, random.random_range(5..12)));
        plan.push(Fault::LoseReply(random.random_range(1..4)));
        plan.push(Fault::FreezeAt(Failpoint::AfterStage, random.random_range(1..4)));
        plan.push(Fault::FreezeAt(Failpoint::AfterSeal, random.random_range(1..4)));
        for kill in 0..kills {
            plan.push(match kill % 4 {
                3 => Fault::KillAtStart(moment(random, 3_000)),
                _ => Fault::KillAtRandom(moment(random, 1_500)),
            });
        }
        plan.shuffle(random);
        plan
    }
}

fn moment(random: &mut SmallRng, below: u64) -> Duration {
    Duration::from_millis(random.random_range(0..below))
}

/// A kind of fault: a line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// See [`Fault::KillAt`].
    KilledAt(Failpoint),
    /// See [`Fault::KillAtRandom`].
    KilledAtRandom,
    /// See [`Fault::KillAtStart`].
    KilledAtStart,
    /// See [`Fault::LoseReply`].
    ReplyLost,
    /// See [`Fault::FreezeAt`].
    FrozenAt(Failpoint),
    /// See [`Fault::FreezeAtRandom`].
    FrozenAtRandom,
    /// See [`Fault::Terminate`].
    Terminated,
    /// See [`Fault::KillBroker`].
    BrokerKilled,
    /// See [`Fault::FreezeBroker`].
    BrokerFrozen,
    /// See [`Fault::Store`].
    Store(StoreFault),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Kind::KilledAt(at) => return f.pad(&format!("killed at {}", at.name())),
            Kind::FrozenAt(at) => return f.pad(&format!("frozen at {}", at.name())),
            Kind::KilledAtRandom => "killed at a random moment",
            Kind::KilledAtStart => "killed soon after its start",
            Kind::ReplyLost => "reply to a seal lost",
            Kind::FrozenAtRandom => "frozen at a random moment",
            Kind::Terminated => "terminated",
            Kind::BrokerKilled => "broker killed",
            Kind::BrokerFrozen => "broker frozen",
            Kind::Store(StoreFault::Refuses(status)) => return f.pad(&format!("store answers {status}")),
            Kind::Store(StoreFault::Slow) => "store is slow",
            Kind::Store(StoreFault::LosesReplies) => "store loses replies",
            Kind::Store(StoreFault::Resets) => "store resets connections",
            Kind::Store(StoreFault::IsLate) => "store does it later",
        };
        f.pad(text)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_holds_every_failpoint() {
        let plan = |seed| Fault::plan(&mut SmallRng::seed_from_u64(seed), 8);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        for at in Failpoint::ALL {
            assert!(plan(3).iter().any(|f| f.kind() == Kind::KilledAt(at)), "{at:?}");
        }
    }

    #[test]
    fn brokers_and_stores_are_left_alone_where_they_cannot_be_spared() {
        let mut random = SmallRng::seed_from_u64(1);
        for _ in 0..1_000 {
            let kind = Fault::draw(&mut random, 1, false).kind();
            assert!(!matches!(kind, Kind::BrokerKilled | Kind::BrokerFrozen | Kind::Store(_)));
        }
        let drawn: std::collections::BTreeSet<Kind> =
            (0..1_000).map(|_| Fault::draw(&mut random, 3, true).kind()).collect();
        assert!(StoreFault::ALL.iter().all(|fault| drawn.contains(&Kind::Store(*fault))), "{drawn:?}");
        assert!(drawn.contains(&Kind::BrokerKilled) && drawn.contains(&Kind::FrozenAtRandom), "{drawn:?}");
    }
}
