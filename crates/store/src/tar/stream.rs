//! The archive as a stream of bytes that is hashed as it passes.

use std::io::{ErrorKind, Read};

use corten_base::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Bytes of the one buffer between the reader and the disk.
const BUFFER_BYTES: usize = 256 << 10;
/// Tar counts in blocks of this size.
pub(super) const BLOCK: usize = 512;

/// A block of the archive.
pub(super) type Block = [u8; BLOCK];

pub(super) struct Stream<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// None where nobody wants the digest.
    hash: Option<Sha256>,
    /// Bytes that were read.
    taken: u64,
    /// Bytes that may still be read: trailing bytes have an end, too.
    budget: u64,
}

impl<R: Read> Stream<R> {
    pub(super) fn new(reader: R, budget: u64) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let hash = Some(Sha256::new());
        Self { reader, buffer, start: 0, end: 0, hash, taken: 0, budget }
    }

    /// One whose digest is not wanted.
    pub(super) fn unhashed(reader: R, budget: u64) -> Self {
        Self { hash: None, ..Self::new(reader, budget) }
    }

    /// Where the next byte is in the archive.
    pub(super) fn offset(&self) -> u64 {
        self.taken - (self.end - self.start) as u64
    }

    /// The next bytes, at least one; none at the end.
    fn fill(&mut self) -> Result<&[u8]> {
        while self.start == self.end {
            match self.reader.read(&mut self.buffer) {
                Ok(0) => return Ok(&[]),
                Ok(length) => {
                    if let Some(hash) = &mut self.hash {
                        hash.update(&self.buffer[..length]);
                    }
                    self.taken += length as u64;
                    self.budget = self.budget.checked_sub(length as u64).ok_or_else(|| {
                        Error::bad_archive("the archive goes on beyond every limit")
                    })?;
                    (self.start, self.end) = (0, length);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Source(error)),
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// The next block; None at the end.
    pub(super) fn block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(truncated()) };
            }
            let length = bytes.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&bytes[..length]);
            filled += length;
            self.start += length;
        }
        Ok(Some(block))
    }

    /// A block that must be there.
    pub(super) fn expect_block(&mut self) -> Result<Block> {
        self.block()?.ok_or_else(truncated)
    }

    /// Passes exactly `length` bytes on, in large pieces.
    pub(super) fn pass(
        &mut self,
        mut length: u64,
        mut to: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while length > 0 {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Err(truncated());
            }
            let here = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            to(&bytes[..here])?;
            self.start += here;
            length -= here as u64;
        }
        Ok(())
    }

    pub(super) fn skip(&mut self, length: u64) -> Result<()> {
        self.pass(length, |_| Ok(()))
    }

    /// Data of `length` bytes ends with padding to a whole block.
    pub(super) fn skip_padding(&mut self, length: u64) -> Result<()> {
        self.skip(length.wrapping_neg() % BLOCK as u64)
    }

    /// Data that is kept in memory.
    pub(super) fn collect(&mut self, length: u64, max: usize, what: &str) -> Result<Vec<u8>> {
        if length > max as u64 {
            return Err(Error::bad_archive(format!("{what} is larger than {max} bytes")));
        }
        let mut data = Vec::with_capacity(usize::try_from(length).unwrap_or(0).min(max));
        self.pass(length, |bytes| {
            data.extend_from_slice(bytes);
            Ok(())
        })?;
        self.skip_padding(length)?;
        Ok(data)
    }

    /// Reads what comes after the archive.
    pub(super) fn drain(&mut self) -> Result<()> {
        while !self.fill()?.is_empty() {
            self.start = self.end;
        }
        Ok(())
    }

    /// Reads what comes after the archive, and gives the digest of it all.
    pub(super) fn finish(mut self) -> Result<Digest> {
        self.drain()?;
        Ok(Digest::from_sha256(self.hash.unwrap_or_default().finalize().into()))
    }
}

fn truncated() -> Error {
    Error::bad_archive("the archive ends in the middle of an entry")
}
