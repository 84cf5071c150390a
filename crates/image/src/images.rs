//! The face of this crate.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use corten_base::meter::{Counter, Histogram, MetricKind, Page};
use corten_base::{Digest, Namespace, Reference};
use corten_store::{Lease, Store};

use crate::archive::{self, ArchiveFormat, LoadedImage};
use crate::auth::Auth;
use crate::catalog::{Catalog, Change, Entry};
use crate::client::Clients;
use crate::config::ImagesConfig;
use crate::error::{Error, PullError, PullErrorKind, Result};
use crate::flight::{Flights, Key};
use crate::image::{ConfigFile, Image};
use crate::progress::ProgressSender;
use crate::proxy::Ways;
use crate::pull;

/// All images of the node. Clones share everything.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Arc<Store>,
    pub config: ImagesConfig,
    pub clients: Clients,
    catalog: RwLock<Catalog>,
    /// Held while the catalog is changed and while content is collected, so
    /// that what was just recorded is never collected. Leases hold it before.
    changes: Mutex<()>,
    flights: Flights,
    /// How long pulls took, failed ones included; who joined one is not counted.
    pub pulls: Histogram,
    pub failed_pulls: Counter,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The image.
    pub id: Digest,
    /// Names that it lost.
    pub names: Vec<Reference>,
    /// Whether the image itself is gone from the namespace.
    pub deleted: bool,
}

impl Images {
    /// Reads what was recorded, and lets go of what no image needs. Blocks.
    pub fn open(store: Arc<Store>, config: ImagesConfig) -> Result<Self> {
        let catalog = RwLock::new(Catalog::load(&store, &config.pinned)?);
        let inner = Inner {
            store,
            clients: Clients::new(Ways::new(&config.proxies)),
            config,
            catalog,
            changes: Mutex::new(()),
            flights: Flights::default(),
            pulls: Histogram::default(),
            failed_pulls: Counter::default(),
        };
        inner.collect()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Writes what is counted of images, for Prometheus.
    pub fn write_meters(&self, page: &mut Page) {
        let name = "corten_pull_duration_seconds";
        page.metric(name, MetricKind::Histogram, "Time that pulls took, failed ones included.");
        page.histogram(name, &[], &self.inner.pulls);
        let failed = self.inner.failed_pulls.value();
        let help = "Pulls that failed.";
        page.single("corten_pull_failures_total", MetricKind::Counter, help, failed);
    }

    /// Pulls an image, or joins who is pulling the same with the same
    /// credentials. When the last caller drops its future, the pull stops and
    /// leaves nothing. Durable when it returns.
    pub async fn pull(
        &self,
        namespace: &Namespace,
        reference: &Reference,
        auth: Option<Auth>,
        progress: Option<ProgressSender>,
    ) -> std::result::Result<Arc<Image>, PullError> {
        let key = Key {
            namespace: namespace.clone(),
            reference: reference.clone(),
            auth: auth.as_ref().map_or([0; 32], Auth::fingerprint),
        };
        let mut seat = self.inner.flights.join(key, |sender| {
            pull::pull(self.inner.clone(), namespace.clone(), reference.clone(), auth, sender)
        });
        let mut outcome = seat.outcome.clone();
        let lost = || {
            PullError::new(
                PullErrorKind::Cancelled,
                format!("unable to pull {reference}: it was cancelled"),
            )
        };
        loop {
            tokio::select! {
                biased;
                landed = outcome.wait_for(Option::is_some) => {
                    if let Some(progress) = &progress {
                        progress.send_replace(seat.progress.borrow().clone());
                    }
                    return landed.ok().and_then(|outcome| outcome.clone()).unwrap_or_else(|| Err(lost()));
                }
                Ok(()) = seat.progress.changed(), if progress.is_some() => {
                    if let Some(progress) = &progress {
                        progress.send_replace(seat.progress.borrow_and_update().clone());
                    }
                }
            }
        }
    }

    /// By id (with or without `sha256:`), name, short name, name and digest, or
    /// the beginning of an id if it fits one image only.
    pub fn find(&self, namespace: &Namespace, text: &str) -> Option<Arc<Image>> {
        self.inner.read().find(namespace, text)
    }

    /// All images of a namespace.
    pub fn list(&self, namespace: &Namespace) -> Vec<Arc<Image>> {
        self.inner.read().list(namespace)
    }

    /// The namespaces that have images, in the order of their names.
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.inner.read().namespaces()
    }

    /// Removes an image and all its names, also those in other repositories:
    /// CRI's rule. None if there is no such image. Content that a container
    /// uses stays until it is removed.
    pub async fn remove(&self, namespace: &Namespace, text: &str) -> Result<Option<Removed>> {
        let (namespace, text) = (namespace.clone(), text.to_owned());
        self.blocking(move |inner| {
            let turn = inner.change();
            let Some(image) = inner.read().find(&namespace, &text) else { return Ok(None) };
            inner.commit(Catalog::plan_remove(&namespace, image.id))?;
            drop(turn);
            inner.collect()?;
            let names = image.tags.iter().chain(&image.digests).cloned().collect();
            Ok(Some(Removed { id: image.id, names, deleted: true }))
        })
        .await
    }

    /// Takes one name from an image, and removes the image with its last tag:
    /// what people expect. Asked for by id or digest, it removes the image.
    pub async fn untag(&self, namespace: &Namespace, text: &str) -> Result<Option<Removed>> {
        let others = self.find(namespace, text).and_then(|image| {
            let tag = text.parse::<Reference>().ok().filter(|name| image.tags.contains(name))?;
            (image.tags.len() > 1).then_some((image.id, tag))
        });
        let Some((id, tag)) = others else { return self.remove(namespace, text).await };
        let namespace = namespace.clone();
        self.blocking(move |inner| {
            let _turn = inner.change();
            let change = inner.read().plan_untag(&namespace, id, &tag)?;
            inner.commit(change)?;
            Ok(Some(Removed { id, names: vec![tag], deleted: false }))
        })
        .await
    }

    /// Gives an image of the namespace one more name, which leaves the image
    /// that had it. None if there is no such image.
    pub async fn tag(
        &self,
        namespace: &Namespace,
        text: &str,
        tag: &Reference,
    ) -> Result<Option<Arc<Image>>> {
        let (namespace, text, tag) = (namespace.clone(), text.to_owned(), tag.clone());
        self.blocking(move |inner| {
            let _turn = inner.change();
            let Some(image) = inner.read().find(&namespace, &text) else { return Ok(None) };
            let change = inner.read().plan_tag(&namespace, image.id, &tag)?;
            Ok(change.map(|change| inner.commit(change)).transpose()?.flatten())
        })
        .await
    }

    /// Takes all images out of a tar archive: an OCI layout or what `docker
    /// save` writes, plain or compressed by gzip or zstd. `reader` is read on
    /// a thread that may block; [`crate::archive_pipe`] makes one. What is
    /// returned is durable. Dropped, it goes on as long as `reader` does.
    pub async fn load(
        &self,
        namespace: &Namespace,
        reader: impl Read + Send + 'static,
    ) -> std::result::Result<Vec<LoadedImage>, PullError> {
        let (inner, namespace) = (self.inner.clone(), namespace.clone());
        let work = move || archive::load(&inner, &namespace, reader);
        tokio::task::spawn_blocking(work).await.map_err(|error| Error::Lost(error.to_string()))?
    }

    /// Writes images into a tar archive: each by name or id, with the names
    /// that were asked for. `writer` is used on a thread that may block; an
    /// error of kind `BrokenPipe` means that nobody wants the archive any more.
    ///
    /// Layers are written from what is unpacked, so their digests, and with
    /// them the ids of images, can differ from those of the registry. Loaded
    /// and saved again, they stay.
    pub async fn save(
        &self,
        namespace: &Namespace,
        images: Vec<String>,
        format: ArchiveFormat,
        writer: impl Write + Send + 'static,
    ) -> std::result::Result<(), PullError> {
        let (inner, namespace) = (self.inner.clone(), namespace.clone());
        let work = move || archive::save(&inner, &namespace, &images, format, writer);
        tokio::task::spawn_blocking(work).await.map_err(|error| Error::Lost(error.to_string()))?
    }

    /// Bytes that all images take of the disk.
    pub fn usage(&self) -> u64 {
        self.inner.store.fs_info().used_bytes
    }

    /// Lets go of content that no image and no container needs; call it after
    /// containers of removed images are gone. Blocks.
    pub fn collect(&self) -> Result<usize> {
        self.inner.collect()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| Error::Lost(error.to_string()))?
    }
}

impl Inner {
    /// Keeps the small parts, makes everything durable, records and shows the
    /// image. The leases hold its layers until then.
    pub(crate) async fn record(
        self: &Arc<Self>,
        namespace: Namespace,
        entry: Entry,
        tag: Option<Reference>,
        blobs: Vec<Bytes>,
        leases: Vec<Lease>,
    ) -> std::result::Result<Arc<Image>, PullError> {
        let inner = self.clone();
        let work = move || inner.record_now(&namespace, entry, tag.as_slice(), &blobs, leases);
        let result = tokio::task::spawn_blocking(work).await;
        Ok(result.map_err(|error| Error::Lost(error.to_string()))??)
    }

    /// The same, blocking.
    pub(crate) fn record_now(
        &self,
        namespace: &Namespace,
        entry: Entry,
        tags: &[Reference],
        blobs: &[Bytes],
        leases: Vec<Lease>,
    ) -> Result<Arc<Image>> {
        for blob in blobs {
            self.store.put_blob(blob)?;
        }
        self.store.make_durable()?;
        let config = self.store.blob(&entry.id)?;
        let config = ConfigFile::parse(&config).map_err(|error| Error::Record {
            id: entry.id.to_string(),
            reason: error.to_string(),
        })?;
        let turn = self.change();
        let change = self.read().plan_add(namespace, entry, tags, config)?;
        let image = self.commit(change)?;
        drop(turn);
        drop(leases);
        image.ok_or_else(|| Error::Lost("an image vanished while it was added".into()))
    }

    /// Commits, then shows a change. The turn is the caller's, and no lock is
    /// held while the disk works.
    fn commit(&self, mut change: Change) -> Result<Option<Arc<Image>>> {
        self.store.commit(std::mem::take(&mut change.batch))?;
        Ok(self.write().show(change))
    }

    pub(crate) fn collect(&self) -> Result<usize> {
        let _turn = self.change();
        let needed = self.read().needed();
        Ok(self.store.collect(|digest| needed.contains(digest))?)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }
}
