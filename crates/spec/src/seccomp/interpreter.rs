//! Runs compiled filters in tests, as the kernel would.

use super::Arch;
use super::assembler::{AND, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, RETURN};

/// The decision of a program on a call.
pub(super) fn run(program: &[u8], arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_le_bytes());
    data.extend_from_slice(&arch.audit().to_le_bytes());
    data.extend_from_slice(&0u64.to_le_bytes());
    for arg in args {
        data.extend_from_slice(&arg.to_le_bytes());
    }
    let code: Vec<(u16, u8, u8, u32)> = program
        .chunks(8)
        .map(|c| {
            (
                u16::from_ne_bytes([c[0], c[1]]),
                c[2],
                c[3],
                u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
            )
        })
        .collect();
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let (op, jt, jf, k) = code[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match op {
            LOAD => {
                let offset = k as usize;
                assert_eq!(offset % 4, 0);
                a = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            AND => a &= k,
            JUMP => at += k as usize,
            JUMP_EQUAL => at += jump(a == k),
            JUMP_GREATER => at += jump(a > k),
            JUMP_GREATER_EQUAL => at += jump(a >= k),
            RETURN => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}
