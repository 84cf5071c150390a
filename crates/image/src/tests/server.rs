//! A registry in this process that does what a test tells it, wrong things too.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The body breaks off after so many bytes.
    pub cut: Option<usize>,
    /// Then nothing comes any more, and the connection stays.
    pub hang: bool,
}

impl Answer {
    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), cut: None, hang: false }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::ok(Vec::new()) }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Handler = Arc<dyn Fn(&Asked, usize) -> Answer + Send + Sync>;

/// Serves until it is dropped. The handler is told how often the path was
/// asked for before.
pub(super) struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(
        handler: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(None, handler).await
    }

    /// Serves over TLS, if there is an acceptor.
    pub(super) async fn start_with(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, handler): (_, Handler) = (asked.clone(), Arc::new(handler));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, handler, seen) = (tls.clone(), handler.clone(), seen.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, handler, seen).await,
                        // A client that refuses the certificate asks for nothing.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, handler, seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    /// Requests whose path has `part`.
    pub(super) fn asked(&self, part: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| one.path.contains(part)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    handler: Handler,
    seen: Arc<Mutex<Vec<Asked>>>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(asked) = request(&mut stream).await else { return };
        let before = {
            let mut seen = seen.lock().unwrap();
            let before = seen.iter().filter(|one| one.path == asked.path).count();
            seen.push(asked.clone());
            before
        };
        let answer = handler(&asked, before);
        let mut head =
            format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let body = &answer.body[..answer.cut.unwrap_or(usize::MAX).min(answer.body.len())];
        let sent = stream.write_all(format!("{head}\r\n").as_bytes()).await;
        if sent.is_err() || stream.write_all(body).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if answer.hang {
            std::future::pending::<()>().await;
        }
        if answer.cut.is_some() {
            return;
        }
    }
}

async fn request(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse().ok()?;
        }
        headers.push((name, value));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}
