//! The daemon's life: open what is there, serve, leave the pods alone.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use corten_cri::{Calls, Opened, ServeError, Streaming};
use corten_image::{Images, ImagesConfig, Proxies};
use corten_net::{Bridge, BridgeSettings, Cni, CniSettings, Network};
use corten_pods::{Engine, EngineConfig, NetworkProvider};
use corten_store::{Claim, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, CriNetwork};
use crate::{metrics, node, notify, quiet, socket};

/// How long calls under way may take once we were asked to stop. Short: what
/// is cut off is taken up by the next daemon, and somebody who follows a log
/// must not hold up an upgrade.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// How long the last records may take to reach the disk.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// How long a thread that only waits stays for more work. A crowd of pods
/// leaves some forty, each with a stack and a share of the heap; to make one
/// takes less than 0.1 ms.
const THREAD_KEEP_ALIVE: Duration = Duration::from_millis(500);

/// Why the daemon did not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody without the rights.
    #[error(
        "unable to run pods without being root: namespaces, mounts and cgroups are root's (sudo \
         cortend, or systemctl start cortend)"
    )]
    NotRoot,
    /// A directory of ours cannot be made.
    #[error("unable to make the directory {path}: {source}")]
    Directory {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] corten_store::Error),
    /// The images.
    #[error(transparent)]
    Images(#[from] corten_image::Error),
    /// A network.
    #[error(transparent)]
    Network(#[from] corten_net::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] corten_pods::Error),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// The metrics' port.
    #[error("unable to serve metrics at {address} (metrics.address): {source}")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The streams.
    #[error(transparent)]
    Streaming(#[from] corten_cri::StreamingError),
    /// The bridge's subnets.
    #[error("unable to use the configuration: {0}")]
    Config(String),
    /// Threads or signals.
    #[error("unable to start: {0}")]
    Start(#[from] std::io::Error),
    /// The server.
    #[error("unable to serve: {0}")]
    Serve(String),
}

impl Error {
    /// Another instance works on the same root or socket.
    pub fn in_use(&self) -> bool {
        matches!(
            self,
            Self::Store(corten_store::Error::InUse { .. })
                | Self::Socket(socket::Error::InUse { .. })
        )
    }
}

/// Serves until SIGTERM or SIGINT. Pods run on.
pub fn run(config: Config) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    // Files that we make for containers (resolv.conf, …) are read by their
    // users, whatever the shell or unit that started us wanted.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    corten_kernel::memory::share_heaps();
    if let Err(error) = corten_kernel::process::raise_descriptors_limit() {
        // It serves as many pods as it can.
        tracing::warn!("{error}");
    }
    tokio::runtime::Builder::new_multi_thread()
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .enable_all()
        .build()?
        .block_on(life(config))
}

async fn life(config: Config) -> Result<(), Error> {
    // Before anything is changed, so that an early SIGTERM finds it whole.
    let stop = stop_asked()?;
    make_dir(&config.root, ROOT_ONLY)?;
    make_dir(&config.state, PASSABLE)?;
    make_dir(&config.log_dir, PASSABLE)?;
    // The store's lock comes first: it tells a second instance to leave.
    let claim = Store::claim(&config.root)?;
    let listener = socket::listen(&config.socket).await?;
    let facts = node::facts(&config);
    let calls = Calls::default();
    let opened = Arc::new(OnceLock::new());
    let opening = open(config, claim, facts.version.clone(), calls.clone(), opened.clone());
    let served = corten_cri::serve(listener, facts, calls, opening, until(stop.clone()));
    tokio::select! {
        served = served => served.map_err(|error| match error {
            ServeError::Open(error) => error,
            other => Error::Serve(other.to_string()),
        })?,
        () = drained(stop) => tracing::warn!("calls that were under way are given up"),
    }
    let flushed = async {
        if let Some(engine) = opened.get() {
            let engine: &Engine = engine;
            engine.flush().await;
        }
    };
    if tokio::time::timeout(FLUSH_DEADLINE, flushed).await.is_err() {
        tracing::warn!(
            "the disk of the root directory is too slow: the last records are not on it"
        );
    }
    tracing::info!("leaving; pods run on");
    Ok(())
}

/// Takes up what is there: everything that needs time.
async fn open(
    config: Config,
    claim: Claim,
    version: String,
    calls: Calls,
    opened: Arc<OnceLock<Engine>>,
) -> Result<Opened, Error> {
    let store = Arc::new(blocking(move || Store::open_claimed(claim)).await??);
    let streaming = Streaming::open(config.streaming.settings()).await?;
    let engine = open_engine(&config, store.clone()).await?;
    let engine = opened.get_or_init(|| engine).clone();
    if let Some(address) = config.metrics_address().map_err(Error::Config)? {
        let bound = metrics::serve(address, engine.clone(), calls.clone()).await;
        bound.map_err(|source| Error::Metrics { address, source })?;
    }
    tracing::info!(
        version,
        socket = %config.socket.display(),
        root = %config.root.display(),
        "serving"
    );
    notify::ready();
    tokio::spawn(quiet::tidy_up(calls));
    Ok(Opened { engine, store, streaming })
}

async fn open_engine(config: &Config, store: Arc<Store>) -> Result<Engine, Error> {
    let images_config = ImagesConfig {
        hosts_dirs: config.registry.hosts_dirs.clone(),
        proxies: Proxies::from_environment().map_err(Error::Config)?,
        pinned: config.image.pinned.clone(),
        ..ImagesConfig::default()
    };
    let opened = store.clone();
    let images = blocking(move || Images::open(opened, images_config)).await??;
    let cni = Cni::new(CniSettings {
        config_dirs: config.network.cni.conf_dirs.clone(),
        plugin_dirs: config.network.cni.bin_dirs.clone(),
        plugin_deadline: Duration::from_secs(config.network.cni.plugin_seconds.get().into()),
        ..CniSettings::new(config.root.join("cni"))
    })?;
    let bridge = Bridge::new(BridgeSettings {
        name: config.network.bridge.name.clone(),
        subnets: config.subnets().map_err(Error::Config)?,
        // Volatile as the pods' networks are: neither outlives the machine.
        ..BridgeSettings::new(config.state.join("leases"))
    })?;
    let engine_config = EngineConfig {
        state_dir: config.state.clone(),
        shim_path: config.shim.clone(),
        cgroup_root: config.cgroup.root.clone(),
        cgroup_driver: config.cgroup.driver.resolve(),
        cdi_dirs: config.device.cdi_dirs.clone(),
        log_dir: config.log_dir.clone(),
        cri_network: match config.network.cri {
            CriNetwork::Cni => NetworkProvider::Cni,
            CriNetwork::Builtin => NetworkProvider::Builtin,
        },
        criu: config.checkpoint.criu.clone(),
        runtimes: config.runtimes(),
    };
    let (cni, bridge) = (Network::Cni(cni), Network::Bridge(bridge));
    Ok(Engine::open(engine_config, store, images, cni, bridge).await?)
}

/// Records tell what pods are told, secrets included.
const ROOT_ONLY: u32 = 0o700;
/// What is in it has modes of its own: the socket may be given to a group.
const PASSABLE: u32 = 0o711;

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| Error::Directory { path: path.display().to_string(), source })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Serve(error.to_string()))
}

/// Becomes true when a signal asks us to stop.
fn stop_asked() -> Result<watch::Receiver<bool>, Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify::stopping();
        sender.send_replace(true);
        // Held, so that receivers see the value and not the end of the channel.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

async fn until(mut stop: watch::Receiver<bool>) {
    // The sender is held for ever: the error of its absence cannot come.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// Done when the calls under way have had their time.
async fn drained(stop: watch::Receiver<bool>) {
    until(stop).await;
    tokio::time::sleep(DRAIN_DEADLINE).await;
}
