//! What a fuzzer calls with any bytes: everything here reads them as a
//! client's, in steps that the first byte chooses.

use crate::remote::{Remote, SPDY_PROTOCOLS, WEBSOCKET_PROTOCOLS, Wanted};
use crate::{Error, forward, remote};

const WANTED: Wanted = Wanted { stdin: true, stdout: true, stderr: true, terminal: true };

/// SPDY: a remote command, and ports.
pub fn spdy(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mut command = Remote::spdy(SPDY_PROTOCOLS[usize::from(*first) % 4], WANTED);
    feed(data, *first, |input, out| {
        let (used, event) = command.receive(input, out)?;
        Ok((used, event.is_some()))
    });
    let mut ports = forward::Forward::default();
    feed(data, *first, |input, out| {
        let (used, event) = ports.receive(input, out)?;
        let over = match event {
            Some(forward::Input::Data { data, end: true, .. }) => Some(data),
            Some(forward::Input::Reset { data }) => Some(data),
            _ => None,
        };
        let some = event.is_some();
        if let Some(data) = over {
            ports.ended(data);
        }
        Ok((used, some))
    });
}

/// WebSocket: a remote command in every coding.
pub fn websocket(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    for protocol in WEBSOCKET_PROTOCOLS {
        let mut out = Vec::new();
        let mut command = Remote::websocket(protocol, WANTED, &mut out);
        feed(data, *first, |input, out| {
            let (used, event) = command.receive(input, out)?;
            if let Some(remote::Input::Data { bytes, .. }) = &event {
                assert!(bytes.len() <= data.len());
            }
            Ok((used, event.is_some()))
        });
    }
}

/// Gives all of `data` to a reader that uses a buffer as connections do.
fn feed(
    data: &[u8],
    step: u8,
    mut receive: impl FnMut(&mut [u8], &mut Vec<u8>) -> Result<(usize, bool), Error>,
) {
    let (mut data, mut out) = (data.to_vec(), Vec::new());
    let (mut start, mut end) = (0, 0);
    loop {
        let Ok((used, event)) = receive(&mut data[start..end], &mut out) else { return };
        assert!(used <= end - start, "more was used than there is");
        start += used;
        if used == 0 && !event {
            if end == data.len() {
                return;
            }
            end = (end + usize::from(step) + 1).min(data.len());
        }
        out.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::client::Client;

    /// A generator of numbers (xorshift): the same ones in every run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, limit: usize) -> usize {
            (self.next() % limit as u64) as usize
        }

        /// Damages a few bytes, or cuts, or repeats.
        fn mutate(&mut self, bytes: &mut Vec<u8>) {
            for _ in 0..=self.below(4) {
                if bytes.is_empty() {
                    return;
                }
                let at = self.below(bytes.len());
                match self.below(5) {
                    0 => bytes[at] = self.next() as u8,
                    1 => bytes[at] ^= 1 << self.below(8),
                    2 => bytes.truncate(at),
                    3 => drop(bytes.remove(at)),
                    _ => bytes.extend_from_within(at..),
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        let mut random = Random(0x5eed_0f5e_ed0f);
        let mut client = Client::default();
        let names = ["error", "stdin", "stdout", "data", "resize"];
        for (id, name) in (1u32..).step_by(2).zip(names) {
            client.open(id, 0, &[("streamType", name), ("port", "80"), ("requestID", "1")]);
        }
        client.ping(1).data(3, b"input", false).data(7, b"x", true).reset(9);
        for _ in 0..4000 {
            let mut bytes = [&[random.next() as u8][..], &client.out].concat();
            random.mutate(&mut bytes);
            spdy(&bytes);
        }
        let messages = [
            &[0x82, 0x83, 1, 2, 3, 4, 1, b'a', b'b'][..],
            &[0x81, 0x85, 0, 0, 0, 0, b'0', b'e', b'3', b'0', b'='],
            &[0x89, 0x80, 9, 9, 9, 9, 0x82, 0x82, 0, 0, 0, 0, 255, 0],
            &[0x02, 0xfe, 0, 3, 0, 0, 0, 0, 4, b'{', b'}', 0x80, 0x80, 0, 0, 0, 0],
        ]
        .concat();
        for _ in 0..4000 {
            let mut bytes = [&[random.next() as u8][..], &messages].concat();
            random.mutate(&mut bytes);
            websocket(&bytes);
        }
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.next() as u8).collect();
            spdy(&bytes);
            websocket(&bytes);
        }
    }
}
