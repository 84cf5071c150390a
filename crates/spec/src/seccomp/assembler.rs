//! A BPF program written from its end to its beginning.
//!
//! Jumps of classic BPF lead forward only, and conditional ones at most 255
//! instructions far. Backwards, every target is known when its jump is written,
//! and a far one gets a trampoline (an unconditional jump has 32 bits).

use std::collections::HashMap;

/// `struct sock_filter`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jump_true: u8,
    pub(super) jump_false: u8,
    pub(super) value: u32,
}

/// An instruction that was written already, counted from the program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

// linux/bpf_common.h
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

#[derive(Default)]
pub(super) struct Assembler {
    /// In reverse.
    code: Vec<Instruction>,
    /// Where each value is returned last, to be shared by what is near.
    returns: HashMap<u32, Label>,
}

impl Assembler {
    fn push(&mut self, code: u16, jump_true: u8, jump_false: u8, value: u32) -> Label {
        self.code.push(Instruction { code, jump_true, jump_false, value });
        Label(self.code.len() - 1)
    }

    /// How far it is from the next instruction to a target.
    fn distance(&self, target: Label) -> usize {
        self.code.len() - target.0 - 1
    }

    /// Something at most 255 instructions away that leads to the target, with
    /// room for the one more trampoline that may come in between.
    fn near(&mut self, target: Label) -> Label {
        if self.distance(target) < 254 {
            return target;
        }
        let distance = self.distance(target);
        // A program has at most 4096 instructions (BPF_MAXINSNS).
        self.push(JUMP, 0, 0, distance as u32)
    }

    /// Ends the program with a value.
    pub(super) fn return_value(&mut self, value: u32) -> Label {
        if let Some(label) = self.returns.get(&value).copied()
            && self.distance(label) < 200
        {
            return label;
        }
        let label = self.push(RETURN, 0, 0, value);
        self.returns.insert(value, label);
        label
    }

    /// Compares the loaded word.
    pub(super) fn branch(
        &mut self,
        code: u16,
        value: u32,
        if_true: Label,
        if_false: Label,
    ) -> Label {
        if if_true == if_false {
            return if_true;
        }
        let if_true = self.near(if_true);
        let if_false = self.near(if_false);
        let (jump_true, jump_false) = (self.distance(if_true), self.distance(if_false));
        self.push(code, jump_true as u8, jump_false as u8, value)
    }

    /// A step after which the program goes on at `next`.
    pub(super) fn then(&mut self, code: u16, value: u32, next: Label) -> Label {
        if self.distance(next) != 0 {
            let distance = self.distance(next);
            self.push(JUMP, 0, 0, distance as u32);
        }
        self.push(code, 0, 0, value)
    }

    /// The program, first instruction first; it begins at the instruction that
    /// was written last.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.code.reverse();
        self.code
    }
}
