//! Entries: headers with what long names, extended headers and sparse maps
//! say about them.

use std::io::Read;

use corten_base::limits::{PATH_BYTES_MAX, PAX_BYTES_MAX};

use super::header::{self, Header};
use super::pax::Pax;
use super::sparse::{self, Map};
use super::stream::{Block, Stream};
use crate::error::{Error, Result};

/// What an entry is.
#[derive(Debug)]
pub(super) enum Kind {
    /// With data in the stream; the map if it has holes.
    File(Option<Map>),
    /// Another name for what this path names.
    HardLink(Vec<u8>),
    /// A link with this content.
    Symlink(Vec<u8>),
    CharDevice,
    BlockDevice,
    Fifo,
    Directory,
}

/// One entry. Its data, `data` bytes and padding, is next in the stream.
#[derive(Debug)]
pub(super) struct Entry {
    /// As written, not yet made safe.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) data: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries off a stream.
pub(super) struct Entries {
    /// What global headers said.
    global: Pax,
}

/// What stands before an entry's own header.
#[derive(Default)]
struct Prefix {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self { global: Pax::default() }
    }

    /// The next entry; None at the end of the archive.
    pub(super) fn next<R: Read>(&mut self, stream: &mut Stream<R>) -> Result<Option<Entry>> {
        let mut prefix = Prefix::default();
        loop {
            let Some(block) = stream.block()? else { return Ok(None) };
            if header::is_zero(&block) {
                return match stream.block()? {
                    Some(second) if !header::is_zero(&second) => {
                        Err(Error::bad_archive("an empty block stands between entries"))
                    }
                    _ => Ok(None),
                };
            }
            let header = header::parse(&block)?;
            match header.kind {
                b'L' => prefix.long_path = Some(long_name(stream, header.size)?),
                b'K' => prefix.long_link = Some(long_name(stream, header.size)?),
                b'x' | b'X' => {
                    let records =
                        stream.collect(header.size, PAX_BYTES_MAX, "an extended header")?;
                    let mut pax = prefix.pax.take().unwrap_or_else(|| self.global.clone());
                    pax.merge(&records)?;
                    prefix.pax = Some(pax);
                }
                b'g' => {
                    let records = stream.collect(header.size, PAX_BYTES_MAX, "a global header")?;
                    self.global.merge(&records)?;
                }
                // The label of a volume.
                b'V' => {
                    stream.skip(header.size)?;
                    stream.skip_padding(header.size)?;
                }
                _ => {
                    let pax = prefix.pax.take().unwrap_or_else(|| self.global.clone());
                    return entry(header, &block, prefix, pax, stream).map(Some);
                }
            }
        }
    }
}

fn long_name<R: Read>(stream: &mut Stream<R>, size: u64) -> Result<Vec<u8>> {
    let name = stream.collect(size, PATH_BYTES_MAX + 1, "a long name")?;
    Ok(header::text(&name).to_vec())
}

fn entry<R: Read>(
    header: Header,
    block: &Block,
    prefix: Prefix,
    pax: Pax,
    stream: &mut Stream<R>,
) -> Result<Entry> {
    let named = pax.sparse.name.clone().or(pax.path.clone());
    let path = named.or(prefix.long_path).unwrap_or(header.path);
    let link = pax.link.clone().or(prefix.long_link).unwrap_or(header.link);
    let size = pax.size.unwrap_or(header.size);
    let (kind, data) = match header.kind {
        // Old tars know directories by the slash.
        0 if path.ends_with(b"/") => (Kind::Directory, 0),
        0 | b'0' | b'7' => {
            let (map, data) = pax_map(&pax, size, stream)?;
            (Kind::File(map), data)
        }
        b'S' => {
            let (pieces, real) = sparse::read_gnu(block, stream)?;
            (Kind::File(Some(Map::new(pieces, real, size)?)), size)
        }
        // These have no data, whatever their size says.
        b'1' => (Kind::HardLink(link), 0),
        b'2' => (Kind::Symlink(link), 0),
        b'3' => (Kind::CharDevice, 0),
        b'4' => (Kind::BlockDevice, 0),
        b'5' => (Kind::Directory, 0),
        b'6' => (Kind::Fifo, 0),
        // A directory with a list of its files as data.
        b'D' => (Kind::Directory, size),
        other => {
            return Err(Error::bad_archive(format!(
                "entry {:?} is of unknown kind {:?}",
                String::from_utf8_lossy(&path),
                char::from(other)
            )));
        }
    };
    Ok(Entry {
        kind,
        data,
        mode: header.mode,
        uid: owner(pax.uid.unwrap_or(header.uid), &path)?,
        gid: owner(pax.gid.unwrap_or(header.gid), &path)?,
        mtime: pax.mtime.unwrap_or((header.mtime, 0)),
        major: header.major,
        minor: header.minor,
        xattrs: pax.xattrs,
        path,
    })
}

/// The map of a sparse file in PAX format, and the data that follows it.
fn pax_map<R: Read>(pax: &Pax, size: u64, stream: &mut Stream<R>) -> Result<(Option<Map>, u64)> {
    let keys = &pax.sparse;
    let missing = || Error::bad_archive("a sparse file has no size");
    match (keys.version, &keys.pieces) {
        (Some((1, 0)), _) => {
            let (pieces, taken) = sparse::read_pax(stream, size)?;
            let data = size.checked_sub(taken).ok_or_else(missing)?;
            let map = Map::new(pieces, keys.size.ok_or_else(missing)?, data)?;
            Ok((Some(map), data))
        }
        (None | Some((0, _)), Some(pieces)) => {
            let map = Map::new(pieces.clone(), keys.size.ok_or_else(missing)?, size)?;
            Ok((Some(map), size))
        }
        (None | Some((0, _)), None) => Ok((None, size)),
        (Some((major, minor)), _) => {
            Err(Error::bad_archive(format!("sparse files of format {major}.{minor} are not known")))
        }
    }
}

/// A user or group: 32 bits, and not −1, which means «leave as it is».
fn owner(id: u64, path: &[u8]) -> Result<u32> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
        let path = String::from_utf8_lossy(path);
        Error::bad_archive(format!("entry {path:?} belongs to {id}, which is no user or group"))
    })
}
