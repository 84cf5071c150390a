//! Attach: a client and a container that runs.

use corten_api::corten as api;
use corten_api::corten::attach_request::Event as Input;
use corten_api::corten::attach_response::Event as Output;
use corten_pods::{AttachRequest, AttachSession, SandboxView};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::containers::exited;
use super::session::{self, End, Last, PIECES_WAITING_MAX, Target};
use super::{Answers, People};
use crate::pipe::Pipe;
use crate::status::Wire;
use crate::validate::refuse;

type Answer = Result<api::AttachResponse, Status>;

impl People {
    pub(super) async fn attach(
        &self,
        mut input: Streaming<api::AttachRequest>,
    ) -> Result<Answers<api::AttachResponse>, Status> {
        let first = input.message().await?.and_then(|message| message.event);
        let Some(Input::Start(start)) = first else {
            return Err(refuse("start", "it is the first message of an attach")).wire();
        };
        let (namespace, container) = self.find(&start.namespace, &start.container)?;
        let id = container.id.to_string();
        let sandbox = self.engine.sandbox(&namespace, container.sandbox.as_str()).wire()?;
        let target = Target {
            engine: self.engine.clone(),
            namespace: namespace.clone(),
            container: id.clone(),
            exec: None,
        };
        if let Some(size) = start.size.filter(|_| container.config.tty) {
            target.resize(size).await?;
        }
        let api::AttachStart { stdin, stdout, stderr, .. } = start;
        let request = AttachRequest { stdin, stdout, stderr };
        let session = self.engine.attach(&namespace, &id, request).await.wire()?;
        let (answers, stream) = mpsc::channel(PIECES_WAITING_MAX);
        let attached = api::Attached { tty: session.terminal, stdin: session.stdin.is_some() };
        // There is room: nobody has sent anything.
        let _ = answers.try_send(Ok(answer(Output::Attached(attached))));
        tokio::spawn(run(session, target, sandbox, input, answers));
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// Moves bytes until the container has ended, or the session.
async fn run(
    session: AttachSession,
    target: Target,
    sandbox: SandboxView,
    input: Streaming<api::AttachRequest>,
    answers: mpsc::Sender<Answer>,
) {
    let AttachSession { stdin, stdout, stderr, fate, mut exit, .. } = session;
    let (engine, namespace) = (target.engine.clone(), target.namespace.clone());
    let container = target.container.clone();
    let feed = tokio::spawn(session::feed(input, stdin, target, input_of));
    let mut output = session::Output {
        stdout: Pipe::new(stdout),
        stderr: Pipe::new(stderr),
        answers: &answers,
        answer: |output| answer(Output::Output(output)),
    };
    let end = output.pump(&mut exit, Last::EndOfPipes(fate)).await;
    feed.abort();
    let last = match end {
        End::Client => return,
        End::TooSlow => Ok(answer(Output::TooSlow(api::TooSlow {}))),
        End::Process(Ok(exit)) => {
            let ended = match engine.container(&namespace, &container) {
                Ok(view) => exited(&view),
                // It has been removed already.
                Err(_) => api::WaitContainerResponse {
                    exit_code: exit.code,
                    reason: if exit.oom_killed { "OOMKilled".to_owned() } else { String::new() },
                    message: String::new(),
                    finished_at_ns: exit.at_ns,
                },
            };
            if sandbox.config.auto_remove {
                // Joins the removal under way: who hears of the end may use the
                // name again. If it fails, that is told there.
                let _ = engine.remove_sandbox(&namespace, sandbox.id.as_str()).await;
            }
            Ok(answer(Output::Exited(ended)))
        }
        End::Process(Err(_)) => {
            Err(Status::unavailable("unable to wait for the container: it is gone"))
        }
    };
    // Fails only when the client has left.
    let _ = answers.send(last).await;
}

fn answer(event: Output) -> api::AttachResponse {
    api::AttachResponse { event: Some(event) }
}

fn input_of(message: api::AttachRequest) -> Option<api::SessionInput> {
    match message.event? {
        Input::Input(input) => Some(input),
        Input::Start(_) => None,
    }
}
