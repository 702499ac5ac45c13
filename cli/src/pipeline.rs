//! `gristmill pipeline`.

use std::path::PathBuf;

use crate::exit::Exit;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Check a pipeline file: every mistake of form at once, with its line; then whether the transform loads and
    /// takes its configuration. Nothing is contacted or written, unless `--online` asks the buckets.
    Check {
        /// The pipeline file.
        file: PathBuf,
        /// Also ask Cloud Storage whether the buckets are there, what the credentials may do, and which of the
        /// buckets' settings would harm or cost. Nothing is written.
        #[arg(long)]
        online: bool,
    },
    /// Run records through the file's transform and decoder; compare rows and dead letters.
    Test {
        /// The pipeline file.
        file: PathBuf,
        /// The cases; by default the pipeline file's name with `.test.yaml` for `.yaml`.
        #[arg(long)]
        cases: Option<PathBuf>,
    },
    /// What a start would do: tables that would be made or changed, and where each partition goes on. The cluster, the registry,
    /// the ledger's place and BigQuery are asked; nothing is written, and no group is joined.
    Plan {
        /// The pipeline file.
        file: PathBuf,
    },
    /// Print the JSON Schema of pipeline files, for editors and CI.
    Schema,
}

pub(crate) fn run(command: &Command) -> Result<(), Exit> {
    match command {
        Command::Check { file, online } => {
            let checked = gristmill_pipeline::check(file)?;
            gristmill_pipeline::check_components(&checked)?;
            if *online {
                let lines = crate::tokio_runtime()?.block_on(gristmill_pipeline::check_buckets(&checked))?;
                for (is_problem, text) in &lines {
                    println!("{}: {text}", if *is_problem { "problem" } else { "note" });
                }
                if lines.iter().any(|(is_problem, _)| *is_problem) {
                    return Err(Exit::difference(
                        "the buckets are not fit for this pipeline; nothing was changed",
                    ));
                }
            }
            println!("{}: the pipeline `{}` is fine", file.display(), checked.pipeline.name);
            Ok(())
        }
        Command::Schema => {
            let schema = gristmill_pipeline::schema();
            println!("{}", serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
            Ok(())
        }
        Command::Plan { file } => {
            let checked = gristmill_pipeline::check(file)?;
            let plan = crate::tokio_runtime()?.block_on(gristmill_pipeline::plan(&checked))?;
            print!("{plan}");
            match plan.would_start() {
                true => Ok(()),
                false => Err(Exit::difference("the pipeline would not start; nothing was changed")),
            }
        }
        Command::Test { file, cases } => test(file, cases.as_deref()),
    }
}

fn test(file: &std::path::Path, cases: Option<&std::path::Path>) -> Result<(), Exit> {
    let checked = gristmill_pipeline::check(file)?;
    let cases = cases.map_or_else(|| file.with_extension("test.yaml"), PathBuf::from);
    if !cases.exists() {
        return Err(Exit::mistake(format!(
            "there are no cases: write {}, or name a file with --cases",
            cases.display()
        )));
    }
    let runtime = crate::tokio_runtime()?;
    let report = runtime.block_on(gristmill_pipeline::test(checked, &cases))?;
    print!("{report}");
    if report.passed() { Ok(()) } else { Err(Exit::difference("")) }
}
