//! Device programs in groups: bpf(2), as little of it as that takes.

use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

use super::program::Instruction;

type Outcome<T> = std::result::Result<T, Errno>;

// Commands, and numbers of the kernel's uapi.
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// The name by which we know our program among those of others.
const NAME: [u8; 16] = *b"corten_devices\0\0";
/// Programs of one group that are looked at (the kernel allows 64).
const PROGRAMS_MAX: usize = 64;

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    group: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoRequest {
    program: u32,
    length: u32,
    info: u64,
}

/// The front of the kernel's `bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    addresses: [u64; 2],
    load_time: u64,
    uid: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

/// Makes `program` the one of ours in the group, in one step: at no moment are
/// there both, or none. The kernel keeps it as long as the group is there.
pub(super) fn replace(group: &OwnedFd, program: &[Instruction]) -> Outcome<()> {
    let present = ours(group)?;
    let loaded = load(program)?;
    let mut attach = Attach {
        group: raw(group),
        program: raw(&loaded),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        replaced: 0,
    };
    if let Some(present) = &present {
        attach.flags |= REPLACE;
        attach.replaced = raw(present);
    }
    bpf(PROG_ATTACH, &mut attach).map(drop)
}

/// Takes our program, if there is one, off the group.
pub(super) fn detach(group: &OwnedFd) -> Outcome<()> {
    let Some(present) = ours(group)? else { return Ok(()) };
    let mut attach = Attach {
        group: raw(group),
        program: raw(&present),
        kind: ATTACH_CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf(PROG_DETACH, &mut attach).map(drop)
}

/// Our program in the group.
fn ours(group: &OwnedFd) -> Outcome<Option<OwnedFd>> {
    let mut ids = [0u32; PROGRAMS_MAX];
    let mut query = Query {
        group: raw(group),
        kind: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: PROGRAMS_MAX as u32,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut query)?;
    for id in ids.into_iter().take(query.count as usize) {
        let mut by_id = ById { id, ..ById::default() };
        let program = match bpf(PROG_GET_FD_BY_ID, &mut by_id) {
            Ok(fd) => owned(fd),
            // Taken away in the meantime.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let mut info = Info::default();
        let mut request = InfoRequest {
            program: raw(&program),
            length: size_of::<Info>() as u32,
            info: &raw mut info as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut request)?;
        if info.name == NAME {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

fn load(program: &[Instruction]) -> Outcome<OwnedFd> {
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        name: NAME,
        ..Load::default()
    };
    bpf(PROG_LOAD, &mut load).map(owned)
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd() as u32
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us, close-on-exec;
    // nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// One call. `argument` is one of the structures above, whose addresses are 0
/// or those of living buffers of the length that stands beside them.
fn bpf<T>(command: i32, argument: &mut T) -> Outcome<i32> {
    // SAFETY: the kernel reads and writes at most the given size of the
    // argument; the addresses within it are good for as long as the call (see
    // above).
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(argument), size_of::<T>())
    };
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(result as i32)
}
