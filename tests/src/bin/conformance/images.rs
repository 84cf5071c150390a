//! The images of critest, by the names under which it asks for them: what its
//! specs need of them, made of a busybox and of Debian's nginx.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use corten_image::Platform;
use corten_image::testing::ImageBuilder;
use corten_tests::Machine;
use corten_tests::tree::{busybox, copy, copy_as, libraries, tree, write};
use serde_json::json;

/// The registries that critest names. All of them are ours.
const REGISTRIES: &[&str] = &["registry.k8s.io", "gcr.io", "k8s.gcr.io"];
/// Where most of its images are, of registry.k8s.io and of gcr.io.
const E2E: &str = "e2e-test-images";
const STAGING: &str = "k8s-staging-cri-tools";
/// Where the web server of the host's network listens.
const HOST_NETWORK_PORT: u16 = 12003;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\n\
    default-user:x:1000:1000::/home/default-user:/bin/sh\n\
    nobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\n\
    group-defined-in-image:x:50000:default-user\nnogroup:x:65534:\n";

/// Puts all images into the machine's registry, and sends everybody there who
/// asks for critest's registries. Returns the reference of the image that is
/// pulled by its digest.
pub fn push(machine: &Machine) -> Result<String> {
    let registry = machine.registry_server();
    let base = shell()?;
    // Names of a platform's images, in the two ways that registries have; the
    // other platform must never be chosen.
    let foreign = Platform { architecture: "s390x".into(), ..Platform::host() };
    let other = ImageBuilder::new().layer(&[("other", 0o644, b"")]).platform(foreign);
    let index = [other.clone(), base.clone()];
    ImageBuilder::index(&index, registry, &format!("{E2E}/busybox"), "1.29-2");
    let list = [web(&base, 80).docker(), other.docker()];
    ImageBuilder::index(&list, registry, &format!("{E2E}/nginx"), "1.14-2");
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let name = format!("{STAGING}/hostnet-nginx-{architecture}");
    web(&base, HOST_NETWORK_PORT).push(registry, &name, "latest");
    httpd(&base).docker().push(registry, &format!("{E2E}/httpd"), "2.4.39-4");
    nonewprivs()?.push(registry, &format!("{E2E}/nonewprivs"), "1.3");
    let different = |name| different(&base, name);
    different("pause").push(registry, "pause", "3.9");

    for (name, user) in [
        ("user-uid", "1002"),
        ("user-username", "www-data"),
        ("user-uid-group", "1003:users"),
        ("user-username-group", "www-data:100"),
        ("predefined-group", "1000"),
    ] {
        let image = base.clone().setting("User", json!(user));
        image.push(registry, &format!("{STAGING}/test-image-{name}"), "latest");
    }
    for name in ["latest", "1", "2", "3"] {
        different(name).push(registry, &format!("{STAGING}/test-image-{name}"), "latest");
    }
    different("test").push(registry, &format!("{STAGING}/test-image-tag"), "test");
    different("all").docker().push(registry, &format!("{STAGING}/test-image-tag"), "all");
    for tag in ["1", "2", "3"] {
        different("tags").push(registry, &format!("{STAGING}/test-image-tags"), tag);
    }
    send_to(machine, &machine.registry())?;
    let repository = format!("{STAGING}/test-image-digest");
    let digest = different("digest").push_by_digest(registry, &repository);
    Ok(format!("gcr.io/{repository}@{digest}"))
}

/// A shell with an id that no other image has.
fn different(base: &ImageBuilder, name: &str) -> ImageBuilder {
    base.clone().layer(&[("name", 0o644, name.as_bytes())])
}

/// A shell that runs the files of its container.
fn shell() -> Result<ImageBuilder> {
    let program = xtask::images::busybox()?;
    let layer = tree(|root| {
        busybox(root, &program);
        write(root, "etc/passwd", PASSWD);
        write(root, "etc/group", GROUP);
    });
    Ok(ImageBuilder::new().tar(layer).cmd(&["sh"]))
}

/// Debian's nginx: a master process that leaves its pid, and workers.
fn web(base: &ImageBuilder, port: u16) -> ImageBuilder {
    let configuration = format!(
        "user root;\nworker_processes 1;\nerror_log stderr;\npid /var/run/nginx.pid;\n\
         events {{}}\nhttp {{\n  access_log /dev/stdout;\n\
         client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;\n\
         uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;\n\
         server {{ listen {port}; root /www; }}\n}}\n"
    );
    let layer = tree(|root| {
        let program = Path::new("/usr/sbin/nginx");
        copy(root, program);
        for library in libraries(program) {
            copy(root, Path::new(&library));
        }
        write(root, "etc/nginx/nginx.conf", &configuration);
        write(root, "www/index.html", "It works.\n");
        fs::create_dir_all(root.join("var/run")).expect("a directory is made");
    });
    base.clone().tar(layer).cmd(&[
        "/usr/sbin/nginx",
        "-c",
        "/etc/nginx/nginx.conf",
        "-g",
        "daemon off;",
    ])
}

/// A web server that says its name in its log.
fn httpd(base: &ImageBuilder) -> ImageBuilder {
    let layer = tree(|root| write(root, "www/index.html", "It works!\n"));
    let script = "echo httpd begins; exec httpd -f -p 80 -h /www";
    base.clone().tar(layer).cmd(&["sh", "-c", script])
}

/// A program that says who it is, which belongs to root and is setuid.
fn nonewprivs() -> Result<ImageBuilder> {
    let program = xtask::images::nonewprivs()?;
    let layer = tree(|root| {
        copy_as(root, &program, "nonewprivs");
        let setuid = fs::Permissions::from_mode(0o4755);
        fs::set_permissions(root.join("nonewprivs"), setuid).expect("a mode is set");
    });
    Ok(ImageBuilder::new().tar(layer).setting("Entrypoint", json!(["/nonewprivs"])))
}

/// Mirrors, as an administrator would name them.
fn send_to(machine: &Machine, registry: &str) -> Result<()> {
    for name in REGISTRIES {
        let directory = machine.path("hosts").join(name);
        fs::create_dir_all(&directory)?;
        let text =
            format!("[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        fs::write(directory.join("hosts.toml"), text)?;
    }
    Ok(())
}
