//! Making files as somebody else.

use rustix::io::Errno;
use rustix::thread::{capabilities, set_capabilities};

use crate::{Context, Error, Result};

/// Asks for the present id, since no user has this one.
const NOBODY: u32 = u32::MAX;

/// From now on this thread makes files as this user and group, and keeps its
/// rights over the files of others. For a thread of one's own that ends
/// afterwards: through an idmapped mount, root of the host can make nothing.
pub fn make_files_as(uid: u32, gid: u32) -> Result<()> {
    let object = || format!("user {uid}:{gid}");
    let before = capabilities(None).context("become", object)?;
    // SAFETY: plain numbers; on Linux both concern the calling thread alone.
    let (now_uid, now_gid) = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        (libc::syscall(libc::SYS_setfsuid, NOBODY), libc::syscall(libc::SYS_setfsgid, NOBODY))
    };
    if (now_uid, now_gid) != (i64::from(uid), i64::from(gid)) {
        return Err(Error::new("become", object(), Errno::PERM));
    }
    // The kernel takes the rights over files away with the id.
    set_capabilities(None, before).context("become", object)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn files_are_somebody_elses_and_the_rights_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        std::thread::spawn(move || {
            make_files_as(123_456, 234_567).unwrap();
            // The directory is root's alone.
            std::fs::write(path.join("file"), "x").unwrap();
        })
        .join()
        .unwrap();
        let made = std::fs::metadata(directory.path().join("file")).unwrap();
        assert_eq!((made.uid(), made.gid()), (123_456, 234_567));
        std::fs::write(directory.path().join("ours"), "x").unwrap();
        assert_eq!(std::fs::metadata(directory.path().join("ours")).unwrap().uid(), 0);
    }
}
