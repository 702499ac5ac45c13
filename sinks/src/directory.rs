use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, ErrorKind, Result};
use crate::store::validate_name;

/// The directory value of records without a timestamp.
pub const NULL_DIRECTORY: &str = "__null__";

/// The directory value of records whose timestamp is before 1970 or from 2200 on.
pub const OUT_OF_RANGE_DIRECTORY: &str = "__out_of_range__";

/// 2200-01-01T00:00:00Z in milliseconds since the Unix epoch.
const END_MS: i64 = 7_258_118_400_000;

/// Directories by record time: a template such as `dt=%Y-%m-%d/hour=%H`, filled in with the record's timestamp
/// in UTC.
///
/// Directives: `%Y %m %d %H %M %S %j %F %G %V %u %%`. Each segment must be one of the forms `key=value` and
/// `value`. What a record's time contributes is escaped as Hive does ([`escape_directory_value`]).
///
/// A record without a timestamp goes to `dt=__null__/hour=__null__`, one with a time before 1970-01-01 or from
/// 2200-01-01 on to `dt=__out_of_range__/hour=__out_of_range__`; segments without a directive stay as they
/// are. So a broken clock makes one directory, not thousands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryTemplate {
    segments: Vec<Segment>,
    /// All timestamps in one bucket of this many milliseconds have one directory.
    bucket_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    /// What stands before the value, with the `=`, or nothing.
    key: String,
    value: String,
    has_directive: bool,
}

impl DirectoryTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// `InvalidConfig` if it has a directive that is not listed above, or makes directory names that a store
    /// cannot take.
    pub fn parse(template: &str) -> Result<Self> {
        let refuse = |why: String| {
            let text =
                format!("directory template {template:?} {why}; an example is \"dt=%Y-%m-%d/hour=%H\"");
            Error::new(ErrorKind::InvalidConfig, text)
        };
        let mut bucket_ms = 86_400_000;
        let mut segments = Vec::new();
        for text in template.split('/') {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (format!("{key}="), value.to_owned()),
                None => (String::new(), text.to_owned()),
            };
            if value.is_empty() {
                return Err(refuse("has an empty segment or value".to_owned()));
            }
            if key.contains('%') || key == "=" {
                return Err(refuse(format!("has the key {key:?}, which must be plain text")));
            }
            let mut has_directive = false;
            let mut chars = value.chars();
            while let Some(c) = chars.next() {
                if c != '%' {
                    continue;
                }
                match chars.next() {
                    Some('%') => continue,
                    Some('S') => bucket_ms = 1000,
                    Some('M') => bucket_ms = bucket_ms.min(60_000),
                    Some('H') => bucket_ms = bucket_ms.min(3_600_000),
                    Some('Y' | 'm' | 'd' | 'j' | 'F' | 'G' | 'V' | 'u') => {}
                    other => {
                        let shown = other.map_or("%".to_owned(), |c| format!("%{c}"));
                        return Err(refuse(format!("has {shown}, which is not a directive of it")));
                    }
                }
                has_directive = true;
            }
            segments.push(Segment { key, value, has_directive });
        }
        let template = DirectoryTemplate { segments, bucket_ms };
        validate_name(&template.directory(Some(0)))
            .map_err(|e| refuse(format!("makes no directory: {e}")))?;
        Ok(template)
    }

    /// The directory for a timestamp in milliseconds since the Unix epoch, without slashes at its ends.
    pub fn directory(&self, timestamp: Option<i64>) -> String {
        match timestamp {
            None => self.constant(NULL_DIRECTORY),
            Some(ms) if !(0..END_MS).contains(&ms) => self.constant(OUT_OF_RANGE_DIRECTORY),
            Some(ms) => match Timestamp::from_millisecond(ms) {
                Ok(time) => {
                    let time = time.to_zoned(TimeZone::UTC);
                    self.join(|s| escape_directory_value(&time.strftime(&s.value).to_string()))
                }
                Err(_) => self.constant(OUT_OF_RANGE_DIRECTORY),
            },
        }
    }

    /// Which records surely share a directory: equal keys, equal directories.
    pub(crate) fn bucket(&self, timestamp: Option<i64>) -> Bucket {
        match timestamp {
            None => Bucket::Null,
            Some(ms) if !(0..END_MS).contains(&ms) => Bucket::OutOfRange,
            Some(ms) => Bucket::Time(ms / self.bucket_ms),
        }
    }

    fn constant(&self, value: &str) -> String {
        self.join(|_| value.to_owned())
    }

    /// Fills in the segments that have a directive; the others are as they were written.
    fn join(&self, value: impl Fn(&Segment) -> String) -> String {
        let filled = self.segments.iter().map(|s| match s.has_directive {
            true => format!("{}{}", s.key, value(s)),
            false => format!("{}{}", s.key, s.value.replace("%%", "%")),
        });
        filled.collect::<Vec<_>>().join("/")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) enum Bucket {
    Null,
    OutOfRange,
    Time(i64),
}

/// Escapes a value for a directory name as Hive does (`FileUtils.escapePathName`): control characters and
/// ``" # % ' * / : = ? \ { [ ] ^`` as `%XX`; an empty value becomes `__HIVE_DEFAULT_PARTITION__`.
pub fn escape_directory_value(value: &str) -> String {
    if value.is_empty() {
        return "__HIVE_DEFAULT_PARTITION__".to_owned();
    }
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        let special = "\"#%'*/:=?\\{[]^".contains(c) || c.is_ascii_control();
        if special {
            out.push_str(&format!("%{:02X}", c as u32));
        } else {
            out.push(c);
        }
    }
    // `.` and `..` would leave the directory; Hive does not think of them.
    match out.as_str() {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_to_the_directory_of_their_time() {
        let template = DirectoryTemplate::parse("dt=%Y-%m-%d/hour=%H").unwrap();
        assert_eq!(template.directory(Some(1_704_164_645_123)), "dt=2024-01-02/hour=03");
        assert_eq!(template.directory(Some(0)), "dt=1970-01-01/hour=00");
        assert_eq!(template.directory(Some(END_MS - 1)), "dt=2199-12-31/hour=23");
    }

    #[test]
    fn null_and_absurd_times_have_directories_of_their_own() {
        let template = DirectoryTemplate::parse("lake/dt=%F/%H").unwrap();
        assert_eq!(template.directory(None), "lake/dt=__null__/__null__");
        for absurd in [-1, i64::MIN, END_MS, i64::MAX] {
            assert_eq!(template.directory(Some(absurd)), "lake/dt=__out_of_range__/__out_of_range__");
        }
    }

    #[test]
    fn one_bucket_has_one_directory() {
        for text in ["%Y", "dt=%F/h=%H", "t=%H:%M", "t=%H:%M:%S", "w=%G-%V-%u"] {
            let template = DirectoryTemplate::parse(text).unwrap();
            let mut seen = std::collections::HashMap::new();
            for ms in (0..400_000_000).step_by(79_193) {
                let known =
                    seen.entry(template.bucket(Some(ms))).or_insert_with(|| template.directory(Some(ms)));
                assert_eq!(*known, template.directory(Some(ms)));
            }
        }
    }

    #[test]
    fn bad_templates_are_refused() {
        for bad in ["", "/dt=%F", "dt=%F/", "a//b", "..", "../%Y", "%Q", "dt=%", "%F%s", "=%Y", "%Y=3"] {
            assert!(DirectoryTemplate::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn values_are_escaped_as_hive_does() {
        assert_eq!(escape_directory_value("a/b=c%d e"), "a%2Fb%3Dc%25d e");
        assert_eq!(escape_directory_value("\n\u{7f}{x}[y]^"), "%0A%7F%7Bx}%5By%5D%5E");
        assert_eq!(escape_directory_value(""), "__HIVE_DEFAULT_PARTITION__");
        assert_eq!(escape_directory_value(".."), "%2E%2E");
        let template = DirectoryTemplate::parse("t=%H:%M").unwrap();
        assert_eq!(template.directory(Some(0)), "t=00%3A00");
    }
}
