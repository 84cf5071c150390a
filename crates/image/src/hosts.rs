//! `hosts.toml`: where a registry's images are fetched from.
//!
//! The layout is containerd's, so that nodes can keep their files. They are
//! read at every pull.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_base::limits::{CERTIFICATE_FILES_MAX, HOSTS_FILE_BYTES_MAX, HOSTS_MAX};
use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use crate::error::{PullError, PullErrorKind};

/// One place that images are fetched from.
#[derive(Clone)]
pub(crate) struct Host {
    /// Scheme, host, port and path, up to and with `/v2`; no slash at the end.
    pub base: String,
    /// Host and port.
    pub authority: String,
    /// The registry that it stands for, where it is a mirror: sent as `?ns=`.
    pub mirror_of: Option<String>,
    pub can_pull: bool,
    pub can_resolve: bool,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub tls: TlsFiles,
    pub dial_timeout: Option<Duration>,
}

/// What hosts.toml says of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsFiles {
    pub ca: Vec<PathBuf>,
    /// Certificate, and key where it is in another file.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    pub skip_verify: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: Ordered,
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMore>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
    proxy: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Entry {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMore>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
    /// Known, to be refused with words.
    proxy: Option<IgnoredAny>,
}

/// Mirrors, in the order of the file.
#[derive(Default)]
struct Ordered(Vec<(String, Entry)>);

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Client {
    One(String),
    Files(Vec<String>),
    Pairs(Vec<Vec<String>>),
}

impl Entry {
    fn speaks_of_tls(&self) -> bool {
        let ca = self.ca.as_ref().is_some_and(|ca| !ca.is_empty());
        ca || self.client.as_ref().is_some_and(|client| !client.is_empty())
            || self.skip_verify.is_some()
    }
}

impl Client {
    fn is_empty(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Files(files) => files.is_empty(),
            Self::Pairs(pairs) => pairs.is_empty(),
        }
    }
}

impl OneOrMore {
    fn is_empty(&self) -> bool {
        matches!(self, Self::More(more) if more.is_empty())
    }

    fn all(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Ordered;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("tables [host.\"url\"]")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Ordered(all))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The hosts of a registry: mirrors in order, then the registry itself. The
/// first directory that is there counts, also without a `hosts.toml`: then it
/// may hold certificates, as Docker's do.
pub(crate) fn hosts_of(dirs: &[PathBuf], registry: &str) -> Result<Vec<Host>, PullError> {
    let names = directory_names(registry);
    let places = dirs.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
    for dir in places {
        if !dir.is_dir() {
            continue;
        }
        let path = dir.join("hosts.toml");
        return match read(&path) {
            Ok(text) => parse(&text, &path, registry),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let entry = certificates_in(&dir).map_err(|error| wrong(&dir, error))?;
                Ok(vec![upstream(registry, None, entry, &dir)?])
            }
            Err(error) => Err(wrong(&path, error)),
        };
    }
    Ok(vec![upstream(registry, None, Entry::default(), Path::new("."))?])
}

/// `*.crt` are certificates of authorities, `x.cert` and `x.key` the client's.
fn certificates_in(dir: &Path) -> std::io::Result<Entry> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)?.take(4 * CERTIFICATE_FILES_MAX) {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    let ca = names.iter().filter(|name| name.ends_with(".crt")).cloned().collect();
    let pair = |name: &String| {
        let stem = name.strip_suffix(".cert")?;
        Some(vec![name.clone(), format!("{stem}.key")])
    };
    let client = Client::Pairs(names.iter().filter_map(pair).collect());
    Ok(Entry { ca: Some(OneOrMore::More(ca)), client: Some(client), ..Entry::default() })
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(HOSTS_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > HOSTS_FILE_BYTES_MAX {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// `host_port_` and `host:port` for a registry with a port.
fn directory_names(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = registry.rsplit_once(':')
        && !registry.ends_with(']')
    {
        names.push(format!("{host}_{port}_"));
    }
    names.push(registry.to_owned());
    names.push("_default".to_owned());
    names
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> PullError {
    PullError::new(
        PullErrorKind::Config,
        format!("unable to read registry configuration {}: {why}", path.display()),
    )
}

fn parse(text: &str, path: &Path, registry: &str) -> Result<Vec<Host>, PullError> {
    let file: File = toml::from_str(text).map_err(|error| {
        // Its own display quotes the line, which may hold a credential.
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count()) + 1;
        wrong(path, format!("line {line}: {}", error.message()))
    })?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let in_file = |error: PullError| error.within(format!("in {}", path.display()));
    if file.host.0.len() > HOSTS_MAX {
        return Err(wrong(path, format!("it has more than {HOSTS_MAX} hosts")));
    }
    let mut hosts = Vec::new();
    for (url, entry) in file.host.0 {
        let mut host = make(&url, entry, dir).map_err(in_file)?;
        host.mirror_of = Some(registry.to_owned());
        hosts.push(host);
    }
    let entry = Entry {
        capabilities: file.capabilities,
        ca: file.ca,
        client: file.client,
        skip_verify: file.skip_verify,
        header: file.header,
        override_path: file.override_path,
        dial_timeout: file.dial_timeout,
        proxy: file.proxy,
    };
    hosts.push(upstream(registry, file.server, entry, dir).map_err(in_file)?);
    Ok(hosts)
}

fn upstream(
    registry: &str,
    server: Option<String>,
    entry: Entry,
    dir: &Path,
) -> Result<Host, PullError> {
    match server {
        Some(server) => {
            let mut host = make(&server, entry, dir)?;
            if host.authority != registry_host(registry) {
                host.mirror_of = Some(registry.to_owned());
            }
            Ok(host)
        }
        None => make(registry_host(registry), entry, dir),
    }
}

/// Where the registry of a name answers.
pub(crate) fn registry_host(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

fn make(url: &str, entry: Entry, dir: &Path) -> Result<Host, PullError> {
    let bad = |why: String| PullError::new(PullErrorKind::Config, why);
    if entry.proxy.is_some() {
        return Err(bad(format!(
            "host {url:?} has the key proxy: proxies are not offered; name a mirror in its place"
        )));
    }
    if url.contains('@') {
        // They are in no message either.
        return Err(bad("the URL of a host has credentials in it: use `header` for them".into()));
    }
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some((scheme, _)) => {
            return Err(bad(format!("host {url:?} has scheme {scheme:?}: use https or http")));
        }
        None if is_local(url) && !entry.speaks_of_tls() => ("http", url),
        None => ("https", url),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = registry_host(authority);
    let path = path.trim_end_matches('/');
    let mut base = format!("{scheme}://{authority}");
    if !path.is_empty() {
        base = format!("{base}/{path}");
    }
    if !entry.override_path.unwrap_or(false) && !base.ends_with("/v2") {
        base.push_str("/v2");
    }
    let parsed =
        base.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    if parsed.is_none() {
        return Err(bad(format!("host {url:?} is no URL")));
    }
    let capabilities = entry.capabilities.unwrap_or_else(|| vec!["pull".into(), "resolve".into()]);
    for name in &capabilities {
        if !["pull", "resolve", "push", "referrers"].contains(&name.as_str()) {
            return Err(bad(format!(
                "host {url:?} has unknown capability {name:?}: pull, resolve, push"
            )));
        }
    }
    let ca = entry.ca.map_or_else(Vec::new, OneOrMore::all);
    let client = client_files(entry.client, dir).map_err(bad)?;
    if ca.len() + client.len() > CERTIFICATE_FILES_MAX {
        return Err(bad(format!(
            "host {url:?} has more than {CERTIFICATE_FILES_MAX} certificates"
        )));
    }
    Ok(Host {
        base,
        authority: authority.to_owned(),
        mirror_of: None,
        can_pull: capabilities.iter().any(|name| name == "pull"),
        can_resolve: capabilities.iter().any(|name| name == "resolve"),
        headers: headers(entry.header.unwrap_or_default()).map_err(bad)?,
        tls: TlsFiles {
            ca: ca.iter().map(|ca| dir.join(ca)).collect(),
            client,
            skip_verify: entry.skip_verify.unwrap_or(false),
        },
        dial_timeout: entry.dial_timeout.map(|text| duration(&text)).transpose().map_err(bad)?,
    })
}

fn client_files(
    client: Option<Client>,
    dir: &Path,
) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    match client {
        None => Ok(Vec::new()),
        Some(Client::One(file)) => Ok(vec![(dir.join(file), None)]),
        Some(Client::Files(files)) => Ok(files.iter().map(|file| (dir.join(file), None)).collect()),
        Some(Client::Pairs(pairs)) => pairs
            .iter()
            .map(|pair| match pair.as_slice() {
                [certificate] => Ok((dir.join(certificate), None)),
                [certificate, key] if key.is_empty() => Ok((dir.join(certificate), None)),
                [certificate, key] => Ok((dir.join(certificate), Some(dir.join(key)))),
                _ => Err("client is [[certificate, key], …]".to_owned()),
            })
            .collect(),
    }
}

fn headers(table: BTreeMap<String, OneOrMore>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut all = Vec::new();
    for (name, values) in table {
        let parsed =
            name.parse::<HeaderName>().map_err(|_| format!("{name:?} is no header name"))?;
        for value in values.all() {
            // The value may be a credential: it is in no message and no log.
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| format!("the value of header {name:?} is not printable"))?;
            value.set_sensitive(true);
            all.push((parsed.clone(), value));
        }
    }
    Ok(all)
}

/// `1.5s`, `300ms`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let factor = match &text[unit..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => f64::NAN,
    };
    text[..unit]
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * factor).ok())
        .ok_or_else(|| format!("dial_timeout {text:?} is not a duration such as \"3s\""))
}

/// Plain HTTP is for this machine only, unless hosts.toml says so.
fn is_local(url: &str) -> bool {
    let authority = url.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_in_order_then_the_server() {
        let text = "server = \"https://up.example\"\n[host.\"http://z.example:1\"]\n\
                    capabilities = [\"pull\"]\n[host.\"https://a.example/proxy\"]\n\
                    override_path = true\nca = \"ca.pem\"\n[host.\"https://a.example/proxy\".header]\n\
                    x-key = [\"1\", \"2\"]\n";
        let hosts = parse(text, Path::new("/c/r.example/hosts.toml"), "r.example").unwrap();
        let bases: Vec<&str> = hosts.iter().map(|host| host.base.as_str()).collect();
        assert_eq!(
            bases,
            ["http://z.example:1/v2", "https://a.example/proxy", "https://up.example/v2"]
        );
        assert!(hosts[0].can_pull && !hosts[0].can_resolve);
        assert_eq!(hosts[1].tls.ca, [PathBuf::from("/c/r.example/ca.pem")]);
        assert_eq!(hosts[1].headers.len(), 2);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = "server = \"https://up.example\"\n[host.\"https://a\"]\nskip_verfy = true\n";
        let error = parse(text, Path::new("/c/hosts.toml"), "r").err().unwrap().to_string();
        assert!(
            error.contains("/c/hosts.toml")
                && error.contains("line 3")
                && error.contains("skip_verfy"),
            "{error}"
        );
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        for (registry, base) in [
            ("localhost:5000", "http://localhost:5000/v2"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
            ("localhost.example", "https://localhost.example/v2"),
            ("docker.io", "https://registry-1.docker.io/v2"),
        ] {
            assert_eq!(hosts_of(&[], registry).unwrap()[0].base, base);
        }
    }
}
