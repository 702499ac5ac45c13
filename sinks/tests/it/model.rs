//! The production state machine, explored by a model checker: two owners and zombies, crashes after any step,
//! lost and late replies, listings that lag, a sweeper, users who delete files, offsets that were moved or
//! have expired, streams that BigQuery has cleared away after their commit, or that have expired before it. And for each rule of the protocol a world that breaks it, in which the checker must find the
//! harm: so we know that the properties can fail.
//!
//! The machine is not told to misbehave: a broken rule is a world (a driver, a store, a sweeper) that lies to
//! it or acts behind its back.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gristmill_sinks::protocol::{Action, Answer, Event, Machine, Sealable};
use stateright::{Checker, Model, Property};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Entry {
    first: i64,
    next: i64,
    attempt: u8,
}

impl Sealable for Entry {
    fn first(&self) -> i64 {
        self.first
    }
    fn next(&self) -> i64 {
        self.next
    }
    fn is_same_attempt(&self, other: &Self) -> bool {
        self.attempt == other.attempt
    }
    /// A longer range has more files, so that publishing can stop half way.
    fn files(&self) -> usize {
        (self.next - self.first) as usize
    }
    fn has_rejects(&self) -> bool {
        self.first == 0
    }
}

/// A staged or final file: the entry that it was made for, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct File {
    entry: Entry,
    number: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    machine: Machine<Entry>,
    /// A newer owner has joined, it does not know, and the group refuses it.
    fenced: bool,
    /// The entry that is not settled yet.
    proposed: Option<Entry>,
    /// Moves that a broken driver has put off.
    put_off: Vec<File>,
    /// The group's offset when it joined, if an owner has committed it: below it everything was published.
    proof: Option<i64>,
}

/// A request that is under way although its sender has given up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Late {
    Genesis(i64),
    Seal(Entry),
    Move(File),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    owners: Vec<Owner>,
    genesis: Option<i64>,
    ledger: Vec<Entry>,
    staged: Vec<File>,
    finals: Vec<File>,
    deleted: Vec<(i64, usize)>,
    delivered: Vec<i64>,
    /// The group's offset as an operator has set it.
    moved_to: Option<i64>,
    /// The newest commit of an owner.
    committed: Option<i64>,
    late: Vec<Late>,
    /// Final files that are streams which nobody knows any more; their rows are there.
    forgotten: Vec<File>,
    joins: u8,
    crashes: u8,
    losses: u8,
    deletions: u8,
    hand_moves: u8,
    forgets: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Kept,
    SealOverwrites,
    GenesisOverwrites,
    SealsBeforePreviousIsPublished,
    AdoptsWithoutPublishing,
    SweepsByAge,
    TakesOwnSealForForeign,
    TakesFirstFromGroupOffset,
    CommitsBeforePublishing,
    CommitsPosition,
    CommitsBeforeDelivering,
    DiscardsWhileSealIsUnsettled,
    CopiesInsteadOfMoving,
    WritesFinalNamesBeforeSealing,
    TakesGoneStreamsForCommitted,
    ProvesByAnyOffset,
}

#[derive(Clone, Debug)]
struct Protocol {
    rule: Rule,
    owners: usize,
    offsets: i64,
    joins: u8,
    crashes: u8,
    losses: u8,
    deletions: u8,
    hand_moves: u8,
    /// How many streams are forgotten, committed or not. What is staged is streams then.
    forgets: u8,
    /// Whether the group refuses the commits of zombies. The ledger must not need it.
    fences: bool,
    /// How many transitions there were with each event: adopted, republished, recognised own.
    events: Arc<[AtomicU64; 3]>,
}

impl Protocol {
    fn new(rule: Rule) -> Self {
        Protocol {
            rule,
            owners: 2,
            offsets: 2,
            joins: 3,
            crashes: 1,
            losses: 1,
            deletions: 1,
            hand_moves: 0,
            forgets: 0,
            fences: false,
            events: Arc::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// The effect, and its answer.
    Answered,
    /// The effect; the answer is lost.
    ReplyLost,
    /// No effect yet; nobody waits any more.
    Late,
    /// A listing from the past.
    Lagging,
    /// A clean-up that fails.
    Fails,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    Join,
    Crash(usize),
    Step(usize, How),
    Checkpoint(usize, i64),
    Commit(usize),
    PutOffMove(usize),
    LateArrives(usize),
    Sweep(usize),
    UserDeletes(usize),
    OperatorMovesOffset(i64),
    /// A committed stream is cleared away.
    Forget(usize),
    /// One that was never committed has expired.
    Expire(usize),
}

impl World {
    /// What the group would start a new owner with.
    fn group_offset(&self) -> i64 {
        self.moved_to.or(self.committed).unwrap_or(0)
    }

    fn entry(&self, first: i64) -> Option<Entry> {
        self.ledger.iter().copied().find(|e| e.first == first)
    }

    fn tip(&self, start: i64) -> Option<Entry> {
        self.ledger.iter().copied().filter(|e| e.first >= start).max()
    }

    fn unused_attempt(&self) -> u8 {
        let in_owners = |a: u8| {
            let uses = |o: &Owner| {
                o.proposed.is_some_and(|e| e.attempt == a) || o.put_off.iter().any(|f| f.entry.attempt == a)
            };
            self.owners.iter().any(uses)
        };
        let in_late = |a: u8| {
            self.late.iter().any(|l| match l {
                Late::Seal(e) => e.attempt == a,
                Late::Move(f) => f.entry.attempt == a,
                Late::Genesis(_) => false,
            })
        };
        let in_files = |a: u8| self.staged.iter().chain(&self.finals).any(|f| f.entry.attempt == a);
        let in_ledger = |a: u8| self.ledger.iter().any(|e| e.attempt == a);
        (1..)
            .find(|a| !in_owners(*a) && !in_late(*a) && !in_files(*a) && !in_ledger(*a))
            .expect("256 attempts are enough")
    }

    fn is_published(&self, entry: &Entry) -> bool {
        (0..entry.files()).all(|n| self.is_final(entry, n))
    }

    fn is_final(&self, entry: &Entry, number: usize) -> bool {
        self.finals.contains(&File { entry: *entry, number }) || self.deleted.contains(&(entry.first, number))
    }
}

impl Protocol {
    /// Says whether this call created the entry.
    fn seal(&self, world: &mut World, entry: Entry) -> bool {
        if world.entry(entry.first).is_some() {
            if self.rule != Rule::SealOverwrites {
                return false;
            }
            world.ledger.retain(|e| e.first != entry.first);
        }
        insert(&mut world.ledger, entry);
        true
    }

    fn create_genesis(&self, world: &mut World, start: i64) -> bool {
        if world.genesis.is_some() && self.rule != Rule::GenesisOverwrites {
            return false;
        }
        world.genesis = Some(start);
        true
    }

    /// Says whether this call moved the file.
    fn relocate(&self, world: &mut World, file: File) -> bool {
        if !world.staged.contains(&file) {
            return false;
        }
        let taken = world.finals.iter().any(|f| (f.entry.first, f.number) == (file.entry.first, file.number));
        if taken {
            return false;
        }
        if self.rule != Rule::CopiesInsteadOfMoving {
            world.staged.retain(|f| *f != file);
        }
        insert(&mut world.finals, file);
        true
    }

    /// Whether a stream is neither there to be committed nor known to be.
    fn is_gone(&self, world: &World, file: &File) -> bool {
        let is_unknown = world.forgotten.contains(file) || !world.finals.contains(file);
        self.forgets > 0 && !world.staged.contains(file) && is_unknown
    }

    fn step(&self, world: &mut World, i: usize, how: How) -> Option<()> {
        let mut owner = world.owners[i].clone();
        let start = match owner.machine.action() {
            Action::CreateGenesis { start } => start,
            _ => 0,
        };
        let answer = match owner.machine.action() {
            Action::Wait => return None,
            Action::ReadGenesis => match self.rule {
                // The position comes from the group: what the ledger says is not asked for.
                Rule::TakesFirstFromGroupOffset if world.genesis.is_some() => {
                    Some(Answer::Genesis(Some(world.group_offset())))
                }
                _ => Some(Answer::Genesis(world.genesis)),
            },
            Action::CreateGenesis { .. } => match how {
                How::Answered if self.create_genesis(world, start) => Some(Answer::GenesisCreated),
                How::Answered => Some(Answer::GenesisUnsettled),
                How::ReplyLost => {
                    self.create_genesis(world, start);
                    Some(Answer::GenesisUnsettled)
                }
                How::Late => {
                    insert(&mut world.late, Late::Genesis(start));
                    Some(Answer::GenesisUnsettled)
                }
                _ => return None,
            },
            Action::FindTip { .. } if self.rule == Rule::TakesFirstFromGroupOffset => Some(Answer::Tip(None)),
            Action::FindTip { start } => match how {
                How::Answered => Some(Answer::Tip(world.tip(start))),
                How::Lagging => {
                    let newest = world.tip(start)?;
                    let older =
                        world.ledger.iter().copied().filter(|e| e.first >= start && *e != newest).max();
                    Some(Answer::Tip(older))
                }
                _ => return None,
            },
            Action::Move { entry, file } => {
                let file = File { entry: *entry, number: file };
                let ours = owner.proposed == Some(*entry);
                match how {
                    How::Answered if self.rule == Rule::AdoptsWithoutPublishing && !ours => {
                        Some(Answer::AlreadyMoved)
                    }
                    How::Answered if self.rule == Rule::SealsBeforePreviousIsPublished && ours => {
                        insert(&mut owner.put_off, file);
                        Some(Answer::AlreadyMoved)
                    }
                    How::Answered if self.relocate(world, file) => Some(Answer::Moved),
                    How::Answered if self.is_gone(world, &file) => {
                        let proven = owner.proof.is_some_and(|published| entry.next <= published);
                        // Without proof it stops, and an operator looks.
                        (proven || self.rule == Rule::TakesGoneStreamsForCommitted).then_some(())?;
                        Some(Answer::AlreadyMoved)
                    }
                    // Not staged and not final would be lost data; the property sees it.
                    How::Answered => Some(Answer::AlreadyMoved),
                    How::ReplyLost => {
                        self.relocate(world, file);
                        None
                    }
                    How::Late => {
                        insert(&mut world.late, Late::Move(file));
                        None
                    }
                    _ => return None,
                }
            }
            Action::Deliver { entry } => match how {
                How::Answered => {
                    if self.rule != Rule::CommitsBeforeDelivering {
                        insert(&mut world.delivered, entry.first);
                    }
                    Some(Answer::Delivered)
                }
                _ => return None,
            },
            Action::Seal { entry } => {
                let entry = *entry;
                match how {
                    How::Answered if self.seal(world, entry) => Some(Answer::Sealed),
                    How::Answered => Some(Answer::NotSealed),
                    How::ReplyLost => {
                        self.seal(world, entry);
                        Some(Answer::NotSealed)
                    }
                    How::Late => {
                        insert(&mut world.late, Late::Seal(entry));
                        Some(Answer::NotSealed)
                    }
                    _ => return None,
                }
            }
            Action::ReadEntry { first } => match self.rule {
                Rule::TakesOwnSealForForeign => {
                    Some(Answer::Entry(world.entry(first).map(|e| Entry { attempt: e.attempt + 100, ..e })))
                }
                _ => Some(Answer::Entry(world.entry(first))),
            },
            Action::Discard { entry } => {
                let attempt = entry.attempt;
                if how == How::Answered {
                    world.staged.retain(|f| f.entry.attempt != attempt);
                }
                Some(Answer::Discarded)
            }
        };
        if let Some(answer) = answer {
            let event = owner.machine.answer(answer).expect("the world answers what was asked");
            if let Some(event) = event {
                let n = match event {
                    Event::Adopted => 0,
                    Event::Republished => 1,
                    Event::RecognisedOwn => 2,
                };
                self.events[n].fetch_add(1, Ordering::Relaxed);
            }
            if owner.machine.ready().is_some() {
                owner.proposed = None;
            }
        }
        world.owners[i] = owner;
        Some(())
    }

    fn committable(&self, world: &World, owner: &Owner) -> Option<i64> {
        match self.rule {
            Rule::CommitsPosition => owner.machine.ready().map(|_| self.offsets - 1),
            Rule::CommitsBeforePublishing => match owner.machine.action() {
                Action::Move { entry, .. } => Some(entry.next),
                _ => owner.machine.committable(),
            },
            _ => owner.machine.committable(),
        }
        .filter(|_| !owner.fenced)
        .filter(|offset| world.committed != Some(*offset))
        .filter(|_| owner.put_off.is_empty())
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Happening;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            joins: self.joins,
            crashes: self.crashes,
            losses: self.losses,
            deletions: self.deletions,
            hand_moves: self.hand_moves,
            forgets: self.forgets,
            ..World::default()
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Happening>) {
        if world.joins > 0 && world.owners.len() < self.owners {
            actions.push(Happening::Join);
        }
        for (i, owner) in world.owners.iter().enumerate() {
            if world.crashes > 0 {
                actions.push(Happening::Crash(i));
            }
            match owner.machine.action() {
                Action::Wait => {
                    if let Some(first) = owner.machine.ready() {
                        actions.extend((first + 1..=self.offsets).map(|next| Happening::Checkpoint(i, next)));
                    }
                }
                action => {
                    actions.push(Happening::Step(i, How::Answered));
                    if world.losses > 0 {
                        match action {
                            Action::CreateGenesis { .. } | Action::Seal { .. } | Action::Move { .. } => {
                                actions.push(Happening::Step(i, How::ReplyLost));
                                actions.push(Happening::Step(i, How::Late));
                            }
                            Action::FindTip { .. } => actions.push(Happening::Step(i, How::Lagging)),
                            Action::Discard { .. } => actions.push(Happening::Step(i, How::Fails)),
                            _ => {}
                        }
                    }
                }
            }
            if self.committable(world, owner).is_some() {
                actions.push(Happening::Commit(i));
            }
            if !owner.put_off.is_empty() {
                actions.push(Happening::PutOffMove(i));
            }
        }
        actions.extend((0..world.late.len()).map(Happening::LateArrives));
        for (i, file) in world.staged.iter().enumerate() {
            let refused = world.entry(file.entry.first).is_some_and(|e| e != file.entry);
            if refused || self.rule == Rule::SweepsByAge {
                actions.push(Happening::Sweep(i));
            }
        }
        if world.deletions > 0 {
            actions.extend((0..world.finals.len()).map(Happening::UserDeletes));
        }
        if world.forgets > 0 {
            let known = |i: &usize| !world.forgotten.contains(&world.finals[*i]);
            actions.extend((0..world.finals.len()).filter(known).map(Happening::Forget));
            actions.extend((0..world.staged.len()).map(Happening::Expire));
        }
        if world.hand_moves > 0 {
            actions.extend((0..self.offsets).map(Happening::OperatorMovesOffset));
        }
    }

    fn next_state(&self, last: &World, action: Happening) -> Option<World> {
        let mut world = last.clone();
        match action {
            Happening::Join => {
                world.joins -= 1;
                world.owners.iter_mut().for_each(|o| o.fenced = self.fences);
                // Once there is a genesis, the start that an owner brings does not matter.
                let start = if world.genesis.is_none() { world.group_offset() } else { 0 };
                // What an operator has set bears no mark of an owner.
                let proof = match self.rule {
                    Rule::ProvesByAnyOffset => Some(world.group_offset()),
                    _ => world.committed.filter(|_| world.moved_to.is_none()),
                };
                world.owners.push(Owner {
                    machine: Machine::new(start),
                    fenced: false,
                    proposed: None,
                    put_off: Vec::new(),
                    proof: proof.filter(|_| self.forgets > 0),
                });
            }
            Happening::Crash(i) => {
                world.crashes -= 1;
                let owner = world.owners.remove(i);
                if self.rule == Rule::DiscardsWhileSealIsUnsettled
                    && let Action::Seal { entry } = owner.machine.action()
                {
                    world.staged.retain(|f| f.entry.attempt != entry.attempt);
                }
            }
            Happening::Step(i, how) => {
                world.losses -= u8::from(how != How::Answered);
                self.step(&mut world, i, how)?;
            }
            Happening::Checkpoint(i, next) => {
                let attempt = world.unused_attempt();
                let owner = &mut world.owners[i];
                let entry = Entry { first: owner.machine.ready()?, next, attempt };
                owner.proposed = Some(entry);
                owner.machine.propose(entry).expect("it continues the ledger");
                for number in 0..entry.files() {
                    insert(&mut world.staged, File { entry, number });
                    if self.rule == Rule::WritesFinalNamesBeforeSealing {
                        insert(&mut world.finals, File { entry, number });
                    }
                }
            }
            Happening::Commit(i) => {
                let offset = self.committable(last, &last.owners[i])?;
                world.committed = Some(offset);
                world.moved_to = None;
            }
            Happening::PutOffMove(i) => {
                let file = world.owners[i].put_off.remove(0);
                self.relocate(&mut world, file);
            }
            Happening::LateArrives(i) => match world.late.remove(i) {
                Late::Genesis(start) => drop(self.create_genesis(&mut world, start)),
                Late::Seal(entry) => drop(self.seal(&mut world, entry)),
                Late::Move(file) => drop(self.relocate(&mut world, file)),
            },
            Happening::Sweep(i) => drop(world.staged.remove(i)),
            Happening::UserDeletes(i) => {
                world.deletions -= 1;
                let file = world.finals.remove(i);
                insert(&mut world.deleted, (file.entry.first, file.number));
            }
            Happening::Forget(i) => {
                world.forgets -= 1;
                let file = world.finals[i];
                insert(&mut world.forgotten, file);
            }
            Happening::Expire(i) => {
                world.forgets -= 1;
                world.staged.remove(i);
            }
            Happening::OperatorMovesOffset(to) => {
                world.hand_moves -= 1;
                world.moved_to = Some(to);
            }
        }
        // Owners have no names: states that differ only in their order are one.
        world.owners.sort_by_cached_key(|owner| {
            let mut hasher = DefaultHasher::new();
            owner.hash(&mut hasher);
            hasher.finish()
        });
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no gap", |_, w: &World| {
                w.ledger
                    .iter()
                    .all(|e| Some(e.first) == w.genesis || w.ledger.iter().any(|p| p.next == e.first))
            }),
            Property::always("no overlap", |_, w: &World| {
                let mut sorted = w.ledger.clone();
                sorted.sort();
                sorted.windows(2).all(|pair| pair[0].next <= pair[1].first)
            }),
            Property::always("nothing unsealed is visible", |_, w: &World| {
                w.finals.iter().all(|f| w.entry(f.entry.first) == Some(f.entry))
            }),
            Property::always("no deleted file comes back", |_, w: &World| {
                w.finals.iter().all(|f| !w.deleted.contains(&(f.entry.first, f.number)))
            }),
            Property::always("nothing is committed that is not published", |_, w: &World| {
                let committed = w.committed.unwrap_or(0);
                w.ledger.iter().filter(|e| e.next <= committed).all(|e| w.is_published(e))
            }),
            Property::always("nothing is committed whose rejects are not delivered", |_, w: &World| {
                let committed = w.committed.unwrap_or(0);
                w.ledger
                    .iter()
                    .filter(|e| e.next <= committed && e.has_rejects())
                    .all(|e| w.delivered.contains(&e.first))
            }),
            Property::always("only entry boundaries are committed", |_, w: &World| {
                let is_boundary = |c| w.genesis == Some(c) || w.ledger.iter().any(|e| e.next == c);
                w.committed.is_none_or(is_boundary)
            }),
            Property::always("what an entry names is never lost", |m: &Self, w: &World| {
                // Streams that expire before anybody commits them are lost by nobody's doing.
                if m.forgets > 0 {
                    return true;
                }
                let is_there = |e: &Entry, number| {
                    w.staged.contains(&File { entry: *e, number }) || w.is_final(e, number)
                };
                w.ledger.iter().all(|e| (0..e.files()).all(|n| is_there(e, n)))
            }),
            Property::sometimes("everything is delivered and committed", |m: &Self, w: &World| {
                w.committed == Some(m.offsets)
            }),
        ]
    }
}

fn insert<T: Ord>(sorted: &mut Vec<T>, item: T) {
    if let Err(at) = sorted.binary_search(&item) {
        sorted.insert(at, item);
    }
}

/// Explores everything; every property must hold.
fn holds(protocol: Protocol) {
    let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
    let events = protocol.events.each_ref().map(|n| n.load(Ordering::Relaxed));
    println!("{protocol:?}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    let [adopted, republished, recognised] = events;
    assert!(adopted > 0 && republished > 0, "adopted, republished, recognised own: {events:?}");
    assert_eq!(recognised > 0, protocol.losses > 0, "only a lost reply makes an own entry a surprise");
    for name in [
        "no gap",
        "no overlap",
        "nothing unsealed is visible",
        "no deleted file comes back",
        "nothing is committed that is not published",
        "nothing is committed whose rejects are not delivered",
        "only entry boundaries are committed",
        "what an entry names is never lost",
    ] {
        if let Some(path) = checker.discovery(name) {
            panic!("{name}: {:#?}", path.into_actions());
        }
    }
    checker.assert_properties();
}

/// Explores a world that breaks a rule; that property must fail.
fn breaks(protocol: Protocol, property: &'static str) {
    let checker = protocol
        .checker()
        .threads(2)
        .finish_when(stateright::HasDiscoveries::AllOf([property].into()))
        .spawn_bfs()
        .join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("the harm was not found: {property}"));
    println!("{property}: {} states, {:?}", checker.unique_state_count(), path.into_actions());
}

#[test]
fn every_property_holds_with_two_owners_and_a_crash() {
    holds(Protocol { deletions: 0, ..Protocol::new(Rule::Kept) });
}

#[test]
fn every_property_holds_when_users_delete_files() {
    holds(Protocol { joins: 2, ..Protocol::new(Rule::Kept) });
}

#[test]
#[ignore = "800,000 states; takes 40 s in the dev profile"]
fn every_property_holds_with_everything_at_once() {
    holds(Protocol::new(Rule::Kept));
}

#[test]
fn every_property_holds_with_two_owners_and_two_lost_or_late_replies() {
    holds(Protocol { losses: 2, crashes: 0, deletions: 0, joins: 2, ..Protocol::new(Rule::Kept) });
}

#[test]
fn every_property_holds_with_two_owners_and_a_zombie() {
    holds(Protocol { owners: 3, crashes: 0, losses: 0, deletions: 0, ..Protocol::new(Rule::Kept) });
}

#[test]
fn every_property_holds_with_a_zombie_and_a_lost_or_late_reply_on_one_range() {
    holds(Protocol { owners: 3, offsets: 1, crashes: 0, deletions: 0, ..Protocol::new(Rule::Kept) });
}

#[test]
fn every_property_holds_when_the_group_refuses_zombies_and_offsets_are_moved_by_hand() {
    holds(Protocol { fences: true, hand_moves: 1, joins: 2, deletions: 0, ..Protocol::new(Rule::Kept) });
}

#[test]
fn every_property_holds_over_three_ranges() {
    holds(Protocol { offsets: 3, joins: 2, deletions: 0, losses: 1, ..Protocol::new(Rule::Kept) });
}

/// A stream was committed, and cleared away: who finds the group's offset behind its entry goes on. It was not, and has expired: nobody
/// goes on over it. A commit that arrives late, after the stream's owner has crashed and another one has committed it, changes nothing;
/// what was finalized before a crash and never sealed is never seen.
#[test]
fn every_property_holds_when_streams_are_forgotten_and_expire() {
    holds(Protocol { forgets: 1, deletions: 0, joins: 2, ..Protocol::new(Rule::Kept) });
    holds(Protocol { forgets: 2, offsets: 1, deletions: 0, losses: 1, ..Protocol::new(Rule::Kept) });
}

#[test]
fn every_property_holds_when_streams_are_forgotten_and_offsets_are_moved_by_hand() {
    holds(Protocol {
        forgets: 1,
        hand_moves: 1,
        deletions: 0,
        losses: 0,
        joins: 2,
        ..Protocol::new(Rule::Kept)
    });
}

#[test]
fn taking_every_stream_that_is_gone_for_committed_is_caught() {
    let protocol = Protocol { forgets: 1, deletions: 0, ..Protocol::new(Rule::TakesGoneStreamsForCommitted) };
    breaks(protocol, "nothing is committed that is not published");
}

#[test]
fn proving_a_commit_by_an_offset_that_was_moved_by_hand_is_caught() {
    let protocol =
        Protocol { forgets: 1, hand_moves: 1, deletions: 0, ..Protocol::new(Rule::ProvesByAnyOffset) };
    breaks(protocol, "nothing is committed that is not published");
}

#[test]
fn overwriting_an_entry_is_caught() {
    breaks(Protocol::new(Rule::SealOverwrites), "nothing unsealed is visible");
    breaks(Protocol::new(Rule::SealOverwrites), "no gap");
}

#[test]
fn overwriting_the_genesis_is_caught() {
    // Two owners that have nothing in common but the ledger: between them the group's offset was moved.
    breaks(Protocol { hand_moves: 1, ..Protocol::new(Rule::GenesisOverwrites) }, "no gap");
}

#[test]
fn sealing_before_the_previous_entry_is_published_is_caught() {
    let protocol = Protocol { deletions: 0, ..Protocol::new(Rule::SealsBeforePreviousIsPublished) };
    breaks(protocol, "nothing is committed that is not published");
}

#[test]
fn adopting_without_publishing_is_caught() {
    let protocol = Protocol { deletions: 0, ..Protocol::new(Rule::AdoptsWithoutPublishing) };
    breaks(protocol, "nothing is committed that is not published");
}

#[test]
fn sweeping_by_age_is_caught() {
    breaks(Protocol::new(Rule::SweepsByAge), "what an entry names is never lost");
}

#[test]
fn taking_the_own_seal_for_a_foreign_one_is_caught() {
    breaks(Protocol::new(Rule::TakesOwnSealForForeign), "what an entry names is never lost");
}

#[test]
fn taking_first_from_the_group_offset_is_caught() {
    let moved = Protocol { hand_moves: 1, ..Protocol::new(Rule::TakesFirstFromGroupOffset) };
    breaks(moved.clone(), "no gap");
    breaks(moved, "no overlap");
}

#[test]
fn committing_before_publishing_is_caught() {
    breaks(Protocol::new(Rule::CommitsBeforePublishing), "nothing is committed that is not published");
}

#[test]
fn committing_the_position_is_caught() {
    breaks(Protocol::new(Rule::CommitsPosition), "only entry boundaries are committed");
}

#[test]
fn committing_before_delivering_rejects_is_caught() {
    breaks(
        Protocol::new(Rule::CommitsBeforeDelivering),
        "nothing is committed whose rejects are not delivered",
    );
}

#[test]
fn discarding_staged_files_while_a_seal_is_unsettled_is_caught() {
    breaks(Protocol::new(Rule::DiscardsWhileSealIsUnsettled), "what an entry names is never lost");
}

#[test]
fn copying_instead_of_moving_is_caught() {
    breaks(Protocol::new(Rule::CopiesInsteadOfMoving), "no deleted file comes back");
}

#[test]
fn writing_final_names_before_sealing_is_caught() {
    breaks(Protocol::new(Rule::WritesFinalNamesBeforeSealing), "nothing unsealed is visible");
}
