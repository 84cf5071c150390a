//! Images made of Debian's packages: a shell (busybox-static) and a web server
//! (nginx-light).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use corten_image::testing::ImageBuilder;

/// What nginx is told; one process, logs to its own streams.
const NGINX_CONF: &str = "daemon off;\nmaster_process off;\nuser root;\nerror_log stderr;\n\
    pid /tmp/nginx.pid;\nevents {}\nhttp {\n  access_log /dev/stdout;\n\
    client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;\n\
    uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;\n\
    server { listen 80; listen [::]:80; root /www; }\n}\n";

/// The page that nginx serves.
pub const PAGE: &str = "Weathering steel guards itself with its own rust.\n";

/// The shell image: Debian's static busybox with all its applets.
pub fn busybox() -> ImageBuilder {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    ImageBuilder::new().tar(TAR.get_or_init(|| tree(base)).clone()).cmd(&["/bin/sh"])
}

/// The web server: Debian's nginx and the libraries that it needs.
pub fn nginx() -> ImageBuilder {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    let layer = TAR.get_or_init(|| {
        tree(|root| {
            let program = Path::new("/usr/sbin/nginx");
            copy(root, program);
            for library in libraries(program) {
                copy(root, Path::new(&library));
            }
            write(root, "etc/nginx/nginx.conf", NGINX_CONF);
            write(root, "www/index.html", PAGE);
        })
    });
    busybox()
        .tar(layer.clone())
        .cmd(&["/usr/sbin/nginx", "-c", "/etc/nginx/nginx.conf"])
        .setting("ExposedPorts", serde_json::json!({ "80/tcp": {} }))
        .setting("StopSignal", "SIGQUIT".into())
}

/// An image of the tests by its name.
///
/// # Panics
/// If there is none of that name.
pub fn named(name: &str) -> ImageBuilder {
    match name {
        "busybox" => busybox(),
        "nginx" => nginx(),
        other => panic!("there is no image {other:?}"),
    }
}

fn base(root: &Path) {
    copy_as(root, Path::new("/bin/busybox"), "bin/busybox");
    let applets =
        Command::new("/bin/busybox").arg("--list").output().expect("busybox is installed");
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).expect("a link is made");
    }
    write(root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n");
    write(root, "etc/group", "root:x:0:\nweb:x:1000:\nextra:x:2000:web\n");
    for (name, mode) in [("tmp", 0o1777), ("root", 0o700), ("proc", 0o755), ("dev", 0o755)] {
        let path = root.join(name);
        fs::create_dir_all(&path).expect("a directory is made");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode is set");
    }
}

/// A tar of what `fill` puts into a directory.
fn tree(fill: impl FnOnce(&Path)) -> Vec<u8> {
    let root = tempfile::tempdir().expect("a directory");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("a mode is set");
    fill(root.path());
    let tar = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "--sort=name", "-C"])
        .arg(root.path())
        .args(["-c", "."])
        .output()
        .expect("tar is installed");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

/// The paths of the shared libraries of a program, its loader included.
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().expect("ldd is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(str::to_owned).collect()
}

fn copy(root: &Path, file: &Path) {
    let inside = file.strip_prefix("/").expect("an absolute path");
    copy_as(root, file, &inside.display().to_string());
}

fn copy_as(root: &Path, file: &Path, inside: &str) {
    let target = root.join(inside);
    fs::create_dir_all(target.parent().expect("a parent")).expect("a directory is made");
    fs::copy(file, &target).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn write(root: &Path, inside: &str, text: &str) {
    let target = root.join(inside);
    fs::create_dir_all(target.parent().expect("a parent")).expect("a directory is made");
    fs::write(target, text).expect("a file is written");
}
