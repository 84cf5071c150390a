//! AppArmor and SELinux: on a machine that has them the container is seen
//! confined, on one that has not the demand is seen refused.

use std::fs;
use std::path::{Path, PathBuf};

use corten_api::cri;
use corten_api::cri::security_profile::ProfileType;
use corten_tests::client::Container;
use corten_tests::{Machine, Scene, group, until};

fn apparmor(kind: ProfileType, name: &str) -> impl Fn(&mut Container) {
    let profile = cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() };
    move |container| container.security().apparmor = Some(profile.clone())
}

#[allow(deprecated)]
fn old_apparmor(name: &str) -> impl Fn(&mut Container) {
    let name = name.to_owned();
    move |container| container.security().apparmor_profile.clone_from(&name)
}

#[test]
fn apparmor_confines_or_says_that_it_cannot() {
    Machine::run(async |machine, daemon| {
        let on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y'));
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        for ask in ["no-such-profile", "localhost/no-such-profile"] {
            let error = scene.refused(apparmor(ProfileType::Localhost, ask)).await;
            assert!(error.contains("no-such-profile"), "{error}");
            assert!(error.contains(if on { "not loaded" } else { "not enabled" }), "{error}");
        }
        let error = scene.refused(old_apparmor("localhost/no-such-profile")).await;
        assert!(error.contains("no-such-profile"), "{error}");
        let error = scene.refused(old_apparmor("nonsense")).await;
        assert!(error.contains("nonsense"), "{error}");
        if !on {
            // There is nothing that could confine: like on other nodes of its kind.
            scene.says("true", apparmor(ProfileType::RuntimeDefault, "")).await;
            scene.says("true", old_apparmor("runtime/default")).await;
            scene.says("true", apparmor(ProfileType::Unconfined, "")).await;
            return;
        }
        let look = "cat /proc/self/attr/apparmor/current";
        assert_eq!(scene.says(look, |_| {}).await, "corten-default (enforce)\n");
        for ask in ["runtime/default", "localhost/corten-default"] {
            assert_eq!(scene.says(look, old_apparmor(ask)).await, "corten-default (enforce)\n");
        }
        let unconfined = apparmor(ProfileType::Unconfined, "");
        assert_eq!(scene.says(look, &unconfined).await, "unconfined\n");
        // The new field counts where both are there.
        let said = scene
            .says(look, |container| {
                old_apparmor("localhost/no-such-profile")(container);
                unconfined(container);
            })
            .await;
        assert_eq!(said, "unconfined\n");
        let id = scene.idle(apparmor(ProfileType::RuntimeDefault, "")).await;
        assert_eq!(scene.client.shell(&id, look).await, "corten-default (enforce)\n");
        let mount = "mount -t tmpfs x /tmp 2>&1 || true; kill -0 1 && echo signalled";
        let said = scene.client.shell(&id, mount).await;
        assert!(said.contains("ermission denied") && said.contains("signalled"), "{said}");
        scene.client.stop(&id, 0).await.expect("it can be killed");
    });
}

fn selinux(kind: &str, level: &str) -> impl Fn(&mut Container) {
    let options = cri::SeLinuxOption {
        r#type: kind.into(),
        level: level.into(),
        ..cri::SeLinuxOption::default()
    };
    move |container| container.security().selinux_options = Some(options.clone())
}

/// The label of a file, which on a machine without SELinux has none.
fn label(path: &Path) -> String {
    let mut bytes = [0; 4096];
    let length = rustix::fs::getxattr(path, "security.selinux", &mut bytes[..])
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes[..length]).trim_end_matches('\0').to_owned()
}

/// Where the host sees the files of a container that idles.
async fn root_of(id: &str) -> PathBuf {
    let found = async || group::pids(id, &["sleep", "1000"]).first().copied();
    let pid = until("the container idles", found).await;
    format!("/proc/{pid}/root").into()
}

const LABEL: &str = "tr -d '\\0' < /proc/self/attr/current";

#[test]
fn selinux_labels_or_is_passed_over() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            // There is nothing that could label: like on other nodes of its kind.
            scene.says("true", selinux("no_such_t", "s0:c1,c2")).await;
            return;
        }
        let id = scene.idle(|_| {}).await;
        let process = scene.client.shell(&id, LABEL).await;
        let level = process.strip_prefix("system_u:system_r:container_t:");
        let level = level.unwrap_or_else(|| panic!("{process}")).to_owned();
        assert!(level.starts_with("s0:c") && level.contains(','), "{level}");
        assert_eq!(scene.says(LABEL, |_| {}).await, process, "an exec, and a command");
        let ours = format!("system_u:object_r:container_file_t:{level}");
        let root = root_of(&id).await;
        for name in ["etc/passwd", "dev/shm", "dev/null", "etc/hosts"] {
            assert_eq!(label(&root.join(name)), ours, "{name}");
        }
        scene.client.shell(&id, "echo x > /new; echo x > /dev/shm/new").await;
        assert_eq!([label(&root.join("new")), label(&root.join("dev/shm/new"))], [&*ours, &ours]);

        // What is asked for, and what no policy knows.
        let own = scene.says(LABEL, selinux("", "s0:c10,c20")).await;
        assert_eq!(own, "system_u:system_r:container_t:s0:c10,c20");
        let kind = scene.says(LABEL, selinux("spc_t", "")).await;
        assert_eq!(kind, format!("system_u:system_r:spc_t:{level}"));
        let free = scene.says(LABEL, |one| one.security().privileged = true).await;
        assert_eq!(free, "system_u:system_r:spc_t:s0");
        let error = scene.refused(selinux("no_such_t", "")).await;
        assert!(error.contains("no_such_t") && error.contains("policy"), "{error}");

        // Files of the host, whose labels are changed where that is asked for.
        let [asked, other] = ["asked", "other"].map(|name| machine.path(name));
        for directory in [&asked, &other] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "").unwrap();
        }
        let before = label(&other.join("file"));
        scene
            .says("true", |one| {
                let mount = |host: &Path, at: &str, selinux_relabel| cri::Mount {
                    container_path: at.into(),
                    host_path: host.display().to_string(),
                    selinux_relabel,
                    ..Default::default()
                };
                one.config.mounts = vec![mount(&asked, "/a", true), mount(&other, "/b", false)];
            })
            .await;
        for path in [asked.clone(), asked.join("file")] {
            assert_eq!(label(&path), ours);
        }
        assert_eq!(label(&other.join("file")), before);

        // Another pod is another one, unless it asks not to be.
        let mut second = Scene::named(machine, daemon, "second", |_| {}).await;
        assert_ne!(second.says(LABEL, |_| {}).await, process);
        let mut third = Scene::named(machine, daemon, "third", |pod| {
            let security = &mut pod.config.linux.get_or_insert_default().security_context;
            let options = cri::SeLinuxOption { level: "s0:c7,c8".into(), ..Default::default() };
            security.get_or_insert_default().selinux_options = Some(options);
            pod.namespaces().pid = cri::NamespaceMode::Pod.into();
        })
        .await;
        let id = third.idle(|_| {}).await;
        let said = third.client.shell(&id, LABEL).await;
        assert_eq!(said, "system_u:system_r:container_t:s0:c7,c8");
        let shared = label(&root_of(&id).await.join("dev/shm"));
        assert_eq!(shared, "system_u:object_r:container_file_t:s0:c7,c8");
        // The pod's own init belongs to it like any other process.
        let init = third.client.shell(&id, "tr -d '\\0' < /proc/1/attr/current").await;
        assert_eq!(init, "system_u:system_r:container_t:s0:c7,c8");
    });
}
