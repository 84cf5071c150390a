//! A whole container, and what it sees.

use rustix::mount::MountPropagationFlags;

use super::kit::*;
use crate::launch::*;

#[test]
fn a_shell_in_its_own_world() {
    let image = Image::new();
    let outcome = container(
        &image,
        &[Step::AwaitStart],
        "echo $$; cat /proc/sys/kernel/hostname; ls /; ls /dev; cat /proc/self/mountinfo | wc -l; \
         ls -l /proc/self/fd; cat /proc/self/status | grep -i sigign; umask",
    );
    assert_eq!(outcome.failed, None, "{outcome:?}");
    assert!(
        outcome.output.starts_with("1\ntestpod\nbin\ndev\netc\nproc\nsys\ntmp\n"),
        "{outcome:?}"
    );
    assert!(outcome.output.contains("SigIgn:\t0000000000000000"), "{outcome:?}");
    assert_eq!(outcome.code, 0);
}

/// As systemd leaves them.
#[test]
fn where_all_mounts_are_shared() {
    let thread = std::thread::spawn(|| {
        crate::sys::unshare(libc::CLONE_FS | libc::CLONE_NEWNS).expect("a mount namespace");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private).expect("apart from the machine");
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", shared).expect("shared among themselves");
        container(&Image::new(), &[Step::AwaitStart], "echo here")
    });
    let outcome = thread.join().expect("the thread ends");
    assert_eq!((outcome.failed, outcome.output.as_str()), (None, "here\n"));
}

#[test]
fn masks_devices_and_links() {
    let image = Image::new();
    std::os::unix::fs::symlink("/deep/er", image.path().join("link")).expect("symlink");
    std::fs::create_dir(image.path().join("etc/sub")).expect("mkdir");
    std::fs::write(image.path().join("etc/sub/file"), "copied").expect("write");
    std::os::unix::fs::symlink("sub/file", image.path().join("etc/l")).expect("symlink");
    let more = [
        tmpfs(c"/link/below/../mount", 1, false),
        tmpfs(c"/etc", 2, true),
        Step::Mask { path: c"/proc/kcore" },
        Step::Mask { path: c"/proc/scsi" },
        Step::Mask { path: c"/proc/bus" },
        Step::Mask { path: c"/proc/irq" },
        Step::Mask { path: c"/proc/none/such" },
        Step::ReadonlyPath { path: c"/proc/sys" },
        Step::EnsureDirectory { path: c"/work/dir", uid: 5, gid: 6 },
        Step::Sysctl { path: c"kernel/domainname", value: c"example" },
        Step::ReadonlyRoot,
        Step::WorkingDirectory { path: c"/work/dir" },
        Step::Umask { mask: 0o077 },
    ];
    let outcome = container(
        &image,
        &more,
        "cat /proc/kcore; ls /proc/irq /proc/bus; cat /etc/l; echo; \
         echo x > /proc/sys/kernel/hostname || echo ro-sys; echo x > /file || echo ro-root; \
         cat /proc/sys/kernel/domainname; pwd; umask; ls -ldn . ; grep -c /deep/er/mount /proc/mounts",
    );
    assert_eq!(outcome.failed, None, "{outcome:?}");
    for text in ["copied", "ro-sys", "ro-root", "example\n/work/dir\n0077\n", " 5        6 "] {
        assert!(outcome.output.contains(text), "{text}: {}", outcome.output);
    }
    assert!(outcome.output.ends_with("\n1\n"), "{}", outcome.output);
}

fn tmpfs(target: &std::ffi::CStr, set: u64, copy_up: bool) -> Step<'_> {
    Step::MountNew {
        fstype: c"tmpfs",
        source: c"tmpfs",
        options: CStrList::EMPTY,
        target,
        attributes: MountAttributes { set, clear: 0, recursive: false },
        copy_up,
    }
}

#[test]
fn an_unprivileged_user() {
    let image = Image::new();
    let chown = 1u64;
    let sets = Capabilities {
        bounding: u64::MAX >> 1 & !(1 << 21),
        effective: chown,
        permitted: chown,
        inheritable: chown,
        ambient: chown,
    };
    let more = [
        Step::Rlimit { resource: 7, soft: 100, hard: 200 },
        Step::BoundingSet { bounding: sets.bounding },
        Step::Groups { list: &[5, 0, 0, 0, 6, 0, 0, 0] },
        Step::User { uid: 1000, gid: 1001 },
        Step::Capabilities { sets },
        Step::NoNewPrivileges,
    ];
    let outcome = container(
        &image,
        &more,
        "id; ulimit -n; grep -E 'Cap(Eff|Amb|Prm)|NoNewPrivs' /proc/self/status",
    );
    assert_eq!(outcome.failed, None, "{outcome:?}");
    for text in [
        "uid=1000 gid=1001 groups=5,6",
        "\n100\n",
        "CapPrm:\t0000000000000001",
        "CapEff:\t0000000000000001",
        "CapAmb:\t0000000000000001",
        "NoNewPrivs:\t1",
    ] {
        assert!(outcome.output.contains(text), "{text}: {}", outcome.output);
    }
}

#[test]
fn what_the_machine_refuses_is_a_warning() {
    let image = Image::new();
    let more = [Step::Rlimit { resource: 7, soft: 1 << 40, hard: 1 << 40 }];
    let outcome = container(&image, &more, "echo on");
    let refused = outcome.warnings.iter().any(|(_, errno)| *errno == libc::EPERM);
    assert!(outcome.failed.is_none() && refused, "{outcome:?}");
}

#[test]
fn a_filter_that_allows_nothing_but_execve() {
    let image = Image::new();
    let execve = libc::SYS_execve as u32;
    let [a, b, c, d] = execve.to_ne_bytes();
    // Load the number; execve is allowed; everything else kills.
    let [e, f] = 0x20u16.to_ne_bytes();
    let [g, h] = 0x15u16.to_ne_bytes();
    let [i, j] = 0x06u16.to_ne_bytes();
    let [k, l, m, n] = 0x7fff_0000u32.to_ne_bytes();
    let [o, p, q, r] = 0x8000_0000u32.to_ne_bytes();
    let program = [
        e, f, 0, 0, 0, 0, 0, 0, g, h, 0, 1, a, b, c, d, i, j, 0, 0, k, l, m, n, i, j, 0, 0, o, p,
        q, r,
    ];
    let seccomp = Step::Seccomp { program: &program, flags: 0 };
    let outcome = container(&image, &[Step::NoNewPrivileges, seccomp], "true");
    // The command began, and its first own system call killed it.
    assert_eq!(outcome.failed, None, "{outcome:?}");
    assert_eq!(outcome.code, 128 + libc::SIGSYS);
}

#[test]
fn scripts_and_large_environments() {
    use std::os::fd::AsFd;
    let image = Image::new();
    image.script("entry", "#!/bin/sh\nenv | wc -c\n");
    let root = image.mount();
    let value = "x".repeat(1000);
    let env =
        List::new((0..1000).map(|n| format!("VARIABLE_{n}={value}")).chain(["PATH=/bin".into()]));
    let (candidates, args) = (List::new(["/none/entry", "/entry"]), List::new(["entry"]));
    let last = Step::Exec { candidates: candidates.get(), args: args.get(), env: env.get() };
    let steps = container_steps(&[], last);
    let outcome = run_with(&steps, OWN, Join::Parents, &[root.as_fd()]).finish();
    assert_eq!(outcome.failed, None, "{outcome:?}");
    assert!(outcome.output.trim().parse::<usize>().expect("number") > 1_000_000);
}

#[test]
fn hooks_inside_get_the_state() {
    let image = Image::new();
    let (args, env) = (List::new(["/bin/sh", "-c", "cat > /tmp/state"]), List::new(["PATH=/bin"]));
    let hook = Step::Hook {
        args: args.get(),
        env: env.get(),
        state_before_pid: b"{\"pid\":",
        state_after_pid: b"}",
        timeout_ms: 10_000,
    };
    let points = [hook, Step::AwaitHooks { point: 0 }, Step::AwaitStart];
    let outcome = container(&image, &points, "cat /tmp/state");
    assert_eq!(outcome.output, "{\"pid\":1}", "{outcome:?}");
}
