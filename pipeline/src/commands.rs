//! Command lines that are printed, ready to be pasted. Every one comes from here, so that one test parses them all.

use std::fmt;
use std::path::Path;

use crate::check::Checked;
use crate::replay::ReplayName;

/// The commands for a pipeline file, or for one partition of its topics.
#[derive(Clone, Copy, Debug)]
pub struct Commands<'a> {
    file: &'a Path,
    partition: Option<(&'a str, i32)>,
}

impl<'a> Commands<'a> {
    /// For the file, as the user named it.
    pub fn of(file: &'a Path) -> Self {
        Commands { file, partition: None }
    }

    /// For one partition.
    pub fn partition(self, topic: &'a str, partition: i32) -> Self {
        Commands { partition: Some((topic, partition)), ..self }
    }

    fn line(&self, command: &str, options: impl fmt::Display) -> String {
        let mut line = format!("gristmill {command} {}", quoted(self.file));
        if let Some((topic, partition)) = self.partition {
            // What begins with a dash is taken for an option.
            let is = if topic.starts_with('-') { '=' } else { ' ' };
            line += &format!(" --topic{is}{} --partition {partition}", shell_word(topic));
        }
        let options = options.to_string();
        if !options.is_empty() {
            line += &format!(" {options}");
        }
        line
    }

    /// The same for the whole file.
    fn whole(&self) -> Self {
        Commands { partition: None, ..*self }
    }

    /// Runs the pipeline.
    pub fn run(&self) -> String {
        self.whole().line("run", "")
    }

    /// Gives a range up, from where the ledger ends.
    pub fn skip(&self, to: i64) -> String {
        self.line("ledger skip", format_args!("--to {to}"))
    }

    /// Puts the group's offset back.
    pub fn reset(&self) -> String {
        self.line("ledger reset", "")
    }

    /// Goes on without files that were lost.
    pub fn accept_missing(&self) -> String {
        self.line("ledger repair", "--accept-missing")
    }

    /// The same of a try to deliver dead letters.
    pub fn accept_missing_of_try(&self, number: u32) -> String {
        self.line("ledger repair", format_args!("--dlq {number} --accept-missing"))
    }

    /// Shows its dead letters.
    pub fn dead_letters(&self) -> String {
        self.line("dlq show", "")
    }

    /// Checks the ledgers; with a name those of that replay.
    pub fn verify(&self, replay: Option<&ReplayName>) -> String {
        self.whole().line("ledger verify", replay.map(|name| format!("--replay {name}")).unwrap_or_default())
    }

    /// Lists the ranges.
    pub fn list(&self) -> String {
        self.whole().line("ledger ls", "")
    }

    /// Checks the file.
    pub fn check(&self) -> String {
        self.whole().line("pipeline check", "")
    }

    /// Lists the ranges of a replay.
    pub fn list_replay(&self, name: &ReplayName) -> String {
        self.whole().line("ledger ls", format_args!("--replay {name}"))
    }

    /// Shows what operators did.
    pub fn log(&self) -> String {
        self.whole().line("ledger log", "")
    }

    /// Writes a range of the partition again elsewhere, under a name that tells it from those of other ranges.
    pub fn replay(&self, from: i64, to: i64) -> String {
        let (topic, partition) = self.partition.unwrap_or_default();
        let name = ReplayName::of_range(topic, partition, from);
        self.line("replay", format_args!("--from {from} --to {to} --into {name}"))
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
pub fn quoted(path: &Path) -> String {
    let dot = if path.as_os_str().as_encoded_bytes().starts_with(b"-") { "./" } else { "" };
    shell_word(&format!("{dot}{}", path.display()))
}

impl Checked {
    /// The commands for this file.
    pub fn commands(&self) -> Commands<'_> {
        Commands::of(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_the_shell() {
        assert_eq!(quoted(Path::new("a/b-c.yaml")), "a/b-c.yaml");
        assert_eq!(quoted(Path::new("it's $HOME.yaml")), r"'it'\''s $HOME.yaml'");
        assert_eq!(quoted(Path::new("-x.yaml")), "./-x.yaml");
    }

    #[test]
    fn a_command_names_file_topic_and_partition_where_it_takes_them() {
        let commands = Commands::of(Path::new("p.yaml")).partition("-t", 3);
        assert_eq!(commands.run(), "gristmill run p.yaml");
        assert_eq!(commands.skip(9), "gristmill ledger skip p.yaml --topic=-t --partition 3 --to 9");
        assert_eq!(
            Commands::of(Path::new("p.yaml")).partition("t", 3).replay(5, 9),
            "gristmill replay p.yaml --topic t --partition 3 --from 5 --to 9 --into again-t-3-5"
        );
    }
}
