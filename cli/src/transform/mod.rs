//! `gristmill transform`.

mod bench;
mod diff;
mod identity;
mod input;
mod inspect;
mod new;
mod outcome;
mod run;
mod watch;

use std::path::{Path, PathBuf};

use gristmill_smt::fixtures::{FixtureOptions, run_fixtures};
use gristmill_smt::{GuestOptions, Limits, Runtime, RuntimeConfig, Transform};

use crate::exit::Exit;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make the folder of a new transform, with a test and a fixture that pass.
    ///
    /// From nothing to a tested component, here in Rust; what is printed at the end says it for other languages:
    ///   gristmill transform new mask-orders
    ///   cargo test --manifest-path mask-orders/Cargo.toml
    ///   gristmill transform test mask-orders
    ///   gristmill transform build mask-orders
    ///   gristmill transform inspect mask-orders/mask-orders.wasm
    #[command(verbatim_doc_comment)]
    New(new::Args),
    /// Put values through a transform and show what becomes of each, as one JSON object a line.
    ///
    /// What it logs and counts is on standard error.
    ///
    ///   gristmill transform run mask.wasm --from-topic orders.yaml --limit 20 --before
    ///   gristmill transform run mask.wasm --config '{"most": 100}' \
    ///       --fields '{"amount": "int64 not null"}' < values.jsonl
    #[command(verbatim_doc_comment)]
    Run(run::Args),
    /// Show what a new version of a transform would change, row by row, before it is in a pipeline.
    ///
    /// Ends with code 3 if there is a difference.
    ///
    ///   gristmill transform diff mask.wasm mask-2.wasm --from-topic orders.yaml --last 1h
    #[command(verbatim_doc_comment)]
    Diff(diff::Args),
    /// Measure what a transform costs a row, beside one that keeps every row, and the crate compiled for this machine.
    ///
    /// Time is that of the whole hop: what is read goes into the sandbox, the answer is checked and the output put together.
    ///
    ///   gristmill transform bench mask-orders --native --from-topic orders.yaml --limit 10000
    ///   gristmill transform bench mask.wasm --cost --fields fields.json < values.jsonl
    #[command(verbatim_doc_comment)]
    Bench(bench::Args),
    /// Test a transform's folder, as `test` does, now and whenever something in it changes.
    Watch {
        /// The transform's folder.
        dir: PathBuf,
        /// Seed of the random cuts.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Compile a transform into a component: a crate, or a folder with transform.py or transform.js.
    Build {
        /// The transform's folder.
        dir: PathBuf,
        /// Where to put the component; by default the transform's folder, under its name.
        #[arg(long, short)]
        output: Option<PathBuf>,
        /// Of a crate: keep names and lines, so that the message of a trap says where it was.
        #[arg(long)]
        debug_info: bool,
    },
    /// Run a transform's fixtures in the sandbox: as one batch, cut at random, and on fresh instances.
    ///
    /// Fixtures are the files `fixtures/*.json` of the transform's folder. A difference between the ways of
    /// cutting means that the transform remembers something between batches, which fails the test.
    Test {
        /// The transform's folder.
        dir: PathBuf,
        /// Test this component instead of compiling the folder.
        #[arg(long)]
        wasm: Option<PathBuf>,
        /// Write what came out as what is expected. Look at the difference before you commit it.
        #[arg(long)]
        update: bool,
        /// Seed of the random cuts.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Show what a component says of itself: what it works on, can reach and reads, its outputs and its configuration.
    Inspect {
        /// The component, or the folder of a transform, which is compiled first.
        wasm: PathBuf,
        /// As one JSON object, with the configuration's JSON Schema.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &Command) -> Result<(), Exit> {
    match command {
        Command::New(args) => new::run(args),
        Command::Run(args) => run::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Watch { dir, seed } => watch::run(dir, *seed),
        Command::Build { dir, output, debug_info } => {
            let options = GuestOptions::default().with_debug_info(*debug_info);
            build(dir, output.as_deref(), &options)
        }
        Command::Test { dir, wasm, update, seed } => test(dir, wasm.as_deref(), *update, *seed),
        Command::Inspect { wasm, json } => inspect::run(wasm, *json),
    }
}

/// The component itself, or that of a folder, which is compiled.
fn component(what: &Path) -> Result<PathBuf, Exit> {
    match what.is_dir() {
        true => build_component(what).map_err(Exit::failed),
        false => Ok(what.to_owned()),
    }
}

/// Compiles the crate in `dir`; the component lies in the user's cache.
pub(crate) fn build_component(dir: &Path) -> Result<PathBuf, gristmill_smt::Error> {
    built(dir, &GuestOptions::default())
}

fn built(dir: &Path, options: &GuestOptions) -> Result<PathBuf, gristmill_smt::Error> {
    let built = gristmill_smt::build_guest_with(dir, options)?;
    eprintln!("compiled with {}", built.toolchain);
    Ok(built.component)
}

fn build(dir: &Path, output: Option<&Path>, options: &GuestOptions) -> Result<(), Exit> {
    let component = built(dir, options).map_err(Exit::failed)?;
    // What does not load is not handed over.
    let transform = load(&component)?;
    let to = output.map_or_else(|| dir.join(format!("{}.wasm", transform.manifest().name)), Path::to_owned);
    // Written anew: the cached file is for this user alone, this one for whoever runs the pipeline.
    let failed = |e: std::io::Error| Exit::failed(format!("{}: {e}", to.display()));
    let cached = |e: std::io::Error| Exit::failed(format!("{}: {e}", component.display()));
    let component = std::fs::read(&component).map_err(cached)?;
    // By renaming: a pipeline with `reload` may be looking.
    let part = to.with_extension("wasm.part");
    std::fs::write(&part, &component).and_then(|()| std::fs::rename(&part, &to)).map_err(failed)?;
    let bytes = component.len();
    println!("{}  {bytes} bytes, sha256 {}", to.display(), transform.digest());
    Ok(())
}

fn load(component: &Path) -> Result<Transform, Exit> {
    loaded(|runtime| runtime.load_file(component, limits()))
}

fn load_bytes(component: &[u8]) -> Result<Transform, Exit> {
    loaded(|runtime| runtime.load(component, limits()))
}

/// Those of a pipeline by default, but for the breaker: of a version that rejects all rows one wants to see all rows.
fn limits() -> Limits {
    Limits::default().with_max_reject_ratio(1.0)
}

fn loaded(load: impl FnOnce(Runtime) -> Result<Transform, gristmill_smt::Error>) -> Result<Transform, Exit> {
    let mut config = RuntimeConfig::new();
    if let Some(folder) = RuntimeConfig::default_cache_dir() {
        config = config.with_cache_dir(folder);
    }
    Runtime::new(config).and_then(load).map_err(|e| match e.kind() {
        gristmill_smt::ErrorKind::Load => Exit::mistake(e),
        _ => Exit::failed(e),
    })
}

fn test(dir: &Path, wasm: Option<&Path>, update: bool, seed: u64) -> Result<(), Exit> {
    let component = match wasm {
        Some(wasm) => wasm.to_owned(),
        None => build_component(dir).map_err(Exit::failed)?,
    };
    let transform = load(&component)?;
    let options = FixtureOptions::default().with_update(update).with_seed(seed);
    let fixtures = dir.join("fixtures");
    if !fixtures.is_dir() {
        let folder = fixtures.display();
        return Err(Exit::mistake(format!(
            "there is no folder {folder}: put `*.json` there, see examples/transforms/orders/fixtures"
        )));
    }
    let results = run_fixtures(&transform, &fixtures, &options).map_err(Exit::mistake)?;
    for result in &results {
        println!("{result}");
    }
    let failed = results.iter().filter(|r| !r.is_ok()).count();
    println!("{} passed, {failed} failed", results.len() - failed);
    if failed == 0 { Ok(()) } else { Err(Exit::difference("")) }
}
