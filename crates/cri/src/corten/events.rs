//! What happens to containers and pods, for people to watch.

use corten_api::corten as api;
use corten_base::Namespace;
use corten_pods::{EventKind, Events, PodEvent, Since, Told};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, People, namespace};

/// Events on their way to a client. All others wait in the engine, which keeps
/// them for everybody together.
const ON_THEIR_WAY_MAX: usize = 1;

type Answer = Result<api::EventsResponse, Status>;

impl People {
    pub(super) async fn events(
        &self,
        request: api::EventsRequest,
    ) -> Result<Answers<api::EventsResponse>, Status> {
        let namespace = namespace(&request.namespace)?;
        let now = self.engine.events(Since::Now).position();
        let since = match request.since {
            Some(sequence) => Since::Sequence(sequence),
            None => Since::Now,
        };
        let events = self.engine.events(since);
        let (answers, stream) = mpsc::channel(ON_THEIR_WAY_MAX);
        // One who asks for the oldest that is kept misses nothing.
        let all_kept = request.since == Some(0);
        tokio::spawn(async move {
            // Fails only when the client has left.
            let _ = tell(events, namespace, now, all_kept, request.past_only, &answers).await;
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// Tells what came before `now`, says that it did, and goes on if that is wanted.
async fn tell(
    mut events: Events,
    namespace: Namespace,
    now: u64,
    all_kept: bool,
    past_only: bool,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), mpsc::error::SendError<Answer>> {
    let send = |told| answers.send(Ok(api::EventsResponse { told: Some(told) }));
    let mut first = true;
    let mut caught_up = false;
    loop {
        if !caught_up && events.position() >= now {
            caught_up = true;
            send(api::events_response::Told::CaughtUp(api::Caught {})).await?;
            if past_only {
                return Ok(());
            }
        }
        let told = tokio::select! {
            told = events.next() => told,
            () = answers.closed() => return Ok(()),
        };
        match told {
            None => return Ok(()),
            Some(Told::Gap(_)) if first && all_kept => {}
            Some(Told::Gap(lost)) => send(api::events_response::Told::Lost(lost)).await?,
            Some(Told::Event(event)) => {
                // People's containers have no pod.
                let of_nothing = event.sandbox.config.solo && event.container.is_none();
                if *event.namespace() == namespace && !of_nothing {
                    send(api::events_response::Told::Event(to_api(&event))).await?;
                }
            }
        }
        first = false;
    }
}

fn to_api(event: &PodEvent) -> api::Event {
    let pod = &event.sandbox.config;
    let id = event.container.as_ref();
    let container = event.containers.iter().find(|container| Some(&container.id) == id);
    let stopped = container.filter(|_| event.kind == EventKind::Stopped);
    // All that is known of one of people's that is gone is its pod, of the same name.
    let name = match container {
        Some(container) => container.config.name.clone(),
        None if pod.solo => pod.name.clone(),
        None => String::new(),
    };
    api::Event {
        sequence: event.sequence,
        at_ns: event.at_ns,
        kind: kind(event.kind).into(),
        namespace: event.namespace().to_string(),
        container_id: id.map(ToString::to_string).unwrap_or_default(),
        container_name: name,
        pod_id: event.sandbox.id.to_string(),
        pod_name: if pod.solo { String::new() } else { pod.name.clone() },
        pod_namespace: pod.namespace.clone(),
        image: container
            .map(|container| super::containers::image(&container.config).to_owned())
            .unwrap_or_default(),
        exit_code: stopped.map_or(0, |container| container.exit_code),
        reason: stopped.map(|container| container.reason.clone()).unwrap_or_default(),
    }
}

fn kind(kind: EventKind) -> api::EventKind {
    match kind {
        EventKind::Created => api::EventKind::Created,
        EventKind::Started => api::EventKind::Started,
        EventKind::OutOfMemory => api::EventKind::OutOfMemory,
        EventKind::Stopped => api::EventKind::Stopped,
        EventKind::Deleted => api::EventKind::Deleted,
    }
}
