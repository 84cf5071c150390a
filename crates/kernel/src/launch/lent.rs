//! A child in its parent's memory, as `vfork` makes it.
//!
//! To fork a large process is dear: its page tables are copied, and then each
//! page that it writes to while the child is on its way. A child that soon
//! executes something else can do without a copy. It has a stack of its own,
//! and the thread that made it waits until it has executed or ended.

use std::arch::asm;
use std::ffi::c_void;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;

use crate::sys::{self, CloneArgs};

/// Several times of what a walk needs: paths, and tables of descriptors. Only
/// pages that are touched cost anything.
const STACK_BYTES: usize = 256 << 10;
/// Below the stack: whoever needs more dies here instead of writing elsewhere.
const GUARD_BYTES: usize = 64 << 10;

/// Where a child begins.
pub(super) type Entry = unsafe extern "C" fn(*const c_void) -> !;

/// Makes a child that runs `entry` with `argument`, and waits until it has
/// executed a program or ended: its pid and pidfd.
///
/// # Safety
/// `entry` must be right for `argument`, must not allocate, lock or unwind, and
/// must leave the caller's memory as it is, but for what lies in `argument` for
/// it: other threads go on meanwhile.
pub(super) unsafe fn run(
    entry: Entry,
    argument: *const c_void,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(i32, OwnedFd), Errno> {
    let stack = Stack::new()?;
    let mut pidfd: RawFd = -1;
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    let mut args = CloneArgs::new(flags, libc::SIGCHLD, cgroup, &raw mut pidfd);
    args.stack = stack.lowest as u64 + GUARD_BYTES as u64;
    args.stack_size = STACK_BYTES as u64;
    // SAFETY: the arguments name a stack that nobody else uses and that outlives
    // the child's time on it, for this returns only then.
    let returned = unsafe { clone3(&args, entry, argument) };
    if returned < 0 {
        return Err(Errno::from_raw_os_error(-returned as i32));
    }
    Ok((returned as i32, sys::own(pidfd as usize)))
}

/// A child's stack.
struct Stack {
    lowest: *mut c_void,
}

impl Stack {
    fn new() -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, anywhere.
        let lowest = unsafe {
            libc::mmap(ptr::null_mut(), GUARD_BYTES + STACK_BYTES, writable, flags, -1, 0)
        };
        if lowest == libc::MAP_FAILED {
            return Err(Errno::NOMEM);
        }
        let stack = Self { lowest };
        // SAFETY: the lower part of the mapping that was just made.
        match unsafe { libc::mprotect(lowest, GUARD_BYTES, libc::PROT_NONE) } {
            0 => Ok(stack),
            _ => Err(Errno::NOMEM),
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: made by `new`; the child is no longer on it.
        unsafe { libc::munmap(self.lowest, GUARD_BYTES + STACK_BYTES) };
    }
}

/// The bare system call: in the parent what the kernel returns; the child, which
/// has an empty stack and so nowhere to return to, calls `entry`.
///
/// # Safety
/// As for [`run`]; `args` must name a stack, a multiple of 16 bytes.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, entry: Entry, argument: *const c_void) -> isize {
    let returned: isize;
    // SAFETY: the kernel changes rax, rcx and r11 alone; the child does not come
    // back.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => returned,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r8") entry,
            in("r9") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    returned
}

/// See above.
///
/// # Safety
/// As for [`run`]; `args` must name a stack, a multiple of 16 bytes.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, entry: Entry, argument: *const c_void) -> isize {
    let returned: isize;
    // SAFETY: the kernel changes x0 alone; the child does not come back.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x10",
            "blr x9",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(args) => returned,
            in("x1") size_of::<CloneArgs>(),
            in("x9") entry,
            in("x10") argument,
        );
    }
    returned
}
