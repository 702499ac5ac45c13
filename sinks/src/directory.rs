use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::directory_column::{Column, DirectoryMistake, Noun, Unfit, mistakes, places_left};
use crate::error::{Error, ErrorKind, Result};
use crate::open_entry::RowCoord;
use crate::store::validate_name;

/// The directory value that stands for null: of records without a timestamp, and of rows whose field is null.
///
/// Hive's own: Hive, Spark, DuckDB, pyarrow and BigQuery read it as null, so a date stays a date to them.
pub const NULL_DIRECTORY: &str = "__HIVE_DEFAULT_PARTITION__";

/// The directory value of records whose timestamp is before 1970 or from 2200 on.
pub const OUT_OF_RANGE_DIRECTORY: &str = "__out_of_range__";

/// The longest directory value from a field, in bytes after escaping.
pub const MAX_DIRECTORY_VALUE_BYTES: usize = 128;

/// 2200-01-01T00:00:00Z in milliseconds since the Unix epoch.
const END_MS: i64 = 7_258_118_400_000;

/// Directories by record time and by the values of columns: a template such as
/// `country={country}/dt=%Y-%m-%d`, filled in row by row.
///
/// Each segment must be one of the forms `key=value`, `value` and `key={field}`; a value is text with directives
/// for the record's timestamp in UTC (`%Y %m %d %H %M %S %j %F %G %V %u %%`). What a record contributes is escaped
/// as Hive does ([`escape_directory_value`]). A field needs a key, since readers skip directories whose names
/// begin with `_` or `.`, as values may.
///
/// # Time
/// A record without a timestamp goes to `dt=__HIVE_DEFAULT_PARTITION__`, one with a time before 1970-01-01 or
/// from 2200-01-01 on to `dt=__out_of_range__`; segments without a directive stay as they are. So a broken
/// clock makes one directory, not thousands.
///
/// # Fields
/// `{country}` is a column, `{customer.country}` a field inside one: a string, an integer, a boolean or a date.
/// Null, also of a parent, is `__HIVE_DEFAULT_PARTITION__`. A value that no reader would get back from the path
/// is refused, not bent ([`unfit`](Self::unfit)): the empty string, [`NULL_DIRECTORY`] itself, more than
/// [`MAX_DIRECTORY_VALUE_BYTES`] after escaping, control characters beyond ASCII.
///
/// **The column of `country={country}` is left out of the files**, as Hive and Spark do: the path holds it. In
/// both places BigQuery refuses the files ("partitioning keys and the columns in the underlying files cannot
/// overlap"), pyarrow fails to merge the two types, and DuckDB takes the path's. For the same reason a key that
/// is the name of any other column is a mistake. A field inside a column stays where it is.
///
/// Readers guess the type of a key from all its values: a column of digits becomes a number, and DuckDB takes
/// the text `NULL` for null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryTemplate {
    segments: Vec<Segment>,
    /// All timestamps in one bucket of this many milliseconds have one directory.
    bucket_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// What stands before the value, with the `=`, or nothing.
    key: String,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// The same for all rows.
    Text(String),
    /// A pattern for the record's time.
    Time(String),
    /// The path of a field.
    Field(String),
}

impl Segment {
    /// The key without its `=`; `None` if the segment has none.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.strip_suffix('=')
    }

    pub(crate) fn field(&self) -> Option<&str> {
        match &self.value {
            Value::Field(path) => Some(path),
            _ => None,
        }
    }
}

impl DirectoryTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// `InvalidConfig` if it has a directive that is not listed above, a field beside other text, a key twice,
    /// or makes directory names that a store cannot take.
    pub fn parse(template: &str) -> Result<Self> {
        let refuse = |why: String| {
            let text = format!(
                "directory template {template:?} {why}; an example is \"country={{country}}/dt=%Y-%m-%d\""
            );
            Error::new(ErrorKind::InvalidConfig, text)
        };
        let mut bucket_ms = i64::MAX;
        let mut segments: Vec<Segment> = Vec::new();
        for text in template.split('/') {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (format!("{key}="), value),
                None => (String::new(), text),
            };
            if value.is_empty() {
                return Err(refuse("has an empty segment or value".to_owned()));
            }
            if text.starts_with(['_', '.']) {
                return Err(refuse(format!(
                    "has the segment {text:?}: readers skip what begins with `_` or `.`"
                )));
            }
            if key.contains(['%', '{', '}']) || key == "=" {
                return Err(refuse(format!("has the key {key:?}, which must be plain text")));
            }
            if !key.is_empty() && segments.iter().any(|s| s.key.eq_ignore_ascii_case(&key)) {
                return Err(refuse(format!("has the key {key:?} twice")));
            }
            let value = match value.strip_prefix('{').and_then(|v| v.strip_suffix('}')) {
                Some(path) if !path.contains(['{', '}']) => {
                    if key.is_empty() {
                        return Err(refuse(format!("has {value} without a key: write `name={value}`")));
                    }
                    if path.split('.').any(|step| step.trim().is_empty()) {
                        return Err(refuse(format!("has {value}, which names no field")));
                    }
                    Value::Field(path.to_owned())
                }
                None if !value.contains(['{', '}']) => {
                    let smallest = smallest_unit(value)
                        .map_err(|shown| refuse(format!("has {shown}, which is not a directive of it")))?;
                    match smallest {
                        None => Value::Text(value.replace("%%", "%")),
                        Some(ms) => {
                            bucket_ms = bucket_ms.min(ms);
                            Value::Time(value.to_owned())
                        }
                    }
                }
                _ => return Err(refuse(format!("has {value:?}: a field in braces must stand alone"))),
            };
            segments.push(Segment { key, value });
        }
        let template = DirectoryTemplate { segments, bucket_ms };
        validate_name(&template.longest()).map_err(|e| refuse(format!("makes no directory: {e}")))?;
        Ok(template)
    }

    /// The values of these fields alone, without keys: for what is no folder of files, and keeps its columns.
    pub(crate) fn of_values(fields: &[&str]) -> Self {
        let segment = |field: &&str| Segment { key: String::new(), value: Value::Field((*field).to_owned()) };
        DirectoryTemplate { segments: fields.iter().map(segment).collect(), bucket_ms: i64::MAX }
    }

    /// What values are made into.
    fn noun(&self) -> Noun {
        let is_value = |segment: &Segment| segment.key.is_empty() && segment.field().is_some();
        if self.segments.iter().all(is_value) { Noun::Table } else { Noun::Directory }
    }

    /// The directory for a timestamp in milliseconds since the Unix epoch, without slashes at its ends; fields
    /// are null.
    pub fn directory(&self, timestamp: Option<i64>) -> String {
        self.fill(timestamp, |_| None)
    }

    /// The fields that it takes values from, as they are written.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::field)
    }

    /// What keeps these columns from being divided by this template: fields that are not there or are of
    /// another type, keys that are columns too. Empty if all is well.
    pub fn mistakes(&self, columns: &Schema) -> Vec<DirectoryMistake> {
        mistakes(&self.segments, columns, self.noun())
    }

    /// The rows that have no directory, by index, each with the reason; see [Fields](#fields). The reasons do not show values.
    ///
    /// # Errors
    /// `InvalidConfig` with the first of the [`mistakes`](Self::mistakes).
    pub fn unfit(&self, rows: &RecordBatch) -> Result<Vec<(usize, String)>> {
        let columns = self.columns(rows)?;
        let mut unfit = Vec::new();
        for row in 0..rows.num_rows() {
            if let Some((column, reason)) =
                columns.iter().find_map(|column| column.value(row).err().map(|reason| (column, reason)))
            {
                unfit.push((row, column.explain(reason, self.noun())));
            }
        }
        Ok(unfit)
    }

    /// The rows of each directory, by index. The order follows from the rows alone.
    ///
    /// # Errors
    /// `InvalidConfig` as [`unfit`](Self::unfit); `Usage` if a row has no directory.
    pub(crate) fn divide(&self, rows: &RecordBatch, coords: &[RowCoord]) -> Result<Vec<(String, Vec<u64>)>> {
        let columns = self.columns(rows)?;
        let mut groups: Vec<(Bucket, String, Vec<u64>)> = Vec::new();
        // Rows with one key have one directory: paths are made once a directory, not once a row.
        let mut known: HashMap<(Bucket, Vec<u8>), usize> = HashMap::new();
        let mut key = (Bucket::Null, Vec::new());
        for (row, coord) in coords.iter().enumerate() {
            key.0 = self.bucket(coord.timestamp);
            key.1.clear();
            for column in &columns {
                let value = column.value(row).map_err(|reason| {
                    let why = column.explain(reason, self.noun());
                    let text =
                        format!("the row of offset {} has no directory: {why}; reject it", coord.offset);
                    Error::new(ErrorKind::Usage, text)
                })?;
                let value = value.as_deref();
                key.1.push(u8::from(value.is_some()));
                key.1.extend((value.map_or(0, str::len) as u64).to_le_bytes());
                key.1.extend(value.unwrap_or_default().as_bytes());
            }
            match known.get(&key) {
                Some(group) => groups[*group].2.push(row as u64),
                None => {
                    let directory = self.fill(coord.timestamp, |field| columns[field].value(row).ok()?);
                    known.insert(key.clone(), groups.len());
                    groups.push((key.0, directory, vec![row as u64]));
                }
            }
        }
        groups.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Ok(groups.into_iter().map(|(_, directory, members)| (directory, members)).collect())
    }

    /// The columns that go into the files, by index; `None` for all.
    pub(crate) fn columns_of_files(&self, columns: &Schema) -> Option<Vec<usize>> {
        places_left(&self.segments, columns)
    }

    /// The most bytes that a directory can have.
    pub(crate) fn longest(&self) -> String {
        let widest = "x".repeat(MAX_DIRECTORY_VALUE_BYTES);
        let filled = self.segments.iter().map(|s| match &s.value {
            Value::Field(_) => format!("{}{widest}", s.key),
            _ => format!("{}{}", s.key, self.constant_or_time(s, Some(0))),
        });
        filled.collect::<Vec<_>>().join("/")
    }

    fn columns<'a>(&'a self, rows: &'a RecordBatch) -> Result<Vec<Column<'a>>> {
        if let Some(mistake) = self.mistakes(rows.schema_ref()).into_iter().next() {
            let text = format!("rows cannot be divided: {}", mistake.text);
            return Err(Error::new(ErrorKind::InvalidConfig, text));
        }
        Ok(self.fields().filter_map(|path| Column::find(rows, path)).collect())
    }

    /// Which records surely share a directory, as far as time decides it.
    fn bucket(&self, timestamp: Option<i64>) -> Bucket {
        match timestamp {
            _ if self.bucket_ms == i64::MAX => Bucket::Null,
            None => Bucket::Null,
            Some(ms) if !(0..END_MS).contains(&ms) => Bucket::OutOfRange,
            Some(ms) => Bucket::Time(ms / self.bucket_ms),
        }
    }

    fn fill<'v>(
        &self,
        timestamp: Option<i64>,
        field: impl Fn(usize) -> Option<std::borrow::Cow<'v, str>>,
    ) -> String {
        let mut fields = 0;
        let filled = self.segments.iter().map(|s| match &s.value {
            Value::Field(_) => {
                fields += 1;
                match field(fields - 1) {
                    Some(value) => format!("{}{}", s.key, escape_directory_value(&value)),
                    None => format!("{}{NULL_DIRECTORY}", s.key),
                }
            }
            _ => format!("{}{}", s.key, self.constant_or_time(s, timestamp)),
        });
        filled.collect::<Vec<_>>().join("/")
    }

    fn constant_or_time(&self, segment: &Segment, timestamp: Option<i64>) -> String {
        let pattern = match &segment.value {
            Value::Text(text) => return text.clone(),
            Value::Time(pattern) | Value::Field(pattern) => pattern,
        };
        match timestamp {
            None => NULL_DIRECTORY.to_owned(),
            Some(ms) if !(0..END_MS).contains(&ms) => OUT_OF_RANGE_DIRECTORY.to_owned(),
            Some(ms) => match Timestamp::from_millisecond(ms) {
                Ok(time) => {
                    escape_directory_value(&time.to_zoned(TimeZone::UTC).strftime(pattern).to_string())
                }
                Err(_) => OUT_OF_RANGE_DIRECTORY.to_owned(),
            },
        }
    }
}

/// The milliseconds in which the text of a pattern does not change; `None` for a pattern without directives.
fn smallest_unit(pattern: &str) -> std::result::Result<Option<i64>, String> {
    let mut smallest = None::<i64>;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        let unit = match chars.next() {
            Some('%') => continue,
            Some('S') => 1000,
            Some('M') => 60_000,
            Some('H') => 3_600_000,
            Some('Y' | 'm' | 'd' | 'j' | 'F' | 'G' | 'V' | 'u') => 86_400_000,
            other => return Err(other.map_or("%".to_owned(), |c| format!("%{c}"))),
        };
        smallest = Some(smallest.map_or(unit, |s| s.min(unit)));
    }
    Ok(smallest)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
enum Bucket {
    Null,
    OutOfRange,
    Time(i64),
}

/// Whether a value comes back from its directory as it was.
pub(crate) fn check_value(value: &str) -> std::result::Result<(), Unfit> {
    // For every row: counted, not made.
    let bytes: usize = value.chars().map(|c| if is_special(c) { 3 } else { c.len_utf8() }).sum();
    match value {
        "" => Err(Unfit::Empty),
        NULL_DIRECTORY => Err(Unfit::IsNull),
        _ if bytes > MAX_DIRECTORY_VALUE_BYTES => Err(Unfit::TooLong(bytes)),
        _ if value.chars().any(|c| c.is_control() && !is_special(c)) => Err(Unfit::Control),
        _ => Ok(()),
    }
}

fn is_special(c: char) -> bool {
    "\"#%'*/:=?\\{[]^".contains(c) || c.is_ascii_control()
}

/// Escapes a value for a directory name as Hive does (`FileUtils.escapePathName`): control characters and
/// ``" # % ' * / : = ? \ { [ ] ^`` as `%XX`; an empty value becomes `__HIVE_DEFAULT_PARTITION__`.
pub fn escape_directory_value(value: &str) -> String {
    if value.is_empty() {
        return NULL_DIRECTORY.to_owned();
    }
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if is_special(c) {
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
        assert_eq!(template.directory(None), "lake/dt=__HIVE_DEFAULT_PARTITION__/__HIVE_DEFAULT_PARTITION__");
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
        for bad in [
            "{}",
            "{a",
            "a}",
            "{a}{b}",
            "x-{a}",
            "{a}-%Y",
            "k={a..b}",
            "k={.a}",
            "{a}=1",
            "a=%Y/A={b}",
            "{a}",
            "_k={a}",
        ] {
            assert!(DirectoryTemplate::parse(bad).is_err(), "{bad:?} was taken");
        }
        let wide = format!("{}={{a}}", "k".repeat(127));
        assert!(DirectoryTemplate::parse(&wide).is_err(), "a segment could have 256 bytes");
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
