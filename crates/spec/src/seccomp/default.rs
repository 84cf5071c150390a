//! The default profile: what a container may call that asks for nothing.
//!
//! A table of ours, ordered by what calls are for. The rule behind it: allowed
//! is what acts on the caller's own processes, memory, files and sockets, and
//! what the kernel guards by credentials and namespaces well. Left out is what
//! reaches the host as a whole (time, modules, reboot, swap, quotas), what is
//! reachable by few and has been broken often (keyrings, userfaultfd,
//! io_uring), and what makes new namespaces; most of that comes back with the
//! capability that it needs. Old and new variants of one thing stand together,
//! since an architecture has the one or the other.

use super::{Arch, Machine};
use crate::capabilities;
use crate::oci::{Action, ArgCondition, Comparison, Seccomp, SyscallRule};

/// Files: opening, reading, writing, and moving data between them.
const FILE_DATA: &[&str] = &[
    "_llseek",
    "close",
    "close_range",
    "copy_file_range",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "fadvise64",
    "fadvise64_64",
    "fallocate",
    "fcntl",
    "fcntl64",
    "fdatasync",
    "flock",
    "fsync",
    "ftruncate",
    "ftruncate64",
    "ioctl",
    "lseek",
    "open",
    "openat",
    "openat2",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readv",
    "sendfile",
    "sendfile64",
    "splice",
    "sync",
    "sync_file_range",
    "syncfs",
    "tee",
    "truncate",
    "truncate64",
    "vmsplice",
    "write",
    "writev",
];

/// The tree of names, and what stands beside a file's data.
const FILE_NAMES: &[&str] = &[
    "access",
    "cachestat",
    "chdir",
    "chmod",
    "chown",
    "chown32",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchown32",
    "fchownat",
    "fstat",
    "fstat64",
    "fstatat64",
    "fstatfs",
    "fstatfs64",
    "futimesat",
    "getcwd",
    "getdents",
    "getdents64",
    "lchown",
    "lchown32",
    "link",
    "linkat",
    "lstat",
    "lstat64",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "name_to_handle_at",
    "newfstatat",
    "readlink",
    "readlinkat",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "stat",
    "stat64",
    "statfs",
    "statfs64",
    "statx",
    "symlink",
    "symlinkat",
    "umask",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimensat_time64",
    "utimes",
];

/// Extended attributes; the kernel asks for the right capability by name.
const ATTRIBUTES: &[&str] = &[
    "fgetxattr",
    "flistxattr",
    "fremovexattr",
    "fsetxattr",
    "getxattr",
    "getxattrat",
    "lgetxattr",
    "listxattr",
    "listxattrat",
    "llistxattr",
    "lremovexattr",
    "lsetxattr",
    "removexattr",
    "removexattrat",
    "setxattr",
    "setxattrat",
];

/// Waiting for many things at once, and things made to be waited for.
const WAITING: &[&str] = &[
    "_newselect",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_ctl_old",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "epoll_wait_old",
    "eventfd",
    "eventfd2",
    "fanotify_mark",
    "inotify_add_watch",
    "inotify_init",
    "inotify_init1",
    "inotify_rm_watch",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "ppoll_time64",
    "pselect6",
    "pselect6_time64",
    "select",
    "signalfd",
    "signalfd4",
];

/// Asynchronous I/O of the old kind. (io_uring is not here.)
const ASYNCHRONOUS: &[&str] = &[
    "io_cancel",
    "io_destroy",
    "io_getevents",
    "io_pgetevents",
    "io_pgetevents_time64",
    "io_setup",
    "io_submit",
];

/// Sockets of every family but those that [`FAMILIES`] leaves out.
const SOCKETS: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recv",
    "recvfrom",
    "recvmmsg",
    "recvmmsg_time64",
    "recvmsg",
    "send",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socketcall",
    "socketpair",
];

/// Memory of the caller.
const MEMORY: &[&str] = &[
    "brk",
    "madvise",
    "map_shadow_stack",
    "membarrier",
    "memfd_create",
    "memfd_secret",
    "mincore",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "mmap2",
    "mprotect",
    "mremap",
    "mseal",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "remap_file_pages",
];

/// Locks between threads.
const LOCKS: &[&str] = &[
    "futex",
    "futex_requeue",
    "futex_time64",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "get_robust_list",
    "rseq",
    "set_robust_list",
];

/// Processes: making (but for clone, see below), executing, ending, waiting.
const PROCESSES: &[&str] = &[
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fork",
    "get_thread_area",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getsid",
    "gettid",
    "kill",
    "pause",
    "pidfd_open",
    "pidfd_send_signal",
    "prctl",
    "process_mrelease",
    "set_thread_area",
    "set_tid_address",
    "setpgid",
    "setsid",
    "tgkill",
    "tkill",
    "uretprobe",
    "vfork",
    "wait4",
    "waitid",
    "waitpid",
];

/// Looking into processes of one's own (safe since the kernel checks the
/// filter again after a tracer's changes, in 4.8).
const TRACING: &[&str] = &["process_vm_readv", "process_vm_writev", "ptrace"];

/// Signals.
const SIGNALS: &[&str] = &[
    "restart_syscall",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo",
    "sigaltstack",
    "sigprocmask",
    "sigreturn",
];

/// Who one is; the kernel asks for CAP_SETUID and CAP_SETGID.
const CREDENTIALS: &[&str] = &[
    "capget",
    "capset",
    "getegid",
    "getegid32",
    "geteuid",
    "geteuid32",
    "getgid",
    "getgid32",
    "getgroups",
    "getgroups32",
    "getresgid",
    "getresgid32",
    "getresuid",
    "getresuid32",
    "getuid",
    "getuid32",
    "setfsgid",
    "setfsgid32",
    "setfsuid",
    "setfsuid32",
    "setgid",
    "setgid32",
    "setgroups",
    "setgroups32",
    "setregid",
    "setregid32",
    "setresgid",
    "setresgid32",
    "setresuid",
    "setresuid32",
    "setreuid",
    "setreuid32",
    "setuid",
    "setuid32",
];

/// Confining oneself further.
const CONFINEMENT: &[&str] =
    &["landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"];

/// Scheduling and limits.
const SCHEDULING: &[&str] = &[
    "getcpu",
    "getpriority",
    "getrlimit",
    "getrusage",
    "ioprio_get",
    "ioprio_set",
    "prlimit64",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getaffinity",
    "sched_getattr",
    "sched_getparam",
    "sched_getscheduler",
    "sched_rr_get_interval",
    "sched_rr_get_interval_time64",
    "sched_setaffinity",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "sched_yield",
    "setpriority",
    "setrlimit",
    "times",
    "ugetrlimit",
];

/// Clocks and timers. (adjtimex only reads without CAP_SYS_TIME.)
const TIME: &[&str] = &[
    "adjtimex",
    "alarm",
    "clock_adjtime",
    "clock_adjtime64",
    "clock_getres",
    "clock_getres_time64",
    "clock_gettime",
    "clock_gettime64",
    "clock_nanosleep",
    "clock_nanosleep_time64",
    "getitimer",
    "gettimeofday",
    "nanosleep",
    "setitimer",
    "time",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_gettime64",
    "timer_settime",
    "timer_settime64",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_gettime64",
    "timerfd_settime",
    "timerfd_settime64",
];

/// System V IPC and message queues, which have a namespace.
const IPC: &[&str] = &[
    "ipc",
    "mq_getsetattr",
    "mq_notify",
    "mq_open",
    "mq_timedreceive",
    "mq_timedreceive_time64",
    "mq_timedsend",
    "mq_timedsend_time64",
    "mq_unlink",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "semtimedop_time64",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
];

/// What tells about the system.
const SYSTEM: &[&str] =
    &["getrandom", "listmount", "riscv_hwprobe", "statmount", "sysinfo", "uname"];

/// What only one family of processors has.
const X86: &[&str] = &["arch_prctl", "modify_ldt"];
const ARM: &[&str] = &[
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "breakpoint",
    "cacheflush",
    "set_tls",
    "sync_file_range2",
];

const ALWAYS: [&[&str]; 18] = [
    FILE_DATA,
    FILE_NAMES,
    ATTRIBUTES,
    WAITING,
    ASYNCHRONOUS,
    SOCKETS,
    MEMORY,
    LOCKS,
    PROCESSES,
    TRACING,
    SIGNALS,
    CREDENTIALS,
    CONFINEMENT,
    SCHEDULING,
    TIME,
    IPC,
    SYSTEM,
    if cfg!(target_arch = "aarch64") { ARM } else { X86 },
];

/// What comes with a capability.
const WITH_CAPABILITY: [(&str, &[&str]); 14] = [
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// Personalities that change how a program sees the machine, and nothing about
/// its protection: Linux, Linux of 32 bits, either with the old `uname`, and
/// asking for the present one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Every `CLONE_NEW…` flag but that of time, which shares a bit with the exit
/// signal and cannot be asked for by clone.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Address families that are left out: the kernel's crypto interface, which has
/// been a way into it, and virtual machine sockets, which know no network
/// namespace. Conditions of libseccomp have no "neither", hence the ranges.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const FAMILIES: [(Comparison, u64); 3] =
    [(Comparison::Less, AF_ALG), (Comparison::Equal, AF_ALG + 1), (Comparison::Greater, AF_VSOCK)];

/// The default profile.
pub fn default_profile(machine: &Machine) -> Seccomp {
    let allow = |names: &[&str], args: Vec<ArgCondition>| SyscallRule {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: Action::Allow,
        errno_ret: None,
        args,
    };
    let has =
        |name: &str| capabilities::bit(name).is_some_and(|bit| machine.capabilities & bit != 0);
    let mut syscalls: Vec<SyscallRule> =
        ALWAYS.iter().map(|names| allow(names, Vec::new())).collect();
    syscalls.extend(socket_rules());
    for value in PERSONALITIES {
        syscalls.push(allow(
            &["personality"],
            vec![ArgCondition { index: 0, value, value_two: 0, op: Comparison::Equal }],
        ));
    }
    for (_, names) in WITH_CAPABILITY.iter().filter(|(capability, _)| has(capability)) {
        syscalls.push(allow(names, Vec::new()));
    }
    if !has("CAP_SYS_ADMIN") {
        syscalls.push(allow(
            &["clone"],
            vec![ArgCondition {
                index: 0,
                value: CLONE_NAMESPACES,
                value_two: 0,
                op: Comparison::MaskedEqual,
            }],
        ));
        // Its flags lie in memory, where no filter sees them: C libraries then
        // fall back to clone, but only on this errno.
        syscalls.push(SyscallRule {
            names: vec!["clone3".into()],
            action: Action::Errno,
            errno_ret: Some(super::compile::ENOSYS),
            args: Vec::new(),
        });
    }
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: Some(1),
        architectures: architectures(),
        syscalls,
        ..Seccomp::default()
    }
}

/// Rules for the address families that may be opened.
fn socket_rules() -> impl Iterator<Item = SyscallRule> {
    FAMILIES.iter().map(|(op, value)| SyscallRule {
        names: vec!["socket".into()],
        action: Action::Allow,
        errno_ret: None,
        args: vec![ArgCondition { index: 0, value: *value, value_two: 0, op: *op }],
    })
}

fn architectures() -> Vec<String> {
    let names: &[&str] = match Arch::NATIVE {
        Arch::Aarch64 | Arch::Arm => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        Arch::X86_64 | Arch::X86 => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}
