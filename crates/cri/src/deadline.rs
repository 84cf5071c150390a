//! The deadlines of clients. gRPC says that a call that was not answered in
//! time ends with DeadlineExceeded; our server library says Cancelled, which a
//! client takes for its own doing. So we answer just before it does.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

/// How much of its time a call loses to our answer: a twentieth, at most this.
const MARGIN_MAX: Duration = Duration::from_millis(100);

/// A service whose calls end with DeadlineExceeded at their clients' deadlines.
#[derive(Debug, Clone)]
pub struct Punctual<S>(pub S);

impl<S: NamedService> NamedService for Punctual<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Punctual<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let asked = request.headers().get("grpc-timeout").and_then(|text| text.to_str().ok());
        let time = asked.and_then(parse);
        let call = self.0.call(request);
        let Some(time) = time else { return Box::pin(call) };
        Box::pin(async move {
            let ours = time.saturating_sub(MARGIN_MAX.min(time / 20));
            match tokio::time::timeout(ours, call).await {
                Ok(answer) => answer,
                Err(_) => {
                    let late = format!("not done within the {} ms given", time.as_millis());
                    Ok(Status::deadline_exceeded(late).into_http())
                }
            }
        })
    }
}

/// At most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_as_clients_write_them() {
        assert_eq!(parse("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("1500m"), Some(Duration::from_millis(1500)));
        for text in ["", "S", "1", "1s", "-1S", "123456789S", "1é"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
