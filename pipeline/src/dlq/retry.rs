//! Delivers the records of dead letters once more.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use arrow_array::BooleanArray;
use arrow_select::filter::filter_record_batch;
use gristmill::SchemaRegistry;
use gristmill_records::{Header, NO_TIMESTAMP, RawBatch, RawBatchBuilder};
use gristmill_sinks::{
    Checkpoint, DeadLetter, LedgerRef, PartitionId, PartitionSink, RejectedRecord, SinkConfig, Stage,
};

use super::letters::Letters;
use super::{is_older, ledgers, of_same_partition, waiting};
use crate::check::Checked;
use crate::commands::Commands;
use crate::epochs;
use crate::error::{Error, ErrorKind, NO_REGISTRY};
use crate::exits::{self, Place};
use crate::prepare;
use crate::stages::{Birth, OutputRows, Processed, StagePlan, Stages};

/// Records, and bytes of them, that go through the stages at once.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 4 << 20;
/// Of a change that is tried again, in milliseconds: half of what BigQuery allows.
const MAX_AGE_MS: i64 = 86_400_000;
/// The code of letters whose rows could not be told from others of their record.
const SEVERAL_ROWS: &str = "SEVERAL_ROWS";
/// How often a partition is begun again while the store fails in passing.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What a try did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// Which one.
    pub number: u32,
    /// Records that were tried.
    pub records: u64,
    /// Rows that were delivered.
    pub rows: u64,
    /// Dead letters that came of it.
    pub refused: u64,
    /// Records that a transform drops now.
    pub dropped: u64,
    /// Rows that transforms make of the records beside those that were refused, which were delivered or refused by themselves:
    /// they are left out.
    pub left_out: u64,
}

impl Retried {
    fn add(&mut self, other: &Retried) {
        self.records += other.records;
        self.rows += other.rows;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.left_out += other.left_out;
    }
}

/// Whether the dead letters of a pipeline can be tried again. Asks nobody but its ledgers.
///
/// # Errors
/// [`ErrorKind::Config`] if there is nothing to begin a new try with, or if the ledgers are another pipeline's;
/// [`ErrorKind::Sink`].
pub async fn check_retry(checked: &Checked, again: bool) -> Result<(), Error> {
    let (live, own) = ledgers(checked, 0).await?;
    let ours = &checked.pipeline.name;
    if let Some(other) = own.iter().find(|ledger| ledger.id.pipeline != *ours) {
        return Err(Error::config(format!(
            "the ledger of {}-{} belongs to the pipeline {:?}, and this file is of {ours:?}: use the file with that name",
            other.id.topic, other.id.partition, other.id.pipeline
        )));
    }
    let last = live.tries().await.map_err(Error::sink)?;
    if again && last == 0 {
        return Err(Error::config("no dead letter was tried again yet: leave out `--again`"));
    }
    let mut old = Vec::new();
    for number in 1..=last {
        let (_, of_try) = ledgers(checked, number).await?;
        old.extend(of_try.into_iter().filter(|of_try| {
            let same = |live: &&LedgerRef| {
                live.id.partition == of_try.id.partition && live.id.topic_id == of_try.id.topic_id
            };
            own.iter().find(same).is_some_and(|live| is_older(of_try, live))
        }));
    }
    let Some(first) = old.first() else { return Ok(()) };
    let folders: Vec<&str> = old.iter().map(|ledger| ledger.path.trim_end_matches('/')).collect();
    Err(Error::config(format!(
        "the ledger of {}-{} was begun after its dead letters were tried again, so that these were of another one: move {} away, and \
         the first try of it begins anew",
        first.id.topic,
        first.id.partition,
        folders.join(" and ")
    )))
}

/// Delivers the records of dead letters with the pipeline as its file says it now, into its files or tables. Made again it goes on with
/// what has come since; with `again` a new try begins with what the last one has refused. Gives what each try did.
///
/// **Guarantee.** Each row of a record that was refused is delivered once, or refused again, whatever dies and however often it is
/// called, while transforms emit as many rows for a record and in the same order as they did: a row that was emitted is known by its
/// number. With `mode: at_least_once` a crash may repeat some. Safe beside a running pipeline.
///
/// # Errors
/// As of [`Pipeline::prepare`](crate::Pipeline::prepare), and of [`check_retry`].
pub async fn retry_dead_letters(checked: &Checked, again: bool) -> Result<Vec<Retried>, Error> {
    check_retry(checked, again).await?;
    let (live, own) = ledgers(checked, 0).await?;
    let last = live.tries().await.map_err(Error::sink)?;
    let (plan, registry) = prepare::plan(checked).await?;
    let tries = Tries { checked, live, own, plan, registry };
    let mut done = Vec::new();
    // What has come since goes through all that there are.
    for number in 1..=last.max(1) {
        done.push(tries.run(number).await?);
    }
    if again && tries.has_letters(last).await? {
        done.push(tries.run(last + 1).await?);
    }
    Ok(done)
}

struct Tries<'a> {
    checked: &'a Checked,
    /// The pipeline's own ledgers.
    live: SinkConfig,
    own: Vec<LedgerRef>,
    plan: StagePlan,
    registry: Option<SchemaRegistry>,
}

impl Tries<'_> {
    /// Begins a try, or goes on with it.
    async fn run(&self, number: u32) -> Result<Retried, Error> {
        let (source, from) = ledgers(self.checked, number - 1).await?;
        let config = prepare::sink_of_try(self.checked, &self.plan, number).await?;
        let mut retried = Retried { number, ..Retried::default() };
        // A try without a ledger of a partition has refused nothing of it.
        for ledger in self.own.iter().filter_map(|ledger| of_same_partition(&from, ledger)) {
            let of_ledger = OfLedger { tries: self, number, source: &source, config: &config, ledger };
            of_ledger.deliver(&mut retried).await?;
        }
        Ok(retried)
    }

    /// Whether a try has refused anything.
    async fn has_letters(&self, number: u32) -> Result<bool, Error> {
        let (config, ledgers) = ledgers(self.checked, number).await?;
        for ledger in &ledgers {
            if Letters::begin(&config, ledger, 0).await?.of_next_record().await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// One partition of a try.
struct OfLedger<'a> {
    tries: &'a Tries<'a>,
    number: u32,
    /// Where its letters are.
    source: &'a SinkConfig,
    ledger: &'a LedgerRef,
    /// Where its records go.
    config: &'a SinkConfig,
}

/// A partition that is being written.
struct Open {
    stages: Stages,
    sink: PartitionSink,
    /// Of the entry that is open.
    counts: Retried,
}

impl OfLedger<'_> {
    /// Delivers all letters that there are, also where a store fails in passing or another process comes first.
    async fn deliver(&self, retried: &mut Retried) -> Result<(), Error> {
        let mut failures = 0;
        loop {
            match self.deliver_once(retried).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.is_passing() && failures < ATTEMPTS => {
                    let pause = FIRST_PAUSE * (1 << failures);
                    let PartitionId { topic, partition, .. } = &self.ledger.id;
                    tracing::warn!(topic, partition, %error, ?pause, "the store fails; the try goes on from its ledger");
                    tokio::time::sleep(pause).await;
                    failures += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether all of it is delivered, and not by another process that has come first.
    async fn deliver_once(&self, retried: &mut Retried) -> Result<bool, Error> {
        let Tries { checked, live, plan, .. } = self.tries;
        let PartitionId { topic, partition, .. } = &self.ledger.id;
        let name = format!("{}-dlq-{}", checked.pipeline.name, self.number);
        let id = PartitionId { pipeline: name, ..self.ledger.id.clone() };
        let mut stages = plan.open(topic, *partition)?;
        stages.keep_births();
        stages.set_sequence(epochs::stored(live, &id).await?);
        let waiting = self.newest_files_are_there(&id).await?;
        let opened = PartitionSink::open(self.config.clone(), id.clone(), self.ledger.start).await;
        let (mut sink, begin) = opened.map_err(|error| self.gone(error))?;
        sink.set_transform_digest(plan.digest());
        if waiting > 0 {
            // Sealed by a call that died, and published just now.
            sink.note_published().await.map_err(Error::sink)?;
            retried.rows += waiting;
        }
        // What was staged by one that was killed.
        if let Err(error) = gristmill_sinks::sweep_orphans(self.config, &id).await {
            tracing::warn!(%error, "staged objects of an earlier call are left for the next one");
        }
        let mut open = Open { stages, sink, counts: Retried::default() };
        let mut letters = Letters::begin(self.source, self.ledger, begin).await?;
        let (mut batch, mut records, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let found = letters.of_next_record().await?;
            let is_last = found.is_none();
            // What is before it is behind this try.
            if let Some((_, found)) = found.filter(|(offset, _)| *offset >= begin) {
                records += 1;
                bytes += found.first().map_or(0, size);
                batch.extend(found);
            }
            if records >= BATCH || bytes >= BATCH_BYTES || (is_last && !batch.is_empty()) {
                self.hand_over(&mut open, &batch).await?;
                (records, bytes) = (0, 0);
                batch.clear();
                if open.sink.due(std::time::Instant::now()) && !self.checkpoint(&mut open, retried).await? {
                    return Ok(false);
                }
            }
            if is_last {
                break;
            }
        }
        if open.sink.position() > open.sink.first() && !self.checkpoint(&mut open, retried).await? {
            return Ok(false);
        }
        Ok(true)
    }

    /// With the command that goes on without streams that are gone.
    fn gone(&self, error: gristmill_sinks::Error) -> Error {
        if error.kind() != gristmill_sinks::ErrorKind::Changed {
            return Error::sink(error);
        }
        let PartitionId { topic, partition, .. } = &self.ledger.id;
        let commands = Commands::of(&self.tries.checked.file);
        let command = commands.partition(topic, *partition).accept_missing_of_try(self.number);
        Error::new(ErrorKind::Sink, format!("{error}\n  to go on without it: `{command}`"))
    }

    /// Goes on past a file that was published and then deleted, and not past one that was lost before, or may have been. Gives how
    /// many rows wait to be published.
    async fn newest_files_are_there(&self, id: &PartitionId) -> Result<u64, Error> {
        let end = gristmill_sinks::ledger_end(self.config, id).await.map_err(Error::sink)?;
        let Some(tip) = end.and_then(|end| end.tip) else { return Ok(0) };
        let missing = gristmill_sinks::missing_files(self.config, &tip).await.map_err(Error::sink)?;
        if let Some(file) = missing.lost.first().or(missing.gone.first())
            && !gristmill_sinks::noted_published(self.config, id, &tip).await.map_err(Error::sink)?
        {
            let at = Place::of(&self.tries.checked.file, id);
            return Err(exits::lost_file_of_try(at, self.number, (tip.first, tip.next), file));
        }
        Ok(waiting(self.config, id, &tip).await?.iter().map(|file| file.rows).sum())
    }

    async fn hand_over(&self, open: &mut Open, letters: &[DeadLetter]) -> Result<(), Error> {
        let next = letters.last().map_or(0, |letter| letter.offset + 1);
        let mut again: Vec<&DeadLetter> = Vec::new();
        for of_record in letters.chunk_by(|a, b| a.offset == b.offset) {
            let several = self.have_numbers_that_change(of_record);
            for letter in of_record {
                match self.is_beyond(letter, several) {
                    None => again.push(letter),
                    Some((code, why)) => {
                        let DeadLetter { code: was, message, .. } = letter;
                        let message = match was == code {
                            true => message.clone(),
                            false => format!("it was {was} ({message}); {why}"),
                        };
                        let letter = DeadLetter { code: code.to_owned(), message, ..letter.clone() };
                        open.sink.reject_again(letter).map_err(Error::sink)?;
                    }
                }
            }
        }
        let batch = records_of(self.ledger, &again)?;
        let records = batch.len() as u64;
        open.sink.originate(batch.clone());
        let stages = &mut open.stages;
        let transformed = tokio::task::block_in_place(|| stages.transform(batch))?;
        for missing in open.stages.missing_schemas(&transformed) {
            let registry = self.tries.registry.as_ref();
            let registry = registry.ok_or_else(|| Error::config(NO_REGISTRY))?;
            if let Some(schema) = prepare::writer_schema(registry, missing.id, missing.language).await?.text()
            {
                open.stages.add_schema(missing, &schema);
            }
        }
        let stages = &mut open.stages;
        let Processed { outputs, rejects, dropped, births, .. } =
            tokio::task::block_in_place(|| stages.decode(transformed))?;
        open.sink.tally(records, dropped);
        open.counts.records += records;
        open.counts.dropped += dropped;
        let mut of_record: HashMap<i64, OfRecord<'_>> = HashMap::new();
        for letter in &again {
            of_record.entry(letter.offset).or_default().insert(letter.sub, letter);
        }
        let due = Due {
            letters: &of_record,
            births: &births,
            decoding: u32::try_from(stages.before_decoding()).unwrap_or(u32::MAX),
            // A change that is done twice is done once.
            all: prepare::is_cdc(self.tries.checked),
        };
        let mixed = due.mixed();
        for letter in again.iter().filter(|letter| mixed.contains(&letter.offset)) {
            let DeadLetter { code: was, message, .. } = letter;
            let message = match was == SEVERAL_ROWS {
                true => message.clone(),
                false => format!(
                    "it was {was} ({message}); transforms emit rows for it now, and have for another row of the record: their numbers \
                     would be the same. `gristmill replay` writes its offset elsewhere"
                ),
            };
            let letter = DeadLetter { code: SEVERAL_ROWS.to_owned(), message, ..(*letter).clone() };
            open.sink.reject_again(letter).map_err(Error::sink)?;
        }
        let is_due = |offset: i64, sub: u32| !mixed.contains(&offset) && due.is(offset, sub);
        for OutputRows { output, rows, coords } in outputs {
            let is_due: Vec<bool> = coords.iter().map(|coord| is_due(coord.offset, coord.sub)).collect();
            let kept: Vec<_> =
                coords.iter().zip(&is_due).filter(|(_, is)| **is).map(|(coord, _)| *coord).collect();
            open.counts.left_out += (coords.len() - kept.len()) as u64;
            let rows = filter_record_batch(&rows, &BooleanArray::from(is_due)).map_err(Error::arrow)?;
            open.sink.append(&output, &rows, &kept).await.map_err(Error::sink)?;
        }
        for reject in rejects {
            if !is_due(reject.offset, reject.sub) {
                open.counts.left_out += 1;
                continue;
            }
            let due_from = due.still_due_from(&reject);
            open.sink.reject(RejectedRecord { due_from, ..reject }).map_err(Error::sink)?;
        }
        open.sink.advance(next, None).map_err(Error::sink)
    }

    /// Of the letters of one record: a row that goes further than it did may have more emitted for it, and the numbers of others change.
    fn have_numbers_that_change(&self, of_record: &[DeadLetter]) -> bool {
        !prepare::is_cdc(self.tries.checked)
            && of_record.len() > 1
            && of_record.iter().any(|letter| letter.stage != Stage::Write)
            && of_record.iter().any(|letter| letter.sub > 0)
    }

    /// Why a letter's record cannot be tried: a code, and in words.
    fn is_beyond(&self, letter: &DeadLetter, several: bool) -> Option<(&'static str, &'static str)> {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
        let age = letter.timestamp.map(|time| now.saturating_sub(time));
        if letter.payload.is_none() {
            let why =
                "the record was not kept (`payload: omitted`): `gristmill replay` reads it from the topic";
            return Some(("NOT_KEPT", why));
        }
        let is_cdc = prepare::is_cdc(self.tries.checked);
        if several {
            let why = "several rows of the record were refused, and transforms emit rows for it, whose numbers change if one goes further \
                       than it did: `gristmill replay` writes its offset elsewhere";
            return Some((SEVERAL_ROWS, why));
        }
        // A row that was deleted since would come back.
        if is_cdc && age.is_none_or(|age| age > MAX_AGE_MS) {
            let why = "the record is older than a day, and BigQuery forgets after two which rows were deleted: have the source write \
                       the row again";
            return Some(("TOO_OLD", why));
        }
        None
    }

    /// Whether it was this process that has sealed the entry.
    async fn checkpoint(&self, open: &mut Open, retried: &mut Retried) -> Result<bool, Error> {
        match open.sink.checkpoint_in_any_case().await.map_err(Error::sink)? {
            Checkpoint::Published(published) => {
                // BigQuery forgets streams, users delete files, and nothing else would prove that they were published.
                open.sink.note_published().await.map_err(Error::sink)?;
                let (rows, refused) = (published.rows, published.rejects);
                let counts = std::mem::take(&mut open.counts);
                retried.add(&Retried { rows, refused, ..counts });
                Ok(true)
            }
            Checkpoint::Adopted { .. } => Ok(false),
            Checkpoint::Nothing => Ok(true),
        }
    }
}

/// The letters of a record, by the number of their rows.
type OfRecord<'a> = HashMap<u32, &'a DeadLetter>;

/// Which rows of records that are tried again are due: those that were refused, and what is emitted for them by the transform that
/// refused them, and after it. What was emitted before was delivered, or is refused by itself.
struct Due<'a> {
    /// By offset.
    letters: &'a HashMap<i64, OfRecord<'a>>,
    births: &'a HashMap<(i64, u32), Birth>,
    /// How many transforms are before decoding.
    decoding: u32,
    all: bool,
}

impl Due<'_> {
    fn is(&self, offset: i64, sub: u32) -> bool {
        let Some(letters) = self.letters.get(&offset) else { return false };
        if self.all {
            return true;
        }
        let (mut row, mut born) = (sub, None);
        loop {
            if letters.get(&row).is_some_and(|letter| self.comes_after(letter, born)) {
                return true;
            }
            match self.births.get(&(offset, row)) {
                Some(birth) => (row, born) = (birth.from, Some(birth.transform)),
                None => return false,
            }
        }
    }

    /// Records of which rows are due that were emitted for what goes further now, and others are not that were emitted no earlier, for
    /// other rows: these were given such numbers when the record came first.
    fn mixed(&self) -> HashSet<i64> {
        if self.all {
            return HashSet::new();
        }
        let (mut new, mut old) = (HashSet::new(), HashSet::new());
        let first_place = |letters: &OfRecord<'_>| {
            letters.values().map(|l| l.due_from.unwrap_or(self.place(l.stage, l.transform))).min()
        };
        let places: HashMap<i64, Option<u32>> =
            self.letters.iter().map(|(offset, letters)| (*offset, first_place(letters))).collect();
        for (&(offset, sub), birth) in self.births {
            let place = places.get(&offset).copied().flatten();
            let is_letter = self.letters.get(&offset).is_some_and(|letters| letters.contains_key(&sub));
            if is_letter || place.is_none_or(|place| birth.transform < place) {
                continue;
            }
            if self.is(offset, sub) {
                new.insert(offset)
            } else {
                old.insert(offset)
            };
        }
        new.retain(|offset| old.contains(offset));
        new
    }

    /// Whether what that transform has emitted for the row of a letter could not be there: none is the row itself.
    fn comes_after(&self, letter: &DeadLetter, born: Option<u32>) -> bool {
        let from = letter.due_from.unwrap_or(self.place(letter.stage, letter.transform));
        born.is_none_or(|born| born >= from)
    }

    /// The first transform whose rows are due of what was refused there.
    fn place(&self, stage: Stage, transform: Option<u32>) -> u32 {
        match stage {
            Stage::Transform => transform.unwrap_or(u32::MAX),
            Stage::Decode | Stage::DecodeKey => self.decoding,
            _ => u32::MAX,
        }
    }

    /// Of a row that is refused again, and earlier than before: what came in between was delivered the first time.
    fn still_due_from(&self, reject: &RejectedRecord) -> Option<u32> {
        let letters = self.letters.get(&reject.offset)?;
        let before = letters.get(&reject.sub)?;
        let before = before.due_from.unwrap_or(self.place(before.stage, before.transform));
        (before > self.place(reject.stage, reject.transform)).then_some(before)
    }
}

/// About how many bytes a letter's record has.
fn size(letter: &DeadLetter) -> usize {
    let bytes = |blob: &Option<gristmill_sinks::Blob>| blob.as_ref().map_or(0, |blob| blob.0.len());
    letter.payload.as_ref().map_or(0, |payload| bytes(&payload.key) + bytes(&payload.value))
}

/// The records that were refused, or of which something was.
fn records_of(ledger: &LedgerRef, letters: &[&DeadLetter]) -> Result<RawBatch, Error> {
    let PartitionId { topic, partition, .. } = &ledger.id;
    let mut builder = RawBatchBuilder::new(topic.as_str(), *partition);
    let mut last = None;
    for letter in letters {
        let Some(payload) = letter.payload.as_ref().filter(|_| last != Some(letter.offset)) else { continue };
        last = Some(letter.offset);
        let bytes = |blob: &Option<gristmill_sinks::Blob>| blob.as_ref().map(|blob| blob.0.clone());
        let (key, value) = (bytes(&payload.key), bytes(&payload.value));
        let headers = payload
            .headers
            .iter()
            .map(|(name, value)| Header { name: &name.0, value: value.as_ref().map(|value| &value.0[..]) });
        let timestamp = letter.timestamp.unwrap_or(NO_TIMESTAMP);
        builder
            .push(letter.offset, timestamp, key.as_deref(), value.as_deref(), headers)
            .map_err(|e| Error::new(ErrorKind::Sink, format!("dead letters of {topic}-{partition}: {e}")))?;
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(sub: u32, stage: Stage, transform: Option<u32>) -> DeadLetter {
        let text = String::new;
        DeadLetter {
            offset: 7,
            sub,
            timestamp: None,
            stage,
            transform,
            due_from: None,
            code: text(),
            message: text(),
            payload: None,
        }
    }

    /// One transform of records emits 1 for the record, one of columns 2 for the record and 3 for 1, another one 4 for 3.
    #[test]
    fn rows_are_due_that_could_not_be_there() {
        let birth = |from, transform| Birth { from, transform };
        let births: HashMap<(i64, u32), Birth> =
            [((7, 1), birth(0, 0)), ((7, 2), birth(0, 1)), ((7, 3), birth(1, 1)), ((7, 4), birth(3, 2))]
                .into();
        let due = |letter: &DeadLetter| -> Vec<u32> {
            let letters = HashMap::from([(7, OfRecord::from([(letter.sub, letter)]))]);
            let due = Due { letters: &letters, births: &births, decoding: 1, all: false };
            assert!(!due.is(8, 0));
            (0..6).filter(|sub| due.is(7, *sub)).collect()
        };
        assert_eq!(due(&letter(0, Stage::Transform, Some(0))), [0, 1, 2, 3, 4]);
        assert_eq!(due(&letter(0, Stage::Decode, None)), [0, 2]);
        assert_eq!(due(&letter(0, Stage::Transform, Some(1))), [0, 2]);
        assert_eq!(due(&letter(0, Stage::Transform, Some(2))), [0]);
        assert_eq!(due(&letter(0, Stage::Write, None)), [0]);
        assert_eq!(due(&letter(1, Stage::Decode, None)), [1, 3, 4]);
        assert_eq!(due(&letter(1, Stage::Transform, Some(2))), [1]);
        assert_eq!(due(&letter(3, Stage::Transform, Some(2))), [3, 4]);
        assert_eq!(due(&letter(3, Stage::Write, None)), [3]);
        assert_eq!(due(&letter(5, Stage::Write, None)), [5]);

        let mixed = |letter: &DeadLetter| {
            let letters = HashMap::from([(7, OfRecord::from([(letter.sub, letter)]))]);
            !Due { letters: &letters, births: &births, decoding: 1, all: false }.mixed().is_empty()
        };
        // 2 and 3 are emitted by one transform for 0 and 1: where only one of the two is due, its number was another's.
        assert!(mixed(&letter(0, Stage::Decode, None)));
        assert!(mixed(&letter(1, Stage::Decode, None)));
        assert!(!mixed(&letter(0, Stage::Transform, Some(0))));
        assert!(!mixed(&letter(0, Stage::Write, None)) && !mixed(&letter(3, Stage::Transform, Some(2))));

        // Refused where it is written, then by the first transform: what was emitted in between is there.
        let before = letter(0, Stage::Write, None);
        let letters = HashMap::from([(7, OfRecord::from([(before.sub, &before)]))]);
        let of_try = Due { letters: &letters, births: &births, decoding: 1, all: false };
        let reject = |stage, transform| RejectedRecord {
            offset: 7,
            sub: 0,
            stage,
            transform,
            due_from: None,
            code: String::new(),
            message: String::new(),
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        };
        let due_from = of_try.still_due_from(&reject(Stage::Transform, Some(0)));
        assert_eq!(due_from, Some(u32::MAX));
        assert_eq!(due(&DeadLetter { due_from, ..letter(0, Stage::Transform, Some(0)) }), [0]);
        assert_eq!(of_try.still_due_from(&reject(Stage::Write, None)), None);
    }
}
