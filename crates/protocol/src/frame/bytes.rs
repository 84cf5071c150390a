//! Writing and reading the plain parts of frames: little-endian numbers, ids,
//! sets of flags.

use corten_base::{ContainerId, ExecId};

use super::DecodeError;

/// Collects a frame's bytes.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(128) }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// Up to eight flags, the first in the lowest bit.
    pub(crate) fn flags(&mut self, flags: &[bool]) {
        debug_assert!(flags.len() <= 8);
        self.u8(flags.iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(*flag)));
    }

    /// A text of less than 64 KiB.
    pub(crate) fn text(&mut self, text: &str) {
        debug_assert!(u16::try_from(text.len()).is_ok());
        self.u16(text.len() as u16);
        self.raw(text.as_bytes());
    }

    /// Less than 64 KiB.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        debug_assert!(u16::try_from(bytes.len()).is_ok());
        self.u16(bytes.len() as u16);
        self.raw(bytes);
    }

    /// An id as the 32 bytes that its text stands for.
    pub(crate) fn container(&mut self, id: &ContainerId) {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => byte - b'0',
            _ => byte - b'a' + 10,
        };
        for pair in id.as_str().as_bytes().chunks_exact(2) {
            self.u8(digit(pair[0]) << 4 | digit(pair[1]));
        }
    }
}

/// Takes a frame apart. What is missing is an error, never a panic.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Everything must have been read.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TooLong) }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Exactly `N` flags; a bit beyond them is an error.
    pub(crate) fn flags<const N: usize>(&mut self) -> Result<[bool; N], DecodeError> {
        let byte = self.u8()?;
        if N < 8 && byte >> N != 0 {
            return Err(DecodeError::Value("a set of flags"));
        }
        Ok(std::array::from_fn(|bit| byte >> bit & 1 == 1))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.flags::<1>()?[0])
    }

    pub(crate) fn container(&mut self) -> Result<ContainerId, DecodeError> {
        Ok(ContainerId::from_random(self.array()?))
    }

    pub(crate) fn text(&mut self, bytes_max: usize) -> Result<String, DecodeError> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        match std::str::from_utf8(text) {
            Ok(text) if length <= bytes_max => Ok(text.to_owned()),
            Ok(_) | Err(_) => Err(DecodeError::Value("a text")),
        }
    }

    pub(crate) fn bytes(&mut self, bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
        let length = usize::from(self.u16()?);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        if length <= bytes_max { Ok(bytes.to_vec()) } else { Err(DecodeError::Value("bytes")) }
    }

    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn exec(&mut self) -> Result<ExecId, DecodeError> {
        self.u64().map(ExecId)
    }
}
