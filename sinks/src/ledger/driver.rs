use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, Genesis, Rejects};
use super::machine::{Action, Answer, Event, Machine, Misuse};
use crate::dead_letter::{DeadLetter, DeadLetterContext, DeadLetterSink};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::{Failpoint, Failpoints};
use crate::names::{PartitionId, Paths};
use crate::store::{Create, Move, Store};

/// How often and how patiently a request is tried again while the store is unavailable. A delay of zero does
/// not wait at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, at least 1.
    pub attempts: u32,
    /// The wait after the first failure; it doubles each time.
    pub first_delay: Duration,
    /// The longest wait.
    pub max_delay: Duration,
}

impl Default for Retry {
    /// 8 tries over about 10 seconds.
    fn default() -> Self {
        Retry { attempts: 8, first_delay: Duration::from_millis(100), max_delay: Duration::from_secs(5) }
    }
}

impl Retry {
    async fn wait(&self, failures: u32) {
        let delay =
            self.first_delay.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.max_delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

/// How often the ledger had something to settle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerCounters {
    /// Entries of other writers taken over after a refused seal.
    pub adopted: u64,
    /// Entries of writers that were gone, whose files this one published.
    pub republished: u64,
    /// Entries that turned out to be ours after a lost reply.
    pub recognised_own: u64,
    /// Entries that this writer sealed.
    pub sealed: u64,
    /// Requests that failed and were tried again.
    pub retries: u64,
}

impl LedgerCounters {
    /// Adds what `other` counted.
    pub fn add(&mut self, other: &LedgerCounters) {
        self.adopted += other.adopted;
        self.republished += other.republished;
        self.recognised_own += other.recognised_own;
        self.sealed += other.sealed;
        self.retries += other.retries;
    }
}

/// What the driver works with.
#[derive(Clone, Debug)]
pub(crate) struct Resources {
    pub(crate) state: Arc<dyn Store>,
    pub(crate) objects: Arc<dyn Store>,
    pub(crate) dead_letters: Option<Arc<dyn DeadLetterSink>>,
    pub(crate) retry: Retry,
    pub(crate) failpoints: Failpoints,
}

/// Runs the [`Machine`] against stores.
///
/// Cancel safe: the machine moves only after an action is through, and every action may be done again.
#[derive(Debug)]
pub(crate) struct Ledger {
    machine: Machine<Arc<Entry>>,
    id: PartitionId,
    paths: Paths,
    resources: Resources,
    counters: LedgerCounters,
    start_if_new: i64,
    must_deliver: bool,
    /// What is before this offset was published, says somebody who knows.
    published: i64,
}

impl Ledger {
    pub(crate) fn new(resources: Resources, id: PartitionId, paths: Paths, start_if_new: i64) -> Self {
        Ledger {
            machine: Machine::new(start_if_new),
            id,
            paths,
            resources,
            counters: LedgerCounters::default(),
            start_if_new,
            must_deliver: false,
            published: i64::MIN,
        }
    }

    /// Makes it an error if an entry has dead letters and there is no place for them.
    pub(crate) fn must_deliver(self) -> Self {
        Ledger { must_deliver: true, ..self }
    }

    /// Takes what is before that offset for published where nobody else can say.
    pub(crate) fn published_before(self, published: i64) -> Self {
        Ledger { published, ..self }
    }

    pub(crate) fn ready(&self) -> Option<i64> {
        self.machine.ready()
    }

    pub(crate) fn counters(&self) -> LedgerCounters {
        self.counters
    }

    pub(crate) fn committable(&self) -> Option<i64> {
        self.machine.committable()
    }

    pub(crate) fn propose(&mut self, entry: Arc<Entry>) -> Result<()> {
        self.machine.propose(entry).map_err(misuse)
    }

    /// Creates an object whose name only this attempt can have chosen: one that exists is ours.
    pub(crate) async fn create_unique(&self, name: &str, bytes: bytes::Bytes) -> Result<()> {
        let retry = &self.resources.retry;
        let mut failures = 0;
        loop {
            match self.resources.state.create_if_absent(name, bytes.clone()).await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_retryable() && failures + 1 < retry.attempts => {
                    failures += 1;
                    retry.wait(failures).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Does what the machine asks for until it waits for the next entry.
    pub(crate) async fn drive(&mut self) -> Result<()> {
        let mut failures = 0;
        loop {
            if matches!(self.machine.action(), Action::Wait) {
                return Ok(());
            }
            match self.perform().await {
                Ok(answer) => {
                    let unsettled = matches!(answer, Answer::Entry(None) | Answer::GenesisUnsettled);
                    let step = Step::of(&answer);
                    let event = self.machine.answer(answer).map_err(misuse)?;
                    self.count(event);
                    step.failpoint(&self.resources.failpoints)?;
                    if unsettled {
                        // The seal is asked for again: a store that always answers so must not keep us for ever.
                        failures += 1;
                        if failures >= self.resources.retry.attempts {
                            return Err(Error::new(
                                ErrorKind::OutcomeUnknown,
                                format!(
                                    "the state store neither confirms nor shows ledger objects under {}; the next \
                                     start settles it",
                                    self.paths.ledger
                                ),
                            ));
                        }
                        self.resources.retry.wait(failures).await;
                    } else if step != Step::Unsettled {
                        failures = 0;
                    }
                }
                Err(e) if e.is_retryable() && failures + 1 < self.resources.retry.attempts => {
                    failures += 1;
                    self.counters.retries += 1;
                    tracing::warn!(topic = %self.id.topic, partition = self.id.partition, failures, error = %e, "ledger step failed, trying again");
                    self.resources.retry.wait(failures).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn count(&mut self, event: Option<Event>) {
        match event {
            None => return,
            Some(Event::Adopted) => self.counters.adopted += 1,
            Some(Event::Republished) => self.counters.republished += 1,
            Some(Event::RecognisedOwn) => {
                self.counters.recognised_own += 1;
                self.counters.sealed += 1;
            }
        }
        tracing::info!(topic = %self.id.topic, partition = self.id.partition, ?event, "ledger");
    }

    async fn perform(&mut self) -> Result<Answer<Arc<Entry>>> {
        match self.machine.action() {
            Action::ReadGenesis => self.read_genesis().await,
            Action::CreateGenesis { start } => self.create_genesis(start).await,
            Action::FindTip { start } => {
                Ok(Answer::Tip(find_tip(&self.resources.state, &self.paths, &self.id, start).await?))
            }
            Action::Move { entry, file } => {
                let entry = entry.clone();
                self.publish(&entry, file).await
            }
            Action::Deliver { entry } => {
                let entry = entry.clone();
                self.deliver(&entry).await
            }
            Action::Seal { entry } => {
                let entry = entry.clone();
                self.seal(&entry).await
            }
            Action::ReadEntry { first } => {
                Ok(Answer::Entry(read_entry(&self.resources.state, &self.paths, &self.id, first).await?))
            }
            Action::Discard { entry } => {
                let entry = entry.clone();
                self.discard(&entry).await;
                Ok(Answer::Discarded)
            }
            Action::Wait => Err(misuse(Misuse("nothing to do".to_owned()))),
        }
    }

    async fn read_genesis(&self) -> Result<Answer<Arc<Entry>>> {
        Ok(Answer::Genesis(read_genesis(&self.resources.state, &self.paths, &self.id).await?))
    }

    async fn create_genesis(&self, start: i64) -> Result<Answer<Arc<Entry>>> {
        debug_assert_eq!(start, self.start_if_new);
        let genesis = Genesis::new(&self.id, start).to_json()?;
        match self.resources.state.create_if_absent(&self.paths.genesis(), genesis.into()).await {
            Ok(Create::Created(_)) => Ok(Answer::GenesisCreated),
            Ok(Create::Exists) => Ok(Answer::GenesisUnsettled),
            Err(e) if e.kind() == ErrorKind::OutcomeUnknown => Ok(Answer::GenesisUnsettled),
            Err(e) => Err(e),
        }
    }

    async fn seal(&mut self, entry: &Entry) -> Result<Answer<Arc<Entry>>> {
        let name = self.paths.entry(entry.first);
        match self.resources.state.create_if_absent(&name, entry.to_json()?.into()).await {
            Ok(_) if self.resources.failpoints.loses_reply() => Ok(Answer::NotSealed),
            Ok(Create::Created(_)) => {
                self.counters.sealed += 1;
                Ok(Answer::Sealed)
            }
            Ok(Create::Exists) => Ok(Answer::NotSealed),
            Err(e) if e.kind() == ErrorKind::OutcomeUnknown => {
                tracing::warn!(%name, error = %e, "the reply to a seal was lost, reading back");
                Ok(Answer::NotSealed)
            }
            Err(e) => Err(e),
        }
    }

    async fn publish(&self, entry: &Entry, file: usize) -> Result<Answer<Arc<Entry>>> {
        let Some(file) = entry.files.get(file) else {
            return Err(misuse(Misuse(format!("entry {} has no file {file}", entry.first))));
        };
        let objects = &self.resources.objects;
        match objects.move_if_absent(&file.staged, file.generation, &file.final_name).await? {
            Move::Moved => Ok(Answer::Moved),
            Move::AlreadyMoved => Ok(Answer::AlreadyMoved),
            Move::Gone if entry.next <= self.published || self.is_accepted(entry).await? => {
                tracing::warn!(
                    stream = file.staged,
                    rows = file.rows,
                    first = entry.first,
                    next = entry.next,
                    "a stream of the newest entry is gone, and counts as committed"
                );
                Ok(Answer::AlreadyMoved)
            }
            Move::Gone => Err(Error::new(
                ErrorKind::Changed,
                format!(
                    "{} holds {} sealed rows of offsets {} to {} of topic {} partition {}, and it is gone: whether it was \
                     committed nobody can say. Look for these rows in the table, by `_kafka_partition` and `_kafka_offset`; \
                     nothing was read or written",
                    file.staged,
                    file.rows,
                    entry.first,
                    entry.next - 1,
                    self.id.topic,
                    self.id.partition
                ),
            )),
            Move::DestinationExists => Err(Error::new(
                ErrorKind::DestinationTaken,
                format!(
                    "cannot publish offsets {} to {} of topic {} partition {}: {} exists and was not written by this \
                     ledger; nothing was overwritten and the data is safe in {}; move the foreign file away and start \
                     again",
                    entry.first,
                    entry.next - 1,
                    self.id.topic,
                    self.id.partition,
                    file.final_name,
                    file.staged
                ),
            )),
        }
    }

    /// Whether an operator goes on without what is gone of an entry.
    async fn is_accepted(&self, entry: &Entry) -> Result<bool> {
        Ok(self.resources.state.get(&self.paths.accepted(entry.first, entry.attempt)).await?.is_some())
    }

    async fn deliver(&self, entry: &Entry) -> Result<Answer<Arc<Entry>>> {
        match (&self.resources.dead_letters, &entry.rejects) {
            (Some(target), Some(rejects)) => {
                let letters = read_rejects(&self.resources.state, rejects).await?;
                let context = DeadLetterContext { id: &self.id, first: entry.first, attempt: entry.attempt };
                target.deliver(context, &letters).await?;
            }
            (None, Some(_)) if self.must_deliver => return Err(no_place_for_letters(entry)),
            _ => {}
        }
        Ok(Answer::Delivered)
    }

    /// Our entry was refused and will never exist, so what was staged for it is ours to delete.
    async fn discard(&self, entry: &Entry) {
        let files = entry.files.iter().map(|f| (&self.resources.objects, f.staged.as_str()));
        let rejects = entry.rejects.iter().filter_map(|r| match r {
            Rejects::Object { name, .. } => Some((&self.resources.state, name.as_str())),
            Rejects::Inline(_) => None,
        });
        for (store, name) in files.chain(rejects) {
            if let Err(e) = store.delete(name).await {
                tracing::warn!(name, error = %e, "a staged object is left for the sweep");
            }
        }
    }
}

/// Nobody knows whether the dead letters of the newest entry were delivered, and this configuration cannot do it.
pub(crate) fn no_place_for_letters(entry: &Entry) -> Error {
    let text = format!(
        "the entry of offsets {} to {} has {} dead letters, and the pipeline file no `dead_letters` to deliver them to: they \
         would be lost; put the pipeline's `dead_letters` back into the file",
        entry.first,
        entry.next - 1,
        entry.reject_count()
    );
    Error::new(ErrorKind::DeadLetter, text)
}

/// Where in the protocol a failpoint sits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Sealed,
    Moved,
    /// Part of the loop of seal and read-back, which is bounded as a whole.
    Unsettled,
    Other,
}

impl Step {
    fn of<E>(answer: &Answer<E>) -> Self {
        match answer {
            Answer::Sealed => Step::Sealed,
            Answer::Moved => Step::Moved,
            Answer::NotSealed | Answer::Genesis(None) => Step::Unsettled,
            _ => Step::Other,
        }
    }

    fn failpoint(self, failpoints: &Failpoints) -> Result<()> {
        match self {
            Step::Sealed => failpoints.hit(Failpoint::AfterSeal),
            Step::Moved => failpoints.hit(Failpoint::AfterMove),
            Step::Unsettled | Step::Other => Ok(()),
        }
    }
}

fn misuse(e: Misuse) -> Error {
    Error::new(ErrorKind::Usage, format!("the ledger was used out of order: {e}"))
}

/// Where the ledger starts; `None` if there is none.
pub(crate) async fn read_genesis(
    state: &Arc<dyn Store>,
    paths: &Paths,
    id: &PartitionId,
) -> Result<Option<i64>> {
    let name = paths.genesis();
    let Some(object) = state.get(&name).await? else { return Ok(None) };
    let genesis = Genesis::parse(&name, &object.bytes)?;
    genesis.check(&name, id)?;
    Ok(Some(genesis.start))
}

pub(crate) async fn read_entry(
    state: &Arc<dyn Store>,
    paths: &Paths,
    id: &PartitionId,
    first: i64,
) -> Result<Option<Arc<Entry>>> {
    let name = paths.entry(first);
    let Some(object) = state.get(&name).await? else { return Ok(None) };
    let entry = Entry::parse(&name, first, &object.bytes)?;
    if entry.topic_id != id.topic_id_text() {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("ledger entry {name} is of topic id {}, not of this ledger's", entry.topic_id),
        ));
    }
    Ok(Some(Arc::new(entry)))
}

pub(crate) async fn read_rejects(state: &Arc<dyn Store>, rejects: &Rejects) -> Result<Vec<DeadLetter>> {
    let (name, crc32c) = match rejects {
        Rejects::Inline(letters) => return Ok(letters.clone()),
        Rejects::Object { name, crc32c, .. } => (name, *crc32c),
    };
    let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("rejects object {name} {what}"));
    let object = state.get(name).await?.ok_or_else(|| corrupt("is gone; restore it from a copy"))?;
    if crc32c::crc32c(&object.bytes) != crc32c {
        return Err(corrupt("is not what the entry says (checksum); restore it from a copy"));
    }
    object
        .bytes
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            serde_json::from_slice(line).map_err(|e| corrupt("has a line that is no reject").with_source(e))
        })
        .collect()
}

/// How many entries one listing asks for.
const PAGE: usize = 1000;

/// The last entry from `start` on. A long ledger is not read through: beyond one page the last entry is
/// searched by doubling the distance.
pub(crate) async fn find_tip(
    state: &Arc<dyn Store>,
    paths: &Paths,
    id: &PartitionId,
    start: i64,
) -> Result<Option<Arc<Entry>>> {
    let prefix = paths.entries();
    let mut after = paths.before_entry(start);
    let mut last = None;
    loop {
        let page = firsts(state, paths, &prefix, &after, PAGE).await?;
        let full = page.len() >= PAGE;
        let Some(newest) = page.last().copied() else { break };
        last = Some(newest);
        if !full {
            break;
        }
        let mut reached = newest;
        let mut step = newest.saturating_sub(page[0]).max(1);
        while let Some(probe) = reached.checked_add(step) {
            match firsts(state, paths, &prefix, &paths.before_entry(probe), 1).await?.first() {
                Some(found) => (reached, step) = (*found, step.saturating_mul(2)),
                None => break,
            }
        }
        last = Some(reached);
        after = paths.entry(reached);
    }
    match last {
        None => Ok(None),
        Some(first) => match read_entry(state, paths, id, first).await? {
            Some(entry) => Ok(Some(entry)),
            None => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "ledger entry {} was listed and then gone; somebody deletes ledger objects",
                    paths.entry(first)
                ),
            )),
        },
    }
}

/// The first offsets of the entries after the name `after`.
pub(crate) async fn firsts(
    state: &Arc<dyn Store>,
    paths: &Paths,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<i64>> {
    let listed = state.list(prefix, Some(after), limit).await?;
    listed
        .iter()
        .map(|l| {
            paths.parse_entry(&l.name).ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{} is among the ledger's entries and is none; move it away", l.name),
                )
            })
        })
        .collect()
}
