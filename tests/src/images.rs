//! Images made of Debian's packages: a shell (busybox-static) and a web server
//! (nginx-light).

use std::path::Path;
use std::sync::OnceLock;

use corten_image::testing::ImageBuilder;

use crate::tree::{self, copy, libraries, tree, write};

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
    tree::busybox(root, Path::new("/bin/busybox"));
    write(root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n");
    write(root, "etc/group", "root:x:0:\nweb:x:1000:\nextra:x:2000:web\n");
}
