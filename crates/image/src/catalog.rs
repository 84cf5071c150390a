//! Which images there are, and what they are called in each namespace.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use corten_base::{Digest, Namespace, Reference};
use corten_store::{Batch, Store};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{ConfigFile, Image};

const TABLE: &str = "images";
/// Magic and version of a record.
const MAGIC: &[u8] = b"corten-image 1\n";

/// An image of a namespace, as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub id: Digest,
    pub manifest: Digest,
    /// The index that led to the manifest.
    pub index: Option<Digest>,
    pub layers: Vec<Digest>,
    pub size_bytes: u64,
    pub tags: Vec<Reference>,
    pub digests: Vec<Reference>,
}

/// All images, in memory.
#[derive(Default)]
pub(crate) struct Catalog {
    images: BTreeMap<(Namespace, Digest), (Entry, Arc<Image>)>,
}

impl Catalog {
    /// Reads the records. An image whose content is damaged is left out: it
    /// will be pulled again.
    pub(crate) fn load(store: &Store, pinned: &[String]) -> Result<Self> {
        let mut catalog = Self::default();
        for (key, value) in store.load_all(TABLE)? {
            let Some(entry) = value
                .strip_prefix(MAGIC)
                .and_then(|json| serde_json::from_slice::<Entry>(json).ok())
            else {
                tracing::warn!(record = %key, "the record of an image is not understood and is left alone");
                continue;
            };
            let Some(namespace) = key.split(' ').next().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(missing) = entry.layers.iter().find(|layer| store.layer(layer).is_none()) {
                tracing::warn!(image = %entry.id, layer = %missing, "an image lacks a layer and will be pulled again");
                continue;
            }
            match store.blob(&entry.id) {
                Ok(config) => catalog.put(namespace, entry, &config, pinned)?,
                Err(error) => {
                    tracing::warn!(image = %entry.id, %error, "an image cannot be read and will be pulled again")
                }
            }
        }
        Ok(catalog)
    }

    fn put(
        &mut self,
        namespace: Namespace,
        entry: Entry,
        config: &[u8],
        pinned: &[String],
    ) -> Result<()> {
        let file = ConfigFile::parse(config).map_err(|error| Error::Record {
            id: entry.id.to_string(),
            reason: error.to_string(),
        })?;
        let image = Arc::new(Image {
            id: entry.id,
            tags: entry.tags.clone(),
            digests: entry.digests.clone(),
            layers: entry.layers.clone(),
            config: file.config,
            size_bytes: entry.size_bytes,
            pinned: entry.tags.iter().any(|tag| {
                pinned.iter().any(|name| *name == tag.to_string() || *name == tag.familiar())
            }),
            created: file.created,
            manifest: entry.manifest,
        });
        self.images.insert((namespace, entry.id), (entry, image));
        Ok(())
    }

    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        let mut names: Vec<Namespace> = self.images.keys().map(|(name, _)| name.clone()).collect();
        // The keys are sorted by namespace first.
        names.dedup();
        names
    }

    pub(crate) fn list(&self, namespace: &Namespace) -> Vec<Arc<Image>> {
        self.images
            .iter()
            .filter(|((of, _), _)| of == namespace)
            .map(|(_, (_, image))| image.clone())
            .collect()
    }

    /// By id, name, or the beginning of an id, in this order. A beginning that
    /// fits two images finds none.
    pub(crate) fn find(&self, namespace: &Namespace, text: &str) -> Option<Arc<Image>> {
        let all = || {
            self.images.iter().filter(|((of, _), _)| of == namespace).map(|(_, (_, image))| image)
        };
        if let Ok(id) = text.parse::<Digest>() {
            return all().find(|image| image.id == id).cloned();
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() == 64
            && let Ok(id) = format!("sha256:{hex}").parse::<Digest>()
        {
            return all().find(|image| image.id == id).cloned();
        }
        if let Ok(reference) = text.parse::<Reference>() {
            let named = all().find(|image| match reference.digest() {
                Some(digest) => image.digests.contains(&reference.with_digest(*digest)),
                None => image.tags.contains(&reference),
            });
            if named.is_some() {
                return named.cloned();
            }
        }
        if hex.len() < 3 || !hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
            return None;
        }
        let mut fitting = all().filter(|image| image.id.hex().starts_with(hex));
        let found = fitting.next()?;
        fitting.next().is_none().then(|| found.clone())
    }

    /// Adds an image, or names to one that is there; a tag leaves the image
    /// that had it. Recorded before it is seen.
    pub(crate) fn add(
        &mut self,
        store: &Store,
        namespace: &Namespace,
        mut entry: Entry,
        tag: Option<Reference>,
        config: &[u8],
        pinned: &[String],
    ) -> Result<Arc<Image>> {
        let mut batch = Batch::new();
        let mut changed = Vec::new();
        let key = (namespace.clone(), entry.id);
        if let Some((there, _)) = self.images.get(&key) {
            entry.tags.extend(
                there
                    .tags
                    .iter()
                    .filter(|tag| !entry.tags.contains(tag))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            entry.digests.extend(
                there
                    .digests
                    .iter()
                    .filter(|name| !entry.digests.contains(name))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
        if let Some(tag) = tag {
            for ((of, id), (other, _)) in &self.images {
                if of == namespace && *id != entry.id && other.tags.contains(&tag) {
                    let mut other = other.clone();
                    other.tags.retain(|name| *name != tag);
                    record(&mut batch, namespace, &other)?;
                    changed.push(other);
                }
            }
            if !entry.tags.contains(&tag) {
                entry.tags.push(tag);
            }
        }
        record(&mut batch, namespace, &entry)?;
        store.commit(batch)?;
        for other in changed {
            self.rename(namespace, other, pinned);
        }
        self.put(namespace.clone(), entry, config, pinned)?;
        self.images
            .get(&key)
            .map(|(_, image)| image.clone())
            .ok_or_else(|| Error::Lost("an image vanished while it was added".into()))
    }

    /// Takes one tag from an image that keeps others.
    pub(crate) fn untag(
        &mut self,
        store: &Store,
        namespace: &Namespace,
        id: Digest,
        tag: &Reference,
        pinned: &[String],
    ) -> Result<()> {
        let Some((entry, _)) = self.images.get(&(namespace.clone(), id)) else { return Ok(()) };
        let mut entry = entry.clone();
        entry.tags.retain(|name| name != tag);
        let mut batch = Batch::new();
        record(&mut batch, namespace, &entry)?;
        store.commit(batch)?;
        self.rename(namespace, entry, pinned);
        Ok(())
    }

    /// Removes an image with all its names.
    pub(crate) fn remove(
        &mut self,
        store: &Store,
        namespace: &Namespace,
        id: Digest,
    ) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete(TABLE, record_key(namespace, id));
        store.commit(batch)?;
        self.images.remove(&(namespace.clone(), id));
        Ok(())
    }

    fn rename(&mut self, namespace: &Namespace, entry: Entry, pinned: &[String]) {
        if let Some((there, image)) = self.images.get_mut(&(namespace.clone(), entry.id)) {
            let pinned = entry.tags.iter().any(|tag| {
                pinned.iter().any(|name| *name == tag.to_string() || *name == tag.familiar())
            });
            *image = Arc::new(Image {
                tags: entry.tags.clone(),
                digests: entry.digests.clone(),
                pinned,
                ..(**image).clone()
            });
            *there = entry;
        }
    }

    /// Everything that an image needs.
    pub(crate) fn needed(&self) -> HashSet<Digest> {
        let entries = self.images.values().map(|(entry, _)| entry);
        entries
            .flat_map(|entry| entry.layers.iter().copied().chain([entry.id, entry.manifest]))
            .collect()
    }
}

fn record_key(namespace: &Namespace, id: Digest) -> String {
    format!("{namespace} {id}")
}

fn record(batch: &mut Batch, namespace: &Namespace, entry: &Entry) -> Result<()> {
    let json = serde_json::to_vec(entry)
        .map_err(|error| Error::Record { id: entry.id.to_string(), reason: error.to_string() })?;
    batch.put(TABLE, record_key(namespace, entry.id), [MAGIC, &json].concat());
    Ok(())
}
