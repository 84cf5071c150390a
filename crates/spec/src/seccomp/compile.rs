//! From a profile to a program: one balanced tree over the numbers for each
//! architecture.

use std::collections::BTreeMap;

use super::assembler::{
    AND, Assembler, Instruction, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, Label,
};
use super::{Arch, number};
use crate::error::{Error, Result};
use crate::oci::{Action, ArgCondition, Comparison, Seccomp, SyscallRule};

// linux/seccomp.h: offsets in `struct seccomp_data`, and return values.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const KILL_THREAD: u32 = 0;
pub(super) const TRAP: u32 = 0x0003_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const NOTIFY: u32 = 0x7fc0_0000;
pub(super) const TRACE: u32 = 0x7ff0_0000;
pub(super) const LOG: u32 = 0x7ffc_0000;
pub(super) const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
pub(super) const ENOSYS: u32 = 38;
const ERRNO_MAX: u32 = 4095;

/// Numbers of the x32 ABI have this bit.
const X32_BIT: u32 = 0x4000_0000;

/// Where the private calls of 32-bit ARM begin.
const ARM_PRIVATE: u32 = 0xf_0000;

/// Longest program that the kernel takes.
const PROGRAM_INSTRUCTIONS_MAX: usize = 4096;

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// `struct sock_filter` array, in the byte order of this machine.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`
    pub flags: u32,
    /// Some call is answered by one who listens.
    pub notifies: bool,
}

/// Compiles a filter for processes of `native`.
///
/// As libseccomp has it: a rule without conditions overrides those with; of
/// several rules with conditions the first that holds counts; a process of an
/// architecture that the profile does not list is killed. Beyond it: a call
/// newer than any that the profile names fails with ENOSYS where the default
/// would be a refusal, so that programs fall back to older calls. And calls of
/// the x32 ABI fail with ENOSYS where the profile lists it: kernels no longer
/// offer it.
pub fn compile(profile: &Seccomp, native: Arch) -> Result<Filter> {
    let mut assembler = Assembler::default();
    let (arches, x32) = architectures(profile, native)?;
    let bad = assembler.return_value(KILL_PROCESS);
    let mut next = bad;
    for arch in arches.iter().rev() {
        let section = section(&mut assembler, profile, *arch, x32)?;
        next = assembler.branch(JUMP_EQUAL, arch.audit(), section, next);
    }
    assembler.then(LOAD, OFFSET_ARCH, next);
    let program = assembler.finish();
    if program.len() > PROGRAM_INSTRUCTIONS_MAX {
        return Err(filter(format!(
            "it comes to {} instructions, and the kernel takes {PROGRAM_INSTRUCTIONS_MAX}; use fewer conditions",
            program.len()
        )));
    }
    let notifies = profile.default_action == Action::Notify
        || profile.syscalls.iter().any(|rule| rule.action == Action::Notify);
    Ok(Filter { program: encode(&program), flags: flags(profile)?, notifies })
}

fn filter(reason: String) -> Error {
    Error::Filter { reason }
}

fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.push(instruction.jump_true);
        bytes.push(instruction.jump_false);
        bytes.extend_from_slice(&instruction.value.to_ne_bytes());
    }
    bytes
}

fn flags(profile: &Seccomp) -> Result<u32> {
    // As other runtimes: a filter is no reason to slow speculation down.
    const SPEC_ALLOW: u32 = 4;
    let mut bits = if profile.flags.is_empty() { SPEC_ALLOW } else { 0 };
    for flag in &profile.flags {
        bits |= match flag.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => 1,
            "SECCOMP_FILTER_FLAG_LOG" => 2,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 32,
            other => return Err(filter(format!("there is no flag {other:?}"))),
        };
    }
    Ok(bits)
}

/// The architectures to filter for, the native one first; and whether x32 is
/// among those listed.
fn architectures(profile: &Seccomp, native: Arch) -> Result<(Vec<Arch>, bool)> {
    let mut list = vec![native];
    let mut x32 = false;
    for name in &profile.architectures {
        match Arch::from_profile(name) {
            Some(arch) if arch.is_wide() && arch != native => {}
            Some(arch) if list.contains(&arch) => {}
            Some(arch) => list.push(arch),
            None if name == "SCMP_ARCH_X32" => x32 = true,
            None if name.starts_with("SCMP_ARCH_") => {}
            None => return Err(filter(format!("there is no architecture {name:?}"))),
        }
    }
    // Each of the two families only with its own.
    let family = |arch: &Arch| matches!(arch, Arch::X86_64 | Arch::X86);
    list.retain(|arch| family(arch) == family(&native));
    Ok((list, x32))
}

fn return_value(action: Action, errno: Option<u32>) -> Result<u32> {
    let errno = errno.unwrap_or(EPERM);
    if errno > ERRNO_MAX {
        return Err(filter(format!("{errno} is no errno")));
    }
    Ok(match action {
        Action::KillThread => KILL_THREAD,
        Action::KillProcess => KILL_PROCESS,
        Action::Trap => TRAP,
        Action::Errno => ERRNO | errno,
        Action::Trace => TRACE | errno,
        Action::Allow => ALLOW,
        Action::Log => LOG,
        Action::Notify => NOTIFY,
    })
}

/// What becomes of a call.
#[derive(Clone, PartialEq)]
enum Outcome {
    Return(u32),
    /// The first alternative whose conditions all hold.
    Choose(Vec<(Vec<ArgCondition>, u32)>),
}

/// The part of the program for one architecture, the number not loaded yet.
fn section(assembler: &mut Assembler, profile: &Seccomp, arch: Arch, x32: bool) -> Result<Label> {
    let default = return_value(profile.default_action, profile.default_errno_ret)?;
    let outcomes = outcomes(profile, arch)?;
    let unknown = match profile.default_action {
        Action::Allow | Action::Log | Action::Trace | Action::Notify => default,
        Action::Errno | Action::Trap | Action::KillThread | Action::KillProcess => ERRNO | ENOSYS,
    };
    let mut segments: Vec<(u32, Outcome)> = vec![(0, Outcome::Return(default))];
    let mut expected = 0;
    for (number, outcome) in outcomes {
        if number != expected {
            // ARM's private calls lie far above all others.
            let private = number >= ARM_PRIVATE && expected < ARM_PRIVATE;
            let gap = if private { unknown } else { default };
            add(&mut segments, expected, Outcome::Return(gap));
        }
        add(&mut segments, number, outcome);
        expected = number + 1;
    }
    add(&mut segments, expected, Outcome::Return(unknown));
    if arch == Arch::X86_64 {
        let foreign = if x32 { ERRNO | ENOSYS } else { KILL_PROCESS };
        add(&mut segments, X32_BIT, Outcome::Return(foreign));
    }
    let tree = tree(assembler, &segments, default, arch);
    Ok(assembler.then(LOAD, OFFSET_NUMBER, tree))
}

/// Adds a segment, unless it goes on as the one before.
fn add(segments: &mut Vec<(u32, Outcome)>, start: u32, outcome: Outcome) {
    if segments.last().is_some_and(|last| last.0 == start) {
        segments.pop();
    }
    if segments.last().is_none_or(|last| last.1 != outcome) {
        segments.push((start, outcome));
    }
}

fn outcomes(profile: &Seccomp, arch: Arch) -> Result<BTreeMap<u32, Outcome>> {
    let mut outcomes: BTreeMap<u32, Outcome> = BTreeMap::new();
    for rule in &profile.syscalls {
        let value = return_value(rule.action, rule.errno_ret)?;
        let alternatives = alternatives(rule)?;
        // A name that the architecture, or we, do not know cannot be called.
        for number in rule.names.iter().filter_map(|name| number(arch, name)) {
            let known = outcomes.entry(number).or_insert_with(|| Outcome::Choose(Vec::new()));
            match known {
                Outcome::Return(_) => {}
                Outcome::Choose(_) if alternatives.is_empty() => *known = Outcome::Return(value),
                Outcome::Choose(list) => {
                    list.extend(alternatives.iter().map(|all| (all.clone(), value)));
                }
            }
        }
    }
    Ok(outcomes)
}

/// The conditions of a rule: usually one list of which all must hold. Where an
/// argument is named twice, each is an alternative by itself: that is how
/// profiles have been written, and read by other runtimes, since Docker.
fn alternatives(rule: &SyscallRule) -> Result<Vec<Vec<ArgCondition>>> {
    let mut seen = [false; 6];
    let mut twice = false;
    for condition in &rule.args {
        let slot = seen.get_mut(condition.index as usize).ok_or_else(|| {
            filter(format!("argument {} does not exist; they are 0 to 5", condition.index))
        })?;
        twice |= std::mem::replace(slot, true);
    }
    Ok(match (rule.args.is_empty(), twice) {
        (true, _) => Vec::new(),
        (false, false) => vec![rule.args.clone()],
        (false, true) => rule.args.iter().map(|condition| vec![*condition]).collect(),
    })
}

/// A balanced tree over segments; the number is loaded.
fn tree(assembler: &mut Assembler, segments: &[(u32, Outcome)], default: u32, arch: Arch) -> Label {
    match segments {
        [] => assembler.return_value(default),
        [(_, outcome)] => leaf(assembler, outcome, default, arch),
        _ => {
            let (left, right) = segments.split_at(segments.len() / 2);
            let right_label = tree(assembler, right, default, arch);
            let left_label = tree(assembler, left, default, arch);
            assembler.branch(JUMP_GREATER_EQUAL, right[0].0, right_label, left_label)
        }
    }
}

fn leaf(assembler: &mut Assembler, outcome: &Outcome, default: u32, arch: Arch) -> Label {
    match outcome {
        Outcome::Return(value) => assembler.return_value(*value),
        Outcome::Choose(alternatives) => {
            let mut next = assembler.return_value(default);
            for (conditions, value) in alternatives.iter().rev() {
                let mut holds = assembler.return_value(*value);
                for wanted in conditions.iter().rev() {
                    holds = condition(assembler, *wanted, holds, next, arch);
                }
                next = holds;
            }
            next
        }
    }
}

/// One condition on an argument, both of whose halves are compared (the kernel
/// shows the upper one of 32-bit processes as zero).
fn condition(
    assembler: &mut Assembler,
    wanted: ArgCondition,
    yes: Label,
    no: Label,
    arch: Arch,
) -> Label {
    let cut = |value: u64| if arch.is_wide() { value } else { value & 0xffff_ffff };
    let (value, second) = (cut(wanted.value), cut(wanted.value_two));
    let argument = Argument { low: OFFSET_ARGS + 8 * wanted.index };
    match wanted.op {
        Comparison::Equal => argument.equal(assembler, None, value, yes, no),
        Comparison::NotEqual => argument.equal(assembler, None, value, no, yes),
        Comparison::MaskedEqual => argument.equal(assembler, Some(value), second, yes, no),
        Comparison::Greater => argument.order(assembler, JUMP_GREATER, value, yes, no),
        Comparison::GreaterOrEqual => argument.order(assembler, JUMP_GREATER_EQUAL, value, yes, no),
        Comparison::Less => argument.order(assembler, JUMP_GREATER_EQUAL, value, no, yes),
        Comparison::LessOrEqual => argument.order(assembler, JUMP_GREATER, value, no, yes),
    }
}

/// Where an argument's halves lie (little endian).
struct Argument {
    low: u32,
}

impl Argument {
    fn equal(
        &self,
        assembler: &mut Assembler,
        mask: Option<u64>,
        value: u64,
        yes: Label,
        no: Label,
    ) -> Label {
        let upper = |value: u64| (value >> 32) as u32;
        let halves = [
            (self.low, value as u32, mask.map(|mask| mask as u32)),
            (self.low + 4, upper(value), mask.map(upper)),
        ];
        let mut next = yes;
        for (offset, value, mask) in halves {
            next = assembler.branch(JUMP_EQUAL, value, next, no);
            if let Some(mask) = mask {
                next = assembler.then(AND, mask, next);
            }
            next = assembler.then(LOAD, offset, next);
        }
        next
    }

    fn order(
        &self,
        assembler: &mut Assembler,
        code: u16,
        value: u64,
        yes: Label,
        no: Label,
    ) -> Label {
        let low = assembler.branch(code, value as u32, yes, no);
        let low = assembler.then(LOAD, self.low, low);
        let high = (value >> 32) as u32;
        let same = assembler.branch(JUMP_EQUAL, high, low, no);
        let more = assembler.branch(JUMP_GREATER, high, yes, same);
        assembler.then(LOAD, self.low + 4, more)
    }
}
