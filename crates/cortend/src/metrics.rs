//! What the daemon counts about itself, for Prometheus to read.
//!
//! One answer for each connection, whatever is asked beside the path; no
//! library is needed for that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use corten_base::limits::{METRICS_CLIENTS_MAX, METRICS_REQUEST_BYTES_MAX};
use corten_base::meter::{MetricKind, Page};
use corten_cri::Calls;
use corten_pods::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long a client may take to ask, and to read the answer.
const CLIENT_DEADLINE: Duration = Duration::from_secs(10);
/// How long we wait after the system had no connection for us (it is out of
/// descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the daemon ends.
pub async fn serve(address: SocketAddr, engine: Engine, calls: Calls) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(METRICS_CLIENTS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "unable to take a connection for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (engine, calls) = (engine.clone(), calls.clone());
            tokio::spawn(async move {
                // One that is too slow, or leaves, has no answer.
                let answered = answer(stream, &engine, &calls);
                let _ = tokio::time::timeout(CLIENT_DEADLINE, answered).await;
                drop(place);
            });
        }
    });
    Ok(())
}

async fn answer(mut stream: TcpStream, engine: &Engine, calls: &Calls) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await?;
        if count == 0 || request.len() + count > METRICS_REQUEST_BYTES_MAX {
            return Ok(());
        }
        request.extend_from_slice(&piece[..count]);
    }
    let (status, body) = match path(&request) {
        Some("/metrics") => ("200 OK", page(engine, calls)),
        Some(_) => ("404 Not Found", "the metrics are at /metrics\n".to_owned()),
        None => ("405 Method Not Allowed", "metrics can only be read (GET)\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// The path of a GET, without its query.
fn path(request: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(request).ok()?.lines().next()?;
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    target.split('?').next()
}

fn page(engine: &Engine, calls: &Calls) -> String {
    let mut page = Page::default();
    let name = "corten_build_info";
    page.metric(name, MetricKind::Gauge, "The daemon's version.");
    page.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    calls.write(&mut page);
    engine.write_meters(&mut page);
    process(&mut page);
    page.into_text()
}

/// The daemon's process, by the names that all who export metrics use.
fn process(page: &mut Page) {
    let gauge = MetricKind::Gauge;
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    let (name, help) = ("process_cpu_seconds_total", "Processor time in seconds.");
    page.single(name, MetricKind::Counter, help, seconds);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    if let Some(kilobytes) = kilobytes {
        let bytes = kilobytes * 1024;
        page.single("process_resident_memory_bytes", gauge, "Memory in use.", bytes);
    }
    if let Ok(listing) = std::fs::read_dir("/proc/self/fd") {
        page.single("process_open_fds", gauge, "Open descriptors.", listing.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        assert_eq!(path(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Some("/metrics"));
        assert_eq!(path(b"GET /metrics?a=b HTTP/1.0\r\n\r\n"), Some("/metrics"));
        assert_eq!(path(b"GET / HTTP/1.0\r\n\r\n"), Some("/"));
        assert_eq!(path(b"POST /metrics HTTP/1.0\r\n\r\n"), None);
        assert_eq!(path(b"\xff\xfe"), None);
    }
}
