//! Where the cgroup of a pod lies, by who makes cgroups on this node.
//!
//! | driver | the client's parent | the pod's cgroup |
//! |---|---|---|
//! | cgroupfs | none | `<root>/<pod>` |
//! | cgroupfs | `/kubepods/podX` | `/kubepods/podX` |
//! | systemd | none | `/corten.slice/corten-<pod>.scope` |
//! | systemd | `kubepods-podX.slice` | `/kubepods.slice/kubepods-podX.slice/corten-<pod>.scope` |
//!
//! Containers are groups right below it, named by their id. A scope is
//! delegated to us: systemd makes it, and what is in it is ours alone. Its
//! shim lives in it too, since systemd ends a scope that nobody is in.

use corten_base::SandboxId;
use corten_kernel::cgroup::Cgroups;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Who makes the cgroups of pods; the kubelet asks, and does the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupDriver {
    /// We do, in the file system.
    #[default]
    Cgroupfs,
    /// systemd does.
    Systemd,
}

/// A unit of systemd that holds one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// `corten-<pod>.scope`
    pub name: String,
    /// The slice that it belongs to, by its name alone.
    pub slice: String,
}

/// A pod's place.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Its cgroup.
    pub cgroup: String,
    /// It is the pod's alone, and goes with it.
    pub owned: bool,
    /// Made by systemd.
    pub scope: Option<Scope>,
}

impl CgroupDriver {
    /// The driver for this machine: systemd where it is PID 1 and has every
    /// controller (it does not share the old hierarchies).
    pub fn detect() -> Self {
        let unified = Cgroups::probe().is_ok_and(|cgroups| cgroups.is_unified());
        if systemd_runs() && unified { Self::Systemd } else { Self::Cgroupfs }
    }

    /// Says why this driver cannot work here.
    pub fn check(self, cgroups: &Cgroups) -> Result<()> {
        let why = match self {
            Self::Cgroupfs => return Ok(()),
            Self::Systemd if !systemd_runs() => "systemd is not PID 1",
            Self::Systemd if !cgroups.is_unified() => {
                "this machine has old (v1) hierarchies, which systemd does not delegate"
            }
            Self::Systemd => return Ok(()),
        };
        Err(Error::invalid(format!(
            "unable to use the cgroup driver \"systemd\": {why}; set cgroup.driver to \"cgroupfs\" or \"auto\""
        )))
    }

    /// Where a pod goes: below `parent`, which its client made, or below
    /// `root` where the client names none.
    pub fn place(self, root: &str, parent: &str, id: &SandboxId) -> Result<Place> {
        let last = parent.rsplit('/').next().unwrap_or_default();
        match (self, parent) {
            (Self::Cgroupfs, "") => {
                Ok(Place { cgroup: format!("{root}/{id}"), owned: true, scope: None })
            }
            (Self::Cgroupfs, _) if last.ends_with(SLICE) => Err(Error::invalid(format!(
                "unable to use the cgroup parent {parent:?}: it is a slice of systemd, but cgroups are made by the driver \"cgroupfs\" on this node (cgroup.driver in Corten's configuration, cgroupDriver in the kubelet's: make them agree)"
            ))),
            (Self::Cgroupfs, _) => {
                Ok(Place { cgroup: parent.to_owned(), owned: false, scope: None })
            }
            (Self::Systemd, "") => Self::in_slice(&slice_of(root), id),
            (Self::Systemd, _) if !last.ends_with(SLICE) => Err(Error::invalid(format!(
                "unable to use the cgroup parent {parent:?}: it is no slice such as kubepods-pod7.slice, but cgroups are made by the driver \"systemd\" on this node (cgroup.driver in Corten's configuration, cgroupDriver in the kubelet's: make them agree)"
            ))),
            (Self::Systemd, _) => {
                let path = slice_path(last)?;
                // The kubelet gives the whole path, others the name alone.
                if last.len() != parent.len() && parent.trim_start_matches('/') != &path[1..] {
                    return Err(Error::invalid(format!(
                        "unable to use the cgroup parent {parent:?}: systemd has the slice {last} at {path}"
                    )));
                }
                Self::in_slice(last, id)
            }
        }
    }

    fn in_slice(slice: &str, id: &SandboxId) -> Result<Place> {
        let scope = Scope { name: format!("corten-{id}.scope"), slice: slice.to_owned() };
        let cgroup = format!("{}/{}", slice_path(slice)?, scope.name);
        Ok(Place { cgroup, owned: true, scope: Some(scope) })
    }
}

const SLICE: &str = ".slice";

fn systemd_runs() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// `/corten` as a slice: `corten.slice`.
fn slice_of(root: &str) -> String {
    format!("{}{SLICE}", root.trim_matches('/').replace('/', "-"))
}

/// Where systemd has a slice: `a-b.slice` lies in `/a.slice/a-b.slice`.
fn slice_path(name: &str) -> Result<String> {
    let wrong = || {
        Error::invalid(format!(
            "unable to use the slice {name:?}: a name is made of letters, digits, dots, colons, underscores and single dashes, as in kubepods-besteffort.slice"
        ))
    };
    let stem = name.strip_suffix(SLICE).ok_or_else(wrong)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@".contains(&byte);
    let parts: Vec<&str> = stem.split('-').collect();
    let valid = |part: &&str| !part.is_empty() && part.bytes().all(plain);
    if !parts.iter().all(valid) || name.len() > NAME_BYTES_MAX {
        return Err(wrong());
    }
    let prefix = |count: usize| format!("/{}{SLICE}", parts[..count].join("-"));
    Ok((1..=parts.len()).map(prefix).collect())
}

/// Bytes of the name of a unit.
const NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SandboxId {
        SandboxId::from_random([7; 32])
    }

    #[test]
    fn files_alone() {
        let place = |parent| CgroupDriver::Cgroupfs.place("/corten", parent, &id());
        let own = place("").unwrap();
        assert_eq!((own.cgroup, own.owned), (format!("/corten/{}", id()), true));
        let theirs = place("/kubepods/pod7").unwrap();
        assert_eq!((theirs.cgroup.as_str(), theirs.owned), ("/kubepods/pod7", false));
        let error = place("/kubepods.slice/kubepods-pod7.slice").unwrap_err();
        assert!(error.message().contains("cgroupfs"), "{error}");
    }

    #[test]
    fn with_systemd() {
        let place = |parent| CgroupDriver::Systemd.place("/corten", parent, &id());
        let own = place("").unwrap();
        assert_eq!(own.cgroup, format!("/corten.slice/corten-{}.scope", id()));
        let path = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7_1.slice";
        for parent in [path, "kubepods-burstable-pod7_1.slice"] {
            let place = place(parent).unwrap();
            assert_eq!(place.cgroup, format!("{path}/corten-{}.scope", id()));
            assert_eq!(place.scope.unwrap().slice, "kubepods-burstable-pod7_1.slice");
            assert!(place.owned, "the scope, not the slice");
        }
        for wrong in
            ["/kubepods/pod7", "/x/kubepods-pod7.slice", "a--b.slice", "-.slice", "a b.slice"]
        {
            let error = place(wrong).unwrap_err();
            assert!(error.message().contains("slice"), "{error}");
        }
        let named = CgroupDriver::Systemd.place("/people/of-x", "", &id()).unwrap();
        assert!(named.cgroup.starts_with("/people.slice/people-of.slice/people-of-x.slice/"));
    }
}
