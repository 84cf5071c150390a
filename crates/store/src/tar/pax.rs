//! PAX extended headers.

use corten_base::limits::{SPARSE_PIECES_MAX, XATTR_BYTES_MAX};

use super::sparse::Piece;
use crate::error::{Error, Result};

/// What extended headers say about an entry; the empty one says nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseKeys,
}

/// The keys `GNU.sparse.*` of formats 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseKeys {
    pub(super) version: Option<(u64, u64)>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) pieces: Option<Vec<Piece>>,
    /// An offset that its length has not followed yet (0.0).
    offset: Option<u64>,
}

impl Pax {
    /// Takes up the records of one extended header, over what is known.
    pub(super) fn merge(&mut self, mut records: &[u8]) -> Result<()> {
        while !records.is_empty() {
            let (key, value, rest) = split(records)?;
            self.set(key, value)?;
            records = rest;
        }
        let xattr_bytes: usize =
            self.xattrs.iter().map(|(key, value)| key.len() + value.len()).sum();
        if xattr_bytes > XATTR_BYTES_MAX {
            return Err(Error::bad_archive(format!(
                "the extended attributes of an entry are larger than {XATTR_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        // An empty value takes back what a global header said.
        let present = !value.is_empty();
        let bytes = || present.then(|| value.to_vec());
        let number = || if present { decimal(value).map(Some) } else { Ok(None) };
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = if present { Some(time(value)?) } else { None },
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(name, value)?;
                }
            }
        }
        Ok(())
    }
}

impl SparseKeys {
    fn set(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        match name {
            b"major" => self.version = Some((decimal(value)?, self.version.map_or(0, |v| v.1))),
            b"minor" => self.version = Some((self.version.map_or(0, |v| v.0), decimal(value)?)),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"offset" => self.offset = Some(decimal(value)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(bad_map)?;
                let pieces = self.pieces.get_or_insert_default();
                if pieces.len() >= SPARSE_PIECES_MAX {
                    return Err(bad_map());
                }
                pieces.push(Piece { offset, length: decimal(value)? });
            }
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                let numbers = numbers.collect::<Result<Vec<u64>>>()?;
                let (pairs, []) = numbers.as_chunks::<2>() else { return Err(bad_map()) };
                let piece = |&[offset, length]: &[u64; 2]| Piece { offset, length };
                self.pieces = Some(pairs.iter().map(piece).collect());
            }
            _ => {}
        }
        Ok(())
    }
}

fn bad_map() -> Error {
    Error::bad_archive("the map of a sparse file is malformed")
}

/// The first record `<length> <key>=<value>\n`, and what follows it.
fn split(records: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let parts = || {
        let space = records.iter().take(20).position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(&records[..space]).ok()?).ok()?;
        let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        Some((&record[..equals], &record[equals + 1..], &records[length..]))
    };
    parts().ok_or_else(|| Error::bad_archive("an extended header is malformed"))
}

pub(super) fn decimal(text: &[u8]) -> Result<u64> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::bad_archive("a number in an extended header is malformed"))
}

/// Seconds with a fraction, before 1970 with a minus. Beyond nanoseconds the
/// digits are dropped, towards the past.
fn time(text: &[u8]) -> Result<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = decimal(parts.next().unwrap_or_default())?;
    let bad = || Error::bad_archive("a time in an extended header is malformed");
    let whole = i64::try_from(whole).map_err(|_| bad())?;
    let mut nanos = 0u32;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    for at in 0..9 {
        nanos = nanos * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
    }
    Ok(match (negative, nanos) {
        (false, _) => (whole, nanos),
        (true, 0) => (-whole, 0),
        (true, _) => (-whole - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_merged_and_taken_back() {
        let mut pax = Pax::default();
        pax.merge(b"12 path=a/b\n22 mtime=1234.5678901\n9 uid=77\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!((pax.mtime, pax.uid), (Some((1234, 567_890_100)), Some(77)));
        pax.merge(b"8 path=\n").unwrap();
        assert_eq!(pax.path, None);
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"-3").unwrap(), (-3, 0));
        assert!(time(b"1.x").is_err());
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [&b"5 a=b"[..], b"99 a=b\n", b"0 a=b\n", b"x", b"6 abc\n", b"3 =\n9"] {
            assert!(Pax::default().merge(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
