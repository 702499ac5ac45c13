//! `gristmill ledger reset`.

use gristmill_pipeline::{Group, Reset};

use super::Place;
use super::change::Change;
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(args: &Args) -> Result<(), Exit> {
    let checked = gristmill_pipeline::check(&args.place.file)?;
    let config = args.change.ledgers(&checked).await?;
    let group = Group::of(&checked)?;
    let resets = group.resets(&config, args.place.topic.as_deref(), args.place.partition).await?;
    if resets.is_empty() {
        println!("the group's offsets are what the ledgers say; there is nothing to reset");
        return Ok(());
    }
    let plan = resets.iter().map(sentence).collect();
    let act = async |changes: &mut Vec<String>| {
        for ledger in resets.iter().filter_map(|r| r.ledger.as_ref()) {
            let id = &ledger.id;
            let tip =
                gristmill_sinks::ledger_end(&config, id).await.map_err(Exit::failed)?.and_then(|e| e.tip);
            let waiting = match &tip {
                Some(tip) => gristmill_sinks::waiting_files(&config, tip).await.map_err(Exit::failed)?.len(),
                None => 0,
            };
            // A committed offset of ours says that everything below it is published.
            let commands = checked.commands().partition(&id.topic, id.partition);
            let settled = gristmill_sinks::settle(&config, ledger, false).await;
            settled.map_err(|e| super::held_up(&e, commands))?;
            if waiting > 0 {
                changes.push(format!(
                    "{}-{}: published {waiting} files of the newest entry",
                    id.topic, id.partition
                ));
            }
        }
        group.reset(&resets).await?;
        changes.extend(resets.iter().map(sentence));
        Ok(())
    };
    args.change.carry_out(&config, "reset", plan, act).await
}

fn sentence(reset: &Reset) -> String {
    let Reset { topic, partition, from, to, .. } = reset;
    match &reset.ledger {
        Some(_) => {
            let whose =
                if reset.ours { "committed by this pipeline" } else { "not committed by this pipeline" };
            format!(
                "{topic}-{partition}: set the group's offset from {from} ({whose}) to {to}, where the ledger ends"
            )
        }
        None => format!(
            "{topic}-{partition}: there is no ledger; keep the group's offset {from}, and begin a new ledger there at the \
             next start"
        ),
    }
}
