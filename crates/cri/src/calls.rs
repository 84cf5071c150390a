//! How many calls there were, how they ended, and how long they took.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use corten_base::limits::GRPC_METHODS_MAX;
use corten_base::meter::{Histogram, MetricKind, Page};
use tokio::sync::Notify;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

/// Counts calls. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    methods: Arc<Mutex<BTreeMap<String, Arc<Method>>>>,
    answers: Arc<Answers>,
}

/// How many calls were answered, and who waits for the next.
#[derive(Debug, Default)]
struct Answers {
    count: AtomicU64,
    next: Notify,
}

/// The calls of one method.
#[derive(Debug, Default)]
struct Method {
    /// Until the answer, or the first of a stream.
    durations: Histogram,
    /// By the code that they ended with.
    ended: Mutex<BTreeMap<i32, u64>>,
}

/// The name under which methods are counted that there are not.
const UNKNOWN: &str = "unknown";

impl Calls {
    /// Writes what was counted.
    pub fn write(&self, page: &mut Page) {
        let methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = "corten_grpc_requests_total";
        page.metric(name, MetricKind::Counter, "Calls that ended, by method and code.");
        for (method, calls) in &methods {
            let ended = calls.ended.lock().unwrap_or_else(PoisonError::into_inner);
            for (code, count) in ended.iter() {
                let code = format!("{:?}", Code::from(*code));
                page.sample(name, &[("method", method), ("code", &code)], count);
            }
        }
        let name = "corten_grpc_duration_seconds";
        page.metric(name, MetricKind::Histogram, "Time until the answer.");
        for (method, calls) in &methods {
            page.histogram(name, &[("method", method)], &calls.durations);
        }
    }

    /// How many calls were answered so far.
    pub fn answered(&self) -> u64 {
        self.answers.count.load(Ordering::Relaxed)
    }

    /// Waits for a call to be answered, if none was since the last time. For
    /// one that waits.
    pub async fn next_answer(&self) {
        self.answers.next.notified().await;
    }

    fn method(&self, path: &str) -> Arc<Method> {
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        let name = path.trim_start_matches('/');
        if let Some(method) = methods.get(name) {
            return method.clone();
        }
        // Clients can ask for any name.
        let name = if methods.len() < GRPC_METHODS_MAX { name } else { UNKNOWN };
        methods.entry(name.to_owned()).or_default().clone()
    }
}

impl Method {
    fn ended(&self, begun: Instant, answer: &http::Response<Body>) {
        self.durations.observe(begun.elapsed());
        // Without a code in the head all went well so far.
        let code = answer.headers().get("grpc-status").and_then(|code| code.to_str().ok());
        let code = code.and_then(|code| code.parse().ok()).unwrap_or(Code::Ok as i32);
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    /// The service.
    pub service: S,
    /// Where they are counted.
    pub calls: Calls,
}

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.calls.method(request.uri().path());
        let answers = self.calls.answers.clone();
        let begun = Instant::now();
        let call = self.service.call(request);
        Box::pin(async move {
            let answer = call.await?;
            method.ended(begun, &answer);
            answers.count.fetch_add(1, Ordering::Relaxed);
            answers.next.notify_one();
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_are_bounded() {
        let calls = Calls::default();
        for number in 0..2 * GRPC_METHODS_MAX {
            let status = tonic::Status::unimplemented("x").into_http();
            calls.method(&format!("/a/{number}")).ended(Instant::now(), &status);
        }
        let mut page = Page::default();
        calls.write(&mut page);
        let text = page.into_text();
        let line = format!(
            "corten_grpc_requests_total{{method=\"unknown\",code=\"Unimplemented\"}} {GRPC_METHODS_MAX}"
        );
        assert!(text.contains(&line), "{text}");
        assert!(text.contains("corten_grpc_duration_seconds_count{method=\"a/0\"} 1"));
    }
}
