//! Whether a value is exactly one JSON object (RFC 8259), before anything is made of it.
//!
//! arrow-json's own tokeniser takes missing and doubled commas, raw control characters and several
//! values in one record, and one truncated record or one byte that is not UTF-8 costs it the whole
//! batch. So every value passes here first; what is left for the columns to refuse are types.

use std::borrow::Cow;

/// Where and how a value is not one JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SyntaxFault {
    /// Position in bytes from the start of the value.
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// Checks that `value` is one JSON object with white space around it at most, nested no deeper than
/// `max_depth`, and gives it as arrow-json can read it.
///
/// Of a character that is written as a surrogate pair (`\ud840\udc00`), arrow-json 60 sets bit 16 instead of adding it: every
/// other plane is read as the one below, U+20000 as U+10000. There the character itself takes the pair's place.
pub(super) fn check_object(value: &[u8], max_depth: usize) -> Result<Cow<'_, [u8]>, SyntaxFault> {
    if let Err(fault) = std::str::from_utf8(value) {
        return Err(SyntaxFault { at: fault.valid_up_to(), what: "bytes that are not UTF-8" });
    }
    let mut scan = Scan { bytes: value, at: 0, max_depth, misread: Vec::new() };
    scan.space();
    match scan.peek() {
        Some(b'{') => scan.object(1)?,
        None => return scan.fault("no JSON value at all"),
        Some(b'[') => return scan.fault("an array where an object is expected"),
        Some(b'"') => return scan.fault("a string where an object is expected"),
        Some(b'-' | b'0'..=b'9') => return scan.fault("a number where an object is expected"),
        Some(b't' | b'f' | b'n') => return scan.fault("a literal where an object is expected"),
        Some(_) => return scan.fault("something that is not JSON"),
    }
    scan.space();
    match scan.peek() {
        None => Ok(replaced(value, &scan.misread)),
        Some(_) => scan.fault("bytes after the end of the JSON object"),
    }
}

/// Bytes of a surrogate pair.
const PAIR: usize = 12;

/// `value` with the characters in place of their surrogate pairs.
fn replaced<'a>(value: &'a [u8], pairs: &[(usize, char)]) -> Cow<'a, [u8]> {
    if pairs.is_empty() {
        return Cow::Borrowed(value);
    }
    let (mut text, mut done) = (Vec::with_capacity(value.len()), 0);
    for (at, character) in pairs {
        text.extend_from_slice(&value[done..*at]);
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        done = at + PAIR;
    }
    text.extend_from_slice(&value[done..]);
    Cow::Owned(text)
}

/// Whether `text` is a JSON number and nothing else.
pub(super) fn is_number(text: &str) -> bool {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0, max_depth: 0, misread: Vec::new() };
    scan.number().is_ok() && scan.at == text.len()
}

/// Where a quote, a backslash or a control character is; looks at eight bytes at once, since most of a record is
/// text.
fn first_special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // The high bit of each byte that is below `n`, for bytes below 128 and n up to 128; a borrow may mark bytes
    // above the lowest one that is, which is why only the lowest mark counts.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHS;
    let special = |b: u8| b == b'"' || b == b'\\' || b < 0x20;
    let (words, _) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let marks = quote | backslash | below(word, 0x20);
        if marks != 0 {
            return Some(8 * i + (marks.trailing_zeros() / 8) as usize);
        }
    }
    let done = 8 * words.len();
    bytes[done..].iter().position(|&b| special(b)).map(|at| done + at)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    max_depth: usize,
    /// Surrogate pairs that arrow-json reads as another character, and which they are.
    misread: Vec<(usize, char)>,
}

impl Scan<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[cold]
    fn fault<T>(&self, what: &'static str) -> Result<T, SyntaxFault> {
        let what = if self.at >= self.bytes.len() && !self.bytes.is_empty() {
            "the end of a truncated value"
        } else {
            what
        };
        Err(SyntaxFault { at: self.at, what })
    }

    fn value(&mut self, depth: usize) -> Result<(), SyntaxFault> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => self.fault("no value where one is expected"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), SyntaxFault> {
        if depth > self.max_depth {
            return self.fault("deeper nesting than is allowed");
        }
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return self.fault("no field name in quotes where one is expected");
            }
            self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return self.fault("no ':' after a field name");
            }
            self.at += 1;
            self.space();
            self.value(depth)?;
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.fault("no ',' or '}' after a field"),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), SyntaxFault> {
        if depth > self.max_depth {
            return self.fault("deeper nesting than is allowed");
        }
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.fault("no ',' or ']' after an element"),
            }
        }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), SyntaxFault> {
        for &expected in word {
            if self.peek() != Some(expected) {
                return self.fault("a word that is not true, false or null");
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), SyntaxFault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            // A further digit after a leading zero is no number: the caller finds it where it expects
            // a separator.
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.fault("a number without digits"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), SyntaxFault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { self.fault("a number without digits") } else { Ok(()) }
    }

    fn string(&mut self) -> Result<(), SyntaxFault> {
        self.at += 1;
        loop {
            let plain = first_special(&self.bytes[self.at..]);
            match plain {
                None => {
                    self.at = self.bytes.len();
                    return self.fault("the end of a truncated value");
                }
                Some(n) => self.at += n,
            }
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ => return self.fault("a control character in a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), SyntaxFault> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                match self.hex4()? {
                    0xdc00..=0xdfff => self.fault("half of a surrogate pair"),
                    high @ 0xd800..=0xdbff => {
                        if self.bytes[self.at..].starts_with(b"\\u") {
                            self.at += 2;
                            if let low @ 0xdc00..=0xdfff = self.hex4()? {
                                let above = ((high - 0xd800) << 10) | (low - 0xdc00);
                                if above & 0x1_0000 != 0 {
                                    let character = char::from_u32(above + 0x1_0000);
                                    let character = character.expect("a surrogate pair is a character");
                                    self.misread.push((self.at - PAIR, character));
                                }
                                return Ok(());
                            }
                        }
                        self.fault("half of a surrogate pair")
                    }
                    _ => Ok(()),
                }
            }
            _ => self.fault("an escape that JSON does not have"),
        }
    }

    fn hex4(&mut self) -> Result<u32, SyntaxFault> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(16)) else {
                return self.fault("an escape that JSON does not have");
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn what(text: &str) -> (usize, &'static str) {
        let fault = check_object(text.as_bytes(), 8).unwrap_err();
        (fault.at, fault.what)
    }

    #[test]
    fn arrow_json_still_misreads_every_other_plane() {
        // When this fails, `misread` can go.
        let schema = arrow_schema::Schema::new(vec![arrow_schema::Field::new(
            "a",
            arrow_schema::DataType::Utf8,
            true,
        )]);
        let mut decoder = arrow_json::ReaderBuilder::new(schema.into()).build_decoder().unwrap();
        decoder.decode(br#"{"a": "\ud840\udc00"}"#).unwrap();
        let batch = decoder.flush().unwrap().unwrap();
        let read = arrow_array::cast::AsArray::as_string::<i32>(batch.column(0));
        assert_eq!(read.value(0), "\u{10000}", "and not U+20000");
    }

    proptest! {
        #[test]
        fn eight_bytes_at_once_find_what_one_by_one_finds(
            bytes in proptest::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(b'"'), 8 => 0x20..0x24u8], 0..40),
        ) {
            let one_by_one = bytes.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20);
            prop_assert_eq!(first_special(&bytes), one_by_one);
        }
    }

    #[test]
    fn names_the_place_and_the_fault() {
        assert_eq!(what(""), (0, "no JSON value at all"));
        assert_eq!(what("[1]"), (0, "an array where an object is expected"));
        assert_eq!(what(r#"{"a":1"#), (6, "the end of a truncated value"));
        assert_eq!(what(r#"{"a":"x"#), (7, "the end of a truncated value"));
        assert_eq!(what(r#"{"a":1} x"#), (8, "bytes after the end of the JSON object"));
        assert_eq!(what(r#"{"a":1}{"a":2}"#), (7, "bytes after the end of the JSON object"));
        assert_eq!(what(r#"{"a":1 "b":2}"#), (7, "no ',' or '}' after a field"));
        assert_eq!(what(r#"{"a":1,,"b":2}"#), (7, "no field name in quotes where one is expected"));
        assert_eq!(what(r#"{"a":[1 2]}"#), (8, "no ',' or ']' after an element"));
        assert_eq!(what(r#"{"a":01}"#), (6, "no ',' or '}' after a field"));
        assert_eq!(what(r#"{"a":1.}"#), (7, "a number without digits"));
        assert_eq!(what("{\"a\":\"\n\"}"), (6, "a control character in a string"));
        assert_eq!(what(r#"{"a":"\ud800x"}"#), (12, "half of a surrogate pair"));
        assert_eq!(what(r#"{"a":nul}"#), (8, "a word that is not true, false or null"));
        assert_eq!(what(r#"{"a":[[[[[[[[1]]]]]]]]}"#), (12, "deeper nesting than is allowed"));
    }

    #[test]
    fn a_million_brackets_end_at_the_depth_limit() {
        let bomb = format!("{{\"a\":{}", "[".repeat(1_000_000));
        assert_eq!(check_object(bomb.as_bytes(), 64).unwrap_err().what, "deeper nesting than is allowed");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// The same verdict as serde_json on bytes that are nearly JSON.
        #[test]
        fn agrees_with_serde_json(text in r#"\{("a|\\u[0-9d][0-9a8c]00|"|:|,|\[|\]|\{|\}|-|0|12|\.|e|true|null| |x){0,14}\}?"#) {
            let ours = check_object(text.as_bytes(), 64).is_ok();
            let theirs = serde_json::from_str::<serde_json::Value>(&text)
                // An f64 overflow is serde_json's own limit, not JSON's.
                .map_or_else(|e| e.to_string().contains("number out of range"), |v| v.is_object());
            prop_assert_eq!(ours, theirs, "{}", text);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_object(&bytes, 16);
        }
    }
}
