//! `gristmill audit`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use gristmill_pipeline::{Checked, Commands, TimeSpan, quoted, shell_word};
use gristmill_sinks::{AuditFinding, AuditKind, AuditReport, AuditScope, PartitionAudit, TryAudit};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::exit::Exit;

/// Account for every offset that was published, and compare the books with the files.
///
/// For each partition: how many offsets, records, rows, drops, dead letters, and offsets without a visible
/// record (control records, aborted transactions, compaction, retention). Every file is read: it has to be
/// the one that was published, its rows have to be of its range, and none may stand twice, also not in files that
/// somebody else put into the folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Safe beside a running pipeline; nothing is changed. Exits with 3 if something does not add up, and says for each
finding the one command that helps, if there is one: to delete a file only where all of its rows stand elsewhere.
A published file that is gone is a difference, also if somebody deleted it on purpose (`ledger verify` only names
it). Rows are compared by their columns `_kafka_partition`, `_kafka_offset` and
`_kafka_sub`; without them (`kafka_columns: false`) they are counted only.")]
pub(crate) struct Args {
    /// The pipeline file.
    file: PathBuf,
    /// Only what was sealed in this time, such as `24h`; by default everything.
    #[arg(long, value_name = "TIME")]
    since: Option<TimeSpan>,
    /// Only this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// Print the report as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let checked = gristmill_pipeline::check(&args.file)?;
    if checked.pipeline.sink.bigquery.is_some() {
        return Err(Exit::mistake(
            "audit compares the books with files, and the rows of this pipeline are in BigQuery: `gristmill ledger verify` checks \
             the books alone",
        ));
    }
    let runtime = crate::tokio_runtime()?;
    // Opening a bucket starts tasks that renew tokens.
    let _inside = runtime.enter();
    let config = gristmill_pipeline::ledger_of(&checked)?;
    let since = match args.since {
        None => None,
        Some(span) => Some(
            SystemTime::now()
                .checked_sub(span.duration())
                .ok_or_else(|| Exit::mistake(format!("--since {span}: that is before all time")))?,
        ),
    };
    let scope = AuditScope { topic: args.topic.clone(), partition: args.partition, since };
    let progress = progress();
    let report = runtime
        .block_on(gristmill_sinks::audit(&config, &scope, &|| progress.inc(1)))
        .map_err(Exit::failed)?;
    progress.finish_and_clear();
    let findings: Vec<_> =
        report.findings.iter().map(|finding| (finding, command(&checked, finding))).collect();
    if args.json {
        println!("{}", as_json(args, &report, &findings));
    } else {
        print(checked.commands(), &report, &findings);
    }
    if report.is_clean() {
        return Ok(());
    }
    Err(Exit::difference("the books and the files do not agree; nothing was changed"))
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} files read, {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// The one command that helps, where one does.
fn command(checked: &Checked, finding: &AuditFinding) -> Option<String> {
    match (&finding.kind, &finding.range) {
        (AuditKind::Pending | AuditKind::BeforeLedger, _) => None,
        (AuditKind::Overlap | AuditKind::Unreadable, _) => Some(checked.commands().verify(None)),
        (_, Some(range)) => {
            let commands = checked.commands().partition(&range.topic, range.partition);
            Some(commands.replay(range.first, range.next))
        }
        // Never for a file that may be the only copy of a row.
        (_, None) if !finding.redundant => None,
        (_, None) => {
            let files = checked.pipeline.sink.files.as_ref()?;
            Some(match (&files.folder, &files.gcs) {
                (Some(folder), _) => {
                    format!("rm {}", quoted(&checked.path(folder).join(&finding.object)))
                }
                (None, Some(gcs)) => {
                    let object = format!("gs://{}/{}", gcs.bucket, finding.object);
                    format!("gcloud storage rm {}", shell_word(&object))
                }
                (None, None) => return None,
            })
        }
    }
}

fn as_json(
    args: &Args,
    report: &AuditReport,
    findings: &[(&AuditFinding, Option<String>)],
) -> serde_json::Value {
    let findings: Vec<_> = findings
        .iter()
        .map(|(finding, command)| {
            let mut object = json!(finding);
            object["command"] = json!(command);
            object
        })
        .collect();
    json!({
        "since": args.since.map(|span| span.to_string()),
        "clean": report.is_clean(),
        "partitions": report.partitions,
        "tries": report.tries,
        "findings": findings,
        "more_findings": report.more_findings,
    })
}

fn print(commands: Commands<'_>, report: &AuditReport, findings: &[(&AuditFinding, Option<String>)]) {
    match (report.partitions.is_empty(), report.tries.is_empty()) {
        (true, true) => println!("nothing was sealed in that time"),
        (true, false) => println!("nothing was sealed in that time but what tries of dead letters wrote"),
        (false, _) => table(&report.partitions),
    }
    for account in &report.partitions {
        if !account.counts.rejected.is_empty() {
            let codes: Vec<_> =
                account.counts.rejected.iter().map(|(code, n)| format!("{code} {n}")).collect();
            println!("{}-{}: rejected: {}", account.topic, account.partition, codes.join(", "));
        }
        if account.files_by_count > 0 {
            println!(
                "{}-{}: rows of {} files do not say where they came from: they were counted, not compared",
                account.topic, account.partition, account.files_by_count
            );
        }
    }
    report.tries.iter().for_each(print_try);
    for (finding, command) in findings {
        println!(
            "{} {}: {}",
            if finding.kind.is_difference() { "FAIL" } else { "note" },
            finding.object,
            finding.text
        );
        if let Some(command) = command {
            println!("     {command}");
        }
    }
    if report.more_findings > 0 {
        println!("and {} more findings", report.more_findings);
    }
    if report.is_clean() && !(report.partitions.is_empty() && report.tries.is_empty()) {
        match report.partitions.iter().map(|a| a.given_up).sum::<u64>() {
            0 => println!("every offset is accounted for, and every file is what was published"),
            n => println!(
                "every offset is accounted for but {n} that operators gave up (`{}`), and every file is what was published",
                commands.log()
            ),
        }
    }
}

fn print_try(account: &TryAudit) {
    let TryAudit {
        topic,
        partition,
        number,
        counts,
        files,
        rows,
        rejected,
        files_by_count,
        not_compared,
        ..
    } = account;
    println!(
        "{topic}-{partition}: try {number} of its dead letters: {} records, of which {rows} rows in {files} files, {} dropped and \
         {rejected} refused again",
        counts.read, counts.dropped
    );
    if *files_by_count > 0 {
        println!(
            "{topic}-{partition}: try {number}: rows of {files_by_count} files do not say where they came from: they were counted, not compared"
        );
    }
    if *not_compared > 0 {
        println!(
            "{topic}-{partition}: try {number}: {not_compared} rows are of records before the audited ranges: they were not compared"
        );
    }
}

fn table(partitions: &[PartitionAudit]) {
    const HEADS: [&str; 10] = [
        "partition",
        "offsets",
        "records",
        "rows",
        "(emitted)",
        "dropped",
        "rejected",
        "undecodable",
        "without record",
        "given up",
    ];
    let lines: Vec<[String; 10]> = partitions
        .iter()
        .map(|a| {
            [
                format!("{}-{}", a.topic, a.partition),
                format!("{}..{}", a.first, a.next),
                a.counts.read.to_string(),
                a.rows.to_string(),
                a.emitted_rows.to_string(),
                a.counts.dropped.to_string(),
                a.counts.rejected_total().to_string(),
                a.counts.undecodable.to_string(),
                a.without_record.to_string(),
                a.given_up.to_string(),
            ]
        })
        .collect();
    let width = |i: usize| lines.iter().map(|l| l[i].len()).chain([HEADS[i].len()]).max().unwrap_or_default();
    let row = |cells: [&str; 10]| {
        let cells: Vec<_> = cells
            .iter()
            .enumerate()
            // Names to the left, numbers to the right.
            .map(|(i, cell)| match i {
                0 => format!("{cell:<0$}", width(i)),
                _ => format!("{cell:>0$}", width(i)),
            })
            .collect();
        println!("{}", cells.join("  ").trim_end());
    };
    row(HEADS);
    lines.iter().for_each(|line| row(std::array::from_fn(|i| line[i].as_str())));
}
