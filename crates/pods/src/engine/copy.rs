//! Copying into and out of running containers, by their root directory.

use std::io::{Read, Write};
use std::sync::Arc;

use corten_base::limits::PATH_BYTES_MAX;
use corten_kernel::fsuser;
use corten_kernel::rooted::Root;
use corten_spec::request::{IdMapping, UserNamespace};
use corten_store::{CopiedIn, CopyIn, CopyOut, Top};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::Inner;
use super::exec::check_running;
use crate::error::{Error, Kind, Result};
use crate::table::Container;
use crate::view::{CopyInRequest, CopyOutRequest};

/// Whose files are that belong to nobody in a user namespace.
const NOBODY: u32 = 65534;
/// The most of a process's list of cgroups that is looked at.
const CGROUPS_BYTES_MAX: u64 = 64 << 10;

impl Inner {
    /// Writes an archive of a part of a container's files.
    pub(super) async fn copy_out(
        &self,
        container: &Arc<Container>,
        request: CopyOutRequest,
        out: impl Write + Send + 'static,
    ) -> Result<()> {
        let shown = format!("{:?} out of container {}", request.path, container.id.short());
        let path = checked(&request.path)?;
        in_root(container, move |root, user| {
            let what = CopyOut {
                root,
                path: path.as_bytes(),
                name: request.name.as_bytes(),
                follow: request.follow || path.ends_with('/'),
                ids: [&|id| inside(user.map(|user| &user.uids), id), &|id| {
                    inside(user.map(|user| &user.gids), id)
                }],
            };
            corten_store::copy_out(&what, out).map(drop).map_err(copy_failed)
        })
        .await
        .map_err(|error| error.during(format!("unable to copy {shown}")))
    }

    /// Unpacks an archive into a container.
    pub(super) async fn copy_in(
        &self,
        container: &Arc<Container>,
        request: CopyInRequest,
        archive: impl Read + Send + 'static,
    ) -> Result<CopiedIn> {
        let shown = format!("to {:?} in container {}", request.path, container.id.short());
        let path = checked(&request.path)?;
        in_root(container, move |root, user| {
            let (directory, top) = destination(root, &path, request.contents)?;
            let keep = request.keep_owner;
            let place = CopyIn {
                root,
                directory: directory.as_bytes(),
                top,
                owner: &|uid, gid| {
                    let (uid, gid) = if keep { (uid, gid) } else { (0, 0) };
                    let uid = outside(user.map(|user| &user.uids), uid);
                    (uid, outside(user.map(|user| &user.gids), gid))
                },
            };
            if let Some(user) = user {
                // Only then is anything made through an idmapped mount.
                fsuser::make_files_as(outside(Some(&user.uids), 0), outside(Some(&user.gids), 0))?;
            }
            corten_store::copy_in(&place, archive).map_err(copy_failed)
        })
        .await
        .map_err(|error| error.during(format!("unable to copy {shown}")))
    }
}

/// A path as it can be looked up.
fn checked(path: &str) -> Result<String> {
    if path.is_empty() || path.contains('\0') || path.len() >= PATH_BYTES_MAX {
        return Err(Error::invalid(format!("{path:?} is no path in a container")));
    }
    Ok(path.to_owned())
}

/// Runs work with the root directory of a running container, on a thread of
/// its own: a mount in it may hang for ever.
async fn in_root<T: Send + 'static>(
    container: &Arc<Container>,
    work: impl FnOnce(&Root, Option<&UserNamespace>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let container = container.clone();
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("copy".to_owned()).spawn(move || {
        let user = container.sandbox.config.namespaces.user.as_ref();
        let done = container_root(&container).and_then(|root| work(&root, user));
        // Whoever asked may have left.
        let _ = sender.send(done);
    });
    thread.map_err(|error| Error::internal(format!("unable to start a thread: {error}")))?;
    receiver.await.unwrap_or_else(|_| Err(Error::internal("the work panicked")))
}

/// The root directory of a running container, with all that is mounted in it.
pub(super) fn container_root(container: &Container) -> Result<Root> {
    check_running(container)?;
    let pid = container.record.borrow().pid;
    let ended = || {
        Error::precondition(format!(
            "container {} is not running: it has ended",
            container.id.short()
        ))
    };
    let pid = pid.ok_or_else(ended)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(rustix::fs::CWD, format!("/proc/{pid}"), flags, Mode::empty())
        .map_err(|_| ended())?;
    let root = openat(&process, "root", flags, Mode::empty()).map_err(|_| ended())?;
    // The number may have passed to another process; its directory does not.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let groups = openat(&process, "cgroup", flags, Mode::empty()).map_err(|_| ended())?;
    let mut text = String::new();
    std::fs::File::from(groups)
        .take(CGROUPS_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|_| ended())?;
    if text.contains(container.id.as_str()) { Ok(Root::from_fd(root)) } else { Err(ended()) }
}

/// Where an archive goes that is to be at `path`: as `cp -r` has it.
fn destination(root: &Root, path: &str, contents: bool) -> Result<(String, Top)> {
    let trimmed = path.trim_end_matches('/');
    if contents {
        return Ok((trimmed.to_owned(), Top::Strip));
    }
    let is_directory = |path: &str| {
        let opened = root.open_across(path.as_bytes(), OFlags::PATH)?;
        let found = fstat(&opened)?;
        Ok::<_, Errno>(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
    };
    match is_directory(path) {
        Ok(true) => return Ok((trimmed.to_owned(), Top::Keep)),
        Ok(false) | Err(Errno::NOENT) if trimmed.len() == path.len() => {}
        Ok(false) | Err(Errno::NOTDIR) => {
            return Err(Error::precondition("it is no directory"));
        }
        Err(errno) => return Err(missing(errno)),
    }
    let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    if matches!(name, "" | "." | "..") {
        return Err(Error::invalid("it ends with no name"));
    }
    let above = if parent.is_empty() { "/" } else { parent };
    match is_directory(above) {
        Ok(true) => Ok((parent.to_owned(), Top::Rename(name.as_bytes().to_vec()))),
        Ok(false) => Err(Error::precondition(format!("{above:?} is no directory"))),
        Err(errno) => Err(missing(errno)),
    }
}

fn missing(errno: Errno) -> Error {
    let kind = if errno == Errno::NOENT { Kind::NotFound } else { Kind::Internal };
    Error::new(kind, std::io::Error::from(errno).to_string())
}

fn copy_failed(error: corten_store::Error) -> Error {
    match error {
        corten_store::Error::BadArchive { reason } => Error::precondition(reason),
        error => Error::internal(error.to_string()),
    }
}

/// An id of the host as a container has it; without mappings it is the same.
fn inside(mappings: Option<&Vec<IdMapping>>, id: u32) -> u32 {
    let Some(mappings) = mappings else { return id };
    let found = mappings.iter().find_map(|run| {
        let at = id.checked_sub(run.host_id)?;
        (at < run.length).then(|| run.container_id + at)
    });
    found.unwrap_or(NOBODY)
}

/// An id of a container as the host has it. One that the container does not
/// have is its root's.
fn outside(mappings: Option<&Vec<IdMapping>>, id: u32) -> u32 {
    let Some(mappings) = mappings else { return id };
    let find = |id: u32| {
        mappings.iter().find_map(|run| {
            let at = id.checked_sub(run.container_id)?;
            (at < run.length).then(|| run.host_id + at)
        })
    };
    find(id).or_else(|| find(0)).unwrap_or(NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_there_and_back() {
        let runs = vec![
            IdMapping { container_id: 0, host_id: 100_000, length: 10 },
            IdMapping { container_id: 10, host_id: 300_000, length: 10 },
        ];
        for (there, here) in [(0, 100_000), (9, 100_009), (10, 300_000), (19, 300_009)] {
            assert_eq!((inside(Some(&runs), here), outside(Some(&runs), there)), (there, here));
        }
        assert_eq!((inside(Some(&runs), 0), outside(Some(&runs), 20)), (NOBODY, 100_000));
        assert_eq!((inside(None, 7), outside(None, 7)), (7, 7));
    }
}
