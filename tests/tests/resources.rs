//! Limits: that the kernel has them, and what happens to who meets one.

use std::fs;
use std::path::Path;

use corten_api::cri::{self, CgroupDriver};
use corten_tests::client::{Container, Pod};
use corten_tests::group::{by_systemd, directory, pids, setting, unified};
use corten_tests::{Machine, Scene, until};
use tonic::Code;

fn resources(
    change: impl FnOnce(&mut cri::LinuxContainerResources),
) -> impl FnOnce(&mut Container) {
    move |container| change(container.linux().resources.get_or_insert_default())
}

const MIB: i64 = 1 << 20;

/// Little memory, and no swap to go to.
fn small(resources: &mut cri::LinuxContainerResources) {
    resources.memory_limit_in_bytes = 32 * MIB;
    resources.memory_swap_limit_in_bytes = 32 * MIB;
}

#[test]
fn limits_are_the_kernels() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene
            .idle(resources(|r| {
                r.cpu_shares = 512;
                r.cpu_quota = 50_000;
                r.cpu_period = 100_000;
                r.memory_limit_in_bytes = 64 * MIB;
                r.memory_swap_limit_in_bytes = 96 * MIB;
                r.cpuset_cpus = "0".into();
                r.oom_score_adj = 500;
                r.hugepage_limits =
                    vec![cri::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }];
            }))
            .await;
        let group = scene.group(&id);
        let of = |controller: &str, v1: &str, v2: &str| setting(controller, &group, v1, v2);
        let shares = of("cpu", "cpu.shares", "cpu.weight");
        assert!(["512", "20", "59"].contains(&shares.as_str()), "{shares}");
        let quota = of("cpu", "cpu.cfs_quota_us", "cpu.max");
        assert!(["50000", "50000 100000"].contains(&quota.as_str()), "{quota}");
        assert_eq!(of("memory", "memory.limit_in_bytes", "memory.max"), (64 * MIB).to_string());
        let swap = of("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
        assert!([96 * MIB, 32 * MIB].map(|b| b.to_string()).contains(&swap), "{swap}");
        assert_eq!(of("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
        let huge = of("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
        assert_eq!(huge, (4 * MIB).to_string());
        assert_eq!(
            scene.client.shell(&id, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await,
            "500\n500\n"
        );
        // The container sees its own limits, and cannot change them.
        let file = if Path::new("/sys/fs/cgroup/memory").exists() {
            "/sys/fs/cgroup/memory/memory.limit_in_bytes"
        } else {
            "/sys/fs/cgroup/memory.max"
        };
        let text = scene
            .client
            .shell(&id, &format!("cat {file}; (echo 1 > {file}) 2>/dev/null || echo kept"))
            .await;
        assert_eq!(text, format!("{}\nkept\n", 64 * MIB));
        // The status says what was set.
        let status = scene.client.status(&id).await.unwrap();
        let linux = status.resources.unwrap().linux.unwrap();
        assert_eq!((linux.cpu_shares, linux.memory_limit_in_bytes), (512, 64 * MIB));
    });
}

#[test]
fn limits_that_cannot_be() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let error = scene.refused(resources(|r| r.cpuset_cpus = "0-4095".into())).await;
        assert!(error.contains("cpuset.cpus"), "{error}");
        let error = scene
            .refused(resources(|r| {
                r.hugepage_limits = vec![cri::HugepageLimit { page_size: "3MB".into(), limit: 1 }];
            }))
            .await;
        assert!(error.contains("3MB"), "{error}");
        let error = scene
            .refused(resources(|r| drop(r.unified.insert("no.such".into(), "1".into()))))
            .await;
        assert!(error.contains("no.such"), "{error}");
        // Without privilege to lower it, the score stays, and the container runs.
        let text =
            scene.says("cat /proc/self/oom_score_adj", resources(|r| r.oom_score_adj = -998)).await;
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert!(text == "-998\n" || text == own || text == "0\n", "{text}");
    });
}

#[test]
fn out_of_memory() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let mut container = scene.shell("exec tail /dev/zero");
        resources(small)(&mut container);
        let status = scene.run(&container).await.status;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));

        // A child of the first process, which goes on.
        let mut container = scene.shell("tail /dev/zero; echo ended with $?; exit 5");
        resources(small)(&mut container);
        let said = scene.run(&container).await;
        assert!(said.text.ends_with("ended with 137\n"), "{}", said.text);
        assert_eq!((said.status.exit_code, said.status.reason.as_str()), (5, "OOMKilled"));

        // Who only has the limit was not killed by it.
        let mut container = scene.shell("exit 137");
        resources(small)(&mut container);
        let status = scene.run(&container).await.status;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        let mut container = scene.shell("true");
        resources(small)(&mut container);
        let status = scene.run(&container).await.status;
        assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    });
}

#[test]
fn an_exec_counts_for_its_container() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(resources(small)).await;
        let group = scene.group(&id);
        for timeout in [0, 60] {
            let (code, _, _) =
                scene.client.exec(&id, &["tail", "/dev/zero"], timeout).await.unwrap();
            assert_eq!(code, 137, "with timeout {timeout}");
        }
        assert_eq!(pids(&group, &["sleep", "1000"]).len(), 1, "the container goes on");

        // Where a long exec is, seen from the host.
        let mut client = scene.client.clone();
        let of = id.clone();
        let long = tokio::spawn(async move { client.exec(&of, &["sleep", "777"], 120).await });
        let pid = until("the exec runs", async || pids(&group, &["sleep", "777"]).pop()).await;
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        for line in cgroups.lines() {
            let path = line.splitn(3, ':').nth(2).unwrap();
            assert!(path == group || path.starts_with(&format!("{group}/exec-")), "{line}");
        }
        scene.client.stop(&id, 0).await.unwrap();
        assert_eq!(long.await.unwrap().unwrap().0, 137, "it ends with its container");
    });
}

#[test]
fn a_parent_that_the_client_made() {
    if by_systemd() {
        eprintln!("skipped: parents are slices here, and have a test of their own");
        return;
    }
    Machine::run(async |machine, daemon| {
        // Below the machine's group, so that nothing of it stays.
        let parent = format!("{}/kubepods/pod-7", machine.cgroup());
        let pids_of = directory("pids", &parent);
        fs::create_dir_all(&pids_of).unwrap();
        fs::write(pids_of.join("pids.max"), "12").unwrap();
        {
            let mut scene = Scene::new(machine, daemon, |pod| {
                pod.config.linux.get_or_insert_default().cgroup_parent = parent.clone();
            })
            .await;
            let id = scene.idle(|_| {}).await;
            assert!(pids_of.join(&id).exists());
            // Its limits hold for what we put into it.
            let script = "for i in $(seq 20); do sleep 5 & done 2>&1 | head -1; kill $(jobs -p) 2>/dev/null; true";
            let (_, stdout, stderr) =
                scene.client.exec(&id, &["/bin/sh", "-c", script], 30).await.unwrap();
            assert!((stdout + &stderr).contains("fork"), "more processes than the parent allows");
            // The shim is not among those who are limited.
            let procs = fs::read_to_string(pids_of.join("cgroup.procs")).unwrap();
            assert_eq!(procs, "", "only containers are below the parent");
            scene.client.stop_pod(&scene.id.clone()).await.unwrap();
            scene.client.remove_pod(&scene.id.clone()).await.unwrap();
            assert!(!pids_of.join(&id).exists(), "the container's group is gone");
        }
        assert!(pids_of.exists(), "the client's group is the client's");
        assert_eq!(fs::read_to_string(pids_of.join("pids.max")).unwrap(), "12\n");
        let cgroups = corten_kernel::cgroup::Cgroups::probe().unwrap();
        cgroups.remove(&format!("{}/kubepods", machine.cgroup())).unwrap();
    });
}

#[test]
fn a_parent_of_the_wrong_kind_is_refused() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let parents: &[&str] = if by_systemd() {
            &["/kubepods/pod-7", "pod-7", "/kubepods.slice/other-pod7.slice", "a--b.slice"]
        } else {
            &["kubepods-pod7.slice", "/kubepods.slice/kubepods-pod7.slice"]
        };
        for parent in parents {
            let mut pod = Pod::new(machine, "misplaced");
            pod.config.linux.get_or_insert_default().cgroup_parent = (*parent).to_owned();
            let error = client.run_pod(&pod).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(error.message().contains(parent), "{error}");
            assert!(error.message().contains("slice"), "{error}");
        }
        assert!(client.pods().await.is_empty());
        let config = client.runtime.runtime_config(cri::RuntimeConfigRequest {}).await.unwrap();
        let expected = if by_systemd() { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        assert_eq!(config.into_inner().linux.unwrap().cgroup_driver, expected as i32);
    });
}

#[test]
fn a_timeout_kills_the_whole_tree_of_an_exec() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        let group = scene.group(&id);
        // Born in its group, not moved there: v2 alone says so.
        // Running is the shell; what it executes comes a moment later.
        let main = until("the shell has become sleep", async || {
            Some(pids(&group, &["sleep", "1000"])).filter(|found| found.len() == 1)
        })
        .await;
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", main[0])).unwrap();
        assert!(cgroup.lines().any(|line| line == format!("0::{group}")), "{cgroup}");

        // Another exec of the same container, which must not notice.
        let mut client = scene.client.clone();
        let of = id.clone();
        let other = tokio::spawn(async move { client.shell(&of, "sleep 4; echo unharmed").await });
        // One child in a session of its own, one forked twice, one that ignores all signals.
        let script = "setsid sleep 4241 & (setsid sleep 4242 & ); \
            sh -c 'trap \"\" TERM HUP INT; sleep 4243; sleep 4243' & sleep 4244";
        let error = scene.client.exec(&id, &["/bin/sh", "-c", script], 2).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        assert!(error.message().contains("timed out"), "{error}");
        until("all of them are gone", async || {
            let left = ["4241", "4242", "4243", "4244"].iter();
            left.clone().all(|time| pids(&group, &["sleep", time]).is_empty()).then_some(())
        })
        .await;
        assert_eq!(other.await.unwrap(), "unharmed\n");
        assert_eq!(pids(&group, &["sleep", "1000"]), main, "the container goes on");
        // The group of the other is kept, empty, for those that come; the one
        // that was killed is not.
        let groups = || {
            let entries = fs::read_dir(unified().join(group.trim_start_matches('/'))).unwrap();
            let there = entries.flatten().filter(|entry| entry.file_type().unwrap().is_dir());
            there.map(|entry| entry.path()).collect::<std::collections::BTreeSet<_>>()
        };
        let kept =
            until("one group is kept", async || Some(groups()).filter(|groups| groups.len() == 1))
                .await;
        for group in &kept {
            until("nobody is in the group of an exec", async || {
                let events = fs::read_to_string(group.join("cgroup.events")).unwrap();
                events.lines().any(|line| line == "populated 0").then_some(())
            })
            .await;
        }
        for _ in 0..3 {
            assert_eq!(scene.client.shell(&id, "echo again").await, "again\n");
        }
        assert_eq!(groups(), kept);
        // Another daemon finds them.
        daemon.restart().await;
        let mut client = daemon.client().await;
        assert_eq!(client.shell(&id, "echo again").await, "again\n");
        assert!(groups().len() <= 2, "{:?}", groups());
    });
}
