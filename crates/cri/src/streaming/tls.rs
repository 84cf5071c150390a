//! TLS for streams, with certificates that may be replaced at any time.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use corten_base::limits::CERTIFICATE_FILE_BYTES_MAX;
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio_rustls::TlsAcceptor;

/// Where certificate and key are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What tells a file from the one that was there before.
type Stamp = (u64, u64, i64, i64);

/// Certificate and key, as they are now.
pub(super) struct Tls {
    files: TlsFiles,
    loaded: Mutex<(Option<[Stamp; 2]>, TlsAcceptor)>,
}

impl Tls {
    /// Reads both files.
    pub(super) fn open(files: TlsFiles) -> Result<Self, String> {
        // Looked at before it is read: what changes meanwhile is read again.
        let stamps = files.stamps().ok();
        let acceptor = files.load()?;
        Ok(Self { files, loaded: Mutex::new((stamps, acceptor)) })
    }

    /// For the next connection: the files are read again if they have changed.
    /// What cannot be used leaves things as they are.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps().ok();
        if stamps.is_some() && stamps != loaded.0 {
            match self.files.load() {
                Ok(acceptor) => {
                    tracing::info!("the certificate for streams has been replaced");
                    *loaded = (stamps, acceptor);
                }
                Err(error) => tracing::warn!("{error}; the one before it is used"),
            }
        }
        loaded.1.clone()
    }
}

impl TlsFiles {
    fn stamps(&self) -> io::Result<[Stamp; 2]> {
        let stamp = |path: &Path| -> io::Result<Stamp> {
            let found = std::fs::metadata(path)?;
            Ok((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        Ok([stamp(&self.certificate)?, stamp(&self.key)?])
    }

    fn load(&self) -> Result<TlsAcceptor, String> {
        let unusable = |path: &Path, why: String| {
            format!("unable to use {} for streams: {why}", path.display())
        };
        let certificate = read(&self.certificate)
            .and_then(|pem| rustls_pemfile::certs(&mut pem.as_slice()).collect())
            .map_err(|error| unusable(&self.certificate, error.to_string()))?;
        let key = read(&self.key)
            .and_then(|pem| rustls_pemfile::private_key(&mut pem.as_slice()))
            .map_err(|error| unusable(&self.key, error.to_string()))?
            .ok_or_else(|| unusable(&self.key, "it holds no key".into()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(certificate, key))
            .map_err(|error| unusable(&self.certificate, error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(CERTIFICATE_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &TlsFiles) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn certificates_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let files = TlsFiles { certificate: path("cert.pem"), key: path("key.pem") };
        assert!(Tls::open(files.clone()).is_err_and(|error| error.contains("cert.pem")));
        write(&files);
        let tls = Tls::open(files.clone()).unwrap();
        let config = |tls: &Tls| Arc::as_ptr(tls.acceptor().config());
        let first = config(&tls);
        assert_eq!(config(&tls), first);
        // Half of a change is none.
        std::fs::write(&files.key, "no key").unwrap();
        assert_eq!(config(&tls), first);
        std::fs::remove_file(&files.certificate).unwrap();
        assert_eq!(config(&tls), first);
        write(&files);
        assert_ne!(config(&tls), first);
    }
}
