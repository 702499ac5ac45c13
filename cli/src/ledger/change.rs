//! What all changes of a ledger have in common: a dry run first, and a trail.

use gristmill_pipeline::Checked;
use gristmill_sinks::{Operation, SinkConfig};

use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    /// Do it. Without, it is only shown what would be done.
    #[arg(long)]
    yes: bool,
    /// Why, for `gristmill ledger log`.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

impl Change {
    /// The ledgers: to be changed with `--yes`, else to look at them, which creates nothing.
    pub(crate) async fn ledgers(&self, checked: &Checked) -> Result<SinkConfig, Exit> {
        Ok(match self.yes {
            true => gristmill_pipeline::ledger_to_change(checked).await?,
            false => gristmill_pipeline::ledger_of(checked)?,
        })
    }

    /// Shows the plan; with `--yes` acts, and writes down before and after what is done. `act` adds a sentence for each
    /// change, also of those before it fails.
    pub(crate) async fn carry_out(
        &self,
        config: &SinkConfig,
        kind: &str,
        plan: Vec<String>,
        act: impl AsyncFnOnce(&mut Vec<String>) -> Result<(), Exit>,
    ) -> Result<(), Exit> {
        for line in &plan {
            println!("{} {line}", if self.yes { "doing:" } else { "would:" });
        }
        if !self.yes {
            println!("nothing was changed; add --yes to do it");
            return Ok(());
        }
        let operation = Operation::new(kind, &operator(), &command_line(), &self.reason, plan);
        operation.begin(config).await.map_err(Exit::failed)?;
        let mut changes = Vec::new();
        let outcome = act(&mut changes).await;
        for change in &changes {
            println!("done: {change}");
        }
        let error = outcome.as_ref().err().map(|exit| exit.message.clone());
        if let Err(error) = operation.end(config, changes, error).await {
            eprintln!("warning: how it ended could not be written to the trail: {error}");
        }
        outcome
    }
}

/// `user@host` of this process.
pub(crate) fn operator() -> String {
    let name = ["USER", "LOGNAME"].iter().find_map(|v| std::env::var(v).ok().filter(|name| !name.is_empty()));
    // SAFETY: `geteuid` takes nothing, and cannot fail.
    let user = name.unwrap_or_else(|| format!("uid {}", unsafe { libc::geteuid() }));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    if host.is_empty() { user } else { format!("{user}@{host}") }
}

fn command_line() -> String {
    let word = |a: std::ffi::OsString| gristmill_pipeline::shell_word(&a.to_string_lossy());
    crate::ARGUMENTS.get().into_iter().flatten().cloned().map(word).collect::<Vec<_>>().join(" ")
}

/// `offsets 3 to 5 (3 of them)`.
pub(crate) fn offsets(first: i64, next: i64) -> String {
    format!("offsets {first} to {} ({} of them)", next.saturating_sub(1), next.saturating_sub(first))
}
