//! Maps of sparse files: where the data in the archive belongs in the file.

use std::io::Read;

use corten_base::limits::SPARSE_PIECES_MAX;

use super::header::unsigned;
use super::pax::decimal;
use super::stream::{BLOCK, Block, Stream};
use crate::error::{Error, Result};

/// Digits of a number in the map of format 1.0.
const DIGITS_MAX: usize = 20;

/// A piece of data, and where it lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A sparse file.
#[derive(Debug)]
pub(super) struct Map {
    /// In order, not overlapping.
    pub(super) pieces: Vec<Piece>,
    /// Size of the file with its holes.
    pub(super) size: u64,
}

impl Map {
    /// Checks that the pieces are in order, lie in the file, and are together
    /// exactly the data that follows.
    pub(super) fn new(pieces: Vec<Piece>, size: u64, data: u64) -> Result<Self> {
        let mut end = 0u64;
        let mut total = 0u64;
        for piece in &pieces {
            if piece.offset < end {
                return Err(bad());
            }
            end = piece.offset.checked_add(piece.length).ok_or_else(bad)?;
            total += piece.length;
        }
        if end > size || total != data {
            return Err(bad());
        }
        Ok(Self { pieces, size })
    }
}

/// The map in a GNU header of kind `S`, and in the blocks that follow it.
pub(super) fn read_gnu<R: Read>(
    header: &Block,
    stream: &mut Stream<R>,
) -> Result<(Vec<Piece>, u64)> {
    let size = unsigned(&header[483..495], "size")?;
    let mut pieces = Vec::new();
    add(&mut pieces, &header[386..482])?;
    let mut more = header[482] != 0;
    while more {
        let block = stream.expect_block()?;
        add(&mut pieces, &block[..504])?;
        more = block[504] != 0;
    }
    Ok((pieces, size))
}

fn add(pieces: &mut Vec<Piece>, fields: &[u8]) -> Result<()> {
    for field in fields.chunks_exact(24) {
        let (offset, length) = field.split_at(12);
        // An empty field ends the map of this block.
        if offset[0] == 0 && length[0] == 0 {
            break;
        }
        let offset = unsigned(offset, "sparse map")?;
        let length = unsigned(length, "sparse map")?;
        push(pieces, Piece { offset, length })?;
    }
    Ok(())
}

fn push(pieces: &mut Vec<Piece>, piece: Piece) -> Result<()> {
    if pieces.len() >= SPARSE_PIECES_MAX {
        return Err(Error::bad_archive(format!(
            "a sparse file has more than {SPARSE_PIECES_MAX} pieces"
        )));
    }
    pieces.push(piece);
    Ok(())
}

/// The map of PAX format 1.0, at the beginning of the data: decimal numbers,
/// each with a newline, padded to whole blocks. Also the bytes it took.
pub(super) fn read_pax<R: Read>(stream: &mut Stream<R>, size: u64) -> Result<(Vec<Piece>, u64)> {
    let mut lines = Lines { block: [0; BLOCK], at: BLOCK, taken: 0, max: size };
    let count = lines.number(stream)?;
    if count > SPARSE_PIECES_MAX as u64 {
        return Err(bad());
    }
    let mut pieces = Vec::new();
    for _ in 0..count {
        let offset = lines.number(stream)?;
        let length = lines.number(stream)?;
        pieces.push(Piece { offset, length });
    }
    Ok((pieces, lines.taken))
}

struct Lines {
    block: Block,
    at: usize,
    taken: u64,
    max: u64,
}

impl Lines {
    fn number<R: Read>(&mut self, stream: &mut Stream<R>) -> Result<u64> {
        let mut digits = Vec::with_capacity(DIGITS_MAX);
        loop {
            if self.at == BLOCK {
                self.taken += BLOCK as u64;
                if self.taken > self.max.next_multiple_of(BLOCK as u64) {
                    return Err(bad());
                }
                self.block = stream.expect_block()?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return decimal(&digits),
                _ if digits.len() < DIGITS_MAX => digits.push(byte),
                _ => return Err(bad()),
            }
        }
    }
}

fn bad() -> Error {
    Error::bad_archive("the map of a sparse file is malformed")
}
