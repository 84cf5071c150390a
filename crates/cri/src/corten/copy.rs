//! Copying into and out of containers.

use corten_api::corten as api;
use corten_api::corten::copy_in_request::Event as Input;
use corten_image::archive_pipe;
use corten_pods::{CopyInRequest, CopyOutRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::chunks::{CHUNKS_MAX, chunks};
use super::{Answers, People};
use crate::status::{IntoStatus, Wire};
use crate::validate::{refuse, required};

impl People {
    pub(super) async fn copy_out(
        &self,
        request: api::CopyOutRequest,
    ) -> Result<Answers<api::CopyOutResponse>, Status> {
        let (namespace, container) = self.find(&request.namespace, &request.container)?;
        let path = required("path", &request.path).wire()?.to_owned();
        let request = CopyOutRequest { path, name: request.name, follow: request.follow };
        let engine = self.engine.clone();
        let (answers, stream) = mpsc::channel(CHUNKS_MAX);
        let out = chunks(answers.clone(), |chunk| api::CopyOutResponse { chunk });
        tokio::spawn(async move {
            let copied = engine.copy_out(&namespace, container.id.as_str(), request, out).await;
            // A client that has left is told nothing.
            if let Err(error) = copied {
                let _ = answers.send(Err(error.into_status())).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }

    pub(super) async fn copy_in(
        &self,
        mut requests: Streaming<api::CopyInRequest>,
    ) -> Result<api::CopyInResponse, Status> {
        let first = requests.message().await?.and_then(|message| message.event);
        let Some(Input::Start(start)) = first else {
            return Err(refuse("start", "it is the first message of a copy")).wire();
        };
        let (namespace, container) = self.find(&start.namespace, &start.container)?;
        let request = CopyInRequest {
            path: required("path", &start.path).wire()?.to_owned(),
            contents: start.contents,
            keep_owner: start.keep_owner,
        };
        let (sender, reader) = archive_pipe();
        let sending = async move {
            while let Some(message) = requests.message().await? {
                let Some(Input::Chunk(chunk)) = message.event else { continue };
                if !sender.send(chunk).await {
                    return Ok(());
                }
            }
            sender.finish().await;
            Ok::<(), Status>(())
        };
        let copying = self.engine.copy_in(&namespace, container.id.as_str(), request, reader);
        let (sent, copied) = tokio::join!(sending, copying);
        sent?;
        let copied = copied.wire()?;
        Ok(api::CopyInResponse { entries: copied.entries, bytes: copied.bytes })
    }
}
