use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// The output that a record goes to unless a transform routes it elsewhere. Its name is not in file names.
pub const MAIN_OUTPUT: &str = "main";

/// The longest output name in bytes, so that file names fit in 255 bytes with the longest topic name.
pub(crate) const MAX_OUTPUT_BYTES: usize = 64;

/// Which ledger: one partition of one incarnation of a topic, as one pipeline sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionId {
    /// The pipeline's id. A ledger belongs to one pipeline for ever.
    pub pipeline: String,
    /// The Kafka cluster's id.
    pub cluster: String,
    /// The topic's name.
    pub topic: String,
    /// The topic's id (KIP-516): a topic that is deleted and created again has another one and so another
    /// ledger. Where no id can be had, the caller states a stand-in, such as all zeros.
    pub topic_id: [u8; 16],
    /// The partition's number.
    pub partition: i32,
}

impl PartitionId {
    /// Checks what goes into object names: Kafka's rules for topic names, and a partition that is not
    /// negative.
    ///
    /// # Errors
    /// `InvalidName`.
    pub fn validate(&self) -> Result<()> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let topic = &self.topic;
        if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(legal)
        {
            return Err(Error::new(ErrorKind::InvalidName, format!("{topic:?} is not a Kafka topic name")));
        }
        if self.partition < 0 {
            let text = format!("partition {} of topic {topic} is negative", self.partition);
            return Err(Error::new(ErrorKind::InvalidName, text));
        }
        if self.pipeline.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidName,
                "the pipeline id is empty; give the pipeline a name",
            ));
        }
        Ok(())
    }

    /// The topic id in the URL-safe base64 form without padding: 22 characters without `/` and `+`.
    pub fn topic_id_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.topic_id)
    }

    /// The first 8 hex digits of the topic id: tells incarnations of one topic apart in file names.
    pub fn incarnation(&self) -> String {
        self.topic_id[..4].iter().map(|b| format!("{b:02x}")).collect()
    }

    /// `{topic}/{topic id}/{partition:05}`.
    pub fn path(&self) -> String {
        format!("{}/{}/{:05}", self.topic, self.topic_id_text(), self.partition)
    }
}

/// A topic id from its URL-safe base64 form; the inverse of [`PartitionId::topic_id_text`].
pub fn parse_topic_id(text: &str) -> Option<[u8; 16]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Where the objects of one ledger are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// `{state}/ledger/{topic}/{topic id}/{partition}/`, with the slash.
    pub(crate) ledger: String,
    staged: String,
    rejects: String,
    accepted: String,
}

impl Paths {
    /// Of a pipeline whose state has that prefix, or of a try to deliver dead letters again, whose staged files lie among those of the pipeline, apart by a
    /// name that no topic has: a bucket may have rules for all that is staged.
    pub(crate) fn new(state_prefix: &str, retry: u32, id: &PartitionId) -> Self {
        let path = id.path();
        let staged =
            if retry == 0 { format!("staged/{path}/") } else { format!("staged/dlq+{retry}/{path}/") };
        let staged = join(state_prefix, &staged);
        let state_prefix = &state_of(state_prefix, retry);
        Paths {
            staged,
            ledger: join(state_prefix, &format!("ledger/{path}/")),
            rejects: join(state_prefix, &format!("rejects/{path}/")),
            accepted: join(state_prefix, &format!("accepted/{path}/")),
        }
    }

    pub(crate) fn genesis(&self) -> String {
        format!("{}genesis.json", self.ledger)
    }

    pub(crate) fn entry(&self, first: i64) -> String {
        format!("{}{first:020}.json", self.ledger)
    }

    /// What all entries' names start with, and the genesis' does not: 20 digits hold more than any `i64`.
    pub(crate) fn entries(&self) -> String {
        format!("{}0", self.ledger)
    }

    /// Sorts right before the entry that starts at `first`.
    pub(crate) fn before_entry(&self, first: i64) -> String {
        format!("{}{first:020}", self.ledger)
    }

    /// The offset in the name of an entry of this ledger.
    pub(crate) fn parse_entry(&self, name: &str) -> Option<i64> {
        parse_first(name.strip_prefix(&self.ledger)?.strip_suffix(".json")?)
    }

    pub(crate) fn staged(&self, first: i64, attempt: Uuid, seq: usize) -> String {
        format!("{}{first:020}+{attempt}+{seq:03}", self.staged)
    }

    /// `unique` is new for every try to write such an object: what an earlier try wrote under another name
    /// may have been incomplete. Not among the staged files: it stays for as long as its entry does.
    pub(crate) fn rejects(&self, first: i64, unique: Uuid) -> String {
        format!("{}{first:020}+{unique}", self.rejects)
    }

    /// That files and streams of an entry count as published when they are gone: an operator goes on without them, or they were.
    pub(crate) fn accepted(&self, first: i64, attempt: Uuid) -> String {
        format!("{}{first:020}+{attempt}.json", self.accepted)
    }

    /// What the names of this ledger's staged files start with.
    pub(crate) fn all_staged(&self) -> &str {
        &self.staged
    }

    /// What the names of the rejects of this ledger's entries start with.
    pub(crate) fn all_rejects(&self) -> &str {
        &self.rejects
    }

    /// The offset for which a file or rejects were staged, from their name.
    pub(crate) fn parse_staged(&self, name: &str) -> Option<i64> {
        let rest = name.strip_prefix(&self.staged).or_else(|| name.strip_prefix(&self.rejects))?;
        parse_first(rest.split('+').next()?)
    }
}

/// Where the ledgers of a try to deliver dead letters again are; 0 is the pipeline itself.
pub(crate) fn state_of(state_prefix: &str, retry: u32) -> String {
    if retry == 0 { state_prefix.to_owned() } else { join(state_prefix, &format!("dlq/{retry}")) }
}

fn parse_first(digits: &str) -> Option<i64> {
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// `prefix` and `rest` with a slash between them, unless the prefix is empty.
pub(crate) fn join(prefix: &str, rest: &str) -> String {
    if prefix.is_empty() { rest.to_owned() } else { format!("{prefix}/{rest}") }
}

/// The final name of a file:
/// `{prefix}/{topic}[+{output}]/{directory}/{topic}[+{output}]+{incarnation}+{partition:05}+{first:020}+{number}.{ext}`, with a number
/// of [`file_number`].
///
/// `+` is not legal in topic names, so neither two outputs nor two topics can meet in one folder.
pub(crate) fn final_name(
    prefix: &str,
    id: &PartitionId,
    output: &str,
    directory: &str,
    first: i64,
    number: &str,
    extension: &str,
) -> String {
    let stem = if output == MAIN_OUTPUT { id.topic.clone() } else { format!("{}+{output}", id.topic) };
    let file = format!("{stem}+{}+{:05}+{first:020}+{number}.{extension}", id.incarnation(), id.partition);
    let folder = if directory.is_empty() { stem } else { format!("{stem}/{directory}") };
    join(prefix, &format!("{folder}/{file}"))
}

/// The last part of a file's name: `{seq:03}`, and in a try to deliver dead letters again `{seq:03}-dlq-{number}`, since its entries
/// may begin where those of the pipeline do. A try 0 is the pipeline itself.
pub(crate) fn file_number(seq: usize, retry: u32) -> String {
    if retry == 0 { format!("{seq:03}") } else { format!("{seq:03}{OF_TRY}{retry}") }
}

const OF_TRY: &str = "-dlq-";

/// What the name of a file says, without its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FinalName<'a> {
    pub(crate) topic: &'a str,
    pub(crate) incarnation: &'a str,
    pub(crate) partition: i32,
    pub(crate) first: i64,
    /// Which try to deliver dead letters again has written it; 0 is the pipeline itself.
    pub(crate) retry: u32,
}

/// Reads what [`final_name`] wrote after the last slash.
pub(crate) fn parse_final_name(file: &str) -> Option<FinalName<'_>> {
    let (stem, _extension) = file.rsplit_once('.')?;
    let parts: Vec<&str> = stem.split('+').collect();
    let (topic, incarnation, partition, first, number) = match parts[..] {
        [topic, incarnation, partition, first, seq] => (topic, incarnation, partition, first, seq),
        [topic, _output, incarnation, partition, first, seq] => (topic, incarnation, partition, first, seq),
        _ => return None,
    };
    let retry = match number.split_once(OF_TRY) {
        Some((_, retry)) => retry.parse().ok()?,
        None => 0,
    };
    Some(FinalName {
        topic,
        incarnation,
        partition: partition.parse().ok()?,
        first: parse_first(first)?,
        retry,
    })
}

/// Checks the name of a transform's output: 1 to 64 ASCII letters, digits, `-` and `_`, so that it can stand
/// in a file name.
///
/// # Errors
/// `InvalidName`.
pub fn validate_output(output: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if output.is_empty() || output.len() > MAX_OUTPUT_BYTES || !output.chars().all(legal) {
        let text = format!("output name {output:?} is not 1 to 64 letters, digits, `-` or `_`");
        return Err(Error::new(ErrorKind::InvalidName, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PartitionId {
        PartitionId {
            pipeline: "p".into(),
            cluster: "c".into(),
            topic: "orders".into(),
            topic_id: [0xfb, 0xff, 0xbf, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
            partition: 7,
        }
    }

    #[test]
    fn names_are_as_the_design_says() {
        let of_try = Paths::new("_gristmill", 3, &id());
        assert!(of_try.genesis().starts_with("_gristmill/dlq/3/ledger/orders/"), "{}", of_try.genesis());
        assert!(of_try.all_rejects().starts_with("_gristmill/dlq/3/rejects/orders/"));
        assert!(
            of_try.all_staged().starts_with("_gristmill/staged/dlq+3/orders/"),
            "{}",
            of_try.all_staged()
        );
        let paths = Paths::new("_gristmill", 0, &id());
        let entry = paths.entry(42);
        assert_eq!(entry, "_gristmill/ledger/orders/-_-_AQIDBAUGBwgJCgsMDQ/00007/00000000000000000042.json");
        assert_eq!(paths.parse_entry(&entry), Some(42));
        assert_eq!(paths.parse_entry(&paths.genesis()), None);
        assert!(entry.starts_with(&paths.entries()) && !paths.genesis().starts_with(&paths.entries()));
        assert!(paths.before_entry(42) < entry && paths.before_entry(42) > paths.entry(41));
        let staged = paths.staged(42, Uuid::nil(), 1);
        assert_eq!(paths.parse_staged(&staged), Some(42));
        assert_eq!(paths.parse_staged(&paths.rejects(i64::MAX, Uuid::nil())), Some(i64::MAX));
        assert_eq!(parse_topic_id(&id().topic_id_text()), Some(id().topic_id));
        let name = final_name("lake", &id(), "main", "dt=2024-01-02", 42, &file_number(3, 0), "parquet");
        assert_eq!(name, "lake/orders/dt=2024-01-02/orders+fbffbf01+00007+00000000000000000042+003.parquet");
        let expected =
            FinalName { topic: "orders", incarnation: "fbffbf01", partition: 7, first: 42, retry: 0 };
        assert_eq!(parse_final_name(name.rsplit('/').next().unwrap()), Some(expected));
        assert_eq!(parse_final_name("copy.parquet"), None);
        let name = final_name("", &id(), "refunds", "", 0, &file_number(0, 12), "jsonl");
        let parsed = parse_final_name(name.rsplit('/').next().unwrap());
        assert_eq!(parsed.map(|n| (n.first, n.retry)), Some((0, 12)));
        assert_eq!(
            name,
            "orders+refunds/orders+refunds+fbffbf01+00007+00000000000000000000+000-dlq-12.jsonl"
        );
    }

    #[test]
    fn what_cannot_be_in_a_name_is_refused() {
        for topic in ["", ".", "..", "a/b", "a+b", "a b"] {
            assert!(PartitionId { topic: topic.into(), ..id() }.validate().is_err(), "{topic:?}");
        }
        assert!(PartitionId { partition: -1, ..id() }.validate().is_err());
        assert!(PartitionId { pipeline: String::new(), ..id() }.validate().is_err());
        for output in ["", "a/b", "a+b", "ä", ".."] {
            assert!(validate_output(output).is_err(), "{output:?}");
        }
    }
}
