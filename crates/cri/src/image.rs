//! CRI's ImageService.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_api::cri::image_service_server::ImageService;
use corten_api::cri::*;
use corten_base::{Digest, Namespace, Reference};
use corten_image::{Auth, Images, PullError, PullErrorKind, Secret};
use corten_pods::Engine;
use corten_store::Store;
use tonic::{Code, Request, Response, Status};

use crate::batches::{self, Answers};
use crate::runtime::now_ns;
use crate::status::{IntoStatus, Wire, status, to_the_end};
use crate::validate::{present, refuse, required};

/// What serves ImageService. It sees the namespace `k8s.io` only.
pub struct ImageServer {
    engine: Engine,
    store: Arc<Store>,
    namespace: Namespace,
}

impl ImageServer {
    /// Serves the images of this engine, which lie in `store`.
    pub fn new(engine: Engine, store: Arc<Store>) -> Self {
        Self { engine, store, namespace: Namespace::kubernetes() }
    }

    fn images(&self) -> &Images {
        self.engine.images()
    }

    fn filtered(&self, filter: Option<ImageFilter>) -> Vec<Arc<corten_image::Image>> {
        let wanted = filter.and_then(|filter| filter.image);
        match wanted.filter(|image| !image.image.is_empty()) {
            Some(spec) => self.images().find(&self.namespace, &spec.image).into_iter().collect(),
            None => self.images().list(&self.namespace),
        }
    }
}

#[tonic::async_trait]
impl ImageService for ImageServer {
    type StreamImagesStream = Answers<StreamImagesResponse>;

    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let images = self.filtered(request.into_inner().filter);
        let images = images.iter().map(|image| to_cri(image)).collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Answers<StreamImagesResponse>>, Status> {
        let images = self.filtered(request.into_inner().filter).into_iter();
        Ok(Response::new(batches::stream(images.map(|image| to_cri(&image)))))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let name = name(request.image)?;
        // An image that is not here is no error, but nothing.
        let found = self.images().find(&self.namespace, &name);
        let info = match &found {
            Some(image) if request.verbose => {
                BTreeMap::from([("info".to_owned(), inspect(image).to_string())])
            }
            Some(_) | None => BTreeMap::new(),
        };
        let image = found.map(|image| to_cri(&image));
        Ok(Response::new(ImageStatusResponse { image, info }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = name(request.image)?;
        let reference = parse(&name)?;
        let auth = request.auth.map(auth);
        // Not run to the end for a client that left: a pull is shared by all
        // who want it, and undone when the last one is gone.
        let image = self.images().pull(&self.namespace, &reference, auth, None).await.wire()?;
        Ok(Response::new(PullImageResponse { image_ref: image.id.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = name(request.into_inner().image)?;
        let (images, namespace) = (self.images().clone(), self.namespace.clone());
        to_the_end(async move { images.remove(&namespace, &name).await }).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let info = self.store.fs_info();
        let usage = FilesystemUsage {
            timestamp: now_ns(),
            fs_id: Some(FilesystemIdentifier { mountpoint: info.mountpoint.display().to_string() }),
            used_bytes: Some(UInt64Value { value: info.used_bytes }),
            inodes_used: Some(UInt64Value { value: info.inodes }),
        };
        // Containers write to the same filesystem.
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}

/// Tags of an image.
pub fn tags(images: &Images, namespace: &Namespace, id: &Digest) -> Vec<String> {
    let image = images.find(namespace, &id.to_string());
    image.map(|image| image.tags.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// A complete reference of what people or the kubelet wrote.
pub fn parse(text: &str) -> Result<Reference, Status> {
    text.parse::<Reference>().map_err(|error| refuse("image", error)).wire()
}

/// Everything known about an image.
pub fn inspect(image: &corten_image::Image) -> serde_json::Value {
    let names = |names: &[Reference]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let config = &image.config;
    serde_json::json!({
        "id": image.id.to_string(),
        "tags": names(&image.tags),
        "digests": names(&image.digests),
        "manifest": image.manifest.to_string(),
        "created": image.created,
        "sizeBytes": image.size_bytes,
        "pinned": image.pinned,
        "layers": image.layers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "config": {
            "os": config.os,
            "architecture": config.architecture,
            "env": config.env,
            "entrypoint": config.entrypoint,
            "cmd": config.cmd,
            "workingDir": config.working_dir,
            "user": config.user,
            "stopSignal": config.stop_signal,
            "volumes": config.volumes,
            "exposedPorts": config.exposed_ports,
            "labels": config.labels,
        },
    })
}

fn name(spec: Option<ImageSpec>) -> Result<String, Status> {
    let spec = present("image", spec).wire()?;
    required("image.image", &spec.image).wire()?;
    Ok(spec.image)
}

fn to_cri(image: &corten_image::Image) -> Image {
    let names = |names: &[Reference]| names.iter().map(ToString::to_string).collect();
    let (uid, username) = user(&image.config.user);
    Image {
        id: image.id.to_string(),
        repo_tags: names(&image.tags),
        repo_digests: names(&image.digests),
        size: image.size_bytes,
        uid: uid.map(|value| Int64Value { value }),
        username,
        spec: Some(ImageSpec { image: image.id.to_string(), ..Default::default() }),
        pinned: image.pinned,
    }
}

/// The image's user by number or by name, without its group: never both.
fn user(text: &str) -> (Option<i64>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(uid) => (Some(uid.into()), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

fn auth(cri: AuthConfig) -> Auth {
    Auth {
        username: cri.username,
        password: Secret::new(cri.password),
        auth: Secret::new(cri.auth),
        server_address: cri.server_address,
        identity_token: Secret::new(cri.identity_token),
        registry_token: Secret::new(cri.registry_token),
    }
}

/// What the kubelet looks for at the beginning of a message, to say that the
/// registry is down and not the image wrong.
const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";

impl IntoStatus for PullError {
    fn into_status(self) -> Status {
        let code = match self.kind {
            PullErrorKind::NotFound => Code::NotFound,
            PullErrorKind::Unauthorized => Code::Unauthenticated,
            PullErrorKind::Unavailable | PullErrorKind::Timeout => {
                let message = format!("{REGISTRY_UNAVAILABLE}: {}", self.message);
                return status(Code::Unavailable, &message);
            }
            PullErrorKind::Invalid | PullErrorKind::Config => Code::FailedPrecondition,
            PullErrorKind::DiskFull => Code::ResourceExhausted,
            PullErrorKind::Cancelled => Code::Cancelled,
            PullErrorKind::Internal => Code::Internal,
        };
        status(code, &self.message)
    }
}

impl IntoStatus for corten_image::Error {
    fn into_status(self) -> Status {
        status(Code::Internal, &self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name() {
        assert_eq!(user("1002"), (Some(1002), String::new()));
        assert_eq!(user("1003:www-data"), (Some(1003), String::new()));
        assert_eq!(user("www-data:33"), (None, "www-data".to_owned()));
        assert_eq!(user(""), (None, String::new()));
    }

    #[test]
    fn the_kubelet_sees_that_a_registry_is_down() {
        let pull = |kind| PullError { kind, message: "unable to pull".into() }.into_status();
        let down = pull(PullErrorKind::Unavailable);
        assert_eq!(down.code(), Code::Unavailable);
        assert!(down.message().starts_with("RegistryUnavailable: unable"));
        assert_eq!(pull(PullErrorKind::NotFound).code(), Code::NotFound);
        assert_eq!(pull(PullErrorKind::NotFound).message(), "unable to pull");
    }
}
