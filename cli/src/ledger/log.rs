//! `gristmill ledger log`.

use std::path::Path;

use crate::exit::Exit;

pub(crate) async fn run(file: &Path) -> Result<(), Exit> {
    let config = gristmill_pipeline::ledger_of(&gristmill_pipeline::check(file)?)?;
    let operations = gristmill_sinks::operations(&config).await.map_err(Exit::failed)?;
    if operations.is_empty() {
        println!("no operator has changed a ledger");
    }
    for logged in &operations {
        let operation = &logged.operation;
        println!("{} {} by {}", operation.at, operation.kind, operation.by);
        println!("  command: {}", operation.command);
        if !operation.reason.is_empty() {
            println!("  reason: {}", operation.reason);
        }
        for line in &operation.plan {
            println!("  planned: {line}");
        }
        match &logged.outcome {
            None => println!("  has no outcome: it is going on, or was killed"),
            Some(outcome) => {
                for line in &outcome.changes {
                    println!("  done: {line}");
                }
                if let Some(error) = &outcome.error {
                    println!("  failed: {error}");
                }
            }
        }
    }
    Ok(())
}
