//! Services that are still being opened. A daemon that starts listens first:
//! what it is can be asked at once, and all other calls wait for their turn
//! until it has taken up what an earlier daemon left.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use corten_api::cri::{VersionRequest, VersionResponse};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

/// The call that needs nothing to be opened.
const VERSION: &str = "/runtime.v1.RuntimeService/Version";

/// A service that comes later.
#[derive(Debug, Clone)]
pub struct Late<S> {
    opened: watch::Receiver<Option<S>>,
    version: VersionResponse,
}

impl<S> Late<S> {
    /// The service that will be in `opened`.
    pub fn new(opened: watch::Receiver<Option<S>>, version: VersionResponse) -> Self {
        Self { opened, version }
    }
}

impl<S: NamedService> NamedService for Late<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Late<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    /// Those that tonic makes are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let opened = self.opened.borrow().clone();
        if let Some(mut service) = opened {
            return Box::pin(service.call(request));
        }
        if request.uri().path() == VERSION {
            let version = Version(self.version.clone());
            return Box::pin(async move {
                let mut grpc = Grpc::new(tonic_prost::ProstCodec::default());
                Ok(grpc.unary(version, request).await)
            });
        }
        let mut opened = self.opened.clone();
        Box::pin(async move {
            let service = opened.wait_for(Option::is_some).await.ok();
            match service.and_then(|service| service.clone()) {
                Some(mut service) => service.call(request).await,
                None => Ok(Status::unavailable("the daemon leaves").into_http()),
            }
        })
    }
}

/// Answers Version.
struct Version(VersionResponse);

impl UnaryService<VersionRequest> for Version {
    type Response = VersionResponse;
    type Future = Ready<Result<Response<VersionResponse>, Status>>;

    fn call(&mut self, _: Request<VersionRequest>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}
