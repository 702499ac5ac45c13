//! The command `gristmill`, as a function: the wheel for Python has it too.
#![deny(missing_docs)]

mod audit;
mod demo;
mod dlq;
mod exit;
mod ledger;
mod pipeline;
mod replay;
mod run;
mod transform;
mod version;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::OnceLock;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::exit::Exit;

/// Kafka to BigQuery, Cloud Storage and folders, exactly once, with your own code in a sandbox on the way.
///
/// New here? `gristmill demo` needs nothing installed: it runs orders from an embedded Kafka through a
/// WebAssembly transform into Parquet.
#[derive(Debug, Parser)]
#[command(name = "gristmill", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// How log lines look. What is logged is set by GRISTMILL_LOG, such as `info` or `gristmill=debug`.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or stopped on a signal with every open checkpoint finished
  1  failed while running; the message says what to do, and the next start goes on where the ledger ends
  2  a mistake in the command line or in a file
  3  a check found a difference: tests, fixtures, ledger, audit, or the demo's sums
  4  stopped on a signal, but an open checkpoint did not finish in time, or a replay before its end; nothing
     is lost, the next start goes on where the ledger ends";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline until SIGTERM or Ctrl-C.
    Run(run::Args),
    /// Run a bounded range of the topics once more, into a folder or tables beside the live pipeline's.
    Replay(replay::Args),
    /// Check, test and describe pipeline files.
    #[command(subcommand)]
    Pipeline(pipeline::Command),
    /// Look at the ledger, and mend it: which ranges of a topic are published, in which files or streams of BigQuery.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Look at dead letters, and deliver their records once more.
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Account for every offset that was published, and compare the books with the files.
    Audit(audit::Args),
    /// Build and test transforms.
    #[command(subcommand)]
    Transform(transform::Command),
    /// 200,000 orders from an embedded Kafka through a WebAssembly transform into Parquet files.
    Demo(demo::Args),
    /// Show what this build is made of, and until when its sandbox gets security fixes.
    Version,
}

impl Command {
    fn talks_to_kafka(&self) -> bool {
        match self {
            Command::Run(_) | Command::Replay(_) | Command::Demo(_) => true,
            Command::Ledger(command) => command.changes_ledgers(),
            // Dead letters that are refused again may go to a topic.
            Command::Dlq(dlq::Command::Replay { .. }) => true,
            _ => false,
        }
    }
}

/// The command line, the program's name first.
static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Runs the command, and gives its exit code; to be called once in a process, which it may end itself, before there are other threads. It has the
/// signals and the log to itself.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = ARGUMENTS.get_or_init(|| arguments.into_iter().collect());
    let cli = Cli::parse_from(arguments);
    if !cli.command.talks_to_kafka() {
        end_with_the_reader();
    }
    let running = match cli.command {
        Command::Run(_) => true,
        // On a terminal it shows a bar instead.
        Command::Replay(_) => !std::io::stderr().is_terminal(),
        _ => false,
    };
    let result = log(cli.log_format, running);
    match result.and_then(|()| execute(&cli.command)) {
        Ok(()) => 0,
        Err(exit) => {
            if !exit.message.is_empty() {
                eprintln!("{}", exit.message);
            }
            exit.code
        }
    }
}

fn execute(command: &Command) -> Result<(), Exit> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Pipeline(command) => pipeline::run(command),
        Command::Ledger(command) => ledger::run(command),
        Command::Dlq(command) => dlq::run(command),
        Command::Audit(args) => audit::run(args),
        Command::Transform(command) => transform::run(command),
        Command::Demo(args) => demo::run(args),
        Command::Version => {
            version::print();
            Ok(())
        }
    }
}

/// `gristmill ledger ls .. | head` ends quietly. Not for commands that talk to Kafka: there a broken connection
/// would end the process.
fn end_with_the_reader() {
    // SAFETY: no other thread runs yet, and the default action needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

fn log(format: LogFormat, running: bool) -> Result<(), Exit> {
    let filter = match std::env::var("GRISTMILL_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|e| {
            Exit::mistake(format!("GRISTMILL_LOG: `{text}` is not a filter, such as `info`: {e}"))
        })?,
        Err(_) => EnvFilter::new(if running { "info" } else { "warn" }),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// A runtime for one command.
fn tokio_runtime() -> Result<tokio::runtime::Runtime, Exit> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Exit::failed(format!("cannot start threads: {e}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;
    use gristmill_pipeline::Commands;

    use super::*;

    /// The words of a line as a shell reads them.
    fn words(line: &str) -> Vec<String> {
        let output =
            std::process::Command::new("sh").arg("-c").arg(format!("printf '%s\\n' {line}")).output();
        let output = output.expect("sh starts");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
    }

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(words(line)).unwrap_or_else(|e| panic!("{line}\n{e}"))
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn every_command_line_that_is_printed_is_one() {
        for file in ["orders.yaml", "-x.yaml", "it's $HOME/`a`.yaml", "--yes"] {
            for topic in ["orders", "-t", "--to", "A.b", "_", &"Long.Name".repeat(27)] {
                let commands = Commands::of(Path::new(file)).partition(topic, 3);
                let name = "again".parse().unwrap();
                for line in [
                    commands.run(),
                    commands.check(),
                    commands.list(),
                    commands.list_replay(&name),
                    commands.verify(None),
                    commands.verify(Some(&name)),
                    commands.log(),
                ] {
                    let parsed = format!("{:?}", parse(&line));
                    assert!(parsed.contains(file.trim_start_matches('-')), "{line}: {parsed}");
                }
                for line in [
                    commands.skip(9),
                    commands.skip(9) + " --yes",
                    commands.reset(),
                    commands.accept_missing(),
                    commands.accept_missing() + " --yes",
                    commands.accept_missing_of_try(2),
                    commands.dead_letters(),
                    commands.replay(5, 9),
                    commands.replay(0, i64::MAX),
                ] {
                    let parsed = format!("{:?}", parse(&line));
                    assert!(parsed.contains(&format!("{topic:?}")), "{line}: {parsed}");
                }
            }
        }
    }

    #[test]
    fn every_example_in_the_help_is_a_command_line() {
        let mut examples = 0;
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().map(str::trim).filter(|line| line.starts_with("gristmill ")) {
                parse(line);
                examples += 1;
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(examples >= 3, "{examples}");
    }
}
