//! Which seccomp and AppArmor profiles hold for a container.

use super::ContainerInput;
use crate::capabilities;
use crate::error::{Error, Result};
use crate::oci::{Process, Seccomp};
use crate::request::Profile;
use crate::seccomp;

/// The filter of a container; none for privileged and unconfined ones.
pub(super) fn seccomp(input: &ContainerInput<'_>, process: &Process) -> Result<Option<Seccomp>> {
    let security = &input.container.security;
    if security.privileged {
        return Ok(None);
    }
    let held = process.capabilities.as_ref().map_or(0, |sets| capabilities::bits(&sets.bounding));
    let machine = seccomp::Machine { capabilities: held, kernel: input.policy.kernel };
    match &security.seccomp {
        Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => Ok(Some(seccomp::default_profile(&machine))),
        Profile::Localhost(name) => {
            let text = input.seccomp_profile.ok_or_else(|| Error::Profile {
                name: name.clone(),
                reason: "its file was not read; put it where the name says".into(),
            })?;
            seccomp::parse_profile(name, text, &machine).map(Some)
        }
    }
}

/// The AppArmor profile's name; empty for none.
pub(super) fn apparmor(input: &ContainerInput<'_>) -> Result<String> {
    let policy = input.policy;
    let default = policy.apparmor_default.as_ref();
    match &input.container.security.apparmor {
        None if input.container.security.privileged => Ok(String::new()),
        Some(Profile::RuntimeDefault) if policy.apparmor && default.is_none() => {
            Err(Error::Unavailable {
                verb: "confine the container by our own AppArmor profile".into(),
                reason: "it could not be loaded; the daemon's log says why",
            })
        }
        None | Some(Profile::RuntimeDefault) => Ok(default.cloned().unwrap_or_default()),
        Some(Profile::Unconfined) if policy.apparmor => Ok("unconfined".into()),
        Some(Profile::Unconfined) => Ok(String::new()),
        Some(Profile::Localhost(name)) if policy.apparmor => Ok(name.clone()),
        Some(Profile::Localhost(name)) => Err(Error::Unavailable {
            verb: format!("confine the container by AppArmor profile {name:?}"),
            reason: "AppArmor is not enabled on this node",
        }),
    }
}
