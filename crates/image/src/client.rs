//! HTTP clients, one per set of TLS settings: connections are reused by all pulls.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use corten_base::limits::CERTIFICATE_FILE_BYTES_MAX;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage,
    RootCertStore, SignatureScheme,
};

use crate::error::{PullError, PullErrorKind};
use crate::hosts::{Host, TlsFiles};
use crate::proxy::{Connector, Ways};

pub(crate) type HttpClient = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// Clients kept; one more and all are made anew (certificates rotate).
const CLIENTS_MAX: usize = 64;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);

/// All clients of the daemon.
pub(crate) struct Clients {
    made: Mutex<HashMap<Key, HttpClient>>,
    pub(crate) ways: Ways,
}

/// Settings, and the content of the files that they name.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    tls: TlsFiles,
    contents: Vec<Vec<u8>>,
    connect: Duration,
}

impl Clients {
    pub(crate) fn new(ways: Ways) -> Self {
        Self { made: Mutex::default(), ways }
    }

    pub(crate) fn get(&self, host: &Host, connect: Duration) -> Result<HttpClient, PullError> {
        let tls = &host.tls;
        let files = tls.ca.iter().chain(
            tls.client
                .iter()
                .flat_map(|(cert, key)| [Some(cert), key.as_ref()].into_iter().flatten()),
        );
        let contents = files.map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let connect = host.dial_timeout.unwrap_or(connect);
        let key = Key { tls: tls.clone(), contents, connect };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        if made.len() >= CLIENTS_MAX {
            made.clear();
        }
        let client = make(tls, connect, self.ways.clone())?;
        made.insert(key, client.clone());
        Ok(client)
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> PullError {
    PullError::new(
        PullErrorKind::Config,
        format!("unable to use certificate file {}: {why}", path.display()),
    )
}

/// An error with its causes, which hyper does not print.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// What a failed request means, and its words. What the administrator of the
/// node has to change is not tried again.
pub(crate) fn failure(error: &(dyn std::error::Error + 'static)) -> (PullErrorKind, String) {
    let why = chain(error);
    let hint = match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => {
            "the server's certificate is signed by an authority that is not known: name its file \
             as `ca` in the registry's hosts.toml"
        }
        Some(rustls::Error::InvalidCertificate(_)) => "the server's certificate is not accepted",
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the server does not speak TLS: if it is to be used without, write http:// before its \
             name in hosts.toml"
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA,
        )) => {
            "the server wants another client certificate: name it as `client` in the registry's \
             hosts.toml"
        }
        _ => return (PullErrorKind::Unavailable, why),
    };
    (PullErrorKind::Config, format!("{hint} ({why})"))
}

/// The TLS error among the causes; what is inside an I/O error is no `source` of it.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        let inside = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inside.map(|inside| inside as _).or_else(|| cause.source());
    }
    None
}

fn read(path: &Path) -> Result<Vec<u8>, PullError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(path, error))?;
    let taken = file.take(CERTIFICATE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    taken.map_err(|error| wrong(path, error))?;
    if bytes.len() as u64 > CERTIFICATE_FILE_BYTES_MAX {
        return Err(wrong(path, format!("it is larger than {CERTIFICATE_FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn make(tls: &TlsFiles, connect: Duration, ways: Ways) -> Result<HttpClient, PullError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(tls)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Connector { ways, http });
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(256 << 10)
        .build(connector))
}

fn tls_config(tls: &TlsFiles) -> Result<ClientConfig, PullError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let fail =
        |why: String| PullError::new(PullErrorKind::Config, format!("unable to set up TLS: {why}"));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?;
    let builder = if tls.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        let mut roots = system_roots().clone();
        for path in &tls.ca {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, error))?;
            }
        }
        builder.with_root_certificates(roots)
    };
    let Some((certificate, key)) = tls.client.first() else {
        return Ok(builder.with_no_client_auth());
    };
    let key_path = key.as_ref().unwrap_or(certificate);
    builder
        .with_client_auth_cert(certificates(certificate)?, private_key(key_path)?)
        .map_err(|error| wrong(certificate, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PullError> {
    let bytes = read(path)?;
    let found = rustls_pemfile::certs(&mut BufReader::new(bytes.as_slice()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(path, error))?;
    if found.is_empty() { Err(wrong(path, "there is no certificate in it")) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PullError> {
    rustls_pemfile::private_key(&mut BufReader::new(read(path)?.as_slice()))
        .map_err(|error| wrong(path, error))?
        .ok_or_else(|| wrong(path, "there is no private key in it"))
}

/// Read once: it takes milliseconds, and no registry on this machine needs it.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // A root that is not understood takes only its own servers away.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
}

/// `skip_verify = true` of hosts.toml: the administrator's own wish.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
