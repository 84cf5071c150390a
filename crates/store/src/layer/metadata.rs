//! What is written down beside an unpacked layer.
//!
//! ```text
//! corten-layer 1\n
//! <bytes> <entries> <number of implied directories>\n
//! <path>\0 …
//! ```
//!
//! Implied directories are parents that the tar left out. In the layer they
//! exist with default attributes; in an image the layers below know better.

use std::io::Read;
use std::path::Path;

use corten_base::limits::LAYER_METADATA_BYTES_MAX;

use super::Sizes;
use crate::error::{Error, IoContext, Result};

const MAGIC: &str = "corten-layer 1";
const FILE: &str = "layer";
/// Bytes that hold the first two lines.
const HEAD_BYTES: u64 = 128;

/// All that is known about a layer.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// Bytes of file content.
    pub(crate) bytes: u64,
    /// Entries made.
    pub(crate) entries: u64,
    /// Directories that the tar implied, relative; the empty path is the root.
    pub(crate) implied: Vec<Vec<u8>>,
}

impl Metadata {
    /// Writes it into the layer's directory.
    pub(crate) fn write(&self, layer: &Path) -> Result<()> {
        let path = layer.join(FILE);
        let mut text = format!("{MAGIC}\n{} {} {}\n", self.bytes, self.entries, self.implied.len())
            .into_bytes();
        for implied in &self.implied {
            text.extend_from_slice(implied);
            text.push(0);
        }
        std::fs::write(&path, text).doing("write", || path.display().to_string())
    }

    /// Reads it from the layer's directory.
    pub(crate) fn read(layer: &Path) -> Result<Self> {
        let text = read_file(layer, LAYER_METADATA_BYTES_MAX)?;
        parse(&text).ok_or_else(|| damaged(layer))
    }
}

/// Reads only what the first lines say.
pub(super) fn read_sizes(layer: &Path) -> Result<Sizes> {
    let text = read_file(layer, HEAD_BYTES)?;
    let (bytes, entries, _, _) = parse_head(&text).ok_or_else(|| damaged(layer))?;
    Ok(Sizes { bytes, entries })
}

fn read_file(layer: &Path, max: u64) -> Result<Vec<u8>> {
    let path = layer.join(FILE);
    let mut text = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(max).read_to_end(&mut text))
        .doing("read", || path.display().to_string())?;
    Ok(text)
}

fn damaged(layer: &Path) -> Error {
    let id = layer.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Error::Damaged { what: "layer", id, reason: "what was written about it is unreadable".into() }
}

/// Bytes, entries, implied paths, and what comes after the head.
fn parse_head(text: &[u8]) -> Option<(u64, u64, usize, &[u8])> {
    let rest = text.strip_prefix(MAGIC.as_bytes())?.strip_prefix(b"\n")?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&rest[..end]).ok()?;
    let mut numbers = line.split(' ');
    let bytes = numbers.next()?.parse().ok()?;
    let entries = numbers.next()?.parse().ok()?;
    let implied = numbers.next()?.parse().ok()?;
    Some((bytes, entries, implied, &rest[end + 1..]))
}

fn parse(text: &[u8]) -> Option<Metadata> {
    let (bytes, entries, count, paths) = parse_head(text)?;
    let mut implied: Vec<Vec<u8>> = paths.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    // Every path ends in NUL, so the last piece is empty.
    implied.pop().filter(Vec::is_empty)?;
    (implied.len() == count).then_some(Metadata { bytes, entries, implied })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let implied = vec![b"".to_vec(), b"usr".to_vec(), b"usr/\xff".to_vec()];
        Metadata { bytes: 5, entries: 7, implied: implied.clone() }.write(dir.path()).unwrap();
        let read = Metadata::read(dir.path()).unwrap();
        assert_eq!((read.bytes, read.entries, read.implied), (5, 7, implied));
        let sizes = read_sizes(dir.path()).unwrap();
        assert_eq!((sizes.bytes, sizes.entries), (5, 7));
    }

    #[test]
    fn damage_is_noticed() {
        for text in
            ["", "corten-layer 2\n1 2 0\n", "corten-layer 1\n1 2 2\na\0", "corten-layer 1\n1"]
        {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
