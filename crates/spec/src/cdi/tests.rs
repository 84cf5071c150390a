//! Documents, conflicts and edits.

use super::*;
use crate::oci::{EnvText, LinuxNamespace, NamespaceType, Spec};

const VENDOR: &str = r#"
cdiVersion: "0.8.0"
kind: vendor.com/gpu
annotations: {made: by-hand}
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      permissions: rw
    - {path: /dev/renamed, hostPath: /dev/gpu0, fileMode: 0640, uid: 7}
- name: all
  containerEdits:
    env: [GPUS=all, PATH=/gpu]
    additionalGids: [44, 0]
containerEdits:
  env: [GPUS=none]
  mounts:
  - hostPath: /usr/lib/gpu.so
    containerPath: /usr/lib/gpu.so
    options: [ro, nosuid, bind]
  - {hostPath: tmpfs, containerPath: /gpu, type: tmpfs}
  hooks:
  - hookName: createRuntime
    path: /usr/bin/gpu-hook
    args: [gpu-hook, setup]
    timeout: 5
"#;

fn look(path: &str) -> Option<NodeFact> {
    (path == "/dev/gpu0").then_some(NodeFact { kind: 'c', major: 195, minor: 3, mode: 0o660 })
}

fn registry(files: &[(&str, usize, &str)]) -> Registry {
    let mut registry = Registry::default();
    for (path, priority, text) in files {
        registry.add(path, *priority, Ok(text.as_bytes()));
    }
    registry
}

fn edited(registry: &Registry, names: &[&str], spec: Spec) -> Result<Spec> {
    let mut spec = spec;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    apply(&mut spec, registry, &wanted(&names, &Map::new())?, &look)?;
    Ok(spec)
}

fn minimal(device: &str, env: &str) -> String {
    format!(
        r#"{{"cdiVersion":"1.0.0","kind":"vendor.com/gpu",
            "devices":[{{"name":"{device}","containerEdits":{{"env":["WHO={env}"]}}}}]}}"#
    )
}

#[test]
fn all_edits_of_a_device_and_of_its_file() {
    let registry = registry(&[("/etc/cdi/vendor.yaml", 0, VENDOR)]);
    let names = ["vendor.com/gpu=0", "vendor.com/gpu=all"];
    let spec = edited(&registry, &names, Spec::default()).unwrap();
    let process = spec.process.unwrap();
    let env: Vec<&[u8]> = process.env.iter().map(EnvText::as_bytes).collect();
    assert_eq!(env, [b"GPUS=all".as_slice(), b"PATH=/gpu"]);
    assert_eq!(process.user.additional_gids, [44]);
    let linux = spec.linux.unwrap();
    let nodes: Vec<_> = linux
        .devices
        .iter()
        .map(|d| (d.path.as_str(), d.kind.as_str(), d.major, d.minor, d.file_mode, d.uid))
        .collect();
    assert_eq!(
        nodes,
        [
            ("/dev/gpu0", "c", 195, 3, Some(0o660), None),
            ("/dev/renamed", "c", 195, 3, Some(0o640), Some(7))
        ]
    );
    let rules = linux.resources.unwrap().devices;
    assert_eq!((rules[0].access.as_str(), rules[1].access.as_str()), ("rw", "rwm"));
    assert!(rules.iter().all(|rule| rule.allow && rule.major == Some(195)));
    let mounts: Vec<_> =
        spec.mounts.iter().map(|m| (m.destination.as_str(), m.is_bind())).collect();
    assert_eq!(mounts, [("/gpu", false), ("/usr/lib/gpu.so", true)]);
    assert_eq!(spec.hooks.create_runtime.len(), 1, "the file's edits are made once");
    assert_eq!(spec.hooks.create_runtime[0].timeout, Some(5));
}

#[test]
fn in_a_user_namespace_renamed_nodes_are_bound() {
    let registry = registry(&[("/etc/cdi/vendor.yaml", 0, VENDOR)]);
    let mut spec = Spec::default();
    let user = LinuxNamespace { kind: NamespaceType::User, path: String::new() };
    spec.linux.get_or_insert_default().namespaces.push(user);
    let spec = edited(&registry, &["vendor.com/gpu=0"], spec).unwrap();
    assert_eq!(spec.linux.unwrap().devices.len(), 1);
    let bound = spec.mounts.iter().find(|mount| mount.destination == "/dev/renamed").unwrap();
    assert_eq!((bound.source.as_str(), bound.is_bind()), ("/dev/gpu0", true));
}

#[test]
fn the_higher_priority_counts_and_a_tie_is_refused() {
    let (low, high) = (minimal("a", "low"), minimal("a", "high"));
    let who = |files: &[(&str, usize, &str)]| {
        let spec = edited(&registry(files), &["vendor.com/gpu=a"], Spec::default())?;
        Ok(spec.process.unwrap_or_default().env[0].as_bytes().to_vec())
    };
    let both = [("/etc/cdi/a.json", 0, low.as_str()), ("/run/cdi/a.json", 1, high.as_str())];
    assert_eq!(who(&both).unwrap(), b"WHO=high");
    let tie = [("/etc/cdi/a.json", 0, low.as_str()), ("/etc/cdi/b.json", 0, high.as_str())];
    let error: Error = who(&tie).unwrap_err();
    assert!(error.to_string().contains("/etc/cdi/b.json"), "{error}");
}

#[test]
fn what_is_unknown_says_which_files_are_broken() {
    let good = minimal("a", "x");
    let registry =
        registry(&[("/etc/cdi/a.json", 0, &good), ("/etc/cdi/b.json", 0, "{"), ("README", 0, "x")]);
    edited(&registry, &["vendor.com/gpu=a"], Spec::default()).unwrap();
    for name in ["vendor.com/gpu=b", "other.com/gpu=a"] {
        let error = edited(&registry, &[name], Spec::default()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("/etc/cdi/b.json"), "{error}");
    }
    // A device that is not on this machine.
    let gone = VENDOR.replace("/dev/gpu0", "/dev/gone");
    let mut vendor = Registry::default();
    vendor.add("v.yaml", 0, Ok(gone.as_bytes()));
    let error = edited(&vendor, &["vendor.com/gpu=0"], Spec::default()).unwrap_err();
    assert!(error.to_string().contains("/dev/gone"), "{error}");
}

#[test]
fn names_are_complete_and_come_once() {
    let annotations = Map::from([
        ("cdi.k8s.io/plugin".to_owned(), "v.com/c=2, v.com/c=1".to_owned()),
        ("other".to_owned(), "nonsense".to_owned()),
    ]);
    let names = wanted(&["v.com/c=1".into()], &annotations).unwrap();
    assert_eq!(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["v.com/c=1", "v.com/c=2"]
    );
    for name in ["", "0", "v.com=0", "v.com/c", "v.com/c=", "v.com/c=-", "/c=0", "v.com/c=a/b"] {
        assert!(wanted(&[name.into()], &Map::new()).is_err(), "{name}");
    }
}

#[test]
fn documents_that_no_vendor_may_write() {
    let fails = |from: &str, to: &str| {
        let text = VENDOR.replacen(from, to, 1);
        assert_ne!(text, VENDOR, "{from}");
        Document::parse(Format::Yaml, text.as_bytes()).unwrap_err()
    };
    assert!(fails("0.8.0", "0.2.0").contains("0.2.0"));
    assert!(fails("0.8.0", "2.0.0").contains("2.0.0"));
    assert!(fails("vendor.com/gpu", "gpu").contains("kind"));
    assert!(fails("annotations:", "surprise:").contains("surprise"));
    assert!(fails("name: all", "name: \"0\"").contains("twice"));
    assert!(fails("createRuntime", "whenever").contains("whenever"));
    assert!(fails("path: /usr/bin", "path: usr/bin").contains("usr/bin"));
    assert!(fails("permissions: rw", "permissions: rx").contains("rx"));
    assert!(fails("GPUS=none", "GPUS").contains("GPUS"));
    let long = vec![b' '; corten_base::limits::CDI_FILE_BYTES_MAX + 1];
    assert!(Document::parse(Format::Json, &long).unwrap_err().contains("longer"));
    // An alias that doubles at every step must not take the memory of the node.
    let mut bomb = "a: &a [x, x]\n".to_owned();
    for level in 0..40 {
        let (from, to) = ((b'a' + level % 26) as char, (b'a' + (level + 1) % 26) as char);
        bomb += &format!("{to}{level}: &{to} [*{from}, *{from}]\n");
    }
    assert!(Document::parse(Format::Yaml, bomb.as_bytes()).is_err());
}
