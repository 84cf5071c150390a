//! Tests with real registries.

mod archive;
mod damage;
mod faults;
mod hosts;
mod made;
mod packing;
mod server;
mod tls;

use std::sync::Arc;

use corten_base::Namespace;
use corten_store::Store;

use crate::testing::{ImageBuilder, Registry};
use crate::{Images, ImagesConfig, PullErrorKind};

fn images(dir: &std::path::Path) -> Images {
    let store = Arc::new(Store::open(&dir.join("store")).unwrap());
    Images::open(
        store,
        ImagesConfig { hosts_dirs: vec![dir.join("hosts")], ..ImagesConfig::default() },
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_a_real_registry_and_goes_again() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let reference = ImageBuilder::new()
        .layer(&[("bin/tool", 0o755, b"one".as_slice())])
        .layer(&[("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\n".as_slice())])
        .cmd(&["/bin/tool"])
        .push(&registry, "team/app", "v1");
    let namespace = Namespace::kubernetes();
    let id = {
        let images = images(dir.path());
        let (one, two) = tokio::join!(
            images.pull(&namespace, &reference, None, None),
            images.pull(&namespace, &reference, None, None)
        );
        let image = one.unwrap();
        assert_eq!(image.id, two.unwrap().id);
        assert_eq!(image.config.cmd, ["/bin/tool"]);
        assert_eq!(image.tags, std::slice::from_ref(&reference));
        assert_eq!(image.layers.len(), 2);
        let other: Namespace = "default".parse().unwrap();
        assert!(images.find(&other, &reference.to_string()).is_none());
        image.id
    };
    // A new daemon knows it.
    let images = images(dir.path());
    for text in [id.to_string(), id.hex()[..12].to_owned(), reference.to_string()] {
        assert_eq!(images.find(&namespace, &text).unwrap().id, id, "{text}");
    }
    assert!(images.usage() > 0);
    assert!(images.remove(&namespace, &reference.to_string()).await.unwrap().unwrap().deleted);
    assert!(images.list(&namespace).is_empty());
    assert_eq!(images.usage(), 0);
    let missing = format!("{}/team/none:v1", registry.address()).parse().unwrap();
    let error = images.pull(&namespace, &missing, None, None).await.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::NotFound, "{error}");
}
