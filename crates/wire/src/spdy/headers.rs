//! Header blocks: names and values, deflated with one dictionary and one
//! history for all frames of a direction.

use corten_base::limits::{SPDY_HEADER_BYTES_MAX, SPDY_HEADERS_MAX};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::Error;

/// The protocol's dictionary begins with these, each after its length in 32
/// bits.
const DICTIONARY_WORDS: &str = "options head post put delete trace accept accept-charset \
    accept-encoding accept-language accept-ranges age allow authorization cache-control \
    connection content-base content-encoding content-language content-length content-location \
    content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location \
    max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server \
    te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get \
    status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";

/// … and ends with this, as it is.
const DICTIONARY_TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412\
    413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently\
    400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not \
    Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
    Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,\
    deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// Bytes that an output buffer has at first.
const OUTPUT_BYTES: usize = 512;

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::with_capacity(1500);
    for word in DICTIONARY_WORDS.split(' ') {
        let word = word.replace('_', " ");
        dictionary.extend_from_slice(&(word.len() as u32).to_be_bytes());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(DICTIONARY_TEXT.as_bytes());
    dictionary
}

/// Names, in lower case, and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of this name (in lower case).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Headers of these names and values.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| (name.to_lowercase(), (*value).into())).collect())
    }

    fn parse(mut block: &[u8]) -> Result<Self, Error> {
        let count = number(&mut block)?;
        if count > SPDY_HEADERS_MAX {
            return Err(Error::Headers("too many"));
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push((text(&mut block)?.to_lowercase(), text(&mut block)?));
        }
        if !block.is_empty() {
            return Err(Error::Headers("bytes follow the last one"));
        }
        Ok(Self(pairs))
    }

    fn write(&self) -> Vec<u8> {
        let mut block = (self.0.len() as u32).to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        block
    }
}

const CUT: Error = Error::Headers("they end early");

fn number(block: &mut &[u8]) -> Result<usize, Error> {
    let (number, rest) = block.split_first_chunk().ok_or(CUT)?;
    *block = rest;
    Ok(u32::from_be_bytes(*number) as usize)
}

fn text(block: &mut &[u8]) -> Result<String, Error> {
    let length = number(block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(CUT)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Error::Headers("one is not UTF-8"))
}

/// Inflates the header blocks of one direction.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of the next frame. Every block must pass through here, in
    /// order, since each refers to those before it.
    pub(super) fn headers(&mut self, mut input: &[u8]) -> Result<Headers, Error> {
        let mut output = Vec::with_capacity(OUTPUT_BYTES);
        loop {
            if output.len() == output.capacity() {
                if output.len() > SPDY_HEADER_BYTES_MAX {
                    return Err(Error::Headers("too long"));
                }
                output.reserve(output.len());
            }
            let (taken, made) = (self.0.total_in(), output.len());
            let status = self.0.decompress_vec(input, &mut output, FlushDecompress::Sync);
            input = &input[(self.0.total_in() - taken) as usize..];
            match status {
                Ok(Status::Ok | Status::BufError) => {}
                Ok(Status::StreamEnd) => return Err(Error::Headers("the stream has an end")),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary())
                        .map_err(|_| Error::Headers("another dictionary"))?;
                    continue;
                }
                Err(_) => return Err(Error::Headers("they are damaged")),
            }
            let full = output.len() == output.capacity();
            let idle = output.len() == made && self.0.total_in() == taken;
            if !full && (input.is_empty() || idle) {
                break;
            }
        }
        if !input.is_empty() {
            return Err(Error::Headers("they are damaged"));
        }
        Headers::parse(&output)
    }
}

/// Deflates the header blocks of one direction.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // Fails only after the first byte was compressed.
        let set = compress.set_dictionary(&dictionary());
        debug_assert!(set.is_ok());
        Self(compress)
    }

    /// Appends the block of the next frame.
    pub(super) fn block(&mut self, headers: &Headers, out: &mut Vec<u8>) {
        let block = headers.write();
        let mut input = block.as_slice();
        loop {
            out.reserve(OUTPUT_BYTES);
            let taken = self.0.total_in();
            // Compressing cannot fail: there is no wrong input.
            let done = self.0.compress_vec(input, out, FlushCompress::Sync).is_err();
            input = &input[(self.0.total_in() - taken) as usize..];
            if done || (input.is_empty() && out.len() < out.capacity()) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adler-32, by its definition.
    fn adler(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(adler(&dictionary()), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_share_their_history() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let headers = Headers::of(&[("StreamType", "stdin"), ("port", "80")]);
        let mut lengths = Vec::new();
        for _ in 0..50 {
            let mut block = Vec::new();
            deflater.block(&headers, &mut block);
            lengths.push(block.len());
            let read = inflater.headers(&block).unwrap();
            assert_eq!(read, headers);
            assert_eq!(read.get("streamtype"), Some("stdin"));
        }
        assert!(lengths[1] < lengths[0]);
        let long = Headers::of(&[("a", &"x".repeat(5000))]);
        let mut block = Vec::new();
        deflater.block(&long, &mut block);
        assert_eq!(inflater.headers(&block).unwrap(), long);
    }

    #[test]
    fn a_bomb_is_refused() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let bomb = Headers::of(&[("a", &"x".repeat(8 << 20))]);
        let mut block = Vec::new();
        deflater.block(&bomb, &mut block);
        assert_eq!(inflater.headers(&block), Err(Error::Headers("too long")));
    }

    #[test]
    fn damage_is_an_error() {
        assert!(Inflater::new().headers(b"no zlib stream").is_err());
        assert!(Inflater::new().headers(b"").is_err());
        assert!(Headers::parse(&[0, 0, 0, 1, 0, 0, 0, 9, b'x']).is_err());
        assert!(Headers::parse(&[0xff; 64]).is_err());
    }
}
