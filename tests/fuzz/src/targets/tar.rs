//! Layers and archives of images.

use std::cell::RefCell;

use corten_base::limits::LAYER_BYTES_MAX;
use corten_store::{LayerStart, Store, TarItem, TarKind, TarWriter, members};

pub(super) const WORDS: &[&[u8]] = &[
    b"ustar\x0000",
    b"ustar  \0",
    b"../",
    b".wh.",
    b".wh..wh..opq",
    b"11 path=a/b\n",
    b"22 GNU.sparse.major=1\n",
    b"30 mtime=1350244992.02396010\n",
    b"30 SCHILY.xattr.user.a=\0\xff/../..\n",
    b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"77777777777",
];

/// One input in so many is unpacked into a store as well.
const UNPACK_EVERY: u8 = 16;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let item = |path, kind, size| TarItem { kind, ..TarItem::file(path, size) };
    let mut plain = TarWriter::new(Vec::new());
    let directory = plain.item(&TarItem::directory(b"etc"));
    let file =
        plain.item(&TarItem::file(b"etc/file", 5)).and_then(|()| plain.data(&b"hello"[..], 5));
    let link = plain.item(&item(b"etc/link", TarKind::Symlink(b"../../file"), 0));
    let hard = plain.item(&item(b"etc/hard", TarKind::HardLink(b"etc/file"), 0));
    let long = plain.item(&TarItem::file(&[b'n'; 300], 0));
    directory.and(file).and(link).and(hard).and(long).expect("memory takes it");
    let plain = plain.finish().expect("memory takes it");
    let whiteouts = {
        let mut tar = TarWriter::new(Vec::new());
        let gone = tar.item(&TarItem::file(b"etc/.wh.gone", 0));
        gone.and_then(|()| tar.item(&TarItem::file(b"opt/.wh..wh..opq", 0))).expect("memory");
        tar.finish().expect("memory takes it")
    };
    let sparse = sparse();
    [plain, whiteouts, sparse]
        .into_iter()
        .flat_map(|tar| [[&[0][..], &tar].concat(), [&[1][..], &tar].concat()])
        .collect()
}

/// A sparse file as GNU tar writes it in pax archives.
fn sparse() -> Vec<u8> {
    let records = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n24 GNU.sparse.name=a.bin\n\
        31 GNU.sparse.realsize=1048576\n";
    let mut map = b"2\n0\n3\n4096\n5\n".to_vec();
    map.resize(512, 0);
    let data = [&map[..], b"abcdefgh"].concat();
    let block = |kind: u8, name: &str, data: &[u8]| {
        let mut head = [0u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[100..107].copy_from_slice(b"0000644");
        head[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        head[136..147].copy_from_slice(b"00000000000");
        head[148..156].fill(b' ');
        head[156] = kind;
        head[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = [&head[..], data].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let mut tar = block(b'x', "pax", records.as_bytes());
    tar.extend(block(b'0', "GNUSparseFile.0/a.bin", &data));
    tar.resize(tar.len() + 1024, 0);
    tar
}

thread_local! {
    /// A store in memory, where this machine has some.
    static STORE: RefCell<Option<(Store, tempfile::TempDir)>> = const { RefCell::new(None) };
}

/// The first byte says whether the rest is unpacked.
pub(super) fn read(bytes: &[u8]) {
    let Some((how, archive)) = bytes.split_first() else { return };
    let checked = checksummed(archive);
    if let Ok(found) = members(&checked[..], 1 << 16, LAYER_BYTES_MAX) {
        assert!(found.len() <= checked.len() / 512 + 1);
        let outside =
            |path: &[u8]| path.starts_with(b"/") || path.split(|b| *b == b'/').any(|p| p == b"..");
        assert!(!found.iter().any(|member| outside(&member.path)), "{found:?}");
    }
    if how % UNPACK_EVERY == 1 {
        STORE.with_borrow_mut(|store| unpack(&store.get_or_insert_with(open).0, &checked));
    }
}

fn open() -> (Store, tempfile::TempDir) {
    let parent = std::path::Path::new("/dev/shm");
    let parent = if parent.is_dir() { parent.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new().prefix("corten-fuzz-").tempdir_in(parent);
    let dir = dir.expect("a directory");
    (Store::open(dir.path()).expect("a store"), dir)
}

fn unpack(store: &Store, archive: &[u8]) {
    let LayerStart::Unpack(unpack) = store.begin_layer(None).expect("a new layer") else {
        panic!("a layer without a digest cannot be there");
    };
    match unpack.run(archive) {
        Ok(layer) => drop(layer),
        Err(error) => assert!(error.is_bad_content(), "{error}"),
    }
    let _ = store.collect(|_| false);
}

/// Heads with a wrong sum are refused at once: most get a right one.
fn checksummed(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    for head in archive.as_chunks_mut::<512>().0 {
        if head.iter().all(|byte| *byte == 0) || head[0] == b'!' || &head[257..262] != b"ustar" {
            continue;
        }
        head[148..156].fill(b' ');
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}
