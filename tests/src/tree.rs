//! Directory trees that become layers of images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A tar of what `fill` puts into a directory.
pub fn tree(fill: impl FnOnce(&Path)) -> Vec<u8> {
    let root = tempfile::tempdir().expect("a directory");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("a mode is set");
    fill(root.path());
    let tar = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "--sort=name", "-C"])
        .arg(root.path())
        .args(["-c", "."])
        .output()
        .expect("tar is installed");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

/// The paths of the shared libraries of a program, its loader included.
pub fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().expect("ldd is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(str::to_owned).collect()
}

/// Copies a file of this machine to the same place.
pub fn copy(root: &Path, file: &Path) {
    let inside = file.strip_prefix("/").expect("an absolute path");
    copy_as(root, file, &inside.display().to_string());
}

/// Copies a file of this machine, with its mode, to another place.
pub fn copy_as(root: &Path, file: &Path, inside: &str) {
    let target = root.join(inside);
    fs::create_dir_all(target.parent().expect("a parent")).expect("a directory is made");
    fs::copy(file, &target).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// Writes a text file.
pub fn write(root: &Path, inside: &str, text: &str) {
    let target = root.join(inside);
    fs::create_dir_all(target.parent().expect("a parent")).expect("a directory is made");
    fs::write(target, text).expect("a file is written");
}

/// A busybox with links for all its applets, and the directories of a root.
pub fn busybox(root: &Path, program: &Path) {
    copy_as(root, program, "bin/busybox");
    let applets = Command::new(program).arg("--list").output().expect("busybox can be run");
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|name| *name != "busybox")
    {
        // Not symbolic: to mask one applet should not mask them all.
        fs::hard_link(root.join("bin/busybox"), root.join("bin").join(applet))
            .expect("a link is made");
    }
    for (name, mode) in [("tmp", 0o1777), ("root", 0o700), ("proc", 0o755), ("dev", 0o755)] {
        let path = root.join(name);
        fs::create_dir_all(&path).expect("a directory is made");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode is set");
    }
}
