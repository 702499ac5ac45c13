//! `gristmill run`.

use std::path::PathBuf;

use gristmill_pipeline::{Ended, Pipeline, Stop};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
On SIGTERM or Ctrl-C the open checkpoint is finished, then the command ends. A second signal, or
`shutdown_timeout` in the file, drops it instead: nothing is lost, its records are read again.
More processes: run the same file with the same folder; they share the partitions as members of one
consumer group. The ledger lies in the folder, so on several machines the folder must be on a shared file
system with an atomic rename that does not replace; a local folder on each could double records.
If no broker answers at the start, the command ends with 1 after some seconds: let a supervisor restart it.")]
pub(crate) struct Args {
    /// The pipeline file.
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let checked = gristmill_pipeline::check(&args.file)?;
    warn_of_failpoints();
    let runtime = crate::tokio_runtime()?;
    let ended = runtime.block_on(async { until_stopped(Pipeline::prepare(checked).await?).await })?;
    match ended {
        Ended::Finished => Ok(()),
        Ended::Dropped => Err(dropped()),
    }
}

pub(crate) fn warn_of_failpoints() {
    if let Ok(failpoint) = std::env::var(gristmill_sinks::FAILPOINT_VARIABLE) {
        tracing::warn!(
            failpoint,
            "{} is set: this process will kill or freeze itself",
            gristmill_sinks::FAILPOINT_VARIABLE
        );
    }
}

pub(crate) fn dropped() -> Exit {
    Exit::dropped(
        "stopped before an open checkpoint was finished; nothing is lost, its records are read again at the next start",
    )
}

/// Runs a pipeline until it ends, or until signals end it: the first finishes the open checkpoints, the second
/// drops them.
pub(crate) async fn until_stopped(pipeline: Pipeline) -> Result<Ended, Exit> {
    let (stop, stopped) = watch::channel(Stop::No);
    let mut terminate = signal(SignalKind::terminate()).map_err(Exit::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Exit::failed)?;
    let signals = tokio::spawn(async move {
        for order in [Stop::Finish, Stop::Drop] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!(
                "stopping: {}",
                match order {
                    Stop::Finish => "finishing the open checkpoints",
                    _ => "dropping the open checkpoints",
                }
            );
            if stop.send(order).is_err() {
                return;
            }
        }
    });
    let ended = pipeline.run(stopped).await;
    signals.abort();
    Ok(ended?)
}
