//! Exec: the client's messages to the process's descriptors, and back.

use corten_api::corten as api;
use corten_api::corten::exec_request::Event as Input;
use corten_api::corten::exec_response::Event as Output;
use corten_pods::{ExecRequest, ExecSession};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::session::{self, End, Last, PIECES_WAITING_MAX, Target, cells};
use super::{Answers, People};
use crate::pipe::Pipe;
use crate::status::{Wire, to_the_end};
use crate::translate::container::check_variable;
use crate::validate::refuse;

type Answer = Result<api::ExecResponse, Status>;

impl People {
    pub(super) async fn exec(
        &self,
        mut input: Streaming<api::ExecRequest>,
    ) -> Result<Answers<api::ExecResponse>, Status> {
        let first = input.message().await?.and_then(|message| message.event);
        let Some(Input::Start(start)) = first else {
            return Err(refuse("start", "it is the first message of an exec")).wire();
        };
        let (namespace, container) = self.find(&start.namespace, &start.container)?;
        let request = request(start)?;
        let types = request.terminal && request.stdin;
        let engine = self.engine.clone();
        let (space, id) = (namespace.clone(), container.id.to_string());
        let mut session =
            to_the_end(async move { engine.exec(&space, &id, request).await }).await?;
        if types {
            // A terminal is one descriptor for both. Without a duplicate its
            // input goes nowhere, which is seen.
            session.stdin = session.stdout.as_ref().and_then(|terminal| terminal.try_clone().ok());
        }
        let target = Target {
            engine: self.engine.clone(),
            namespace,
            container: container.id.to_string(),
            exec: Some(session.exec),
        };
        let (answers, stream) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::spawn(run(session, target, input, answers));
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

fn request(start: api::ExecStart) -> Result<ExecRequest, Status> {
    if start.command.is_empty() {
        return Err(refuse("command", "it is required")).wire();
    }
    let some = |text: String| (!text.is_empty()).then_some(text);
    let env = start
        .environment
        .into_iter()
        .map(|variable| {
            check_variable("environment", &variable.key, &variable.value)?;
            let value = String::from_utf8(variable.value.into())
                .map_err(|_| refuse("environment", "a value of an exec is UTF-8"))?;
            Ok((variable.key, value))
        })
        .collect::<corten_pods::Result<_>>()
        .wire()?;
    Ok(ExecRequest {
        command: start.command,
        terminal: start.tty,
        size: start.size.map(cells).transpose()?,
        stdin: start.stdin,
        env,
        working_dir: some(start.working_dir),
        user: some(start.user),
    })
}

/// Moves bytes until the process has ended and what it wrote is through. When
/// the client leaves, the streams close and the process goes on without them: a
/// terminal is hung up.
async fn run(
    session: ExecSession,
    target: Target,
    input: Streaming<api::ExecRequest>,
    answers: mpsc::Sender<Answer>,
) {
    let ExecSession { stdin, stdout, stderr, mut exit, exec, .. } = session;
    let (engine, namespace) = (target.engine.clone(), target.namespace.clone());
    let container = target.container.clone();
    let feed = tokio::spawn(session::feed(input, stdin, target, input_of));
    let mut output = session::Output {
        stdout: Pipe::new(stdout),
        stderr: Pipe::new(stderr),
        answers: &answers,
        answer: |output| answer(Output::Output(output)),
    };
    let end = output.pump(&mut exit, Last::InThePipes).await;
    feed.abort();
    let last = match end {
        End::Client | End::TooSlow => {
            // Nobody else will ever read what the shim keeps open.
            if let Err(error) = engine.hang_up(&namespace, &container, exec).await {
                tracing::debug!(%error, "unable to hang up an exec");
            }
            return;
        }
        End::Process(Ok(exit)) => {
            Ok(answer(Output::Exited(api::ExecExited { exit_code: exit.code })))
        }
        End::Process(Err(_)) => Err(Status::unavailable(
            "unable to wait for the command: its pod's shim went away before it ended",
        )),
    };
    // Fails only when the client has left.
    let _ = answers.send(last).await;
}

fn answer(event: Output) -> api::ExecResponse {
    api::ExecResponse { event: Some(event) }
}

fn input_of(message: api::ExecRequest) -> Option<api::SessionInput> {
    match message.event? {
        Input::Input(input) => Some(input),
        Input::Start(_) => None,
    }
}
