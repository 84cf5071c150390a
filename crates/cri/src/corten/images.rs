use super::{Answers, People};
use corten_api::corten as api;
use tonic::{Status, Streaming};
impl People {
    pub(super) async fn pull_image(
        &self,
        _: api::PullImageRequest,
    ) -> Result<Answers<api::PullImageResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    pub(super) async fn save_images(
        &self,
        _: api::SaveImagesRequest,
    ) -> Result<Answers<api::SaveImagesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    pub(super) async fn load_images(
        &self,
        _: Streaming<api::LoadImagesRequest>,
    ) -> Result<api::LoadImagesResponse, Status> {
        Err(Status::unimplemented(""))
    }
    pub(super) async fn list_images(
        &self,
        _: api::ListImagesRequest,
    ) -> Result<api::ListImagesResponse, Status> {
        Err(Status::unimplemented(""))
    }
    pub(super) async fn remove_image(
        &self,
        _: api::RemoveImageRequest,
    ) -> Result<api::RemoveImageResponse, Status> {
        Err(Status::unimplemented(""))
    }
    pub(super) async fn inspect_image(
        &self,
        _: api::InspectImageRequest,
    ) -> Result<api::InspectImageResponse, Status> {
        Err(Status::unimplemented(""))
    }
}
