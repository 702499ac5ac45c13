//! `gristmill dlq`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gristmill_pipeline::{Letter, LetterFilter, LetterState, Retried};

use crate::exit::Exit;
use crate::ledger::change::Change;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the dead letters of a pipeline, as its ledgers hold them, wherever they were delivered to: which record, why, and
    /// whether it was tried again since. Safe beside a running pipeline.
    List {
        #[command(flatten)]
        which: Which,
        /// Only those of which something is to be done: waiting, or refused again.
        #[arg(long)]
        open: bool,
        /// Lines at most; all are counted.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Show dead letters with their records, as JSON, one a line.
    Show {
        #[command(flatten)]
        which: Which,
        /// Only of the record at this offset.
        #[arg(long)]
        offset: Option<i64>,
    },
    /// Deliver the records of dead letters once more, by the pipeline as its file says it now: after the transform, the table or the
    /// schema was mended. Calling it again, or after it died, delivers nothing twice and goes on with dead letters that have come
    /// since. Without the topic, from what the ledgers hold; in new files where rows go to files. Shows what it would do unless `--yes` is there.
    /// Safe beside a running pipeline.
    Replay {
        /// The pipeline file.
        file: PathBuf,
        /// Begin a new try with what the last one has refused.
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        change: Change,
    },
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The pipeline file.
    file: PathBuf,
    /// Only of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only of this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// Only those with this code, such as ROW_REFUSED.
    #[arg(long)]
    code: Option<String>,
}

impl Which {
    async fn each(&self, offset: Option<i64>, mut take: impl FnMut(&Letter)) -> Result<(), Exit> {
        let checked = gristmill_pipeline::check(&self.file)?;
        let (topic, partition) = (self.topic.clone(), self.partition);
        let filter = LetterFilter { topic, partition, offset };
        gristmill_pipeline::dead_letters(&checked, &filter, |letter| {
            if self.code.as_ref().is_none_or(|only| *only == letter.letter.code) {
                take(&letter);
            }
            Ok::<(), Exit>(())
        })
        .await
    }
}

pub(crate) fn run(command: &Command) -> Result<(), Exit> {
    crate::tokio_runtime()?.block_on(async {
        match command {
            Command::List { which, open, limit } => list(which, *open, *limit).await,
            Command::Show { which, offset } => show(which, *offset).await,
            Command::Replay { file, again, change } => replay(file, *again, change).await,
        }
    })
}

fn state_of(state: LetterState) -> String {
    match state {
        LetterState::Waiting => "waiting".to_owned(),
        LetterState::Settled(number) => format!("settled by try {number}"),
        LetterState::RefusedAgain(number) => format!("refused again by try {number}"),
    }
}

async fn list(which: &Which, open: bool, limit: u64) -> Result<(), Exit> {
    let mut codes: BTreeMap<(String, bool), u64> = BTreeMap::new();
    let mut lines = 0;
    which
        .each(None, |Letter { id, letter, state, .. }| {
            if open && !state.is_open() {
                return;
            }
            *codes.entry((letter.code.clone(), state.is_open())).or_default() += 1;
            lines += 1;
            if lines <= limit {
                let sub = if letter.sub == 0 { String::new() } else { format!(".{}", letter.sub) };
                println!(
                    "{}-{} offset {}{sub} {} ({}): {}",
                    id.topic,
                    id.partition,
                    letter.offset,
                    letter.code,
                    state_of(*state),
                    letter.message.replace(|c: char| c.is_control(), " ")
                );
            }
        })
        .await?;
    if lines > limit {
        println!("and {} more, which --limit shows", lines - limit);
    }
    if codes.is_empty() {
        println!("there are no {}dead letters", if open { "open " } else { "" });
    }
    for ((code, is_open), count) in codes {
        println!("{count} {code} {}", if is_open { "open" } else { "settled" });
    }
    Ok(())
}

async fn show(which: &Which, offset: Option<i64>) -> Result<(), Exit> {
    let mut shown = 0;
    which
        .each(offset, |Letter { id, letter, state, .. }| {
            shown += 1;
            let mut line = serde_json::to_value(letter).expect("a dead letter is JSON");
            line["topic"] = id.topic.clone().into();
            line["partition"] = id.partition.into();
            line["state"] = state_of(*state).into();
            println!("{line}");
        })
        .await?;
    match shown {
        0 => Err(Exit::mistake("there is no such dead letter; `gristmill dlq list` has all")),
        _ => Ok(()),
    }
}

async fn replay(file: &std::path::Path, again: bool, change: &Change) -> Result<(), Exit> {
    let checked = gristmill_pipeline::check(file)?;
    gristmill_pipeline::check_retry(&checked, again).await?;
    let (mut waiting, mut refused, mut emitted) = (0, 0, 0);
    gristmill_pipeline::dead_letters(&checked, &LetterFilter::default(), |letter| {
        match letter.state {
            LetterState::Waiting => waiting += 1,
            LetterState::RefusedAgain(_) => refused += 1,
            LetterState::Settled(_) => {}
        }
        let is_tried = letter.state == LetterState::Waiting || again && letter.state.is_open();
        emitted += u64::from(is_tried && letter.letter.sub > 0);
        Ok::<(), Exit>(())
    })
    .await?;
    let mut plan = vec![format!("try the records of {waiting} dead letters again that wait")];
    match again {
        true => plan.push(format!("begin a new try with those that were refused again: {refused} so far")),
        false if refused > 0 => {
            println!("{refused} others were tried and refused again: --again begins a new try with them");
        }
        false => {}
    }
    if emitted > 0 {
        println!(
            "{emitted} of them are of rows that a transform emitted, which are known by their number: it has to emit as many for a \
             record, and in the same order, as it did"
        );
    }
    let config = change.ledgers(&checked).await?;
    let act = async |changes: &mut Vec<String>| {
        let tries = gristmill_pipeline::retry_dead_letters(&checked, again).await?;
        let last = tries.last().map(|retried| retried.number);
        for Retried { number, records, rows, refused, dropped, left_out, .. } in tries {
            if records + refused == 0 && Some(number) != last {
                continue;
            }
            changes.push(format!(
                "try {number}: {records} records, of which {rows} rows were delivered, {refused} refused again and {dropped} dropped"
            ));
            if left_out > 0 {
                changes.push(format!(
                    "try {number}: left out {left_out} rows that transforms make of these records beside those that were refused: \
                     they were delivered, or are refused by themselves"
                ));
            }
        }
        Ok(())
    };
    change.carry_out(&config, "dlq replay", plan, act).await
}
