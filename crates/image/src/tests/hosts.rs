//! `hosts.toml` and its directories, seen from the servers that are asked.

use std::path::Path;

use super::made::{images, made, namespace};
use super::server::Server;
use crate::{PullError, PullErrorKind};

async fn server() -> Server {
    let made = made();
    Server::start(move |asked, _| made.answer(asked)).await
}

/// Pulls `registry`'s image with one file of configuration.
async fn pull(registry: &str, file: &str, text: &str) -> Result<(), PullError> {
    let dir = tempfile::tempdir().unwrap();
    pull_in(dir.path(), registry, file, text).await
}

async fn pull_in(dir: &Path, registry: &str, file: &str, text: &str) -> Result<(), PullError> {
    let path = dir.join("hosts").join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    let reference = format!("{registry}/a/b:v1").parse().unwrap();
    images(dir).pull(&namespace(), &reference, None, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_the_directory_is_found() {
    let server = server().await;
    let mirror = format!("[host.\"http://{}\"]\n", server.address);
    for (registry, directory) in [
        ("r.invalid", "r.invalid"),
        ("r.invalid", "_default"),
        ("r.invalid:5000", "r.invalid:5000"),
        ("r.invalid:5000", "r.invalid_5000_"),
        ("r.invalid:5000", "_default"),
        ("[::2]:5000", "[::2]_5000_"),
        ("docker.io", "docker.io"),
    ] {
        let before = server.asked("/v2/a/b/manifests/v1").len();
        pull(registry, &format!("{directory}/hosts.toml"), &mirror)
            .await
            .unwrap_or_else(|error| panic!("{registry} in {directory}: {error}"));
        let asked = server.asked("/v2/a/b/manifests/v1");
        assert_eq!(asked.len(), before + 1);
        let name = registry.replace(':', "%3A").replace('[', "%5B").replace(']', "%5D");
        assert_eq!(asked[before].path, format!("/v2/a/b/manifests/v1?ns={name}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_kept_and_v2_added_where_it_belongs() {
    let server = server().await;
    for (path, keys, asked) in [
        ("", "", "/v2/a/b/"),
        ("/", "", "/v2/a/b/"),
        ("/v2", "", "/v2/a/b/"),
        ("/v2/", "", "/v2/a/b/"),
        ("/proxy", "", "/proxy/v2/a/b/"),
        ("/v2/proxy", "override_path = true\n", "/v2/proxy/a/b/"),
        ("/x/v2/", "override_path = true\n", "/x/v2/a/b/"),
    ] {
        let before = server.asked("/manifests/").len();
        let mirror = format!("[host.\"http://{}{path}\"]\n{keys}", server.address);
        pull("r.invalid", "r.invalid/hosts.toml", &mirror).await.unwrap();
        let path = &server.asked("/manifests/")[before].path;
        assert!(path.starts_with(asked), "{path} for {asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_sent_to_their_host_only() {
    let (mirror, upstream) = (server().await, server().await);
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n\
         [host.\"http://{}\".header]\nx-one = \"1\"\nx-many = [\"a\", \"b\"]\n",
        upstream.address, mirror.address, mirror.address
    );
    pull("r.invalid", "r.invalid/hosts.toml", &text).await.unwrap();
    // A mirror that may not resolve is asked for content alone.
    assert!(mirror.asked("/manifests/").is_empty());
    let asked = mirror.asked("/blobs/");
    assert!(!asked.is_empty());
    for one in asked {
        assert_eq!(one.header("x-one"), Some("1"));
        let many = one.headers.iter().filter(|(name, _)| name == "x-many").count();
        assert_eq!(many, 2, "{one:?}");
    }
    assert!(upstream.asked("/").iter().all(|one| one.header("x-one").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_it_is_said() {
    let max = usize::try_from(corten_base::limits::HOSTS_FILE_BYTES_MAX).unwrap();
    let many: String = (0..=corten_base::limits::HOSTS_MAX)
        .map(|number| format!("[host.\"http://m{number}.invalid\"]\n"))
        .collect();
    for (text, words) in [
        ("[host.\"http://m\"]\nproxy = \"http://p:3128\"\n", "proxy"),
        ("proxy = \"http://p:3128\"\n", "proxies are not offered"),
        ("[host.\"ftp://m\"]\n", "ftp"),
        ("[host.\"http://me:secret@m\"]\n", "credentials"),
        ("[host.\"ftp://me:secret@m\"]\n", "credentials"),
        ("[host.\"http://m\".header]\nx = \"secret\n", "line 2"),
        ("capabilities = [\"pul\"]\n", "pul"),
        ("dial_timeout = \"soon\"\n", "soon"),
        ("[host.\"http://m\"]\ncapabilities = [\"push\"]\n", ""),
        (&"#".repeat(max + 1), "hosts.toml"),
        (&many, "more than"),
    ] {
        let result = pull("127.0.0.1:1", "127.0.0.1:1/hosts.toml", text).await;
        let error = result.unwrap_err();
        if words.is_empty() {
            // Nothing is wrong with a host that is for pushes only.
            assert_eq!(error.kind, PullErrorKind::Unavailable, "{error}");
            assert!(!error.message.contains("http://m/"), "{error}");
            continue;
        }
        assert_eq!(error.kind, PullErrorKind::Config, "{error}");
        assert!(error.message.contains(words), "{words}: {error}");
        assert!(error.message.contains("hosts.toml"), "{error}");
        assert!(!error.message.contains("secret"), "{error}");
    }
}
