//! Registries behind TLS: authorities, client certificates, and who is not known.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::made::{images, made, namespace, nothing_left};
use super::server::Server;
use crate::{PullError, PullErrorKind};

/// An authority of the test's own.
struct Authority {
    pem: String,
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What it signed.
struct Signed {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, names: &[&str]) -> Signed {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        Signed { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// A server for `127.0.0.1`, which may want certificates of this authority.
    async fn server(&self, wants_client: bool) -> Server {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let signed = self.sign(&["127.0.0.1"]);
        let key = PrivateKeyDer::try_from(signed.key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![signed.certificate.der().clone()], key).unwrap();
        let made = made();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::start_with(Some(acceptor), move |asked, _| made.answer(asked)).await
    }
}

/// Writes the files of the server's registry, and pulls from it.
async fn pull(dir: &Path, server: &Server, files: &[(&str, &str)]) -> Result<(), PullError> {
    let hosts = dir.join("hosts").join(server.address.to_string());
    std::fs::create_dir_all(&hosts).unwrap();
    for (name, text) in files {
        std::fs::write(hosts.join(name), text.replace("SERVER", &server.address.to_string()))
            .unwrap();
    }
    let images = images(dir);
    let reference = format!("{}/a/b:v1", server.address).parse().unwrap();
    let result = images.pull(&namespace(), &reference, None, None).await;
    if result.is_err() {
        nothing_left(dir, &images).await;
    }
    result.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_trusted() {
    let authority = Authority::new("one");
    let server = authority.server(false).await;
    let pem = authority.pem.as_str();
    for files in [
        [("hosts.toml", "server = \"https://SERVER\"\nca = \"ca.pem\"\n"), ("ca.pem", pem)],
        [("hosts.toml", "[host.\"https://SERVER\"]\nca = [\"ca.pem\"]\n"), ("ca.pem", pem)],
        // Without a scheme, who has certificates means TLS, on this machine too.
        [("hosts.toml", "ca = \"ca.pem\"\n"), ("ca.pem", pem)],
    ] {
        let dir = tempfile::tempdir().unwrap();
        pull(dir.path(), &server, &files)
            .await
            .unwrap_or_else(|error| panic!("{files:?}: {error}"));
    }
    // As Docker has it.
    let dir = tempfile::tempdir().unwrap();
    pull(dir.path(), &server, &[("ca.crt", pem)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_authority_is_named_with_what_to_do() {
    let (known, unknown) = (Authority::new("one"), Authority::new("other"));
    let server = unknown.server(false).await;
    let dir = tempfile::tempdir().unwrap();
    let files =
        [("hosts.toml", "server = \"https://SERVER\"\nca = \"ca.pem\"\n"), ("ca.pem", &known.pem)];
    let error = pull(dir.path(), &server, &files).await.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::Config, "{error}");
    for words in ["authority", "ca", "hosts.toml", &server.address.to_string()] {
        assert!(error.message.contains(words), "{words}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let skip = "server = \"https://SERVER\"\nskip_verify = true\n";
    pull(dir.path(), &server, &[("hosts.toml", skip)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_its_certificate() {
    let authority = Authority::new("one");
    let server = authority.server(true).await;
    let mine = authority.sign(&["node"]);
    let (pem, key) = (mine.certificate.pem(), mine.key.serialize_pem());
    let both = format!("{pem}{key}");
    let base = "server = \"https://SERVER\"\nca = \"ca.pem\"\n";
    for client in [
        "client = \"both.pem\"",
        "client = [\"both.pem\"]",
        "client = [[\"c.pem\", \"k.pem\"]]",
        "client = [[\"both.pem\", \"\"]]",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let toml = format!("{base}{client}\n");
        let files = [
            ("hosts.toml", toml.as_str()),
            ("ca.pem", &authority.pem),
            ("c.pem", &pem),
            ("k.pem", &key),
            ("both.pem", &both),
        ];
        pull(dir.path(), &server, &files).await.unwrap_or_else(|error| panic!("{client}: {error}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let files = [("c.cert", pem.as_str()), ("c.key", &key), ("ca.crt", &authority.pem)];
    pull(dir.path(), &server, &files).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = [("hosts.toml", base), ("ca.pem", authority.pem.as_str())];
    let error = pull(dir.path(), &server, &files).await.unwrap_err();
    assert!(error.message.to_lowercase().contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_told_apart() {
    let registry = crate::testing::Registry::start();
    let dir = tempfile::tempdir().unwrap();
    let name = registry.address().to_string();
    let hosts = dir.path().join("hosts").join(&name);
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), format!("server = \"https://{name}\"\n")).unwrap();
    let reference = format!("{name}/a/b:v1").parse().unwrap();
    let result = images(dir.path()).pull(&namespace(), &reference, None, None).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::Config, "{error}");
    assert!(error.message.contains("http://"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_file_is_named() {
    let server = Authority::new("one").server(false).await;
    let large =
        "x".repeat(usize::try_from(corten_base::limits::CERTIFICATE_FILE_BYTES_MAX).unwrap() + 1);
    for (text, words) in [("nonsense", "no certificate"), (large.as_str(), "larger than")] {
        let dir = tempfile::tempdir().unwrap();
        let error = pull(dir.path(), &server, &[("ca.crt", text)]).await.unwrap_err();
        assert_eq!(error.kind, PullErrorKind::Config, "{error}");
        assert!(error.message.contains(words) && error.message.contains("ca.crt"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let toml = [("hosts.toml", "ca = \"none.pem\"\n")];
    let error = pull(dir.path(), &server, &toml).await.unwrap_err();
    assert!(error.message.contains("none.pem"), "{error}");
}
