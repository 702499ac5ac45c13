//! Which offsets a replay covers: resolved once, then kept.

use std::collections::BTreeMap;
use std::fmt;

use gristmill::{Extent, Place};
use serde::{Deserialize, Serialize};

use super::ReplayRequest;
use crate::error::{Error, ErrorKind};

/// The format that this version writes, and the newest that it reads.
const FORMAT_VERSION: u32 = 1;
/// Partitions that a sentence names.
const SHOWN: usize = 8;

/// Offsets of a partition: `first` is inside, `end` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) first: i64,
    pub(crate) end: i64,
}

/// What a replay was started with and what it covers, as it lies in the state store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bounds {
    format_version: u32,
    /// The replay's pipeline id.
    pub(super) pipeline: String,
    pub(super) cluster: String,
    pub(super) asked: Asked,
    pub(super) topics: BTreeMap<String, TopicBounds>,
    /// When it was first started, RFC 3339 in UTC.
    pub(super) started_at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicBounds {
    /// Hexadecimal; zeros where the cluster tells none.
    pub(super) topic_id: String,
    pub(super) partitions: BTreeMap<i32, Range>,
}

/// The bounds as the command line said them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    from: String,
    to: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
}

impl Asked {
    pub(super) fn of(request: &ReplayRequest) -> Self {
        Asked {
            from: request.from.to_string(),
            to: request.to.as_ref().map(ToString::to_string),
            topic: request.topic.clone(),
            partition: request.partition,
        }
    }
}

/// As options of the command line.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--from {}", self.from)?;
        if let Some(to) = &self.to {
            write!(f, " --to {to}")?;
        }
        if let Some(topic) = &self.topic {
            write!(f, " --topic {topic}")?;
        }
        if let Some(partition) = self.partition {
            write!(f, " --partition {partition}")?;
        }
        Ok(())
    }
}

impl Bounds {
    pub(super) fn new(
        pipeline: &str,
        cluster: &str,
        asked: Asked,
        topics: BTreeMap<String, TopicBounds>,
    ) -> Self {
        Bounds {
            format_version: FORMAT_VERSION,
            pipeline: pipeline.to_owned(),
            cluster: cluster.to_owned(),
            asked,
            topics,
            started_at: jiff::Timestamp::now().to_string(),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("every part has a JSON form")
    }

    /// Reads the object `name`.
    pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let corrupt = |e: serde_json::Error| {
            let text =
                format!("{name} cannot be read as the bounds of a replay ({e}); restore it from a copy");
            Error::new(ErrorKind::Sink, text)
        };
        let Version { format_version } = serde_json::from_slice(bytes).map_err(corrupt)?;
        if format_version != FORMAT_VERSION {
            let text = format!(
                "{name} has format version {format_version}, this program reads {FORMAT_VERSION}; run the version that wrote it"
            );
            return Err(Error::new(ErrorKind::Sink, text));
        }
        let bounds: Bounds = serde_json::from_slice(bytes).map_err(corrupt)?;
        let ranges = bounds.topics.values().flat_map(|t| t.partitions.values());
        if ranges.into_iter().any(|r| r.first < 0 || r.end < r.first) {
            let text = format!("{name} has a range that ends before it begins; restore it from a copy");
            return Err(Error::new(ErrorKind::Sink, text));
        }
        Ok(bounds)
    }

    /// Refuses to go on with a replay that was started with something else.
    pub(super) fn check(&self, request: &ReplayRequest, pipeline: &str) -> Result<(), Error> {
        let name = &request.name;
        if self.pipeline != pipeline {
            return Err(Error::config(format!(
                "`--into {name}` is taken by {:?}, another pipeline's replay; choose another name",
                self.pipeline
            )));
        }
        if self.asked != Asked::of(request) {
            return Err(Error::config(format!(
                "the replay `{name}` was started with {}, at {}; go on with those, or choose another name for another range",
                self.asked, self.started_at
            )));
        }
        Ok(())
    }
}

/// What the cluster says of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) extent: Extent,
    /// The offset of the time that the range begins at, if it begins at a time.
    pub(super) from: Option<i64>,
    /// The same for its end.
    pub(super) to: Option<i64>,
}

/// The ranges of a topic's partitions, and what a person should know of them.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) ranges: BTreeMap<i32, Range>,
    pub(super) notes: Vec<String>,
    gone: Vec<String>,
    held: Vec<String>,
}

impl Resolved {
    /// Adds a partition: `from` is inside the range, `to` is not, and without `to` it ends where the partition
    /// ends now. Nothing at or after a time is the end.
    pub(super) fn add(&mut self, topic: &str, partition: i32, facts: Facts, from: Place, to: Option<Place>) {
        let Extent { earliest, end } = facts.extent;
        // Two answers: retention may have come between them.
        let end = end.max(earliest);
        let at = format!("{topic}-{partition}");
        let first = match from {
            Place::Offset(offset) if offset < earliest => {
                self.gone.push(format!("{at}: offsets {offset} to {}", earliest - 1));
                return;
            }
            Place::Offset(offset) => offset.min(end),
            Place::Time(_) => {
                let first = facts.from.unwrap_or(end).clamp(earliest, end);
                if first == earliest && earliest > 0 {
                    self.notes.push(format!(
                        "{at}: begins at its earliest record, offset {earliest}; the {earliest} offsets before it are gone, and if records of the range were among them, they cannot be had"
                    ));
                }
                first
            }
        };
        let last = match to {
            None => end,
            Some(Place::Offset(offset)) => {
                if offset > end {
                    self.notes
                        .push(format!("{at}: ends at offset {end}, before {offset}: that is its end now"));
                }
                offset.min(end)
            }
            Some(Place::Time(_)) => facts.to.unwrap_or(end).min(end),
        };
        self.held.push(if earliest < end {
            format!("{at} has offsets {earliest} to {}", end - 1)
        } else {
            format!("{at} is empty")
        });
        self.ranges.insert(partition, Range { first, end: last.max(first) });
    }

    /// Refuses ranges that cannot be had.
    pub(super) fn refuse<'a>(
        &self,
        mut ranges: impl Iterator<Item = &'a Range>,
        asked: &Asked,
    ) -> Result<(), Error> {
        let shown = |list: &[String]| {
            let more = if list.len() > SHOWN { ", and others" } else { "" };
            format!("{}{more}", list[..list.len().min(SHOWN)].join(", "))
        };
        if !self.gone.is_empty() {
            return Err(Error::config(format!(
                "retention has removed records of the range ({}); begin behind them, or write a time for --from, which begins with the earliest record that is left",
                shown(&self.gone)
            )));
        }
        if ranges.all(|r| r.first == r.end) {
            return Err(Error::config(format!(
                "there is no record in the range {asked}: {}",
                shown(&self.held)
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(from: &str, to: Option<&str>) -> ReplayRequest {
        ReplayRequest {
            name: "again".parse().unwrap(),
            from: from.parse().unwrap(),
            to: to.map(|t| t.parse().unwrap()),
            topic: None,
            partition: None,
        }
    }

    fn resolved(
        extent: (i64, i64),
        from: Place,
        to: Option<Place>,
        found: (Option<i64>, Option<i64>),
    ) -> Resolved {
        let extent = Extent { earliest: extent.0, end: extent.1 };
        let mut all = Resolved::default();
        all.add("orders", 0, Facts { extent, from: found.0, to: found.1 }, from, to);
        all
    }

    fn range(
        extent: (i64, i64),
        from: Place,
        to: Option<Place>,
        found: (Option<i64>, Option<i64>),
    ) -> (i64, i64) {
        let range = resolved(extent, from, to, found).ranges[&0];
        (range.first, range.end)
    }

    #[test]
    fn from_is_inside_to_is_not_and_the_end_is_where_the_partition_ends_now() {
        use Place::{Offset, Time};
        let none = (None, None);
        assert_eq!(range((0, 100), Offset(10), Some(Offset(20)), none), (10, 20));
        assert_eq!(range((0, 100), Offset(10), None, none), (10, 100));
        assert_eq!(range((0, 100), Offset(10), Some(Offset(500)), none), (10, 100));
        assert_eq!(range((0, 100), Offset(500), None, none), (100, 100));
        assert_eq!(range((0, 100), Time(1), Some(Time(2)), (Some(7), Some(9))), (7, 9));
        assert_eq!(
            range((0, 100), Time(1), Some(Time(2)), (Some(7), None)),
            (7, 100),
            "nothing after it is the end"
        );
        assert_eq!(range((0, 100), Time(1), None, none), (100, 100));
        // Timestamps need not rise with offsets.
        assert_eq!(range((0, 100), Time(1), Some(Time(2)), (Some(9), Some(7))), (9, 9));
    }

    #[test]
    fn what_retention_took_is_refused_for_an_offset_and_told_for_a_time() {
        let asked = Asked::of(&request("5", None));
        let gone = resolved((40, 100), Place::Offset(5), None, (None, None));
        let error = gone.refuse(gone.ranges.values(), &asked).unwrap_err().to_string();
        assert!(error.contains("orders-0: offsets 5 to 39"), "{error}");
        let late = resolved((40, 100), Place::Time(1), None, (Some(40), None));
        late.refuse(late.ranges.values(), &asked).unwrap();
        assert_eq!(late.ranges[&0], Range { first: 40, end: 100 });
        assert!(late.notes[0].contains("40 offsets before it are gone"), "{:?}", late.notes);
        assert!(resolved((40, 100), Place::Time(1), None, (Some(41), None)).notes.is_empty());
    }

    #[test]
    fn a_range_without_a_record_is_refused_with_what_there_is() {
        let asked = Asked::of(&request("200", Some("300")));
        let empty = resolved((3, 100), Place::Offset(200), Some(Place::Offset(300)), (None, None));
        let error = empty.refuse(empty.ranges.values(), &asked).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no record in the range --from 200 --to 300: orders-0 has offsets 3 to 99"
        );
    }

    #[test]
    fn bounds_are_kept_and_others_are_refused() {
        let first = request("2026-11-24", Some("24h"));
        let partitions = BTreeMap::from([(0, Range { first: 3, end: 9 })]);
        let topics =
            BTreeMap::from([("orders".to_owned(), TopicBounds { topic_id: "00".into(), partitions })]);
        let bounds = Bounds::new("p-replay-again", "c", Asked::of(&first), topics);
        let read = Bounds::parse("replay.json", &bounds.to_json()).unwrap();
        assert_eq!(read, bounds);
        read.check(&request("2026-11-24T00:00:00Z", Some("1d")), "p-replay-again").unwrap();
        let error = read.check(&request("2026-11-23", None), "p-replay-again").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("--from 2026-11-24T00:00:00Z --to 1d"), "{error}");
        assert!(read.check(&first, "q-replay-again").unwrap_err().to_string().contains("another pipeline"));
    }

    #[test]
    fn garbage_is_no_bounds() {
        for bytes in ["", "{}", "[]", r#"{"format_version": 2}"#, r#"{"format_version": 1}"#] {
            assert!(Bounds::parse("replay.json", bytes.as_bytes()).is_err(), "{bytes}");
        }
        let backward = br#"{"format_version":1,"pipeline":"p","cluster":"c","asked":{"from":"0","to":null,"topic":null,"partition":null},
            "topics":{"t":{"topic_id":"00","partitions":{"0":{"first":5,"end":4}}}},"started_at":""}"#;
        assert!(
            Bounds::parse("replay.json", backward).unwrap_err().to_string().contains("ends before it begins")
        );
    }
}
