//! Documents that people and vendors write: seccomp profiles, CDI files, OCI
//! specs; and the plans that specs become.

use std::sync::Arc;

use corten_kernel::launch::FdIndex;
use corten_protocol::plan::PlanView;
use corten_spec::cdi::{self, Document, Format, NodeFact, Registry};
use corten_spec::container::CgroupLayout;
use corten_spec::oci::{NamespaceType, Spec};
use corten_spec::request::Map;
use corten_spec::seccomp::{Arch, Machine, compile, default_profile, parse_profile};
use corten_spec::{
    ExecBase, LowerInput, bind_sources, capabilities, cgroup_resources, filter, lower, lower_exec,
    v1_cgroups,
};

pub(super) const SECCOMP_WORDS: &[&[u8]] = &[
    b"\"SCMP_ACT_ALLOW\"",
    b"\"SCMP_ACT_NOTIFY\"",
    b"\"SCMP_ACT_TRACE\"",
    b"\"SCMP_CMP_MASKED_EQ\"",
    b"\"SCMP_ARCH_X86\"",
    b"\"SCMP_ARCH_AARCH64\"",
    b"\"errnoRet\":",
    b"\"clone\",",
    b"\"args\":[{\"index\":",
    b"18446744073709551615",
];

pub(super) fn seccomp_seeds() -> Vec<Vec<u8>> {
    let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
        "syscalls":[{"names":["read","write","openat"],"action":"SCMP_ACT_ALLOW"},
        {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,
        "valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["ptrace"],"action":"SCMP_ACT_TRACE","errnoRet":7,"includes":{"minKernel":"4.8"}},
        {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[
        {"index":0,"value":8,"op":"SCMP_CMP_EQ"},{"index":1,"value":1,"op":"SCMP_CMP_GE"}]}]}"#;
    let plain = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
        "flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"name":"mkdir","action":"SCMP_ACT_KILL"}]}"#;
    let machine = Machine { capabilities: 0, kernel: (6, 1) };
    let default = serde_json::to_vec(&default_profile(&machine)).expect("a profile");
    vec![profile.into(), plain.into(), default]
}

/// What a profile becomes must be a program that the kernel takes.
pub(super) fn seccomp(bytes: &[u8]) {
    let machine = Machine { capabilities: capabilities::SYS_ADMIN, kernel: (6, 1) };
    let Ok(profile) = parse_profile("fuzz", bytes, &machine) else { return };
    for arch in [Arch::X86_64, Arch::Aarch64] {
        if let Ok(filter) = compile(&profile, arch) {
            check_program(&filter.program);
        }
    }
}

/// The kernel's own rules: jumps go forward and stay inside, the end returns.
fn check_program(program: &[u8]) {
    const JUMP: u16 = 5;
    const RETURN: u16 = 6;
    let (instructions, rest) = program.as_chunks::<8>();
    let count = instructions.len();
    assert!(rest.is_empty() && (1..=4096).contains(&count), "{count} instructions");
    for (at, [low, high, yes, no, k @ ..]) in instructions.iter().enumerate() {
        let code = u16::from_le_bytes([*low, *high]);
        if code & 7 == JUMP {
            let far = u32::from_le_bytes(*k) as usize;
            let jumps = if code & 0xf0 == 0 { [far, far] } else { [*yes, *no].map(usize::from) };
            assert!(jumps.iter().all(|jump| at + 1 + jump < count), "a jump leaves the program");
        }
    }
    let last = instructions[count - 1];
    assert_eq!(u16::from_le_bytes([last[0], last[1]]) & 7, RETURN, "the end does not return");
}

pub(super) const CDI_WORDS: &[&[u8]] = &[
    b"containerEdits:\n",
    b"  - ",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"deviceNodes:",
    b"hookName: poststop",
    b"0o777",
    b"{",
    b"---\n",
    b"<<: ",
];

pub(super) fn cdi_seeds() -> Vec<Vec<u8>> {
    let yaml = "cdiVersion: 0.8.0\nkind: vendor.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    \
        deviceNodes:\n    - path: /dev/gpu0\n      permissions: rw\n    - {path: /dev/x, hostPath: /dev/gpu0, \
        fileMode: 0640, uid: 7}\n    env: [GPUS=all]\n    additionalGids: [44]\ncontainerEdits:\n  mounts:\n  \
        - hostPath: /usr/lib/gpu.so\n    containerPath: /usr/lib/gpu.so\n    options: [ro, bind]\n  hooks:\n  \
        - hookName: createRuntime\n    path: /usr/bin/hook\n    args: [hook, setup]\n    timeout: 5\n";
    let json = r#"{"cdiVersion":"1.0.0","kind":"vendor.com/gpu","devices":[{"name":"all",
        "containerEdits":{"env":["A=b"],"deviceNodes":[{"path":"/dev/gpu0","type":"c","major":1,
        "minor":3}],"netDevices":[{"hostInterfaceName":"eth1","name":"fast"}]}}],
        "containerEdits":{"intelRdt":{"closID":"x"},"additionalGids":[5]}}"#;
    vec![[b"y", yaml.as_bytes()].concat(), [b"j", json.as_bytes()].concat()]
}

/// The first byte says in which format the rest is written.
pub(super) fn cdi(bytes: &[u8]) {
    let Some((format, text)) = bytes.split_first() else { return };
    let format = if format % 2 == 0 { Format::Json } else { Format::Yaml };
    if Document::parse(format, text).is_err() {
        return;
    }
    let mut registry = Registry::default();
    let name = if format == Format::Json { "fuzz.json" } else { "fuzz.yaml" };
    registry.add(name, 0, Ok(text));
    let Ok(names) = cdi::wanted(&["vendor.com/gpu=all".to_owned()], &Map::new()) else { return };
    let node = NodeFact { kind: 'c', major: 1, minor: 3, mode: 0o666 };
    let mut spec = example();
    if cdi::apply(&mut spec, &registry, &names, &|_| Some(node)).is_ok() {
        let again = Spec::from_json(&spec.to_json()).expect("what was edited is a spec");
        assert_eq!(again, spec);
        into_plan(&spec);
    }
}

pub(super) const SPEC_WORDS: &[&[u8]] = &[
    b"\"namespaces\":[{\"type\":\"user\"}],",
    b"\"hooks\":{\"startContainer\":[{\"path\":\"/x\"}]},",
    b"\"type\":\"bind\",",
    b"\"options\":[\"rro\",\"rshared\",\"tmpcopyup\"],",
    b"\"uidMappings\":[{\"containerID\":0,\"hostID\":1,\"size\":1}],",
    b"\"devices\":[{\"path\":\"/dev/x\",\"type\":\"b\"}],",
    b"\"capabilities\":{},",
    b"\"../../\"",
    b"\\u0000",
];

pub(super) fn spec_seeds() -> Vec<Vec<u8>> {
    let rich = r#"{"ociVersion":"1.2.0","process":{"terminal":true,"user":{"uid":1,"gid":2,
        "additionalGids":[3]},"args":["sh","-c","x"],"env":["PATH=/bin","A=b"],"cwd":"/w",
        "capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"ambient":["CAP_KILL"]},
        "rlimits":[{"type":"RLIMIT_NOFILE","hard":9,"soft":8}],"noNewPrivileges":true,
        "apparmorProfile":"p","oomScoreAdj":-5,"selinuxLabel":"a:b:c:s0"},
        "root":{"path":"r","readonly":true},"hostname":"h","mounts":[
        {"destination":"/proc","type":"proc","source":"proc"},
        {"destination":"/d","type":"bind","source":"/s","options":["rbind","rro","rslave"],
         "uidMappings":[{"containerID":0,"hostID":5,"size":9}]},
        {"destination":"/dev","type":"tmpfs","source":"t","options":["mode=755","ro"]},
        {"destination":"/sys/fs/cgroup","type":"cgroup"}],
        "hooks":{"createRuntime":[{"path":"/h","timeout":3}],"startContainer":[{"path":"/i"}]},
        "linux":{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"cgroup"}],
        "devices":[{"path":"/dev/f","type":"c","major":10,"minor":229,"fileMode":438}],
        "sysctl":{"net.core.somaxconn":"9"},"resources":{"memory":{"limit":5},"cpu":{"shares":2},
        "devices":[{"allow":false,"access":"rwm"}],"unified":{"memory.high":"1"}},
        "seccomp":{"defaultAction":"SCMP_ACT_ALLOW"},"maskedPaths":["/proc/kcore"],
        "readonlyPaths":["/proc/sys"]}}"#;
    vec![example().to_json(), rich.into()]
}

/// A container of no more than a command.
fn example() -> Spec {
    let text = br#"{"ociVersion":"1.2.0","process":{"args":["/bin/true"],"cwd":"/","user":{"uid":0,
        "gid":0}},"root":{"path":"r"},"mounts":[{"destination":"/proc","type":"proc"}],
        "linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#;
    Spec::from_json(text).expect("a right spec")
}

/// A spec that can be read is refused, or becomes a plan that the shim reads.
pub(super) fn spec(bytes: &[u8]) {
    let Ok(spec) = Spec::from_json(bytes) else { return };
    into_plan(&spec);
}

fn into_plan(spec: &Spec) -> Vec<Vec<u8>> {
    let linux = spec.linux.clone().unwrap_or_default();
    let _ = cgroup_resources(&linux);
    let binds: Vec<FdIndex> =
        (1..=bind_sources(spec, &[]).len()).map(|place| FdIndex(place as u16)).collect();
    let first = binds.len() as u16 + 1;
    let kinds = [NamespaceType::Network, NamespaceType::Ipc, NamespaceType::Uts];
    let namespaces: Vec<_> = kinds.into_iter().zip((first..).map(FdIndex)).collect();
    let names = ["cpu,cpuacct", "systemd"].map(str::to_owned).to_vec();
    let layout = CgroupLayout::V1 { hierarchies: names };
    let input = LowerInput {
        id: "id",
        bundle: "/bundle",
        fd_count: first + 6,
        root: FdIndex(0),
        binds: &binds,
        namespaces: &namespaces,
        pid_of: "",
        own_mounts: &[],
        v1_cgroups: &v1_cgroups(spec, &layout, first + 4),
        host_mounts: Some(FdIndex(first + 3)),
    };
    let compiled = linux.seccomp.as_ref().and_then(|profile| filter(profile).ok()).map(Arc::new);
    let mut plans: Vec<Vec<u8>> = lower(spec, &input, compiled.as_deref()).into_iter().collect();
    if let Some(process) = &spec.process {
        plans.extend(lower_exec(&ExecBase::new(spec, compiled), process, false));
    }
    for plan in &plans {
        if let Err(error) = PlanView::parse(plan) {
            panic!("a plan that was written cannot be read: {error}");
        }
    }
    plans
}

/// The plans of right specs.
pub(super) fn plans() -> Vec<Vec<u8>> {
    let specs = spec_seeds();
    let specs = specs.iter().map(|text| Spec::from_json(text).expect("a right spec"));
    let plans: Vec<_> = specs.flat_map(|spec| into_plan(&spec)).collect();
    assert!(plans.len() >= 3, "right specs have plans");
    plans
}
