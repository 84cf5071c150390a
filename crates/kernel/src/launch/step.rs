//! The vocabulary of a launch: what a child may do between `clone3` and
//! `execve`, one step after the other.
//!
//! The daemon decides and orders the steps (`corten-spec` writes them), the
//! protocol carries them, the child performs them. A step borrows its texts
//! from the plan, so that performing it allocates nothing.

use std::ffi::CStr;

/// Which of the descriptors handed over with a plan a step means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdIndex(pub u16);

/// A kind of Linux namespace that a step joins or makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NamespaceKind {
    /// `CLONE_NEWNS`
    Mount,
    /// `CLONE_NEWNET`
    Net,
    /// `CLONE_NEWIPC`
    Ipc,
    /// `CLONE_NEWUTS`
    Uts,
    /// `CLONE_NEWPID`
    Pid,
    /// `CLONE_NEWUSER`
    User,
    /// `CLONE_NEWCGROUP`
    Cgroup,
    /// `CLONE_NEWTIME`
    Time,
}

/// How mounts propagate, as `mount_setattr` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `MS_PRIVATE`
    Private,
    /// `MS_SLAVE`
    Slave,
    /// `MS_SHARED`
    Shared,
    /// `MS_UNBINDABLE`
    Unbindable,
}

/// Mount attributes to set and to clear (`MOUNT_ATTR_*` bits), on one mount or
/// on everything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountAttributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// Also for all mounts below (`AT_RECURSIVE`).
    pub recursive: bool,
}

/// What a mount's target must be when it has to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A directory.
    Directory,
    /// A regular file (bind mounts of files, devices, sockets).
    File,
    /// As the mounted object itself is.
    LikeSource,
}

/// The five capability sets, one bit for each capability number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The bounding set.
    pub bounding: u64,
    /// The effective set.
    pub effective: u64,
    /// The permitted set.
    pub permitted: u64,
    /// The inheritable set.
    pub inheritable: u64,
    /// The ambient set.
    pub ambient: u64,
}

/// NUL-terminated strings, one after the other, as the plan holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CStrList<'a> {
    /// How many strings there are.
    pub count: u32,
    /// Their bytes, each string with its NUL.
    pub bytes: &'a [u8],
}

impl<'a> CStrList<'a> {
    /// No strings.
    pub const EMPTY: CStrList<'static> = CStrList { count: 0, bytes: &[] };

    /// The strings, in order. Bytes after the last NUL are passed over.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> + Clone + use<'a> {
        let mut rest = self.bytes;
        let mut left = self.count;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let string = CStr::from_bytes_until_nul(rest).ok()?;
            rest = rest.get(string.to_bytes_with_nul().len()..)?;
            Some(string)
        })
    }
}

/// One thing that the child does. Paths of mounts, devices and masks are
/// absolute inside the new root, and are resolved beneath it (`openat2` with
/// `RESOLVE_IN_ROOT`) until [`Step::SwitchRoot`], so that no link of an image
/// leads out of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step<'a> {
    // -- synchronisation with the parent
    /// Enter the v1 cgroups of [`Launch::tasks`](super::Launch).
    EnterCgroups,
    /// Tell the parent that everything up to here is done, and wait for its
    /// word: the container is CREATED and waits for Start.
    AwaitStart,
    /// Let the parent run the hooks that belong here, in the host's namespaces.
    AwaitHooks {
        /// 0 createRuntime (and prestart), see `corten-protocol`.
        point: u8,
    },

    // -- namespaces
    /// `setns` to a handed-over namespace.
    JoinNamespace {
        /// The namespace.
        fd: FdIndex,
        /// Its kind, checked by the kernel.
        kind: NamespaceKind,
    },
    /// `unshare` of one kind. (Mount and pid are made by clone itself.)
    NewNamespace {
        /// The kind.
        kind: NamespaceKind,
    },
    /// `sethostname`.
    Hostname {
        /// The name.
        name: &'a CStr,
    },
    /// `setdomainname`.
    Domainname {
        /// The name.
        name: &'a CStr,
    },
    /// `setsid`.
    NewSession,
    /// Become root (uid and gid 0) of the user namespace just joined.
    BecomeNamespaceRoot,

    // -- root filesystem and mounts
    /// Set the propagation of the whole mount namespace, recursively.
    RootPropagation {
        /// Almost always slave or private.
        propagation: Propagation,
    },
    /// Attach a detached mount as the new root of the container.
    Root {
        /// The detached mount.
        fd: FdIndex,
    },
    /// Attach a handed-over detached mount at `target`.
    MountFd {
        /// The detached mount (already idmapped where it must be).
        fd: FdIndex,
        /// Where.
        target: &'a CStr,
        /// What to make when there is no target.
        kind: TargetKind,
        /// Attributes, applied before attaching.
        attributes: MountAttributes,
        /// Propagation to set after attaching, if any.
        propagation: Option<Propagation>,
    },
    /// Bind a path of the shim's own mount namespace (the pod's /dev/shm).
    MountOwn {
        /// Absolute path in the shim's mount namespace.
        source: &'a CStr,
        /// Where.
        target: &'a CStr,
        /// Attributes.
        attributes: MountAttributes,
    },
    /// Mount a new filesystem (proc, sysfs, tmpfs, mqueue, devpts, cgroup2).
    MountNew {
        /// Filesystem type.
        fstype: &'a CStr,
        /// What mountinfo shows as source.
        source: &'a CStr,
        /// `key` or `key=value` options of the filesystem.
        options: CStrList<'a>,
        /// Where.
        target: &'a CStr,
        /// Attributes.
        attributes: MountAttributes,
        /// Copy what the image has at the target into the new tmpfs
        /// (OCI `tmpcopyup`).
        copy_up: bool,
    },
    /// Remount what is mounted at `target` with these attributes.
    Remount {
        /// Where.
        target: &'a CStr,
        /// Attributes.
        attributes: MountAttributes,
    },
    /// Make a device node.
    Device {
        /// Where.
        path: &'a CStr,
        /// File type (`S_IFCHR`, `S_IFBLK`, `S_IFIFO`) and permissions.
        mode: u32,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Make a symbolic link; an existing one stays.
    Symlink {
        /// What the link says.
        target: &'a CStr,
        /// Where the link lies.
        path: &'a CStr,
    },
    /// Open a new pty in the container's devpts, make it stdin, stdout and
    /// stderr and the controlling terminal, bind it to /dev/console, and send
    /// its master to the parent.
    Console {
        /// Owner of the terminal.
        uid: u32,
        /// Rows, or 0.
        rows: u16,
        /// Columns, or 0.
        columns: u16,
    },
    /// Make the new root the root (`pivot_root`) and drop the old one.
    SwitchRoot,
    /// Remount the root filesystem read-only.
    ReadonlyRoot,
    /// Hide a path: files behind /dev/null, directories behind an empty
    /// read-only tmpfs. A path that is not there is passed over.
    Mask {
        /// The path.
        path: &'a CStr,
    },
    /// Bind a path to itself read-only. A path that is not there is passed over.
    ReadonlyPath {
        /// The path.
        path: &'a CStr,
    },
    /// Make this path (of the image) if it is not there: the working directory.
    EnsureDirectory {
        /// The path.
        path: &'a CStr,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },

    // -- settings of the process
    /// Write a sysctl (through our own procfs, not the container's).
    Sysctl {
        /// Path below /proc/sys, with slashes.
        path: &'a CStr,
        /// The value.
        value: &'a CStr,
    },
    /// `/proc/self/oom_score_adj`. A refused decrease keeps the present value
    /// and is reported as a warning (no CAP_SYS_RESOURCE).
    OomScoreAdj {
        /// -1000 to 1000.
        value: i32,
    },
    /// `prlimit`. A refused increase is cut to the present hard limit, and is
    /// reported as a warning.
    Rlimit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Scheduler nice value, as `setpriority`.
    Nice {
        /// -20 to 19.
        value: i32,
    },
    /// `umask`.
    Umask {
        /// Permissions to take away.
        mask: u32,
    },
    /// `setgroups`.
    Groups {
        /// The list, little-endian u32 each.
        list: &'a [u8],
    },
    /// `setgid` and `setuid` (all three ids of each), keeping capabilities.
    User {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// `chdir` in the new root.
    WorkingDirectory {
        /// The path.
        path: &'a CStr,
    },
    /// Set the capability sets. Sets are cut to what the machine has.
    Capabilities {
        /// The sets.
        sets: Capabilities,
    },
    /// Cut only the bounding set; comes before [`Step::User`].
    BoundingSet {
        /// What stays.
        bounding: u64,
    },
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
    /// Load a compiled seccomp filter.
    Seccomp {
        /// `struct sock_filter` array.
        program: &'a [u8],
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
    },
    /// Write the LSM label for the coming exec.
    ExecLabel {
        /// `apparmor/exec` or `exec` (SELinux), below /proc/thread-self/attr.
        attribute: &'a CStr,
        /// The profile or context.
        label: &'a CStr,
    },
    /// Run a hook inside the container's namespaces (createContainer and
    /// startContainer), wait for it, fail if it fails.
    Hook {
        /// argv; the first string is the path of the program.
        args: CStrList<'a>,
        /// Environment.
        env: CStrList<'a>,
        /// State document up to the pid.
        state_before_pid: &'a [u8],
        /// State document after the pid.
        state_after_pid: &'a [u8],
        /// Deadline in milliseconds; 0 for none.
        timeout_ms: u32,
    },

    // -- the last step: one of these
    /// Execute the command: the first of `candidates` that can be.
    Exec {
        /// Full paths to try in order (`PATH` looked up by the daemon's text,
        /// existence by the kernel, after the root switch).
        candidates: CStrList<'a>,
        /// argv.
        args: CStrList<'a>,
        /// Environment.
        env: CStrList<'a>,
    },
    /// Be the init of a pod's shared PID namespace: reap, and end on SIGTERM.
    Init,
}
