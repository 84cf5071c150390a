//! Devices of vendors: reads their files when a container asks for one, so
//! that what a vendor writes counts from then on.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use corten_base::limits::{CDI_FILE_BYTES_MAX, CDI_FILES_MAX};
use corten_spec::cdi::{self, NodeFact, Registry};
use corten_spec::oci::Spec;
use corten_spec::request::ContainerConfig;

use super::Inner;
use crate::error::{Error, Result};

impl Inner {
    /// Makes the edits of the devices that a container asks for.
    pub(super) fn add_cdi_devices(&self, config: &ContainerConfig, spec: &mut Spec) -> Result<()> {
        let invalid = |error: corten_spec::Error| Error::invalid(error.to_string());
        let names = cdi::wanted(&config.cdi_devices, &config.annotations).map_err(invalid)?;
        if names.is_empty() {
            return Ok(());
        }
        let registry = read_all(&self.config.cdi_dirs)?;
        cdi::apply(spec, &registry, &names, &look).map_err(invalid)
    }
}

/// The files of all directories; a later directory has the higher priority.
fn read_all(dirs: &[PathBuf]) -> Result<Registry> {
    let mut registry = Registry::default();
    for (priority, dir) in dirs.iter().enumerate() {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        let mut paths: Vec<PathBuf> =
            entries.flatten().take(CDI_FILES_MAX + 1).map(|entry| entry.path()).collect();
        if paths.len() > CDI_FILES_MAX {
            return Err(Error::invalid(format!(
                "unable to look for CDI devices: {} has more than {CDI_FILES_MAX} files",
                dir.display()
            )));
        }
        paths.sort();
        for path in paths {
            let content = super::bounded::read(&path, CDI_FILE_BYTES_MAX);
            let content = content.map_err(|error| error.to_string());
            let content = content.as_deref().map_err(Clone::clone);
            registry.add(&path.display().to_string(), priority, content);
        }
    }
    Ok(registry)
}

fn look(path: &str) -> Option<NodeFact> {
    let meta = std::fs::metadata(path).ok()?;
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => 'b',
        kind if kind.is_char_device() => 'c',
        kind if kind.is_fifo() => 'p',
        _ => return None,
    };
    Some(NodeFact {
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
    })
}
