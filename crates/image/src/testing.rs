//! A real registry and images made of a few files, for tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corten_base::{Digest, Reference};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::config::Platform;
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

/// Whom a locked registry lets in.
pub const USER: &str = "pup";
/// Their password.
pub const PASSWORD: &str = "secret";
/// Both, as `htpasswd` writes them.
const USERS: &str = "pup:$2a$04$K1EqNJC5tuG5sfRLHFK4UeIg8MMtNVGGC3YxFb6/pMBNk6AL..xbi\n";

/// A `docker-registry` of its own, in its own directory, until it is dropped.
pub struct Registry {
    process: Child,
    address: SocketAddr,
    locked: bool,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Starts one on a free port of this machine.
    ///
    /// # Panics
    /// If there is no `docker-registry`, or it does not answer.
    pub fn start() -> Self {
        Self::start_as(false)
    }

    /// Starts one that knows [`USER`] with [`PASSWORD`] alone.
    ///
    /// # Panics
    /// Likewise.
    pub fn start_locked() -> Self {
        Self::start_as(true)
    }

    fn start_as(locked: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // The port is free again for the registry; one taken meanwhile is tried anew.
        for _ in 0..20 {
            let address =
                TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
            let config = dir.path().join("config.yml");
            let mut text = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
                dir.path().join("data").display()
            );
            if locked {
                let users = dir.path().join("users");
                std::fs::write(&users, USERS).expect("the registry's users");
                text += &format!(
                    "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                    users.display()
                );
            }
            std::fs::write(&config, text).expect("the registry's configuration");
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry is installed");
            let deadline = Instant::now() + Duration::from_secs(30);
            while Instant::now() < deadline && process.try_wait().is_ok_and(|ended| ended.is_none())
            {
                if TcpStream::connect(address).is_ok() {
                    return Self { process, address, locked, _dir: dir };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("docker-registry does not start");
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts a blob and returns its digest.
    ///
    /// # Panics
    /// If the registry refuses it.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = digest_of(bytes);
        let head = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        let location = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .starts_with("location:")
                    .then(|| line[9..].trim().to_owned())
            })
            .expect("a place to upload to");
        let path = location
            .split_once("://")
            .map_or(location.as_str(), |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
        let mark = if path.contains('?') { '&' } else { '?' };
        let head = self.request(
            "PUT",
            &format!("{path}{mark}digest={digest}"),
            "application/octet-stream",
            bytes,
        );
        assert!(head.starts_with("HTTP/1.1 201"), "{head}");
        digest
    }

    /// Puts a manifest or index.
    ///
    /// # Panics
    /// If the registry refuses it.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Digest {
        let head =
            self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"), media_type, bytes);
        assert!(head.starts_with("HTTP/1.1 201"), "{head}");
        digest_of(bytes)
    }

    fn request(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).expect("a connection to the registry");
        let who = if self.locked {
            let credentials = STANDARD.encode(format!("{USER}:{PASSWORD}"));
            format!("Authorization: Basic {credentials}\r\n")
        } else {
            String::new()
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{who}Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .expect("the request is sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip
    Gzip,
    /// gzip in several members, as parallel compressors write it.
    GzipMembers,
    /// zstd
    Zstd,
    /// Not at all.
    Plain,
}

/// An image of a few files.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<Vec<u8>>,
    packing: Packing,
    docker: bool,
    platform: Platform,
    settings: serde_json::Map<String, serde_json::Value>,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            packing: Packing::Gzip,
            docker: false,
            platform: Platform::host(),
            settings: serde_json::Map::new(),
        }
    }
}

impl ImageBuilder {
    /// An OCI image for this machine, without layers, gzip.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer of files: path, mode, content.
    pub fn layer(mut self, files: &[(&str, u32, &[u8])]) -> Self {
        self.layers.push(tar_of(files));
        self
    }

    /// Adds a layer that is a tar already.
    pub fn tar(mut self, tar: Vec<u8>) -> Self {
        self.layers.push(tar);
        self
    }

    /// Compresses layers this way.
    pub fn packing(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Makes Docker's manifest in place of OCI's.
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// Makes it for another platform.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Sets the command.
    pub fn cmd(self, arguments: &[&str]) -> Self {
        self.setting("Cmd", json!(arguments))
    }

    /// Sets any key of the configuration's `config`: `Env`, `User`, `StopSignal`, ….
    pub fn setting(mut self, key: &str, value: serde_json::Value) -> Self {
        self.settings.insert(key.to_owned(), value);
        self
    }

    /// Pushes it, and returns the name to pull it by.
    ///
    /// # Panics
    /// If the registry refuses it.
    pub fn push(&self, registry: &Registry, repository: &str, tag: &str) -> Reference {
        let (media_type, manifest) = self.push_parts(registry, repository);
        registry.put_manifest(repository, tag, media_type, manifest.as_bytes());
        name(registry, repository, tag)
    }

    /// Pushes it without a tag, and returns the digest to pull it by.
    ///
    /// # Panics
    /// If the registry refuses it.
    pub fn push_by_digest(&self, registry: &Registry, repository: &str) -> Digest {
        let (media_type, manifest) = self.push_parts(registry, repository);
        let digest = digest_of(manifest.as_bytes());
        registry.put_manifest(repository, &digest.to_string(), media_type, manifest.as_bytes())
    }

    /// Pushes one name for images of several platforms: an index, or Docker's
    /// list if the first of them is Docker's.
    ///
    /// # Panics
    /// If the registry refuses it.
    pub fn index(images: &[Self], registry: &Registry, repository: &str, tag: &str) -> Reference {
        let docker = images.first().is_some_and(|image| image.docker);
        let media_type = if docker { DOCKER_LIST } else { OCI_INDEX };
        let entry = |image: &Self| {
            let (media_type, manifest) = image.push_parts(registry, repository);
            let digest = digest_of(manifest.as_bytes());
            registry.put_manifest(repository, &digest.to_string(), media_type, manifest.as_bytes());
            let mut platform =
                json!({ "os": image.platform.os, "architecture": image.platform.architecture });
            if !image.platform.variant.is_empty() {
                platform["variant"] = json!(image.platform.variant);
            }
            json!({ "mediaType": media_type, "digest": digest, "size": manifest.len(), "platform": platform })
        };
        let manifests: Vec<_> = images.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests })
            .to_string();
        registry.put_manifest(repository, tag, media_type, index.as_bytes());
        name(registry, repository, tag)
    }

    /// Pushes all but the manifest, which it returns with its type.
    fn push_parts(&self, registry: &Registry, repository: &str) -> (&'static str, String) {
        let diff_ids: Vec<Digest> = self.layers.iter().map(|tar| digest_of(tar)).collect();
        let config = json!({
            "os": self.platform.os, "architecture": self.platform.architecture,
            "created": "2024-01-02T03:04:05Z", "config": self.settings,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string();
        let (manifest_type, config_type, layer_type) = if self.docker {
            (
                DOCKER_MANIFEST,
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar",
            )
        } else {
            (
                OCI_MANIFEST,
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar",
            )
        };
        let (suffix, separator) = match (self.packing, self.docker) {
            (Packing::Gzip | Packing::GzipMembers, true) => ("gzip", "."),
            (Packing::Gzip | Packing::GzipMembers, false) => ("gzip", "+"),
            (Packing::Zstd, _) => ("zstd", "+"),
            (Packing::Plain, _) => ("", ""),
        };
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|tar| {
                let packed = pack(tar, self.packing);
                let digest = registry.put_blob(repository, &packed);
                json!({ "mediaType": format!("{layer_type}{separator}{suffix}"), "digest": digest, "size": packed.len() })
            })
            .collect();
        let digest = registry.put_blob(repository, config.as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "layers": layers,
            "config": { "mediaType": config_type, "digest": digest, "size": config.len() },
        })
        .to_string();
        (manifest_type, manifest)
    }
}

fn name(registry: &Registry, repository: &str, tag: &str) -> Reference {
    format!("{}/{repository}:{tag}", registry.address()).parse().expect("a valid reference")
}

/// The sha256 of bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => tar.to_vec(),
        Packing::Zstd => zstd::encode_all(tar, 3).expect("zstd in memory"),
        Packing::Gzip => gzip(tar),
        Packing::GzipMembers => tar.chunks(tar.len().div_ceil(3).max(1)).flat_map(gzip).collect(),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip in memory")
}

/// A tar of regular files, owned by root.
///
/// # Panics
/// If a path is longer than the 100 bytes of a plain header.
pub fn tar_of(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, mode, content) in files {
        let mut header = [0u8; 512];
        assert!(path.len() <= 100, "{path}: too long");
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}
