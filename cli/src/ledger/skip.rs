//! `gristmill ledger skip`.

use std::path::PathBuf;

use gristmill_pipeline::Group;
use gristmill_sinks::{BrokenLedger, LedgerRef, Note, SinkConfig, Skip};

use super::change::{Change, offsets, operator};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pipeline file.
    file: PathBuf,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// The partition.
    #[arg(long)]
    partition: i32,
    /// The first offset that is not given up.
    #[arg(long)]
    to: i64,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(args: &Args) -> Result<(), Exit> {
    let checked = gristmill_pipeline::check(&args.file)?;
    let config = args.change.ledgers(&checked).await?;
    let group = Group::of(&checked)?;
    let ledger = ledger(args, &config, &group).await?;
    super::of_this_pipeline(&checked, &ledger)?;
    let end = gristmill_sinks::ledger_end(&config, &ledger.id).await.map_err(Exit::failed)?;
    let end = end.ok_or_else(|| Exit::failed(format!("the ledger at {} is gone", ledger.path)))?;
    let (earliest, last) = group.ends(&args.topic, args.partition).await?;
    let name = format!("{}-{}", args.topic, args.partition);
    println!(
        "{name}: the ledger ends at offset {}; the partition has offsets {earliest} up to {last}",
        end.next
    );
    if args.to <= end.next {
        let text = format!("{name}: the ledger is at offset {} already, there is nothing to skip", end.next);
        return Err(Exit::mistake(text));
    }
    // The ledger cannot go back: what is not written yet would be passed over when it is.
    if args.to > last {
        let text = format!(
            "{name}: there is no offset {} yet; the most that can be given up is --to {last}",
            args.to
        );
        return Err(Exit::mistake(text));
    }
    let mut plan = Vec::new();
    if let Some(tip) = &end.tip {
        let waiting = gristmill_sinks::waiting_files(&config, tip).await.map_err(Exit::failed)?.len();
        if waiting > 0 {
            let range = offsets(tip.first, tip.next);
            plan.push(format!("publish {waiting} files of {range} that are sealed and still staged"));
        }
    }
    plan.push(format!(
        "give up {}: no file and no dead letter of this pipeline will have them",
        offsets(end.next, args.to)
    ));
    println!(
        "files that are published stay as they are; a pipeline that runs drops what it has read from offset {} on and not \
         sealed, and goes on at {}",
        end.next, args.to
    );
    let note = Note { kind: "skip".into(), reason: args.change.reason.clone(), by: operator() };
    let act = async |changes: &mut Vec<String>| match gristmill_sinks::skip(&config, &ledger, args.to, &note)
        .await
        .map_err(|e| super::held_up(&e, checked.commands().partition(&args.topic, args.partition)))?
    {
        Skip::Sealed { first, next } => {
            changes.push(format!("{name}: gave up {}; the ledger goes on at {next}", offsets(first, next)));
            Ok(())
        }
        Skip::Passed { next } => Err(Exit::failed(format!(
            "{name}: a running pipeline has come to offset {next} meanwhile; nothing was given up"
        ))),
    };
    args.change.carry_out(&config, "skip", plan, act).await
}

/// The ledger of the topic as the cluster has it now: one that was deleted has nothing to skip.
async fn ledger(args: &Args, config: &SinkConfig, group: &Group) -> Result<LedgerRef, Exit> {
    let topic_id = group.topic_id(&args.topic).await?;
    let ledgers = gristmill_sinks::survey_ledgers(config).await.map_err(Exit::failed)?;
    let is_it = |l: &LedgerRef| {
        l.id.topic == args.topic && l.id.partition == args.partition && l.id.topic_id == topic_id
    };
    let is_broken =
        |b: &&BrokenLedger| b.topic == args.topic && b.partition == Some(args.partition) && b.is_of(topic_id);
    if let Some(broken) = ledgers.broken.iter().find(is_broken) {
        return Err(Exit::failed(&broken.text));
    }
    ledgers.whole.into_iter().find(is_it).ok_or_else(|| {
        Exit::mistake(format!(
            "{}-{} has no ledger yet, so there is nothing to skip: it will start at the group's offset",
            args.topic, args.partition
        ))
    })
}
