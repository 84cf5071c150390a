//! `corten save`: puts images into an archive.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use corten_api::corten::{ArchiveFormat, SaveImagesRequest, SaveImagesResponse};
use tonic::Streaming;

use crate::client::Place;
use crate::error::{Doing, Error, Result};

/// Put images into an archive
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The archive [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write: an OCI image layout, or what docker save writes
    #[arg(long, value_name = "FORMAT", default_value = "oci")]
    format: FormatName,
    /// Their names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// How images are put into a tar file.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FormatName {
    /// An OCI image layout
    Oci,
    /// What docker save writes
    #[value(alias = "docker-archive")]
    Docker,
}

impl Arguments {
    /// Writes it.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let path = self.output.as_deref().filter(|path| path.as_os_str() != "-");
        if path.is_none() && std::io::stdout().is_terminal() {
            return Err(Error::Input(
                "unable to save images: stdout is a terminal: name the archive with -o FILE"
                    .to_owned(),
            ));
        }
        let daemon = place.connect().await?;
        let doing = format!("save {}", self.images.join(", "));
        let request = SaveImagesRequest {
            namespace: daemon.space(),
            images: self.images,
            format: match self.format {
                FormatName::Oci => ArchiveFormat::Oci,
                FormatName::Docker => ArchiveFormat::Docker,
            }
            .into(),
        };
        let mut chunks = daemon.calls().save_images(request).await.doing(&doing)?.into_inner();
        match path {
            Some(path) => to_file(&mut chunks, path, &doing).await?,
            None => copy(&mut chunks, &mut std::io::stdout(), "stdout", &doing).await?,
        }
        Ok(0)
    }
}

/// Writes beside the file that is meant, and puts it there when it is whole. A
/// pipe or a device is written to as it is.
async fn to_file(
    chunks: &mut Streaming<SaveImagesResponse>,
    path: &Path,
    doing: &str,
) -> Result<()> {
    let name = path.display().to_string();
    let failed = |verb: &str| Error::io(format!("{verb} {name}"));
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        let mut file = File::options().write(true).open(path).map_err(failed("open"))?;
        return copy(chunks, &mut file, &name, doing).await;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let mut file = File::create_new(&partial).map_err(failed("create"))?;
    let outcome = copy(chunks, &mut file, &name, doing)
        .await
        .and_then(|()| std::fs::rename(&partial, path).map_err(failed("write")));
    if outcome.is_err() {
        // What went wrong is told; that this may be left over, too, is not.
        let _ = std::fs::remove_file(&partial);
    }
    outcome
}

async fn copy(
    chunks: &mut Streaming<SaveImagesResponse>,
    to: &mut impl Write,
    name: &str,
    doing: &str,
) -> Result<()> {
    while let Some(message) = chunks.message().await.doing(doing)? {
        to.write_all(&message.chunk).map_err(Error::io(format!("write {name}")))?;
    }
    to.flush().map_err(Error::io(format!("write {name}")))
}
