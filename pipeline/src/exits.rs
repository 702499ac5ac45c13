//! What a stop says: what was found, what is safe, what going on would lose or double, and the command for each thing
//! that may have been meant.

use std::path::Path;

use gristmill_sinks::{FileEntry, PartitionId};

use crate::check::Checked;
use crate::error::{Error, ErrorKind};
use crate::group_offset::Author;

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

    /// A command line for this partition, ready to be pasted.
    fn command(&self, command: &str, options: &str) -> String {
        let space = if options.is_empty() { "" } else { " " };
        format!(
            "`gristmill {command} {} --topic {} --partition {}{space}{options}`",
            quoted(self.file),
            self.topic,
            self.partition
        )
    }

    fn skip(&self, to: i64, options: &str) -> String {
        self.command("ledger skip", format!("--to {to} {options}").trim_end())
    }

    fn reset(&self) -> String {
        self.command("ledger reset", "")
    }

    fn replay(&self, from: i64, to: i64) -> String {
        self.command("replay", &format!("--from {from} --to {to} --into NAME"))
    }

    fn run(&self) -> String {
        format!("`gristmill run {}`", quoted(self.file))
    }
}

/// A text as one word of a shell.
pub fn shell_word(text: &str) -> String {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ',' | ':' | '@' | '=');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path as one word of a shell that is not taken for an option.
pub(crate) fn quoted(path: &Path) -> String {
    let dot = if path.as_os_str().as_encoded_bytes().starts_with(b"-") { "./" } else { "" };
    shell_word(&format!("{dot}{}", path.display()))
}

impl Checked {
    /// The path of the file as one word of a shell, for commands that are printed.
    pub fn file_word(&self) -> String {
        quoted(&self.file)
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

/// The group's offset is neither the ledger's end nor ours.
pub(crate) fn moved(at: Place<'_>, committed: i64, next: i64, by: &Author) -> Error {
    let who = match by {
        Author::Other(pipeline) => format!("by the pipeline `{pipeline}`, which shares the group"),
        _ => "by hand or by another consumer".to_owned(),
    };
    let found = format!(
        "the group's offset was moved {who}: it is {committed}, the ledger ends at {next}; nothing was read or written, \
         and {}",
        safe(next)
    );
    let reset = at.reset();
    let meant = if committed > next {
        format!(
            "going on at {committed} would lose {}\n  \
             to give them up: {}\n  \
             if it was not meant: {reset}",
            offsets(next, committed),
            at.skip(committed, "")
        )
    } else {
        format!(
            "going on at {committed} would write {} a second time\n  \
             to have them written again elsewhere: {}, and then the next command\n  \
             if it was not meant: {reset}",
            offsets(committed, next),
            at.replay(committed, next)
        )
    };
    Error::new(ErrorKind::Source, format!("{found}. From here {meant}"))
}

/// Our commit is beyond the ledger's end.
pub(crate) fn ledger_behind(at: Place<'_>, committed: i64, next: i64) -> Error {
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
pub(crate) fn ledger_gone(at: Place<'_>, committed: i64) -> Error {
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
             to go on at the earliest record: {}",
            offsets(next, earliest),
            safe(next),
            at.skip(earliest, "--yes")
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
         to go on without them: {}\n  \
         to have the range written again elsewhere, from the topic: {}",
        file.final_name,
        file.rows,
        offsets(entry.0, entry.1),
        safe(entry.0),
        at.command("ledger repair", "--accept-missing --yes"),
        at.replay(entry.0, entry.1)
    );
    Error::new(ErrorKind::Sink, text)
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

    const FILE: &str = "'my pipelines/orders.yaml'";

    #[test]
    fn an_offset_that_was_moved_forward_names_what_would_be_lost_and_both_commands() {
        assert_eq!(
            moved(at(), 120, 100, &Author::Unmarked).to_string(),
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
        let text = moved(at(), 99, 100, &Author::Other("b".into())).to_string();
        assert!(text.contains("by the pipeline `b`, which shares the group: it is 99"), "{text}");
        assert!(text.contains("would write offset 99 a second time"), "{text}");
        let replay =
            format!("`gristmill replay {FILE} --topic orders --partition 3 --from 99 --to 100 --into NAME`");
        assert!(text.contains(&replay) && text.contains("ledger reset"), "{text}");
    }

    #[test]
    fn a_range_that_retention_took_is_named_with_the_command_that_goes_on() {
        let text = out_of_range(at(), 10, 15, 40).to_string();
        assert!(text.starts_with("retention has removed offsets 10 to 14 (5 of them)"), "{text}");
        assert!(text.contains("everything below offset 10 is published and safe"), "{text}");
        assert!(text.ends_with("--partition 3 --to 15 --yes`"), "{text}");
        let text = out_of_range(at(), 50, 15, 40).to_string();
        assert!(text.contains("ends at offset 50, and the partition at 40"), "{text}");
        assert!(text.contains("--from 40 --to 50 --into NAME"), "{text}");
    }

    #[test]
    fn a_topic_that_was_created_again_names_what_is_safe_and_how_to_go_on() {
        let text = created_again(at(), 70).to_string();
        assert!(text.contains("of the old one everything below offset 70 is published and safe"), "{text}");
        assert!(text.ends_with(&format!("`gristmill run {FILE}`")), "{text}");
    }

    #[test]
    fn a_path_is_one_word_of_the_shell() {
        assert_eq!(quoted(Path::new("a/b-c.yaml")), "a/b-c.yaml");
        assert_eq!(quoted(Path::new("it's $HOME.yaml")), r"'it'\''s $HOME.yaml'");
        assert_eq!(quoted(Path::new("-x.yaml")), "./-x.yaml");
    }
}
