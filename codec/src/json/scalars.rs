//! What a JSON number or string means in a declared type. Exact or refused: a fraction is never cut off
//! an integer, a digit never rounded off a decimal, an overflow never turned into infinity.

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use super::syntax::is_number;
use arrow_schema::TimeUnit;

/// The integer `number * 10^scale` for the text of a JSON number, if it is one and fits.
pub(super) fn exact(text: &str, scale: i8) -> Option<i128> {
    // The common case by far: digits alone.
    if scale == 0
        && text.len() <= 18
        && !text.starts_with('+')
        && !has_leading_zero(text)
        && let Ok(small) = text.parse::<i64>()
    {
        return Some(small.into());
    }
    if !is_number(text) {
        return None;
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let trailing = digits.iter().rev().take_while(|&&d| d == b'0').count();
    digits.truncate(digits.len() - trailing);
    let leading = digits.iter().take_while(|&&d| d == b'0').count();
    digits.drain(..leading);
    if digits.is_empty() {
        return Some(0);
    }
    if digits.len() > 39 {
        return None;
    }
    // An exponent beyond i64 is beyond any decimal too, since the digits are not zero.
    let exponent: i64 = exponent.map_or(Some(0), |e| e.strip_prefix('+').unwrap_or(e).parse().ok())?;
    let shift = exponent
        .checked_add(i64::from(scale))?
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(i64::try_from(trailing).ok()?)?;
    // Below zero, digits that are not zero would fall off.
    let power = 10i128.checked_pow(u32::try_from(shift).ok()?)?;
    let magnitude =
        digits.iter().try_fold(0i128, |n, d| n.checked_mul(10)?.checked_add(i128::from(d - b'0')))?;
    let value = magnitude.checked_mul(power)?;
    Some(if negative { -value } else { value })
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    digits.len() > 1 && digits[0] == b'0'
}

/// A number as a decimal of the given precision and scale.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let value = exact(text, scale)?;
    let limit = 10i128.checked_pow(precision.into())?;
    (value.unsigned_abs() < limit.unsigned_abs()).then_some(value)
}

/// A number as the nearest `f64`, if that is finite.
pub(super) fn float64(text: &str) -> Option<f64> {
    if !is_number(text) {
        return None;
    }
    text.parse::<f64>().ok().filter(|v| v.is_finite())
}

/// A number as the nearest `f32`, if that is finite.
pub(super) fn float32(text: &str) -> Option<f32> {
    if !is_number(text) {
        return None;
    }
    text.parse::<f32>().ok().filter(|v| v.is_finite())
}

/// A time stamp written as text: RFC 3339, with `Z` or an offset. Digits below the unit are dropped
/// towards the past.
pub(super) fn timestamp_text(text: &str, unit: TimeUnit) -> Option<i64> {
    let timestamp: Timestamp = text.parse().ok()?;
    let per_unit = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    i64::try_from(timestamp.as_nanosecond().div_euclid(per_unit)).ok()
}

/// A date written as text, `2026-11-22`, in days since 1970-01-01.
pub(super) fn date_text(text: &str) -> Option<i32> {
    // A time after the date would be dropped silently.
    if text.len() != 10 {
        return None;
    }
    let date: Date = text.parse().ok()?;
    let since_epoch: SignedDuration = date.duration_since(Date::constant(1970, 1, 1));
    i32::try_from(since_epoch.as_hours() / 24).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_exact_or_refused() {
        assert_eq!(exact("12", 0), Some(12));
        assert_eq!(exact("-0", 0), Some(0));
        assert_eq!(exact("1.0", 0), Some(1));
        assert_eq!(exact("1.5e1", 0), Some(15));
        assert_eq!(exact("1200e-2", 0), Some(12));
        assert_eq!(exact("9223372036854775808", 0), Some(9_223_372_036_854_775_808));
        for refused in [
            "1.7",
            "1e-1",
            "1e400",
            "1e99999999999999999999",
            "",
            "-",
            "+1",
            "01",
            "-01",
            "1 ",
            "0x1",
            "NaN",
            "1_0",
        ] {
            assert_eq!(exact(refused, 0), None, "{refused}");
        }
        assert_eq!(exact("0e99999999999999999999", 0), Some(0));
        assert_eq!(exact(&"9".repeat(5000), 0), None);
        assert_eq!(exact(&format!("1{}e-5000", "0".repeat(5000)), 0), Some(1));
    }

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        assert_eq!(decimal("12.34", 18, 2), Some(1234));
        assert_eq!(decimal("12.340", 18, 2), Some(1234));
        assert_eq!(decimal("12.345", 18, 2), None);
        assert_eq!(decimal("999.99", 5, 2), Some(99_999));
        assert_eq!(decimal("1000", 5, 2), None);
        assert_eq!(decimal("-1e2", 5, 2), Some(-10_000));
        assert_eq!(decimal(&"9".repeat(38), 38, 0), Some(10i128.pow(38) - 1));
    }

    #[test]
    fn floats_never_become_infinite() {
        assert_eq!(float64("1e308"), Some(1e308));
        assert_eq!(float64("1e309"), None);
        assert_eq!(float32("1e39"), None);
        assert_eq!(float64("inf"), None);
        assert_eq!(float64("NaN"), None);
    }

    #[test]
    fn times_need_an_offset_and_dates_nothing_else() {
        let ms = |t| timestamp_text(t, TimeUnit::Millisecond);
        assert_eq!(ms("1970-01-01T00:00:01.5Z"), Some(1500));
        assert_eq!(ms("1970-01-01T01:00:00.0019+01:00"), Some(1));
        assert_eq!(ms("1969-12-31T23:59:59.9995Z"), Some(-1));
        assert_eq!(ms("1970-01-01T00:00:01"), None);
        assert_eq!(ms("yesterday"), None);
        assert_eq!(timestamp_text("9999-01-01T00:00:00Z", TimeUnit::Nanosecond), None);
        assert_eq!(date_text("1970-01-02"), Some(1));
        assert_eq!(date_text("1969-12-31"), Some(-1));
        assert_eq!(date_text("2024-02-30"), None);
        assert_eq!(date_text("2024-02-03T00:00:00Z"), None);
    }

    proptest! {
        #[test]
        fn every_integer_comes_back(n in any::<i64>()) {
            prop_assert_eq!(exact(&n.to_string(), 0), Some(n.into()));
        }

        #[test]
        fn every_decimal_comes_back(n in -(10i128.pow(38) - 1)..10i128.pow(38), scale in 0i8..=38) {
            let digits = format!("{:0>width$}", n.unsigned_abs(), width = scale as usize + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
            let sign = if n < 0 { "-" } else { "" };
            let text = if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            prop_assert_eq!(decimal(&text, 38, scale), Some(n), "{}", text);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", scale in 0i8..=38) {
            let _ = (exact(&text, scale), float64(&text), date_text(&text), timestamp_text(&text, TimeUnit::Nanosecond));
        }
    }
}
