//! `gristmill run`.

use std::path::PathBuf;

use gristmill_pipeline::{Ended, Pipeline};
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
    if let Ok(failpoint) = std::env::var(gristmill_sinks::FAILPOINT_VARIABLE) {
        tracing::warn!(
            failpoint,
            "{} is set: this process will kill or freeze itself",
            gristmill_sinks::FAILPOINT_VARIABLE
        );
    }
    let runtime = crate::tokio_runtime()?;
    let ended = runtime.block_on(async {
        let pipeline = Pipeline::prepare(checked).await?;
        let (stop, stopped) = watch::channel(gristmill_pipeline::Stop::No);
        let mut terminate = signal(SignalKind::terminate()).map_err(Exit::failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Exit::failed)?;
        let signals = tokio::spawn(async move {
            for order in [gristmill_pipeline::Stop::Finish, gristmill_pipeline::Stop::Drop] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!(
                    "stopping: {}",
                    match order {
                        gristmill_pipeline::Stop::Finish => "finishing the open checkpoints",
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
        Ok::<_, Exit>(ended?)
    })?;
    match ended {
        Ended::Finished => Ok(()),
        Ended::Dropped => Err(Exit::dropped(
            "stopped before an open checkpoint was finished; nothing is lost, its records are read again at the next start",
        )),
    }
}
