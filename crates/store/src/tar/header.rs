//! A header block: the fields of ustar, GNU and old tar.

use super::stream::{BLOCK, Block};
use crate::error::{Error, Result};

/// A header as it stands, before extended headers change it.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: i64,
    pub(super) major: u32,
    pub(super) minor: u32,
}

pub(super) fn is_zero(block: &Block) -> bool {
    block.iter().all(|byte| *byte == 0)
}

pub(super) fn parse(block: &Block) -> Result<Header> {
    check_sum(block)?;
    let ustar = &block[257..262] == b"ustar";
    // GNU writes two spaces after the magic, and no prefix.
    let posix = ustar && block[262] == 0;
    let mut path = text(&block[0..100]).to_vec();
    let prefix = text(&block[345..500]);
    if posix && !prefix.is_empty() {
        path = [prefix, b"/", &path].concat();
    }
    let device = |field: &[u8]| if ustar { unsigned(field, "device number") } else { Ok(0) };
    Ok(Header {
        kind: block[156],
        path,
        link: text(&block[157..257]).to_vec(),
        size: unsigned(&block[124..136], "size")?,
        // Writers leave bits of the file type here.
        mode: (number(&block[100..108], "mode")? & 0o7777) as u32,
        uid: unsigned(&block[108..116], "uid")?,
        gid: unsigned(&block[116..124], "gid")?,
        mtime: number(&block[136..148], "time")?,
        major: small(device(&block[329..337])?, "device number")?,
        minor: small(device(&block[337..345])?, "device number")?,
    })
}

/// The sum of all bytes, with blanks in place of the sum. Old writers added
/// signed bytes.
fn check_sum(block: &Block) -> Result<()> {
    let written = number(&block[148..156], "checksum")?;
    let byte_at = |at: usize| if (148..156).contains(&at) { b' ' } else { block[at] };
    let unsigned: i64 = (0..BLOCK).map(|at| i64::from(byte_at(at))).sum();
    let signed: i64 = (0..BLOCK).map(|at| i64::from(byte_at(at).cast_signed())).sum();
    if written == unsigned || written == signed {
        return Ok(());
    }
    Err(Error::bad_archive(
        "a header's checksum is wrong; this is no tar archive, or it is damaged",
    ))
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

pub(super) fn unsigned(field: &[u8], what: &str) -> Result<u64> {
    u64::try_from(number(field, what)?)
        .map_err(|_| Error::bad_archive(format!("the {what} of an entry is negative")))
}

fn small(value: u64, what: &str) -> Result<u32> {
    u32::try_from(value)
        .map_err(|_| Error::bad_archive(format!("the {what} of an entry is too large")))
}

/// Octal, with blanks or NULs around it; or, with the highest bit set, a
/// big-endian two's complement number in the rest (GNU, for large values).
pub(super) fn number(field: &[u8], what: &str) -> Result<i64> {
    let bad = || Error::bad_archive(format!("the {what} of an entry is not a number"));
    let Some(first) = field.first() else { return Err(bad()) };
    if first & 0x80 != 0 {
        // Bit 6 is the sign.
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = match (at, negative) {
                (0, true) => byte | 0x80,
                (0, false) => byte & 0x7f,
                _ => *byte,
            };
            value = value.checked_mul(256).ok_or_else(bad)? | i64::from(byte);
        }
        return Ok(value);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0i64, |value, byte| match byte {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(byte - b'0')))
            .ok_or_else(bad),
        _ => Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_octal_and_binary() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"77777777", 0o77_777_777),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\x80\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff", 0x7f_ffff_ffff_ffff),
        ] {
            assert_eq!(number(field, "x").unwrap(), value, "{field:?}");
        }
        for bad in
            [&b"0000648\0"[..], b"-1", b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b""]
        {
            assert!(number(bad, "x").is_err(), "{bad:?}");
        }
    }
}
