//! Images into an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use corten_base::limits::IMAGE_ARCHIVE_IMAGES_MAX;
use corten_base::{Digest, Namespace, Reference};
use corten_store::{Lease, Store, TarItem, TarWriter};
use serde_json::json;

use super::document::{self, DockerImage, IndexFile, annotations, descriptor, digest_of};
use super::{ArchiveFormat, DOCKER_FILE, INDEX_FILE, LAYOUT_FILE};
use crate::error::{PullError, PullErrorKind};
use crate::image::{ConfigFile, Image};
use crate::images::Inner;
use crate::manifest::{OCI_INDEX, OCI_MANIFEST, PlatformEntry};

/// Digest and length of a layer's archive, by diffID.
type Layers = BTreeMap<Digest, (Digest, u64)>;

/// An image that is to be written.
struct Chosen {
    image: Arc<Image>,
    names: Vec<Reference>,
    /// Its layers stay while it is written.
    leases: Vec<Lease>,
}

/// The small parts of an image as it is written.
struct Written {
    names: Vec<Reference>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    /// diffIDs as the store knows them.
    layers: Vec<Digest>,
    platform: PlatformEntry,
}

/// Writes images. A name is written with its image; an id brings no name. Blocks.
pub(crate) fn save(
    inner: &Inner,
    namespace: &Namespace,
    asked: &[String],
    format: ArchiveFormat,
    out: impl Write,
) -> Result<(), PullError> {
    save_all(inner, namespace, asked, format, out)
        .map_err(|error| error.within("unable to save images"))
}

fn save_all(
    inner: &Inner,
    namespace: &Namespace,
    asked: &[String],
    format: ArchiveFormat,
    out: impl Write,
) -> Result<(), PullError> {
    let chosen = choose(inner, namespace, asked)?;
    let store = &inner.store;
    // The archive names layers by digest before it holds them: read twice
    // rather than kept twice.
    let mut layers = Layers::new();
    for lease in chosen.iter().flat_map(|image| &image.leases) {
        if !layers.contains_key(lease.diff_id()) {
            let made = store.write_layer(lease.diff_id(), &mut io::sink())?;
            layers.insert(*lease.diff_id(), made);
        }
    }
    let images: Vec<Written> =
        chosen.iter().map(|image| describe(store, image, &layers)).collect::<Result<_, _>>()?;
    let mut tar = TarWriter::new(out);
    match format {
        ArchiveFormat::Oci => write_layout(store, &mut tar, &images, &layers)?,
        ArchiveFormat::Docker => write_docker(store, &mut tar, &images, &layers)?,
    }
    tar.finish().map_err(|error| not_written(&error))?;
    Ok(())
}

fn choose(
    inner: &Inner,
    namespace: &Namespace,
    asked: &[String],
) -> Result<Vec<Chosen>, PullError> {
    if asked.is_empty() || asked.len() > IMAGE_ARCHIVE_IMAGES_MAX {
        return Err(PullError::invalid(format!(
            "{} images were named; name 1 to {IMAGE_ARCHIVE_IMAGES_MAX}",
            asked.len()
        )));
    }
    let mut chosen: Vec<Chosen> = Vec::new();
    for text in asked {
        let gone =
            || PullError::new(PullErrorKind::NotFound, format!("there is no image {text:?}"));
        let image = inner.read().find(namespace, text).ok_or_else(gone)?;
        let name = text.parse::<Reference>().ok().filter(|name| image.tags.contains(name));
        let there = chosen.iter_mut().find(|there| there.image.id == image.id);
        if let Some(there) = there {
            there.names.extend(name.filter(|name| !there.names.contains(name)));
            continue;
        }
        let leases = image.layers.iter().map(|layer| inner.store.layer(layer).ok_or_else(gone));
        let leases = leases.collect::<Result<_, _>>()?;
        chosen.push(Chosen { names: name.into_iter().collect(), image, leases });
    }
    Ok(chosen)
}

fn describe(store: &Store, chosen: &Chosen, layers: &Layers) -> Result<Written, PullError> {
    let image = &chosen.image;
    let described: Vec<(Digest, u64)> =
        image.layers.iter().filter_map(|layer| layers.get(layer).copied()).collect();
    let config = configuration(store.blob(&image.id)?, &described)?;
    let manifest = document::manifest(&config, &described).map_err(|error| bad(&error))?;
    let platform = PlatformEntry {
        os: image.config.os.clone(),
        architecture: image.config.architecture.clone(),
        variant: String::new(),
    };
    let (names, layers) = (chosen.names.clone(), image.layers.clone());
    Ok(Written { names, config, manifest, layers, platform })
}

/// The configuration with the layers' new diffIDs; untouched if they are the old.
fn configuration(bytes: Vec<u8>, layers: &[(Digest, u64)]) -> Result<Vec<u8>, PullError> {
    let diff_ids: Vec<Digest> = layers.iter().map(|(digest, _)| *digest).collect();
    let file = ConfigFile::parse(&bytes).map_err(|error| bad(&error))?;
    if file.diff_ids == diff_ids {
        return Ok(bytes);
    }
    let mut value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| bad(&e))?;
    value["rootfs"]["diff_ids"] = json!(diff_ids);
    serde_json::to_vec(&value).map_err(|error| bad(&error))
}

fn write_layout<W: Write>(
    store: &Store,
    tar: &mut TarWriter<W>,
    images: &[Written],
    layers: &Layers,
) -> Result<(), PullError> {
    let mut manifests = Vec::new();
    for image in images {
        let size = image.manifest.len() as u64;
        let mut entry = descriptor(OCI_MANIFEST, digest_of(&image.manifest), size);
        if !image.platform.os.is_empty() && !image.platform.architecture.is_empty() {
            entry.platform = Some(image.platform.clone());
        }
        for name in &image.names {
            let tag = name.tag().unwrap_or_default();
            entry.annotations = Some(annotations(&name.to_string(), tag));
            manifests.push(entry.clone());
        }
        if image.names.is_empty() {
            manifests.push(entry);
        }
    }
    let index = IndexFile { schema_version: 2, media_type: OCI_INDEX, manifests };
    let index = serde_json::to_vec(&index).map_err(|error| bad(&error))?;
    file(tar, LAYOUT_FILE, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    file(tar, INDEX_FILE, &index)?;
    for directory in ["blobs/", "blobs/sha256/"] {
        tar.item(&TarItem::directory(directory.as_bytes())).map_err(|e| not_written(&e))?;
    }
    let mut written = BTreeSet::new();
    for image in images {
        for blob in [&image.manifest, &image.config] {
            if written.insert(digest_of(blob)) {
                file(tar, &format!("blobs/sha256/{}", digest_of(blob).hex()), blob)?;
            }
        }
    }
    for (diff_id, (digest, size)) in layers {
        if written.insert(*digest) {
            let path = format!("blobs/sha256/{}", digest.hex());
            layer(store, tar, &path, diff_id, (*digest, *size))?;
        }
    }
    Ok(())
}

fn write_docker<W: Write>(
    store: &Store,
    tar: &mut TarWriter<W>,
    images: &[Written],
    layers: &Layers,
) -> Result<(), PullError> {
    let path_of = |layer: &Digest| format!("{}/layer.tar", layer.hex());
    let mut list = Vec::new();
    let mut written = BTreeSet::new();
    for image in images {
        let layers = image.layers.iter().filter_map(|layer| layers.get(layer));
        list.push(DockerImage {
            config: format!("{}.json", digest_of(&image.config).hex()),
            repo_tags: Some(image.names.iter().map(Reference::familiar).collect()),
            layers: Some(layers.map(|(digest, _)| path_of(digest)).collect()),
        });
    }
    let list_json = serde_json::to_vec(&list).map_err(|error| bad(&error))?;
    file(tar, DOCKER_FILE, &list_json)?;
    for (image, entry) in images.iter().zip(&list) {
        if written.insert(digest_of(&image.config)) {
            file(tar, &entry.config, &image.config)?;
        }
    }
    for (diff_id, (digest, size)) in layers {
        if written.insert(*digest) {
            let directory = format!("{}/", digest.hex());
            tar.item(&TarItem::directory(directory.as_bytes())).map_err(|e| not_written(&e))?;
            layer(store, tar, &path_of(digest), diff_id, (*digest, *size))?;
        }
    }
    Ok(())
}

fn file<W: Write>(tar: &mut TarWriter<W>, path: &str, bytes: &[u8]) -> Result<(), PullError> {
    let size = bytes.len() as u64;
    tar.item(&TarItem::file(path.as_bytes(), size))
        .and_then(|()| tar.data(bytes, size))
        .map_err(|error| not_written(&error))
}

fn layer<W: Write>(
    store: &Store,
    tar: &mut TarWriter<W>,
    path: &str,
    diff_id: &Digest,
    promised: (Digest, u64),
) -> Result<(), PullError> {
    tar.item(&TarItem::file(path.as_bytes(), promised.1)).map_err(|e| not_written(&e))?;
    let mut exact = Exact { out: tar.out(), left: promised.1 };
    match store.write_layer(diff_id, &mut exact) {
        Ok(made) if made == promised => {}
        Ok(_) => {
            return Err(PullError::new(
                PullErrorKind::Internal,
                format!("layer {diff_id} changed while it was read"),
            ));
        }
        Err(corten_store::Error::Io { source, .. })
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            return Err(not_written(&source));
        }
        Err(error) => return Err(error.into()),
    }
    tar.pad(promised.1).map_err(|error| not_written(&error))
}

/// Passes on no more than was promised: the archive's headers are out already.
struct Exact<'a, W> {
    out: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Exact<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("the layer changed while it was read"));
        }
        let length = self.out.write(bytes)?;
        self.left -= length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        // The archive goes on after the layer.
        Ok(())
    }
}

fn bad(error: &serde_json::Error) -> PullError {
    PullError::new(
        PullErrorKind::Internal,
        format!("unable to describe an image for the archive: {error}"),
    )
}

fn not_written(error: &io::Error) -> PullError {
    let kind = match error.kind() {
        io::ErrorKind::BrokenPipe => PullErrorKind::Cancelled,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PullErrorKind::DiskFull,
        _ => PullErrorKind::Internal,
    };
    PullError::new(kind, format!("unable to write the archive: {error}"))
}
