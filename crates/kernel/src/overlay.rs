//! Overlay mounts, made detached from descriptors.
//!
//! Three ways, the first that the kernel has is used (asked once):
//! descriptors by `lowerdir+` (6.13), strings by `lowerdir+` (6.7), and
//! `mount(2)` with one option string. That string is limited to a page, so it
//! names descriptors relative to `/proc/self/fd` (`lowerdir=7:8:9`): 500
//! layers fit where paths would not.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, mount as mount_classic, move_mount, open_tree, unmount,
};

use crate::error::{Context, Error, Result};
use crate::launch::MountAttributes;

/// Bytes of the option string of `mount(2)`: a page, whatever the page size.
const OPTIONS_BYTES_MAX: usize = 4095;
/// Descriptors are compared and passed by number below this path.
const FD_DIR: &str = "/proc/self/fd";

/// What to mount.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Directories to see through, the topmost first; at least one with an
    /// upper, two without.
    pub lower: &'a [BorrowedFd<'a>],
    /// Where changes go; without it the mount is read-only.
    pub upper: Option<Upper<'a>>,
    /// Never sync (the upper is worthless after a crash of the machine).
    pub volatile: bool,
    /// More options, such as `("context", Some(label))` or `("userxattr", None)`.
    pub options: &'a [(&'a str, Option<&'a str>)],
    /// Where a directory can be made for the moment in which an old kernel
    /// needs a place for the mount.
    pub scratch: &'a Path,
}

/// The writable part of an overlay; both directories on one file system.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    /// Changed files.
    pub upper: BorrowedFd<'a>,
    /// The kernel's own work directory, empty.
    pub work: BorrowedFd<'a>,
}

/// How overlays are mounted on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `fsconfig` with descriptors (Linux 6.13).
    Descriptors,
    /// `fsconfig` with a string for each layer (Linux 6.7).
    Strings,
    /// `mount(2)`.
    Classic,
}

/// The method of this kernel, found out at the first call.
pub fn method() -> Method {
    static METHOD: OnceLock<Method> = OnceLock::new();
    *METHOD.get_or_init(probe)
}

/// Mounts an overlay without giving it a place.
pub fn mount(overlay: &Overlay<'_>) -> Result<OwnedFd> {
    mount_by(method(), overlay)
}

/// [`mount`] by a given method, so that each can be tested.
pub fn mount_by(method: Method, overlay: &Overlay<'_>) -> Result<OwnedFd> {
    match method {
        Method::Descriptors | Method::Strings => {
            let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
                .context("open a context for", || "an overlay")?;
            configure(&context, method, overlay)
                .and_then(|()| fsconfig_create(&context))
                .map_err(|errno| refused(&context, overlay, errno))?;
            let attributes = if overlay.upper.is_some() {
                MountAttrFlags::empty()
            } else {
                MountAttrFlags::MOUNT_ATTR_RDONLY
            };
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
                .context("mount", || describe(overlay))
        }
        Method::Classic => mount_classically(overlay),
    }
}

/// Which keys and kinds of values an overlay's context takes; nothing is mounted.
fn probe() -> Method {
    let try_key = |by_descriptor: bool| {
        let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
        let directory = rustix::fs::open(
            "/",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let Ok(directory) = directory else { return false };
        if by_descriptor {
            fsconfig_set_fd(&context, "lowerdir+", &directory).is_ok()
        } else {
            // Kernels before 6.5 gather whatever they are told, and judge it when
            // the mount is made: one that takes nonsense knows nothing.
            fsconfig_set_string(&context, "lowerdir+", "/").is_ok()
                && fsconfig_set_string(&context, "no-such-option", "/").is_err()
        }
    };
    if try_key(true) {
        Method::Descriptors
    } else if try_key(false) {
        Method::Strings
    } else {
        Method::Classic
    }
}

fn configure(
    context: &OwnedFd,
    method: Method,
    overlay: &Overlay<'_>,
) -> std::result::Result<(), Errno> {
    let directory = |key: &str, fd: BorrowedFd<'_>| match method {
        Method::Descriptors => fsconfig_set_fd(context, key, fd),
        Method::Strings | Method::Classic => {
            fsconfig_set_string(context, key, format!("{FD_DIR}/{}", fd.as_raw_fd()))
        }
    };
    fsconfig_set_string(context, "source", "overlay")?;
    for lower in overlay.lower {
        directory("lowerdir+", *lower)?;
    }
    if let Some(upper) = &overlay.upper {
        directory("upperdir", upper.upper)?;
        directory("workdir", upper.work)?;
        if overlay.volatile {
            fsconfig_set_flag(context, "volatile")?;
        }
    }
    for (key, value) in overlay.options {
        match value {
            Some(value) => fsconfig_set_string(context, *key, *value)?,
            None => fsconfig_set_flag(context, *key)?,
        }
    }
    Ok(())
}

/// The kernel explains itself in the context's message log.
fn refused(context: &OwnedFd, overlay: &Overlay<'_>, errno: Errno) -> Error {
    let mut message = [0u8; 512];
    let said = rustix::io::read(context, &mut message)
        .map(|length| String::from_utf8_lossy(&message[..length]).trim().to_owned())
        .unwrap_or_default();
    let object = describe(overlay);
    Error::new("mount", if said.is_empty() { object } else { format!("{object} ({said})") }, errno)
}

fn describe(overlay: &Overlay<'_>) -> String {
    format!("an overlay of {} layers", overlay.lower.len())
}

/// The options as one string, directories as numbers below `/proc/self/fd`.
fn option_string(overlay: &Overlay<'_>) -> Result<CString> {
    let lower: Vec<String> = overlay.lower.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let Some(upper) = &overlay.upper {
        options +=
            &format!(",upperdir={},workdir={}", upper.upper.as_raw_fd(), upper.work.as_raw_fd());
        if overlay.volatile {
            options += ",volatile";
        }
    }
    for (key, value) in overlay.options {
        options += &match value {
            // A label holds commas.
            Some(value) if value.contains(',') => format!(",{key}=\"{value}\""),
            Some(value) => format!(",{key}={value}"),
            None => format!(",{key}"),
        };
    }
    if options.len() > OPTIONS_BYTES_MAX {
        return Err(Error::new("mount", describe(overlay), Errno::TOOBIG));
    }
    CString::new(options).map_err(|_| Error::new("mount", describe(overlay), Errno::INVAL))
}

/// Makes the scratch directory, mounts on it and takes the mount off it again.
/// What stays where that fails is an empty directory. The paths of the options are relative, so it runs on a thread with a working
/// directory of its own.
fn mount_classically(overlay: &Overlay<'_>) -> Result<OwnedFd> {
    let options = option_string(overlay)?;
    let flags = if overlay.upper.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
    let scratch = overlay.scratch;
    std::fs::create_dir(scratch).context("make", || scratch.display().to_string())?;
    let mounted = std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("overlay".into()).spawn_scoped(scope, || {
            own_working_directory()?;
            rustix::process::chdir(FD_DIR)?;
            mount_classic("overlay", scratch, "overlay", flags, options.as_c_str())
        });
        match worker {
            Ok(worker) => worker.join().unwrap_or(Err(Errno::IO)),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)),
        }
    });
    if let Err(errno) = mounted {
        let _ = std::fs::remove_dir(scratch);
        return Err(errno).context("mount", || describe(overlay));
    }
    let detached =
        open_tree(CWD, scratch, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .context("take the mount off", || scratch.display().to_string());
    unmount(scratch, UnmountFlags::DETACH).context("unmount", || scratch.display().to_string())?;
    let _ = std::fs::remove_dir(scratch);
    detached
}

/// Gives the calling thread its own working directory.
fn own_working_directory() -> std::result::Result<(), Errno> {
    // SAFETY: CLONE_FS only gives this thread its own root, working directory
    // and umask; no memory or descriptor is affected.
    match unsafe { libc::unshare(libc::CLONE_FS) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// A detached copy of the mount that `directory` lies on, rooted there, with
/// the owners of all files shifted as `userns` maps them.
pub fn idmapped_clone(directory: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let clone = crate::mount::open_tree_at(directory, false)?;
    let unchanged = MountAttributes { set: 0, clear: 0, recursive: false };
    crate::mount::set_attributes(clone.as_fd(), unchanged, None, Some(userns))?;
    Ok(clone)
}

/// Gives a detached mount a place for as long as the guard lives: kernels
/// before 6.15 take no layers from a mount that has none.
pub fn attach<'a>(mount: BorrowedFd<'_>, place: &'a Path) -> Result<Attached<'a>> {
    move_mount(mount, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("mount on", || place.display().to_string())?;
    Ok(Attached(place))
}

/// A mount that is taken off its place on drop.
#[derive(Debug)]
pub struct Attached<'a>(&'a Path);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // It is our own mount on our own directory; there is no one to tell.
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}
