//! What peers of the streaming server send. The first byte of an input says
//! in which steps the rest comes.

use corten_wire::spdy::client::Client;

pub(super) const SPDY_WORDS: &[&[u8]] = &[
    b"\x80\x03\0\x01",
    b"\x80\x03\0\x03\0\0\0\x08",
    b"\x80\x03\0\x04",
    b"\x80\x03\0\x06\0\0\0\x04",
    b"\x80\x03\0\x07",
    b"\x80\x03\0\x08",
    b"\x80\x03\0\x09\0\0\0\x08",
    b"\0\0\0\x01\x01\0\0\0",
];

pub(super) fn spdy_seeds() -> Vec<Vec<u8>> {
    let mut command = Client::default();
    for (id, name) in (1u32..).step_by(2).zip(["error", "stdin", "stdout", "stderr", "resize"]) {
        command.open(id, 0, &[("streamtype", name)]);
    }
    command.data(3, b"input", false).ping(1).data(9, b"{\"Width\":80,\"Height\":24}", false);
    command.data(3, b"", true).reset(5);
    let mut ports = Client::default();
    for (id, request) in [(1, "0"), (5, "1")] {
        for (id, kind) in [(id, "error"), (id + 2, "data")] {
            let headers = [("streamtype", kind), ("port", "80"), ("requestid", request)];
            ports.open(id, u8::from(kind == "error"), &headers);
        }
    }
    ports.data(3, b"GET / HTTP/1.0\r\n\r\n", true).reset(7);
    [&[255][..], &[3], &[16]]
        .iter()
        .flat_map(|step| [[*step, &command.out].concat(), [*step, &ports.out].concat()])
        .collect()
}

pub(super) fn websocket_seeds() -> Vec<Vec<u8>> {
    let masked = |head: &[u8], payload: &[u8]| {
        let key = [1u8, 2, 3, 4];
        let hidden = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        [head, &key, &hidden.collect::<Vec<u8>>()].concat()
    };
    let binary = masked(&[0x82, 0x86], b"\0input");
    let resize = masked(&[0x82, 0x98], b"\x04{\"Width\":8,\"Height\":99}");
    let half_close = masked(&[0x82, 0x82], &[255, 0]);
    let base64 = masked(&[0x81, 0x85], b"0aGk=");
    let ping = masked(&[0x89, 0x82], b"hi");
    let parts = [masked(&[0x02, 0x83], b"\0ab"), masked(&[0x80, 0x82], b"cd")].concat();
    let close = masked(&[0x88, 0x82], &[3, 232]);
    let long = masked(&[0x82, 0xfe, 1, 0], &[0; 256]);
    let all = [&binary[..], &resize, &half_close, &base64, &ping, &parts, &long, &close].concat();
    vec![[&[255][..], &all].concat(), [&[1][..], &all].concat(), [&[9][..], &base64].concat()]
}
