//! The same pod by each runtime handler has the same container in it, whether
//! our launcher makes it or runc or crun. What may differ is listed here, with
//! the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use corten_api::cri;
use corten_tests::client::{Container, log_path};
use corten_tests::machine::Settings;
use corten_tests::{Daemon, Machine, Scene};

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
type Explained = (&'static str, &'static str, &'static str);

/// By every other runtime.
const EXPLAINED: [Explained; 5] = [
    ("status", "SigIgn:", "others hand on what their caller ignores; ours is asked for by itself"),
    ("dev", "lrwxrwxrwx core", "the link is made only where the machine has a /proc/kcore"),
    ("devices", "c 10:200 rwm", "runc before 1.2 lets every container use /dev/net/tun"),
    ("mountinfo", "/sys/fs/cgroup from / ro", "the spec says read-only, and we make it so"),
    ("mountinfo", "/sys/fs/cgroup from / rw", "others do that for what is mounted in it alone"),
];

/// By crun alone.
const EXPLAINED_OF_CRUN: [Explained; 5] = [
    ("dev", "crw-rw-rw- null", "crun gives the user what its standard streams are"),
    ("mountinfo", "/dev/console from", "crun forgets the attributes of what it binds"),
    ("mountinfo", "/proc/sys from", "likewise"),
    ("mountinfo", "/proc/bus from", "likewise"),
    ("mountinfo", "/proc/interrupts from", "likewise, and takes the host's /dev/null"),
];

/// Runs the same container in the same pod by each handler, and compares.
fn compare(change: impl Fn(&mut Container) + Send + Sync) {
    let settings = Settings {
        builtin_network: true,
        without_unified: true,
        oci_runtimes: true,
        ..Settings::default()
    };
    Machine::run_with(settings, async |machine, daemon| {
        let ours = look(machine, daemon, "corten", &change).await;
        for (part, lines) in [("status", 40), ("mountinfo", 12), ("limits", 17), ("environment", 4)]
        {
            assert!(ours[part].len() >= lines, "{part}: {:?}", ours[part]);
        }
        for other in ["runc", "crun"] {
            if Command::new(other).arg("--version").output().is_err() {
                eprintln!("passed over: there is no {other} on this machine");
                continue;
            }
            let theirs = look(machine, daemon, other, &change).await;
            let differences = differences(&ours, other, &theirs);
            assert!(
                differences.is_empty(),
                "corten and {other} differ:\n{}",
                differences.join("\n")
            );
        }
    });
}

/// What a container of this handler sees.
async fn look(
    machine: &Machine,
    daemon: &Daemon,
    handler: &str,
    change: &impl Fn(&mut Container),
) -> Parts {
    let mut scene = Scene::named(machine, daemon, "pod", |pod| {
        pod.handler = handler.to_owned();
        let linux = pod.config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = true;
    })
    .await;
    let mut container = scene.shell(LOOK);
    container.config.envs = vec![
        cri::KeyValue { key: "PLAIN".into(), value: "a b".into() },
        cri::KeyValue { key: "PATH".into(), value: "/bin:/usr/bin".into() },
    ];
    container.security().seccomp = Some(cri::SecurityProfile::default());
    change(&mut container);
    let id = scene.start(&container).await.unwrap();
    let log = || scene.log_of(&container);
    assert_eq!(scene.client.clone().ended(&id).await.exit_code, 0, "{handler}: {}", log());
    let text = log();
    // The pod's name is free for the next handler, and its log begins anew.
    let log = log_path(&scene.pod, &container);
    scene.client.remove_pod(&scene.id).await.unwrap();
    std::fs::remove_file(log).unwrap();
    parts(&text)
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

fn differences(ours: &Parts, other: &str, theirs: &Parts) -> Vec<String> {
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
            let lines = lines.filter(|line| !is_explained(other, name, line));
            found.extend(lines.map(|line| format!("{name}: only {who}: {line}")));
        };
        only("corten", &ours, &theirs);
        only(other, &theirs, &ours);
    }
    found
}

fn is_explained(other: &str, part: &str, line: &str) -> bool {
    let of_crun = EXPLAINED_OF_CRUN.iter().filter(|_| other == "crun");
    EXPLAINED.iter().chain(of_crun).any(|(of, begin, _)| *of == part && line.starts_with(begin))
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
        "cgroup" => vec![line.split('/').map(without_id).collect::<Vec<_>>().join("/")],
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
        // Each pod has its own, made by its first container: runc closes the
        // filesystem, we the mount.
        ["sysfs", ..] if options.starts_with("ro") => "sysfs closed".to_owned(),
        // What covers a directory: nobody can write to it, runc closes the
        // filesystem, we the mount.
        ["tmpfs", "tmpfs", _] if options.starts_with("ro") => "tmpfs closed".to_owned(),
        _ => tail.join(" "),
    };
    let root: Vec<&str> = root.split('/').map(without_id).collect();
    format!("{target} from {} {options} [{}] {tail}", root.join("/"), propagation.join(" "))
}

/// A part of a path, unless it is the id of a pod or container.
fn without_id(part: &str) -> &str {
    let is_id = part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { "<id>" } else { part }
}
