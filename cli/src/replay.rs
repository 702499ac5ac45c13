//! `gristmill replay`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_pipeline::{
    Checked, Ended, Metrics, Pipeline, ReplayName, ReplayProgress, ReplayRequest, When,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::Exit;
use crate::ledger::Gone;

/// How often a bar moves, and how often a line is logged where there is no terminal.
const BAR: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # Yesterday once more, say with a mended transform, into the folder `again` beside `rows`:
  gristmill replay orders.yaml --from 2026-11-24 --to 2026-11-25 --into again
  # The last six hours, to the end as it is now:
  gristmill replay orders.yaml --from 6h --into last-six-hours
  # Offsets 5000 to 5999 of one partition:
  gristmill replay orders.yaml --topic orders --partition 2 --from 5000 --to 6000 --into one-partition

The live pipeline runs on undisturbed: the replay has a consumer group of its own, and a ledger in its own
folder. Dead letters go to a folder of the replay's too (`dead_letters-again`); a topic for dead letters is
the same, and they name the replay there. Metrics over HTTP are not served.

A time means the first record of each partition that is not older, as Kafka finds it. Records of
transactions that are open at the first start lie behind the end (unless `isolation: read_uncommitted`).

The bounds become offsets once, at the first start, and are kept. After a crash or a signal run the same
command again: it goes on where its ledger ends. Several processes with the same command share the
partitions. It ends with 0 when everything of the range is published, and with 4 after a signal before that.

To look at the result: `gristmill ledger ls orders.yaml --replay again`. To undo it, delete its folders.")]
pub(crate) struct Args {
    /// The pipeline file.
    file: PathBuf,
    /// Where the range begins, inside it: a time (2026-11-24T10:00:00Z), a day in UTC (2026-11-24), a span back
    /// from now (24h), or an offset (5000), which then holds for every partition that is replayed.
    #[arg(long)]
    from: When,
    /// Where it ends, not inside it; written likewise. By default the end of each partition as it is at the first
    /// start.
    #[arg(long)]
    to: Option<When>,
    /// The replay's name, and its folder beside that of the sink: a-z, 0-9, `-`, `_`.
    #[arg(long, value_name = "NAME")]
    into: ReplayName,
    /// Only this topic of the file.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let checked = gristmill_pipeline::check(&args.file)?;
    crate::run::warn_of_failpoints();
    let request = ReplayRequest {
        name: args.into.clone(),
        from: args.from.clone(),
        to: args.to.clone(),
        topic: args.topic.clone(),
        partition: args.partition,
    };
    let runtime = crate::tokio_runtime()?;
    runtime.block_on(async {
        let pipeline = Pipeline::prepare_replay(&checked, &request).await?;
        let progress = pipeline.replay_progress().expect("it is a replay");
        let shown = tokio::spawn(show(progress.clone(), pipeline.metrics()));
        let ended = crate::run::until_stopped(pipeline).await;
        shown.abort();
        // Its bar is cleared when it has ended.
        let _ = shown.await;
        let ended = ended?;
        if progress.is_complete() {
            let ledger = gristmill_pipeline::ledger_of(&checked.replay(&args.into)?)?;
            return summary(&ledger, &progress, &checked, &args.into).await;
        }
        let (read, all) = progress.offsets();
        let stopped =
            format!("stopped at {} of the range; run the same command again to go on", percent(read, all));
        Err(match ended {
            Ended::Finished => Exit::dropped(stopped),
            Ended::Dropped => Exit::dropped(format!("{}\n{stopped}", crate::run::dropped().message)),
        })
    })
}

fn percent(read: u64, all: u64) -> String {
    format!("{:.1} %", if all == 0 { 100.0 } else { read as f64 * 100.0 / all as f64 })
}

/// Shows how far it is until it is aborted: a bar on a terminal, else a line now and then.
async fn show(progress: ReplayProgress, metrics: Arc<Metrics>) {
    let (at_start, all) = progress.offsets();
    if std::io::stderr().is_terminal() {
        let bar = Bar(ProgressBar::new(all).with_style(style()).with_position(at_start));
        bar.0.reset_eta();
        loop {
            bar.0.set_position(progress.offsets().0);
            bar.0.set_message(format!("{} rows", metrics.rows_written.get()));
            tokio::time::sleep(BAR).await;
        }
    }
    let started = Instant::now();
    loop {
        tokio::time::sleep(LINE).await;
        let (read, _) = progress.offsets();
        let rate = (read - at_start) as f64 / started.elapsed().as_secs_f64();
        let left = if rate > 0.0 {
            format!("{:.0}s", all.saturating_sub(read) as f64 / rate)
        } else {
            "unknown".to_owned()
        };
        tracing::info!(
            offsets = read,
            of = all,
            rows = metrics.rows_written.get(),
            a_second = rate.round(),
            left,
            "replayed {}",
            percent(read, all)
        );
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {percent}% of {len} offsets, {msg}, {per_sec}, {eta} to go")
        .expect("the template is right")
}

struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What became of every partition, from the ledger alone, and whether the files are as it says.
async fn summary(
    ledger: &gristmill_sinks::SinkConfig,
    progress: &ReplayProgress,
    checked: &Checked,
    name: &ReplayName,
) -> Result<(), Exit> {
    let counts = crate::ledger::counts(ledger).await.map_err(Exit::failed)?;
    for p in progress.partitions() {
        let at = format!("{}-{}", p.topic, p.partition);
        match counts.iter().find(|(id, _)| id.topic == p.topic && id.partition == p.partition) {
            Some((_, c)) => println!(
                "{at}: offsets {} to {}: {} records, {} rows, {} dropped, {} rejected",
                p.first,
                p.end,
                c.read,
                c.written,
                c.dropped,
                c.rejected_total()
            ),
            None => println!("{at}: offsets {} to {}: nothing", p.first, p.end),
        }
    }
    // Nobody has had a reason yet to delete files of it.
    crate::ledger::verify(ledger, &checked.commands(), Gone::IsDifference).await?;
    println!("The range is replayed. To look at it: {}", checked.commands().list_replay(name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_can_be_shown_also_of_nothing() {
        ProgressBar::hidden().set_style(style());
        assert_eq!(
            (percent(0, 0), percent(1, 3), percent(3, 3)),
            ("100.0 %".into(), "33.3 %".into(), "100.0 %".into())
        );
    }
}
