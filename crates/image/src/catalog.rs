//! Which images there are, and what they are called in each namespace.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use corten_base::limits::IMAGE_NAMES_MAX;
use corten_base::{Digest, Namespace, Reference};
use corten_store::{Batch, Store};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{ConfigFile, Image};

const TABLE: &str = "images";
/// Where records go that are not understood: they are reported once.
const TABLE_UNREADABLE: &str = "images-unreadable";
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
    /// Content was found to be missing, and that was reported. Pulled again,
    /// the image has its names back.
    #[serde(default)]
    pub damaged: bool,
}

impl Entry {
    /// An entry that says nothing yet but its id.
    pub(crate) fn new(id: Digest) -> Self {
        Self {
            id,
            manifest: id,
            index: None,
            layers: Vec::new(),
            size_bytes: 0,
            tags: Vec::new(),
            digests: Vec::new(),
            damaged: false,
        }
    }
}

type Key = (Namespace, Digest);

/// All images, in memory. Changes are planned under a read lock, committed
/// under none, and shown under a write lock: nobody who looks waits for a
/// disk. One change at a time; the caller sees to that.
#[derive(Default)]
pub(crate) struct Catalog {
    images: BTreeMap<Key, (Entry, Arc<Image>)>,
    /// Known by name alone: their content is damaged.
    damaged: BTreeMap<Key, Entry>,
    pinned: Vec<String>,
}

/// A change that is to be committed, and then shown.
#[derive(Default)]
pub(crate) struct Change {
    pub batch: Batch,
    shown: Vec<(Namespace, Entry, Option<Arc<Image>>)>,
    gone: Option<Key>,
}

impl Change {
    fn put(&mut self, namespace: &Namespace, entry: Entry, image: Option<Image>) -> Result<()> {
        let json = serde_json::to_vec(&entry).map_err(|error| Error::Record {
            id: entry.id.to_string(),
            reason: error.to_string(),
        })?;
        self.batch.put(TABLE, record_key(namespace, entry.id), [MAGIC, &json].concat());
        self.shown.push((namespace.clone(), entry, image.map(Arc::new)));
        Ok(())
    }
}

impl Catalog {
    /// Reads the records. An image whose content is damaged is not shown; it
    /// is reported once, and repaired by being pulled again.
    pub(crate) fn load(store: &Store, pinned: &[String]) -> Result<Self> {
        let mut catalog = Self { pinned: pinned.to_vec(), ..Self::default() };
        let mut change = Change::default();
        for (key, value) in store.load_all(TABLE)? {
            let entry = value.strip_prefix(MAGIC);
            let entry = entry.and_then(|json| serde_json::from_slice::<Entry>(json).ok());
            let namespace = key.split(' ').next().and_then(|name| name.parse::<Namespace>().ok());
            let (Some(mut entry), Some(namespace)) = (entry, namespace) else {
                tracing::warn!(record = %key, "the record of an image is not understood and was set aside");
                change.batch.delete(TABLE, &key);
                change.batch.put(TABLE_UNREADABLE, &key, value);
                continue;
            };
            match content(store, &entry) {
                Ok(config) => {
                    let was_damaged = std::mem::take(&mut entry.damaged);
                    let image = catalog.image(&entry, config);
                    if was_damaged {
                        change.put(&namespace, entry, Some(image))?;
                    } else {
                        catalog.images.insert((namespace, entry.id), (entry, Arc::new(image)));
                    }
                }
                Err(_) if entry.damaged => {
                    catalog.damaged.insert((namespace, entry.id), entry);
                }
                Err(reason) => {
                    tracing::warn!(image = %entry.id, names = ?entry.tags, reason, "an image is damaged and must be pulled again");
                    change.put(&namespace, Entry { damaged: true, ..entry }, None)?;
                }
            }
        }
        if !change.batch.is_empty() {
            store.commit(std::mem::take(&mut change.batch))?;
        }
        catalog.show(change);
        Ok(catalog)
    }

    fn image(&self, entry: &Entry, file: ConfigFile) -> Image {
        Image {
            id: entry.id,
            tags: entry.tags.clone(),
            digests: entry.digests.clone(),
            layers: entry.layers.clone(),
            config: file.config,
            size_bytes: entry.size_bytes,
            pinned: self.is_pinned(entry),
            created: file.created,
            manifest: entry.manifest,
        }
    }

    fn is_pinned(&self, entry: &Entry) -> bool {
        let named = |own: &Reference| {
            self.pinned.iter().any(|name| *name == own.to_string() || *name == own.familiar())
        };
        entry.tags.iter().chain(&entry.digests).any(named)
    }

    /// The same image under the names of `entry`.
    fn renamed(&self, image: &Image, entry: &Entry) -> Image {
        Image {
            tags: entry.tags.clone(),
            digests: entry.digests.clone(),
            pinned: self.is_pinned(entry),
            ..image.clone()
        }
    }

    /// Shows a change that is committed, and returns its last image.
    pub(crate) fn show(&mut self, change: Change) -> Option<Arc<Image>> {
        if let Some(key) = change.gone {
            self.images.remove(&key);
            self.damaged.remove(&key);
        }
        let mut last = None;
        for (namespace, entry, image) in change.shown {
            let key = (namespace, entry.id);
            match image {
                Some(image) => {
                    last = Some(image.clone());
                    self.damaged.remove(&key);
                    self.images.insert(key, (entry, image));
                }
                None => {
                    self.images.remove(&key);
                    self.damaged.insert(key, entry);
                }
            }
        }
        last
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
    /// that had it.
    pub(crate) fn plan_add(
        &self,
        namespace: &Namespace,
        mut entry: Entry,
        tags: &[Reference],
        config: ConfigFile,
    ) -> Result<Change> {
        let key = (namespace.clone(), entry.id);
        let there = self.images.get(&key).map(|(entry, _)| entry).or(self.damaged.get(&key));
        let (old_tags, old_digests) =
            there.map_or((&[][..], &[][..]), |there| (&there.tags[..], &there.digests[..]));
        add_names(&mut entry.tags, old_tags)?;
        add_names(&mut entry.tags, tags)?;
        add_names(&mut entry.digests, old_digests)?;
        let mut change = Change::default();
        self.take_tags(&mut change, namespace, entry.id, tags)?;
        let image = self.image(&entry, config);
        change.put(namespace, entry, Some(image))?;
        Ok(change)
    }

    /// Gives an image that is there one more tag. None if it is not there.
    pub(crate) fn plan_tag(
        &self,
        namespace: &Namespace,
        id: Digest,
        tag: &Reference,
    ) -> Result<Option<Change>> {
        let key = (namespace.clone(), id);
        let Some((entry, image)) = self.images.get(&key) else { return Ok(None) };
        let mut entry = entry.clone();
        let tags = std::slice::from_ref(tag);
        add_names(&mut entry.tags, tags)?;
        let mut change = Change::default();
        self.take_tags(&mut change, namespace, id, tags)?;
        let image = self.renamed(image, &entry);
        change.put(namespace, entry, Some(image))?;
        Ok(Some(change))
    }

    /// Takes tags from all other images.
    fn take_tags(
        &self,
        change: &mut Change,
        namespace: &Namespace,
        id: Digest,
        tags: &[Reference],
    ) -> Result<()> {
        let whole = self.images.iter().map(|(key, (entry, image))| (key, entry, Some(image)));
        let damaged = self.damaged.iter().map(|(key, entry)| (key, entry, None));
        for ((of, other), entry, image) in whole.chain(damaged) {
            if of != namespace || *other == id || !entry.tags.iter().any(|tag| tags.contains(tag)) {
                continue;
            }
            let mut entry = entry.clone();
            entry.tags.retain(|tag| !tags.contains(tag));
            let image = image.map(|image| self.renamed(image, &entry));
            change.put(namespace, entry, image)?;
        }
        Ok(())
    }

    /// Takes one tag from an image that keeps others.
    pub(crate) fn plan_untag(
        &self,
        namespace: &Namespace,
        id: Digest,
        tag: &Reference,
    ) -> Result<Change> {
        let mut change = Change::default();
        let Some((entry, image)) = self.images.get(&(namespace.clone(), id)) else {
            return Ok(change);
        };
        let mut entry = entry.clone();
        entry.tags.retain(|name| name != tag);
        let image = self.renamed(image, &entry);
        change.put(namespace, entry, Some(image))?;
        Ok(change)
    }

    /// Removes an image with all its names.
    pub(crate) fn plan_remove(namespace: &Namespace, id: Digest) -> Change {
        let mut change = Change { gone: Some((namespace.clone(), id)), ..Change::default() };
        change.batch.delete(TABLE, record_key(namespace, id));
        change
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

/// What the store must have of an image: its configuration, or what is wrong.
fn content(store: &Store, entry: &Entry) -> std::result::Result<ConfigFile, String> {
    if let Some(missing) = entry.layers.iter().find(|layer| store.layer(layer).is_none()) {
        return Err(format!("layer {missing} is missing"));
    }
    let config = store.blob(&entry.id).map_err(|error| error.to_string())?;
    ConfigFile::parse(&config).map_err(|error| format!("its configuration is malformed: {error}"))
}

fn add_names(names: &mut Vec<Reference>, more: &[Reference]) -> Result<()> {
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if names.len() > IMAGE_NAMES_MAX {
        return Err(Error::TooManyNames);
    }
    Ok(())
}
