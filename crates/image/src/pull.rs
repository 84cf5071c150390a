//! One pull: resolve, all layers at once, durable, recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_base::limits::{IMAGE_CONFIG_BYTES_MAX, REGISTRY_ATTEMPTS_MAX};
use corten_base::{Digest, Namespace, Reference};
use corten_store::{LayerStart, Lease, Store, Unpack};
use futures_util::StreamExt;
use futures_util::stream;
use http::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::auth::Auth;
use crate::catalog::Entry;
use crate::client::chain;
use crate::error::{PullError, PullErrorKind};
use crate::image::{ConfigFile, Image};
use crate::images::Inner;
use crate::manifest::{Descriptor, Document, Manifest, choose};
use crate::pipe::{Piece, PipeReader, pipe, source_failed};
use crate::progress::{LayerProgress, LayerState, ProgressSender};
use crate::registry::{Failures, Registry, Turn};

/// Bytes a second below which a registry counts as stalled.
const BYTES_PER_SECOND_MIN: u64 = 1024;

/// Bytes that a broken answer must have brought to be worth another round of
/// attempts: a registry that drips is given up.
const PROGRESS_BYTES_MIN: u64 = 64 << 10;

/// What a reference leads to, small parts only.
struct Resolved {
    /// Of the manifest or index that the reference names.
    root: Digest,
    manifest_digest: Digest,
    manifest_bytes: bytes::Bytes,
    manifest: Manifest,
}

/// Pulls and records; called once per flight.
pub(crate) async fn pull(
    inner: Arc<Inner>,
    namespace: Namespace,
    reference: Reference,
    auth: Option<Auth>,
    progress: ProgressSender,
) -> Result<Arc<Image>, PullError> {
    let what = format!("unable to pull {reference}");
    let begun = std::time::Instant::now();
    let result = pull_now(&inner, &namespace, &reference, auth, &progress).await;
    inner.pulls.observe(begun.elapsed());
    if let Err(error) = &result {
        inner.failed_pulls.count();
        // What was unpacked and is in no image goes; a failure here is no news.
        let cleaning = {
            let inner = inner.clone();
            let full = error.kind == PullErrorKind::DiskFull;
            tokio::task::spawn_blocking(move || {
                let _ = inner.collect();
                if full {
                    inner.store.wait_for_deletions();
                }
            })
        };
        // Who hears of a full disk pulls something smaller: there is room then.
        if error.kind == PullErrorKind::DiskFull {
            let _ = cleaning.await;
        }
    }
    result.map_err(|error| error.within(what))
}

async fn pull_now(
    inner: &Arc<Inner>,
    namespace: &Namespace,
    reference: &Reference,
    auth: Option<Auth>,
    progress: &ProgressSender,
) -> Result<Arc<Image>, PullError> {
    let registry = Arc::new(Registry::open(reference, auth, &inner.clients, &inner.config)?);
    let resolved = resolve(inner, &registry, reference).await?;
    let config_bytes = config_of(inner, &registry, &resolved.manifest.config).await?;
    let config = ConfigFile::parse(&config_bytes).map_err(|error| {
        PullError::invalid(format!("the image's configuration is malformed: {error}"))
    })?;
    let layers = &resolved.manifest.layers;
    if config.diff_ids.len() != layers.len() {
        return Err(PullError::invalid(format!(
            "the image has {} layers, but its configuration names {}",
            layers.len(),
            config.diff_ids.len()
        )));
    }
    progress.send_modify(|state| {
        state.layers = layers
            .iter()
            .map(|layer| LayerProgress {
                digest: layer.digest,
                bytes_done: 0,
                bytes_total: layer.size,
                state: LayerState::Waiting,
            })
            .collect();
    });
    let mut jobs = Vec::with_capacity(layers.len());
    for (index, (layer, diff_id)) in layers.iter().zip(&config.diff_ids).enumerate() {
        let report = Report { progress: progress.clone(), index };
        jobs.push(one_layer(
            inner.store.clone(),
            registry.clone(),
            layer.clone(),
            *diff_id,
            report,
        ));
    }
    let mut work = stream::iter(jobs).buffer_unordered(inner.config.concurrency.max(1));
    let mut leases = Vec::with_capacity(layers.len());
    while let Some(lease) = work.next().await {
        leases.push(lease?);
    }
    drop(work);
    let entry = Entry {
        manifest: resolved.manifest_digest,
        index: (resolved.root != resolved.manifest_digest).then_some(resolved.root),
        layers: config.diff_ids,
        size_bytes: layers.iter().map(|layer| layer.size).sum::<u64>() + config_bytes.len() as u64,
        digests: vec![reference.with_digest(resolved.root)],
        ..Entry::new(resolved.manifest.config.digest)
    };
    let tag = reference.digest().is_none().then(|| reference.clone());
    let blobs = vec![resolved.manifest_bytes, config_bytes];
    inner.record(namespace.clone(), entry, tag, blobs, leases).await
}

async fn resolve(
    inner: &Inner,
    registry: &Registry,
    reference: &Reference,
) -> Result<Resolved, PullError> {
    let name = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or(corten_base::reference::DEFAULT_TAG).to_owned(),
    };
    let first = registry.manifest(&name, reference.digest()).await?;
    let root = first.digest;
    let (digest, bytes, manifest) = match Document::parse(&first.bytes, &first.media_type)? {
        Document::Manifest(manifest) => (root, first.bytes, manifest),
        Document::Index(manifests) => {
            let chosen = choose(&manifests, &inner.config.platform)?;
            let second =
                registry.manifest(&chosen.digest.to_string(), Some(&chosen.digest)).await?;
            match Document::parse(&second.bytes, &second.media_type)? {
                Document::Manifest(manifest) => (second.digest, second.bytes, manifest),
                Document::Index(_) => {
                    return Err(PullError::invalid("the index leads to another index"));
                }
            }
        }
    };
    Ok(Resolved { root, manifest_digest: digest, manifest_bytes: bytes, manifest })
}

/// The configuration: from the store if it is there.
async fn config_of(
    inner: &Inner,
    registry: &Registry,
    config: &Descriptor,
) -> Result<bytes::Bytes, PullError> {
    let (store, digest) = (inner.store.clone(), config.digest);
    let there = tokio::task::spawn_blocking(move || store.blob(&digest).ok()).await;
    match there {
        Ok(Some(bytes)) => Ok(bytes.into()),
        _ => registry.blob(&config.digest, IMAGE_CONFIG_BYTES_MAX).await,
    }
}

/// Where one layer reports to.
#[derive(Clone)]
struct Report {
    progress: ProgressSender,
    index: usize,
}

impl Report {
    fn change(&self, change: impl FnOnce(&mut LayerProgress)) {
        self.progress.send_modify(|state| {
            if let Some(layer) = state.layers.get_mut(self.index) {
                change(layer);
            }
        });
    }
}

/// A layer from the first place that has it whole; nothing is fetched if it is
/// in the store, or being unpacked for someone else.
async fn one_layer(
    store: Arc<Store>,
    registry: Arc<Registry>,
    layer: Descriptor,
    diff_id: Digest,
    report: Report,
) -> Result<Lease, PullError> {
    let mut failures = Failures::default();
    for turn in registry.turns(false) {
        let (begun, wait) = oneshot::channel();
        let (sender, reader) = pipe();
        let store = store.clone();
        // It ends by itself when the sender is dropped: nothing is orphaned.
        let unpacking = tokio::task::spawn_blocking(move || unpack(&store, diff_id, begun, reader));
        // An error means that there is nothing to fetch: the layer is there, or the store failed.
        let fetched = match wait.await {
            Ok(()) => {
                report.change(|layer| (layer.state, layer.bytes_done) = (LayerState::Fetching, 0));
                fetch(&registry, turn, &layer, &sender, &report).await
            }
            Err(_) => Ok(()),
        };
        drop(sender);
        let unpacked = unpacking.await.map_err(|error| {
            PullError::new(PullErrorKind::Internal, format!("unable to unpack: {error}"))
        })?;
        match (fetched, unpacked) {
            (Ok(()), Ok(Unpacked::There(lease))) => {
                report.change(|layer| {
                    (layer.state, layer.bytes_done) = (LayerState::Exists, layer.bytes_total)
                });
                return Ok(lease);
            }
            (Ok(()), Ok(Unpacked::Now(lease))) => {
                report.change(|layer| layer.state = LayerState::Done);
                return Ok(lease);
            }
            // The disk is full, or the store failed: no other mirror helps.
            (_, Err(error))
                if matches!(error.kind, PullErrorKind::DiskFull | PullErrorKind::Internal) =>
            {
                return Err(error.within(format!("layer {}", layer.digest)));
            }
            // The unpacker was cut off: the fetch knows why.
            (Err(error), Ok(_))
            | (Err(error), Err(PullError { kind: PullErrorKind::Cancelled, .. }))
            // The unpacker refused what came.
            | (_, Err(error)) => failures.add(error.within(format!("layer {}", layer.digest))),
        }
    }
    Err(failures.into_error())
}

enum Unpacked {
    There(Lease),
    Now(Lease),
}

/// The blocking side of a layer. `turn` is fired when bytes are wanted.
fn unpack(
    store: &Store,
    diff_id: Digest,
    turn: oneshot::Sender<()>,
    mut reader: PipeReader,
) -> Result<Unpacked, PullError> {
    let unpack: Unpack = match store.begin_layer(Some(diff_id))? {
        LayerStart::Present(lease) => return Ok(Unpacked::There(lease)),
        LayerStart::Unpack(unpack) => unpack,
    };
    let gone = || PullError::new(PullErrorKind::Cancelled, "the pull was given up");
    turn.send(()).map_err(|()| gone())?;
    let done = {
        let inflated = reader.inflate().map_err(source_failed)?;
        match unpack.run(inflated) {
            Ok(done) => done,
            Err(corten_store::Error::Source(error)) => return Err(source_failed(error)),
            Err(error) => return Err(error.into()),
        }
    };
    reader.drain().map_err(source_failed)?;
    Ok(Unpacked::Now(done.lease))
}

/// How far the blob is: it goes on after a broken connection.
struct Body {
    hash: Sha256,
    done: u64,
    etag: Option<HeaderValue>,
}

/// Fetches a layer from one place, and ends the pipe only if digest and size
/// are what the manifest says.
async fn fetch(
    registry: &Registry,
    turn: Turn<'_>,
    layer: &Descriptor,
    sender: &mpsc::Sender<Piece>,
    report: &Report,
) -> Result<(), PullError> {
    let url = registry.blob_url(turn.place, &layer.digest);
    let mut body = Body { hash: Sha256::new(), done: 0, etag: None };
    let mut attempt = 1;
    while body.done < layer.size {
        let before = body.done;
        match fetch_once(registry, turn, &url, layer, &mut body, sender, report).await {
            Ok(()) => break,
            Err(error) => {
                let temporary =
                    matches!(error.kind, PullErrorKind::Unavailable | PullErrorKind::Timeout);
                if body.done - before >= PROGRESS_BYTES_MIN {
                    // Progress buys new attempts: a long layer on a bad line arrives.
                    attempt = 1;
                }
                // What has come is worth some patience with a host that has others after it.
                let attempts = if body.done > 0 { REGISTRY_ATTEMPTS_MAX } else { turn.attempts };
                if !temporary || attempt >= attempts {
                    return Err(error);
                }
                tokio::time::sleep(registry.pause(attempt)).await;
                attempt += 1;
            }
        }
    }
    let digest = Digest::from_sha256(body.hash.finalize().into());
    if body.done != layer.size || digest != layer.digest {
        return Err(PullError::invalid(format!(
            "unable to fetch {url}: {} bytes with digest {digest} came, {} bytes with digest {} were promised",
            body.done, layer.size, layer.digest
        )));
    }
    report.change(|layer| layer.state = LayerState::Unpacking);
    // The unpacker may have failed; its own error tells why.
    let _ = sender.send(Piece::End).await;
    Ok(())
}

async fn fetch_once(
    registry: &Registry,
    turn: Turn<'_>,
    url: &str,
    layer: &Descriptor,
    body: &mut Body,
    sender: &mpsc::Sender<Piece>,
    report: &Report,
) -> Result<(), PullError> {
    let mut headers = HeaderMap::new();
    if body.done > 0 {
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", body.done)) {
            headers.insert(RANGE, range);
        }
        if let Some(etag) = &body.etag {
            headers.insert(IF_RANGE, etag.clone());
        }
    }
    let response = registry.get(turn, url, &headers).await?;
    let mut skip = start_of(&response, body.done).ok_or_else(|| {
        PullError::invalid(format!(
            "unable to fetch {url}: it answered with another range than asked"
        ))
    })?;
    let strong = |etag: &&HeaderValue| !etag.as_bytes().starts_with(b"W/");
    body.etag = response.headers().get(ETAG).filter(strong).cloned();
    let mut stream = response.into_body();
    let mut pace = Pace::new(registry.stall());
    loop {
        let data = match pace.wait(stream.frame()).await {
            None => {
                return Err(PullError::new(
                    PullErrorKind::Timeout,
                    format!(
                        "unable to fetch {url}: stalled after {} of {} bytes",
                        body.done, layer.size
                    ),
                ));
            }
            Some(None) => return ended(url, layer, body),
            Some(Some(Err(error))) => {
                return Err(PullError::new(
                    PullErrorKind::Unavailable,
                    format!(
                        "unable to fetch {url}: broken after {} of {} bytes: {}",
                        body.done,
                        layer.size,
                        chain(&error)
                    ),
                ));
            }
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => data,
                Err(_trailers) => continue,
            },
        };
        pace.came(data.len());
        // The server began anew: what is known already passes by.
        let known = skip.min(data.len() as u64);
        skip -= known;
        let data = data.slice(usize::try_from(known).unwrap_or(data.len())..);
        if data.is_empty() {
            continue;
        }
        if body.done + data.len() as u64 > layer.size {
            return Err(PullError::invalid(format!(
                "unable to fetch {url}: it is larger than the {} bytes promised",
                layer.size
            )));
        }
        body.hash.update(&data);
        body.done += data.len() as u64;
        report.change(|progress| progress.bytes_done = body.done);
        if sender.send(Piece::Data(data)).await.is_err() {
            return Err(PullError::new(PullErrorKind::Invalid, "it could not be unpacked"));
        }
    }
}

/// The server says that this was all.
fn ended(url: &str, layer: &Descriptor, body: &Body) -> Result<(), PullError> {
    if body.done == layer.size {
        return Ok(());
    }
    Err(PullError::new(
        PullErrorKind::Unavailable,
        format!("unable to fetch {url}: it ended after {} of {} bytes", body.done, layer.size),
    ))
}

/// Bytes at the beginning of the answer that are known already; None if the
/// answer cannot be used.
fn start_of(response: &Response<Incoming>, done: u64) -> Option<u64> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Some(done);
    }
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let start: u64 = range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()?;
    done.checked_sub(start)
}

/// Watches the pace of a body. Only time spent waiting for the network counts,
/// not the time that the unpacker takes.
struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, bytes: 0 }
    }

    async fn wait<F: Future>(&mut self, next: F) -> Option<F::Output> {
        let begun = Instant::now();
        let result = tokio::time::timeout(self.window, next).await.ok()?;
        self.waited += begun.elapsed();
        if self.waited >= self.window {
            if self.bytes < BYTES_PER_SECOND_MIN * self.window.as_secs() {
                return None;
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Some(result)
    }

    fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}
