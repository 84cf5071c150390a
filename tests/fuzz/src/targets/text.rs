//! Short texts of images, clients and the kernel.

use corten_base::{Digest, Reference};
use corten_kernel::mount::parse_mount;
use corten_spec::request::RunAs;
use corten_spec::resolve_user;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 7] = [
        b"pweb:extra\0root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n\0root:x:0:\nextra:x:7:web,root\n",
        b"p1000\0web:x:1000:1000::/srv:/bin/sh\n\0x:*:4294967295:a,b\n",
        b"rregistry.example:5000/team/app:v1.2@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        b"rbusybox",
        b"dsha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        b"m36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue",
        b"m1 2 0:3 / /a\\040b ro - tmpfs tmpfs rw",
    ];
    texts.map(<[u8]>::to_vec).into()
}

/// The first byte says what the rest is.
pub(super) fn read(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind {
        b'p' => user(rest),
        b'm' => drop(parse_mount(rest)),
        b'd' => {
            if let Some(digest) = parse::<Digest>(rest) {
                assert_eq!(digest.to_string().parse(), Ok(digest));
            }
        }
        _ => {
            if let Some(reference) = parse::<Reference>(rest) {
                assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
                let _ = reference.familiar();
            }
        }
    }
}

fn parse<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A user as an image names him, and the image's passwd and group.
fn user(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (passwd, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if let Ok(user) = resolve_user(&RunAs::default(), &name, passwd, group) {
        assert!(user.home.starts_with('/') && !user.home.contains(['\0', '\n']), "{user:?}");
    }
}
