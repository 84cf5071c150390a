//! Running one plugin: JSON in, JSON out, never for longer than its deadline.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use corten_base::limits;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::{Error, Result};

/// How long pipes are still read after a plugin ended: a child that it left
/// behind may hold them open.
const DRAIN: Duration = Duration::from_secs(1);
/// Bytes of what a plugin printed that are quoted in an error.
const QUOTE_BYTES: usize = 300;

/// One run of a plugin.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// Name of its program.
    pub plugin: &'a str,
    /// Where programs are searched.
    pub directories: &'a [PathBuf],
    /// `ADD`, `DEL`, …
    pub verb: &'static str,
    /// `CNI_…` variables, without `CNI_COMMAND` and `CNI_PATH`.
    pub environment: &'a [(&'static str, String)],
    /// What it reads.
    pub input: Vec<u8>,
    /// How long it may take.
    pub deadline: Duration,
}

/// The program of a plugin, or an error text that names the directories.
pub(super) fn find(plugin: &str, directories: &[PathBuf]) -> std::result::Result<PathBuf, String> {
    let found = directories.iter().map(|directory| directory.join(plugin)).find(|p| p.is_file());
    found.ok_or_else(|| {
        let names: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        format!("there is no such program in {}", names.join(", "))
    })
}

impl Run<'_> {
    /// Runs the plugin and returns what it printed. When the future is dropped
    /// the plugin is killed.
    pub async fn output(self) -> Result<Vec<u8>> {
        let fail = |cause| Error::Plugin { verb: self.verb, plugin: self.plugin.to_owned(), cause };
        let program = find(self.plugin, self.directories).map_err(fail)?;
        let mut command = Command::new(&program);
        let path = std::env::join_paths(self.directories)
            .map_err(|error| fail(format!("a plugin directory cannot be passed on: {error}")))?;
        command.env("CNI_COMMAND", self.verb).env("CNI_PATH", path);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        if std::env::var_os("PATH").is_none() {
            // Plugins call iptables and the like.
            command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        }
        command.current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command
            .spawn()
            .map_err(|error| fail(format!("unable to start {}: {error}", program.display())))?;
        let mut group = Group::new(child);
        let ended = tokio::time::timeout(self.deadline, talk(&mut group, &self.input)).await;
        let Ok(ended) = ended else {
            drop(group);
            let seconds = self.deadline.as_secs_f32();
            return Err(fail(format!("it was killed: it did not end within {seconds} seconds")));
        };
        let (status, output, errors) =
            ended.map_err(|error| fail(format!("unable to talk with it: {error}")))?;
        if output.len() > limits::CNI_OUTPUT_BYTES_MAX {
            let most = limits::CNI_OUTPUT_BYTES_MAX;
            return Err(fail(format!("it printed more than {most} bytes")));
        }
        if !status.success() {
            return Err(fail(failure(status, &output, &errors)));
        }
        Ok(output)
    }

    /// The same, for verbs whose output matters: it must be a JSON object.
    pub async fn json(self) -> Result<Value> {
        let (verb, plugin) = (self.verb, self.plugin.to_owned());
        let output = self.output().await?;
        match serde_json::from_slice::<Value>(&output) {
            Ok(value) if value.is_object() => Ok(value),
            _ => {
                let cause = if output.trim_ascii().is_empty() {
                    "it printed nothing".to_owned()
                } else {
                    format!("it printed what is no result: {}", quote(&output))
                };
                Err(Error::Plugin { verb, plugin, cause })
            }
        }
    }
}

/// A plugin and all that it starts. Dropped before the plugin ended, it kills
/// them.
struct Group {
    child: Child,
    /// None once the plugin was reaped: the number may then be another's.
    leader: Option<Pid>,
}

impl Group {
    fn new(child: Child) -> Self {
        let leader = child.id().and_then(|pid| Pid::from_raw(pid as i32));
        Self { child, leader }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // It may have ended just now; then there is nobody to kill.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

type Ended = (ExitStatus, Vec<u8>, Vec<u8>);

async fn talk(group: &mut Group, input: &[u8]) -> std::io::Result<Ended> {
    let stdin = group.child.stdin.take();
    let stdout = group.child.stdout.take();
    let stderr = group.child.stderr.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A plugin that does not read its input says why by other means.
            let _ = stdin.write_all(input).await;
        }
    };
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let read = async {
        tokio::join!(collect(stdout, &mut output), collect(stderr, &mut errors));
    };
    let ended = async {
        let status = group.child.wait().await;
        group.leader = None;
        status
    };
    let status = {
        let talk = async { tokio::join!(write, read) };
        tokio::pin!(talk, ended);
        tokio::select! {
            status = &mut ended => {
                let _ = tokio::time::timeout(DRAIN, talk).await;
                status?
            }
            _ = &mut talk => ended.await?,
        }
    };
    Ok((status, output, errors))
}

/// Reads to the end; keeps one byte more than allowed, and drops the rest.
async fn collect(source: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut source) = source else { return };
    let mut chunk = vec![0; 16 << 10];
    while let Ok(count) = source.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        let room = (limits::CNI_OUTPUT_BYTES_MAX + 1).saturating_sub(into.len());
        into.extend_from_slice(&chunk[..count.min(room)]);
    }
}

/// A plugin's own error, or what else is known of its failure.
fn failure(status: ExitStatus, output: &[u8], errors: &[u8]) -> String {
    if let Ok(error) = serde_json::from_slice::<Value>(output)
        && let Some(message) = error.get("msg").and_then(Value::as_str)
    {
        let mut text = message.to_owned();
        if let Some(details) = error.get("details").and_then(Value::as_str)
            && !details.is_empty()
        {
            text = format!("{text}: {details}");
        }
        if let Some(code) = error.get("code").and_then(Value::as_u64) {
            text = format!("{text} (code {code})");
        }
        return text;
    }
    let mut text = format!("it ended with {status}");
    for (name, bytes) in [("printed", output), ("complained", errors)] {
        if !bytes.trim_ascii().is_empty() {
            text = format!("{text} and {name}: {}", quote(bytes));
        }
    }
    text
}

fn quote(bytes: &[u8]) -> String {
    let bytes = bytes.trim_ascii();
    let start = &bytes[..bytes.len().min(QUOTE_BYTES)];
    let more = if bytes.len() > QUOTE_BYTES { " …" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(start))
}
