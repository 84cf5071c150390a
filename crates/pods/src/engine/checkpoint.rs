//! Checkpoints of running containers, by CRIU.
//!
//! Everything that is to be captured together is stopped by its cgroup first,
//! captured, and let go on; only then are archives written. That a container
//! is stopped is written down before it is, so that a daemon that comes back
//! lets it go on.
//!
//! An archive has the names that other engines' tools read (`spec.dump`,
//! `config.dump`, `checkpoint/`, `rootfs-diff.tar`, `dump.log`), and `corten.dump`.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corten_kernel::cgroup::Group;
use corten_kernel::mount::parse_mount;
use corten_spec::lower::NETWORK;
use corten_spec::request::NamespaceMode;
use corten_store::{TarItem, TarWriter};
use serde::{Deserialize, Serialize};

use super::{Inner, blocking};
use crate::error::{Error, Kind, Result};
use crate::runtimes;
use crate::state::ContainerState;
use crate::table::{Container, Sandbox};

/// How long CRIU may take to look whether it can work here.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a capture may take if the client does not say.
const DUMP_TIMEOUT: Duration = Duration::from_secs(110);
/// Version of [`Facts`].
pub(super) const VERSION: u32 = 1;
/// Says in a container's directory that it is stopped for a capture.
const STOPPED: &str = "stopped";

/// What a restore has to know besides the images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the container.
    pub name: String,
    /// Image id.
    pub image: String,
    /// Where mounts from outside were.
    pub mounts: Vec<String>,
    /// What stdin, stdout and stderr were called.
    pub streams: Vec<(u8, String)>,
    /// It had a network namespace from outside.
    pub network: bool,
}

impl Inner {
    /// CRIU's program, if it can work here.
    pub(super) async fn criu(&self) -> Result<String> {
        let program = &self.config.criu;
        let shown = program.display();
        if !program.is_file() {
            return Err(Error::precondition(format!(
                "unable to checkpoint or restore: there is no {shown} (install criu, or set checkpoint.criu)"
            )));
        }
        let checked = runtimes::output(program, &["check".to_owned()], CHECK_TIMEOUT).await?;
        if checked.status.success() {
            return Ok(shown.to_string());
        }
        let said = String::from_utf8_lossy(&checked.errors).into_owned();
        let why: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Err(Error::precondition(format!(
            "unable to checkpoint or restore: {shown} cannot work on this kernel, says `criu check`: {}",
            why.join("; ")
        )))
    }

    /// Writes a running container into an archive; it goes on.
    pub(super) async fn checkpoint_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        location: PathBuf,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let criu = self.criu().await?;
        let part = location.with_extension("part");
        let captured = Capture { container: container.clone(), part, archive: location };
        self.capture(&criu, vec![captured], timeout).await
    }

    /// Writes the containers of a pod into archives, all as they are at one
    /// moment; they go on.
    pub(super) async fn checkpoint_pod(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        output: PathBuf,
        ids: &[String],
    ) -> Result<()> {
        let criu = self.criu().await?;
        let running: Vec<_> = self
            .table
            .containers_of(&sandbox.id)
            .into_iter()
            .filter(|container| container.record.borrow().state == ContainerState::Running)
            .collect();
        let asked: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let there: BTreeSet<&str> = running.iter().map(|one| one.id.as_str()).collect();
        if asked != there {
            return Err(Error::precondition(format!(
                "unable to checkpoint pod {}: {} containers of it run, and they are not those that were named",
                sandbox.id.short(),
                there.len()
            )));
        }
        let empty = std::fs::read_dir(&output).is_ok_and(|mut entries| entries.next().is_none());
        if !empty {
            return Err(Error::invalid(format!("{} is no empty directory", output.display())));
        }
        let names: Vec<_> = running.iter().map(|one| one.config.name.clone()).collect();
        let captures = running.into_iter().map(|container| {
            let name = container.config.name.clone();
            let at = |end: &str| output.join(format!("{name}.{end}"));
            Capture { part: at("part"), archive: at("tar"), container }
        });
        self.capture(&criu, captures.collect(), None).await?;
        let pod =
            PodFacts { version: VERSION, name: sandbox.config.name.clone(), containers: names };
        let file = output.join(POD_FILE);
        let text = serde_json::to_vec(&pod).unwrap_or_default();
        let written = std::fs::write(&file, text).map_err(|error| written(&file, &error));
        if written.is_err() {
            for name in &pod.containers {
                let _ = std::fs::remove_file(output.join(format!("{name}.tar")));
            }
        }
        written
    }

    async fn capture(
        self: &Arc<Self>,
        criu: &str,
        captures: Vec<Capture>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let mut turns = Vec::new();
        for capture in &captures {
            turns.push(capture.container.operation.lock().await);
            self.check_capture(&capture.container)?;
        }
        let deadline = tokio::time::Instant::now() + timeout.unwrap_or(DUMP_TIMEOUT);
        let outcome = self.capture_stopped(criu, &captures, deadline).await;
        let archived = match outcome {
            Ok(facts) => self.write_archives(&captures, facts).await,
            Err(error) => Err(error),
        };
        for capture in &captures {
            let _ = std::fs::remove_dir_all(&capture.part);
            if archived.is_err() {
                let _ = std::fs::remove_file(&capture.archive);
            }
        }
        archived
    }

    /// What CRIU cannot do is refused before anything is stopped.
    fn check_capture(&self, container: &Container) -> Result<()> {
        super::exec::check_running(container)?;
        let sandbox = &container.sandbox.config.namespaces;
        let refused = |what: &str| {
            Err(Error::precondition(format!(
                "unable to checkpoint container {}: {what}",
                container.id.short()
            )))
        };
        if self.oci_runtime(container)?.is_some() {
            return refused("it was made by another OCI runtime");
        }
        if container.config.tty {
            return refused("it has a terminal");
        }
        if container.config.security.namespaces.pid != NamespaceMode::Container {
            return refused("it shares its PID namespace with others");
        }
        if sandbox.user.is_some() {
            return refused("its pod has a user namespace");
        }
        Ok(())
    }

    /// Stops all, captures all, and lets all go on, whatever happens.
    async fn capture_stopped(
        self: &Arc<Self>,
        criu: &str,
        captures: &[Capture],
        deadline: tokio::time::Instant,
    ) -> Result<Vec<Facts>> {
        let mut stopped = Vec::new();
        let mut outcome = Ok(());
        for capture in captures {
            match self.stop_for_capture(&capture.container).await {
                Ok(group) => stopped.push(group),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let mut facts = Vec::new();
        if outcome.is_ok() {
            for (capture, group) in captures.iter().zip(&stopped) {
                let dumped = self.dump(criu, capture, group, deadline).await;
                match dumped {
                    Ok(known) => facts.push(known),
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
        }
        for capture in captures {
            self.go_on(&capture.container).await?;
        }
        outcome.map(|()| facts)
    }

    async fn stop_for_capture(&self, container: &Container) -> Result<Group> {
        let group = self.cgroups.open(&container.record.borrow().cgroup)?;
        let mark = self.stopped_mark(container);
        std::fs::write(&mark, "").map_err(|error| written(&mark, &error))?;
        let stopping = group.clone();
        blocking(move || Ok(stopping.freeze()?)).await?;
        Ok(group)
    }

    /// Lets a container go on that may be stopped for a capture.
    pub(super) async fn go_on(&self, container: &Container) -> Result<()> {
        let mark = self.stopped_mark(container);
        if !mark.exists() {
            return Ok(());
        }
        let group = self.cgroups.open(&container.record.borrow().cgroup)?;
        blocking(move || {
            group.thaw()?;
            std::fs::remove_file(&mark).map_err(|error| written(&mark, &error))
        })
        .await
    }

    fn stopped_mark(&self, container: &Container) -> PathBuf {
        self.journal.container_dir(&container.sandbox.id, &container.id).join(STOPPED)
    }

    /// Captures one stopped container into its directory.
    async fn dump(
        self: &Arc<Self>,
        criu: &str,
        capture: &Capture,
        group: &Group,
        deadline: tokio::time::Instant,
    ) -> Result<Facts> {
        let images = capture.part.join("checkpoint");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&images)
            .map_err(|error| written(&images, &error))?;
        let (facts, words) = self.dump_words(&capture.container, group, &images)?;
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let ended = runtimes::output(Path::new(criu), &words, left).await?;
        if !ended.status.success() {
            let why = super::restore::criu_error(&images.join("dump.log"));
            return Err(Error::internal(format!(
                "unable to checkpoint container {}: criu ended with {}: {}",
                capture.container.id.short(),
                ended.status,
                why.unwrap_or_else(|| String::from_utf8_lossy(&ended.errors).into_owned())
            )));
        }
        let (inner, id) = (self.clone(), capture.container.id.clone());
        let changes = capture.part.join("rootfs-diff.tar");
        blocking(move || {
            let mut file = create(&changes)?;
            inner
                .store
                .snapshotter()
                .write_changes(&id, &mut file)
                .map_err(|error| Error::internal(error.to_string()))
        })
        .await?;
        Ok(facts)
    }

    /// What CRIU is told, and what a restore will have to know.
    fn dump_words(
        &self,
        container: &Container,
        group: &Group,
        images: &Path,
    ) -> Result<(Facts, Vec<String>)> {
        let gone = || Error::precondition("the container has ended");
        let pid = container.record.borrow().pid.ok_or_else(gone)?;
        let mut words: Vec<String> = ["dump", "--leave-running", "--tcp-established"]
            .into_iter()
            .chain(["--file-locks", "--ext-unix-sk", "--manage-cgroups=ignore"])
            .map(str::to_owned)
            .collect();
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        option("tree", pid.to_string());
        option("images-dir", images.display().to_string());
        option("log-file", "dump.log".to_owned());
        option("freeze-cgroup", group.freezer_path()?.display().to_string());
        let outside = Outside::of(self, container, pid, &group.pids()?)?;
        for target in &outside.mounts {
            option("external", format!("mnt[{target}]:{target}"));
        }
        for (_, name) in outside.streams.iter().filter(|(_, name)| name.starts_with("file[")) {
            option("external", name.clone());
        }
        if let Some(inode) = outside.network {
            option("external", format!("net[{inode}]:{NETWORK}"));
        }
        let facts = Facts {
            version: VERSION,
            name: container.config.name.clone(),
            image: container.record.borrow().image_id.to_string(),
            mounts: outside.mounts,
            streams: outside.streams,
            network: outside.network.is_some(),
        };
        Ok((facts, words))
    }

    async fn write_archives(
        self: &Arc<Self>,
        captures: &[Capture],
        facts: Vec<Facts>,
    ) -> Result<()> {
        for (capture, facts) in captures.iter().zip(facts) {
            let inner = self.clone();
            let container = capture.container.clone();
            let (part, archive) = (capture.part.clone(), capture.archive.clone());
            blocking(move || inner.write_archive(&container, &part, &archive, &facts)).await?;
        }
        Ok(())
    }

    fn write_archive(
        &self,
        container: &Container,
        part: &Path,
        archive: &Path,
        facts: &Facts,
    ) -> Result<()> {
        let record = container.record.borrow().clone();
        let spec = self.load_spec(container)?;
        let config = serde_json::json!({
            "id": record.id.as_str(),
            "name": facts.name,
            "rootfsImage": container.config.image,
            "rootfsImageRef": record.image_ref,
            "rootfsImageName": container.config.user_specified_image,
            "runtime": "corten",
        });
        let facts = serde_json::to_vec(facts).unwrap_or_default();
        let failed = |error: std::io::Error| written(archive, &error);
        let mut tar = TarWriter::new(std::io::BufWriter::new(create(archive)?));
        let texts = [
            ("spec.dump", spec.to_json()),
            ("config.dump", config.to_string().into_bytes()),
            ("corten.dump", facts),
        ];
        for (name, text) in texts {
            let size = text.len() as u64;
            let item = TarItem { mode: 0o600, ..TarItem::file(name.as_bytes(), size) };
            tar.item(&item).and_then(|()| tar.data(text.as_slice(), size)).map_err(failed)?;
        }
        let images = part.join("checkpoint");
        tar.item(&TarItem { mode: 0o700, ..TarItem::directory(b"checkpoint/") }).map_err(failed)?;
        let mut names: Vec<_> = std::fs::read_dir(&images)
            .map_err(failed)?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let log = |name: &String| ["dump.log", "stats-dump"].contains(&name.as_str());
        for name in names {
            let path = if log(&name) { name.clone() } else { format!("checkpoint/{name}") };
            add(&mut tar, &path, &images.join(&name)).map_err(failed)?;
        }
        add(&mut tar, "rootfs-diff.tar", &part.join("rootfs-diff.tar")).map_err(failed)?;
        tar.finish().map(drop).map_err(failed)
    }
}

/// One container on its way into an archive.
struct Capture {
    container: Arc<Container>,
    /// What is captured, until it is in the archive.
    part: PathBuf,
    archive: PathBuf,
}

/// What is written down beside the archives of a pod.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PodFacts {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the pod.
    pub name: String,
    /// Names of its containers; `<name>.tar` is the archive of each.
    pub containers: Vec<String>,
}

/// Name of the file with [`PodFacts`].
pub(super) const POD_FILE: &str = "pod.json";

/// What a container has that is not its own.
struct Outside {
    mounts: Vec<String>,
    streams: Vec<(u8, String)>,
    /// Inode of its network namespace, unless that is ours.
    network: Option<u64>,
}

impl Outside {
    fn of(inner: &Inner, container: &Container, pid: i32, pids: &[i32]) -> Result<Self> {
        let spec = inner.load_spec(container)?;
        let path = format!("/proc/{pid}/mountinfo");
        let table = std::fs::read(&path)
            .map_err(|error| Error::internal(format!("unable to read {path}: {error}")))?;
        let table: Vec<_> = table.split(|byte| *byte == b'\n').filter_map(parse_mount).collect();
        let binds: Vec<_> = spec.mounts.iter().filter(|mount| mount.is_bind()).collect();
        let foreign = |mount: &&corten_kernel::mount::Mount| {
            let bound = binds.iter().any(|bind| mount.target.starts_with(&bind.destination));
            bound || mount.fstype == "cgroup" || mount.fstype == "cgroup2"
        };
        let mounts: BTreeSet<_> =
            table.iter().filter(foreign).map(|mount| mount.target.display().to_string()).collect();
        let own: BTreeSet<u64> = table.iter().map(|mount| mount.id).collect();
        let shim = container.sandbox.record.borrow().shim_pid.unwrap_or_default();
        let namespace = |pid: &str| {
            std::fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| meta.ino()).ok()
        };
        let network = namespace(&pid.to_string()).filter(|net| namespace("self") != Some(*net));
        Ok(Self {
            mounts: mounts.into_iter().collect(),
            streams: streams(shim, pids, &own),
            network,
        })
    }
}

/// The standard streams that come from outside: pipes whose other end the shim
/// has, and files of no mount of the container's.
fn streams(shim: i32, pids: &[i32], own_mounts: &BTreeSet<u64>) -> Vec<(u8, String)> {
    let links = |directory: String| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string()))
    };
    let held: BTreeSet<String> =
        links(format!("/proc/{shim}/fd")).filter(|link| link.starts_with("pipe:[")).collect();
    let mut found: Vec<(u8, String)> = Vec::new();
    for pid in pids {
        for number in 0..3u8 {
            let Some(name) = stream(*pid, number, &held, own_mounts) else { continue };
            if !found.iter().any(|(_, known)| *known == name) {
                found.push((number, name));
            }
        }
    }
    found
}

fn stream(pid: i32, number: u8, held: &BTreeSet<String>, own: &BTreeSet<u64>) -> Option<String> {
    let path = format!("/proc/{pid}/fd/{number}");
    let link = std::fs::read_link(&path).ok()?.display().to_string();
    if held.contains(&link) {
        return Some(link);
    }
    if !link.starts_with('/') {
        return None;
    }
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mount: u64 = mount.parse().ok()?;
    let inode = std::fs::metadata(&path).ok()?.ino();
    (!own.contains(&mount)).then(|| format!("file[{mount:x}:{inode:x}]"))
}

/// For root alone: memory holds secrets.
fn create(path: &Path) -> Result<File> {
    let options = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    options.map_err(|error| written(path, &error))
}

fn add<W: std::io::Write>(tar: &mut TarWriter<W>, name: &str, path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    tar.item(&TarItem { mode: 0o600, ..TarItem::file(name.as_bytes(), size) })?;
    tar.data(file, size)
}

fn written(path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Kind::ResourceExhausted
        }
        std::io::ErrorKind::NotFound => Kind::InvalidArgument,
        _ => Kind::Internal,
    };
    Error::new(kind, format!("unable to write {}: {error}", path.display()))
}
