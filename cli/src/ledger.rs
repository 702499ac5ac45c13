//! `gristmill ledger`.

pub(crate) mod change;
mod log;
mod repair;
mod reset;
mod skip;

use std::path::{Path, PathBuf};

use gristmill_pipeline::{Checked, Commands, ReplayName};
use gristmill_sinks::{Counts, FindingKind, LedgerRef, Ledgers, PartitionId, Rejects, SinkConfig};

use crate::exit::Exit;

/// Entries that are asked for at once.
const PAGE: usize = 500;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the published ranges of every partition, and their files. Safe beside a running pipeline.
    Ls {
        /// The pipeline file.
        file: PathBuf,
        /// Only this topic.
        #[arg(long)]
        topic: Option<String>,
        /// Only this partition.
        #[arg(long)]
        partition: Option<i32>,
        /// Show the files of each range too.
        #[arg(long)]
        files: bool,
        /// The ledger of this replay instead of the pipeline's own.
        #[arg(long, value_name = "NAME")]
        replay: Option<ReplayName>,
    },
    /// Check that ranges follow each other without gap or overlap, and that the files are whole and unchanged. Reads
    /// every file once and changes nothing; exits with 3 if something is wrong. A published file that is gone is named
    /// and is no reason for that, since it may have been deleted on purpose: for `audit` it is a difference.
    Verify {
        /// The pipeline file.
        file: PathBuf,
        /// The ledger and files of this replay instead of the pipeline's own.
        #[arg(long, value_name = "NAME")]
        replay: Option<ReplayName>,
    },
    /// Give up a range of a partition, from where its ledger ends up to an offset: what retention has taken, or what
    /// is not wanted. Shows what it would do unless `--yes` is there. Safe beside a running pipeline.
    Skip(skip::Args),
    /// Put the group's committed offsets back to where the ledgers end; without a ledger, let one begin at the group's
    /// offset. Shows what it would do unless `--yes` is there. The pipeline has to be stopped.
    Reset(reset::Args),
    /// Mend what `verify` finds and what needs only the ledger: publish what is still staged, delete what no entry
    /// names. For the rest, says how to get it back. Shows what it would do unless `--yes` is there. Safe beside a
    /// running pipeline.
    Repair(repair::Args),
    /// Show what operators did to the ledgers: who, when, why, and what came of it.
    Log {
        /// The pipeline file.
        file: PathBuf,
    },
}

/// Which ledgers.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The pipeline file.
    file: PathBuf,
    /// Only this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,
}

impl Place {
    /// Those that there are.
    async fn ledgers(&self, config: &SinkConfig) -> Result<Ledgers, Exit> {
        let mut ledgers = gristmill_sinks::survey_ledgers(config).await.map_err(Exit::failed)?;
        let is_it = |topic: &str, partition: Option<i32>| {
            self.topic.as_ref().is_none_or(|only| *only == topic)
                && self.partition.is_none_or(|only| partition.is_none_or(|p| p == only))
        };
        ledgers.whole.retain(|l| is_it(&l.id.topic, Some(l.id.partition)));
        ledgers.broken.retain(|b| is_it(&b.topic, b.partition));
        Ok(ledgers)
    }
}

/// Refuses to change a ledger of another pipeline, whose dead letters and group the file does not know.
fn of_this_pipeline(checked: &Checked, ledger: &LedgerRef) -> Result<(), Exit> {
    let (theirs, ours) = (&ledger.id.pipeline, &checked.pipeline.name);
    if theirs == ours {
        return Ok(());
    }
    Err(Exit::mistake(format!(
        "the ledger of {}-{} belongs to the pipeline {theirs:?}, and {} is of {ours:?}: nothing was changed; use the file \
         with `name: {}`",
        ledger.id.topic,
        ledger.id.partition,
        checked.file.display(),
        theirs.escape_debug()
    )))
}

/// With the command that goes on where lost files hold an operation up.
fn held_up(error: &gristmill_sinks::Error, commands: Commands<'_>) -> Exit {
    match error.kind() {
        gristmill_sinks::ErrorKind::Changed => {
            Exit::failed(format!("{error}\n  to go on without it: `{}`", commands.accept_missing()))
        }
        _ => Exit::failed(error),
    }
}

impl Command {
    /// Those that may talk to Kafka, of the group or of dead letters.
    pub(crate) fn changes_ledgers(&self) -> bool {
        matches!(self, Command::Skip(_) | Command::Reset(_) | Command::Repair(_))
    }
}

pub(crate) fn run(command: &Command) -> Result<(), Exit> {
    let runtime = crate::tokio_runtime()?;
    // Opening a bucket starts tasks that renew tokens.
    let _inside = runtime.enter();
    match command {
        Command::Ls { file, topic, partition, files, replay } => {
            let config = open(file, replay.as_ref())?;
            let chosen = Chosen { topic: topic.as_deref(), partition: *partition, files: *files };
            runtime.block_on(list(&config, &chosen)).map_err(Exit::failed)
        }
        Command::Verify { file, replay } => {
            let config = open(file, replay.as_ref())?;
            runtime.block_on(verify(&config, &Commands::of(file), Gone::IsNews))
        }
        Command::Skip(args) => runtime.block_on(skip::run(args)),
        Command::Reset(args) => runtime.block_on(reset::run(args)),
        Command::Repair(args) => runtime.block_on(repair::run(args)),
        Command::Log { file } => runtime.block_on(log::run(file)),
    }
}

fn open(file: &Path, replay: Option<&ReplayName>) -> Result<SinkConfig, Exit> {
    let mut checked = gristmill_pipeline::check(file)?;
    if let Some(name) = replay {
        checked = checked.replay(name)?;
    }
    Ok(gristmill_pipeline::ledger_of(&checked)?)
}

/// What became of the records of each partition, summed over its entries.
pub(crate) async fn counts(config: &SinkConfig) -> gristmill_sinks::Result<Vec<(PartitionId, Counts)>> {
    let mut sums = Vec::new();
    for ledger in gristmill_sinks::list_ledgers(config).await? {
        let (mut sum, mut from) = (Counts::default(), ledger.start);
        loop {
            let entries = gristmill_sinks::read_entries(config, &ledger, from, PAGE).await?;
            for entry in &entries {
                sum.add(&entry.counts);
                from = entry.next;
            }
            if entries.len() < PAGE {
                break;
            }
        }
        sums.push((ledger.id, sum));
    }
    Ok(sums)
}

struct Chosen<'a> {
    topic: Option<&'a str>,
    partition: Option<i32>,
    files: bool,
}

async fn list(config: &SinkConfig, chosen: &Chosen<'_>) -> gristmill_sinks::Result<()> {
    let mut shown = 0;
    let ledgers = gristmill_sinks::survey_ledgers(config).await?;
    for broken in &ledgers.broken {
        if chosen.topic.is_none_or(|t| t == broken.topic)
            && chosen.partition.is_none_or(|p| broken.partition.is_none_or(|at| at == p))
        {
            shown += 1;
            println!("{}", broken.text);
        }
    }
    for ledger in ledgers.whole {
        let id = &ledger.id;
        if chosen.topic.is_some_and(|t| t != id.topic) || chosen.partition.is_some_and(|p| p != id.partition)
        {
            continue;
        }
        shown += 1;
        println!(
            "{}-{} (topic id {}), from offset {}",
            id.topic,
            id.partition,
            id.topic_id_text(),
            ledger.start
        );
        let mut from = ledger.start;
        loop {
            let entries = gristmill_sinks::read_entries(config, &ledger, from, PAGE).await?;
            for entry in &entries {
                let rows: u64 = entry.files.iter().map(|f| f.rows).sum();
                let rejects = match &entry.rejects {
                    None => 0,
                    Some(Rejects::Inline(letters)) => letters.len() as u64,
                    Some(Rejects::Object { records, .. }) => *records,
                };
                println!(
                    "  {:>12} .. {:<12} {:>8} rows {:>4} files {:>6} dead letters",
                    entry.first,
                    entry.next,
                    rows,
                    entry.files.len(),
                    rejects
                );
                if let Some(note) = &entry.note {
                    let why = if note.reason.is_empty() { "no reason given" } else { &note.reason };
                    println!("      {} by {}: {why}", note.kind, note.by);
                }
                if chosen.files {
                    for file in &entry.files {
                        println!("      {}  {} rows, {} bytes", file.final_name, file.rows, file.bytes);
                    }
                }
                from = entry.next;
            }
            if entries.len() < PAGE {
                break;
            }
        }
        println!("  next offset {from}");
    }
    if shown == 0 {
        println!("no partition has a ledger yet");
    }
    Ok(())
}

/// What a published file that is gone counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Users may delete files.
    IsNews,
    IsDifference,
}

pub(crate) async fn verify(config: &SinkConfig, commands: &Commands<'_>, gone: Gone) -> Result<(), Exit> {
    let is_problem = |kind: FindingKind| {
        kind.is_problem() || (gone == Gone::IsDifference && kind == FindingKind::MissingFile)
    };
    let report = gristmill_sinks::verify(config).await.map_err(Exit::failed)?;
    for broken in &report.broken {
        println!("FAIL {}", broken.text);
    }
    if report.ledgers.is_empty() && report.broken.is_empty() {
        println!("no partition has a ledger yet: there is nothing to verify");
    }
    for ledger in &report.ledgers {
        let id = &ledger.ledger.id;
        let problems = ledger.findings.iter().filter(|f| is_problem(f.kind)).count();
        println!(
            "{} {}-{}{}: {} entries to offset {}, {} files, {} rows, {} bytes, {} dead letters",
            if problems == 0 { "ok  " } else { "FAIL" },
            id.topic,
            id.partition,
            match ledger.retry {
                0 => String::new(),
                number => format!(", try {number} of its dead letters"),
            },
            ledger.entries,
            ledger.next,
            ledger.files,
            ledger.rows,
            ledger.bytes,
            ledger.rejects
        );
        if ledger.skips > 0 {
            println!(
                "     {} offsets were given up in {} entries: see `{}`",
                ledger.skipped_offsets,
                ledger.skips,
                commands.log()
            );
        }
        for finding in &ledger.findings {
            println!("     {}: {}", finding.object, finding.text);
        }
    }
    for name in &report.foreign {
        println!("     {name}: not written by this pipeline");
    }
    if report.foreign_count > report.foreign.len() as u64 {
        println!(
            "     and {} more that this pipeline did not write",
            report.foreign_count - report.foreign.len() as u64
        );
    }
    let kinds = report.ledgers.iter().flat_map(|l| &l.findings).map(|f| f.kind);
    if report.is_sound() && !kinds.into_iter().any(is_problem) {
        Ok(())
    } else {
        Err(Exit::difference("the ledger and the files do not agree; nothing was changed"))
    }
}
