//! CRI's ImageService.

use corten_api::cri::image_service_server::ImageService;
use corten_base::{Digest, Namespace};
use corten_image::Images;
use corten_pods::Engine;

/// What serves ImageService.
pub struct ImageServer {
    engine: Engine,
}

impl ImageServer {
    /// Serves the images of this engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl ImageService for ImageServer {}

/// Tags of an image.
pub fn tags(images: &Images, namespace: &Namespace, id: &Digest) -> Vec<String> {
    let _ = (images, namespace, id);
    Vec::new()
}

/// Namespaces that hold images.
pub fn namespaces(images: &Images) -> Vec<Namespace> {
    let _ = images;
    Vec::new()
}
