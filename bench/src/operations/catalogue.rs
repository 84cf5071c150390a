//! The names of what is measured, in one place: reports, history and plots go
//! by them.

use super::Key;

/// RunPodSandbox, CreateContainer and StartContainer.
pub const POD_START: Key = ("pod-start", "pod start");
/// Its first part.
pub const RUN_SANDBOX: Key = ("run-pod-sandbox", "  RunPodSandbox");
/// Its second part.
pub const CREATE: Key = ("create-container", "  CreateContainer");
/// Its third part.
pub const START: Key = ("start-container", "  StartContainer");
/// ExecSync of `true`.
pub const EXEC: Key = ("exec", "ExecSync true");
/// Fifty of them, eight at once, all together.
pub const EXECS: Key = ("exec-50", "50 × ExecSync true, 8 at once");
/// StopContainer, RemoveContainer, StopPodSandbox and RemovePodSandbox.
pub const POD_STOP: Key = ("pod-stop", "stop and remove");
/// Its first part.
pub const STOP: Key = ("stop-container", "  StopContainer");
/// Its second part.
pub const REMOVE: Key = ("remove-container", "  RemoveContainer");
/// Its third part.
pub const STOP_SANDBOX: Key = ("stop-pod-sandbox", "  StopPodSandbox");
/// Its fourth part.
pub const REMOVE_SANDBOX: Key = ("remove-pod-sandbox", "  RemovePodSandbox");
/// From the start of a daemon without pods to its first answer.
pub const ANSWERS: Key = ("socket-answers", "socket answers Version");
/// Pods made, eight at once.
pub const UP: Key = ("crowd-up", "pods up, 8 at once");
/// The same pods taken away, eight at once.
pub const DOWN: Key = ("crowd-down", "pods down, 8 at once");
/// Processor time of the runtime, its helpers and the pod, for each pod made.
pub const UP_CPU: Key = ("cpu-up", "processor time per pod made");
/// The same for each pod taken away.
pub const DOWN_CPU: Key = ("cpu-down", "processor time per pod removed");
/// PSS of what stands by pods, for each pod.
pub const MONITORS: Key = ("monitor-pss", "monitors' PSS per pod");
/// What MemAvailable lost, for each pod.
pub const AVAILABLE: Key = ("mem-available", "MemAvailable per pod");
/// What cgroups are charged, for each pod.
pub const CHARGE: Key = ("cgroup-charge", "cgroup charge per pod");
/// The kernel's part of it.
pub const KERNEL: Key = ("cgroup-kernel", "  of it kernel memory");
/// PSS of the daemon.
pub const DAEMON: Key = ("daemon-pss", "daemon's PSS");
/// Processor time of the daemon while nothing happens.
pub const IDLE_DAEMON: Key = ("idle-cpu", "daemon's processor time, 30 s idle");
/// Of the daemon and everything that belongs to it.
pub const IDLE_ALL: Key = ("idle-cpu-all", "  with monitors and helpers");
/// From the start of a daemon that was killed to its first whole list.
pub const RESTART: Key = ("restart", "daemon start to first whole list");
/// ListContainers.
pub const LIST_CONTAINERS: Key = ("list-containers", "ListContainers");
/// ListPodSandbox.
pub const LIST_PODS: Key = ("list-pods", "ListPodSandbox");
/// ListContainerStats.
pub const CONTAINER_STATS: Key = ("container-stats", "ListContainerStats");
/// ListPodSandboxStats.
pub const POD_STATS: Key = ("pod-stats", "ListPodSandboxStats");
/// ListPodSandboxMetrics.
pub const METRICS: Key = ("pod-metrics", "ListPodSandboxMetrics");
/// RunPodSandbox, and three containers created and started.
pub const THREE_START: Key = ("three-start", "pod of three containers, start");
/// Their end, and the pod's.
pub const THREE_STOP: Key = ("three-stop", "  stop and remove");
/// The same as [`POD_START`], in a user namespace.
pub const USER_START: Key = ("userns-start", "pod in a user namespace, start");
/// The same as [`POD_STOP`].
pub const USER_STOP: Key = ("userns-stop", "  stop and remove");
/// The same as [`POD_START`], on a node with 5,000 mounts.
pub const MOUNTS_START: Key = ("mounts-start", "pod beside 5,000 mounts, start");
/// The same as [`POD_STOP`].
pub const MOUNTS_STOP: Key = ("mounts-stop", "  stop and remove");
/// The same as [`POD_STOP`], after much was written.
pub const DIRTY_STOP: Key = ("dirty-stop", "stop and remove, 200 MB dirty");
/// PSS of what stands by pods of three containers that have said nothing.
pub const SILENT: Key = ("monitor-pss-silent", "monitors' PSS per pod of three containers");
/// The same, after each container has said 1 MB.
pub const TALKED: Key = ("monitor-pss-talked", "  after 1 MB of logs from each");
/// How long a thousand execs take, of which 500 a second are asked for.
pub const STORM: Key = ("storm", "1,000 probes, 500 asked for in a second");
/// Each of them.
pub const STORM_EXEC: Key = ("storm-exec", "  each of them");
/// Processor time of the daemon for each.
pub const STORM_DAEMON: Key = ("storm-daemon", "  daemon's processor time for each");
/// Of everything that belongs to it, and of the pods.
pub const STORM_ALL: Key = ("storm-all", "  with monitors, helpers and pods");
/// An exec after ten seconds of quiet.
pub const LONE_EXEC: Key = ("lone-exec", "ExecSync true, after 10 s of quiet");
/// A pod's start after ten seconds of quiet.
pub const LONE_POD: Key = ("lone-pod", "pod start, after 10 s of quiet");
