//! `corten load`: takes images out of an archive.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use bytes::Bytes;
use corten_api::corten::{LoadImagesRequest, LoadedImage};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Place;
use crate::error::{Doing, Error, Result};
use crate::limits::{ARCHIVE_CHUNK_BYTES, ARCHIVE_CHUNKS_WAITING_MAX};
use crate::output::{self, Output, printable};

/// Take images out of an archive
///
/// The archive is a tar file: an OCI image layout, or what docker save writes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The archive [default: stdin]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// An image that was taken in, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    image_id: String,
    references: Vec<String>,
}

impl Arguments {
    /// Sends the archive, and prints what was in it.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let (archive, name): (Box<dyn Read + Send>, _) = match &self.input {
            Some(path) if path.as_os_str() != "-" => {
                let doing = format!("open {}", path.display());
                let file = std::fs::File::open(path).map_err(Error::io(doing))?;
                (Box::new(file), path.display().to_string())
            }
            _ if std::io::stdin().is_terminal() => {
                return Err(Error::Input(
                    "unable to load images: stdin is a terminal: give the archive with -i FILE"
                        .to_owned(),
                ));
            }
            _ => (Box::new(std::io::stdin()), "stdin".to_owned()),
        };
        let daemon = place.connect().await?;
        let (chunks, requests) = mpsc::channel(ARCHIVE_CHUNKS_WAITING_MAX);
        let namespace = daemon.space();
        let reading = tokio::task::spawn_blocking(move || send(archive, namespace, &chunks));
        let answer = daemon.calls().load_images(ReceiverStream::new(requests)).await;
        // Where we could not read, that is what went wrong. A daemon that
        // refuses the archive reads no further, and we do not wait for the rest.
        if answer.is_ok() || reading.is_finished() {
            let read = reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            read.map_err(Error::io(format!("read {name}")))?;
        }
        let answer = answer.doing(format_args!("load images from {name}"))?.into_inner();
        self.tell(answer.images)
    }

    fn tell(&self, images: Vec<LoadedImage>) -> Result<u8> {
        if self.output.json() {
            let row =
                |image: LoadedImage| Row { image_id: image.image_id, references: image.references };
            output::print_json(&images.into_iter().map(row).collect::<Vec<_>>())?;
            return Ok(0);
        }
        let mut text = String::new();
        for image in images {
            if image.references.is_empty() {
                text += &format!("{}\n", printable(&image.image_id));
            }
            for reference in &image.references {
                text += &format!("{}\n", printable(reference));
            }
        }
        output::print(&text)?;
        Ok(0)
    }
}

/// Reads the archive to its end, or until nobody wants more of it. Where it
/// cannot be read, the daemon sees an archive that ends too early.
fn send(
    mut archive: impl Read,
    namespace: String,
    chunks: &mpsc::Sender<LoadImagesRequest>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; ARCHIVE_CHUNK_BYTES];
    loop {
        let length = match archive.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let chunk = Bytes::copy_from_slice(&buffer[..length]);
        let request = LoadImagesRequest { namespace: namespace.clone(), chunk };
        if length == 0 || chunks.blocking_send(request).is_err() {
            return Ok(());
        }
    }
}
