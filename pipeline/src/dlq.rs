//! The dead letters of a pipeline, as its ledgers hold them; and delivering their records once more.
//!
//! A try is a pipeline of its own, under ledgers of its own (`{state}/dlq/{try}`), whose topic is the dead letters: the first try
//! reads those of the pipeline, each later one those of the try before it. So a try that is made again, or dies, delivers nothing
//! twice, and goes on with what has come since.

use std::collections::HashSet;

use arrow_array::BooleanArray;
use arrow_select::filter::filter_record_batch;
use gristmill::SchemaRegistry;
use gristmill_records::{Header, NO_TIMESTAMP, RawBatch, RawBatchBuilder};
use gristmill_sinks::{
    Checkpoint, DeadLetter, LedgerRef, PartitionId, PartitionSink, RejectedPayload, RejectedRecord,
    SinkConfig, Stage, dead_letters_of,
};

use crate::check::Checked;
use crate::epochs;
use crate::error::{Error, ErrorKind};
use crate::prepare;
use crate::stages::{OutputRows, Processed, StagePlan, Stages};

/// Records that go through the stages at once.
const BATCH: usize = 500;
/// Ledger entries that are read at once.
const PAGE: usize = 100;
/// Of a change that is tried again, in milliseconds: half of what BigQuery allows.
const MAX_AGE_MS: i64 = 86_400_000;
/// Tries that there may be.
const MAX_TRIES: u32 = 1_000;

/// What has become of a dead letter since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterState {
    /// Its record was not tried again.
    Waiting,
    /// That try delivered it.
    Delivered(u32),
    /// That try refused it, too: the newest that did.
    RefusedAgain(u32),
}

/// A dead letter, and what has become of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Letter {
    /// The partition that its record lies in.
    pub id: PartitionId,
    /// As it was refused last.
    pub letter: DeadLetter,
    /// What has become of it.
    pub state: LetterState,
}

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
    /// Rows that transforms make of the records beside those that were refused, which may have been delivered: they are left out.
    pub left_out: u64,
}

/// The ledgers of a pipeline's tries, from the first on: those that there are.
async fn tries(config: &SinkConfig) -> Result<u32, Error> {
    let (state, prefix) = config.state();
    for number in 1..=MAX_TRIES {
        let found = state.list(&format!("{prefix}/dlq/{number}/"), None, 1).await.map_err(Error::sink)?;
        if found.is_empty() {
            return Ok(number - 1);
        }
    }
    Ok(MAX_TRIES)
}

/// The ledgers of one pipeline or try.
async fn ledgers(checked: &Checked, number: u32) -> Result<(SinkConfig, Vec<LedgerRef>), Error> {
    let config = prepare::ledger_of_try(checked, number)?;
    let ledgers = gristmill_sinks::list_ledgers(&config).await.map_err(Error::sink)?;
    Ok((config, ledgers))
}

/// Gives all dead letters of a pipeline to `take`, by partition and in order, as they were refused last. Nothing is changed; safe
/// beside a running pipeline.
///
/// # Errors
/// [`ErrorKind::Config`] without a ledger; [`ErrorKind::Sink`]; those of `take`.
pub async fn dead_letters<E: From<Error>>(
    checked: &Checked,
    mut take: impl FnMut(Letter) -> Result<(), E>,
) -> Result<(), E> {
    let (live, own) = ledgers(checked, 0).await?;
    let last = tries(&live).await?;
    let mut retried = Vec::new();
    for number in 1..=last {
        retried.push(ledgers(checked, number).await?);
    }
    for ledger in own {
        // How far each try has come, and what it has refused: in memory are those of one partition's tries.
        let mut refused: Vec<(i64, Vec<DeadLetter>)> = Vec::new();
        for (config, ledgers) in &retried {
            let is_same = |other: &&LedgerRef| {
                other.id.partition == ledger.id.partition && other.id.topic_id == ledger.id.topic_id
            };
            let Some(of_try) = ledgers.iter().find(is_same) else { break };
            let (mut letters, mut from) = (Vec::new(), 0);
            loop {
                let (found, next) = dead_letters_of(config, of_try, from, PAGE).await.map_err(Error::sink)?;
                letters.extend(found);
                if next == from {
                    break;
                }
                from = next;
            }
            refused.push((from, letters));
        }
        let mut from = 0;
        loop {
            let (letters, next) = dead_letters_of(&live, &ledger, from, PAGE).await.map_err(Error::sink)?;
            for letter in letters {
                let (letter, state) = newest(letter, &refused);
                take(Letter { id: ledger.id.clone(), letter, state })?;
            }
            if next == from {
                break;
            }
            from = next;
        }
    }
    Ok(())
}

fn newest(first: DeadLetter, tries: &[(i64, Vec<DeadLetter>)]) -> (DeadLetter, LetterState) {
    let (mut letter, mut state) = (first, LetterState::Waiting);
    for ((next, refused), number) in tries.iter().zip(1..) {
        if letter.offset >= *next {
            break;
        }
        let at =
            refused.binary_search_by_key(&(letter.offset, letter.sub), |other| (other.offset, other.sub));
        match at {
            Ok(at) => (letter, state) = (refused[at].clone(), LetterState::RefusedAgain(number)),
            Err(_) => return (letter, LetterState::Delivered(number)),
        }
    }
    (letter, state)
}

/// Delivers the records of dead letters with the pipeline as its file says it now, into its tables. Made again it goes on with
/// what has come since; with `again` a new try begins with what the last one has refused.
///
/// **Guarantee.** Each row of a record that was refused is delivered once, or refused again, whatever dies and however often it is
/// called. Safe beside a running pipeline.
///
/// # Errors
/// As of [`Pipeline::prepare`](crate::Pipeline::prepare); [`ErrorKind::Config`] if rows go to files, if a record was not kept
/// (`payload: omitted`), or if there is nothing to be tried again.
pub async fn retry_dead_letters(checked: &Checked, again: bool) -> Result<Retried, Error> {
    if checked.pipeline.sink.bigquery.is_none() {
        let text = "dead letters are delivered again into tables of BigQuery alone; of files `gristmill replay` writes a range beside \
                    them";
        return Err(Error::config(text));
    }
    let (live, own) = ledgers(checked, 0).await?;
    let last = tries(&live).await?;
    let number = if again { last + 1 } else { last.max(1) };
    let (source, from) = match number {
        1 => (live.clone(), own),
        _ => ledgers(checked, number - 1).await?,
    };
    if again && last == 0 {
        return Err(Error::config("no dead letter was tried again yet: leave out `--again`"));
    }
    let (plan, registry) = prepare::plan(checked).await?;
    let config = prepare::sink_of_try(checked, &plan, number).await?;
    let mut retried = Retried { number, ..Retried::default() };
    for ledger in from {
        let mut of_ledger = OfLedger {
            checked,
            live: &live,
            source: &source,
            config: &config,
            plan: &plan,
            registry: registry.as_ref(),
            ledger: &ledger,
            retried: &mut retried,
        };
        while !of_ledger.deliver().await? {}
    }
    Ok(retried)
}

struct OfLedger<'a> {
    checked: &'a Checked,
    live: &'a SinkConfig,
    source: &'a SinkConfig,
    config: &'a SinkConfig,
    plan: &'a StagePlan,
    registry: Option<&'a SchemaRegistry>,
    ledger: &'a LedgerRef,
    retried: &'a mut Retried,
}

impl OfLedger<'_> {
    /// Whether all of it is delivered, and not by another process that has come first.
    async fn deliver(&mut self) -> Result<bool, Error> {
        let PartitionId { topic, partition, .. } = &self.ledger.id;
        let name = format!("{}-dlq-{}", self.checked.pipeline.name, self.retried.number);
        let id = PartitionId { pipeline: name, ..self.ledger.id.clone() };
        let mut stages = self.plan.open(topic, *partition)?;
        stages.set_sequence(epochs::stored(self.live, &id).await?);
        let (mut sink, begin) = PartitionSink::open(self.config.clone(), id, 0).await.map_err(Error::sink)?;
        let mut from = 0;
        loop {
            let page = dead_letters_of(self.source, self.ledger, from, PAGE).await.map_err(Error::sink)?;
            let (letters, next) = page;
            let mut letters: Vec<DeadLetter> =
                letters.into_iter().filter(|letter| letter.offset >= begin).collect();
            while !letters.is_empty() {
                let rest = letters.split_off(end_of_batch(&letters));
                if !self.hand_over(&mut stages, &mut sink, &letters).await? {
                    return Ok(false);
                }
                letters = rest;
            }
            if next == from {
                break;
            }
            from = next;
        }
        match sink.position() > sink.first() {
            true => self.checkpoint(&mut sink).await,
            false => Ok(true),
        }
    }

    async fn hand_over(
        &mut self,
        stages: &mut Stages,
        sink: &mut PartitionSink,
        letters: &[DeadLetter],
    ) -> Result<bool, Error> {
        let next = letters.last().map_or(0, |letter| letter.offset + 1);
        let (old, letters): (Vec<DeadLetter>, Vec<DeadLetter>) =
            letters.iter().cloned().partition(|letter| self.is_too_old(letter));
        for letter in old {
            sink.reject(too_old(letter)).map_err(Error::sink)?;
        }
        let batch = records_of(self.ledger, &letters)?;
        let records = batch.len() as u64;
        sink.originate(batch.clone());
        let transformed = tokio::task::block_in_place(|| stages.transform(batch))?;
        for missing in stages.missing_schemas(&transformed) {
            let registry = self.registry.ok_or_else(|| Error::config("Avro needs `schema_registry`"))?;
            if let Some(schema) = prepare::writer_schema(registry, missing.id).await? {
                stages.add_schema(missing, &schema);
            }
        }
        // Of a record whose value did not decode nothing was delivered but what a transform had emitted for it before.
        let emitted: HashSet<(i64, u32)> =
            transformed.leaving().iter().filter(|r| r.sub > 0).map(|r| (r.offset, r.sub)).collect();
        let whole = letters.iter().filter(|letter| letter.sub == 0 && letter.stage == Stage::Decode);
        let whole: HashSet<i64> = whole.map(|letter| letter.offset).collect();
        let Processed { outputs, rejects, dropped, .. } =
            tokio::task::block_in_place(|| stages.decode(transformed))?;
        sink.tally(records, dropped);
        self.retried.records += records;
        self.retried.dropped += dropped;
        let refused: HashSet<(i64, u32)> = letters.iter().map(|letter| (letter.offset, letter.sub)).collect();
        let is_wanted = |offset: i64, sub: u32| {
            refused.contains(&(offset, sub)) || whole.contains(&offset) && !emitted.contains(&(offset, sub))
        };
        for OutputRows { output, rows, coords } in outputs {
            let is_wanted: Vec<bool> =
                coords.iter().map(|coord| is_wanted(coord.offset, coord.sub)).collect();
            let kept: Vec<_> =
                coords.iter().zip(&is_wanted).filter(|(_, is)| **is).map(|(coord, _)| *coord).collect();
            self.retried.left_out += (coords.len() - kept.len()) as u64;
            let rows = filter_record_batch(&rows, &BooleanArray::from(is_wanted)).map_err(Error::arrow)?;
            sink.append(&output, &rows, &kept).await.map_err(Error::sink)?;
        }
        for reject in rejects {
            match is_wanted(reject.offset, reject.sub) {
                true => sink.reject(reject).map_err(Error::sink)?,
                false => self.retried.left_out += 1,
            }
        }
        sink.advance(next, None).map_err(Error::sink)?;
        match sink.due(std::time::Instant::now()) {
            true => self.checkpoint(sink).await,
            false => Ok(true),
        }
    }

    /// BigQuery forgets after two days which rows were deleted: one that was deleted since would come back.
    fn is_too_old(&self, letter: &DeadLetter) -> bool {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
        let age = letter.timestamp.map(|time| now.saturating_sub(time));
        prepare::is_cdc(self.checked) && age.is_none_or(|age| age > MAX_AGE_MS)
    }

    async fn checkpoint(&mut self, sink: &mut PartitionSink) -> Result<bool, Error> {
        match sink.checkpoint_in_any_case().await.map_err(Error::sink)? {
            Checkpoint::Published(published) => {
                self.retried.rows += published.rows;
                self.retried.refused += published.rejects;
                Ok(true)
            }
            Checkpoint::Adopted { .. } => Ok(false),
            Checkpoint::Nothing => Ok(true),
        }
    }
}

/// The dead letter of a record that cannot be tried any more.
fn too_old(letter: DeadLetter) -> RejectedRecord {
    let payload = letter.payload.unwrap_or(RejectedPayload { key: None, value: None, headers: Vec::new() });
    RejectedRecord {
        offset: letter.offset,
        sub: letter.sub,
        stage: letter.stage,
        code: "TOO_OLD".to_owned(),
        message: format!(
            "it was {} ({}); the record is older than a day, and BigQuery forgets after two which rows were deleted: have the source \
             write the row again",
            letter.code, letter.message
        ),
        key: payload.key.map(|blob| blob.0),
        value: payload.value.map(|blob| blob.0),
        headers: payload
            .headers
            .into_iter()
            .map(|(name, value)| (name.0, value.map(|value| value.0)))
            .collect(),
        timestamp: letter.timestamp,
    }
}

/// How many letters are of the first records: those of one record stay together.
fn end_of_batch(letters: &[DeadLetter]) -> usize {
    let mut end = letters.len().min(BATCH);
    while end < letters.len() && letters[end].offset == letters[end - 1].offset {
        end += 1;
    }
    end
}

/// The records that were refused, or of which something was.
fn records_of(ledger: &LedgerRef, letters: &[DeadLetter]) -> Result<RawBatch, Error> {
    let PartitionId { topic, partition, .. } = &ledger.id;
    let mut builder = RawBatchBuilder::new(topic.as_str(), *partition);
    let mut last = None;
    for letter in letters {
        if last == Some(letter.offset) {
            continue;
        }
        last = Some(letter.offset);
        let Some(payload) = &letter.payload else {
            return Err(Error::config(format!(
                "the record at offset {} of {topic}-{partition} was not kept (`payload: omitted`): `gristmill replay` reads it from \
                 the topic",
                letter.offset
            )));
        };
        let bytes = |blob: &Option<gristmill_sinks::Blob>| blob.as_ref().map(|blob| blob.0.clone());
        let (key, value) = (bytes(&payload.key), bytes(&payload.value));
        let headers = payload
            .headers
            .iter()
            .map(|(name, value)| Header { name: &name.0, value: value.as_ref().map(|value| &value.0[..]) });
        builder
            .push(
                letter.offset,
                letter.timestamp.unwrap_or(NO_TIMESTAMP),
                key.as_deref(),
                value.as_deref(),
                headers,
            )
            .map_err(|e| Error::new(ErrorKind::Sink, format!("dead letters of {topic}-{partition}: {e}")))?;
    }
    Ok(builder.build())
}
