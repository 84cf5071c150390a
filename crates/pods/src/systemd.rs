//! What we ask of systemd: one scope for each pod. Everything below a scope is
//! ours, and needs nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, Variant};

use crate::error::{Error, Kind, Result};
use crate::placement::Scope;

/// How long systemd and the bus may take for one scope.
const DEADLINE: Duration = Duration::from_secs(20);

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Units that are being started, and who waits for each: systemd answers a
/// start before it is done, and tells the end to all.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<String>>>>;

/// systemd, by the bus; connected to when it is first needed.
#[derive(Default)]
pub struct Systemd {
    bus: tokio::sync::Mutex<Option<Bus>>,
}

#[derive(Clone)]
struct Bus {
    connection: Connection,
    waiting: Waiting,
}

impl Systemd {
    /// Makes a scope, delegated to us, with this process in it. Returns when
    /// the process is there.
    pub async fn start_scope(&self, scope: &Scope, pid: i32, what: &str) -> Result<()> {
        let failed = |why: String| {
            Error::new(
                Kind::Unavailable,
                format!("unable to start {} in {}: {why}", scope.name, scope.slice),
            )
        };
        let started = async {
            let bus = self.bus().await.map_err(|error| {
                failed(format!("no system bus ({error}); is dbus.service running?"))
            })?;
            bus.start_scope(scope, pid, what).await.map_err(failed)
        };
        tokio::time::timeout(DEADLINE, started).await.unwrap_or_else(|_| {
            Err(failed(format!(
                "systemd did not do it within {} s (systemctl list-jobs shows what it is busy with)",
                DEADLINE.as_secs()
            )))
        })
    }

    /// The connection that there is, or a new one: the bus may be restarted.
    async fn bus(&self) -> zbus::Result<Bus> {
        let mut present = self.bus.lock().await;
        if let Some(bus) = present.as_ref().filter(|bus| !bus.connection.is_closed()) {
            return Ok(bus.clone());
        }
        let bus = Bus::connect().await?;
        *present = Some(bus.clone());
        Ok(bus)
    }
}

impl Bus {
    async fn connect() -> zbus::Result<Self> {
        let connection = Connection::system().await?;
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SERVICE)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()?;
        let jobs = MessageStream::for_match_rule(rule, &connection, None).await?;
        let waiting = Waiting::default();
        tokio::spawn(follow(jobs, waiting.clone()));
        // Without somebody who listens, systemd tells nothing.
        connection.call_method(Some(SERVICE), PATH, Some(MANAGER), "Subscribe", &()).await?;
        Ok(Self { connection, waiting })
    }

    async fn start_scope(
        &self,
        scope: &Scope,
        pid: i32,
        what: &str,
    ) -> std::result::Result<(), String> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(scope.name.clone(), sender);
        let _forget = Forget { waiting: &self.waiting, name: &scope.name };
        let pids = [u32::try_from(pid).map_err(|_| format!("{pid} is no process"))?];
        let properties: Vec<(&str, Variant<'_>)> = vec![
            ("Description", what.into()),
            ("Slice", scope.slice.as_str().into()),
            ("PIDs", pids[..].into()),
            ("Delegate", true.into()),
            // A pod outlives its neighbours at a shutdown: the kubelet ends it.
            ("DefaultDependencies", false.into()),
            // The limits of the slice, and ours below, are enough.
            ("TasksMax", u64::MAX.into()),
            // What failed is not kept for people to look at: we remember it.
            ("CollectMode", "inactive-or-failed".into()),
        ];
        let more: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let request = (scope.name.as_str(), "replace", properties, more);
        let answer = self
            .connection
            .call_method(Some(SERVICE), PATH, Some(MANAGER), "StartTransientUnit", &request)
            .await;
        answer.map_err(|error| error.to_string())?;
        match receiver.await.as_deref() {
            Ok("done") => Ok(()),
            Ok(result) => Err(format!("systemd says {result:?} (journalctl -u {})", scope.name)),
            Err(_) => Err("the bus went away".to_owned()),
        }
    }
}

/// Whoever no longer waits is forgotten.
struct Forget<'a> {
    waiting: &'a Waiting,
    name: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(self.name);
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, oneshot::Sender<String>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells those who wait how their jobs ended, until the connection does.
async fn follow(mut jobs: MessageStream, waiting: Waiting) {
    while let Some(Ok(signal)) = jobs.next().await {
        if let Some((unit, result)) = ended(&signal)
            && let Some(sender) = lock(&waiting).remove(&unit)
        {
            // It may have given up.
            let _ = sender.send(result);
        }
    }
    lock(&waiting).clear();
}

/// The unit and the result of a job.
fn ended(signal: &Message) -> Option<(String, String)> {
    let body = signal.body();
    let (_, _, unit, result): (u32, OwnedObjectPath, String, String) = body.deserialize().ok()?;
    Some((unit, result))
}
