//! The store as its callers see it, on real mounts.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::tar::tests::{Archive, Item};

struct Fixture {
    store: Option<Store>,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Some(Store::open(&dir.path().join("root")).unwrap()), dir }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// As after a crash and a new start (without the reboot).
    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open(&self.root()).unwrap());
    }

    fn layer(&self, archive: Archive) -> Lease {
        let LayerStart::Unpack(unpack) = self.store().begin_layer(None).unwrap() else {
            panic!("without a digest there is nothing to find");
        };
        unpack.run(archive.end().as_slice()).unwrap().lease
    }

    /// Layers that are durable, bottom first, with their leases.
    fn image(&self, archives: Vec<Archive>) -> (Vec<Digest>, Vec<Lease>) {
        let leases: Vec<Lease> = archives.into_iter().map(|archive| self.layer(archive)).collect();
        self.store().make_durable().unwrap();
        (leases.iter().map(|lease| *lease.diff_id()).collect(), leases)
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root().join(dir)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn id(byte: u8) -> ContainerId {
    ContainerId::from_random([byte; 32])
}

fn digest_of(archive: &Archive) -> Digest {
    Digest::from_sha256(Sha256::digest(archive.clone().end()).into())
}

/// A path into a detached mount.
fn at(mount: &OwnedFd, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())).join(path)
}

#[test]
fn a_second_instance_is_told_who_has_it() {
    let fixture = Fixture::new();
    let error = Store::open(&fixture.root()).err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
}

#[test]
fn blobs_are_verified() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let digest = store.put_blob(b"{}").unwrap();
    assert_eq!(store.blob(&digest).unwrap(), b"{}");
    assert_eq!(store.fs_info().used_bytes, 2);
    let path = fixture.root().join("blobs").join(digest.hex());
    std::fs::write(&path, "{ }").unwrap();
    assert!(matches!(store.blob(&digest), Err(Error::Damaged { .. })));
    store.put_blob(b"{}").unwrap();
    assert_eq!(store.blob(&digest).unwrap(), b"{}");
    // Just put, then in use, then not.
    assert_eq!(store.collect(|_| false).unwrap(), 0);
    assert_eq!(store.collect(|_| true).unwrap(), 0);
    assert_eq!(store.collect(|_| false).unwrap(), 1);
    assert!(matches!(store.blob(&digest), Err(Error::NotFound { .. })));
}

#[test]
fn layers_come_durable_and_go_when_nobody_wants_them() {
    let mut fixture = Fixture::new();
    let archive = Archive::default().file("a", b"hello");
    let digest = digest_of(&archive);
    let lease = fixture.layer(archive.clone());
    assert_eq!(lease.diff_id(), &digest);
    assert!(fixture.store().prepare_snapshot(&id(1), &[digest], MountAs::default()).is_err());
    drop(lease);
    // Not made durable: gone after a crash.
    fixture.reopen();
    assert!(fixture.store().layer(&digest).is_none());
    let lease = fixture.layer(archive);
    fixture.store().make_durable().unwrap();
    assert_eq!(fixture.store().collect(|_| false).unwrap(), 0, "leased");
    drop(lease);
    fixture.reopen();
    let info = fixture.store().fs_info();
    assert_eq!((info.used_bytes, info.inodes), (5, 1));
    let LayerStart::Present(lease) = fixture.store().begin_layer(Some(digest)).unwrap() else {
        panic!("it is there");
    };
    let snapshot = fixture.store().prepare_snapshot(&id(1), &[digest], MountAs::default()).unwrap();
    drop(lease);
    assert_eq!(fixture.store().collect(|_| false).unwrap(), 0, "a snapshot uses it");
    drop(snapshot);
    fixture.reopen();
    assert_eq!(fixture.store().collect(|_| false).unwrap(), 0, "a snapshot uses it");
    fixture.store().remove_snapshot(&id(1)).unwrap();
    assert_eq!(fixture.store().collect(|_| true).unwrap(), 0, "kept");
    assert_eq!(fixture.store().collect(|_| false).unwrap(), 1);
    fixture.store().wait_for_deletions();
    assert_eq!(fixture.names("layers"), ["+empty-0", "+empty-1"]);
    assert!(fixture.names("trash").is_empty() && fixture.names("ingest").is_empty());
}

#[test]
fn a_wrong_digest_or_archive_leaves_nothing() {
    let fixture = Fixture::new();
    let other = Digest::from_sha256([1; 32]);
    let begin = || match fixture.store().begin_layer(Some(other)).unwrap() {
        LayerStart::Unpack(unpack) => unpack,
        LayerStart::Present(_) => panic!("it cannot be there"),
    };
    let error = begin().run(Archive::default().file("a", b"").end().as_slice()).unwrap_err();
    assert!(matches!(error, Error::WrongDiffId { expected, .. } if expected == other));
    let error = begin().run(Archive::default().file("../a", b"").end().as_slice()).unwrap_err();
    assert!(error.is_bad_content());
    drop(begin());
    fixture.store().wait_for_deletions();
    assert!(fixture.names("ingest").is_empty() && fixture.names("trash").is_empty());
}

#[test]
fn of_many_one_unpacks() {
    let fixture = Fixture::new();
    let archive = Archive::default().file("a", &[5; 100_000]);
    let digest = digest_of(&archive);
    let unpacked = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for turn in 0..8 {
            let (fixture, archive, unpacked) = (&fixture, &archive, &unpacked);
            scope.spawn(move || match fixture.store().begin_layer(Some(digest)).unwrap() {
                LayerStart::Present(lease) => assert_eq!(lease.diff_id(), &digest),
                // The first gives up, and the next gets its turn.
                LayerStart::Unpack(unpack) if turn == 0 => drop(unpack),
                LayerStart::Unpack(unpack) => {
                    unpack.run(archive.clone().end().as_slice()).unwrap();
                    unpacked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(unpacked.into_inner(), 1);
}

#[test]
fn layers_hide_and_show_each_other() {
    let fixture = Fixture::new();
    let bottom = Archive::default()
        .dir("tmp", 0o1777)
        .item(
            &Item { kind: b'5', name: b"opt", mode: 0o2750, owner: (5, 6), ..Item::default() },
            b"",
        )
        .file("etc/passwd", b"root")
        .file("etc/gone", b"")
        .file("opaque/below", b"")
        .file("same", b"old");
    let top = Archive::default()
        .file("tmp/new", b"")
        .file("opt/deep/new", b"")
        .file("etc/.wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/above", b"")
        .file("same", b"new");
    let (layers, _leases) = fixture.image(vec![bottom, top]);
    let snapshot = fixture.store().prepare_snapshot(&id(1), &layers, MountAs::default()).unwrap();
    let view = fixture.store().view(&layers, "", MountAs::default()).unwrap();
    for mount in [&snapshot.mount, &view] {
        assert_eq!(std::fs::read_to_string(at(mount, "same")).unwrap(), "new");
        assert!(!at(mount, "etc/gone").exists() && at(mount, "etc/passwd").exists());
        assert!(!at(mount, "opaque/below").exists() && at(mount, "opaque/above").exists());
        // The parents that the upper layer left out look as below.
        assert_eq!(at(mount, "tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
        let opt = at(mount, "opt").metadata().unwrap();
        assert_eq!((opt.mode() & 0o7777, opt.uid(), opt.gid()), (0o2750, 5, 6));
        assert_eq!(at(mount, "opt/deep").metadata().unwrap().mode() & 0o7777, 0o755);
        assert_eq!(at(mount, "").metadata().unwrap().mode() & 0o7777, 0o755);
    }
    assert!(std::fs::write(at(&view, "x"), "").is_err());
    std::fs::write(at(&snapshot.mount, "written"), vec![1; 50_000]).unwrap();
    let patience = std::time::Duration::from_secs(120);
    let usage = fixture.store().snapshotter().usages(&[id(1)], patience)[0].unwrap().usage;
    assert!(usage.bytes >= 50_000, "{usage:?}");
    assert_eq!(fixture.store().snapshotter().list(), [id(1)]);
    let again = fixture.store().prepare_snapshot(&id(1), &layers, MountAs::default());
    assert!(matches!(again, Err(Error::SnapshotExists(_))));
}

#[test]
fn an_image_without_layers_and_one_with_one() {
    let fixture = Fixture::new();
    let (layers, _leases) = fixture.image(vec![Archive::default().dir(".", 0o711).file("a", b"a")]);
    for (byte, layers) in [(1, &[][..]), (2, &layers[..])] {
        let snapshot =
            fixture.store().prepare_snapshot(&id(byte), layers, MountAs::default()).unwrap();
        std::fs::write(at(&snapshot.mount, "b"), "b").unwrap();
        let view = fixture.store().view(layers, "", MountAs::default()).unwrap();
        assert_eq!(at(&view, "a").exists(), !layers.is_empty());
        let mode = if layers.is_empty() { 0o755 } else { 0o711 };
        assert_eq!(at(&snapshot.mount, "").metadata().unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn a_view_of_a_part_stays_inside_the_image() {
    let fixture = Fixture::new();
    let archive = Archive::default()
        .file("srv/data/file", b"inside")
        .link(b'2', "srv/absolute", "/srv/data")
        .link(b'2', "srv/outside", "../../../../../etc/passwd")
        .link(b'2', "srv/loop", "loop");
    let (layers, _leases) = fixture.image(vec![archive]);
    let part = |path: &str| fixture.store().view(&layers, path, MountAs::default());
    for path in ["srv/data", "/srv/data", "srv/absolute", "../srv/./data/"] {
        let view = part(path).unwrap();
        assert_eq!(std::fs::read_to_string(at(&view, "file")).unwrap(), "inside", "{path}");
        assert!(std::fs::write(at(&view, "new"), "").is_err());
    }
    let file = part("srv/data/file").unwrap();
    assert!(rustix::fs::fstat(&file).unwrap().st_size == 6);
    for path in ["srv/none", "srv/data/file/below", "srv/outside"] {
        assert!(matches!(part(path), Err(Error::NotFound { .. })), "{path}");
    }
    assert!(part("srv/loop").is_err());
}

#[test]
fn layers_of_volumes_are_kept_with_the_snapshot() {
    let mut fixture = Fixture::new();
    let (own, leases) = fixture.image(vec![Archive::default().file("a", b"")]);
    let (volume, more) = fixture.image(vec![Archive::default().file("b", b"")]);
    drop(fixture.store().prepare_snapshot(&id(1), &own, MountAs::default()).unwrap());
    fixture.store().snapshotter().hold(&id(1), &volume).unwrap();
    assert!(fixture.store().snapshotter().hold(&id(2), &volume).is_err());
    drop((leases, more));
    assert_eq!(fixture.store().collect(|_| false).unwrap(), 0);
    fixture.reopen();
    assert_eq!(fixture.store().collect(|_| false).unwrap(), 0);
    fixture.store().view(&volume, "", MountAs::default()).unwrap();
    fixture.store().remove_snapshot(&id(1)).unwrap();
    assert_eq!(fixture.store().collect(|_| false).unwrap(), 2);
}

#[test]
fn a_snapshot_is_mounted_again_in_the_same_boot_only() {
    let mut fixture = Fixture::new();
    let (layers, leases) = fixture.image(vec![Archive::default().file("a", b"a")]);
    let snapshot = fixture.store().prepare_snapshot(&id(1), &layers, MountAs::default()).unwrap();
    std::fs::write(at(&snapshot.mount, "b"), "kept").unwrap();
    drop((snapshot, leases));
    fixture.reopen();
    let snapshot = fixture.store().snapshotter().remount(&id(1), MountAs::default()).unwrap();
    assert_eq!(std::fs::read_to_string(at(&snapshot.mount, "b")).unwrap(), "kept");
    drop(snapshot);
    let file = fixture.root().join("snapshots").join(id(1).as_str()).join("snapshot");
    let text = std::fs::read_to_string(&file).unwrap();
    let boot = text.lines().nth(1).unwrap().to_owned();
    std::fs::write(&file, text.replace(&boot, "another-boot")).unwrap();
    fixture.reopen();
    let error = fixture.store().snapshotter().remount(&id(1), MountAs::default()).unwrap_err();
    assert!(error.to_string().contains("restarted"), "{error}");
    fixture.store().remove_snapshot(&id(1)).unwrap();
    fixture.store().remove_snapshot(&id(1)).unwrap();
}

/// A process in a user namespace whose root is 200000.
struct Userns(Child);

impl Userns {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--user", "sleep", "60"]).spawn().unwrap();
        let this = Self(child);
        let own = std::fs::read_link("/proc/self/ns/user").unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while std::fs::read_link(this.path("ns/user")).unwrap() == own {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        std::fs::write(this.path("uid_map"), "0 200000 65536").unwrap();
        std::fs::write(this.path("gid_map"), "0 300000 65536").unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.id()))
    }
}

impl Drop for Userns {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn owners_are_shifted_for_a_user_namespace() {
    let fixture = Fixture::new();
    let bottom = Archive::default()
        .file("a", b"a")
        .dir("tmp", 0o1777)
        .item(&Item { name: b"owned", owner: (1000, 1000), ..Item::default() }, b"");
    let (layers, _leases) = fixture.image(vec![bottom, Archive::default().file("tmp/x", b"")]);
    let userns = Userns::new();
    let file = std::fs::File::open(userns.path("ns/user")).unwrap();
    let idmap = Idmap { userns: file.as_fd(), root_uid: 200_000, root_gid: 300_000 };
    let snapshot = fixture
        .store()
        .prepare_snapshot(&id(1), &layers, MountAs { idmap: Some(&idmap), label: "" })
        .unwrap();
    for (name, uid, gid) in
        [("", 200_000, 300_000), ("a", 200_000, 300_000), ("owned", 201_000, 301_000)]
    {
        let meta = at(&snapshot.mount, name).metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{name:?}");
    }
    let tmp = at(&snapshot.mount, "tmp").metadata().unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.uid()), (0o1777, 200_000));
    // Copied up with its owner.
    std::fs::write(at(&snapshot.mount, "a"), "changed").unwrap();
    assert_eq!(at(&snapshot.mount, "a").metadata().unwrap().uid(), 200_000);
    let upper = fixture.root().join("snapshots").join(id(1).as_str()).join("upper/a");
    assert_eq!(upper.metadata().unwrap().uid(), 200_000);
}

#[test]
fn every_way_to_mount_gives_the_same() {
    use corten_kernel::overlay::{self, Method, Overlay, Upper};
    let dir = tempfile::tempdir().unwrap();
    let open = |name: String| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::File::open(path).unwrap()
    };
    let lower: Vec<_> = (0..IMAGE_LAYERS).map(|n| open(format!("lower{n}"))).collect();
    for n in 0..IMAGE_LAYERS {
        std::fs::write(dir.path().join(format!("lower{n}/f{n}")), "x").unwrap();
        std::fs::write(dir.path().join(format!("lower{n}/all")), n.to_string()).unwrap();
    }
    let lower: Vec<_> = lower.iter().map(AsFd::as_fd).collect();
    let scratch = dir.path().join("scratch");
    for (n, method) in [Method::Descriptors, Method::Strings, Method::Classic].iter().enumerate() {
        let (upper, work) = (open(format!("upper{n}")), open(format!("work{n}")));
        let upper = Some(Upper { upper: upper.as_fd(), work: work.as_fd() });
        let request =
            Overlay { lower: &lower, upper, volatile: true, options: &[], scratch: &scratch };
        let mount = overlay::mount_by(*method, &request).unwrap();
        assert_eq!(std::fs::read_to_string(at(&mount, "all")).unwrap(), "0");
        assert_eq!(std::fs::read_dir(at(&mount, "")).unwrap().count(), IMAGE_LAYERS + 1);
        std::fs::write(at(&mount, "new"), "").unwrap();
        assert!(dir.path().join(format!("upper{n}/new")).exists());
    }
    assert!(!scratch.exists(), "nothing is left there");
}

/// Enough that names would not fit where numbers do.
const IMAGE_LAYERS: usize = 200;

#[test]
fn hostile_trees_are_deleted() {
    let fixture = Fixture::new();
    let (layers, _leases) = fixture.image(vec![Archive::default().file("a", b"a")]);
    let snapshot = fixture.store().prepare_snapshot(&id(1), &layers, MountAs::default()).unwrap();
    let script = r#"
        mkdir locked && touch locked/file && chmod 0 locked
        touch fixed && mkdir kept && touch kept/file kept/other
        chattr +i fixed kept/file && chattr +a kept/other && chattr +i kept
        mkfifo pipe; ln -s / root
        long=$(printf 'd/%.0s' $(seq 1000))
        for n in 1 2 3 4; do mkdir -p $long && touch f && cd -P $long || exit 1; done
    "#;
    let upper = fixture.root().join("snapshots").join(id(1).as_str()).join("upper");
    assert!(
        Command::new("sh").arg("-c").arg(script).current_dir(&upper).status().unwrap().success()
    );
    drop(snapshot);
    fixture.store().remove_snapshot(&id(1)).unwrap();
    assert!(fixture.names("snapshots").is_empty());
    fixture.store().wait_for_deletions();
    assert!(fixture.names("trash").is_empty(), "{:?}", fixture.names("trash"));
}

/// A small file system that is full soon.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "small"])
            .arg(dir.path())
            .status();
        assert!(status.unwrap().success());
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let small = Small::new();
    let store = Store::open(&small.0.path().join("root")).unwrap();
    let LayerStart::Unpack(unpack) = store.begin_layer(None).unwrap() else { unreachable!() };
    let archive = Archive::default().file("a", b"x").file("big", &vec![1; 8 << 20]).end();
    let error = unpack.run(archive.as_slice()).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(error.to_string().contains("\"big\""), "{error}");
    store.wait_for_deletions();
    for dir in ["ingest", "trash"] {
        assert_eq!(std::fs::read_dir(store.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
    // There is room again.
    let LayerStart::Unpack(unpack) = store.begin_layer(None).unwrap() else { unreachable!() };
    unpack.run(Archive::default().file("a", &vec![1; 1 << 20]).end().as_slice()).unwrap();
    store.make_durable().unwrap();
}

#[test]
fn whiteouts_are_devices_that_overlay_knows() {
    let fixture = Fixture::new();
    let (layers, _leases) = fixture.image(vec![Archive::default().file(".wh.x", b"")]);
    let path = fixture.root().join("layers").join(layers[0].hex()).join("tree/x");
    assert!(path.symlink_metadata().unwrap().file_type().is_char_device());
}

/// Not an assertion: prints what this machine does.
#[test]
fn throughput() {
    let fixture = Fixture::new();
    let mut archive = Archive::default();
    for n in 0..2000 {
        archive = archive.file(&format!("usr/lib/d{}/f{n}", n / 50), &[7; 4000]);
    }
    let archive = archive.file("big", &vec![9; 100 << 20]).end();
    let LayerStart::Unpack(unpack) = fixture.store().begin_layer(None).unwrap() else {
        unreachable!()
    };
    let start = Instant::now();
    let layer = unpack.run(archive.as_slice()).unwrap();
    let unpacked = start.elapsed();
    fixture.store().make_durable().unwrap();
    let durable = start.elapsed() - unpacked;
    let megabytes = layer.bytes >> 20;
    println!("{megabytes} MB, {} entries: {unpacked:?}; durable {durable:?}", layer.entries);
}

#[test]
fn the_next_of_the_same_layers_is_ready() {
    let fixture = Fixture::new();
    let (layers, leases) = fixture.image(vec![Archive::default().file("etc/a", b"1")]);
    drop(leases);
    let ready = || {
        let end = Instant::now() + Duration::from_secs(20);
        while ready_made(&fixture) == 0 {
            assert!(Instant::now() < end, "no spare is made");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let prepare = |number| {
        fixture.store().prepare_snapshot(&id(number), &layers, MountAs::default()).unwrap().mount
    };
    let first = prepare(1);
    ready();
    let inode = std::fs::metadata(fixture.root().join("lanes/1/1/upper")).unwrap().ino();
    // Who comes while it is being made does not wait for it.
    let upper = |number| fixture.root().join("snapshots").join(id(number).as_str()).join("upper");
    let taken = (2..).map(|number| (number, prepare(number)));
    let mut taken =
        taken.skip_while(|(number, _)| std::fs::metadata(upper(*number)).unwrap().ino() != inode);
    let (last, second) = taken.next().unwrap();
    let upper = upper(last);
    std::fs::write(at(&second, "etc/b"), b"2").unwrap();
    assert_eq!(std::fs::read(upper.join("etc/b")).unwrap(), b"2");
    assert_eq!(std::fs::read(at(&second, "etc/a")).unwrap(), b"1");
    assert!(!at(&first, "etc/b").exists());
    // One that nobody took does not keep its layers.
    ready();
    drop((first, second));
    for number in 1..=last {
        fixture.store().remove_snapshot(&id(number)).unwrap();
    }
    assert_eq!(fixture.store().collect(|_| false).unwrap(), 1);
    assert_eq!(ready_made(&fixture), 0);
}

/// How many root file systems nobody has taken yet.
fn ready_made(fixture: &Fixture) -> usize {
    let lanes = fixture.names("lanes");
    lanes.iter().map(|lane| fixture.names(&format!("lanes/{lane}")).len()).sum()
}
