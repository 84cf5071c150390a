//! What the processes of a container hold.

use corten_base::limits::{PROCESSES_COUNTED_MAX, SOCKETS_LOOKED_AT_MAX};

/// The processes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processes {
    /// How many there are.
    pub count: u64,
    /// Open descriptors of all of them.
    pub descriptors: u64,
    /// Those of them that are sockets. Of very many descriptors only the first
    /// are looked at.
    pub sockets: u64,
    /// Descriptors that the first process may have; `None` for no limit.
    pub descriptors_max: Option<u64>,
}

/// Looks at processes; one that ends meanwhile has nothing.
pub(crate) fn look(pids: &[i32], first: Option<i32>) -> Processes {
    let mut found = Processes { count: pids.len() as u64, ..Processes::default() };
    let mut looks = SOCKETS_LOOKED_AT_MAX;
    for pid in pids.iter().take(PROCESSES_COUNTED_MAX) {
        descriptors(*pid, &mut looks, &mut found);
    }
    found.descriptors_max = first.and_then(descriptors_max);
    found
}

fn descriptors(pid: i32, looks: &mut usize, found: &mut Processes) {
    let Ok(listing) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
    for entry in listing.flatten() {
        found.descriptors += 1;
        if *looks == 0 {
            continue;
        }
        *looks -= 1;
        let target = std::fs::read_link(entry.path());
        if target.is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
        {
            found.sockets += 1;
        }
    }
}

/// The soft limit of descriptors.
fn descriptors_max(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_among_descriptors() {
        let me = std::process::id() as i32;
        let before = look(&[me], Some(me));
        let (_one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let after = look(&[me, i32::MAX], Some(me));
        // Other tests open and close, too.
        assert!(after.sockets >= 2 && after.descriptors > 2, "{before:?} {after:?}");
        assert_eq!(after.count, 2);
        assert!(after.descriptors_max.is_some_and(|max| max >= 64), "{after:?}");
    }
}
