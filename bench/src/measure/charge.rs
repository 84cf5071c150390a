//! What is charged to the cgroups of a runtime and its pods.

use anyhow::Result;
use corten_kernel::cgroup::Cgroups;

use crate::home::SERVICES;

/// What a runtime, with its monitors and pods, was charged so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Charge {
    /// Memory, kernel memory and file pages included, in kB.
    pub memory_kb: f64,
    /// The kernel's part of it, in kB.
    pub kernel_kb: f64,
    /// Processor time in milliseconds.
    pub cpu_ms: f64,
}

impl Charge {
    /// What everything in a home's cgroup is charged, but for the services of
    /// the bench itself.
    ///
    /// # Errors
    /// If cgroups cannot be read.
    pub fn of(cgroup: &str) -> Result<Self> {
        let cgroups = Cgroups::probe()?;
        let mut charge = Self::default();
        for name in cgroups.children(cgroup)?.iter().filter(|name| *name != SERVICES) {
            let stats = cgroups.open(&format!("{cgroup}/{name}"))?.stats()?;
            let memory = stats.memory.unwrap_or_default();
            charge.memory_kb += memory.usage as f64 / 1024.0;
            charge.kernel_kb += memory.kernel as f64 / 1024.0;
            charge.cpu_ms += stats.cpu.unwrap_or_default().usage_ns as f64 / 1e6;
        }
        Ok(charge)
    }

    /// What was added since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            memory_kb: self.memory_kb - before.memory_kb,
            kernel_kb: self.kernel_kb - before.kernel_kb,
            cpu_ms: self.cpu_ms - before.cpu_ms,
        }
    }
}
