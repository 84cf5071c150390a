//! The same OCI spec through our launcher and through runc gives the same
//! container. What may differ is listed here, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use corten_api::cri;
use corten_tests::client::Container;
use corten_tests::{Machine, Scene};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

/// Everything that a process can see of its own confinement.
const LOOK: &str = r#"
    part() { echo "@@ $1"; shift; "$@" 2>&1; }
    part status cat /proc/self/status
    part mountinfo cat /proc/self/mountinfo
    part limits cat /proc/self/limits
    part cgroup cat /proc/self/cgroup
    part environment tr '\0' '\n' < /proc/self/environ
    part oom cat /proc/self/oom_score_adj
    part dev ls -ln /dev
    part devices cat /sys/fs/cgroup/devices/devices.list
    part descriptors ls -1 /proc/self/fd
    part directory pwd
    part terminal stty -a
    part hostname hostname
    part proc ls -1 /proc
"#;

/// Fields of /proc/self/status that are no property of the container: numbers
/// of processes, and what happened so far.
const STATUS_OF_THE_MOMENT: [&str; 6] =
    ["Pid", "Tgid", "PPid", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", "SigQ"];

/// A line that only one of both may have: part, how it begins, why.
const EXPLAINED: [(&str, &str, &str); 7] = [
    ("status", "SigIgn:", "runc hands on what its caller ignores; ours is asked for by itself"),
    ("dev", "lrwxrwxrwx core", "runc makes the link only where the machine has a /proc/kcore"),
    ("devices", "c 10:200 rwm", "runc before 1.2 lets every container use /dev/net/tun"),
    ("terminal", "-onlcr", "`runc run` sets its own copy of the terminal so"),
    ("terminal", "onlcr", "and we leave it as the kernel makes it, as peers do"),
    ("mountinfo", "/sys/fs/cgroup from / ro", "the spec says read-only, and we make it so"),
    ("mountinfo", "/sys/fs/cgroup from / rw", "runc does that for what is mounted in it alone"),
];

/// Runs a container of ours, then its spec by runc, and compares.
fn compare(change: impl FnOnce(&mut Container) + Send) {
    if Command::new("runc").arg("--version").output().is_err() {
        eprintln!("passed over: there is no runc on this machine");
        return;
    }
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            let linux = pod.config.linux.get_or_insert_default();
            linux.security_context.get_or_insert_default().privileged = true;
        })
        .await;
        // Lives on, so that runc can join the pod's namespaces.
        let idle = scene.idle(|_| {}).await;
        let mut container = scene.shell(LOOK);
        container.config.envs = vec![
            cri::KeyValue { key: "PLAIN".into(), value: "a b".into() },
            cri::KeyValue { key: "PATH".into(), value: "/bin:/usr/bin".into() },
        ];
        container.security().seccomp = Some(cri::SecurityProfile::default());
        change(&mut container);
        let id = scene.start(&container).await.unwrap();
        assert_eq!(scene.client.ended(&id).await.exit_code, 0, "{}", scene.log_of(&container));
        let ours = parts(&scene.log_of(&container));
        for (part, lines) in [("status", 40), ("mountinfo", 12), ("limits", 17), ("environment", 4)]
        {
            assert!(ours[part].len() >= lines, "{part}: {:?}", ours[part]);
        }
        let bundle = Bundle::new(machine, &scene.id, &id, &idle);
        let theirs = parts(&bundle.run());
        let differences = differences(&ours, &theirs);
        assert!(differences.is_empty(), "corten and runc differ:\n{}", differences.join("\n"));
    });
}

#[test]
fn a_plain_container() {
    compare(|_| {});
}

#[test]
fn a_privileged_container() {
    compare(|container| {
        container.security().privileged = true;
    });
}

#[test]
fn a_readonly_root() {
    compare(|container| {
        container.security().readonly_rootfs = true;
        container.security().no_new_privs = true;
    });
}

#[test]
fn hidden_paths() {
    compare(|container| {
        container.security().masked_paths =
            ["/proc/interrupts", "/proc/acpi", "/sys/firmware", "/proc/none"]
                .map(str::to_owned)
                .into();
        container.security().readonly_paths =
            ["/proc/sys", "/proc/bus", "/proc/none"].map(str::to_owned).into();
    });
}

#[test]
fn a_terminal() {
    compare(|container| {
        container.config.tty = true;
    });
}

#[test]
fn a_user_with_groups() {
    compare(|container| {
        container.security().run_as_user = Some(cri::Int64Value { value: 1000 });
        container.security().run_as_group = Some(cri::Int64Value { value: 3000 });
        container.security().supplemental_groups = vec![4000, 5000];
        container.config.working_dir = "/made/on/the/way".into();
    });
}

#[test]
fn capabilities() {
    compare(|container| {
        container.security().capabilities = Some(cri::Capability {
            add_capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
            drop_capabilities: vec!["CHOWN".into(), "NET_RAW".into()],
            ..Default::default()
        });
        container.linux().resources.get_or_insert_default().oom_score_adj = 300;
    });
}

/// A bundle for runc: the container's own spec, over the same layers.
struct Bundle {
    directory: PathBuf,
    id: String,
    terminal: bool,
}

impl Bundle {
    fn new(machine: &Machine, pod: &str, container: &str, idle: &str) -> Self {
        let directory = machine.path("bundle");
        let part = |name: &str| directory.join(name).display().to_string();
        for name in ["rootfs", "upper", "work", "state", "shm"] {
            fs::create_dir_all(part(name)).unwrap();
        }
        let layer = layer(&machine.path("data"));
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            layer.display(),
            part("upper"),
            part("work")
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", part("rootfs"), "overlay", MountFlags::empty(), options.as_c_str())
            .unwrap();
        // The pod's is in the mount namespace of its shim alone.
        let shm = c"mode=1777,size=65536k";
        mount("shm", part("shm"), "tmpfs", MountFlags::empty(), shm).unwrap();
        let path = format!("state/sandboxes/{pod}/containers/{container}/spec.json");
        let mut spec: Value =
            serde_json::from_slice(&fs::read(machine.path(&path)).unwrap()).unwrap();
        let pid = pid_of(machine, pod, idle);
        adapt(&mut spec, pid, &part("shm"));
        let id = format!("runc-{}", &container[..12]);
        spec["linux"]["cgroupsPath"] = json!(format!("{}/{id}", machine.cgroup()));
        fs::write(directory.join("config.json"), spec.to_string()).unwrap();
        let terminal = spec["process"]["terminal"].as_bool().unwrap_or_default();
        Self { directory, id, terminal }
    }

    fn run(&self) -> String {
        let command = format!(
            "runc --root {0}/state run --bundle {0} {1}",
            self.directory.display(),
            self.id
        );
        // Who wants a terminal must be given one.
        let output = if self.terminal {
            Command::new("script").args(["-qec", &command, "/dev/null"]).output()
        } else {
            Command::new("sh").args(["-c", &command]).output()
        };
        let Output { status, stdout, stderr } = output.expect("runc can be run");
        let (text, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{text}{errors}");
        text.into_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for name in ["rootfs", "shm"] {
            let _ = unmount(self.directory.join(name), UnmountFlags::DETACH);
        }
    }
}

/// The directory of the image's only layer.
fn layer(data: &Path) -> PathBuf {
    let mut open = vec![data.to_owned()];
    while let Some(directory) = open.pop() {
        if directory.join("bin/busybox").exists() {
            return directory;
        }
        // What containers wrote is not the image.
        let inner = fs::read_dir(&directory).unwrap().flatten();
        let inner = inner.filter(|entry| entry.file_name() != "snapshots");
        open.extend(inner.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    panic!("no layer below {}", data.display());
}

/// A process of the pod, as the host sees it.
fn pid_of(machine: &Machine, pod: &str, container: &str) -> i32 {
    let cgroups = corten_kernel::cgroup::Cgroups::probe().unwrap();
    let group = cgroups.open(&format!("{}/{pod}/{container}", machine.cgroup())).unwrap();
    group.pids().unwrap()[0]
}

/// The daemon hands its shim descriptors; runc must be told paths. The
/// namespaces of the pod are reached by a process that has them.
fn adapt(spec: &mut Value, pid: i32, shm: &str) {
    spec["root"]["path"] = json!("rootfs");
    for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["path"].as_str().is_some_and(|path| !path.is_empty()) {
            let file = match namespace["type"].as_str().unwrap() {
                "network" => "net",
                other => other,
            };
            namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
    }
    for mount in spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev/shm" {
            mount["source"] = json!(shm);
        }
    }
}

// -- comparing

type Parts = BTreeMap<String, Vec<String>>;

/// What was said, by the headings of [`LOOK`].
fn parts(text: &str) -> Parts {
    let mut parts = Parts::new();
    let mut name = String::new();
    for line in text.lines().map(|line| line.trim_end_matches('\r')) {
        // A terminal may echo something before the first.
        match line.split_once("@@ ") {
            Some((_, heading)) => name = heading.to_owned(),
            None => parts.entry(name.clone()).or_default().push(line.to_owned()),
        }
    }
    parts
}

fn differences(ours: &Parts, theirs: &Parts) -> Vec<String> {
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let of = |parts: &Parts| {
            let lines = parts.get(name).map(Vec::as_slice).unwrap_or_default();
            lines.iter().flat_map(|line| comparable(name, line)).collect::<Vec<_>>()
        };
        let (ours, theirs) = (of(ours), of(theirs));
        let mut only = |who: &str, these: &[String], those: &[String]| {
            let lines = these.iter().filter(|line| !those.contains(line));
            let lines = lines.filter(|line| !is_explained(name, line));
            found.extend(lines.map(|line| format!("{name}: only {who}: {line}")));
        };
        only("corten", &ours, &theirs);
        only("runc", &theirs, &ours);
    }
    found
}

fn is_explained(part: &str, line: &str) -> bool {
    EXPLAINED.iter().any(|(of, begin, _)| *of == part && line.starts_with(begin))
}

/// What counts of a line: nothing of some, each word of others.
fn comparable(part: &str, line: &str) -> Vec<String> {
    match part {
        "status" => {
            let field = line.split(':').next().unwrap_or_default();
            let of_the_moment = STATUS_OF_THE_MOMENT.contains(&field)
                || ["Vm", "Rss", "NS"].iter().any(|begin| field.starts_with(begin));
            if of_the_moment { Vec::new() } else { vec![line.to_owned()] }
        }
        "mountinfo" => vec![mount_line(line)],
        "dev" => vec![device_line(line)],
        // Processes come and go.
        "proc" if line.bytes().all(|byte| byte.is_ascii_digit()) => Vec::new(),
        "terminal" => line.split_whitespace().map(str::to_owned).collect(),
        _ => vec![line.to_owned()],
    }
}

/// An entry of /dev without its times and count of links.
fn device_line(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (Some(mode), Some(at)) = (words.first(), words.iter().position(|word| word.contains(':')))
    else {
        return String::new();
    };
    // Month, day and time stand before the name; the owner after the links.
    format!("{mode} {} ({})", words[at + 1..].join(" "), words[2..at - 2].join(" "))
}

/// A mount without the numbers that the kernel gave it.
fn mount_line(line: &str) -> String {
    let (head, tail) = line.split_once(" - ").unwrap();
    let (head, tail): (Vec<&str>, Vec<&str>) =
        (head.split(' ').collect(), tail.split(' ').collect());
    let (root, target, options) = (head[3], head[4], head[5]);
    let propagation: Vec<&str> =
        head[6..].iter().map(|field| field.split(':').next().unwrap_or_default()).collect();
    let tail = match tail[..] {
        // Where the directories of an overlay are is the snapshotter's affair.
        ["overlay", ..] if target == "/" => "overlay".to_owned(),
        // runc calls the source of a v1 hierarchy `systemd` where it has a name.
        ["cgroup", _, data] => format!("cgroup {data}"),
        // What covers a directory: nobody can write to it, runc closes the
        // filesystem, we the mount.
        ["tmpfs", "tmpfs", _] if options.starts_with("ro") => "tmpfs closed".to_owned(),
        _ => tail.join(" "),
    };
    format!("{target} from {root} {options} [{}] {tail}", propagation.join(" "))
}
