//! Images out of an archive.

use std::collections::{BTreeMap, btree_map};
use std::io::{self, Read};

use corten_base::limits::{
    IMAGE_ARCHIVE_IMAGES_MAX, IMAGE_CONFIG_BYTES_MAX, IMAGE_LAYERS_MAX, IMAGE_NAMES_MAX,
    MANIFEST_BYTES_MAX,
};
use corten_base::{Digest, Namespace, Reference};
use corten_store::{LayerStart, Lease};
use sha2::{Digest as _, Sha256};

use super::document::{self, DockerImage, NAME_ANNOTATION, REF_ANNOTATION, digest_of};
use super::spool::{Section, Spool};
use super::{DOCKER_FILE, INDEX_FILE, LoadedImage};
use crate::catalog::Entry;
use crate::error::PullError;
use crate::image::ConfigFile;
use crate::images::Inner;
use crate::manifest::{Descriptor, Document, Manifest, choose};
use crate::pipe::{inflate, source_failed};

/// An image of an archive, layers apart.
struct Found {
    manifest: Vec<u8>,
    config: Vec<u8>,
    /// Where each layer is, bottom first, and the digest that it must have.
    layers: Vec<(String, Option<Digest>)>,
    names: Names,
}

/// What an image is called.
#[derive(Default)]
struct Names {
    tags: Vec<Reference>,
    digests: Vec<Reference>,
}

/// Takes all images out of an archive, and records them. Blocks.
pub(crate) fn load(
    inner: &Inner,
    namespace: &Namespace,
    reader: impl Read,
) -> Result<Vec<LoadedImage>, PullError> {
    let result = load_all(inner, namespace, reader);
    if result.is_err() {
        // What was unpacked and is in no image goes; a failure here is no news.
        let _ = inner.collect();
    }
    result.map_err(|error| error.within("unable to load images"))
}

fn load_all(
    inner: &Inner,
    namespace: &Namespace,
    reader: impl Read,
) -> Result<Vec<LoadedImage>, PullError> {
    let spool = Spool::fill(&inner.store, reader)?;
    let found = if spool.has(INDEX_FILE) {
        layout(inner, &spool)?
    } else if spool.has(DOCKER_FILE) {
        docker(&spool)?
    } else {
        return Err(PullError::invalid(format!(
            "the archive has neither {INDEX_FILE} (an OCI layout) nor {DOCKER_FILE} (docker save)"
        )));
    };
    found.into_iter().map(|image| take(inner, namespace, &spool, image)).collect()
}

/// Unpacks what is missing of an image, and records it.
fn take(
    inner: &Inner,
    namespace: &Namespace,
    spool: &Spool,
    found: Found,
) -> Result<LoadedImage, PullError> {
    let config = ConfigFile::parse(&found.config).map_err(|error| {
        PullError::invalid(format!("the image's configuration is malformed: {error}"))
    })?;
    if config.diff_ids.len() != found.layers.len() {
        return Err(PullError::invalid(format!(
            "the image has {} layers, but its configuration names {}",
            found.layers.len(),
            config.diff_ids.len()
        )));
    }
    let mut leases = Vec::with_capacity(found.layers.len());
    let mut size_bytes = found.config.len() as u64;
    for ((path, digest), diff_id) in found.layers.iter().zip(&config.diff_ids) {
        let section = spool.section(path)?;
        size_bytes = size_bytes.saturating_add(section.length());
        let lease = layer(inner, section, *digest, *diff_id);
        leases.push(lease.map_err(|error| error.within(format!("layer {path:?}")))?);
    }
    let entry = Entry {
        manifest: digest_of(&found.manifest),
        layers: config.diff_ids,
        size_bytes,
        digests: found.names.digests,
        ..Entry::new(digest_of(&found.config))
    };
    let blobs = vec![found.manifest.into(), found.config.into()];
    let image = inner.record_now(namespace, entry, &found.names.tags, &blobs, leases)?;
    Ok(LoadedImage { image, references: found.names.tags })
}

fn layer(
    inner: &Inner,
    section: Section<'_>,
    digest: Option<Digest>,
    diff_id: Digest,
) -> Result<Lease, PullError> {
    let unpack = match inner.store.begin_layer(Some(diff_id))? {
        LayerStart::Present(lease) => return Ok(lease),
        LayerStart::Unpack(unpack) => unpack,
    };
    // One that is not compressed is hashed by the unpacker.
    let hash = digest.filter(|digest| *digest != diff_id).map(|_| Sha256::new());
    let mut hashed = Hashed { section, hash };
    let done = unpack.run(inflate(&mut hashed).map_err(source_failed)?);
    let done = done.map_err(|error| match error {
        corten_store::Error::Source(error) => source_failed(error),
        other => other.into(),
    })?;
    io::copy(&mut hashed, &mut io::sink()).map_err(source_failed)?;
    let actual = hashed.hash.map(|hash| Digest::from_sha256(hash.finalize().into()));
    if let (Some(actual), Some(digest)) = (actual, digest)
        && actual != digest
    {
        return Err(PullError::invalid(format!("its digest is {actual}")));
    }
    Ok(done.lease)
}

/// The images of an OCI layout.
fn layout(inner: &Inner, spool: &Spool) -> Result<Vec<Found>, PullError> {
    let index = spool.read(INDEX_FILE, MANIFEST_BYTES_MAX)?;
    let Document::Index(entries) = Document::parse(&index, "")? else {
        return Err(PullError::invalid(format!("{INDEX_FILE} is no index")));
    };
    // One image may stand there once for each name.
    let mut found: BTreeMap<Digest, Found> = BTreeMap::new();
    let mut order = Vec::new();
    for entry in &entries {
        let (manifest, bytes) = image_of(inner, spool, entry)?;
        let digest = digest_of(&bytes);
        let image = match found.entry(digest) {
            btree_map::Entry::Occupied(there) => there.into_mut(),
            btree_map::Entry::Vacant(place) => {
                check_count(order.len())?;
                order.push(digest);
                place.insert(in_layout(spool, &manifest, bytes)?)
            }
        };
        if let Some(name) = name_of(entry)? {
            add(&mut image.names.digests, name.with_digest(entry.digest))?;
            if name.digest().is_none() {
                add(&mut image.names.tags, name)?;
            }
        }
    }
    Ok(order.iter().filter_map(|digest| found.remove(digest)).collect())
}

/// The manifest of an entry of `index.json`, chosen for this machine.
fn image_of(
    inner: &Inner,
    spool: &Spool,
    entry: &Descriptor,
) -> Result<(Manifest, Vec<u8>), PullError> {
    let bytes = blob(spool, &entry.digest, MANIFEST_BYTES_MAX)?;
    match Document::parse(&bytes, &entry.media_type)? {
        Document::Manifest(manifest) => Ok((manifest, bytes)),
        Document::Index(mut manifests) => {
            // An archive may hold some of the platforms only.
            manifests.retain(|entry| spool.has(&blob_path(&entry.digest)));
            let chosen = choose(&manifests, &inner.config.platform)?;
            let bytes = blob(spool, &chosen.digest, MANIFEST_BYTES_MAX)?;
            match Document::parse(&bytes, &chosen.media_type)? {
                Document::Manifest(manifest) => Ok((manifest, bytes)),
                Document::Index(_) => Err(PullError::invalid("the index leads to another index")),
            }
        }
    }
}

fn in_layout(spool: &Spool, manifest: &Manifest, bytes: Vec<u8>) -> Result<Found, PullError> {
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        let path = blob_path(&layer.digest);
        let size = spool.section(&path)?.length();
        if size != layer.size {
            return Err(PullError::invalid(format!(
                "{path:?} has {size} bytes, not the {} that its manifest says",
                layer.size
            )));
        }
        layers.push((path, Some(layer.digest)));
    }
    let config = blob(spool, &manifest.config.digest, IMAGE_CONFIG_BYTES_MAX)?;
    Ok(Found { manifest: bytes, config, layers, names: Names::default() })
}

/// The images of what `docker save` writes.
fn docker(spool: &Spool) -> Result<Vec<Found>, PullError> {
    let bytes = spool.read(DOCKER_FILE, MANIFEST_BYTES_MAX)?;
    let images: Vec<DockerImage> = serde_json::from_slice(&bytes)
        .map_err(|error| PullError::invalid(format!("{DOCKER_FILE} is malformed: {error}")))?;
    check_count(images.len().saturating_sub(1))?;
    images.into_iter().map(|image| in_docker(spool, image)).collect()
}

fn in_docker(spool: &Spool, image: DockerImage) -> Result<Found, PullError> {
    let config = spool.read(&image.config, IMAGE_CONFIG_BYTES_MAX)?;
    // The file is named for its digest.
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(named) = format!("sha256:{stem}").parse::<Digest>()
        && named != digest_of(&config)
    {
        return Err(PullError::invalid(format!(
            "{:?} has digest {}",
            image.config,
            digest_of(&config)
        )));
    }
    let paths = image.layers.unwrap_or_default();
    let diff_ids = ConfigFile::parse(&config).map(|file| file.diff_ids).unwrap_or_default();
    if paths.len() > IMAGE_LAYERS_MAX {
        let count = paths.len();
        return Err(PullError::invalid(format!("the image has {count} layers, which is too many")));
    }
    // There is no manifest in the archive, and every image has one.
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(diff_ids) {
        layers.push((diff_id, spool.section(path)?.length()));
    }
    let manifest = document::manifest(&config, &layers)
        .map_err(|error| PullError::invalid(format!("no manifest can be made: {error}")))?;
    let mut names = Names::default();
    for text in image.repo_tags.unwrap_or_default() {
        add(&mut names.tags, reference(&text)?)?;
    }
    let layers = paths.into_iter().map(|path| (path, None)).collect();
    Ok(Found { manifest, config, layers, names })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(spool: &Spool, digest: &Digest, max: usize) -> Result<Vec<u8>, PullError> {
    let path = blob_path(digest);
    let bytes = spool.read(&path, max)?;
    let actual = digest_of(&bytes);
    if actual != *digest {
        return Err(PullError::invalid(format!("{path:?} has digest {actual}")));
    }
    Ok(bytes)
}

/// The name that an index gives an image. A bare tag is no name.
fn name_of(entry: &Descriptor) -> Result<Option<Reference>, PullError> {
    let Some(annotations) = &entry.annotations else { return Ok(None) };
    let complete = annotations.get(NAME_ANNOTATION);
    let perhaps = annotations.get(REF_ANNOTATION).filter(|name| name.contains(['/', ':']));
    complete.or(perhaps).map(|text| reference(text)).transpose()
}

fn reference(text: &str) -> Result<Reference, PullError> {
    text.parse().map_err(|error| PullError::invalid(format!("the archive names an {error}")))
}

fn add(names: &mut Vec<Reference>, name: Reference) -> Result<(), PullError> {
    if names.len() >= IMAGE_NAMES_MAX {
        return Err(PullError::invalid(format!("an image has more than {IMAGE_NAMES_MAX} names")));
    }
    if !names.contains(&name) {
        names.push(name);
    }
    Ok(())
}

fn check_count(before: usize) -> Result<(), PullError> {
    if before < IMAGE_ARCHIVE_IMAGES_MAX {
        return Ok(());
    }
    Err(PullError::invalid(format!("the archive has more than {IMAGE_ARCHIVE_IMAGES_MAX} images")))
}

/// Hashes what is read, where that is wanted.
struct Hashed<'a> {
    section: Section<'a>,
    hash: Option<Sha256>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.section.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..length]);
        }
        Ok(length)
    }
}
