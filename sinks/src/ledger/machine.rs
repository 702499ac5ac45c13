use std::fmt;
use std::hash::Hash;

/// What the protocol needs to know of an entry. The real one is [`Entry`](crate::Entry); the model checker
/// explores the same machine with a smaller one.
pub trait Sealable: Clone + Eq + Hash + fmt::Debug {
    /// The first offset of the range.
    fn first(&self) -> i64;
    /// The offset after the range.
    fn next(&self) -> i64;
    /// Whether both were made by the same attempt of the same writer.
    fn is_same_attempt(&self, other: &Self) -> bool;
    /// How many staged files there are to move.
    fn files(&self) -> usize;
    /// Whether there are rejects to deliver.
    fn has_rejects(&self) -> bool;
}

/// Why an entry is being published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It was found as the tip: its writer may have died before it was through.
    Found,
    /// We have just sealed it.
    Sealed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase<E> {
    ReadGenesis,
    CreateGenesis,
    /// `known` is an entry that we have seen, so that a listing that lags cannot lead us back before it.
    FindTip {
        start: i64,
        known: Option<E>,
    },
    Publish {
        entry: E,
        file: usize,
        moved: bool,
        origin: Origin,
    },
    Deliver {
        entry: E,
        moved: bool,
        origin: Origin,
    },
    Ready {
        first: i64,
    },
    Seal {
        entry: E,
    },
    ReadBack {
        entry: E,
    },
    Discard {
        own: E,
        foreign: E,
    },
}

/// What is to be done now. Every action may be done again until it is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a, E> {
    /// Read the genesis. Answer: `Genesis`.
    ReadGenesis,
    /// Create the genesis if absent. Answer: `GenesisCreated` or `GenesisUnsettled`.
    CreateGenesis {
        /// Where the ledger shall start.
        start: i64,
    },
    /// Find the last entry whose first offset is at least `start`. Answer: `Tip`.
    FindTip {
        /// Where to look from.
        start: i64,
    },
    /// Move one staged file to its final name if that is free. Answer: `Moved` or `AlreadyMoved`.
    Move {
        /// The entry that names the file.
        entry: &'a E,
        /// Its number in the entry.
        file: usize,
    },
    /// Deliver the entry's rejects. Answer: `Delivered`, once all are acknowledged.
    Deliver {
        /// The entry.
        entry: &'a E,
    },
    /// Create the entry if absent. Answer: `Sealed`, or `NotSealed` if there is one or nobody knows.
    Seal {
        /// The entry.
        entry: &'a E,
    },
    /// Read the entry that starts at `first`. Answer: `Entry`.
    ReadEntry {
        /// The first offset.
        first: i64,
    },
    /// Delete the staged files of our refused entry; what fails is left to the sweeper. Answer: `Discarded`.
    Discard {
        /// The refused entry.
        entry: &'a E,
    },
    /// Nothing: waiting for [`Machine::propose`].
    Wait,
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer<E> {
    /// The genesis' start, or that there is none.
    Genesis(Option<i64>),
    /// This writer created the genesis.
    GenesisCreated,
    /// There was a genesis, or the reply was lost: read it.
    GenesisUnsettled,
    /// The last entry, if there is one.
    Tip(Option<E>),
    /// The file was moved by this call.
    Moved,
    /// The staged file is gone, so it was moved before.
    AlreadyMoved,
    /// The rejects are delivered.
    Delivered,
    /// The entry was created by this call.
    Sealed,
    /// There was an entry, or the reply was lost: read it.
    NotSealed,
    /// The entry at the offset that was asked for, if there is one.
    Entry(Option<E>),
    /// The staged files are deleted, or left to the sweeper.
    Discarded,
}

/// Something that happened on the way and is worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A seal was refused because another writer's entry was there; its outcome was taken over.
    Adopted,
    /// The tip of a writer that was gone had files that were not published yet.
    Republished,
    /// A seal was refused or unanswered, and the entry turned out to be ours: a reply had been lost.
    RecognisedOwn,
}

/// A call that does not fit the machine's state: a bug in the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse(pub(crate) String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// One writer's view of one ledger: the protocol as a pure state machine, without I/O, clock or randomness.
///
/// It is level-triggered. [`Machine::action`] says what has to be done **now**; somebody does it and tells
/// [`Machine::answer`] what came of it. Until an answer moves it on, the same action may be tried any number
/// of times: every action is idempotent or settles doubts by itself. So a crash, a dropped future and a
/// retry are all the same to it.
///
/// ```text
/// ReadGenesis    found ─► FindTip          none ─► CreateGenesis
/// CreateGenesis  created ─► FindTip        refused or unknown ─► ReadGenesis
/// FindTip        an entry ─► Publish       no entry yet ─► Ready
/// Publish        all files moved ─► Deliver
/// Deliver        acknowledged ─► Ready     from here on the entry's end may be committed
/// Ready          propose ─► Seal
/// Seal           created ─► Publish        refused or unknown ─► ReadBack
/// ReadBack       ours ─► Publish           nothing there ─► Seal      foreign ─► Discard
/// Discard        done ─► FindTip           which adopts the foreign entry, or a later one
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine<E> {
    phase: Phase<E>,
    start_if_new: i64,
    committable: Option<i64>,
}

impl<E: Sealable> Machine<E> {
    /// A writer that knows nothing yet. `start_if_new` counts only if the ledger does not exist.
    pub fn new(start_if_new: i64) -> Self {
        Machine { phase: Phase::ReadGenesis, start_if_new, committable: None }
    }

    /// What is to be done now.
    pub fn action(&self) -> Action<'_, E> {
        match &self.phase {
            Phase::ReadGenesis => Action::ReadGenesis,
            Phase::CreateGenesis => Action::CreateGenesis { start: self.start_if_new },
            Phase::FindTip { start, .. } => Action::FindTip { start: *start },
            Phase::Publish { entry, file, .. } => Action::Move { entry, file: *file },
            Phase::Deliver { entry, .. } => Action::Deliver { entry },
            Phase::Ready { .. } => Action::Wait,
            Phase::Seal { entry } => Action::Seal { entry },
            Phase::ReadBack { entry } => Action::ReadEntry { first: entry.first() },
            Phase::Discard { own, .. } => Action::Discard { entry: own },
        }
    }

    /// Where the next entry starts, if one may be proposed now: everything before is published.
    pub fn ready(&self) -> Option<i64> {
        match self.phase {
            Phase::Ready { first } => Some(first),
            _ => None,
        }
    }

    /// The newest offset that may be committed to Kafka: the end of an entry that is published and whose
    /// rejects are delivered.
    pub fn committable(&self) -> Option<i64> {
        self.committable
    }

    /// Offers the next entry; everything that it names is staged and durable.
    ///
    /// # Errors
    /// If the machine is not ready, or the entry does not start where the ledger says, or is empty. The
    /// machine is unchanged.
    pub fn propose(&mut self, entry: E) -> Result<(), Misuse> {
        match self.phase {
            Phase::Ready { first } if entry.first() == first && entry.next() > first => {
                self.phase = Phase::Seal { entry };
                Ok(())
            }
            Phase::Ready { first } => Err(Misuse(format!(
                "an entry for offsets {} to {} cannot follow offset {first}",
                entry.first(),
                entry.next()
            ))),
            _ => Err(Misuse("an entry was proposed while the one before is not published".to_owned())),
        }
    }

    /// Takes the outcome of the current action.
    ///
    /// # Errors
    /// If it is not an answer to the current action. The machine is unchanged.
    pub fn answer(&mut self, answer: Answer<E>) -> Result<Option<Event>, Misuse> {
        let (phase, event) = match (self.phase.clone(), answer) {
            (Phase::ReadGenesis, Answer::Genesis(Some(start))) => {
                (Phase::FindTip { start, known: None }, None)
            }
            (Phase::ReadGenesis, Answer::Genesis(None)) => (Phase::CreateGenesis, None),
            (Phase::CreateGenesis, Answer::GenesisCreated) => {
                (Phase::FindTip { start: self.start_if_new, known: None }, None)
            }
            (Phase::CreateGenesis, Answer::GenesisUnsettled) => (Phase::ReadGenesis, None),
            (Phase::FindTip { start, known }, Answer::Tip(tip)) => {
                match [known, tip].into_iter().flatten().max_by_key(Sealable::first) {
                    Some(entry) => (publish(entry, Origin::Found), None),
                    None => (Phase::Ready { first: start }, None),
                }
            }
            (Phase::Publish { entry, file, origin, .. }, Answer::Moved) => {
                (Phase::Publish { entry, file: file + 1, moved: true, origin }, None)
            }
            (Phase::Publish { entry, file, moved, origin }, Answer::AlreadyMoved) => {
                (Phase::Publish { entry, file: file + 1, moved, origin }, None)
            }
            (Phase::Deliver { entry, moved, origin }, Answer::Delivered) => {
                return Ok(self.finish(&entry, moved, origin));
            }
            (Phase::Seal { entry }, Answer::Sealed) => (publish(entry, Origin::Sealed), None),
            (Phase::Seal { entry }, Answer::NotSealed) => (Phase::ReadBack { entry }, None),
            (Phase::ReadBack { entry }, Answer::Entry(None)) => (Phase::Seal { entry }, None),
            (Phase::ReadBack { entry }, Answer::Entry(Some(found))) if found.is_same_attempt(&entry) => {
                (publish(entry, Origin::Sealed), Some(Event::RecognisedOwn))
            }
            (Phase::ReadBack { entry: own }, Answer::Entry(Some(foreign))) => {
                (Phase::Discard { own, foreign }, None)
            }
            (Phase::Discard { foreign, .. }, Answer::Discarded) => {
                (Phase::FindTip { start: foreign.first(), known: Some(foreign) }, Some(Event::Adopted))
            }
            (_, answer) => {
                return Err(Misuse(format!("{answer:?} is not an answer to {:?}", self.action())));
            }
        };
        if let Phase::Publish { entry, file, moved, origin } = &phase
            && *file >= entry.files()
        {
            if !entry.has_rejects() {
                let (entry, moved, origin) = (entry.clone(), *moved, *origin);
                return Ok(self.finish(&entry, moved, origin).or(event));
            }
            self.phase = Phase::Deliver { entry: entry.clone(), moved: *moved, origin: *origin };
        } else {
            self.phase = phase;
        }
        Ok(event)
    }

    /// The entry is published and delivered: from now on its end may be committed, and the next entry sealed.
    fn finish(&mut self, entry: &E, moved: bool, origin: Origin) -> Option<Event> {
        self.phase = Phase::Ready { first: entry.next() };
        self.committable = Some(entry.next());
        (moved && origin == Origin::Found).then_some(Event::Republished)
    }
}

fn publish<E>(entry: E, origin: Origin) -> Phase<E> {
    Phase::Publish { entry, file: 0, moved: false, origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Small {
        first: i64,
        next: i64,
        attempt: u32,
        files: usize,
        rejects: bool,
    }

    impl Sealable for Small {
        fn first(&self) -> i64 {
            self.first
        }
        fn next(&self) -> i64 {
            self.next
        }
        fn is_same_attempt(&self, other: &Self) -> bool {
            self.attempt == other.attempt
        }
        fn files(&self) -> usize {
            self.files
        }
        fn has_rejects(&self) -> bool {
            self.rejects
        }
    }

    fn entry(first: i64, next: i64, attempt: u32) -> Small {
        Small { first, next, attempt, files: 2, rejects: true }
    }

    fn ready_at(first: i64) -> Machine<Small> {
        let mut machine = Machine::new(7);
        machine.answer(Answer::Genesis(Some(first))).unwrap();
        machine.answer(Answer::Tip(None)).unwrap();
        assert_eq!(machine.ready(), Some(first));
        machine
    }

    #[test]
    fn whoever_comes_second_takes_the_start_of_the_first() {
        let mut machine = Machine::<Small>::new(7);
        assert_eq!(machine.action(), Action::ReadGenesis);
        machine.answer(Answer::Genesis(None)).unwrap();
        assert_eq!(machine.action(), Action::CreateGenesis { start: 7 });
        machine.answer(Answer::GenesisUnsettled).unwrap();
        machine.answer(Answer::Genesis(Some(3))).unwrap();
        assert_eq!(machine.action(), Action::FindTip { start: 3 });
    }

    #[test]
    fn the_end_may_be_committed_only_when_all_is_published_and_delivered() {
        let mut machine = ready_at(0);
        let mine = entry(0, 5, 1);
        machine.propose(mine.clone()).unwrap();
        for answer in [Answer::Sealed, Answer::Moved, Answer::Moved] {
            assert_eq!(machine.committable(), None);
            machine.answer(answer).unwrap();
        }
        assert_eq!(machine.action(), Action::Deliver { entry: &mine });
        assert_eq!((machine.committable(), machine.ready()), (None, None));
        assert_eq!(machine.answer(Answer::Delivered).unwrap(), None);
        assert_eq!((machine.committable(), machine.ready()), (Some(5), Some(5)));
    }

    #[test]
    fn a_lost_reply_is_settled_by_reading_back() {
        let mut machine = ready_at(0);
        let mine = entry(0, 5, 1);
        machine.propose(mine.clone()).unwrap();
        machine.answer(Answer::NotSealed).unwrap();
        assert_eq!(machine.action(), Action::ReadEntry { first: 0 });
        machine.answer(Answer::Entry(None)).unwrap();
        assert_eq!(machine.action(), Action::Seal { entry: &mine });
        machine.answer(Answer::NotSealed).unwrap();
        assert_eq!(machine.answer(Answer::Entry(Some(mine.clone()))).unwrap(), Some(Event::RecognisedOwn));
        assert_eq!(machine.action(), Action::Move { entry: &mine, file: 0 });
    }

    #[test]
    fn a_foreign_entry_is_adopted_and_published_before_anything_else() {
        let mut machine = ready_at(0);
        machine.propose(entry(0, 5, 1)).unwrap();
        machine.answer(Answer::NotSealed).unwrap();
        let foreign = entry(0, 3, 2);
        machine.answer(Answer::Entry(Some(foreign.clone()))).unwrap();
        assert_eq!(machine.action(), Action::Discard { entry: &entry(0, 5, 1) });
        assert_eq!(machine.answer(Answer::Discarded).unwrap(), Some(Event::Adopted));
        // A listing that lags does not lead back before what was seen.
        machine.answer(Answer::Tip(None)).unwrap();
        assert_eq!(machine.action(), Action::Move { entry: &foreign, file: 0 });
        machine.answer(Answer::AlreadyMoved).unwrap();
        machine.answer(Answer::Moved).unwrap();
        assert_eq!(machine.answer(Answer::Delivered).unwrap(), Some(Event::Republished));
        assert_eq!(machine.ready(), Some(3));
    }

    #[test]
    fn an_entry_that_does_not_continue_the_ledger_is_refused() {
        let mut machine = ready_at(4);
        for (first, next) in [(0, 5), (5, 6), (4, 4), (4, 3)] {
            let before = machine.clone();
            assert!(machine.propose(entry(first, next, 1)).is_err());
            assert_eq!(machine, before);
        }
        machine.propose(entry(4, 5, 1)).unwrap();
        assert!(machine.propose(entry(4, 5, 2)).is_err());
        assert!(machine.answer(Answer::Moved).is_err());
    }
}
