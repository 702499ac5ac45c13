//! `gristmill ledger repair`.

use gristmill_pipeline::Checked;
use gristmill_sinks::{FindingKind, LedgerReport, Remedy, Repaired};

use super::Place;
use super::change::Change;
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Go on without files of the newest entry that were lost before they were published, and without streams of BigQuery that
    /// are gone.
    #[arg(long)]
    accept_missing: bool,
    /// The ledgers of that try to deliver dead letters instead of the pipeline's own.
    #[arg(long, value_name = "TRY")]
    dlq: Option<u32>,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(args: &Args) -> Result<(), Exit> {
    let checked = gristmill_pipeline::check(&args.place.file)?;
    let number = args.dlq.unwrap_or(0);
    let own = args.change.ledgers(&checked).await?;
    let config = own.of_try(number);
    let ledgers = args.place.ledgers(&config).await?;
    let mut reports = Vec::new();
    for ledger in ledgers.whole {
        if number == 0 {
            super::of_this_pipeline(&checked, &ledger)?;
        }
        reports.push(gristmill_sinks::verify_ledger(&config, ledger).await.map_err(Exit::failed)?);
    }
    let mut plan = Vec::new();
    let mut left = ledgers.broken.len();
    for broken in &ledgers.broken {
        println!("{}", broken.text);
    }
    for report in &reports {
        plan.extend(mended(report, args.accept_missing));
        left += tell_the_rest(report, args.accept_missing, &checked);
    }
    if plan.is_empty() {
        println!("there is nothing that can be repaired from the ledgers alone");
    } else {
        let act = async |changes: &mut Vec<String>| {
            let mut failures = Vec::new();
            for report in &reports {
                let (name, mut done) = (name(report), Repaired::default());
                let outcome = gristmill_sinks::repair(&config, report, args.accept_missing, &mut done).await;
                changes.extend(done.published.iter().map(|file| format!("{name}: published {file}")));
                if done.swept > 0 {
                    changes
                        .push(format!("{name}: deleted {} staged objects that no entry names", done.swept));
                }
                // One ledger that cannot be repaired does not hold the others up.
                failures.extend(outcome.err().map(|error| format!("{name}: {error}")));
            }
            if failures.is_empty() { Ok(()) } else { Err(Exit::failed(failures.join("\n"))) }
        };
        args.change.carry_out(&own, "repair", plan, act).await?;
    }
    match left {
        0 => Ok(()),
        n => Err(Exit::difference(format!("{n} findings cannot be repaired from the ledgers alone"))),
    }
}

fn name(report: &LedgerReport) -> String {
    let id = &report.ledger.id;
    match report.retry {
        0 => format!("{}-{}", id.topic, id.partition),
        number => format!("{}-{}, try {number} of its dead letters", id.topic, id.partition),
    }
}

/// Whether only an operator can say that files of the newest entry were published before they went: a pipeline's group says it.
fn is_unsure(report: &LedgerReport) -> bool {
    report.retry > 0 && report.newest_gone > 0
}

fn is_held_up(report: &LedgerReport, accept_missing: bool) -> bool {
    !accept_missing && report.findings.iter().any(|f| f.kind == FindingKind::LostFile)
}

/// A sentence for each finding that a repair mends.
fn mended(report: &LedgerReport, accept_missing: bool) -> Vec<String> {
    let name = name(report);
    let sentence = |finding: &gristmill_sinks::Finding| match finding.kind.remedy() {
        Remedy::Publish => Some(format!("{name}: publish {} from its staged place", finding.object)),
        Remedy::Settle if is_held_up(report, accept_missing) => None,
        Remedy::Settle => Some(format!("{name}: publish {} of the newest entry", finding.object)),
        Remedy::Sweep => Some(format!("{name}: delete {}, which no entry names", finding.object)),
        _ if accept_missing && finding.kind == FindingKind::LostFile => {
            Some(format!("{name}: go on without {}, which {}", finding.object, finding.text))
        }
        _ => None,
    };
    let streams = report.newest_streams;
    let streams = (accept_missing && streams > 0).then(|| {
        format!(
            "{name}: commit the {streams} streams of the newest entry, and go on without those that are gone"
        )
    });
    let gone = (accept_missing && is_unsure(report)).then(|| {
        format!(
            "{name}: take the {} files of the newest entry that are gone for published",
            report.newest_gone
        )
    });
    report.findings.iter().filter_map(sentence).chain(streams).chain(gone).collect()
}

/// Prints what a repair leaves, and what helps instead. Gives how much of it is a problem.
fn tell_the_rest(report: &LedgerReport, accept_missing: bool, checked: &Checked) -> usize {
    let name = name(report);
    let mut problems = 0;
    for finding in &report.findings {
        let accepted = accept_missing && finding.kind == FindingKind::LostFile;
        match finding.kind.remedy() {
            Remedy::Settle if is_held_up(report, accept_missing) => {
                println!("{name}: {} is not published before the lost files are accepted", finding.object);
            }
            Remedy::Replay => {
                println!("{name}: {} {}", finding.object, finding.text);
                if let Some((from, to)) = finding.offsets.filter(|_| report.retry == 0) {
                    let id = &report.ledger.id;
                    let commands = checked.commands().partition(&id.topic, id.partition);
                    println!(
                        "  to have it written again elsewhere, from the topic: `{}`",
                        commands.replay(from, to)
                    );
                }
                if finding.kind == FindingKind::LostFile && !accept_missing {
                    println!("  to go on without it: add --accept-missing");
                }
                problems += usize::from(finding.kind.is_problem() && !accepted);
            }
            Remedy::Restore => {
                println!("{name}: {} {}; restore it from a copy", finding.object, finding.text);
                problems += 1;
            }
            _ => {}
        }
    }
    problems
}
