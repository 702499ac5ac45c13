//! `gristmill transform bench`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gristmill_smt::{NativeInstance, NativeRows, NativeTransform, Stats};
use serde_json::{Value, json};

use super::identity;
use super::input::{self, Chunk};
use super::outcome::{Counts, Running, TOPIC};
use crate::exit::Exit;

/// Rows that are kept to be given again and again.
const MAX_ROWS: usize = 100_000;
/// Their bytes, as they came.
const MAX_BYTES: usize = 256 << 20;
/// With fewer, what a call costs is much of what a row costs.
const FEW_ROWS: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, or the folder of a transform, which is compiled first.
    what: PathBuf,
    /// Counts instructions instead of time: the same on every machine, so that two builds can be compared.
    #[arg(long, conflicts_with = "native")]
    cost: bool,
    /// Of a crate's folder: compares it with the crate compiled for this machine too, which runs outside of any sandbox.
    #[arg(long)]
    native: bool,
    /// For how long.
    #[arg(long, default_value = "2s", value_name = "SPAN")]
    time: gristmill_pipeline::TimeSpan,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    input: input::InputArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    if args.native && !args.what.join("Cargo.toml").is_file() {
        return Err(Exit::mistake(
            "--native compiles the transform for this machine: give it the folder of a crate; scripts have no native build",
        ));
    }
    let transform = super::load(&super::component(&args.what)?)?;
    let mut input = args.input.open(&transform)?;
    let (mut chunks, mut rows, mut records, mut bytes): (Vec<Chunk>, usize, usize, usize) =
        (Vec::new(), 0, 0, 0);
    let is_cut = loop {
        if records >= MAX_ROWS || bytes >= MAX_BYTES {
            break input.next()?.is_some();
        }
        let Some(chunk) = input.next()? else { break false };
        rows += chunk.columns.as_ref().map_or(chunk.raw.len(), |columns| columns.records.len());
        records += chunk.raw.len();
        bytes += chunk.raw.byte_size();
        chunks.push(chunk);
    };
    if is_cut {
        eprintln!("note: these are the first {records} records; there are more, which are left out");
    }
    if rows == 0 {
        return Err(Exit::mistake("there is no row to give it"));
    }
    let mut subject = Running::start(&transform, &input, &input.config)?;
    let mut counts = Counts::default();
    for chunk in &chunks {
        subject.apply(chunk)?.fates.iter().for_each(|fate| counts.add(fate));
    }
    let identity = identity::component(transform.kind(), transform.manifest().reads, &subject.reads())?;
    let identity = Running::start(&super::load_bytes(&identity)?, &input, &json!({}))?;
    counts.warn();
    if rows < FEW_ROWS {
        eprintln!(
            "note: of {rows} rows much is what a call costs, however many there are; give it {FEW_ROWS} or more"
        );
    }
    if args.cost {
        return cost(args.json, &chunks, rows, &counts, [subject, identity]);
    }
    let native = args.native.then(|| Native::start(args, &input.config, &subject, &chunks)).transpose()?;
    let mut contestants = vec![Contestant::new("this transform", Code::Sandboxed(subject))];
    contestants.push(Contestant::new("identity", Code::Sandboxed(identity)));
    contestants.extend(native.map(|native| Contestant::new("native", Code::Native(native))));
    let started = Instant::now();
    // The first pass warms up.
    while contestants[0].passes.len() < 4 || started.elapsed() < args.time.duration() {
        contestants.iter_mut().try_for_each(|contestant| contestant.pass(&chunks, rows))?;
    }
    contestants.iter_mut().for_each(Contestant::sort);
    match args.json {
        true => println!("{}", as_json(rows, &counts, &contestants)),
        false => print(&chunks, &counts, &contestants),
    }
    if cfg!(debug_assertions) {
        eprintln!(
            "note: this gristmill was built without optimisation, and so the host's part is many times too slow"
        );
    }
    Ok(())
}

fn cost(
    as_json: bool,
    chunks: &[Chunk],
    rows: usize,
    counts: &Counts,
    both: [Running; 2],
) -> Result<(), Exit> {
    let mut fuel = [0.0; 2];
    for (fuel, mut running) in fuel.iter_mut().zip(both) {
        for chunk in chunks {
            *fuel += running.fuel(chunk)? as f64;
        }
        *fuel = (*fuel / rows as f64 * 10.0).round() / 10.0;
    }
    match as_json {
        true => println!(
            "{}",
            json!({"rows": rows, "fates": counts, "fuel": {"this": fuel[0], "identity": fuel[1]}})
        ),
        false => println!(
            "{counts}\n{:.1} units of fuel a row, which are about instructions; identity {:.1}",
            fuel[0], fuel[1]
        ),
    }
    Ok(())
}

/// The crate compiled for this machine, and the chunks as it takes them.
struct Native {
    instance: NativeInstance,
    columns: Vec<NativeRows>,
}

impl Native {
    fn start(args: &Args, config: &Value, subject: &Running, chunks: &[Chunk]) -> Result<Self, Exit> {
        let native = NativeTransform::build(&args.what).map_err(Exit::failed)?;
        let (instance, columns) = match subject.columns() {
            None => (native.of_records(TOPIC, config), Vec::new()),
            Some(like) => {
                let rows = chunks.iter().filter_map(|chunk| chunk.columns.as_ref());
                let rows = rows.map(|columns| NativeRows::new(like, &columns.rows)).collect();
                (native.of_columns(TOPIC, config, like), rows)
            }
        };
        Ok(Native { instance: instance.map_err(Exit::failed)?, columns })
    }

    fn pass(&mut self, chunks: &[Chunk]) -> Result<(), Exit> {
        let instance = &mut self.instance;
        match self.columns.is_empty() {
            true => chunks.iter().try_for_each(|chunk| instance.apply_records(&chunk.raw)),
            false => self.columns.iter().try_for_each(|rows| instance.apply_columns(rows)),
        }
        .map_err(Exit::failed)
    }
}

enum Code {
    Sandboxed(Running),
    Native(Native),
}

struct Contestant {
    name: &'static str,
    code: Code,
    /// Nanoseconds a row of each, and what of them was spent in the guest.
    passes: Vec<[f64; 2]>,
    memory: u64,
}

impl Contestant {
    fn new(name: &'static str, code: Code) -> Self {
        Contestant { name, code, passes: Vec::new(), memory: 0 }
    }

    fn pass(&mut self, chunks: &[Chunk], rows: usize) -> Result<(), Exit> {
        let (started, mut guest) = (Instant::now(), Duration::ZERO);
        match &mut self.code {
            Code::Sandboxed(running) => {
                for chunk in chunks {
                    let Stats { guest_time, memory, .. } = running.time(chunk)?;
                    guest += guest_time;
                    self.memory = self.memory.max(memory);
                }
            }
            Code::Native(native) => native.pass(chunks)?,
        }
        self.passes.push([started.elapsed(), guest].map(|time| time.as_secs_f64() * 1e9 / rows as f64));
        Ok(())
    }

    fn sort(&mut self) {
        self.passes.remove(0);
        self.passes.sort_by(|a, b| a[0].total_cmp(&b[0]));
    }

    /// Below it is that share of the passes.
    fn at(&self, share: f64) -> [f64; 2] {
        self.passes[((self.passes.len() - 1) as f64 * share).round() as usize]
    }
}

fn print(chunks: &[Chunk], counts: &Counts, contestants: &[Contestant]) {
    println!("{counts}; in {} batches, {} passes", chunks.len(), contestants[0].passes.len());
    for contestant in contestants {
        let [[low, _], [middle, guest], [high, _]] = [0.1, 0.5, 0.9].map(|share| contestant.at(share));
        let about = match (contestant.name, &contestant.code) {
            ("identity", _) => "is given the same, and keeps every row".to_owned(),
            (_, Code::Native(_)) => "the function alone, compiled for this machine".to_owned(),
            (_, Code::Sandboxed(_)) => {
                let memory = contestant.memory as f64 / f64::from(1 << 20);
                format!(
                    "{guest:.0} of them in calls, with what is copied and checked; {memory:.1} MiB of memory"
                )
            }
        };
        // Of fewer there are no eight of ten.
        let of = if contestant.passes.len() < 10 { "" } else { " in eight of ten passes" };
        println!("  {:15} {middle:7.0} ns a row ({low:.0} to {high:.0}{of}): {about}", contestant.name);
    }
}

fn as_json(rows: usize, counts: &Counts, contestants: &[Contestant]) -> Value {
    let mut shown = json!({"rows": rows, "fates": counts, "passes": contestants[0].passes.len()});
    for contestant in contestants {
        let key = contestant.name.rsplit(' ').next_back().unwrap_or_default();
        let [[low, _], [middle, guest], [high, _]] = [0.1, 0.5, 0.9].map(|share| contestant.at(share));
        let mut figures = json!({"ns": middle, "ns_low": low, "ns_high": high});
        if matches!(contestant.code, Code::Sandboxed(_)) {
            figures["ns_calls"] = guest.into();
            figures["memory_bytes"] = contestant.memory.into();
        }
        shown[key] = figures;
    }
    shown
}
