//! Errors on the wire: the one place where our classes become gRPC codes.

use corten_base::limits;
use corten_pods::{Error, Kind};
use tonic::{Code, Status};

/// The code that tells a client what it may do about an error. The kubelet
/// forgives NotFound, and takes DeadlineExceeded of an exec for its timeout.
fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Internal => Code::Internal,
    }
}

/// An error of the engine, for the wire.
pub fn from_pods(error: &Error) -> Status {
    match error.reason {
        "" => status(code(error.kind), error.message()),
        reason => status(code(error.kind), &format!("{reason}: {}", error.message())),
    }
}

/// A status whose sentence fits into a header.
pub fn status(code: Code, message: &str) -> Status {
    let mut end = message.len().min(limits::STATUS_MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    Status::new(code, &message[..end])
}

/// Runs work to its end, whether or not the client waits for it: a request
/// that is given up must not leave half a pod behind.
pub async fn to_the_end<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Status>
where
    T: Send + 'static,
    E: IntoStatus + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(IntoStatus::into_status),
        Err(broken) => Err(status(
            Code::Internal,
            &format!("unable to finish the request: the daemon's task ended early ({broken})"),
        )),
    }
}

/// What can be sent as a gRPC status.
pub trait IntoStatus {
    /// The status for the wire.
    fn into_status(self) -> Status;
}

impl IntoStatus for Error {
    fn into_status(self) -> Status {
        from_pods(&self)
    }
}

impl IntoStatus for Status {
    fn into_status(self) -> Status {
        self
    }
}

/// `.wire()`: the result of work as an RPC returns it.
pub trait Wire<T> {
    /// Ok in a response, an error as a status.
    fn wire(self) -> Result<T, Status>;
}

impl<T, E: IntoStatus> Wire<T> for Result<T, E> {
    fn wire(self) -> Result<T, Status> {
        self.map_err(IntoStatus::into_status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_reads_codes() {
        let of = |kind| from_pods(&Error::new(kind, "x")).code();
        assert_eq!(of(Kind::NotFound), Code::NotFound);
        assert_eq!(of(Kind::DeadlineExceeded), Code::DeadlineExceeded);
        assert_eq!(of(Kind::Unimplemented), Code::Unimplemented);
        assert_eq!(of(Kind::InvalidArgument), Code::InvalidArgument);
    }

    #[test]
    fn a_word_for_the_kubelet_comes_first() {
        let error = Error::new(Kind::NotFound, "no image").because("ImageVolumeMountFailed");
        let sent = from_pods(&error.during("unable to create container"));
        assert_eq!(sent.message(), "ImageVolumeMountFailed: unable to create container: no image");
    }

    #[test]
    fn a_sentence_fits_into_a_header() {
        let long = "é".repeat(limits::STATUS_MESSAGE_BYTES_MAX);
        let sent = status(Code::Internal, &long);
        assert!(sent.message().len() <= limits::STATUS_MESSAGE_BYTES_MAX);
        assert!(long.starts_with(sent.message()));
    }

    #[tokio::test]
    async fn work_goes_on_when_the_client_leaves() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let call = to_the_end(async move {
            let _ = wait.await;
            let _ = tell.send(());
            Ok::<_, Error>(())
        });
        let mut call = Box::pin(call);
        // Polled once, so that it has begun, then dropped.
        tokio::select! {
            biased;
            _ = &mut call => unreachable!("it waits for us"),
            () = std::future::ready(()) => {}
        }
        drop(call);
        go.send(()).unwrap();
        told.await.unwrap();
    }
}
