//! Images as volumes: found when a container is asked for, mounted read-only
//! when it is made, and kept as long as it is there.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use corten_base::Namespace;
use corten_spec::request::{ContainerConfig, MountRequest};
use corten_store::MountAs;

use super::Inner;
use crate::error::{Error, Kind, Result};
use crate::record::ImageVolume;
use crate::table::Container;

/// What the kubelet looks for to say that a volume, and not the container's
/// own image, is at fault.
const REASON: &str = "ImageVolumeMountFailed";

/// Mounts of image volumes, by the names that a spec has for them.
pub(super) type Volumes = BTreeMap<String, OwnedFd>;

impl Inner {
    /// Finds the images that a container wants as volumes; they were pulled
    /// before, like its own.
    pub(super) fn find_volumes(
        &self,
        namespace: &Namespace,
        config: &ContainerConfig,
    ) -> Result<Vec<ImageVolume>> {
        let mut volumes = Vec::new();
        for (mount, request) in config.mounts.iter().enumerate() {
            let Some(name) = &request.image else { continue };
            let image = self.images.find(namespace, name).ok_or_else(|| {
                let what = format!("image {name:?} of a volume is not on this node: pull it first");
                Error::new(Kind::NotFound, what).because(REASON)
            })?;
            volumes.push(ImageVolume { mount, image_id: image.id, layers: image.layers.clone() });
        }
        Ok(volumes)
    }

    /// Mounts them. The layers are kept from here on until the container's
    /// snapshot, which is there already, is removed.
    pub(super) fn open_volumes(&self, container: &Container, how: MountAs<'_>) -> Result<Volumes> {
        let volumes = container.record.borrow().volumes.clone();
        let mut opened = Volumes::new();
        if volumes.is_empty() {
            return Ok(opened);
        }
        let mut layers: Vec<_> =
            volumes.iter().flat_map(|volume| &volume.layers).copied().collect();
        layers.sort_unstable();
        layers.dedup();
        let snapshots = self.store.snapshotter();
        snapshots
            .hold(&container.id, &layers)
            .map_err(|error| Error::internal(error.to_string()).because(REASON))?;
        for volume in &volumes {
            let request = &container.config.mounts[volume.mount];
            let view = snapshots.view(&volume.layers, &request.image_sub_path, how);
            let view = view.map_err(|error| failed(request, &error))?;
            opened.insert(self.volume_name(container, volume.mount), view);
        }
        Ok(opened)
    }

    /// What a spec calls the source of an image volume. Our launcher is handed
    /// a descriptor; nothing is at that path.
    pub(super) fn volume_name(&self, container: &Container, mount: usize) -> String {
        let dir = self.journal.container_dir(&container.sandbox.id, &container.id);
        dir.join("volumes").join(mount.to_string()).display().to_string()
    }
}

fn failed(request: &MountRequest, error: &corten_store::Error) -> Error {
    let kind = match error {
        corten_store::Error::NotFound { .. } => Kind::InvalidArgument,
        _ => Kind::Internal,
    };
    let image = request.image.as_deref().unwrap_or_default();
    let path = &request.container_path;
    Error::new(kind, format!("unable to mount image {image:?} at {path}: {error}")).because(REASON)
}
