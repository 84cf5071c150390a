//! The BPF program that decides about devices on v2, assembled from rules.

use super::devices::{DeviceKind, DeviceRule};

/// One instruction, as the kernel has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Parts of instruction codes.
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const AND_NUMBER: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_NOT_EQUAL: u8 = 0x55;
/// Compares the low 32 bits: numbers above 2^31 are not made negative.
const JUMP_NOT_EQUAL_32: u8 = 0x56;
const JUMP_ANY_OF: u8 = 0x45;
const EXIT: u8 = 0x95;

// Rights and kinds, as the kernel numbers them.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

// What the registers hold.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The rights that are asked for and not yet granted by any rule.
const RIGHTS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn number(code: u8, destination: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset, immediate }
}

fn register(code: u8, destination: u8, source: u8, offset: i16) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate: 0 }
}

/// Assembles the program. It walks the rules from the last to the first: a
/// rule that fits denies at once, or grants its rights; when all that was
/// asked for is granted, the answer is yes. What no rule speaks of is allowed,
/// as in a group without a program.
pub(super) fn assemble(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        register(LOAD_WORD, KIND, CONTEXT, 0),
        register(MOVE_REGISTER, RIGHTS, KIND, 0),
        number(AND_NUMBER, KIND, 0, 0xffff),
        number(SHIFT_RIGHT, RIGHTS, 0, 16),
        register(LOAD_WORD, MAJOR, CONTEXT, 4),
        register(LOAD_WORD, MINOR, CONTEXT, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(one_rule(rule));
        // What follows a total rule would not be reached, which the kernel's
        // verifier refuses to load.
        if rule.is_total() {
            return program;
        }
    }
    program.extend([number(MOVE_NUMBER, RESULT, 0, 1), number(EXIT, 0, 0, 0)]);
    program
}

fn one_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let rights = [(rule.mknod, MKNOD), (rule.read, READ), (rule.write, WRITE)];
    let rights = rights.iter().filter(|(set, _)| *set).fold(0, |all, (_, right)| all | right);
    if rule.is_total() {
        let answer = number(MOVE_NUMBER, RESULT, 0, i32::from(rule.allow));
        return vec![answer, number(EXIT, 0, 0, 0)];
    }
    let verdict = if rule.allow {
        vec![
            number(AND_NUMBER, RIGHTS, 0, !rights),
            number(JUMP_NOT_EQUAL, RIGHTS, 2, 0),
            number(MOVE_NUMBER, RESULT, 0, 1),
            number(EXIT, 0, 0, 0),
        ]
    } else {
        vec![
            number(JUMP_ANY_OF, RIGHTS, 1, rights),
            number(JUMP, 0, 2, 0),
            number(MOVE_NUMBER, RESULT, 0, 0),
            number(EXIT, 0, 0, 0),
        ]
    };
    let mut tests = Vec::new();
    match rule.kind {
        DeviceKind::Any => {}
        DeviceKind::Character => tests.push((KIND, CHARACTER)),
        DeviceKind::Block => tests.push((KIND, BLOCK)),
    }
    tests.extend(rule.major.map(|major| (MAJOR, major as i32)));
    tests.extend(rule.minor.map(|minor| (MINOR, minor as i32)));
    let end = tests.len() + verdict.len();
    let skips = tests.iter().enumerate().map(|(at, (register, value))| {
        number(JUMP_NOT_EQUAL_32, *register, (end - at - 1) as i16, *value)
    });
    skips.chain(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], kind: i32, rights: i32, major: u32, minor: u32) -> bool {
        let context = [(rights << 16 | kind) as u32, major, minor];
        let mut registers = [0u64; 6];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: named, offset, immediate } = program[at];
            let (to, from) = (usize::from(named & 15), usize::from(named >> 4));
            let jump = match code {
                LOAD_WORD => {
                    registers[to] = context[offset as usize / 4].into();
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                MOVE_NUMBER => {
                    registers[to] = immediate as u64;
                    false
                }
                AND_NUMBER => {
                    registers[to] &= i64::from(immediate) as u64;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= immediate;
                    false
                }
                JUMP => true,
                JUMP_NOT_EQUAL => registers[to] != immediate as u64,
                JUMP_NOT_EQUAL_32 => registers[to] as u32 != immediate as u32,
                JUMP_ANY_OF => registers[to] & immediate as u64 != 0,
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            };
            at += 1 + if jump { offset as usize } else { 0 };
        }
    }

    fn rule(
        allow: bool,
        kind: DeviceKind,
        major: u32,
        minor: Option<u32>,
        rights: &str,
    ) -> DeviceRule {
        DeviceRule {
            allow,
            kind,
            major: Some(major),
            minor,
            read: rights.contains('r'),
            write: rights.contains('w'),
            mknod: rights.contains('m'),
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides_each_right() {
        use DeviceKind::{Any, Block, Character};
        let rules = [
            DeviceRule::everything(false),
            rule(true, Character, 1, None, "r"),
            rule(true, Character, 1, Some(3), "wm"),
            rule(false, Character, 1, Some(8), "r"),
            rule(true, Any, u32::MAX, None, "rwm"),
            rule(true, Block, 8, Some(0), "rw"),
            rule(false, Block, 8, Some(0), "w"),
        ];
        let program = assemble(&rules);
        let ask = |kind, rights, major, minor| run(&program, kind, rights, major, minor);
        assert!(ask(CHARACTER, READ, 1, 5));
        assert!(!ask(CHARACTER, READ | WRITE, 1, 5));
        assert!(ask(CHARACTER, READ | WRITE | MKNOD, 1, 3), "granted by two rules together");
        assert!(!ask(CHARACTER, READ, 1, 8));
        assert!(!ask(BLOCK, READ, 1, 3));
        assert!(ask(BLOCK, MKNOD, u32::MAX, 7));
        assert!(!ask(CHARACTER, READ, u32::MAX - 1, 7));
        assert!(ask(BLOCK, READ, 8, 0));
        assert!(!ask(BLOCK, READ | WRITE, 8, 0));
    }

    #[test]
    fn without_a_total_rule_the_rest_is_allowed() {
        let program = assemble(&[rule(false, DeviceKind::Character, 1, Some(3), "w")]);
        assert!(!run(&program, CHARACTER, READ | WRITE, 1, 3));
        assert!(run(&program, CHARACTER, READ, 1, 3));
        assert!(run(&program, BLOCK, READ | WRITE | MKNOD, 8, 0));
    }
}
