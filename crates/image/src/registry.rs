//! One registry, through its mirrors: requests with credentials, redirects and retries.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use corten_base::limits::{
    REDIRECTS_MAX, REGISTRY_ATTEMPTS_MAX, REGISTRY_ERROR_BYTES_MAX, RETRY_AFTER_SECONDS_MAX,
};
use corten_base::{Digest, Reference};
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::auth::{Auth, Secret};
use crate::client::{Clients, HttpClient, chain, failure};
use crate::config::ImagesConfig;
use crate::error::{PullError, PullErrorKind};
use crate::hosts::{self, Host};
use crate::proxy::Ways;

pub(crate) const AGENT: &str = concat!("corten/", env!("CARGO_PKG_VERSION"));

/// The hosts of one reference's registry, for the time of one pull.
pub(crate) struct Registry {
    pub(crate) repository: String,
    pub(crate) auth: Option<Auth>,
    places: Vec<Place>,
    ways: Ways,
    pub(crate) stall: Duration,
    pause: Duration,
}

/// A host with its client and what it accepted as authorization.
pub(crate) struct Place {
    pub host: Host,
    pub(crate) client: HttpClient,
    /// Whether the caller's credentials are for this host.
    pub(crate) credentials: bool,
    /// By scope.
    pub(crate) authorization: Mutex<HashMap<String, Secret>>,
    /// It did not answer: the rest of the pull asks it last.
    silent: AtomicBool,
}

/// A host whose turn it is, and how often it is asked before the next one's.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    pub place: &'a Place,
    pub attempts: u32,
}

/// What was fetched and where.
pub(crate) struct Fetched {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: Digest,
}

impl Registry {
    pub(crate) fn open(
        reference: &Reference,
        auth: Option<Auth>,
        clients: &Clients,
        config: &ImagesConfig,
    ) -> Result<Self, PullError> {
        let registry = reference.registry();
        let mut places = Vec::new();
        for host in hosts::hosts_of(&config.hosts_dirs, registry)? {
            // A mirror does not get the credentials of what it mirrors.
            let credentials = auth.as_ref().is_some_and(|auth| match &host.mirror_of {
                Some(_) => !auth.server_address.is_empty() && auth.is_for(&host.authority),
                None => auth.is_for(registry) || auth.is_for(&host.authority),
            });
            let client = clients.get(&host, config.connect_timeout)?;
            places.push(Place {
                host,
                client,
                credentials,
                authorization: Mutex::default(),
                silent: AtomicBool::new(false),
            });
        }
        Ok(Self {
            repository: reference.repository().to_owned(),
            auth,
            places,
            ways: clients.ways.clone(),
            stall: config.stall_timeout,
            pause: config.retry_pause,
        })
    }

    /// The hosts in the order in which they are asked. Who has another host
    /// after it is asked once: that is sooner than to wait for a mirror that
    /// is down. The last one is the hope that is left, and asked with patience.
    pub(crate) fn turns(&self, resolve: bool) -> Vec<Turn<'_>> {
        let fits = |place: &&Place| place.host.can_pull && (!resolve || place.host.can_resolve);
        let mut places: Vec<&Place> = self.places.iter().filter(fits).collect();
        places.sort_by_key(|place| place.silent.load(Ordering::Relaxed));
        let last = places.len().saturating_sub(1);
        let attempts = |index| if index == last { REGISTRY_ATTEMPTS_MAX } else { 1 };
        let turn = |(index, place)| Turn { place, attempts: attempts(index) };
        places.into_iter().enumerate().map(turn).collect()
    }

    /// Time without bytes after which a body is given up.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// The pause before attempt `attempt` (from 1).
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        self.pause.saturating_mul(1 << attempt.saturating_sub(1).min(6))
    }

    /// A manifest, by tag or digest, from the first host that has it.
    pub(crate) async fn manifest(
        &self,
        name: &str,
        expected: Option<&Digest>,
    ) -> Result<Fetched, PullError> {
        let path = format!("{}/manifests/{name}", self.repository);
        let max = corten_base::limits::MANIFEST_BYTES_MAX;
        self.small(&path, crate::manifest::ACCEPT, expected, max).await
    }

    /// A small blob: a configuration.
    pub(crate) async fn blob(&self, digest: &Digest, max: usize) -> Result<Bytes, PullError> {
        let path = format!("{}/blobs/{digest}", self.repository);
        Ok(self.small(&path, "*/*", Some(digest), max).await?.bytes)
    }

    async fn small(
        &self,
        path: &str,
        accept: &str,
        expected: Option<&Digest>,
        max: usize,
    ) -> Result<Fetched, PullError> {
        let mut failures = Failures::default();
        for turn in self.turns(expected.is_none()) {
            match self.small_from(turn, path, accept, expected, max).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => failures.add(error),
            }
        }
        Err(failures.into_error())
    }

    async fn small_from(
        &self,
        turn: Turn<'_>,
        path: &str,
        accept: &str,
        expected: Option<&Digest>,
        max: usize,
    ) -> Result<Fetched, PullError> {
        let url = turn.place.url(path);
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT,
            HeaderValue::from_str(accept).unwrap_or(HeaderValue::from_static("*/*")),
        );
        let mut attempt = 1;
        let (media_type, bytes) = loop {
            let response = self.get(turn, &url, &headers).await?;
            let media_type =
                response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type =
                media_type.map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
            match self.read_body(response, max).await {
                Ok(bytes) => break (media_type.unwrap_or_default(), bytes),
                Err(error) if attempt >= turn.attempts || error.kind == PullErrorKind::Invalid => {
                    return Err(error.within(format!("unable to fetch {url}")));
                }
                Err(_) => tokio::time::sleep(self.pause(attempt)).await,
            }
            attempt += 1;
        };
        let digest = Digest::from_sha256(Sha256::digest(&bytes).into());
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(PullError::invalid(format!(
                "unable to fetch {url}: the content has digest {digest}, not {expected}"
            )));
        }
        Ok(Fetched { bytes, media_type, digest })
    }

    /// A small body, whole.
    pub(crate) async fn read_body(
        &self,
        response: Response<Incoming>,
        max: usize,
    ) -> Result<Bytes, PullError> {
        let body = http_body_util::Limited::new(response.into_body(), max);
        match tokio::time::timeout(self.stall, body.collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                Err(PullError::invalid(format!("it is larger than {max} bytes")))
            }
            Ok(Err(error)) => {
                Err(PullError::new(PullErrorKind::Unavailable, chain(error.as_ref())))
            }
            Err(_) => Err(PullError::new(
                PullErrorKind::Timeout,
                format!("not complete after {:?}", self.stall),
            )),
        }
    }

    /// GET until success: with authorization, redirects and retries. Any
    /// status but 200 and 206 is an error.
    pub(crate) async fn get(
        &self,
        turn: Turn<'_>,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, PullError> {
        let Turn { place, attempts } = turn;
        let mut attempt = 1;
        let mut challenged = 0;
        loop {
            let (error, wait) = match self.follow(place, url, headers).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && challenged < 2 => {
                    challenged += 1;
                    self.authorize(place, url, &response).await?;
                    continue;
                }
                Ok(response) => {
                    let wait = retry_after(&response);
                    let (again, error) = self.refusal(url, response).await;
                    if !again {
                        return Err(error);
                    }
                    (error, wait)
                }
                Err(error)
                    if matches!(
                        error.kind,
                        PullErrorKind::Unavailable | PullErrorKind::Timeout
                    ) =>
                {
                    (error, None)
                }
                Err(error) => return Err(error),
            };
            if attempt >= attempts {
                place.silent.store(true, Ordering::Relaxed);
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or(self.pause(attempt))).await;
            attempt += 1;
        }
    }

    /// What an answer that is no success means, and whether to try again.
    async fn refusal(&self, url: &str, response: Response<Incoming>) -> (bool, PullError) {
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), REGISTRY_ERROR_BYTES_MAX);
        let said = match tokio::time::timeout(self.stall, body.collect()).await {
            Ok(Ok(body)) => what_it_said(&body.to_bytes()),
            _ => String::new(),
        };
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PullErrorKind::Unauthorized,
            StatusCode::NOT_FOUND | StatusCode::GONE => PullErrorKind::NotFound,
            _ => PullErrorKind::Unavailable,
        };
        let again = status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT
            || status.is_server_error();
        (
            again,
            PullError::new(
                kind,
                format!("unable to fetch {url}: the registry answered {status}{said}"),
            ),
        )
    }

    /// One request, and those that it is redirected to.
    async fn follow(
        &self,
        place: &Place,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, PullError> {
        let problem = |at: &str, kind, why: String| {
            let via = if at == url {
                String::new()
            } else {
                format!(" (redirected to {})", without_query(at))
            };
            PullError::new(kind, format!("unable to fetch {url}{via}: {why}"))
        };
        let mut at = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let mut request =
                Request::builder().method(Method::GET).uri(&at).header(USER_AGENT, AGENT);
            let to_proxy = request.uri_ref().and_then(|uri| self.ways.authorization(uri));
            if let Some(all) = request.headers_mut() {
                all.extend(to_proxy.map(|value| (PROXY_AUTHORIZATION, value)));
                all.extend(headers.clone());
                // Credentials go to the host that they are for and no further.
                if same_origin(&at, url) {
                    all.extend(place.host.headers.iter().cloned());
                    if let Some(value) = self.authorization(place) {
                        all.insert(AUTHORIZATION, value);
                    }
                }
            }
            let request = request
                .body(Full::default())
                .map_err(|error| problem(&at, PullErrorKind::Invalid, error.to_string()))?;
            let response =
                match tokio::time::timeout(self.stall, place.client.request(request)).await {
                    Ok(Ok(response)) => response,
                    Ok(Err(error)) => {
                        let (kind, why) = failure(&error);
                        return Err(problem(&at, kind, why));
                    }
                    Err(_) => {
                        return Err(problem(
                            &at,
                            PullErrorKind::Timeout,
                            format!("no answer in {:?}", self.stall),
                        ));
                    }
                };
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let next = resolve(&at, location).ok_or_else(|| {
                problem(&at, PullErrorKind::Invalid, "a redirect without a usable Location".into())
            })?;
            if at.starts_with("https:") && !next.starts_with("https:") {
                return Err(problem(
                    &next,
                    PullErrorKind::Invalid,
                    "a redirect from https to http is not followed".into(),
                ));
            }
            at = next;
        }
        Err(problem(url, PullErrorKind::Invalid, format!("more than {REDIRECTS_MAX} redirects")))
    }

    /// The URL of a blob at a place.
    pub(crate) fn blob_url(&self, place: &Place, digest: &Digest) -> String {
        place.url(&format!("{}/blobs/{digest}", self.repository))
    }
}

impl Place {
    fn url(&self, path: &str) -> String {
        let query = self
            .host
            .mirror_of
            .as_ref()
            .map_or_else(String::new, |ns| format!("?ns={}", encode(ns)));
        format!("{}/{path}{query}", self.host.base)
    }
}

/// What each host answered. The kind is the most telling one: what the client
/// can do something about, before what may pass by itself.
#[derive(Default)]
pub(crate) struct Failures(Vec<PullError>);

impl Failures {
    pub(crate) fn add(&mut self, error: PullError) {
        self.0.push(error);
    }

    pub(crate) fn into_error(self) -> PullError {
        // The last is the registry itself: among equals it counts.
        let telling = self.0.iter().map(|error| error.kind).max_by_key(|kind| telling(*kind));
        let Some(kind) = telling else {
            return PullError::new(
                PullErrorKind::Config,
                "no host of the registry's hosts.toml may be pulled from",
            );
        };
        let all: Vec<&str> = self.0.iter().map(|error| error.message.as_str()).collect();
        PullError::new(kind, all.join("; "))
    }
}

/// How much a failure of one host says about what to do.
fn telling(kind: PullErrorKind) -> u32 {
    match kind {
        PullErrorKind::DiskFull => 8,
        PullErrorKind::Internal => 7,
        PullErrorKind::Config => 6,
        PullErrorKind::Unauthorized => 5,
        PullErrorKind::Invalid => 4,
        // The registry may have what a mirror lacks, and cannot be asked.
        PullErrorKind::Timeout => 3,
        PullErrorKind::Unavailable => 3,
        PullErrorKind::NotFound => 2,
        PullErrorKind::Cancelled => 1,
    }
}

fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    Some(
        Duration::from_secs(text.trim().parse().ok()?)
            .min(Duration::from_secs(RETRY_AFTER_SECONDS_MAX)),
    )
}

/// The registry's own words, where it has some.
fn what_it_said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return String::new() };
    let said: Vec<String> =
        answer.errors.iter().take(3).map(|one| format!("{}: {}", one.code, one.message)).collect();
    format!(
        " ({})",
        said.join("; ").chars().filter(|c| !c.is_control()).take(500).collect::<String>()
    )
}

fn same_origin(one: &str, other: &str) -> bool {
    match (one.parse::<Uri>(), other.parse::<Uri>()) {
        (Ok(one), Ok(other)) => {
            one.scheme() == other.scheme() && one.authority() == other.authority()
        }
        _ => false,
    }
}

/// Signed URLs carry credentials in their query.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

fn resolve(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let uri = base.parse::<Uri>().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let directory = uri.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    (!location.is_empty()).then(|| format!("{scheme}://{authority}{directory}/{location}"))
}

/// Percent-encodes a query value.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
