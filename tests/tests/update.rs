//! Limits that are changed while their containers live.

use std::fs;

use corten_api::corten::UpdateContainerRequest;
use corten_api::corten::corten_client::CortenClient;
use corten_api::cri;
use corten_tests::group::{by_systemd, directory, setting, unified};
use corten_tests::{Machine, Scene};
use tonic::Code;

const MIB: i64 = 1 << 20;

/// Memory, quota, period and CPUs as the kernel has them.
fn limits(group: &str) -> [String; 4] {
    let max = setting("cpu", group, "cpu.cfs_quota_us", "cpu.max");
    let period = setting("cpu", group, "cpu.cfs_period_us", "cpu.max");
    let first = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
    [
        setting("memory", group, "memory.limit_in_bytes", "memory.max"),
        first(max),
        period.split(' ').next_back().unwrap_or_default().to_owned(),
        setting("cpuset", group, "cpuset.cpus", "cpuset.cpus"),
    ]
}

/// Bytes of memory and swap together, or of swap alone where v2 has it so.
fn swap(group: &str) -> String {
    setting("memory", group, "memory.memsw.limit_in_bytes", "memory.swap.max")
}

fn limited(resources: &mut cri::LinuxContainerResources) {
    resources.memory_limit_in_bytes = 64 * MIB;
    resources.memory_swap_limit_in_bytes = 64 * MIB;
    resources.cpu_quota = 50_000;
    resources.cpu_period = 100_000;
    resources.cpu_shares = 512;
    resources.oom_score_adj = 700;
}

#[test]
fn a_part_is_changed_and_the_rest_stays() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|c| limited(c.linux().resources.get_or_insert_default())).await;
        let group = scene.group(&id);
        let bytes = |mib: i64| (mib * MIB).to_string();

        // As the kubelet does it: the CPU alone, then memory alone.
        scene.client.update(&id, |r| r.cpu_quota = 20_000).await.unwrap();
        let [memory, quota, period, _] = limits(&group);
        assert_eq!([memory, quota, period], [bytes(64), "20000".into(), "100000".into()]);
        scene.client.update(&id, |r| r.memory_limit_in_bytes = 128 * MIB).await.unwrap();
        assert_eq!(limits(&group)[0], bytes(128));
        assert!([bytes(128), "0".into()].contains(&swap(&group)), "still no swap");
        scene.client.update(&id, |r| r.cpuset_cpus = "0".into()).await.unwrap();
        assert_eq!(limits(&group)[3], "0");
        // Less again: memory and swap in the other order.
        scene.client.update(&id, |r| r.memory_limit_in_bytes = 32 * MIB).await.unwrap();
        assert_eq!(limits(&group)[0], bytes(32));

        let check = async |client: &mut corten_tests::Client| {
            let status = client.status(&id).await.unwrap();
            let linux = status.resources.unwrap().linux.unwrap();
            assert_eq!(linux.memory_limit_in_bytes, 32 * MIB);
            assert_eq!(linux.memory_swap_limit_in_bytes, 32 * MIB);
            assert_eq!((linux.cpu_quota, linux.cpu_period), (20_000, 100_000));
            assert_eq!((linux.cpu_shares, linux.oom_score_adj), (512, 700));
            assert_eq!(linux.cpuset_cpus, "0");
        };
        check(&mut scene.client).await;
        daemon.restart().await;
        let mut client = daemon.client().await;
        check(&mut client).await;
        assert_eq!(limits(&group)[0], bytes(32));
    });
}

#[test]
fn all_or_nothing() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|c| limited(c.linux().resources.get_or_insert_default())).await;
        let group = scene.group(&id);
        let before = (limits(&group), swap(&group));
        let status = scene.client.status(&id).await.unwrap();

        let mut refused = async |change: fn(&mut cri::LinuxContainerResources)| {
            let error = scene
                .client
                .update(&id, |r| {
                    r.memory_limit_in_bytes = 96 * MIB;
                    r.cpu_quota = 90_000;
                    r.cpu_period = 90_000;
                    change(r);
                })
                .await
                .unwrap_err();
            assert_eq!((limits(&group), swap(&group)), before, "{error}");
            error
        };
        let error = refused(|r| r.cpuset_cpus = "0-4095".into()).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains("cpuset.cpus"), "{error}");
        let error = refused(|r| drop(r.unified.insert("no.such".into(), "1".into()))).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let error = refused(|r| {
            r.hugepage_limits = vec![cri::HugepageLimit { page_size: "3MB".into(), limit: 1 }];
        })
        .await;
        assert!(error.message().contains("3MB"), "{error}");
        let error = refused(|r| r.memory_swap_limit_in_bytes = MIB).await;
        assert!(error.message().contains("together"), "{error}");
        let error = refused(|r| r.cpu_shares = -1).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert_eq!(scene.client.status(&id).await.unwrap(), status);
    });
}

#[test]
fn memory_that_is_in_use_is_not_taken() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        // 32 MiB in a file that lies in memory, and counts for the container.
        let script = "head -c 33554432 /dev/zero > /dev/shm/ballast; echo full; exec sleep 1000";
        let mut container = scene.shell(script);
        limited(container.linux().resources.get_or_insert_default());
        let id = scene.start(&container).await.unwrap();
        scene.logged(&container, "full").await;
        let error =
            scene.client.update(&id, |r| r.memory_limit_in_bytes = 16 * MIB).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("bytes are in use"), "{error}");
        let status = scene.client.status(&id).await.unwrap();
        assert_eq!(status.state, cri::ContainerState::ContainerRunning as i32);
        assert_eq!(status.resources.unwrap().linux.unwrap().memory_limit_in_bytes, 64 * MIB);
    });
}

#[test]
fn before_the_start_and_after_the_end() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let container = scene.shell("exec tail /dev/zero");
        let id = scene.client.create(&scene.id, &scene.pod, &container).await.unwrap();
        let little = |r: &mut cri::LinuxContainerResources| {
            r.memory_limit_in_bytes = 16 * MIB;
            r.memory_swap_limit_in_bytes = 16 * MIB;
        };
        scene.client.update(&id, little).await.unwrap();
        let status = scene.client.status(&id).await.unwrap();
        assert_eq!(status.state, cri::ContainerState::ContainerCreated as i32);
        assert_eq!(status.resources.unwrap().linux.unwrap().memory_limit_in_bytes, 16 * MIB);
        scene.client.start(&id).await.unwrap();
        let status = scene.client.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        let error = scene.client.update(&id, little).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("it has ended"), "{error}");
        let error = scene.client.update("f00", little).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
    });
}

#[test]
fn huge_pages_and_files_of_v2() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        let group = scene.group(&id);
        let page = |size: &str, limit| cri::HugepageLimit { page_size: size.into(), limit };
        let alone = directory("memory", &group).starts_with(unified());
        let (file, value) =
            if alone { ("memory.high", "33554432") } else { ("cgroup.max.depth", "7") };
        scene
            .client
            .update(&id, |r| {
                r.hugepage_limits = vec![page("2MB", 4 << 20)];
                r.unified.insert(file.into(), value.into());
            })
            .await
            .unwrap();
        let huge = setting("hugetlb", &group, "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
        assert_eq!(huge, (4 << 20).to_string());
        let path = unified().join(&group[1..]).join(file);
        assert_eq!(fs::read_to_string(path).unwrap().trim(), value);
        scene.client.update(&id, |r| r.hugepage_limits = vec![page("2MB", 0)]).await.unwrap();
        let linux = scene.client.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
        assert_eq!(linux.hugepage_limits, [page("2MB", 0)]);
        assert_eq!(linux.unified[file], value);
    });
}

#[test]
fn a_pod_as_a_whole() {
    Machine::run(async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |pod| {
            pod.config.linux.get_or_insert_default().resources =
                Some(cri::LinuxContainerResources {
                    memory_limit_in_bytes: 256 * MIB,
                    cpu_quota: 100_000,
                    cpu_period: 100_000,
                    ..Default::default()
                });
        })
        .await;
        let group = machine.pod_group(&scene.id);
        let memory = |group: &str| setting("memory", group, "memory.limit_in_bytes", "memory.max");
        assert_eq!(memory(&group), (256 * MIB).to_string());
        let update = |id: &str, mib: i64| cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.into(),
            resources: Some(cri::LinuxContainerResources {
                memory_limit_in_bytes: mib * MIB,
                ..Default::default()
            }),
            overhead: Some(cri::LinuxContainerResources {
                memory_limit_in_bytes: 8 * MIB,
                ..Default::default()
            }),
        };
        scene.client.runtime.update_pod_sandbox_resources(update(&scene.id, 96)).await.unwrap();
        assert_eq!(memory(&group), (96 * MIB).to_string());
        let verbose =
            cri::PodSandboxStatusRequest { pod_sandbox_id: scene.id.clone(), verbose: true };
        daemon.restart().await;
        let mut client = daemon.client().await;
        let status = client.runtime.pod_sandbox_status(verbose).await.unwrap().into_inner();
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
        let kept = info.to_string();
        assert!(kept.contains(&(96 * MIB).to_string()) && kept.contains(&(8 * MIB).to_string()));

        // It holds for all of its containers together.
        let container = scene.shell("exec tail /dev/zero");
        scene.client = client;
        let id = scene.start(&container).await.unwrap();
        let status = scene.client.ended(&id).await;
        assert_eq!(status.exit_code, 137);

        // Where the group is the client's, so are its limits.
        if by_systemd() {
            return;
        }
        let parent = format!("{}/kubepods/pod-7", machine.cgroup());
        let of_parent = directory("memory", &parent);
        fs::create_dir_all(&of_parent).unwrap();
        let before = memory(&parent);
        let mut pod = corten_tests::client::Pod::new(machine, "kubelets");
        pod.config.linux.get_or_insert_default().cgroup_parent = parent.clone();
        let id = scene.client.run_pod(&pod).await.unwrap();
        scene.client.runtime.update_pod_sandbox_resources(update(&id, 64)).await.unwrap();
        assert_eq!(memory(&parent), before);
        scene.client.stop_pod(&id).await.unwrap();
        let error =
            scene.client.runtime.update_pod_sandbox_resources(update(&id, 64)).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        scene.client.remove_pod(&id).await.unwrap();
        let cgroups = corten_kernel::cgroup::Cgroups::probe().unwrap();
        cgroups.remove(&format!("{}/kubepods", machine.cgroup())).unwrap();
    });
}

#[test]
fn people_update_and_start_again() {
    Machine::run(async |machine, daemon| {
        let mut client = daemon.client().await;
        let image = machine.image("busybox");
        let channel = corten_api::connect(daemon.socket()).await.unwrap();
        let mut people = CortenClient::new(channel);
        let namespace = "k8s.io".to_owned();
        client.pull(&image).await.unwrap();
        let spec = corten_api::corten::ContainerSpec {
            name: "web".into(),
            image,
            command: ["/bin/sh", "-c", "exec sleep 1000"].map(str::to_owned).to_vec(),
            memory_bytes: 64 << 20,
            ..Default::default()
        };
        let request = corten_api::corten::CreateContainerRequest {
            namespace: namespace.clone(),
            container: Some(spec),
        };
        let id = people.create_container(request).await.unwrap().into_inner().id;
        let start = corten_api::corten::StartContainerRequest {
            namespace: namespace.clone(),
            container: "web".into(),
        };
        people.start_container(start.clone()).await.unwrap();
        let group = |client: Vec<cri::Container>| {
            let sandbox = client.into_iter().find(|c| c.id == id).unwrap().pod_sandbox_id;
            format!("{}/{id}", machine.pod_group(&sandbox))
        };
        let group = group(client.containers().await);
        let update = |memory: u64, pids: Option<u64>| UpdateContainerRequest {
            namespace: namespace.clone(),
            container: "web".into(),
            memory_bytes: Some(memory << 20),
            pids,
            ..Default::default()
        };
        people.update_container(update(96, Some(50))).await.unwrap();
        assert_eq!(limits(&group)[0], (96 * MIB).to_string());
        assert_eq!(setting("pids", &group, "pids.max", "pids.max"), "50");
        // One that has ended gets them when it is started again.
        client.stop(&id, 0).await.unwrap();
        people.update_container(update(48, None)).await.unwrap();
        people.start_container(start).await.unwrap();
        assert_eq!(limits(&group)[0], (48 * MIB).to_string());
        assert_eq!(setting("pids", &group, "pids.max", "pids.max"), "50");
    });
}
