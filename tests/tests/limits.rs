//! Limits of containers, on whichever cgroups the machine has. These tests run
//! once more in the virtual machine, where there is nothing but v2.

use std::path::PathBuf;

use corten_api::cri::LinuxContainerResources;
use corten_kernel::cgroup::Cgroups;
use corten_tests::Machine;
use corten_tests::client::{Container, Pod};

const MEBIBYTE: i64 = 1 << 20;

/// A file of a container's cgroup: by its v1 name and hierarchy, or its v2 name.
async fn cgroup_file(machine: &Machine, container: &str, v1: (&str, &str), v2: &str) -> String {
    let unified = Cgroups::probe().unwrap().is_unified();
    let root = if unified {
        PathBuf::from("/sys/fs/cgroup")
    } else {
        PathBuf::from("/sys/fs/cgroup").join(v1.0)
    };
    let pods = root.join(machine.cgroup().trim_start_matches('/'));
    let pod = std::fs::read_dir(&pods).unwrap().flatten().find_map(|pod| {
        let group = pod.path().join(container);
        group.exists().then_some(group)
    });
    let file = pod.expect("the container has a cgroup").join(if unified { v2 } else { v1.1 });
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn a_container_has_its_limits() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "limits");
        let id = client.run_pod(&pod).await.unwrap();
        let mut container = Container::shell("main", &image, "exec sleep 1000");
        container.linux().resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: 64 * MEBIBYTE,
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            ..Default::default()
        });
        let main = client.run(&id, &pod, &container).await.unwrap();
        let memory =
            cgroup_file(machine, &main, ("memory", "memory.limit_in_bytes"), "memory.max").await;
        assert_eq!(memory.trim(), (64 * MEBIBYTE).to_string());
        let cpu = cgroup_file(machine, &main, ("cpu", "cpu.cfs_quota_us"), "cpu.max").await;
        assert!(cpu.starts_with("50000"), "{cpu}");
        let own = cgroup_file(machine, &main, ("pids", "cgroup.procs"), "cgroup.procs").await;
        assert_eq!(own.lines().count(), 1, "{own}");
    });
}

#[test]
fn too_much_memory_is_reported() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        client.pull(&image).await.unwrap();
        let pod = Pod::new(machine, "hungry");
        let id = client.run_pod(&pod).await.unwrap();
        // The shell's own memory grows without end.
        let mut container =
            Container::shell("main", &image, "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done");
        container.linux().resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: 24 * MEBIBYTE,
            memory_swap_limit_in_bytes: 24 * MEBIBYTE,
            ..Default::default()
        });
        let main = client.run(&id, &pod, &container).await.unwrap();
        let status = client.ended(&main).await;
        assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
    });
}
