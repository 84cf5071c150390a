//! Decisions of compiled filters.

use super::compile::{ALLOW, ENOSYS, ERRNO, KILL_PROCESS, LOG, TRACE};
use super::interpreter::run;
use super::*;
use crate::capabilities;
use crate::oci::{Action, ArgCondition, Comparison, Seccomp, SyscallRule};

const MACHINE: Machine = Machine { capabilities: 0, kernel: (5, 15) };
const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm];

fn rule(names: &[&str], action: Action, args: &[ArgCondition]) -> SyscallRule {
    SyscallRule {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action,
        errno_ret: None,
        args: args.to_vec(),
    }
}

fn profile(syscalls: Vec<SyscallRule>) -> Seccomp {
    Seccomp { default_action: Action::Errno, syscalls, ..Seccomp::default() }
}

fn condition(index: u32, op: Comparison, value: u64) -> ArgCondition {
    ArgCondition { index, value, value_two: 0, op }
}

fn decide(profile: &Seccomp, arch: Arch, name: &str, args: [u64; 6]) -> u32 {
    let filter = compile(profile, arch).unwrap();
    run(&filter.program, arch, number(arch, name).unwrap(), args)
}

#[test]
fn the_table_is_sorted_and_has_what_everyone_knows() {
    assert!(table::TABLE.is_sorted_by(|a, b| a.0 < b.0));
    let execve = ARCHES.map(|arch| number(arch, "execve").unwrap());
    assert_eq!(execve, [59, 11, 221, 11]);
    assert_eq!(number(Arch::Aarch64, "open"), None);
    assert_eq!(number(Arch::Arm, "set_tls"), Some(0xf0005));
}

#[test]
fn every_number_gets_its_decision_on_every_architecture() {
    for arch in ARCHES {
        // Every third call allowed: as many segments as there can be.
        let names: Vec<&str> = table::TABLE.iter().step_by(3).map(|(name, _)| *name).collect();
        let filter = compile(&profile(vec![rule(&names, Action::Allow, &[])]), arch).unwrap();
        let allowed: std::collections::BTreeSet<u32> =
            names.iter().filter_map(|name| number(arch, name)).collect();
        let last = *allowed.iter().rfind(|number| **number < 0xf0000).unwrap();
        for call in (0..2000).chain(0xf0000..0xf0010).chain([u32::MAX >> 4]) {
            let decision = run(&filter.program, arch, call, [0; 6]);
            let expected = if allowed.contains(&call) {
                ALLOW
            } else if call < last || (call > 0xf0000 && call < allowed.last().copied().unwrap()) {
                ERRNO | 1
            } else {
                ERRNO | ENOSYS
            };
            assert_eq!(decision, expected, "{arch:?} {call:#x}");
        }
    }
}

#[test]
fn foreign_architectures_and_x32() {
    let mut all = profile(vec![rule(&["read"], Action::Allow, &[])]);
    let filter = compile(&all, Arch::X86_64).unwrap();
    assert_eq!(run(&filter.program, Arch::X86, 3, [0; 6]), KILL_PROCESS);
    assert_eq!(run(&filter.program, Arch::X86_64, 0x4000_0000, [0; 6]), KILL_PROCESS);
    all.architectures =
        vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into(), "SCMP_ARCH_X32".into()];
    let filter = compile(&all, Arch::X86_64).unwrap();
    assert_eq!(run(&filter.program, Arch::X86, 3, [0; 6]), ALLOW);
    assert_eq!(run(&filter.program, Arch::X86_64, 0x4000_0000, [0; 6]), ERRNO | ENOSYS);
    assert_eq!(run(&filter.program, Arch::Aarch64, 63, [0; 6]), KILL_PROCESS);
}

#[test]
fn comparisons_of_64_bits() {
    let edges =
        [0, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x2_0000_0005, u64::MAX - 1, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let comparisons: [(Comparison, Holds); 6] = [
        (Comparison::Equal, |a, b| a == b),
        (Comparison::NotEqual, |a, b| a != b),
        (Comparison::Less, |a, b| a < b),
        (Comparison::LessOrEqual, |a, b| a <= b),
        (Comparison::Greater, |a, b| a > b),
        (Comparison::GreaterOrEqual, |a, b| a >= b),
    ];
    for (op, holds) in comparisons {
        for value in edges {
            let profile =
                profile(vec![rule(&["ioctl"], Action::Allow, &[condition(3, op, value)])]);
            for argument in edges {
                let decision = decide(&profile, Arch::X86_64, "ioctl", [9, 9, 9, argument, 9, 9]);
                let expected = if holds(argument, value) { ALLOW } else { ERRNO | 1 };
                assert_eq!(decision, expected, "{argument:#x} {op:?} {value:#x}");
            }
        }
    }
}

#[test]
fn masked_and_combined_conditions() {
    let masked = ArgCondition {
        index: 0,
        value: 0xff_0000_00ff,
        value_two: 0x12_0000_0034,
        op: Comparison::MaskedEqual,
    };
    let both = profile(vec![rule(
        &["ioctl"],
        Action::Allow,
        &[masked, condition(1, Comparison::Equal, 7)],
    )]);
    let decide = |first, second| decide(&both, Arch::Aarch64, "ioctl", [first, second, 0, 0, 0, 0]);
    assert_eq!(decide(0xaa12_aaaa_aa34, 7), ALLOW);
    assert_eq!(decide(0xaa12_aaaa_aa34, 8), ERRNO | 1);
    assert_eq!(decide(0xaa13_aaaa_aa34, 7), ERRNO | 1);
}

#[test]
fn an_argument_named_twice_means_either() {
    let either = profile(vec![rule(
        &["personality"],
        Action::Allow,
        &[condition(0, Comparison::Equal, 0), condition(0, Comparison::Equal, 8)],
    )]);
    for (value, expected) in [(0, ALLOW), (8, ALLOW), (4, ERRNO | 1)] {
        assert_eq!(decide(&either, Arch::X86_64, "personality", [value; 6]), expected);
    }
}

#[test]
fn unconditional_rules_win_and_the_first_condition_counts() {
    let rules = vec![
        rule(&["ioctl"], Action::Log, &[condition(0, Comparison::Equal, 1)]),
        rule(&["ioctl"], Action::Allow, &[condition(0, Comparison::LessOrEqual, 1)]),
        rule(&["read"], Action::Log, &[condition(0, Comparison::Equal, 1)]),
        rule(&["read"], Action::Allow, &[]),
    ];
    let all = profile(rules);
    assert_eq!(decide(&all, Arch::X86_64, "ioctl", [1, 0, 0, 0, 0, 0]), LOG);
    assert_eq!(decide(&all, Arch::X86_64, "ioctl", [0; 6]), ALLOW);
    assert_eq!(decide(&all, Arch::X86_64, "read", [1; 6]), ALLOW);
}

#[test]
fn actions_flags_and_what_is_refused() {
    let mut one = profile(vec![rule(&["read"], Action::Trace, &[])]);
    one.syscalls[0].errno_ret = Some(7);
    assert_eq!(decide(&one, Arch::X86_64, "read", [0; 6]), TRACE | 7);
    assert_eq!(compile(&one, Arch::X86_64).unwrap().flags, 4);
    one.flags = vec!["SECCOMP_FILTER_FLAG_LOG".into()];
    assert_eq!(compile(&one, Arch::X86_64).unwrap().flags, 2);
    one.flags = vec!["SECCOMP_FILTER_FLAG_WRONG".into()];
    assert!(compile(&one, Arch::X86_64).is_err());
    one.flags.clear();
    one.syscalls[0].errno_ret = Some(4096);
    assert!(compile(&one, Arch::X86_64).is_err());
    let many = (0..2000)
        .map(|value| rule(&["ioctl"], Action::Allow, &[condition(1, Comparison::Equal, value)]))
        .collect();
    assert!(compile(&profile(many), Arch::X86_64).is_err());
}

#[test]
fn the_default_profile_compiles_small_and_decides() {
    let default = default_profile(&MACHINE);
    let filter = compile(&default, Arch::X86_64).unwrap();
    assert!(filter.program.len() / 8 < 1000, "{} instructions", filter.program.len() / 8);
    let decide = |name, first| {
        let call = number(Arch::X86_64, name).unwrap();
        run(&filter.program, Arch::X86_64, call, [first, 0, 0, 0, 0, 0])
    };
    assert_eq!(decide("clone", 0x11), ALLOW);
    assert_eq!(decide("clone", 0x1000_0000), ERRNO | 1);
    assert_eq!(decide("clone3", 0), ERRNO | ENOSYS);
    assert_eq!(decide("socket", 2), ALLOW);
    assert_eq!(decide("socket", 40), ERRNO | 1);
    assert_eq!(decide("personality", 0x40000), ERRNO | 1);
    assert_eq!(decide("io_uring_setup", 0), ERRNO | 1);
    let admin = default_profile(&Machine { capabilities: capabilities::ALL, ..MACHINE });
    let filter = compile(&admin, Arch::X86_64).unwrap();
    let call = number(Arch::X86_64, "clone").unwrap();
    assert_eq!(run(&filter.program, Arch::X86_64, call, [0x1000_0000; 6]), ALLOW);
}

#[test]
fn profiles_in_dockers_format() {
    let text = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                   {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],
        "syscalls":[
          {"names":["read"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"x"},
          {"name":"write","action":"SCMP_ACT_ALLOW"},
          {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}},
          {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
          {"names":["kcmp"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.1"}},
          {"names":["acct"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}"#;
    let parsed = parse_profile("p", text, &MACHINE).unwrap();
    let names: Vec<&str> = parsed.syscalls.iter().map(|rule| rule.names[0].as_str()).collect();
    assert_eq!(names, ["read", "write", "clone", "ptrace"]);
    assert_eq!(parsed.architectures.len(), 2);
    let admin = Machine { capabilities: capabilities::ALL, kernel: (6, 1) };
    let parsed = parse_profile("p", text, &admin).unwrap();
    let names: Vec<&str> = parsed.syscalls.iter().map(|rule| rule.names[0].as_str()).collect();
    assert_eq!(names, ["read", "write", "bpf", "ptrace", "kcmp"]);
    for bad in ["", "{}", r#"{"defaultAction":"SCMP_ACT_NOPE"}"#] {
        assert!(parse_profile("p", bad.as_bytes(), &MACHINE).is_err(), "{bad}");
    }
}

/// The names after a title in the table of what peers decide.
fn peers(title: &str) -> Vec<&'static str> {
    let table = include_str!("peers.txt");
    let line = table.lines().find_map(|line| line.strip_prefix(title)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{title}")).split_whitespace().collect()
}

#[test]
fn the_default_profile_decides_as_peers_do() {
    let (column, title) = match Arch::NATIVE {
        Arch::Aarch64 | Arch::Arm => (2, "refused arm64"),
        Arch::X86_64 | Arch::X86 => (0, "refused amd64"),
    };
    let refused = |capabilities| {
        let profile = default_profile(&Machine { capabilities, ..MACHINE });
        let filter = compile(&profile, Arch::NATIVE).unwrap();
        let calls = table::TABLE.iter().filter(|(_, numbers)| numbers[column] >= 0);
        calls
            .filter(|(_, numbers)| {
                let decision = run(&filter.program, Arch::NATIVE, numbers[column] as u32, [0; 6]);
                // What is newer than all that the profile names.
                decision == ERRNO | 1 || decision == ERRNO | ENOSYS
            })
            .map(|(name, _)| *name)
            .filter(|name| *name != "clone3")
            .collect::<Vec<_>>()
    };
    let base = refused(0);
    assert_eq!(base, peers(title));
    for name in capabilities::NAMES {
        let has_line = include_str!("peers.txt").contains(&format!("\n{name}:"));
        let gained = if has_line { peers(name) } else { Vec::new() };
        let expected: Vec<&str> =
            base.iter().copied().filter(|call| !gained.contains(call)).collect();
        assert_eq!(refused(capabilities::bit(name).unwrap()), expected, "{name}");
    }
}

#[test]
fn address_families_that_may_be_opened() {
    let filter = compile(&default_profile(&MACHINE), Arch::X86_64).unwrap();
    let socket = number(Arch::X86_64, "socket").unwrap();
    let refused: Vec<u64> = (0..64)
        .filter(|family| {
            run(&filter.program, Arch::X86_64, socket, [*family, 0, 0, 0, 0, 0]) != ALLOW
        })
        .collect();
    assert_eq!(refused, [38, 40]);
}
