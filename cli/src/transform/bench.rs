//! `gristmill transform bench`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::input::{self, Chunk};
use super::outcome::Running;
use crate::exit::Exit;

/// Rows that are kept to be given again and again.
const MAX_ROWS: usize = 100_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, or the folder of a transform, which is compiled first.
    what: PathBuf,
    /// Counts instructions instead of time: the same on every machine, so that two builds can be compared.
    #[arg(long)]
    cost: bool,
    /// For how long.
    #[arg(long, default_value = "2s", value_name = "SPAN")]
    time: gristmill_pipeline::TimeSpan,
    #[command(flatten)]
    input: input::InputArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let transform = super::load(&super::component(&args.what)?)?;
    let mut input = args.input.open(&transform)?;
    let (mut chunks, mut rows): (Vec<Chunk>, usize) = (Vec::new(), 0);
    while rows < MAX_ROWS
        && let Some(chunk) = input.next()?
    {
        rows += chunk.columns.as_ref().map_or(chunk.raw.len(), |columns| columns.records.len());
        chunks.push(chunk);
    }
    if rows == 0 {
        return Err(Exit::mistake("there is no row to give it"));
    }
    let mut running = Running::start(&transform, &input, &input.config)?;
    if args.cost {
        let fuel: Result<Vec<u64>, Exit> = chunks.iter().map(|chunk| running.fuel(chunk)).collect();
        let fuel: u64 = fuel?.iter().sum();
        println!(
            "{rows} rows: {:.1} units of fuel a row, which are about instructions",
            fuel as f64 / rows as f64
        );
        return Ok(());
    }
    let (started, mut passes, mut memory) = (Instant::now(), Vec::new(), 0);
    // The first one warms up.
    while passes.len() < 4 || started.elapsed() < args.time.duration() {
        let mut time = Duration::ZERO;
        for chunk in &chunks {
            let stats = running.time(chunk)?;
            time += stats.guest_time;
            memory = memory.max(stats.memory);
        }
        passes.push(time.as_secs_f64() * 1e9 / rows as f64);
    }
    passes.remove(0);
    passes.sort_by(f64::total_cmp);
    let at = |share: f64| passes[((passes.len() - 1) as f64 * share) as usize];
    println!(
        "{rows} rows, {} times: {:.0} ns a row (of ten passes, one is below {:.0} and one above {:.0}); {:.1} MiB of memory",
        passes.len(),
        at(0.5),
        at(0.1),
        at(0.9),
        memory as f64 / f64::from(1 << 20)
    );
    Ok(())
}
