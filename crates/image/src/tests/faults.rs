//! Registries that break off, refuse, lie, or send us elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use corten_base::{Digest, Namespace, Reference};
use corten_store::Store;
use serde_json::json;

use super::server::{Answer, Asked, Server};
use crate::testing::{digest_of, tar_of};
use crate::{Auth, Images, ImagesConfig, PullError, PullErrorKind, Secret};

fn images(dir: &Path) -> Images {
    let store = Arc::new(Store::open(&dir.join("store")).unwrap());
    let config = ImagesConfig {
        hosts_dirs: vec![dir.join("hosts")],
        stall_timeout: Duration::from_millis(500),
        retry_pause: Duration::from_millis(1),
        ..ImagesConfig::default()
    };
    Images::open(store, config).unwrap()
}

fn namespace() -> Namespace {
    Namespace::kubernetes()
}

/// An image of one plain layer.
#[derive(Clone)]
struct Made {
    layer: Vec<u8>,
    config: String,
    manifest: String,
}

fn made() -> Made {
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    of_layer(tar_of(&[("data", 0o644, content.as_slice())]))
}

fn of_layer(layer: Vec<u8>) -> Made {
    let config = json!({ "os": "linux", "architecture": "amd64",
        "rootfs": { "type": "layers", "diff_ids": [digest_of(&layer)] } })
    .to_string();
    let manifest = json!({ "schemaVersion": 2,
        "config": { "digest": digest_of(config.as_bytes()), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest_of(&layer), "size": layer.len() }] })
    .to_string();
    Made { layer, config, manifest }
}

impl Made {
    fn layer_digest(&self) -> Digest {
        digest_of(&self.layer)
    }

    /// What a good registry answers.
    fn answer(&self, asked: &Asked) -> Answer {
        let path = asked.path.split('?').next().unwrap();
        if path.contains("/manifests/") {
            return Answer::ok(self.manifest.clone())
                .with("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        }
        if path.ends_with(&self.layer_digest().to_string()) {
            return self.piece(asked);
        }
        if path.ends_with(&digest_of(self.config.as_bytes()).to_string()) {
            return Answer::ok(self.config.clone());
        }
        Answer::status(404)
    }

    fn is_layer(&self, asked: &Asked) -> bool {
        asked.path.contains(&self.layer_digest().to_string())
    }

    fn piece(&self, asked: &Asked) -> Answer {
        let range = asked.header("range").and_then(|range| range.strip_prefix("bytes="));
        let Some(range) = range else {
            return Answer::ok(self.layer.clone()).with("ETag", "\"1\"");
        };
        let from: usize = range.trim_end_matches('-').parse().unwrap();
        let answer = Answer::ok(&self.layer[from..]);
        let length = self.layer.len();
        Answer { status: 206, ..answer }
            .with("Content-Range", format!("bytes {from}-{}/{length}", length - 1))
    }
}

fn reference(server: &Server) -> Reference {
    format!("{}/a/b:v1", server.address).parse().unwrap()
}

async fn pull(images: &Images, server: &Server, auth: Option<Auth>) -> Result<(), PullError> {
    images.pull(&namespace(), &reference(server), auth, None).await.map(drop)
}

/// Waits until nothing is left of pulls in the store.
async fn nothing_left(dir: &Path, images: &Images) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        images.collect().unwrap();
        let list = |place: &str| std::fs::read_dir(dir.join("store").join(place)).unwrap().count();
        // Two empty layers are always there.
        if list("ingest") == 0 && list("layers") == 2 && images.list(&namespace()).is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "something is left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Pulls from a server that answers with `change` of the right answer.
async fn against(
    change: impl Fn(&Made, &Asked, usize, Answer) -> Answer + Send + Sync + 'static,
) -> (Result<(), PullError>, Server) {
    let (dir, made) = (tempfile::tempdir().unwrap(), made());
    let server =
        Server::start(move |asked, before| change(&made, asked, before, made.answer(asked))).await;
    let images = images(dir.path());
    let result = pull(&images, &server, None).await;
    if result.is_err() {
        nothing_left(dir.path(), &images).await;
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
    let (result, _server) = against(|made, asked, _, mut answer| {
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
    for identity in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let images = images(dir.path());
        let auth = if identity {
            Auth { identity_token: Secret::new("identity"), ..Auth::default() }
        } else {
            Auth { username: "me".into(), password: Secret::new("pass"), ..Auth::default() }
        };
        if !identity {
            pull(&images, &server, Some(auth)).await.unwrap();
            assert_eq!(server.asked("/token").len(), 3);
            assert_eq!(server.asked(&layer).len(), 2);
        }
    }
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
