//! Sizes and durations as people write them in a pipeline file: `128MiB`, `1.5s`, `90s`, `5m`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

const TIME_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Splits `12.5MiB` into a number and a unit of `units`, and multiplies.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    let number: f64 = number.trim().parse().ok()?;
    let value = number * factor as f64;
    // 2^53: above it an f64 no longer tells neighbours apart.
    (0.0..=9_007_199_254_740_992.0).contains(&value).then_some(value.round() as u64)
}

fn shortest(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .filter(|(name, factor)| value.is_multiple_of(*factor) && (!name.ends_with('B') || name.len() != 2))
        .max_by_key(|(_, factor)| *factor)
        .copied()
        .unwrap_or(units[0]);
    format!("{}{name}", value / factor)
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $units:ident, $pattern:literal, $example:literal, $title:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                parse(text, $units).map($name).ok_or_else(|| {
                    let units: Vec<_> = $units.iter().map(|(name, _)| *name).collect();
                    format!("`{text}` is not a {}; write a number and one of {}, such as `{}`",
                        $title, units.join(", "), $example)
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&shortest(self.0, $units))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example], "title": $title })
            }
        }
    };
}

quantity!(
    /// A number of bytes, written as `64MiB`, `10MB`, `512B`.
    ByteSize, SIZE_UNITS, r"^[0-9]+(\.[0-9]+)? ?(B|kB|KiB|MB|MiB|GB|GiB)$", "64MiB", "size"
);

quantity!(
    /// A length of time in milliseconds, written as `250ms`, `30s`, `5m`, `1h`.
    TimeSpan, TIME_UNITS, r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)$", "30s", "duration"
);

impl TimeSpan {
    /// As a [`Duration`].
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_as_people_write_them() {
        assert_eq!("64MiB".parse::<ByteSize>().unwrap().0, 64 << 20);
        assert_eq!("1.5 kB".parse::<ByteSize>().unwrap().0, 1500);
        assert_eq!("90s".parse::<TimeSpan>().unwrap().0, 90_000);
        assert_eq!("0.5m".parse::<TimeSpan>().unwrap().0, 30_000);
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        for n in [0, 1, 999, 1000, 1024, 5 << 20, (5 << 20) + 1, 3 << 30] {
            assert_eq!(ByteSize(n).to_string().parse(), Ok(ByteSize(n)));
            assert_eq!(TimeSpan(n).to_string().parse(), Ok(TimeSpan(n)));
        }
    }

    #[test]
    fn a_wrong_unit_names_the_right_ones() {
        let error = "64mib".parse::<ByteSize>().unwrap_err();
        assert_eq!(
            error,
            "`64mib` is not a size; write a number and one of B, kB, KiB, MB, MiB, GB, GiB, such as `64MiB`"
        );
        assert!("".parse::<TimeSpan>().is_err());
        assert!("-1s".parse::<TimeSpan>().is_err());
        assert!("99999999999999999999d".parse::<TimeSpan>().is_err());
    }
}
