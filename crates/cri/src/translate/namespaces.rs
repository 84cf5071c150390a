//! Namespaces of pods and containers.

use corten_api::cri;
use corten_pods::Result;
use corten_spec::request::{IdMapping, NamespaceMode, NamespaceOptions, UserNamespace};

use crate::validate::{refuse, required};

/// Namespaces that were asked for. `sandbox` ones cannot be another container's.
pub fn from_cri(
    field: &str,
    options: Option<cri::NamespaceOption>,
    sandbox: bool,
) -> Result<NamespaceOptions> {
    let Some(options) = options else { return Ok(NamespaceOptions::default()) };
    let pid = match mode(&format!("{field}.pid"), options.pid)? {
        cri::NamespaceMode::Pod => NamespaceMode::Pod,
        cri::NamespaceMode::Container => NamespaceMode::Container,
        cri::NamespaceMode::Node => NamespaceMode::Node,
        cri::NamespaceMode::Target if sandbox => {
            return Err(refuse(&format!("{field}.pid"), "a sandbox has no target container"));
        }
        cri::NamespaceMode::Target => NamespaceMode::Target(
            required(&format!("{field}.target_id"), &options.target_id)?.to_owned(),
        ),
    };
    Ok(NamespaceOptions {
        network: shared(&format!("{field}.network"), options.network)?,
        pid,
        ipc: shared(&format!("{field}.ipc"), options.ipc)?,
        user: user(&format!("{field}.userns_options"), options.userns_options)?,
    })
}

/// Namespaces as they are.
pub fn to_cri(ours: &NamespaceOptions) -> cri::NamespaceOption {
    let target = match &ours.pid {
        NamespaceMode::Target(id) => id.clone(),
        NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Node => String::new(),
    };
    cri::NamespaceOption {
        network: mode_to_cri(&ours.network).into(),
        pid: mode_to_cri(&ours.pid).into(),
        ipc: mode_to_cri(&ours.ipc).into(),
        target_id: target,
        userns_options: ours.user.as_ref().map(|user| cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: mappings_to_cri(&user.uids),
            gids: mappings_to_cri(&user.gids),
        }),
    }
}

/// Id mappings that were asked for.
pub fn mappings(field: &str, mappings: Vec<cri::IdMapping>) -> Result<Vec<IdMapping>> {
    for mapping in &mappings {
        let fits = |first: u32| first.checked_add(mapping.length).is_some();
        if mapping.length == 0 || !fits(mapping.host_id) || !fits(mapping.container_id) {
            return Err(refuse(field, "a mapping has a length, and ends below 2^32"));
        }
    }
    Ok(mappings
        .into_iter()
        .map(|mapping| IdMapping {
            container_id: mapping.container_id,
            host_id: mapping.host_id,
            length: mapping.length,
        })
        .collect())
}

/// Id mappings as they are.
pub fn mappings_to_cri(mappings: &[IdMapping]) -> Vec<cri::IdMapping> {
    mappings
        .iter()
        .map(|mapping| cri::IdMapping {
            host_id: mapping.host_id,
            container_id: mapping.container_id,
            length: mapping.length,
        })
        .collect()
}

fn mode(field: &str, value: i32) -> Result<cri::NamespaceMode> {
    cri::NamespaceMode::try_from(value)
        .map_err(|_| refuse(field, format!("{value} is no namespace mode")))
}

/// Networks and IPC are the pod's or the host's, never one container's.
fn shared(field: &str, value: i32) -> Result<NamespaceMode> {
    match mode(field, value)? {
        cri::NamespaceMode::Pod => Ok(NamespaceMode::Pod),
        cri::NamespaceMode::Node => Ok(NamespaceMode::Node),
        cri::NamespaceMode::Container | cri::NamespaceMode::Target => {
            Err(refuse(field, "it is POD or NODE"))
        }
    }
}

fn mode_to_cri(mode: &NamespaceMode) -> cri::NamespaceMode {
    match mode {
        NamespaceMode::Pod => cri::NamespaceMode::Pod,
        NamespaceMode::Container => cri::NamespaceMode::Container,
        NamespaceMode::Node => cri::NamespaceMode::Node,
        NamespaceMode::Target(_) => cri::NamespaceMode::Target,
    }
}

/// Kubernetes maps exactly one run of ids, the same for users and groups,
/// and root is in it.
fn user(field: &str, options: Option<cri::UserNamespace>) -> Result<Option<UserNamespace>> {
    let Some(options) = options else { return Ok(None) };
    match mode(&format!("{field}.mode"), options.mode)? {
        cri::NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => {
            return Ok(None);
        }
        cri::NamespaceMode::Node => {
            return Err(refuse(field, "the host's user namespace has no mappings"));
        }
        cri::NamespaceMode::Pod => {}
        cri::NamespaceMode::Container | cri::NamespaceMode::Target => {
            return Err(refuse(&format!("{field}.mode"), "it is POD or NODE"));
        }
    }
    let uids = mappings(&format!("{field}.uids"), options.uids)?;
    let gids = mappings(&format!("{field}.gids"), options.gids)?;
    for (name, list) in [("uids", &uids), ("gids", &gids)] {
        if list.len() != 1 || list[0].container_id != 0 {
            return Err(refuse(
                &format!("{field}.{name}"),
                "exactly one mapping is taken, and it begins at container id 0",
            ));
        }
    }
    if uids != gids {
        return Err(refuse(field, "users and groups need the same mapping"));
    }
    Ok(Some(UserNamespace { uids, gids }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_id: u32) -> cri::IdMapping {
        cri::IdMapping { host_id: 1000, container_id, length: 65_536 }
    }

    fn with_user(user: cri::UserNamespace) -> Result<NamespaceOptions> {
        let options = cri::NamespaceOption { userns_options: Some(user), ..Default::default() };
        from_cri("namespace_options", Some(options), true)
    }

    #[test]
    fn namespaces_go_there_and_back() {
        let cri = cri::NamespaceOption {
            network: cri::NamespaceMode::Node.into(),
            pid: cri::NamespaceMode::Target.into(),
            ipc: cri::NamespaceMode::Pod.into(),
            target_id: "abc".into(),
            userns_options: Some(cri::UserNamespace {
                mode: cri::NamespaceMode::Pod.into(),
                uids: vec![mapping(0)],
                gids: vec![mapping(0)],
            }),
        };
        let ours = from_cri("n", Some(cri.clone()), false).unwrap();
        assert_eq!(ours.pid, NamespaceMode::Target("abc".into()));
        assert_eq!(to_cri(&ours), cri);
        assert!(from_cri("n", Some(cri), true).is_err(), "a sandbox has no target");
    }

    #[test]
    fn a_user_namespace_has_one_mapping_with_root() {
        let pod = |uids: Vec<_>, gids: Vec<_>| {
            with_user(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids, gids })
        };
        assert!(pod(vec![mapping(0)], vec![mapping(0)]).is_ok());
        assert!(pod(vec![mapping(0), mapping(0)], vec![mapping(0), mapping(0)]).is_err());
        assert!(pod(vec![mapping(1)], vec![mapping(1)]).is_err());
        assert!(pod(vec![mapping(0)], vec![]).is_err());
        assert!(pod(vec![], vec![]).is_err());
        for mode in [cri::NamespaceMode::Container, cri::NamespaceMode::Target] {
            assert!(
                with_user(cri::UserNamespace { mode: mode.into(), ..Default::default() }).is_err()
            );
        }
        let node =
            cri::UserNamespace { mode: cri::NamespaceMode::Node.into(), ..Default::default() };
        assert_eq!(with_user(node).unwrap().user, None);
    }

    #[test]
    fn networks_are_never_one_containers() {
        for mode in [cri::NamespaceMode::Container, cri::NamespaceMode::Target] {
            let options = cri::NamespaceOption { network: mode.into(), ..Default::default() };
            assert!(from_cri("n", Some(options), false).is_err());
        }
        let options = cri::NamespaceOption { ipc: 9, ..Default::default() };
        assert!(from_cri("n", Some(options), false).is_err());
    }
}
