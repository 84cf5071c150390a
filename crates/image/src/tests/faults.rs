//! Registries that break off, refuse, lie, or send us elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use corten_base::Reference;
use corten_store::Store;

use super::made::{Made, images, made, namespace, nothing_left, with_patience};
use super::server::{Answer, Asked, Server};
use crate::{Auth, Images, ImagesConfig, Proxies, PullError, PullErrorKind, Secret};

fn reference(server: &Server) -> Reference {
    format!("{}/a/b:v1", server.address).parse().unwrap()
}

async fn pull(images: &Images, server: &Server, auth: Option<Auth>) -> Result<(), PullError> {
    images.pull(&namespace(), &reference(server), auth, None).await.map(drop)
}

/// Pulls from a server that answers with `change` of the right answer.
async fn against(
    change: impl Fn(&Made, &Asked, usize, Answer) -> Answer + Send + Sync + 'static,
) -> (Result<(), PullError>, Server) {
    let dir = tempfile::tempdir().unwrap();
    let images = images(dir.path());
    with(dir.path(), images, change).await
}

/// Likewise, with images of the test's own.
async fn with(
    dir: &Path,
    images: Images,
    change: impl Fn(&Made, &Asked, usize, Answer) -> Answer + Send + Sync + 'static,
) -> (Result<(), PullError>, Server) {
    let made = made();
    let server =
        Server::start(move |asked, before| change(&made, asked, before, made.answer(asked))).await;
    let result = pull(&images, &server, None).await;
    if result.is_err() {
        nothing_left(dir, &images).await;
    }
    (result, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_body_goes_on_where_it_broke() {
    let (result, server) = against(|made, asked, before, mut answer| {
        if made.is_layer(asked) && before < 2 {
            answer.cut = Some(100_000);
        }
        answer
    })
    .await;
    result.unwrap();
    let asked = server.asked(&made().layer_digest().to_string());
    let ranges: Vec<_> = asked.iter().map(|one| one.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-"), Some("bytes=200000-")]);
    assert_eq!(asked[1].header("if-range"), Some("\"1\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_promised_is_refused() {
    for (case, words) in ["digest", "size", "truncated", "schema"].into_iter().zip([
        "were promised",
        "larger than",
        "ended after",
        "schema 1",
    ]) {
        let (result, _server) = against(move |made, asked, _, mut answer| {
            match case {
                "digest" if made.is_layer(asked) => answer.body[700_000] ^= 1,
                "size" if made.is_layer(asked) => answer.body.push(0),
                // Always short, and never from where it broke off.
                "truncated" if made.is_layer(asked) => {
                    answer = Answer::ok(&made.layer[..1000]);
                }
                "schema" => answer = Answer::ok(r#"{"schemaVersion":1,"fsLayers":[]}"#),
                _ => {}
            }
            answer
        })
        .await;
        let error = result.unwrap_err();
        let truncated = case == "truncated";
        let kind = if truncated { PullErrorKind::Unavailable } else { PullErrorKind::Invalid };
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{case}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_tried_again() {
    let (result, server) = against(|made, asked, before, answer| match before {
        0 if made.is_layer(asked) => Answer::status(429).with("Retry-After", "0"),
        0 if asked.path.contains("manifests") => Answer::status(500),
        _ => answer,
    })
    .await;
    result.unwrap();
    assert_eq!(server.asked("manifests").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let images = with_patience(dir.path(), Duration::from_millis(500));
    let (result, _server) = with(dir.path(), images, |made, asked, _, mut answer| {
        if made.is_layer(asked) {
            (answer.cut, answer.hang) = (Some(1000), true);
        }
        answer
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::Timeout, "{error}");
    assert!(error.message.contains("stalled after"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_for_a_scope_and_again_when_they_expire() {
    let made = made();
    let layer = made.layer_digest().to_string();
    let server = Server::start(move |asked, before| {
        if asked.path.starts_with("/token") {
            if before == 0 {
                return Answer::status(503);
            }
            assert!(asked.path.contains("scope=repository%3Aa%2Fb%3Apull"), "{}", asked.path);
            let user = asked.header("authorization") == Some("Basic bWU6cGFzcw==");
            let identity = asked.body.contains("refresh_token=identity");
            assert!(user || identity);
            return Answer::ok(format!(r#"{{"access_token":"t{before}"}}"#));
        }
        // The first token expires before the layer.
        let wanted = if made.is_layer(asked) { "Bearer t2" } else { "Bearer t" };
        if asked.header("authorization").is_some_and(|value| value.starts_with(wanted)) {
            return made.answer(asked);
        }
        let host = asked.header("host").unwrap();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="s""#);
        Answer::status(401).with("WWW-Authenticate", challenge)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth { username: "me".into(), password: Secret::new("pass"), ..Auth::default() };
    pull(&images(dir.path()), &server, Some(auth)).await.unwrap();
    assert_eq!(server.asked("/token").len(), 3);
    assert_eq!(server.asked(&layer).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_and_goes_nowhere_else() {
    let made = made();
    let server = Server::start(move |asked, _| {
        if asked.path == "/token" {
            assert_eq!(
                asked.body,
                "grant_type=refresh_token&client_id=corten&service=s%26t\
                 &scope=repository%3Aa%2Fb%3Apull&refresh_token=iden%2Ftity"
            );
            assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
            assert_eq!(asked.header("authorization"), None);
            return Answer::ok(r#"{"access_token":"t"}"#);
        }
        if asked.header("authorization") == Some("Bearer t") {
            return made.answer(asked);
        }
        let host = asked.header("host").unwrap();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="s&t""#);
        Answer::status(401).with("WWW-Authenticate", challenge)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth { identity_token: Secret::new("iden/tity"), ..Auth::default() };
    pull(&images(dir.path()), &server, Some(auth)).await.unwrap();
    assert_eq!(server.asked("/token").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    let (result, _server) = against(|_, asked, _, mut answer| {
        if asked.path.contains("manifests") {
            answer.body.resize(corten_base::limits::MANIFEST_BYTES_MAX + 1, b' ');
        }
        answer
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::Invalid, "{error}");
    assert!(error.message.contains("larger than 4194304 bytes"), "{error}");
    let (result, _server) = against(|_, asked, _, answer| match asked.path.contains("manifests") {
        true => {
            Answer::status(401).with("WWW-Authenticate", "Bearer realm=\"http://127.0.0.1:1/\"")
        }
        false => answer,
    })
    .await;
    let error = result.unwrap_err();
    assert!(error.message.contains("token from http://127.0.0.1:1/"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_gets_no_credentials_and_ends() {
    let made = made();
    let other = made.clone();
    let storage = Server::start(move |_, _| Answer::ok(other.layer.clone())).await;
    let address = storage.address;
    let server = Server::start(move |asked, _| {
        if asked.header("authorization") != Some("Basic bWU6cGFzcw==") {
            return Answer::status(401).with("WWW-Authenticate", "Basic realm=\"r\"");
        }
        if made.is_layer(asked) {
            return Answer::status(307).with("Location", format!("http://{address}/x?secret=1"));
        }
        made.answer(asked)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = images(dir.path());
    let auth = Auth { username: "me".into(), password: Secret::new("pass"), ..Auth::default() };
    pull(&images, &server, Some(auth)).await.unwrap();
    assert_eq!(storage.asked("/x")[0].header("authorization"), None);
    let (result, _server) =
        against(|_, asked, _, _| Answer::status(302).with("Location", asked.path.clone())).await;
    let error = result.unwrap_err();
    assert!(error.message.contains("redirects"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_down_is_passed_over_and_named() {
    let (dir, made) = (tempfile::tempdir().unwrap(), made());
    let server = Server::start(move |asked, _| match asked.path.contains("/a/") {
        true => made.answer(asked),
        false => Answer::status(404),
    })
    .await;
    let hosts = dir.path().join("hosts").join(server.address.to_string());
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), "[host.\"http://127.0.0.1:1\"]\n").unwrap();
    let images = images(dir.path());
    pull(&images, &server, None).await.unwrap();
    let missing = format!("{}/none:v1", server.address).parse().unwrap();
    let error = images.pull(&namespace(), &missing, None, None).await.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::Unavailable, "{error}");
    for host in ["127.0.0.1:1/".to_owned(), server.address.to_string()] {
        assert!(error.message.contains(&host), "{host}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_fails_is_asked_once_for_the_whole_pull() {
    let (dir, made) = (tempfile::tempdir().unwrap(), made());
    let server = Server::start(move |asked, _| made.answer(asked)).await;
    let mirror = Server::start(|_, _| Answer::status(503)).await;
    let hosts = dir.path().join("hosts").join(server.address.to_string());
    std::fs::create_dir_all(&hosts).unwrap();
    let text = format!("[host.\"http://{}\"]\n", mirror.address);
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    pull(&images(dir.path()), &server, None).await.unwrap();
    assert_eq!(mirror.asked("/").len(), 1);
    assert_eq!(server.asked("/blobs/").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_behind_a_proxy() {
    let (dir, made) = (tempfile::tempdir().unwrap(), made());
    let proxy = Server::start(move |asked, _| made.answer(asked)).await;
    let proxies = Proxies { http: format!("http://me:pass@{}", proxy.address), ..<_>::default() };
    let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
    let config = ImagesConfig {
        hosts_dirs: vec![dir.path().join("hosts")],
        proxies,
        ..ImagesConfig::default()
    };
    let hosts = dir.path().join("hosts/r.invalid");
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), "server = \"http://r.invalid\"\n").unwrap();
    let images = Images::open(store, config).unwrap();
    let reference = "r.invalid/a/b:v1".parse().unwrap();
    images.pull(&namespace(), &reference, None, None).await.unwrap();
    // A proxy is asked for whole addresses, and told who asks.
    let asked = proxy.asked("http://r.invalid/v2/a/b/");
    assert_eq!(asked.len(), 3);
    assert!(
        asked.iter().all(|one| one.header("proxy-authorization") == Some("Basic bWU6cGFzcw=="))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_tls_behind_a_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = Server::start(|_, _| Answer::status(407)).await;
    let proxies = Proxies { https: format!("http://me:pass@{}", proxy.address), ..<_>::default() };
    let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
    let config =
        ImagesConfig { proxies, retry_pause: Duration::from_millis(1), ..ImagesConfig::default() };
    let images = Images::open(store, config).unwrap();
    let reference = "r.invalid/a/b:v1".parse().unwrap();
    let error = images.pull(&namespace(), &reference, None, None).await.unwrap_err();
    let asked = proxy.asked("r.invalid:443");
    assert_eq!(asked[0].header("proxy-authorization"), Some("Basic bWU6cGFzcw=="));
    assert!(error.message.contains(&format!("through the proxy {}", proxy.address)), "{error}");
    assert!(!error.message.contains("pass@"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_callers_fetch_once_and_the_last_to_leave_stops_it() {
    let (dir, made) = (tempfile::tempdir().unwrap(), made());
    let layer = made.layer_digest().to_string();
    let (sender, seen) = tokio::sync::watch::channel(0);
    let server = Server::start(move |asked, _| {
        let mut answer = made.answer(asked);
        if made.is_layer(asked) {
            (answer.cut, answer.hang) = (Some(300_000), true);
            sender.send_modify(|count| *count += 1);
        }
        answer
    })
    .await;
    let images = images(dir.path());
    let (name, reference) = (namespace(), reference(&server));
    let mut came = seen.clone();
    tokio::select! {
        _ = images.pull(&name, &reference, None, None) => panic!("it cannot end"),
        _ = images.pull(&name, &reference, None, None) => panic!("it cannot end"),
        _ = came.wait_for(|count| *count > 0) => {}
    }
    // Both have left.
    nothing_left(dir.path(), &images).await;
    assert_eq!(server.asked(&layer).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_layer_that_promises_content_is_refused() {
    let (dir, mut made) = (tempfile::tempdir().unwrap(), made());
    made.manifest = made.manifest.replace(&format!("\"size\":{}", made.layer.len()), "\"size\":0");
    let server = Server::start(move |asked, _| made.answer(asked)).await;
    let images = images(dir.path());
    let error = pull(&images, &server, None).await.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::Invalid, "{error}");
    nothing_left(dir.path(), &images).await;
}
