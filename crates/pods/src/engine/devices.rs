//! Devices of the host, as containers ask for them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use corten_spec::container::HostDevice;
use corten_spec::request::DeviceRequest;

use crate::error::{Error, Result};

/// Directories of /dev that a privileged container has its own of.
const OWN: [&str; 4] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/.udev"];
/// How deep directories of devices are looked through.
const DEPTH_MAX: u32 = 8;
/// How many devices one directory may come to.
const DEVICES_MAX: usize = 4096;

/// What the device requests of a container come to: a directory stands for
/// all the devices in it.
pub fn requested(requests: &[DeviceRequest]) -> Result<Vec<HostDevice>> {
    let mut devices = Vec::new();
    for request in requests {
        let host = Path::new(&request.host_path);
        let meta = std::fs::metadata(host).map_err(|error| {
            Error::invalid(format!("unable to give the device {:?}: {error}", request.host_path))
        })?;
        let inside = if request.container_path.is_empty() {
            &request.host_path
        } else {
            &request.container_path
        };
        if meta.is_dir() {
            walk(host, Path::new(inside), &request.permissions, 0, &mut devices);
        } else if let Some(device) = device(host, Path::new(inside), &request.permissions) {
            devices.push(device);
        } else {
            return Err(Error::invalid(format!("{:?} is not a device", request.host_path)));
        }
    }
    Ok(devices)
}

/// All devices of the host: what a privileged container sees.
pub fn all() -> Vec<HostDevice> {
    let mut devices = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), "rwm", 0, &mut devices);
    devices
}

/// What cannot be read is passed over: devices come and go while we look.
fn walk(host: &Path, inside: &Path, access: &str, depth: u32, devices: &mut Vec<HostDevice>) {
    let Ok(entries) = std::fs::read_dir(host) else { return };
    for entry in entries.flatten() {
        let (path, inside) = (entry.path(), inside.join(entry.file_name()));
        let Ok(kind) = entry.file_type() else { continue };
        if OWN.iter().any(|own| Path::new(own) == path) || path == Path::new("/dev/console") {
            continue;
        }
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(&path, &inside, access, depth + 1, devices);
        } else if (kind.is_block_device() || kind.is_char_device())
            && devices.len() < DEVICES_MAX
            && let Some(found) = device(&path, &inside, access)
        {
            devices.push(found);
        }
    }
}

fn device(host: &Path, inside: &Path, access: &str) -> Option<HostDevice> {
    let meta = std::fs::metadata(host).ok()?;
    let kind = meta.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    Some(HostDevice {
        host_path: host.display().to_string(),
        path: inside.display().to_string(),
        block: kind.is_block_device(),
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: if access.is_empty() { "rwm".to_owned() } else { access.to_owned() },
    })
}
