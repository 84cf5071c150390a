//! Devices that vendors describe in files on the node.

use corten_api::cri;
use corten_tests::client::Container;
use corten_tests::{Machine, Scene};

/// A device under its own and another name, a variable, a file, a hook.
fn vendor(machine: &Machine) -> String {
    let host = machine.path("library");
    std::fs::write(&host, "of the vendor\n").unwrap();
    let told = machine.path("told");
    let hook = machine.path("hook");
    std::fs::write(&hook, format!("#!/bin/sh\ncat > {}\n", told.display())).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    format!(
        r#"
cdiVersion: 0.6.0
kind: vendor.com/thing
devices:
- name: one
  containerEdits:
    deviceNodes:
    - path: /dev/thing
      hostPath: /dev/zero
- name: two
  containerEdits:
    env: [TWO=yes]
containerEdits:
  env: [THING=there]
  mounts:
  - {{hostPath: {host}, containerPath: /lib/thing, options: [ro, rbind]}}
  hooks:
  - {{hookName: createRuntime, path: {hook}, timeout: 10}}
"#,
        host = host.display(),
        hook = hook.display()
    )
}

fn with(names: &[&str]) -> impl Fn(&mut Container) {
    let devices: Vec<_> =
        names.iter().map(|name| cri::CdiDevice { name: (*name).to_owned() }).collect();
    move |container| container.config.cdi_devices = devices.clone()
}

const LOOK: &str = "echo $THING $TWO; cat /lib/thing; head -c 3 /dev/thing | od -An -tx1; true";

#[test]
fn a_vendors_device_with_all_that_belongs_to_it() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let error = scene.refused(with(&["vendor.com/thing=one"])).await;
        assert!(error.contains("vendor.com/thing=one"), "{error}");
        // What is written later is found without a restart.
        std::fs::create_dir(machine.path("cdi")).unwrap();
        std::fs::write(machine.path("cdi/vendor.yaml"), vendor(machine)).unwrap();
        let said = scene.says(LOOK, with(&["vendor.com/thing=one"])).await;
        assert_eq!(said, "there\nof the vendor\n 00 00 00\n");
        let state = std::fs::read(machine.path("told")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        assert!(state["pid"].as_i64().unwrap() > 0, "{state}");
        // As device plugins ask: by an annotation, several at once.
        let said = scene
            .says(LOOK, |container| {
                let names = "vendor.com/thing=one,vendor.com/thing=two".to_owned();
                container.config.annotations.insert("cdi.k8s.io/plugin".into(), names);
            })
            .await;
        assert!(said.starts_with("there yes\n"), "{said}");
        for (name, why) in [("vendor.com/thing=three", "no CDI file"), ("thing", "full name")] {
            let error = scene.refused(with(&[name])).await;
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
        std::fs::write(machine.path("cdi/double.yaml"), vendor(machine)).unwrap();
        let error = scene.refused(with(&["vendor.com/thing=one"])).await;
        assert!(error.contains("double.yaml") && error.contains("vendor.yaml"), "{error}");
    });
}

#[test]
fn in_a_user_namespace_too() {
    Machine::run(async |machine, daemon| {
        let mapping = vec![cri::IdMapping { host_id: 800_000, container_id: 0, length: 65_536 }];
        let user = cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: mapping.clone(),
            gids: mapping,
        };
        let mut scene =
            Scene::new(machine, daemon, |pod| pod.namespaces().userns_options = Some(user.clone()))
                .await;
        std::fs::create_dir(machine.path("cdi")).unwrap();
        std::fs::write(machine.path("cdi/vendor.yaml"), vendor(machine)).unwrap();
        let said = scene
            .says(LOOK, |container| {
                with(&["vendor.com/thing=one"])(container);
                let namespaces = container.security().namespace_options.get_or_insert_default();
                namespaces.userns_options = Some(user.clone());
            })
            .await;
        assert_eq!(said, "there\nof the vendor\n 00 00 00\n");
        // A device that is asked for plainly, under another name.
        let said = scene
            .says("head -c 3 /dev/other | od -An -tx1", |container| {
                container.config.devices = vec![cri::Device {
                    container_path: "/dev/other".into(),
                    host_path: "/dev/zero".into(),
                    permissions: "rw".into(),
                }];
                let namespaces = container.security().namespace_options.get_or_insert_default();
                namespaces.userns_options = Some(user.clone());
            })
            .await;
        assert_eq!(said, " 00 00 00\n");
    });
}
