//! The ends of a range as people write them, and the names of replays.

use std::fmt;
use std::str::FromStr;

use gristmill::Place;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::quantity::TimeSpan;

/// One end of a replay's range: an offset (`5000`), a time (`2026-11-24T10:00:00Z`), a day (`2026-11-24`, its
/// begin in UTC), or a span back from now (`24h`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Offset(i64),
    Time(Timestamp),
    Ago(TimeSpan),
}

impl When {
    /// The place that it means now.
    pub fn now(&self) -> Place {
        self.at(Timestamp::now())
    }

    pub(crate) fn at(&self, now: Timestamp) -> Place {
        match &self.0 {
            Kind::Offset(offset) => Place::Offset(*offset),
            Kind::Time(time) => Place::Time(milliseconds(*time)),
            Kind::Ago(span) => {
                let span = i64::try_from(span.0).unwrap_or(i64::MAX);
                Place::Time(milliseconds(now).saturating_sub(span).max(0))
            }
        }
    }
}

/// Records carry whole milliseconds: the first that is not before `time`.
fn milliseconds(time: Timestamp) -> i64 {
    let whole = time.as_millisecond();
    if time.subsec_nanosecond() % 1_000_000 > 0 { whole + 1 } else { whole }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let offset = text.parse().map_err(|_| format!("`{text}` is larger than any offset"))?;
            return Ok(When(Kind::Offset(offset)));
        }
        if let Ok(span) = text.parse::<TimeSpan>() {
            return Ok(When(Kind::Ago(span)));
        }
        let time = match text.len() {
            // jiff would take a longer text too, and pass over the time of day in it.
            10 => text
                .parse::<Date>()
                .ok()
                .and_then(|day| day.to_zoned(TimeZone::UTC).ok())
                .map(|z| z.timestamp()),
            _ => text.parse::<Timestamp>().ok(),
        };
        match time {
            Some(time) if time < Timestamp::UNIX_EPOCH => {
                Err(format!("`{text}` is before 1970: no record is"))
            }
            Some(time) => Ok(When(Kind::Time(time))),
            None => Err(format!(
                "`{text}` is neither a time with its zone (2026-11-24T10:00:00Z), nor a day in UTC (2026-11-24), nor a span back from now (24h), nor an offset (5000)"
            )),
        }
    }
}

/// Two texts that mean the same read the same.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Offset(offset) => write!(f, "{offset}"),
            Kind::Time(time) => write!(f, "{time}"),
            Kind::Ago(span) => write!(f, "{span}"),
        }
    }
}

/// What a replay is called: 1 to 63 of `a-z`, `0-9`, `-` and `_`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayName(String);

impl ReplayName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name for a range that is to be replayed on its own, another one for each topic, partition and first offset.
    pub(crate) fn of_range(topic: &str, partition: i32, first: i64) -> ReplayName {
        let stem: String = topic.to_lowercase().chars().filter(|c| is_legal(*c)).collect();
        // Topics that read the same in few small letters are told apart by a checksum.
        let stem = if stem == topic && stem.len() <= MAX_TOPIC {
            stem
        } else {
            let start: String = stem.chars().take(MAX_TOPIC - 9).collect();
            format!("{start}-{:08x}", checksum(topic))
        };
        ReplayName(format!("again-{stem}-{}-{}", partition.max(0), first.max(0)))
    }
}

/// What `again-`, the largest partition and the largest offset leave of 63 characters.
const MAX_TOPIC: usize = 26;

fn is_legal(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')
}

/// FNV-1a.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl FromStr for ReplayName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let first = |c: char| is_legal(c) && !matches!(c, '-' | '_');
        let legal = text.len() <= 63 && text.starts_with(first) && text.chars().all(is_legal);
        if legal {
            return Ok(ReplayName(text.to_owned()));
        }
        Err(format!(
            "`{text}` is not a name: 1 to 63 of a-z, 0-9, `-` and `_`, beginning with a letter or digit, such as `november-again`"
        ))
    }
}

impl fmt::Display for ReplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(text: &str) -> When {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn ends_read_as_people_write_them() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let at = |text: &str| when(text).at(now);
        assert_eq!(at("5000"), Place::Offset(5000));
        assert_eq!(at("2026"), Place::Offset(2026), "digits alone are an offset");
        assert_eq!(at("2026-11-25T10:00:00Z"), Place::Time(now.as_millisecond() - 7_200_000));
        assert_eq!(at("2026-11-25T12:00:00+02:00"), at("2026-11-25T10:00:00Z"));
        assert_eq!(at("2026-11-25"), Place::Time(now.as_millisecond() - 43_200_000));
        assert_eq!(at("24h"), at("2026-11-24T12:00:00Z"));
        assert_eq!(at("99999d"), Place::Time(0));
        assert_eq!(at("1970-01-01T00:00:00.0005Z"), Place::Time(1), "the first millisecond not before it");
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        for text in ["5000", "2026-11-25", "2026-11-25T12:00:00+02:00", "90m", "24h"] {
            assert_eq!(when(&when(text).to_string()), when(text), "{text}");
        }
        assert_eq!(when("2026-11-25").to_string(), when("2026-11-25T00:00:00Z").to_string());
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_refused_with_the_forms_there_are() {
        for text in ["", "yesterday", "-5", "2026-11-25T10:00:00", "2026-13-01", "25.11.2026", "1h30m"] {
            let error = text.parse::<When>().unwrap_err();
            assert!(error.contains("2026-11-24T10:00:00Z"), "{text}: {error}");
        }
        assert!("99999999999999999999".parse::<When>().is_err());
        assert!("1969-12-31".parse::<When>().unwrap_err().contains("before 1970"));
    }

    #[test]
    fn a_name_is_a_folder_of_its_own() {
        for good in ["a", "2026-11-24", "november_again"] {
            good.parse::<ReplayName>().unwrap();
        }
        for bad in ["", "-a", "_a", "A", "a/b", "..", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<ReplayName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn each_range_of_each_topic_has_a_name_of_its_own() {
        let long = "Orders.Europe".repeat(19);
        let mut names = Vec::new();
        for topic in [
            "orders",
            "Orders",
            "orders.eu",
            "orders-eu",
            "orders_eu",
            "orders-1",
            "...",
            "-x",
            &long,
            &long[1..],
        ] {
            for (partition, first) in [(0, 0), (1, 0), (0, 1), (i32::MAX, i64::MAX)] {
                let name = ReplayName::of_range(topic, partition, first);
                name.as_str().parse::<ReplayName>().unwrap();
                names.push(name.to_string());
            }
        }
        assert!(names.contains(&"again-orders-1-0".to_owned()), "{names:?}");
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}
