//! What is shown wrong input.

mod documents;
mod log;
mod shim;
mod tar;
mod text;
mod wire;

use super::Target;

/// All of them.
pub(super) const ALL: &[Target] = &[
    Target {
        name: "spdy",
        seeds: wire::spdy_seeds,
        words: wire::SPDY_WORDS,
        length_max: 4 << 10,
        read: corten_wire::fuzz::spdy,
    },
    Target {
        name: "websocket",
        seeds: wire::websocket_seeds,
        words: &[b"\x82\x80\0\0\0\0", b"\x88\x80\0\0\0\0", b"\x82\xff", b"\x02\xfe"],
        length_max: 4 << 10,
        read: corten_wire::fuzz::websocket,
    },
    Target {
        name: "seccomp",
        seeds: documents::seccomp_seeds,
        words: documents::SECCOMP_WORDS,
        length_max: 16 << 10,
        read: documents::seccomp,
    },
    Target {
        name: "cdi",
        seeds: documents::cdi_seeds,
        words: documents::CDI_WORDS,
        length_max: 16 << 10,
        read: documents::cdi,
    },
    Target {
        name: "spec",
        seeds: documents::spec_seeds,
        words: documents::SPEC_WORDS,
        length_max: 16 << 10,
        read: documents::spec,
    },
    Target {
        name: "plan",
        seeds: shim::plan_seeds,
        words: &[b"CortenPl", b"/proc", b"\x01\0\0\0"],
        length_max: 16 << 10,
        read: shim::plan,
    },
    Target {
        name: "frames",
        seeds: shim::frame_seeds,
        words: &[],
        length_max: 4 << 10,
        read: shim::frames,
    },
    Target {
        name: "log",
        seeds: log::seeds,
        words: &[b"\n", b"\n\n", b"stdout F "],
        length_max: 48 << 10,
        read: log::read,
    },
    Target {
        name: "tar",
        seeds: tar::seeds,
        words: tar::WORDS,
        length_max: 32 << 10,
        read: tar::read,
    },
    Target {
        name: "text",
        seeds: text::seeds,
        words: &[b":", b"root", b"4294967295", b"@sha256:", b"\\040", b"/../", b":x:0:0:"],
        length_max: 4 << 10,
        read: text::read,
    },
];
