//! Hard cases, made here.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::*;

/// Writes archives, right ones and wrong ones.
#[derive(Default, Clone)]
pub(crate) struct Archive(Vec<u8>);

pub(crate) struct Item<'a> {
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) device: (u32, u32),
    pub(crate) size: u64,
}

impl Default for Item<'_> {
    fn default() -> Self {
        let (owner, device) = ((0, 0), (0, 0));
        Self { kind: b'0', name: b"", link: b"", mode: 0o644, owner, device, size: 0 }
    }
}

impl Archive {
    pub(crate) fn item(mut self, item: &Item<'_>, data: &[u8]) -> Self {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &item.name[..item.name.len().min(100)]);
        put(100, format!("{:07o}", item.mode).as_bytes());
        put(108, format!("{:07o}", item.owner.0).as_bytes());
        put(116, format!("{:07o}", item.owner.1).as_bytes());
        put(124, format!("{:011o}", item.size).as_bytes());
        put(136, format!("{:011o}", 1_600_000_000).as_bytes());
        put(148, b"        ");
        put(156, &[item.kind]);
        put(157, &item.link[..item.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", item.device.0).as_bytes());
        put(337, format!("{:07o}", item.device.1).as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        let size = data.len() as u64;
        self.item(&Item { name: name.as_bytes(), size, ..Item::default() }, data)
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.item(&Item { kind: b'5', name: name.as_bytes(), mode, ..Item::default() }, b"")
    }

    pub(crate) fn link(self, kind: u8, name: &str, link: &str) -> Self {
        let (name, link) = (name.as_bytes(), link.as_bytes());
        self.item(&Item { kind, name, link, mode: 0o777, ..Item::default() }, b"")
    }

    pub(crate) fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        let size = data.len() as u64;
        self.item(&Item { kind, name: b"PaxHeaders/x", size, ..Item::default() }, &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub(crate) struct Unpacked {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) result: Result<Summary>,
}

impl Unpacked {
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn error(&self) -> String {
        self.result.as_ref().unwrap_err().to_string()
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.tree().join(path)).unwrap()
    }
}

fn unpack_with(bytes: &[u8], limits: Limits) -> Unpacked {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let result = extract(bytes, &tree, &limits);
    Unpacked { dir, result }
}

pub(crate) fn unpack(bytes: &[u8]) -> Unpacked {
    unpack_with(bytes, Limits::default())
}

#[test]
fn the_digest_covers_all_bytes() {
    let mut bytes = Archive::default().file("a", b"hello").end();
    bytes.extend_from_slice(&[7; 5000]);
    let unpacked = unpack(&bytes);
    let summary = unpacked.result.as_ref().unwrap();
    assert_eq!(summary.digest, Digest::from_sha256(Sha256::digest(&bytes).into()));
    assert_eq!((summary.bytes, summary.entries), (5, 1));
    assert_eq!(unpacked.text("a"), "hello");
}

#[test]
fn names_are_made_relative_and_dots_vanish() {
    let unpacked = unpack(&Archive::default().file("/./a//b/./c", b"x").dir("./", 0o711).end());
    assert_eq!(unpacked.text("a/b/c"), "x");
    assert_eq!(unpacked.tree().metadata().unwrap().mode() & 0o7777, 0o711);
    let implied = &unpacked.result.as_ref().unwrap().implied;
    assert_eq!(implied, &[b"a".to_vec(), b"a/b".to_vec()]);
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x", "/..", "a/..", ".wh...", "a/.wh..", ".wh."] {
        let unpacked = unpack(&Archive::default().file(name, b"x").end());
        assert!(unpacked.error().contains("entry \""), "{name}: {}", unpacked.error());
        assert!(!unpacked.dir.path().join("x").exists());
    }
    let unpacked = unpack(&Archive::default().pax(b'x', &[("path", b"a\0b")]).file("a", b"").end());
    assert!(unpacked.error().contains("NUL"), "{}", unpacked.error());
    let unpacked = unpack(&Archive::default().file("./", b"").end());
    assert!(unpacked.error().contains("root"), "{}", unpacked.error());
}

#[test]
fn links_on_the_way_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let up = format!("{}{}", "../".repeat(20), &target[1..]);
    for link in [target, up.as_str()] {
        let archive = Archive::default().link(b'2', "l", link).file("l/x", b"x").end();
        let unpacked = unpack(&archive);
        assert!(unpacked.error().contains("\"l\""), "{}", unpacked.error());
        // With the directory in the layer, it is the layer's that is meant.
        let inside = Archive::default().dir(target, 0o755).link(b'2', "l", link).file("l/x", b"in");
        let unpacked = unpack(&inside.end());
        assert_eq!(unpacked.text(&format!("{}/x", &target[1..])), "in");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let circle = Archive::default().link(b'2', "a", "b").link(b'2', "b", "a").file("a/x", b"");
    assert!(unpack(&circle.end()).error().contains("circle"));
    // A file replaces a link; it is not written through it.
    let through = Archive::default().link(b'2', "a", target).file("a", b"mine").end();
    assert_eq!(unpack(&through).text("a"), "mine");
}

#[test]
fn hard_links_end_in_the_layer() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "s").unwrap();
    let target = secret.to_str().unwrap();
    let up = format!("{}{}", "../".repeat(20), &target[1..]);
    for link in [target, up.as_str(), "not there", "", "d"] {
        let unpacked = unpack(&Archive::default().dir("d", 0o755).link(b'1', "h", link).end());
        assert!(unpacked.error().contains("\"h\"") || link == up, "{}", unpacked.error());
        assert!(!unpacked.tree().join("h").exists());
    }
    let archive = Archive::default().file("a", b"x").link(b'1', "b", "/a").link(b'1', "b", "a");
    let unpacked = unpack(&archive.link(b'1', "a", "a").end());
    assert_eq!(unpacked.tree().join("a").metadata().unwrap().nlink(), 2);
    assert_eq!(secret.metadata().unwrap().nlink(), 1);
}

#[test]
fn the_last_of_one_name_stays() {
    let archive = Archive::default()
        .file("a", b"first, and longer")
        .link(b'1', "keeps", "a")
        .file("a", b"second")
        .dir("d", 0o700)
        .file("d/e/f", b"")
        .link(b'2', "d", "a")
        .dir("s", 0o700)
        .dir("s", 0o750)
        .file("t", b"")
        .dir("t", 0o755)
        .end();
    let unpacked = unpack(&archive);
    let summary = unpacked.result.as_ref().unwrap();
    assert_eq!(unpacked.text("a"), "second");
    assert_eq!(unpacked.text("keeps"), "first, and longer");
    assert_eq!(std::fs::read_link(unpacked.tree().join("d")).unwrap(), Path::new("a"));
    assert_eq!(unpacked.tree().join("s").metadata().unwrap().mode() & 0o7777, 0o750);
    assert!(unpacked.tree().join("t").is_dir());
    assert_eq!(summary.implied, [b"".to_vec()]);
    assert_eq!(std::fs::read_dir(unpacked.dir.path()).unwrap().count(), 1);
}

#[test]
fn whiteouts_and_opaque_directories() {
    let archive = Archive::default()
        .file("a/.wh.gone", b"")
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"")
        .file("c/.wh.back", b"")
        .dir("c/back", 0o755)
        .file("c/.wh.deep", b"")
        .file("c/deep/file", b"")
        .dir("c/first", 0o755)
        .file("c/.wh.first", b"")
        .file("c/plain", b"")
        .file("c/.wh.plain", b"")
        .file(".wh..wh.plnk/x", b"")
        .file(".wh..wh.aufs", b"")
        .end();
    let unpacked = unpack(&archive);
    unpacked.result.as_ref().unwrap();
    let tree = unpacked.tree();
    let gone = tree.join("a/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["b", "c/back", "c/deep", "c/first"] {
        let mut value = [0; 4];
        let got = rustix::fs::getxattr(tree.join(opaque), "trusted.overlay.opaque", &mut value);
        assert_eq!(&value[..got.unwrap()], b"y", "{opaque}");
    }
    assert!(tree.join("c/plain").is_file());
    assert!(!tree.join(".wh..wh.aufs").exists());
}

#[test]
fn owners_modes_times_devices_and_attributes() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let owner = (1000, 2000);
    let archive = Archive::default()
        .item(&Item { kind: b'5', name: b"sg", mode: 0o2775, owner, ..Item::default() }, b"")
        .file("sg/plain", b"")
        .pax(
            b'x',
            &[
                ("mtime", b"1234.567890123"),
                ("SCHILY.xattr.security.capability", capability),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.user.note", b"a=b\nc"),
            ],
        )
        .item(&Item { name: b"suid", mode: 0o4755, owner, ..Item::default() }, b"")
        .item(
            &Item { kind: b'3', name: b"null", mode: 0o666, device: (1, 3), ..Item::default() },
            b"",
        )
        .item(&Item { kind: b'4', name: b"disk", device: (259, 70000), ..Item::default() }, b"")
        .item(&Item { kind: b'6', name: b"pipe", mode: 0o622, ..Item::default() }, b"")
        .pax(b'x', &[("uid", b"3000000000"), ("gid", b"5")])
        .link(b'2', "sym", "nowhere")
        .end();
    let unpacked = unpack(&archive);
    unpacked.result.as_ref().unwrap();
    let look = |name: &str| unpacked.tree().join(name).symlink_metadata().unwrap();
    let sg = look("sg");
    assert_eq!((sg.mode() & 0o7777, sg.uid(), sg.gid()), (0o2775, 1000, 2000));
    assert_eq!(sg.mtime(), 1_600_000_000);
    assert_eq!(look("sg/plain").gid(), 0);
    let suid = look("suid");
    assert_eq!((suid.mode() & 0o7777, suid.uid()), (0o4755, 1000));
    assert_eq!((suid.mtime(), suid.mtime_nsec()), (1234, 567_890_123));
    let mut value = [0; 64];
    let path = unpacked.tree().join("suid");
    let length = rustix::fs::getxattr(&path, "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    let length = rustix::fs::getxattr(&path, "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"a=b\nc");
    assert!(rustix::fs::getxattr(&path, "trusted.overlay.redirect", &mut value).is_err());
    assert_eq!(look("null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(look("null").mode() & 0o7777, 0o666);
    assert_eq!(look("disk").rdev(), rustix::fs::makedev(259, 70000));
    assert!(look("pipe").file_type().is_fifo());
    assert_eq!((look("sym").uid(), look("sym").gid()), (3_000_000_000, 5));
    assert_eq!(look("sym").mtime(), 1_600_000_000);
}

#[test]
fn an_owner_of_minus_one_is_refused() {
    let archive = Archive::default().pax(b'x', &[("uid", b"4294967295")]).file("a", b"").end();
    assert!(unpack(&archive).error().contains("4294967295"));
}

#[test]
fn sizes_that_lie_and_truncation() {
    let whole = Archive::default().file("a", &[1; 3000]).end();
    for cut in [100, 512, 513, 3000, 3584] {
        let unpacked = unpack(&whole[..cut]);
        match cut {
            // Between entries it is an end, if not a nice one.
            3584 => assert!(unpacked.result.is_ok()),
            _ => assert!(unpacked.error().contains("in the middle"), "{cut}"),
        }
    }
    let lies =
        Archive::default().item(&Item { name: b"a", size: 1 << 32, ..Item::default() }, b"x");
    assert!(unpack(&lies.end()).error().contains("in the middle"));
    let huge = Archive::default().pax(b'x', &[("size", b"18446744073709551615")]).file("a", b"");
    assert!(unpack(&huge.end()).error().contains("more than"));
    let mut broken = whole.clone();
    broken[0] = b'z';
    assert!(unpack(&broken).error().contains("checksum"));
    assert!(unpack(&[0x1f; 2000]).error().contains("not a number"));
    let header = Archive::default()
        .item(&Item { kind: b'x', name: b"x", size: 1 << 30, ..Item::default() }, b"");
    assert!(unpack(&header.end()).error().contains("larger than"));
}

#[test]
fn counts_are_bounded() {
    let limits = Limits { bytes: 1000, entries: 5 };
    let many = (0..6).fold(Archive::default(), |archive, n| archive.file(&format!("f{n}"), b""));
    assert!(unpack_with(&many.end(), limits).error().contains("more than 5 entries"));
    let deep = Archive::default().file("a/b/c/d/e/f", b"").end();
    assert!(unpack_with(&deep, limits).error().contains("more than 5 entries"));
    let big = Archive::default().file("a", &[0; 600]).file("b", &[0; 600]).end();
    assert!(unpack_with(&big, limits).error().contains("more than 1000 bytes"));
    let mut endless = Archive::default().file("a", b"").end();
    endless.resize(2 << 20, 0);
    assert!(unpack_with(&endless, limits).error().contains("beyond every limit"));
}

#[test]
fn global_headers_long_names_and_bytes_that_are_no_text() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let name = format!("{long}\0");
    let archive = Archive::default()
        .pax(b'g', &[("comment", b"a commit"), ("uid", b"77")])
        .item(
            &Item { kind: b'L', name: b"@", size: name.len() as u64, ..Item::default() },
            name.as_bytes(),
        )
        .file("short", b"long")
        .pax(b'x', &[("path", b"by\xff\xfetes"), ("uid", b"")])
        .file("x", b"raw")
        .end();
    let unpacked = unpack(&archive);
    unpacked.result.as_ref().unwrap();
    assert_eq!(unpacked.text(&long), "long");
    assert_eq!(unpacked.tree().join(&long).metadata().unwrap().uid(), 77);
    let raw = unpacked.tree().join(std::ffi::OsStr::from_bytes(b"by\xff\xfetes"));
    assert_eq!(raw.metadata().unwrap().uid(), 0);
    let too_long = format!("{}/x", "d/".repeat(2100));
    let archive = Archive::default().pax(b'x', &[("path", too_long.as_bytes())]).file("x", b"");
    assert!(unpack(&archive.end()).error().contains("longer than"));
    let too_long = "n".repeat(256);
    let archive = Archive::default().pax(b'x', &[("path", too_long.as_bytes())]).file("x", b"");
    assert!(unpack(&archive.end()).error().contains("longer than 255"));
}

#[test]
fn hostile_sparse_maps_are_refused() {
    for map in ["0,5,3,5", "5,1,0,1", "0,18446744073709551615", "0,4", "0", "a,b", "0,10,20"] {
        let archive = Archive::default()
            .pax(b'x', &[("GNU.sparse.size", b"10"), ("GNU.sparse.map", map.as_bytes())])
            .file("s", &[1; 10]);
        assert!(unpack(&archive.end()).result.is_err(), "{map}");
    }
    let archive = Archive::default()
        .pax(b'x', &[("GNU.sparse.size", b"9223372036854775807"), ("GNU.sparse.map", b"0,1")])
        .file("s", b"1");
    assert!(unpack(&archive.end()).error().contains("larger than a layer"));
}

/// Everything about a tree that an archive can say.
pub(crate) fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        let mut entries: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let meta = path.symlink_metadata().unwrap();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let first = inodes.entry(meta.ino()).or_insert(relative.clone()).clone();
            let content = if meta.is_file() {
                format!("{:?}", Sha256::digest(std::fs::read(&path).unwrap()))
            } else if meta.is_symlink() {
                format!("{:?}", std::fs::read_link(&path).unwrap())
            } else {
                String::new()
            };
            let mut names = vec![0u8; 4096];
            let length = rustix::fs::llistxattr(&path, &mut names).unwrap();
            names.truncate(length);
            let mut text = format!(
                "{:o} {}:{} {} {}.{} {first:?} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev(),
                meta.mtime(),
                meta.mtime_nsec()
            );
            let mut names: Vec<_> = names.split(|byte| *byte == 0).collect();
            names.sort();
            for name in names.into_iter().filter(|name| !name.is_empty()) {
                let mut value = vec![0u8; 4096];
                let length = rustix::fs::lgetxattr(&path, name, &mut value).unwrap();
                text += &format!(" {:?}={:?}", String::from_utf8_lossy(name), &value[..length]);
            }
            if meta.is_dir() {
                waiting.push(path.clone());
            }
            all.insert(relative, text);
        }
    }
    all
}

/// A tree of real programs, with everything that makes tar hard.
pub(crate) fn make_tree(root: &Path) {
    let script = r#"
        set -e
        mkdir -p bin usr/share/deep var/empty
        cp -a /bin/ls /bin/cat /bin/busybox bin/ 2>/dev/null || cp -a /bin/ls /bin/cat bin/
        ln bin/cat bin/hard-cat; ln -s ../bin/ls usr/link; ln -s /nowhere usr/dangling
        cp -a /etc/bash_completion.d usr/share/ 2>/dev/null || true
        truncate -s 10M sparse; printf tail | dd of=sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null
        truncate -s 3M all-hole
        for n in $(seq 60); do printf x | dd of=pieces bs=1 seek=$((n*100000)) conv=notrunc 2>/dev/null; done
        chmod 4755 bin/ls; chmod 1777 var/empty; chown 123:456 bin/cat; mkfifo var/fifo
        chmod 2770 usr/share/deep
        name=$(printf 'n%.0s' $(seq 200)); mkdir -p "usr/$name"; echo long > "usr/$name/$name"
        ln "usr/$name/$name" "usr/$name/hard"; ln -s "$name" "usr/$name/soft"
        touch -d '1969-12-31 12:00:00.5 UTC' usr/old; touch -d '2040-01-01 00:00:00.123456789 UTC' usr/new
        printf 'bytes' > "$(printf 'usr/b\377\376')"
    "#;
    let status = Command::new("bash").arg("-c").arg(script).current_dir(root).status().unwrap();
    assert!(status.success());
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("bin/cat"), "user.test", b"value", flags).unwrap();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    rustix::fs::setxattr(root.join("bin/hard-cat"), "security.capability", capability, flags)
        .unwrap();
    rustix::fs::setxattr(root.join("usr"), "trusted.note", b"dir", flags).unwrap();
}

#[test]
fn the_same_tree_as_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    make_tree(&source);
    for options in [
        &["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse"][..],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=gnu", "--sparse"],
        &["--format=gnu"],
    ] {
        let archive = dir.path().join("archive.tar");
        let theirs = dir.path().join("theirs");
        let _ = std::fs::remove_dir_all(&theirs);
        std::fs::create_dir(&theirs).unwrap();
        let run =
            |command: &mut Command| assert!(command.status().unwrap().success(), "{options:?}");
        run(Command::new("tar")
            .args(options)
            .arg("-C")
            .arg(&source)
            .arg("-cf")
            .arg(&archive)
            .arg("."));
        run(Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--same-owner", "-p", "-C"])
            .arg(&theirs)
            .arg("-xf")
            .arg(&archive));
        let unpacked = unpack(&std::fs::read(&archive).unwrap());
        unpacked.result.as_ref().unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let (ours, theirs) = (describe(&unpacked.tree()), describe(&theirs));
        for (path, text) in &theirs {
            assert_eq!(ours.get(path), Some(text), "{options:?} {}", path.display());
        }
        assert_eq!(ours.len(), theirs.len(), "{options:?}");
        if options.contains(&"--sparse") {
            assert!(unpacked.tree().join("sparse").metadata().unwrap().blocks() < 100);
        }
    }
}
