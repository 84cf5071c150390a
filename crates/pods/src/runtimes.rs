//! Runtime handlers: our own launcher, and OCI runtimes by their path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use corten_base::limits::RUNTIME_FEATURES_BYTES_MAX;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::error::{Error, Kind, Result};

/// The name of the built-in runtime handler.
pub const DEFAULT_HANDLER: &str = "corten";

/// How long a runtime may take to say what it can do.
const FEATURES_TIMEOUT: Duration = Duration::from_secs(10);

/// How a runtime handler is set up.
#[derive(Debug, Clone, Default)]
pub struct RuntimeSettings {
    /// Its name, as pods ask for it.
    pub name: String,
    /// The OCI runtime's program; none for our own launcher.
    pub path: Option<PathBuf>,
    /// Where the OCI runtime keeps what it knows (`--root`).
    pub root: PathBuf,
    /// More words before its command.
    pub options: Vec<String>,
    /// Annotations of pods that get into the OCI spec: names, and beginnings
    /// of names that end in `*`.
    pub pod_annotations: Vec<String>,
    /// Likewise of containers.
    pub container_annotations: Vec<String>,
    /// Privileged containers have no more devices than others.
    pub privileged_without_host_devices: bool,
}

/// What a runtime handler can do, as clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerView {
    /// Its name; empty for the default.
    pub name: String,
    /// Mounts can be read-only all the way down.
    pub recursive_read_only_mounts: bool,
    /// Pods can have a user namespace.
    pub user_namespaces: bool,
}

/// A runtime handler.
#[derive(Debug)]
pub struct Handler {
    /// How it is set up.
    pub settings: RuntimeSettings,
    user_namespaces: bool,
}

/// An OCI runtime and the words that every call of it begins with.
#[derive(Debug, Clone)]
pub struct OciRuntime {
    /// Its program.
    pub program: String,
    /// `--root` and the node's own options.
    pub options: Vec<String>,
    /// Where it keeps what it knows.
    pub root: PathBuf,
}

impl Handler {
    /// The OCI runtime, unless it is our own launcher.
    pub fn oci(&self) -> Option<OciRuntime> {
        let program = self.settings.path.as_ref()?.display().to_string();
        let root = self.settings.root.clone();
        let mut options = vec!["--root".to_owned(), root.display().to_string()];
        options.extend(self.settings.options.iter().cloned());
        Some(OciRuntime { program, options, root })
    }

    /// Refuses a handler whose program is not there.
    fn check(&self) -> Result<()> {
        let Some(path) = &self.settings.path else { return Ok(()) };
        let missing = |why: String| {
            Err(Error::precondition(format!(
                "unable to use the runtime handler {:?}: {} {why} (runtimes.{}.path in the configuration)",
                self.settings.name,
                path.display(),
                self.settings.name
            )))
        };
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() => Ok(()),
            Ok(_) => missing("is not a program".to_owned()),
            Err(error) => missing(format!("cannot be opened: {error}")),
        }
    }
}

/// All runtime handlers of the node.
#[derive(Debug)]
pub struct Runtimes {
    handlers: BTreeMap<String, Arc<Handler>>,
}

impl Runtimes {
    /// The handlers that are configured, and our own in any case. Those that
    /// have a program are asked what they can do.
    pub async fn probe(settings: Vec<RuntimeSettings>) -> Self {
        let ours =
            RuntimeSettings { name: DEFAULT_HANDLER.to_owned(), ..RuntimeSettings::default() };
        let mut probes = tokio::task::JoinSet::new();
        for settings in std::iter::once(ours).chain(settings) {
            probes.spawn(probe(settings));
        }
        let mut handlers = BTreeMap::new();
        for handler in probes.join_all().await {
            let name = handler.settings.name.clone();
            // What is configured for our own counts.
            let configured = handler.settings.path.is_some()
                || !handler.settings.pod_annotations.is_empty()
                || !handler.settings.container_annotations.is_empty()
                || handler.settings.privileged_without_host_devices;
            if configured || !handlers.contains_key(&name) {
                handlers.insert(name, Arc::new(handler));
            }
        }
        Self { handlers }
    }

    /// The handler that a pod asks for; none is our own.
    pub fn find(&self, name: &str) -> Result<Arc<Handler>> {
        let name = if name.is_empty() { DEFAULT_HANDLER } else { name };
        self.handlers.get(name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.handlers.keys().map(String::as_str).collect();
            Error::invalid(format!(
                "unknown runtime handler {name:?}: this node has {} ({DEFAULT_HANDLER} is the default)",
                known.join(", ")
            ))
        })
    }

    /// Likewise, if it can be used now.
    pub fn usable(&self, name: &str) -> Result<Arc<Handler>> {
        let handler = self.find(name)?;
        handler.check()?;
        Ok(handler)
    }

    /// What clients are told: the default with no name first.
    pub fn views(&self) -> Vec<HandlerView> {
        let view = |name: &str, handler: &Handler| HandlerView {
            name: name.to_owned(),
            // mount_setattr is ours to call, whatever the runtime knows.
            recursive_read_only_mounts: true,
            user_namespaces: handler.user_namespaces,
        };
        let default = self.handlers.get(DEFAULT_HANDLER).map(|handler| view("", handler));
        default
            .into_iter()
            .chain(self.handlers.iter().map(|(name, handler)| view(name, handler)))
            .collect()
    }
}

async fn probe(settings: RuntimeSettings) -> Handler {
    let user_namespaces = match &settings.path {
        // It needs mount_setattr, which our oldest kernel (5.15) has.
        None => true,
        Some(path) => match features(path).await {
            Ok(features) => features.linux.namespaces.iter().any(|kind| kind == "user"),
            Err(error) => {
                tracing::warn!(handler = settings.name, %error, "a runtime handler does not say what it can do; user namespaces are not offered for it");
                false
            }
        },
    };
    Handler { settings, user_namespaces }
}

/// What of an OCI runtime's features concerns us.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Features {
    linux: LinuxFeatures,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LinuxFeatures {
    namespaces: Vec<String>,
}

async fn features(program: &Path) -> Result<Features> {
    let asked = run(program, &["features".to_owned()], FEATURES_TIMEOUT).await?;
    serde_json::from_slice(&asked).map_err(|error| {
        Error::internal(format!(
            "unable to read what `{} features` says: {error}",
            program.display()
        ))
    })
}

/// Runs an OCI runtime to its end, which comes within `timeout`: what it
/// printed. One that fails is an error with its last words.
pub async fn run(program: &Path, words: &[String], timeout: Duration) -> Result<Vec<u8>> {
    let ended = output(program, words, timeout).await?;
    if ended.status.success() {
        return Ok(ended.output);
    }
    let said = String::from_utf8_lossy(&ended.errors).into_owned();
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let (program, words) = (program.display(), words.join(" "));
    Err(Error::internal(format!("{program} {words} ended with {}: {last}", ended.status)))
}

/// How a program ended, and the beginning of what it said.
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its stdout.
    pub output: Vec<u8>,
    /// Its stderr.
    pub errors: Vec<u8>,
}

/// Runs a program to its end, which comes within `timeout`.
pub async fn output(program: &Path, words: &[String], timeout: Duration) -> Result<Ended> {
    let shown = || format!("{} {}", program.display(), words.join(" "));
    let mut child = Command::new(program)
        .args(words)
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Error::internal(format!("unable to run {}: {error}", shown())))?;
    let group = child.id().and_then(|pid| Pid::from_raw(pid as i32));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async { tokio::join!(child.wait(), read_some(stdout), read_some(stderr)) };
    let Ok((status, output, errors)) = tokio::time::timeout(timeout, work).await else {
        if let Some(group) = group {
            // With whatever it has started: hooks above all.
            let _ = kill_process_group(group, Signal::KILL);
        }
        return Err(Error::new(
            Kind::DeadlineExceeded,
            format!("{} was killed: it did not end within {} s", shown(), timeout.as_secs()),
        ));
    };
    let status = status
        .map_err(|error| Error::internal(format!("unable to wait for {}: {error}", shown())))?;
    Ok(Ended { status, output, errors })
}

/// Reads to the end, and keeps the beginning.
async fn read_some(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        let mut most = (&mut pipe).take(RUNTIME_FEATURES_BYTES_MAX as u64);
        // What could be read counts.
        let _ = most.read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(directory: &Path, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join("runtime");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn named(name: &str, path: Option<PathBuf>) -> RuntimeSettings {
        RuntimeSettings { name: name.into(), path, ..RuntimeSettings::default() }
    }

    #[tokio::test]
    async fn handlers_are_found_by_name_and_the_unknown_is_told_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), r#"echo '{"linux":{"namespaces":["pid","user"]}}'"#);
        let mute = named("mute", Some("/bin/false".into()));
        let gone = named("gone", Some(dir.path().join("none")));
        let runtimes = Runtimes::probe(vec![named("can", Some(path)), mute, gone]).await;
        let views: Vec<_> =
            runtimes.views().into_iter().map(|view| (view.name, view.user_namespaces)).collect();
        let expected =
            [("", true), ("can", true), ("corten", true), ("gone", false), ("mute", false)];
        assert_eq!(views, expected.map(|(name, can)| (name.to_owned(), can)));
        assert!(runtimes.usable("").is_ok() && runtimes.usable("mute").is_ok());
        let error = runtimes.usable("gone").unwrap_err();
        assert_eq!(error.kind, Kind::FailedPrecondition);
        assert!(error.message().contains("runtimes.gone.path"), "{error}");
        let error = runtimes.find("kata").unwrap_err();
        assert!(error.message().contains("can, corten, gone, mute"), "{error}");
    }

    #[tokio::test]
    async fn what_hangs_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), "exec sleep 1000");
        let error = run(&path, &[], Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind, Kind::DeadlineExceeded);
    }
}
