//! Mounts: paths of the host, and images.

use corten_api::cri;
use corten_pods::Result;
use corten_spec::request::{MountPropagation, MountRequest};

use super::namespaces::{mappings, mappings_to_cri};
use crate::validate::{no_nul, refuse, required};

/// Options that CRI lets a client add.
const OPTIONS: [&str; 3] = ["noexec", "nodev", "nosuid"];

/// A mount that was asked for.
pub fn from_cri(field: &str, mount: cri::Mount) -> Result<MountRequest> {
    let propagation = propagation(field, mount.propagation)?;
    let image = mount.image.map(|image| image.image);
    match &image {
        Some(image) => {
            required(&format!("{field}.image.image"), image)?;
            if !mount.readonly {
                return Err(refuse(&format!("{field}.readonly"), "an image is mounted read-only"));
            }
        }
        None => {
            required(&format!("{field}.host_path"), &mount.host_path)?;
            if !mount.image_sub_path.is_empty() {
                return Err(refuse(&format!("{field}.image_sub_path"), "there is no image"));
            }
        }
    }
    if mount.recursive_read_only && (!mount.readonly || propagation != MountPropagation::Private) {
        return Err(refuse(
            &format!("{field}.recursive_read_only"),
            "it needs readonly, and propagation PRIVATE",
        ));
    }
    if let Some(option) =
        mount.mount_options.iter().find(|option| !OPTIONS.contains(&option.as_str()))
    {
        return Err(refuse(
            &format!("{field}.mount_options"),
            format!("{option:?} is not one of noexec, nodev and nosuid"),
        ));
    }
    let container_path = required(&format!("{field}.container_path"), &mount.container_path)?;
    no_nul(&format!("{field}.container_path"), container_path)?;
    no_nul(&format!("{field}.host_path"), &mount.host_path)?;
    Ok(MountRequest {
        container_path: absolute(container_path),
        host_path: mount.host_path,
        image,
        image_sub_path: mount.image_sub_path,
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation,
        uid_mappings: mappings(&format!("{field}.uidMappings"), mount.uid_mappings)?,
        gid_mappings: mappings(&format!("{field}.gidMappings"), mount.gid_mappings)?,
        options: mount.mount_options,
        create_host_path: false,
    })
}

/// A mount as it is.
pub fn to_cri(ours: &MountRequest) -> cri::Mount {
    cri::Mount {
        container_path: ours.container_path.clone(),
        host_path: ours.host_path.clone(),
        readonly: ours.readonly,
        selinux_relabel: ours.selinux_relabel,
        propagation: propagation_to_cri(ours.propagation).into(),
        uid_mappings: mappings_to_cri(&ours.uid_mappings),
        gid_mappings: mappings_to_cri(&ours.gid_mappings),
        recursive_read_only: ours.recursive_readonly,
        image: ours
            .image
            .as_ref()
            .map(|image| cri::ImageSpec { image: image.clone(), ..Default::default() }),
        image_sub_path: ours.image_sub_path.clone(),
        mount_options: ours.options.clone(),
    }
}

/// Paths in a container are seen from its root, whether they say so or not.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(field: &str, value: i32) -> Result<MountPropagation> {
    match cri::MountPropagation::try_from(value) {
        Ok(cri::MountPropagation::PropagationPrivate) => Ok(MountPropagation::Private),
        Ok(cri::MountPropagation::PropagationHostToContainer) => {
            Ok(MountPropagation::HostToContainer)
        }
        Ok(cri::MountPropagation::PropagationBidirectional) => Ok(MountPropagation::Bidirectional),
        Err(_) => {
            Err(refuse(&format!("{field}.propagation"), format!("{value} is no propagation")))
        }
    }
}

fn propagation_to_cri(ours: MountPropagation) -> cri::MountPropagation {
    match ours {
        MountPropagation::Private => cri::MountPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind() -> cri::Mount {
        cri::Mount {
            container_path: "/data".into(),
            host_path: "/srv/data".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_mount_goes_there_and_back() {
        let mapping = cri::IdMapping { host_id: 9, container_id: 0, length: 10 };
        let full = cri::Mount {
            readonly: true,
            selinux_relabel: true,
            propagation: 0,
            uid_mappings: vec![mapping],
            gid_mappings: vec![mapping],
            recursive_read_only: true,
            mount_options: vec!["noexec".into()],
            ..bind()
        };
        assert_eq!(to_cri(&from_cri("m", full.clone()).unwrap()), full);
        let image = cri::Mount {
            container_path: "/img".into(),
            readonly: true,
            image: Some(cri::ImageSpec { image: "sha256:1".into(), ..Default::default() }),
            image_sub_path: "a/b".into(),
            ..Default::default()
        };
        assert_eq!(to_cri(&from_cri("m", image.clone()).unwrap()), image);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |mount: cri::Mount| from_cri("mounts[0]", mount).unwrap_err().to_string();
        let rro = cri::Mount { recursive_read_only: true, ..bind() };
        assert!(refused(rro.clone()).contains("mounts[0].recursive_read_only"));
        for propagation in [1, 2] {
            refused(cri::Mount { readonly: true, propagation, ..rro.clone() });
        }
        refused(cri::Mount { propagation: 3, ..bind() });
        refused(cri::Mount { host_path: String::new(), ..bind() });
        refused(cri::Mount { container_path: String::new(), ..bind() });
        refused(cri::Mount { image_sub_path: "x".into(), ..bind() });
        refused(cri::Mount { mount_options: vec!["suid".into()], ..bind() });
        let image = Some(cri::ImageSpec { image: "a".into(), ..Default::default() });
        assert!(refused(cri::Mount { image, ..bind() }).contains("readonly"));
    }
}
