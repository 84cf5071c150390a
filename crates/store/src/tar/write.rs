//! Writing tar archives: ustar headers, and extended ones where they do not do.
//!
//! The same items always give the same bytes.

use std::io::{self, Read, Write};

use super::stream::{BLOCK, Block};

/// The largest number in 11 octal digits.
const OCTAL_11_MAX: u64 = 0o777_7777_7777;
/// The largest number in 7 octal digits.
const OCTAL_7_MAX: u64 = 0o777_7777;
/// Bytes of names in a plain header.
const NAME_BYTES: usize = 100;

/// What an entry of an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarKind<'a> {
    /// Its data follows.
    File,
    /// Another name of the file with this path.
    HardLink(&'a [u8]),
    /// A link with this content.
    Symlink(&'a [u8]),
    /// Major and minor number.
    CharDevice(u32, u32),
    /// Major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// Its path ends with a slash.
    Directory,
}

/// An entry to be written.
#[derive(Debug, Clone, Copy)]
pub struct TarItem<'a> {
    /// Relative to the root of the archive.
    pub path: &'a [u8],
    /// What it is.
    pub kind: TarKind<'a>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of data; of files only.
    pub size: u64,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Names and values, sorted.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl<'a> TarItem<'a> {
    /// A file of root's that all may read, from 1970.
    pub fn file(path: &'a [u8], size: u64) -> Self {
        let kind = TarKind::File;
        Self { path, kind, mode: 0o644, uid: 0, gid: 0, size, mtime: (0, 0), xattrs: &[] }
    }

    /// The same as a directory.
    pub fn directory(path: &'a [u8]) -> Self {
        Self { kind: TarKind::Directory, mode: 0o755, ..Self::file(path, 0) }
    }
}

/// Writes an archive.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes the headers of an entry; for a file, its data must follow.
    pub fn item(&mut self, item: &TarItem<'_>) -> io::Result<()> {
        let records = extended(item);
        if !records.is_empty() {
            let size = records.len() as u64;
            let head = TarItem::file(b"PaxHeaders/entry", size);
            self.out.write_all(&header(&head, b'x'))?;
            self.data(records.as_slice(), size)?;
        }
        self.out.write_all(&header(item, flag(item.kind)))
    }

    /// Copies exactly `size` bytes of data, and pads them.
    pub fn data(&mut self, reader: impl Read, size: u64) -> io::Result<()> {
        let copied = io::copy(&mut reader.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{copied} bytes came, {size} were promised"),
            ));
        }
        self.pad(size)
    }

    /// Where data can be written directly; [`TarWriter::pad`] must follow.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Pads data of `size` bytes that was written directly.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        self.out.write_all(&[0; BLOCK][..padding])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn flag(kind: TarKind<'_>) -> u8 {
    match kind {
        TarKind::File => b'0',
        TarKind::HardLink(_) => b'1',
        TarKind::Symlink(_) => b'2',
        TarKind::CharDevice(..) => b'3',
        TarKind::BlockDevice(..) => b'4',
        TarKind::Directory => b'5',
        TarKind::Fifo => b'6',
    }
}

fn link<'a>(kind: TarKind<'a>) -> &'a [u8] {
    match kind {
        TarKind::HardLink(target) | TarKind::Symlink(target) => target,
        TarKind::File
        | TarKind::CharDevice(..)
        | TarKind::BlockDevice(..)
        | TarKind::Fifo
        | TarKind::Directory => &[],
    }
}

fn header(item: &TarItem<'_>, flag: u8) -> Block {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let cut = |text: &'_ [u8]| text[..text.len().min(NAME_BYTES)].to_vec();
    let octal = |number: u64, digits: usize| format!("{number:0digits$o}");
    // What does not fit is in the extended header.
    let small = |number: u32| octal(if fits(number) { number.into() } else { 0 }, 7);
    let seconds = u64::try_from(item.mtime.0).ok().filter(|s| *s <= OCTAL_11_MAX).unwrap_or(0);
    put(0, &cut(item.path));
    put(100, small(item.mode & 0o7777).as_bytes());
    put(108, small(item.uid).as_bytes());
    put(116, small(item.gid).as_bytes());
    put(124, octal(if item.size <= OCTAL_11_MAX { item.size } else { 0 }, 11).as_bytes());
    put(136, octal(seconds, 11).as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(157, &cut(link(item.kind)));
    put(257, b"ustar\x0000");
    if let TarKind::CharDevice(major, minor) | TarKind::BlockDevice(major, minor) = item.kind {
        put(329, small(major).as_bytes());
        put(337, small(minor).as_bytes());
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn fits(number: u32) -> bool {
    u64::from(number) <= OCTAL_7_MAX
}

/// What a plain header cannot say.
fn extended(item: &TarItem<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    if item.path.len() > NAME_BYTES {
        record(&mut records, b"path", item.path);
    }
    if link(item.kind).len() > NAME_BYTES {
        record(&mut records, b"linkpath", link(item.kind));
    }
    if item.size > OCTAL_11_MAX {
        record(&mut records, b"size", item.size.to_string().as_bytes());
    }
    for (key, value) in [(&b"uid"[..], item.uid), (b"gid", item.gid)] {
        if !fits(value) {
            record(&mut records, key, value.to_string().as_bytes());
        }
    }
    let (seconds, nanos) = item.mtime;
    if nanos != 0 || seconds < 0 || seconds.cast_unsigned() > OCTAL_11_MAX {
        record(&mut records, b"mtime", time(seconds, nanos).as_bytes());
    }
    for (key, value) in item.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
    }
    records
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn time(seconds: i64, nanos: u32) -> String {
    // Nanoseconds count forward, also before 1970: -2 s and 0.75 s are -1.25.
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
