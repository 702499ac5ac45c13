//! What a stop says: what was found, what is safe, what going on would lose or double, and the command for each thing
//! that may have been meant.

use std::path::Path;

use gristmill_sinks::{FileEntry, PartitionId};

use crate::commands::Commands;
use crate::error::{Error, ErrorKind};
use crate::group_offset::{Author, Span, Verdict};

/// Where a stop happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The pipeline file, as the user named it.
    pub(crate) file: &'a Path,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

impl<'a> Place<'a> {
    pub(crate) fn of(file: &'a Path, id: &'a PartitionId) -> Self {
        Place { file, topic: &id.topic, partition: id.partition }
    }

    fn commands(&self) -> Commands<'a> {
        Commands::of(self.file).partition(self.topic, self.partition)
    }

    fn skip(&self, to: i64) -> String {
        format!("`{}`", self.commands().skip(to))
    }

    fn reset(&self) -> String {
        format!("`{}`", self.commands().reset())
    }

    fn replay(&self, from: i64, to: i64) -> String {
        format!("`{}`", self.commands().replay(from, to))
    }

    fn run(&self) -> String {
        format!("`{}`", self.commands().run())
    }
}

/// `offsets 3 to 5 (3 of them)`.
fn offsets(first: i64, next: i64) -> String {
    match next.saturating_sub(first) {
        1 => format!("offset {first}"),
        n => format!("offsets {first} to {} ({n} of them)", next.saturating_sub(1)),
    }
}

fn safe(next: i64) -> String {
    format!("everything below offset {next} is published and safe")
}

/// What another pipeline called itself in the group's metadata, which anybody can write.
fn pipeline(name: &str) -> String {
    format!("the pipeline `{}`", name.escape_debug())
}

/// The error of a verdict on group and ledger with which no pipeline starts.
pub(crate) fn refusal(at: Place<'_>, verdict: &Verdict) -> Option<Error> {
    match verdict {
        Verdict::GoOn | Verdict::StartAtBeginning | Verdict::StartAtGroup => None,
        Verdict::Moved { committed, ledger, by } => Some(moved(at, *committed, *ledger, by)),
        Verdict::LedgerBehind { committed, next } => Some(ledger_behind(at, *committed, *next)),
        Verdict::LedgerGone { committed } => Some(ledger_gone(at, *committed)),
        Verdict::GroupOfAnother { committed, name } => Some(group_of_another(at, *committed, name)),
    }
}

/// The group's offset is neither the ledger's end nor ours.
fn moved(at: Place<'_>, committed: i64, ledger: Span, by: &Author) -> Error {
    let Span { start, next, .. } = ledger;
    let who = match by {
        Author::Other(name) => format!("by {}, which shares the group", pipeline(name)),
        _ => "by hand or by another consumer".to_owned(),
    };
    let is_safe = match start {
        0 => safe(next),
        _ if start == next => "nothing of it is published yet".to_owned(),
        _ => format!(
            "everything from offset {start}, where the ledger begins, to {} is published and safe",
            next - 1
        ),
    };
    let found = format!(
        "the group's offset was moved {who}: it is {committed}, the ledger ends at {next}; nothing was read or written, \
         and {is_safe}"
    );
    let reset = at.reset();
    let meant = if committed > next {
        format!(
            "going on at {committed} would lose {}\n  \
             to give them up: {}\n  \
             if it was not meant: {reset}",
            offsets(next, committed),
            at.skip(committed)
        )
    } else {
        let mut written = Vec::new();
        if committed < start {
            written.push(format!("{}, which lie before this ledger", offsets(committed, start)));
        }
        if next > start {
            written.push(format!("{} a second time", offsets(committed.max(start), next)));
        }
        format!(
            "going on at {committed} would write {}\n  \
             to have them written elsewhere: {}, and then the next command\n  \
             if it was not meant: {reset}",
            written.join(", and "),
            at.replay(committed, next)
        )
    };
    Error::new(ErrorKind::Source, format!("{found}. From here {meant}"))
}

/// There is no ledger yet, and the group is where another pipeline has come to.
fn group_of_another(at: Place<'_>, committed: i64, name: &str) -> Error {
    let text = format!(
        "there is no ledger of the partition yet, and the group's offset {committed} was committed by {}: two pipelines that \
         share a group take each other's partitions, and each would lose what the other has read; nothing was read or \
         written. A start at offset {committed} is right only if this pipeline takes that one's place\n  \
         if both are to run: name another `source.kafka.group`\n  \
         if this one was renamed, or replaces the other: {}, which begins a ledger at offset {committed}",
        pipeline(name),
        at.reset()
    );
    Error::new(ErrorKind::Source, text)
}

/// Our commit is beyond the ledger's end.
fn ledger_behind(at: Place<'_>, committed: i64, next: i64) -> Error {
    let text = format!(
        "this pipeline has committed offset {committed} to its group, and the ledger ends at {next}: the ledger is not the \
         one that was written then, but another folder's or an old copy; nothing was read or written, and as far as this \
         ledger knows {}. From here going on would write {} a second time, unless their files were lost too\n  \
         if the folder is the wrong one: put it back, then {}\n  \
         to write them again in this one: {}",
        safe(next),
        offsets(next, committed),
        at.run(),
        at.reset()
    );
    Error::new(ErrorKind::Source, text)
}

/// There is our commit, and no ledger.
fn ledger_gone(at: Place<'_>, committed: i64) -> Error {
    let text = format!(
        "this pipeline has committed offset {committed} to its group, but there is no ledger of the partition: it was \
         deleted, or the folder is another one; nothing was read or written, and {} where the ledger was. From here a start \
         at the beginning could double what is published\n  \
         if the folder is the wrong one, or there is a copy of `_gristmill`: put it back, then {}\n  \
         to begin a new ledger at offset {committed}: {}\n  \
         to read everything once more: name another `source.kafka.group`, and a folder that is empty",
        safe(committed),
        at.run(),
        at.reset()
    );
    Error::new(ErrorKind::Source, text)
}

/// The position is no longer in the partition, which has `earliest..end`.
pub(crate) fn out_of_range(at: Place<'_>, next: i64, earliest: i64, end: i64) -> Error {
    let text = if next < earliest {
        format!(
            "retention has removed {} before they were read; {}. They are lost to this pipeline whatever is done\n  \
             to go on at the earliest record: `{} --yes`",
            offsets(next, earliest),
            safe(next),
            at.commands().skip(earliest)
        )
    } else if next > end {
        format!(
            "the ledger ends at offset {next}, and the partition at {end}: the topic has lost records (a leader election \
             that was not clean), or this is another cluster; {}. What is written to {} from now on is not what the ledger \
             has, and would be passed over\n  \
             if the cluster is the wrong one: mend `source.kafka.bootstrap_servers`, then {}\n  \
             once the partition has reached offset {next}, to have those written elsewhere: {}, then {}",
            safe(next),
            offsets(end, next),
            at.run(),
            at.replay(end, next),
            at.run()
        )
    } else {
        format!(
            "Kafka refuses to read at offset {next}, though the partition has offsets {earliest} to {}; {}. Nothing is lost \
             by a new start: {}",
            end.saturating_sub(1),
            safe(next),
            at.run()
        )
    };
    Error::new(ErrorKind::Source, text)
}

/// A file of the newest entry can never have been published, and is gone.
pub(crate) fn lost_file(at: Place<'_>, entry: (i64, i64), file: &FileEntry) -> Error {
    let text = format!(
        "{} ({} rows of {}) was sealed and is gone before it was published; nothing was read or written, and {}. Going on \
         would lose these rows from the files\n  \
         to go on without them: `{} --yes`\n  \
         to have the range written again elsewhere, from the topic: {}",
        file.final_name,
        file.rows,
        offsets(entry.0, entry.1),
        safe(entry.0),
        at.commands().accept_missing(),
        at.replay(entry.0, entry.1)
    );
    Error::new(ErrorKind::Sink, text)
}

/// As [`lost_file`], of a try to deliver dead letters again, which has no group's offset to say what was published.
pub(crate) fn lost_file_of_try(at: Place<'_>, number: u32, entry: (i64, i64), file: &FileEntry) -> Error {
    let text = format!(
        "{} ({} rows of dead letters from {}) was sealed by try {number} and is gone: deleted after it was published, which nothing \
         says, or lost before; nothing was read or written. Going on may lose these rows from the files\n  \
         to go on without them: `{} --yes`\n  \
         their records are in the dead letters: `{}` shows them",
        file.final_name,
        file.rows,
        offsets(entry.0, entry.1),
        at.commands().accept_missing_of_try(number),
        at.commands().dead_letters()
    );
    Error::new(ErrorKind::Sink, text)
}

/// A stream of the newest entry is gone, and may have been committed or not.
pub(crate) fn gone_stream(at: Place<'_>, entry: (i64, i64), why: &gristmill_sinks::Error) -> Error {
    let text = format!(
        "{why}\n  \
         if they are there, or to go on without them: `{} --yes`\n  \
         if they are not, to have the range written elsewhere, from the topic: {}",
        at.commands().accept_missing(),
        at.replay(entry.0, entry.1)
    );
    Error::new(ErrorKind::Sink, text)
}

/// As [`lost_file`], of a replay: what it has published is not the range.
pub(crate) fn replay_lost_file(entry: (i64, i64), file: &FileEntry) -> Error {
    let text = format!(
        "{} ({} rows of {}) was sealed by the replay and is gone before it was published; nothing was read or written, and \
         the live pipeline is not concerned. The replay cannot be trusted any more: replay the range again under another \
         name, and delete the folders of this one",
        file.final_name,
        file.rows,
        offsets(entry.0, entry.1)
    );
    Error::new(ErrorKind::Sink, text)
}

/// As [`out_of_range`], of a replay of the offsets up to `until`. The live pipeline's ledger has nothing to do with it.
pub(crate) fn replay_out_of_range(at: Place<'_>, next: i64, until: i64, earliest: i64, end: i64) -> Error {
    let stays = format!("what the replay has published of its range, below offset {next}, stays");
    let text = if next < earliest {
        let left = match earliest < until {
            true => format!("to replay what is left, under another name: {}", at.replay(earliest, until)),
            false => "nothing is left of the range in this partition".to_owned(),
        };
        format!(
            "retention has removed {} of the range before they were replayed, and {stays}\n  {left}",
            offsets(next, earliest.min(until))
        )
    } else if next > end {
        format!(
            "the replay is at offset {next}, and the partition ends at {end}: the topic has lost records (a leader election \
             that was not clean), or this is another cluster; {stays}\n  \
             if the cluster is the wrong one: mend `source.kafka.bootstrap_servers`, and run the same command again"
        )
    } else {
        format!(
            "Kafka refuses to read at offset {next}, though the partition has offsets {earliest} to {}; {stays}. Nothing is \
             lost by running the same command again",
            end.saturating_sub(1)
        )
    };
    Error::new(ErrorKind::Source, text)
}

/// The topic was deleted and created again while it was read.
pub(crate) fn created_again(at: Place<'_>, first: i64) -> Error {
    let text = format!(
        "the topic was deleted and created again while it was read; of the old one {}, and what was read from there on was \
         not written and is gone with the topic. The new one has a ledger of its own and is read from its beginning: {}",
        safe(first),
        at.run()
    );
    Error::new(ErrorKind::Source, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Place<'static> {
        Place { file: Path::new("my pipelines/orders.yaml"), topic: "orders", partition: 3 }
    }

    fn ledger(start: i64, next: i64) -> Span {
        Span { start, next, is_young: false }
    }

    const FILE: &str = "'my pipelines/orders.yaml'";

    #[test]
    fn an_offset_that_was_moved_forward_names_what_would_be_lost_and_both_commands() {
        assert_eq!(
            moved(at(), 120, ledger(0, 100), &Author::Unmarked).to_string(),
            format!(
                "the group's offset was moved by hand or by another consumer: it is 120, the ledger ends at 100; nothing was \
                 read or written, and everything below offset 100 is published and safe. From here going on at 120 would \
                 lose offsets 100 to 119 (20 of them)\n  \
                 to give them up: `gristmill ledger skip {FILE} --topic orders --partition 3 --to 120`\n  \
                 if it was not meant: `gristmill ledger reset {FILE} --topic orders --partition 3`"
            )
        );
    }

    #[test]
    fn an_offset_that_was_moved_backward_names_what_would_be_doubled_and_both_commands() {
        let text = moved(at(), 99, ledger(0, 100), &Author::Other("b".into())).to_string();
        assert!(text.contains("by the pipeline `b`, which shares the group: it is 99"), "{text}");
        assert!(text.contains("would write offset 99 a second time"), "{text}");
        let replay = format!(
            "`gristmill replay {FILE} --topic orders --partition 3 --from 99 --to 100 --into again-orders-3-99`"
        );
        assert!(text.contains(&replay) && text.contains("ledger reset"), "{text}");
    }

    #[test]
    fn offsets_before_the_ledger_are_not_said_to_be_written_or_safe() {
        let text = moved(at(), 10, ledger(40, 100), &Author::Unmarked).to_string();
        for part in [
            "everything from offset 40, where the ledger begins, to 99 is published and safe",
            "would write offsets 10 to 39 (30 of them), which lie before this ledger, and offsets 40 to 99 (60 of them) a \
             second time",
            "--from 10 --to 100 --into again-orders-3-10`",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let text = moved(at(), 10, ledger(40, 40), &Author::Unmarked).to_string();
        assert!(text.contains("nothing of it is published yet") && !text.contains("a second time"), "{text}");
    }

    #[test]
    fn what_strangers_wrote_into_the_group_is_printed_without_its_control_characters() {
        let by = "b\u{1b}[2J\n`rm`";
        for text in [
            moved(at(), 99, ledger(0, 100), &Author::Other(by.into())).to_string(),
            group_of_another(at(), 99, by).to_string(),
        ] {
            assert!(text.contains(r"the pipeline `b\u{1b}[2J\n`rm``"), "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn a_group_of_another_pipeline_names_it_and_both_ways_out() {
        let text = group_of_another(at(), 70, "old").to_string();
        assert!(text.contains("the group's offset 70 was committed by the pipeline `old`"), "{text}");
        assert!(text.contains("name another `source.kafka.group`"), "{text}");
        assert!(
            text.contains(&format!("`gristmill ledger reset {FILE} --topic orders --partition 3`")),
            "{text}"
        );
    }

    #[test]
    fn a_replay_that_retention_overtakes_leaves_the_live_ledger_alone() {
        let text = replay_out_of_range(at(), 10, 30, 15, 40).to_string();
        assert!(
            text.starts_with("retention has removed offsets 10 to 14 (5 of them) of the range"),
            "{text}"
        );
        assert!(text.contains("--from 15 --to 30 --into again-orders-3-15`"), "{text}");
        let text = replay_out_of_range(at(), 10, 30, 35, 40).to_string();
        assert!(text.contains("offsets 10 to 29 (20 of them)") && text.contains("nothing is left"), "{text}");
        for (next, earliest, end) in [(10, 15, 40), (10, 35, 40), (50, 15, 40), (20, 15, 40)] {
            let text = replay_out_of_range(at(), next, 60, earliest, end).to_string();
            assert!(!text.contains("gristmill ledger") && !text.contains("gristmill run"), "{text}");
        }
    }

    #[test]
    fn a_range_that_retention_took_is_named_with_the_command_that_goes_on() {
        let text = out_of_range(at(), 10, 15, 40).to_string();
        assert!(text.starts_with("retention has removed offsets 10 to 14 (5 of them)"), "{text}");
        assert!(text.contains("everything below offset 10 is published and safe"), "{text}");
        assert!(text.ends_with("--partition 3 --to 15 --yes`"), "{text}");
        let text = out_of_range(at(), 50, 15, 40).to_string();
        assert!(text.contains("ends at offset 50, and the partition at 40"), "{text}");
        assert!(text.contains("--from 40 --to 50 --into again-orders-3-40"), "{text}");
    }

    #[test]
    fn a_topic_that_was_created_again_names_what_is_safe_and_how_to_go_on() {
        let text = created_again(at(), 70).to_string();
        assert!(text.contains("of the old one everything below offset 70 is published and safe"), "{text}");
        assert!(text.ends_with(&format!("`gristmill run {FILE}`")), "{text}");
    }
}
