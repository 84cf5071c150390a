//! People's images.

use std::time::Duration;

use corten_api::corten as api;
use corten_api::corten::pull_image_response::Event;
use corten_image::{
    ArchiveFormat, Auth, Image, LayerState, LoadedImage, PullProgress, Secret, archive_pipe,
};
use corten_pods::{ContainerFilter, Error};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::chunks::{CHUNKS_MAX, chunks};
use super::{Answers, People, namespace};
use crate::image::{inspect, parse};
use crate::status::{IntoStatus, Wire, to_the_end};
use crate::time::parse_time;
use crate::validate::{refuse, required};

/// Between two messages of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

type PullAnswer = Result<api::PullImageResponse, Status>;

impl People {
    pub(super) async fn pull_image(
        &self,
        request: api::PullImageRequest,
    ) -> Result<Answers<api::PullImageResponse>, Status> {
        let namespace = namespace(&request.namespace)?;
        let reference = parse(required("reference", &request.reference).wire()?)?;
        let auth = request.credentials.map(|credentials| Auth {
            username: credentials.username,
            password: Secret::new(credentials.password),
            ..Auth::default()
        });
        let images = self.engine.images().clone();
        let (progress, seen) = watch::channel(PullProgress::default());
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let pull = images.pull(&namespace, &reference, auth, Some(progress));
            let outcome = tokio::select! {
                outcome = pull => outcome,
                // A client that leaves gives up its share of the pull.
                () = report(seen.clone(), &answers) => return,
            };
            // How far the layers were in the end, then what came of it.
            let last = api::PullImageResponse {
                event: Some(Event::Progress(progress_to_api(&seen.borrow()))),
            };
            let result = outcome.wire().map(|image| api::PullImageResponse {
                event: Some(Event::Result(result(&reference, &image))),
            });
            if answers.send(Ok(last)).await.is_ok() {
                let _ = answers.send(result).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }

    pub(super) async fn save_images(
        &self,
        request: api::SaveImagesRequest,
    ) -> Result<Answers<api::SaveImagesResponse>, Status> {
        let namespace = namespace(&request.namespace)?;
        let format = match request.format() {
            api::ArchiveFormat::Unspecified | api::ArchiveFormat::Oci => ArchiveFormat::Oci,
            api::ArchiveFormat::Docker => ArchiveFormat::Docker,
        };
        let images = self.engine.images().clone();
        let (answers, stream) = mpsc::channel(CHUNKS_MAX);
        let out = chunks(answers.clone(), |chunk| api::SaveImagesResponse { chunk });
        tokio::spawn(async move {
            // A client that has left is told nothing.
            if let Err(error) = images.save(&namespace, request.images, format, out).await {
                let _ = answers.send(Err(error.into_status())).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }

    pub(super) async fn load_images(
        &self,
        mut requests: Streaming<api::LoadImagesRequest>,
    ) -> Result<api::LoadImagesResponse, Status> {
        let Some(first) = requests.message().await? else {
            return Err(refuse("archive", "it is empty")).wire();
        };
        let namespace = namespace(&first.namespace)?;
        let (sender, reader) = archive_pipe();
        let sending = async move {
            let mut next = Some(first);
            while let Some(request) = next {
                if !sender.send(request.chunk).await {
                    return Ok(());
                }
                next = requests.message().await?;
            }
            sender.finish().await;
            Ok::<(), Status>(())
        };
        let (sent, loaded) = tokio::join!(sending, self.engine.images().load(&namespace, reader));
        sent?;
        let image = |loaded: &LoadedImage| api::LoadedImage {
            image_id: loaded.image.id.to_string(),
            references: loaded.references.iter().map(ToString::to_string).collect(),
        };
        Ok(api::LoadImagesResponse { images: loaded.wire()?.iter().map(image).collect() })
    }

    pub(super) async fn list_images(
        &self,
        request: api::ListImagesRequest,
    ) -> Result<api::ListImagesResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let images = match request.filter.as_str() {
            "" => self.engine.images().list(&namespace),
            name => self.engine.images().find(&namespace, name).into_iter().collect(),
        };
        let containers = self.engine.containers(&namespace, &ContainerFilter::default());
        let summary = |image: &Image| {
            let of_it = containers.iter().filter(|container| container.image_id == image.id);
            summary(image, u32::try_from(of_it.count()).unwrap_or(u32::MAX))
        };
        let mut images: Vec<_> = images.iter().map(|image| summary(image)).collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.created_at_ns));
        Ok(api::ListImagesResponse { images })
    }

    pub(super) async fn remove_image(
        &self,
        request: api::RemoveImageRequest,
    ) -> Result<api::RemoveImageResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let image = self.image(&request.namespace, &request.image)?;
        let last_name = image.tags.len() < 2;
        let containers = self.engine.containers(&namespace, &ContainerFilter::default());
        let user = containers.iter().find(|container| container.image_id == image.id);
        if let Some(user) = user.filter(|_| last_name && !request.force) {
            return Err(Error::precondition(format!(
                "unable to remove image {:?}: container {:?} was made of it; remove that first, \
                 or use force",
                request.image, user.config.name
            )))
            .wire();
        }
        let images = self.engine.images().clone();
        let removed =
            to_the_end(async move { images.untag(&namespace, &request.image).await }).await?;
        let Some(removed) = removed else { return Ok(api::RemoveImageResponse::default()) };
        Ok(api::RemoveImageResponse {
            untagged: removed.names.iter().map(ToString::to_string).collect(),
            deleted: if removed.deleted { removed.id.to_string() } else { String::new() },
        })
    }

    pub(super) async fn inspect_image(
        &self,
        request: api::InspectImageRequest,
    ) -> Result<api::InspectImageResponse, Status> {
        let image = self.image(&request.namespace, &request.image)?;
        Ok(api::InspectImageResponse { json: inspect(&image).to_string() })
    }

    fn image(&self, space: &str, name: &str) -> Result<std::sync::Arc<Image>, Status> {
        let namespace = namespace(space)?;
        let name = required("image", name).wire()?;
        let found = self.engine.images().find(&namespace, name);
        found.ok_or_else(|| Error::not_found("image", name)).wire()
    }
}

/// Sends progress until the client has left.
async fn report(mut seen: watch::Receiver<PullProgress>, answers: &mpsc::Sender<PullAnswer>) {
    let sending = async {
        while seen.changed().await.is_ok() {
            let progress = progress_to_api(&seen.borrow_and_update());
            let message = api::PullImageResponse { event: Some(Event::Progress(progress)) };
            if answers.send(Ok(message)).await.is_err() {
                return;
            }
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
        // The pull has let go of its end: its outcome is a moment away.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = sending => {}
        () = answers.closed() => {}
    }
}

fn progress_to_api(progress: &PullProgress) -> api::PullProgress {
    let state = |state| match state {
        LayerState::Waiting => api::LayerState::Waiting,
        LayerState::Fetching | LayerState::Unpacking => api::LayerState::Fetching,
        LayerState::Done => api::LayerState::Done,
        LayerState::Exists => api::LayerState::Present,
    };
    let layer = |layer: &corten_image::LayerProgress| api::LayerProgress {
        digest: layer.digest.to_string(),
        total_bytes: layer.bytes_total,
        fetched_bytes: layer.bytes_done,
        state: state(layer.state).into(),
    };
    api::PullProgress { layers: progress.layers.iter().map(layer).collect() }
}

fn result(reference: &corten_base::Reference, image: &Image) -> api::PullResult {
    let by_digest = image.digests.iter().find(|digest| digest.name() == reference.name());
    let digest = by_digest.and_then(|name| name.digest().copied()).unwrap_or(image.manifest);
    api::PullResult {
        reference: reference.to_string(),
        image_id: image.id.to_string(),
        digest: digest.to_string(),
        size_bytes: image.size_bytes,
    }
}

fn summary(image: &Image, containers: u32) -> api::ImageSummary {
    let names = |names: &[corten_base::Reference]| names.iter().map(ToString::to_string).collect();
    api::ImageSummary {
        id: image.id.to_string(),
        tags: names(&image.tags),
        digests: names(&image.digests),
        size_bytes: image.size_bytes,
        created_at_ns: parse_time(&image.created).unwrap_or_default(),
        containers,
    }
}
