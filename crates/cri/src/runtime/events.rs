//! What happens to pods and containers, over CRI.

use corten_api::cri::*;
use corten_pods::{Engine, EventKind, Events, PodEvent, Since, Told};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Runtime;
use super::containers::image_name;
use crate::batches::Answers;
use crate::translate::view;

/// Events on their way to a client. All others wait in the engine, which keeps
/// them for everybody together.
const ON_THEIR_WAY_MAX: usize = 1;

impl Runtime {
    pub(super) async fn get_container_events(
        &self,
        _: GetEventsRequest,
    ) -> Result<Answers<ContainerEventResponse>, Status> {
        let events = self.engine.events(Since::Unheard);
        let (answers, stream) = mpsc::channel(ON_THEIR_WAY_MAX);
        tokio::spawn(tell(self.engine.clone(), events, self.namespace.clone(), answers));
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// Tells events until the client or the daemon leaves.
async fn tell(
    engine: Engine,
    mut events: Events,
    namespace: corten_base::Namespace,
    answers: mpsc::Sender<Result<ContainerEventResponse, Status>>,
) {
    loop {
        // Asked for when it can be sent, so that what is asked for has been sent.
        let Ok(place) = answers.reserve().await else { return };
        let told = tokio::select! {
            told = events.next() => told,
            () = answers.closed() => return,
        };
        match told {
            None => return,
            Some(Told::Gap(lost)) => {
                // CRI has no word for it: a kubelet lists anew when a stream
                // breaks, and that is what it has to do.
                place.send(Err(Status::data_loss(format!(
                    "{lost} events were dropped, since they were not read in time: list everything, and ask for events again"
                ))));
                return;
            }
            Some(Told::Event(event)) => {
                let kind = kind(event.kind).filter(|_| *event.namespace() == namespace);
                if let Some(kind) = kind {
                    place.send(Ok(response(&engine, &event, kind)));
                }
            }
        }
    }
}

/// Nothing for what CRI does not tell.
fn kind(kind: EventKind) -> Option<ContainerEventType> {
    match kind {
        EventKind::Created => Some(ContainerEventType::ContainerCreatedEvent),
        EventKind::Started => Some(ContainerEventType::ContainerStartedEvent),
        EventKind::Stopped => Some(ContainerEventType::ContainerStoppedEvent),
        EventKind::Deleted => Some(ContainerEventType::ContainerDeletedEvent),
        EventKind::OutOfMemory => None,
    }
}

fn response(engine: &Engine, event: &PodEvent, kind: ContainerEventType) -> ContainerEventResponse {
    let statuses = event
        .containers
        .iter()
        .map(|container| view::container_status(container, image_name(engine, container)));
    ContainerEventResponse {
        // What happens to a pod goes by the id of its sandbox.
        container_id: match &event.container {
            Some(id) => id.to_string(),
            None => event.sandbox.id.to_string(),
        },
        container_event_type: kind.into(),
        created_at: event.at_ns,
        pod_sandbox_status: Some(view::sandbox_status(&event.sandbox)),
        containers_statuses: statuses.collect(),
    }
}
