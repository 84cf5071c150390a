//! System call filters: the default profile, profiles in files, and the
//! compiler from either to a BPF program.
//!
//! All of it is pure: the same profile, capabilities and architecture give the
//! same program, so that a program may be kept under the profile's digest.

mod assembler;
mod compile;
mod default;
mod profile;
mod table;

pub use compile::{Filter, compile};
pub use default::default_profile;
pub use profile::parse_profile;

/// What profiles depend on, besides themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// The container's bounding set; what it cannot do anyway stays forbidden.
    pub capabilities: u64,
    /// The kernel's version.
    pub kernel: (u32, u32),
}

/// An architecture that a filter can speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
}

impl Arch {
    /// The one that this program is built for.
    pub const NATIVE: Self =
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// As the kernel names it in `seccomp_data` (`AUDIT_ARCH_…`).
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
        }
    }

    /// As profiles name it; none for architectures that we do not build for.
    pub fn from_profile(name: &str) -> Option<Self> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Arch::X86_64,
            "SCMP_ARCH_X86" => Arch::X86,
            "SCMP_ARCH_AARCH64" => Arch::Aarch64,
            "SCMP_ARCH_ARM" => Arch::Arm,
            _ => return None,
        })
    }

    /// Whether arguments have 64 bits.
    pub const fn is_wide(self) -> bool {
        matches!(self, Arch::X86_64 | Arch::Aarch64)
    }

    /// As Go names it, which is what profiles' `includes` speak.
    const fn go_name(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::X86 => "x86",
            Arch::Aarch64 => "arm64",
            Arch::Arm => "arm",
        }
    }

    const fn column(self) -> usize {
        match self {
            Arch::X86_64 => 0,
            Arch::X86 => 1,
            Arch::Aarch64 => 2,
            Arch::Arm => 3,
        }
    }
}

/// The number of a system call, where the architecture has it.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    let at = table::TABLE.binary_search_by_key(&name, |(known, _)| known).ok()?;
    u32::try_from(table::TABLE[at].1[arch.column()]).ok()
}

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;
