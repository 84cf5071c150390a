//! `corten cp`: files into and out of a running container.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use corten_api::corten::copy_in_request::Event as Input;
use corten_api::corten::{CopyInRequest, CopyInStart, CopyOutRequest, CopyOutResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Daemon, Place};
use crate::error::{Doing, Error, Result};
use crate::limits::{ARCHIVE_CHUNK_BYTES, ARCHIVE_CHUNKS_WAITING_MAX};
use crate::output::printable;

/// Copy files and directories into or out of a running container
///
/// A destination that is a directory takes the source under its name; another
/// is what the source becomes. With "/." at its end, a source is the content of
/// a directory. "-" is a tar archive on stdin or stdout. Copies belong to the
/// container's root, or to us.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: corten cp web:/etc/nginx/nginx.conf . , \
                        corten cp ./site/. web:/srv/www")]
pub struct Arguments {
    /// Keep owners (outside: needs root)
    #[arg(short, long)]
    archive: bool,
    /// If the source is a link, copy what it leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// What to copy
    #[arg(value_name = "[CONTAINER:]SOURCE")]
    source: String,
    /// Where to
    #[arg(value_name = "[CONTAINER:]DESTINATION")]
    destination: String,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Inside {
        container: &'a str,
        path: &'a str,
    },
    Outside(&'a Path),
    /// stdin or stdout
    Stream,
}

/// A path with a colon in its first component can be written `./a:b`.
fn side(text: &str) -> Side<'_> {
    match text.split_once(':') {
        _ if text == "-" => Side::Stream,
        Some((container, path)) if !container.contains('/') && is_name(container) => {
            Side::Inside { container, path: if path.is_empty() { "/" } else { path } }
        }
        _ => Side::Outside(Path::new(text)),
    }
}

/// Names of containers may have dots, but do not begin with one.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

impl Arguments {
    /// Copies.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        match (side(&self.source), side(&self.destination)) {
            (Side::Inside { container, path }, Side::Outside(to)) => {
                self.to_here(&daemon, container, path, to).await
            }
            (Side::Inside { container, path }, Side::Stream) => {
                self.to_stdout(&daemon, container, path).await
            }
            (Side::Outside(from), Side::Inside { container, path }) => {
                let contents = ends_in_dot(from);
                let (from, keep) = (from.to_owned(), self.archive);
                let follow = self.follow_link;
                let pack = move |out: Chunks| pack(&from, contents, follow, out);
                self.to_container(&daemon, container, path, contents, keep, pack).await
            }
            (Side::Stream, Side::Inside { container, path }) => {
                let pack = |mut out: Chunks| io::copy(&mut io::stdin().lock(), &mut out).map(drop);
                self.to_container(&daemon, container, path, false, self.archive, pack).await
            }
            (Side::Inside { .. }, Side::Inside { .. }) => Err(Error::Input(
                "unable to copy from container to container: copy it here first, or pipe it: \
                 corten cp a:/x - | corten cp - b:/"
                    .to_owned(),
            )),
            (Side::Outside(_) | Side::Stream, Side::Outside(_) | Side::Stream) => {
                Err(Error::Input(
                    "unable to copy: neither side is in a container: write CONTAINER:PATH"
                        .to_owned(),
                ))
            }
        }
    }

    async fn ask(
        &self,
        daemon: &Daemon,
        container: &str,
        path: &str,
        name: String,
    ) -> Result<tonic::Streaming<CopyOutResponse>> {
        let request = CopyOutRequest {
            namespace: daemon.space(),
            container: container.to_owned(),
            path: path.to_owned(),
            name,
            follow: self.follow_link,
        };
        let answer = daemon.calls().copy_out(request).await;
        Ok(answer.doing(format_args!("copy {path} out of {container}"))?.into_inner())
    }

    async fn to_stdout(&self, daemon: &Daemon, container: &str, path: &str) -> Result<u8> {
        let name = last_name(path).unwrap_or("root").to_owned();
        let mut chunks = self.ask(daemon, container, path, name).await?;
        let doing = format!("copy {path} out of {container}");
        while let Some(piece) = chunks.message().await.doing(&doing)? {
            crate::output::write_all(&piece.chunk)?;
        }
        Ok(0)
    }

    /// Into a directory under its name; else as what is named.
    async fn to_here(&self, daemon: &Daemon, container: &str, path: &str, to: &Path) -> Result<u8> {
        let contents = ends_in_dot(Path::new(path));
        let doing = format!("copy {path} out of {container}");
        let (directory, name) = if contents {
            std::fs::create_dir_all(to).map_err(Error::io(format!("make {}", to.display())))?;
            (to.to_owned(), String::new())
        } else if to.is_dir() {
            let name = last_name(path).ok_or_else(|| {
                Error::Input(format!("unable to {doing}: it has no name; write {path}/."))
            })?;
            (to.to_owned(), name.to_owned())
        } else {
            let name = to.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
                Error::Input(format!("unable to use {}: it is no name for a copy", to.display()))
            })?;
            let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")).to_owned(), name.to_owned())
        };
        let mut chunks = self.ask(daemon, container, path, name).await?;
        let (sender, receiver) = mpsc::channel(ARCHIVE_CHUNKS_WAITING_MAX);
        let keep = self.archive;
        let unpacking =
            tokio::task::spawn_blocking(move || unpack(Pieces::new(receiver), &directory, keep));
        let outcome = loop {
            match chunks.message().await.doing(&doing) {
                // Who does not take it any more says why below.
                Ok(Some(piece)) => {
                    if sender.send(Some(piece.chunk)).await.is_err() {
                        break Ok(());
                    }
                }
                Ok(None) => break sender.send(None).await.map_or(Ok(()), Ok),
                Err(error) => break Err(error),
            }
        };
        drop(sender);
        let unpacked = unpacking.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        outcome?;
        unpacked.map_err(Error::io(format!("copy to {}", to.display())))?;
        Ok(0)
    }

    async fn to_container(
        &self,
        daemon: &Daemon,
        container: &str,
        path: &str,
        contents: bool,
        keep_owner: bool,
        pack: impl FnOnce(Chunks) -> io::Result<()> + Send + 'static,
    ) -> Result<u8> {
        let start = CopyInStart {
            namespace: daemon.space(),
            container: container.to_owned(),
            path: path.to_owned(),
            contents,
            keep_owner,
        };
        let (requests, stream) = mpsc::channel(ARCHIVE_CHUNKS_WAITING_MAX);
        // There is room: it is the first.
        let _ = requests.try_send(CopyInRequest { event: Some(Input::Start(start)) });
        let packing = tokio::task::spawn_blocking(move || pack(Chunks(requests)));
        let answer = daemon.calls().copy_in(ReceiverStream::new(stream)).await;
        // Where we could not read, that is what went wrong.
        if answer.is_ok() || packing.is_finished() {
            let packed = packing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            if let Err(error) = packed
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                return Err(Error::io(format!("read {}", self.source))(error));
            }
        }
        answer.doing(format_args!("copy to {path} in {container}"))?;
        Ok(0)
    }
}

/// The name that a path ends with.
fn last_name(path: &str) -> Option<&str> {
    match Path::new(path).components().next_back() {
        Some(Component::Normal(name)) => name.to_str(),
        _ => None,
    }
}

/// `dir/.` stands for what is in `dir`.
fn ends_in_dot(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    text == b"." || text.ends_with(b"/.") || text.ends_with(b"/./")
}

/// Writes an archive of a file or a directory of ours; its top is called as it
/// is here, or left to be left out.
fn pack(from: &Path, contents: bool, follow: bool, out: Chunks) -> io::Result<()> {
    let out = io::BufWriter::with_capacity(ARCHIVE_CHUNK_BYTES, out);
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    archive.sparse(false);
    let absolute = std::path::absolute(from)?;
    let name = absolute.file_name().map_or_else(|| PathBuf::from("root"), PathBuf::from);
    let name = if contents { PathBuf::from("content") } else { name };
    let found = if follow { std::fs::metadata(from)? } else { std::fs::symlink_metadata(from)? };
    if found.is_dir() {
        archive.append_dir_all(&name, from)?;
    } else if contents {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no directory"));
    } else if found.is_file() {
        archive.append_file(&name, &mut std::fs::File::open(from)?)?;
    } else {
        archive.append_path_with_name(from, &name)?;
    }
    archive.into_inner()?.flush()
}

/// Unpacks an archive of ours into a directory. Nothing is made outside of it,
/// whatever the archive says.
fn unpack(pieces: Pieces, directory: &Path, keep: bool) -> io::Result<()> {
    let mut archive = tar::Archive::new(pieces);
    archive.set_preserve_ownerships(keep);
    archive.set_preserve_permissions(keep);
    // Their modes come last, so that one that may not be written to can be filled.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let path = entry.path()?.into_owned();
        let made = match kind {
            tar::EntryType::Directory => {
                directories.push(entry);
                continue;
            }
            tar::EntryType::Regular | tar::EntryType::Symlink | tar::EntryType::Link => {
                entry.unpack_in(directory)?
            }
            _ => {
                let shown = printable(&path.display().to_string());
                eprintln!("corten: {shown} is left out: it is no file, directory or link");
                continue;
            }
        };
        if !made {
            let text = format!("{:?} would lead out of {}", path, directory.display());
            return Err(io::Error::other(text));
        }
    }
    directories.sort_by(|one, other| other.path_bytes().cmp(&one.path_bytes()));
    for mut directory_entry in directories {
        directory_entry.unpack_in(directory)?;
    }
    // The stream ends after the archive, or it was cut off.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

/// An archive as it comes. It has ended where that is said, and is cut off
/// where nothing more comes.
struct Pieces {
    waiting: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Pieces {
    fn new(waiting: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self { waiting, piece: Bytes::new(), ended: false }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.waiting.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// An archive as it goes.
struct Chunks(mpsc::Sender<CopyInRequest>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(ARCHIVE_CHUNK_BYTES)];
        let chunk = Input::Chunk(Bytes::copy_from_slice(bytes));
        let request = CopyInRequest { event: Some(chunk) };
        self.0.blocking_send(request).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let inside = |container, path| Side::Inside { container, path };
        assert_eq!(side("web:/etc"), inside("web", "/etc"));
        assert_eq!(side("web.1:x"), inside("web.1", "x"));
        assert_eq!(side("web:"), inside("web", "/"));
        assert_eq!(side("-"), Side::Stream);
        for text in ["./web:x", "/web:x", "x/web:y", "web", ":x", "../a:b"] {
            assert_eq!(side(text), Side::Outside(Path::new(text)), "{text}");
        }
    }

    #[test]
    fn contents_are_asked_for_with_a_dot() {
        for (path, so) in [("a/.", true), (".", true), ("a/./", true), ("a", false), ("a.", false)]
        {
            assert_eq!(ends_in_dot(Path::new(path)), so, "{path}");
        }
        assert_eq!(last_name("/a/b/"), Some("b"));
        assert_eq!((last_name("/"), last_name("a/..")), (None, None));
    }
}
