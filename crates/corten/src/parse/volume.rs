//! `-v`: `host-path:container-path[:ro]`.

use std::path::{Component, Path, PathBuf};

use corten_api::corten::Mount;

/// Takes `/srv/data:/data`, `./conf:/etc/app:ro` apart. A relative path of
/// the host is seen from `here`.
pub fn parse(text: &str, here: &Path) -> Result<Mount, String> {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let Some(target) = parts.next() else {
        return Err(format!(
            "{text:?} names one path: write which one of the host comes where, as in \
             /srv/data:/data"
        ));
    };
    let readonly = match (parts.next(), parts.next()) {
        (None, _) => false,
        (Some(options), None) => self::readonly(options)?,
        (Some(_), Some(_)) => return Err("paths cannot contain ':' here".to_owned()),
    };
    if !target.starts_with('/') {
        return Err(format!("the container's path {target:?} must begin with '/'"));
    }
    Ok(Mount { host_path: host_path(source, here)?, container_path: target.to_owned(), readonly })
}

fn host_path(source: &str, here: &Path) -> Result<String, String> {
    let is_path = source.starts_with('/') || source.starts_with("./") || source.starts_with("../");
    if !is_path && !matches!(source, "." | "..") {
        return Err(format!(
            "there are no named volumes: for a directory write a path, as in ./{source} or \
             /srv/{source}"
        ));
    }
    // Without `.` and `..` it reads well in `inspect`; a `..` behind a symbolic
    // link would lead elsewhere, so only those at the front are taken away.
    let mut path = PathBuf::from(if source.starts_with('/') { Path::new("/") } else { here });
    let mut at_front = true;
    for component in Path::new(source).components() {
        match component {
            Component::ParentDir if at_front => {
                path.pop();
            }
            Component::ParentDir => path.push(".."),
            Component::Normal(name) => {
                at_front = false;
                path.push(name);
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path.into_os_string().into_string().map_err(|_| "a path must be UTF-8 here".to_owned())
}

fn readonly(options: &str) -> Result<bool, String> {
    let mut readonly = false;
    for option in options.split(',') {
        match option {
            "ro" => readonly = true,
            "rw" => readonly = false,
            "z" | "Z" => {
                return Err(
                    "Corten relabels nothing: leave 'z' out, and label the directory with \
                            chcon where SELinux asks for it"
                        .to_owned(),
                );
            }
            _ => return Err(format!("{option:?} is no option of a volume: it is ro or rw")),
        }
    }
    Ok(readonly)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text, Path::new("/home/me")) {
            Ok(mount) => {
                format!("{} {} {}", mount.host_path, mount.container_path, mount.readonly)
            }
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn volumes_are_taken_apart() {
        for (text, expected) in [
            ("/srv/data:/data", "/srv/data /data false"),
            ("/srv/data:/data:ro", "/srv/data /data true"),
            ("/srv/data:/data:rw", "/srv/data /data false"),
            ("./conf:/etc/app:ro", "/home/me/conf /etc/app true"),
            (".:/src", "/home/me /src false"),
            ("../you/x:/x", "/home/you/x /x false"),
            ("/a/link/../x:/x", "/a/link/../x /x false"),
            ("/:/host:ro", "/ /host true"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_volume_is_refused() {
        for (text, part) in [
            ("/data", "one path"),
            ("data:/data", "named volumes"),
            (":/data", "named volumes"),
            ("/srv:data", "must begin"),
            ("/srv:/data:z", "SELinux"),
            ("/srv:/data:shared", "ro or rw"),
            ("/srv:/data:ro:x", "':'"),
        ] {
            let said = shown(text);
            assert!(said.starts_with("error: ") && said.contains(part), "{text}: {said}");
        }
    }
}
