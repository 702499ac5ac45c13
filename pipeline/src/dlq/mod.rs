//! The dead letters of a pipeline, as its ledgers hold them; and delivering their records once more.
//!
//! A try is a pipeline of its own, under ledgers of its own (`{state}/dlq/{try}`), whose topic is the dead letters: the first try
//! reads those of the pipeline, each later one those of the try before it. So a try that is made again, or dies, delivers nothing
//! twice, and goes on with what has come since.

mod letters;
mod retry;

use std::collections::BTreeMap;

use gristmill_sinks::{DeadLetter, Entry, FileEntry, LedgerRef, PartitionId, SinkConfig};

use crate::check::Checked;
use crate::error::Error;
use crate::prepare;
use letters::Letters;
pub use retry::{Retried, check_retry, retry_dead_letters};

/// What has become of a dead letter since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterState {
    /// Its record was not tried again.
    Waiting,
    /// That try delivered what is due of its record, or the transforms drop it now.
    Settled(u32),
    /// That try refused it, too: the newest that did.
    RefusedAgain(u32),
}

impl LetterState {
    /// Whether something is still to be done.
    pub fn is_open(self) -> bool {
        !matches!(self, LetterState::Settled(_))
    }
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

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    /// Of that topic.
    pub topic: Option<String>,
    /// Of that partition.
    pub partition: Option<i32>,
    /// Of the record at that offset.
    pub offset: Option<i64>,
}

impl LetterFilter {
    fn takes(&self, id: &PartitionId) -> bool {
        self.topic.as_ref().is_none_or(|only| *only == id.topic)
            && self.partition.is_none_or(|only| only == id.partition)
    }
}

/// The ledgers of one pipeline or try.
async fn ledgers(checked: &Checked, number: u32) -> Result<(SinkConfig, Vec<LedgerRef>), Error> {
    let config = prepare::ledger_of(checked)?.of_try(number);
    let ledgers = gristmill_sinks::list_ledgers(&config).await.map_err(Error::sink)?;
    Ok((config, ledgers))
}

/// The ledger of a try that goes with one of the pipeline. One that is older is of a ledger that is no more.
fn of_same_partition<'a>(ledgers: &'a [LedgerRef], live: &LedgerRef) -> Option<&'a LedgerRef> {
    ledgers.iter().find(|other| {
        other.id.partition == live.id.partition
            && other.id.topic_id == live.id.topic_id
            && !is_older(other, live)
    })
}

fn is_older(of_try: &LedgerRef, live: &LedgerRef) -> bool {
    let time = |ledger: &LedgerRef| ledger.created_at.parse::<jiff::Timestamp>().ok();
    time(of_try).zip(time(live)).is_some_and(|(of_try, live)| of_try < live)
}

/// Gives the dead letters of a pipeline to `take`, by partition and in order, as they were refused last. Nothing is changed; safe
/// beside a running pipeline. In memory are those of one ledger entry of each try.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) without a ledger; [`ErrorKind::Sink`](crate::ErrorKind::Sink); those of `take`.
pub async fn dead_letters<E: From<Error>>(
    checked: &Checked,
    filter: &LetterFilter,
    mut take: impl FnMut(Letter) -> Result<(), E>,
) -> Result<(), E> {
    let (live, own) = ledgers(checked, 0).await?;
    let last = live.tries().await.map_err(Error::sink)?;
    let mut retried = Vec::new();
    for number in 1..=last {
        retried.push(ledgers(checked, number).await?);
    }
    let from = filter.offset.unwrap_or(0);
    for ledger in own.iter().filter(|ledger| filter.takes(&ledger.id)) {
        // How far each try has come, and what it has refused.
        let mut tries: Vec<(i64, Letters)> = Vec::new();
        for (config, ledgers) in &retried {
            let Some(of_try) = of_same_partition(ledgers, ledger) else { break };
            tries.push((published(config, of_try).await?, Letters::begin(config, of_try, from).await?));
        }
        let mut letters = Letters::begin(&live, ledger, from).await?;
        while let Some((offset, found)) = letters.of_next_record().await? {
            match filter.offset {
                Some(only) if offset < only => continue,
                Some(only) if offset > only => break,
                _ => {}
            }
            for (letter, state) in newest(offset, found, &mut tries).await? {
                take(Letter { id: ledger.id.clone(), letter, state })?;
            }
        }
    }
    Ok(())
}

/// Up to which offset a try has delivered: what is sealed, and waits to be published, it has not.
async fn published(config: &SinkConfig, of_try: &LedgerRef) -> Result<i64, Error> {
    let end = gristmill_sinks::ledger_end(config, &of_try.id).await.map_err(Error::sink)?;
    let Some(end) = end else { return Ok(of_try.start) };
    Ok(match end.tip {
        Some(tip) if !waiting(config, &of_try.id, &tip).await?.is_empty() => tip.first,
        _ => end.next,
    })
}

/// What of the newest entry of a try is not published, as far as is known: of streams of BigQuery only a note says it.
async fn waiting(config: &SinkConfig, id: &PartitionId, tip: &Entry) -> Result<Vec<FileEntry>, Error> {
    let mut waiting = gristmill_sinks::waiting_files(config, tip).await.map_err(Error::sink)?;
    let streams = || tip.files.iter().filter(|file| file.is_stream());
    if streams().next().is_some()
        && !gristmill_sinks::noted_published(config, id, tip).await.map_err(Error::sink)?
    {
        waiting.extend(streams().cloned());
    }
    Ok(waiting)
}

/// All letters that there ever were of a record, each as it was refused last.
async fn newest(
    offset: i64,
    letters: Vec<DeadLetter>,
    tries: &mut [(i64, Letters)],
) -> Result<Vec<(DeadLetter, LetterState)>, Error> {
    let waiting = letters.into_iter().map(|letter| (letter.sub, (letter, LetterState::Waiting)));
    let mut known: BTreeMap<u32, (DeadLetter, LetterState)> = waiting.collect();
    for ((next, of_try), number) in tries.iter_mut().zip(1..) {
        if offset >= *next {
            break;
        }
        // What it has not refused again is settled.
        let open = known.values_mut().filter(|(_, state)| state.is_open());
        open.for_each(|(_, state)| *state = LetterState::Settled(number));
        for letter in of_try.at(offset).await? {
            known.insert(letter.sub, (letter, LetterState::RefusedAgain(number)));
        }
    }
    Ok(known.into_values().collect())
}
