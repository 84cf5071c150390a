//! A container that is asked for.

use corten_api::cri;
use corten_base::limits;
use corten_pods::Result;
use corten_spec::request::{ContainerConfig, DeviceRequest};

use super::{mount, resources, security, signal};
use crate::validate::{at_most, no_nul, present, refuse, required};

/// The container that CreateContainer asks for.
pub fn from_cri(config: Option<cri::ContainerConfig>) -> Result<ContainerConfig> {
    let config = present("config", config)?;
    let metadata = present("config.metadata", config.metadata)?;
    required("config.metadata.name", &metadata.name)?;
    let image = present("config.image", config.image)?;
    required("config.image.image", &image.image)?;
    at_most("config.mounts", config.mounts.len(), limits::CONTAINER_MOUNTS_MAX)?;
    let devices = config.devices.len() + config.cdi_devices.len();
    at_most("config.devices", devices, limits::CONTAINER_DEVICES_MAX)?;
    for argument in config.command.iter().chain(&config.args) {
        no_nul("config.command", argument)?;
    }
    let linux = config.linux.unwrap_or_default();
    Ok(ContainerConfig {
        restore_from: None,
        name: metadata.name,
        attempt: metadata.attempt,
        image: image.image,
        user_specified_image: image.user_specified_image,
        command: config.command,
        args: config.args,
        working_dir: no_nul("config.working_dir", &config.working_dir)?.to_owned(),
        envs: environment("config.envs", config.envs)?,
        mounts: mounts(config.mounts)?,
        devices: config.devices.into_iter().map(device).collect::<Result<_>>()?,
        cdi_devices: config.cdi_devices.into_iter().map(|device| device.name).collect(),
        labels: config.labels,
        annotations: config.annotations,
        log_path: log_path(config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal: signal::from_cri("config.stop_signal", config.stop_signal)?,
        resources: resources::from_cri("config.linux.resources", linux.resources)?,
        security: security::container("config.linux.security_context", linux.security_context)?,
    })
}

/// Environment variables of a container or exec.
fn environment(field: &str, envs: Vec<cri::KeyValue>) -> Result<Vec<(String, Vec<u8>)>> {
    envs.into_iter()
        .map(|env| {
            check_variable(field, &env.key, &env.value)?;
            Ok((env.key, env.value.into()))
        })
        .collect()
}

/// A variable that execve can hand over: a name without `=`, no NUL.
pub fn check_variable(field: &str, key: &str, value: &[u8]) -> Result<()> {
    required(field, no_nul(field, key)?)?;
    if key.contains('=') || value.contains(&0) {
        return Err(refuse(field, format!("{key:?} is no name, or its value holds a NUL byte")));
    }
    Ok(())
}

fn mounts(mounts: Vec<cri::Mount>) -> Result<Vec<corten_spec::request::MountRequest>> {
    mounts
        .into_iter()
        .enumerate()
        .map(|(index, mount)| mount::from_cri(&format!("config.mounts[{index}]"), mount))
        .collect()
}

fn device(device: cri::Device) -> Result<DeviceRequest> {
    let field = "config.devices";
    let host_path = required(field, &device.host_path)?.to_owned();
    if !device.permissions.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')) {
        return Err(refuse(
            field,
            format!("permissions {:?} are not made of r, w and m", device.permissions),
        ));
    }
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    Ok(DeviceRequest {
        container_path: or(device.container_path, &host_path),
        host_path,
        permissions: or(device.permissions, "rwm"),
    })
}

/// The log is a file below the sandbox's log directory.
fn log_path(path: String) -> Result<String> {
    let field = "config.log_path";
    no_nul(field, &path)?;
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(refuse(field, "it leads out of the sandbox's log_directory"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> cri::ContainerConfig {
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "app".into(), attempt: 1 }),
            image: Some(cri::ImageSpec {
                image: "sha256:1".into(),
                user_specified_image: "nginx".into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn refused(change: impl FnOnce(&mut cri::ContainerConfig)) -> String {
        let mut config = config();
        change(&mut config);
        from_cri(Some(config)).unwrap_err().to_string()
    }

    #[test]
    fn all_of_a_container_arrives() {
        let config = cri::ContainerConfig {
            command: vec!["sh".into()],
            args: vec!["-c".into()],
            working_dir: "/w".into(),
            envs: vec![cri::KeyValue { key: "K".into(), value: vec![0xff].into() }],
            mounts: vec![cri::Mount {
                container_path: "/c".into(),
                host_path: "/h".into(),
                ..Default::default()
            }],
            devices: vec![cri::Device { host_path: "/dev/fuse".into(), ..Default::default() }],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            annotations: [("c".to_owned(), "d".to_owned())].into(),
            log_path: "app/0.log".into(),
            stdin: true,
            stdin_once: true,
            tty: true,
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources {
                    memory_limit_in_bytes: 5,
                    ..Default::default()
                }),
                security_context: Some(cri::LinuxContainerSecurityContext {
                    readonly_rootfs: true,
                    ..Default::default()
                }),
            }),
            cdi_devices: vec![cri::CdiDevice { name: "v.com/c=d".into() }],
            stop_signal: cri::Signal::Sigusr1.into(),
            ..config()
        };
        let ours = from_cri(Some(config)).unwrap();
        assert_eq!((ours.name.as_str(), ours.attempt), ("app", 1));
        assert_eq!(
            (ours.image.as_str(), ours.user_specified_image.as_str()),
            ("sha256:1", "nginx")
        );
        assert_eq!((ours.command[0].as_str(), ours.args[0].as_str()), ("sh", "-c"));
        assert_eq!(ours.working_dir, "/w");
        assert_eq!(ours.envs, [("K".to_owned(), vec![0xff])]);
        assert_eq!(ours.mounts[0].host_path, "/h");
        assert_eq!(ours.devices[0].container_path, "/dev/fuse");
        assert_eq!(ours.devices[0].permissions, "rwm");
        assert_eq!(ours.cdi_devices, ["v.com/c=d"]);
        assert_eq!((ours.labels["a"].as_str(), ours.annotations["c"].as_str()), ("b", "d"));
        assert_eq!(ours.log_path, "app/0.log");
        assert!(ours.stdin && ours.stdin_once && ours.tty);
        assert_eq!(ours.stop_signal, 10);
        assert_eq!(ours.resources.memory_limit_bytes, Some(5));
        assert!(ours.security.readonly_rootfs);
    }

    #[test]
    fn what_no_container_can_have_is_refused() {
        assert!(refused(|c| c.metadata = None).contains("config.metadata"));
        assert!(refused(|c| c.image = None).contains("config.image"));
        assert!(refused(|c| c.log_path = "../x".into()).contains("log_path"));
        assert!(refused(|c| c.log_path = "/x".into()).contains("log_path"));
        assert!(refused(|c| c.args = vec!["a\0b".into()]).contains("NUL"));
        assert!(refused(|c| c.stop_signal = 99).contains("stop_signal"));
        for key in ["", "A=B", "A\0"] {
            let env = cri::KeyValue { key: key.into(), value: Default::default() };
            assert!(refused(|c| c.envs = vec![env]).contains("envs"), "{key:?}");
        }
        let device =
            cri::Device { host_path: "/d".into(), permissions: "x".into(), ..Default::default() };
        assert!(refused(|c| c.devices = vec![device]).contains("permissions"));
        let mount = cri::Mount { container_path: "/c".into(), ..Default::default() };
        assert!(refused(|c| c.mounts = vec![mount]).contains("config.mounts[0].host_path"));
    }
}
