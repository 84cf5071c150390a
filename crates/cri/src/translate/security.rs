//! Users, profiles and SELinux contexts.

use corten_api::cri;
use corten_pods::Result;
use corten_spec::request::{GroupsPolicy, Profile, RunAs, Security, SelinuxOptions};

use super::namespaces;
use crate::validate::{kernel_id, no_nul, refuse, required};

/// A user, as CRI scatters it over a security context.
pub struct Who {
    /// `run_as_user`
    pub user: Option<cri::Int64Value>,
    /// `run_as_username`
    pub username: String,
    /// `run_as_group`
    pub group: Option<cri::Int64Value>,
    /// `supplemental_groups`
    pub groups: Vec<i64>,
    /// `supplemental_groups_policy`
    pub policy: i32,
}

/// A user that was asked for.
pub fn run_as(field: &str, who: Who) -> Result<RunAs> {
    if who.group.is_some() && who.user.is_none() && who.username.is_empty() {
        return Err(refuse(
            &format!("{field}.run_as_group"),
            "a group is taken only together with run_as_user or run_as_username",
        ));
    }
    let id = |name: &str, value: Option<cri::Int64Value>| {
        value.map(|value| kernel_id(&format!("{field}.{name}"), value.value)).transpose()
    };
    let policy = cri::SupplementalGroupsPolicy::try_from(who.policy).map_err(|_| {
        refuse(&format!("{field}.supplemental_groups_policy"), "it is Merge or Strict")
    })?;
    // A newline would end the line of a passwd file that is looked up or made.
    if who.username.contains(['\n', ':', '\0']) {
        return Err(refuse(
            &format!("{field}.run_as_username"),
            "a user name holds no colon, newline or NUL",
        ));
    }
    Ok(RunAs {
        uid: id("run_as_user", who.user)?,
        username: who.username,
        gid: id("run_as_group", who.group)?,
        supplemental_groups: who
            .groups
            .into_iter()
            .map(|group| kernel_id(&format!("{field}.supplemental_groups"), group))
            .collect::<Result<_>>()?,
        groups_policy: match policy {
            cri::SupplementalGroupsPolicy::Merge => GroupsPolicy::Merge,
            cri::SupplementalGroupsPolicy::Strict => GroupsPolicy::Strict,
        },
    })
}

/// A profile that was asked for: in the form of today, else as the text of
/// old clients; none where nothing was said.
pub fn profile(
    field: &str,
    profile: Option<cri::SecurityProfile>,
    old: &str,
) -> Result<Option<Profile>> {
    use cri::security_profile::ProfileType;
    let Some(profile) = profile else { return old_profile(field, old) };
    let kind = ProfileType::try_from(profile.profile_type)
        .map_err(|_| refuse(field, "its profile_type is unknown"))?;
    Ok(Some(match kind {
        ProfileType::RuntimeDefault => Profile::RuntimeDefault,
        ProfileType::Unconfined => Profile::Unconfined,
        ProfileType::Localhost => {
            let name = required(&format!("{field}.localhost_ref"), &profile.localhost_ref)?;
            Profile::Localhost(localhost(field, name)?)
        }
    }))
}

fn old_profile(field: &str, text: &str) -> Result<Option<Profile>> {
    match text {
        "" => Ok(None),
        "unconfined" => Ok(Some(Profile::Unconfined)),
        "runtime/default" | "docker/default" => Ok(Some(Profile::RuntimeDefault)),
        _ => match text.strip_prefix("localhost/") {
            Some(name) if !name.is_empty() => Ok(Some(Profile::Localhost(localhost(field, name)?))),
            Some(_) | None => Err(refuse(
                field,
                format!("{text:?} is not unconfined, runtime/default or localhost/<name>"),
            )),
        },
    }
}

/// Some clients write `localhost/` in the new form too.
fn localhost(field: &str, name: &str) -> Result<String> {
    Ok(no_nul(field, name)?.trim_start_matches("localhost/").to_owned())
}

/// An SELinux context that was asked for; none where all of it is empty.
pub fn selinux(options: Option<cri::SeLinuxOption>) -> Option<SelinuxOptions> {
    let options = options?;
    let ours = SelinuxOptions {
        user: options.user,
        role: options.role,
        kind: options.r#type,
        level: options.level,
    };
    (ours != SelinuxOptions::default()).then_some(ours)
}

/// The security settings of a container that were asked for.
pub fn container(
    field: &str,
    context: Option<cri::LinuxContainerSecurityContext>,
) -> Result<Security> {
    let Some(context) = context else { return Ok(Security::default()) };
    #[allow(deprecated)]
    let (old_seccomp, old_apparmor) = (context.seccomp_profile_path, context.apparmor_profile);
    let capabilities = context.capabilities.unwrap_or_default();
    let who = Who {
        user: context.run_as_user,
        username: context.run_as_username,
        group: context.run_as_group,
        groups: context.supplemental_groups,
        policy: context.supplemental_groups_policy,
    };
    let namespaces = namespaces::from_cri(
        &format!("{field}.namespace_options"),
        context.namespace_options,
        false,
    )?;
    Ok(Security {
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        add_ambient_capabilities: capabilities.add_ambient_capabilities,
        privileged: context.privileged,
        namespaces,
        selinux: selinux(context.selinux_options),
        run_as: run_as(field, who)?,
        readonly_rootfs: context.readonly_rootfs,
        seccomp: profile(&format!("{field}.seccomp"), context.seccomp, &old_seccomp)?
            .unwrap_or_default(),
        apparmor: profile(&format!("{field}.apparmor"), context.apparmor, &old_apparmor)?,
        // Empty lists are what the kubelet sends for procMount Unmasked.
        masked_paths: Some(absolute(&format!("{field}.masked_paths"), context.masked_paths)?),
        readonly_paths: Some(absolute(&format!("{field}.readonly_paths"), context.readonly_paths)?),
        no_new_privileges: context.no_new_privs,
    })
}

fn absolute(field: &str, paths: Vec<String>) -> Result<Vec<String>> {
    match paths.iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(refuse(field, format!("{path:?} is not an absolute path"))),
        None => Ok(paths),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::security_profile::ProfileType;

    fn who() -> Who {
        Who { user: None, username: String::new(), group: None, groups: Vec::new(), policy: 0 }
    }

    fn number(value: i64) -> Option<cri::Int64Value> {
        Some(cri::Int64Value { value })
    }

    #[test]
    fn a_group_needs_a_user() {
        assert!(run_as("c", Who { group: number(5), ..who() }).is_err());
        let ours = run_as("c", Who { group: number(5), user: number(0), ..who() }).unwrap();
        assert_eq!((ours.uid, ours.gid), (Some(0), Some(5)));
        let named = Who { group: number(5), username: "www".into(), ..who() };
        assert_eq!(run_as("c", named).unwrap().username, "www");
    }

    #[test]
    fn a_user_cannot_smuggle_a_passwd_line() {
        for name in ["a\nroot:x:0:0::/:/bin/sh", "a:b", "a\0"] {
            assert!(run_as("c", Who { username: name.into(), ..who() }).is_err(), "{name:?}");
        }
        assert!(run_as("c", Who { groups: vec![-1], ..who() }).is_err());
        let strict = run_as("c", Who { policy: 1, ..who() }).unwrap();
        assert_eq!(strict.groups_policy, GroupsPolicy::Strict);
    }

    #[test]
    fn profiles_of_today_come_before_old_ones() {
        let new = |kind: ProfileType, name: &str| {
            Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
        };
        let get = |new, old: &str| profile("seccomp", new, old);
        assert_eq!(get(None, "").unwrap(), None);
        assert_eq!(get(None, "docker/default").unwrap(), Some(Profile::RuntimeDefault));
        assert_eq!(
            get(None, "localhost/p.json").unwrap(),
            Some(Profile::Localhost("p.json".into()))
        );
        assert_eq!(
            get(new(ProfileType::Unconfined, ""), "runtime/default").unwrap(),
            Some(Profile::Unconfined)
        );
        assert_eq!(
            get(new(ProfileType::Localhost, "/etc/p.json"), "").unwrap(),
            Some(Profile::Localhost("/etc/p.json".into()))
        );
        assert!(get(new(ProfileType::Localhost, ""), "").is_err());
        assert!(get(None, "localhost/").is_err());
        assert!(get(None, "something").is_err());
    }

    #[test]
    fn all_of_a_security_context_arrives() {
        let context = cri::LinuxContainerSecurityContext {
            capabilities: Some(cri::Capability {
                add_capabilities: vec!["NET_ADMIN".into()],
                drop_capabilities: vec!["ALL".into()],
                add_ambient_capabilities: vec!["CHOWN".into()],
            }),
            privileged: true,
            namespace_options: Some(cri::NamespaceOption { pid: 1, ..Default::default() }),
            selinux_options: Some(cri::SeLinuxOption { r#type: "t".into(), ..Default::default() }),
            run_as_user: number(7),
            run_as_group: number(8),
            readonly_rootfs: true,
            supplemental_groups: vec![9],
            no_new_privs: true,
            masked_paths: vec!["/proc/kcore".into()],
            readonly_paths: vec!["/proc/sys".into()],
            seccomp: Some(cri::SecurityProfile::default()),
            apparmor: Some(cri::SecurityProfile { profile_type: 1, localhost_ref: String::new() }),
            ..Default::default()
        };
        let ours = container("linux.security_context", Some(context)).unwrap();
        assert_eq!(ours.add_capabilities, ["NET_ADMIN"]);
        assert_eq!(ours.drop_capabilities, ["ALL"]);
        assert_eq!(ours.add_ambient_capabilities, ["CHOWN"]);
        assert!(ours.privileged && ours.readonly_rootfs && ours.no_new_privileges);
        assert_eq!(ours.namespaces.pid, corten_spec::request::NamespaceMode::Container);
        assert_eq!(ours.selinux.unwrap().kind, "t");
        assert_eq!((ours.run_as.uid, ours.run_as.gid), (Some(7), Some(8)));
        assert_eq!(ours.run_as.supplemental_groups, [9]);
        assert_eq!(ours.seccomp, Profile::RuntimeDefault);
        assert_eq!(ours.apparmor, Some(Profile::Unconfined));
        assert_eq!(ours.masked_paths.unwrap(), ["/proc/kcore"]);
        assert_eq!(ours.readonly_paths.unwrap(), ["/proc/sys"]);
    }
}
