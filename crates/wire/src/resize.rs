//! Sizes of a terminal, as clients tell them: a stream of JSON objects.

use corten_base::limits::STREAM_RESIZE_BYTES_MAX;
use serde::Deserialize;

/// A terminal's size in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Size {
    /// Columns.
    #[serde(rename = "Width")]
    pub columns: u16,
    /// Rows.
    #[serde(rename = "Height")]
    pub rows: u16,
}

/// Reads sizes from a stream that is split anywhere.
#[derive(Default)]
pub struct Sizes {
    unread: Vec<u8>,
    broken: bool,
}

impl Sizes {
    /// Takes more of the stream: the last size that it tells, if it does. What
    /// is no size ends the reading: a resize is not worth a session.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Size> {
        if self.broken {
            return None;
        }
        self.unread.extend_from_slice(bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&self.unread).into_iter::<Size>();
        let mut last = None;
        let mut used = 0;
        while let Some(next) = sizes.next() {
            match next {
                Ok(size) => last = Some(size),
                Err(error) => {
                    self.broken = !error.is_eof();
                    break;
                }
            }
            used = sizes.byte_offset();
        }
        self.unread.drain(..used);
        if self.unread.len() > STREAM_RESIZE_BYTES_MAX {
            self.broken = true;
        }
        if self.broken {
            self.unread = Vec::new();
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":43}\n";

    #[test]
    fn the_last_size_counts() {
        let wide = Some(Size { columns: 132, rows: 43 });
        assert_eq!(Sizes::default().read(STREAM), wide);
        for step in 1..STREAM.len() {
            let mut sizes = Sizes::default();
            let seen: Vec<_> = STREAM.chunks(step).filter_map(|part| sizes.read(part)).collect();
            assert_eq!(seen.last().copied(), wide, "{step}");
        }
    }

    #[test]
    fn nonsense_is_forgotten() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.read(b"{\"Width\":70000,\"Height\":1}"), None);
        assert_eq!(sizes.read(STREAM), None);
        let mut sizes = Sizes::default();
        for _ in 0..STREAM_RESIZE_BYTES_MAX {
            assert_eq!(sizes.read(b"    "), None);
        }
        assert!(sizes.unread.is_empty());
    }
}
