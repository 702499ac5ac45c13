//! Protobuf's wire format, after [its documentation](https://protobuf.dev/programming-guides/encoding/).

/// How a field's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Length,
    Group,
    Fixed32,
}

impl Wire {
    pub(super) fn name(self) -> &'static str {
        match self {
            Wire::Varint => "a varint",
            Wire::Fixed64 => "8 bytes",
            Wire::Length => "a length and bytes",
            Wire::Group => "a group",
            Wire::Fixed32 => "4 bytes",
        }
    }
}

/// How deep groups may nest in what is skipped.
const MAX_GROUPS: usize = 64;
const MAX_NUMBER: u64 = (1 << 29) - 1;

const ENDS: &str = "it ends in the middle of a value";

#[inline]
pub(super) fn varint(at: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0u64;
    for (i, byte) in at.iter().enumerate().take(10) {
        if i == 9 && *byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *at = &at[i + 1..];
            return Ok(number);
        }
    }
    Err(if at.len() < 10 { ENDS } else { "a varint has more than 64 bits" })
}

/// A varint in which the sign is the lowest bit.
pub(super) fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// The same of 32 bits: those above are cut off.
pub(super) fn zigzag32(number: u64) -> i32 {
    zigzag(u64::from(number as u32)) as i32
}

#[inline]
pub(super) fn fixed<const N: usize>(at: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (bytes, rest) = at.split_first_chunk::<N>().ok_or(ENDS)?;
    *at = rest;
    Ok(*bytes)
}

#[inline]
pub(super) fn length<'a>(at: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = usize::try_from(varint(at)?).map_err(|_| ENDS)?;
    let (bytes, rest) = at.split_at_checked(length).ok_or(ENDS)?;
    *at = rest;
    Ok(bytes)
}

/// Number and form of the field that comes next; a group's end is an error.
#[inline]
pub(super) fn tag(at: &mut &[u8]) -> Result<(u32, Wire), &'static str> {
    match any_tag(at)? {
        (number, Some(wire)) => Ok((number, wire)),
        (_, None) => Err("a group ends that did not begin"),
    }
}

#[inline]
fn any_tag(at: &mut &[u8]) -> Result<(u32, Option<Wire>), &'static str> {
    let tag = varint(at)?;
    let number = tag >> 3;
    if number == 0 || number > MAX_NUMBER {
        return Err("a field has a number that Protobuf does not have");
    }
    let wire = match tag & 7 {
        0 => Some(Wire::Varint),
        1 => Some(Wire::Fixed64),
        2 => Some(Wire::Length),
        3 => Some(Wire::Group),
        4 => None,
        5 => Some(Wire::Fixed32),
        _ => return Err("a field has a wire type that Protobuf does not have"),
    };
    Ok((number as u32, wire))
}

/// What is inside a group that has just begun.
pub(super) fn group<'a>(number: u32, at: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let from = *at;
    let mut open = vec![number];
    loop {
        let before = at.len();
        match any_tag(at)? {
            (number, None) => {
                if open.pop() != Some(number) {
                    return Err("a group ends that did not begin");
                }
                if open.is_empty() {
                    return Ok(&from[..from.len() - before]);
                }
            }
            (number, Some(Wire::Group)) if open.len() < MAX_GROUPS => open.push(number),
            (_, Some(Wire::Group)) => return Err("groups nest too deep"),
            (number, Some(wire)) => skip(number, wire, at)?,
        }
    }
}

/// Reads over a value.
pub(super) fn skip(number: u32, wire: Wire, at: &mut &[u8]) -> Result<(), &'static str> {
    match wire {
        Wire::Varint => varint(at).map(drop),
        Wire::Fixed64 => fixed::<8>(at).map(drop),
        Wire::Length => length(at).map(drop),
        Wire::Group => group(number, at).map(drop),
        Wire::Fixed32 => fixed::<4>(at).map(drop),
    }
}
