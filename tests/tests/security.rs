//! What a container may do: users, capabilities, filters, hidden paths.

use corten_api::cri;
use corten_api::cri::security_profile::ProfileType;
use corten_tests::scene::field;
use corten_tests::{Machine, Scene};

fn number(value: i64) -> Option<cri::Int64Value> {
    Some(cri::Int64Value { value })
}

fn seccomp(kind: ProfileType, name: &str) -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
}

#[test]
fn users_and_groups() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let ids = "cat /proc/self/status; echo HOME:$HOME";
        let both = |text: &str| {
            let first = |name| field(text, name).split_whitespace().next().unwrap().to_owned();
            let groups = field(text, "Groups").to_owned();
            (first("Uid"), first("Gid"), groups, field(text, "HOME").to_owned())
        };
        let want = |uid: &str, gid: &str, groups: &str, home: &str| {
            (uid.to_owned(), gid.to_owned(), groups.to_owned(), home.to_owned())
        };

        let text = scene.says(ids, |_| {}).await;
        assert_eq!(both(&text), want("0", "0", "0", "/root"));
        let text = scene.says(ids, |c| c.security().run_as_user = number(1000)).await;
        assert_eq!(both(&text), want("1000", "1000", "1000 2000", "/tmp"));
        let text = scene.says(ids, |c| c.security().run_as_username = "web".into()).await;
        assert_eq!(both(&text), want("1000", "1000", "1000 2000", "/tmp"));
        let text = scene
            .says(ids, |c| {
                c.security().run_as_user = number(1000);
                c.security().run_as_group = number(77);
                c.security().supplemental_groups = vec![88, 99];
            })
            .await;
        assert_eq!(both(&text), want("1000", "77", "77 88 99 2000", "/tmp"));
        let strict = |c: &mut corten_tests::client::Container| {
            c.security().run_as_user = number(1000);
            c.security().supplemental_groups = vec![88];
            c.security().supplemental_groups_policy = cri::SupplementalGroupsPolicy::Strict.into();
        };
        let text = scene.says(ids, strict).await;
        assert_eq!(both(&text), want("1000", "1000", "88 1000", "/tmp"));
        // Somebody whom the image does not know.
        let text = scene.says(ids, |c| c.security().run_as_user = number(4242)).await;
        assert_eq!(both(&text), want("4242", "0", "0", "/"));
        let error = scene.refused(|c| c.security().run_as_username = "nobody-here".into()).await;
        assert!(error.contains("nobody-here"), "{error}");

        // An exec is the same user, and so says the status.
        let id = scene.idle(strict).await;
        let text = scene.client.shell(&id, ids).await;
        assert_eq!(both(&text), want("1000", "1000", "88 1000", "/tmp"));
        let user = scene.client.status(&id).await.unwrap().user.unwrap().linux.unwrap();
        let mut groups = user.supplemental_groups;
        groups.sort_unstable();
        assert_eq!((user.uid, user.gid, groups), (1000, 1000, vec![88, 1000]));
    });
}

/// Bits of capabilities that these tests name.
const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;

fn capabilities(text: &str, set: &str) -> u64 {
    u64::from_str_radix(field(text, set), 16).unwrap()
}

#[test]
fn capabilities_are_added_and_dropped() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let status = "cat /proc/self/status";
        let change = |add: &[&str], drop: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            let capability = cri::Capability {
                add_capabilities: texts(add),
                drop_capabilities: texts(drop),
                ..Default::default()
            };
            move |c: &mut corten_tests::client::Container| {
                c.security().capabilities = Some(capability.clone());
            }
        };
        let text = scene.says(status, |_| {}).await;
        let default = capabilities(&text, "CapEff");
        assert_eq!(default & (CHOWN | KILL | NET_ADMIN), CHOWN | KILL);
        assert_eq!(capabilities(&text, "CapBnd"), default);
        assert_eq!(capabilities(&text, "CapInh"), 0);
        assert_eq!(capabilities(&text, "CapAmb"), 0);

        let text = scene.says(status, change(&["NET_ADMIN"], &["KILL"])).await;
        assert_eq!(capabilities(&text, "CapEff"), default & !KILL | NET_ADMIN);
        let text = scene.says(status, change(&["CAP_NET_BIND_SERVICE"], &["ALL"])).await;
        assert_eq!(capabilities(&text, "CapEff"), NET_BIND_SERVICE);
        assert_eq!(capabilities(&text, "CapBnd"), NET_BIND_SERVICE);
        let text = scene.says(status, change(&["ALL"], &["NET_RAW"])).await;
        let most = capabilities(&text, "CapEff");
        assert!(
            most & NET_RAW == 0 && most & NET_ADMIN != 0 && most & default == default & !NET_RAW
        );
        let error = scene.refused(change(&["NOT_A_THING"], &[])).await;
        assert!(error.contains("NOT_A_THING"), "{error}");

        // Who is not root has them in the bounding set alone, unless ambient.
        let text = scene
            .says(status, |c| {
                change(&["NET_ADMIN"], &[])(c);
                c.security().run_as_user = number(1000);
            })
            .await;
        assert_eq!(capabilities(&text, "CapEff"), 0);
        assert_eq!(capabilities(&text, "CapBnd"), default | NET_ADMIN);
        let text = scene
            .says(status, |c| {
                c.security().capabilities = Some(cri::Capability {
                    add_ambient_capabilities: vec!["NET_BIND_SERVICE".into()],
                    ..Default::default()
                });
                c.security().run_as_user = number(1000);
            })
            .await;
        assert_eq!(capabilities(&text, "CapAmb"), NET_BIND_SERVICE);
        assert_eq!(capabilities(&text, "CapEff"), NET_BIND_SERVICE);
        // An exec has what the container has.
        let id = scene.idle(change(&["NET_ADMIN"], &["ALL"])).await;
        let text = scene.client.shell(&id, status).await;
        assert_eq!(capabilities(&text, "CapEff"), NET_ADMIN);
    });
}

#[test]
fn filters_and_no_new_privileges() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let status = "cat /proc/self/status";
        let default = seccomp(ProfileType::RuntimeDefault, "");
        let text = scene.says(status, |c| c.security().seccomp = default.clone()).await;
        assert_eq!((field(&text, "Seccomp"), field(&text, "NoNewPrivs")), ("2", "0"));
        let both = |c: &mut corten_tests::client::Container| {
            c.security().seccomp = default.clone();
            c.security().no_new_privs = true;
        };
        let text = scene.says(status, both).await;
        assert_eq!((field(&text, "Seccomp"), field(&text, "NoNewPrivs")), ("2", "1"));
        // Nothing said is unconfined: the kubelet says what it means.
        let text = scene.says(status, |_| {}).await;
        assert_eq!((field(&text, "Seccomp"), field(&text, "NoNewPrivs")), ("0", "0"));
        let unconfined = seccomp(ProfileType::Unconfined, "");
        let text = scene.says(status, |c| c.security().seccomp = unconfined.clone()).await;
        assert_eq!((field(&text, "Seccomp"), field(&text, "NoNewPrivs")), ("0", "0"));
        // The default filter forbids new user namespaces, being unconfined does not.
        let unshare = "unshare -U true && echo made || echo forbidden";
        let text = scene.says(unshare, |c| c.security().seccomp = default.clone()).await;
        assert!(text.ends_with("forbidden\n"), "{text}");
        let text = scene.says(unshare, |c| c.security().seccomp = unconfined).await;
        assert_eq!(text, "made\n");

        // A profile of the node: mkdir is an error of its own.
        let profile = machine.path("no-mkdir.json");
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
        std::fs::write(&profile, text).unwrap();
        let localhost = seccomp(ProfileType::Localhost, &profile.display().to_string());
        let mkdir = "mkdir /tmp/new 2>&1 || true; touch /tmp/file && echo touched";
        let said = scene.says(mkdir, |c| c.security().seccomp = localhost.clone()).await;
        assert!(said.contains("not supported") && said.ends_with("touched\n"), "{said}");
        let id = scene.idle(|c| c.security().seccomp = localhost).await;
        let said = scene.client.shell(&id, mkdir).await;
        assert!(said.contains("not supported"), "{said}");
        let nowhere = seccomp(ProfileType::Localhost, "/nowhere/profile.json");
        let error = scene.refused(|c| c.security().seccomp = nowhere).await;
        assert!(error.contains("/nowhere/profile.json"), "{error}");
        // Nor is anything read without end, or waited for.
        let endless = seccomp(ProfileType::Localhost, "/dev/zero");
        let error = scene.refused(|c| c.security().seccomp = endless).await;
        assert!(error.contains("regular file"), "{error}");
        // Nobody would answer for the calls that are notified.
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#;
        std::fs::write(&profile, text).unwrap();
        let notify = seccomp(ProfileType::Localhost, &profile.display().to_string());
        let error = scene.refused(|c| c.security().seccomp = notify).await;
        assert!(error.contains("SCMP_ACT_NOTIFY") && error.contains("handler"), "{error}");
    });
}

/// The strictest profile that a static program can run under: the launcher
/// needs nothing for itself once it is loaded.
#[test]
fn a_profile_of_what_execve_needs() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        // What busybox's `true` asks for, from execve to the end.
        let calls = r#"["execve", "exit_group", "brk", "arch_prctl", "set_tid_address",
            "set_robust_list", "rseq", "prlimit64", "readlinkat", "readlink", "getrandom",
            "mprotect", "mmap", "munmap", "prctl", "getuid", "getgid", "setuid", "setgid",
            "geteuid", "getegid", "uname", "futex", "newfstatat", "fstat"]"#;
        let profile = machine.path("strict.json");
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_KILL_PROCESS",
                "syscalls": [{{"names": {calls}, "action": "SCMP_ACT_ALLOW"}}]}}"#
        );
        std::fs::write(&profile, text).unwrap();
        let localhost = seccomp(ProfileType::Localhost, &profile.display().to_string());
        let mut container = scene.shell("");
        container.config.command = vec!["/bin/true".into()];
        container.security().seccomp = localhost.clone();
        container.security().no_new_privs = true;
        let said = scene.run(&container).await;
        assert_eq!(said.status.exit_code, 0, "{said:?}");

        // Only execve: the program is killed by its first other call (SIGSYS).
        let text = r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS",
            "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}]}"#;
        std::fs::write(&profile, text).unwrap();
        let mut container = scene.shell("");
        container.config.command = vec!["/bin/true".into()];
        container.security().seccomp = localhost;
        container.security().no_new_privs = true;
        let said = scene.run(&container).await;
        assert_eq!(said.status.exit_code, 128 + 31, "{said:?}");
    });
}

#[test]
fn hidden_and_readonly_paths() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            let linux = pod.config.linux.get_or_insert_default();
            linux.security_context.get_or_insert_default().privileged = true;
        })
        .await;
        // What the kubelet sends for procMount Default.
        let usual = |c: &mut corten_tests::client::Container| {
            c.security().masked_paths =
                ["/proc/interrupts", "/proc/timer_list", "/sys/firmware", "/proc/nothing-here"]
                    .map(str::to_owned)
                    .into();
            c.security().readonly_paths = vec!["/proc/sys".into(), "/proc/nothing-here".into()];
        };
        let look = "wc -c < /proc/timer_list; ls /sys/firmware | wc -l; ls -ld /proc/interrupts | cut -c1-10; \
            (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null && echo written || echo kept; true";
        let text = scene.says(look, usual).await;
        assert_eq!(text, "0\n0\ncrw-rw-rw-\nkept\n");
        let id = scene.idle(usual).await;
        assert_eq!(scene.client.shell(&id, look).await, "0\n0\ncrw-rw-rw-\nkept\n");
        // procMount Unmasked is empty lists.
        let text = scene.says("wc -c < /proc/timer_list", |_| {}).await;
        assert_ne!(text, "0\n");

        let write = "touch /new 2>/dev/null && echo written || echo kept; touch /tmp/new /dev/shm/new; true";
        assert_eq!(scene.says(write, |_| {}).await, "written\n");
        let text = scene.says(write, |c| c.security().readonly_rootfs = true).await;
        assert!(text.starts_with("kept\n") && text.contains("/tmp/new: Read-only"), "{text}");
        assert!(!text.contains("/dev/shm"), "{text}");
        // Not even root gets it back, in an exec neither.
        let id = scene.idle(|c| c.security().readonly_rootfs = true).await;
        let text = scene.client.shell(&id, "mount -o remount,rw / 2>&1; touch /x 2>&1; true").await;
        assert!(text.contains("ermission denied") && text.contains("Read-only"), "{text}");
    });
}

#[test]
fn privileged_containers_see_the_machine() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            let linux = pod.config.linux.get_or_insert_default();
            linux.security_context.get_or_insert_default().privileged = true;
        })
        .await;
        let privileged = |c: &mut corten_tests::client::Container| c.security().privileged = true;
        let text = scene.says("cat /proc/self/status", privileged).await;
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(field(&text, "CapEff"), field(&own, "CapBnd"));
        assert_eq!(field(&text, "Seccomp"), "0");
        let devices = scene.says("ls /dev; (: < /dev/fuse) && echo read", privileged).await;
        for device in ["kmsg", "null", "mem"] {
            let there = std::path::Path::new("/dev").join(device).exists();
            assert_eq!(devices.lines().any(|line| line == device), there, "{device}: {devices}");
        }
        let text = scene
            .says("mkdir /m && mount -t tmpfs x /m && touch /m/f && echo 1 > /proc/sys/net/ipv4/ip_forward && \
                mount | grep ' /sys ' | grep -c '(rw' && echo done", privileged)
            .await;
        assert_eq!(text, "1\ndone\n");
        let plain = scene.says("ls /dev | tr '\\n' ' '", |_| {}).await;
        assert_eq!(
            plain,
            "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n"
        );
    });
}

#[test]
fn a_plain_pod_has_no_privileged_containers() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let error = scene.refused(|c| c.security().privileged = true).await;
        assert!(error.contains("privileged"), "{error}");
    });
}

#[test]
fn devices_and_limits() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let device = |permissions: &str| cri::Device {
            container_path: "/dev/ours".into(),
            host_path: "/dev/fuse".into(),
            permissions: permissions.into(),
        };
        let read = "(: < /dev/ours) 2>/dev/null && echo read || echo not read; \
            (: <> /dev/ours) 2>/dev/null && echo written || echo not written";
        let text = scene.says(read, |c| c.config.devices = vec![device("rw")]).await;
        assert_eq!(text, "read\nwritten\n");
        let text = scene.says(read, |c| c.config.devices = vec![device("r")]).await;
        assert_eq!(text, "read\nnot written\n");
        let error = scene
            .refused(|c| {
                c.config.devices =
                    vec![cri::Device { host_path: "/dev/not-there".into(), ..device("rw") }];
            })
            .await;
        assert!(error.contains("/dev/not-there"), "{error}");
        // A node that was not given cannot be used, even when it can be made.
        let made = "mknod /tmp/k c 10 229 && (: < /tmp/k) 2>&1 || echo forbidden";
        assert!(scene.says(made, |_| {}).await.ends_with("forbidden\n"));
        // Open files: what select() can live with, and no endless hard limit.
        assert_eq!(scene.says("ulimit -Sn", |_| {}).await, "1024\n");
        let hard = scene.says("ulimit -Hn", |_| {}).await.trim().parse::<u64>().unwrap();
        assert!((1024..=524_288).contains(&hard), "{hard}");
        let id = scene.idle(|_| {}).await;
        assert_eq!(scene.client.shell(&id, "ulimit -Sn").await, "1024\n");
    });
}
