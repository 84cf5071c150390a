//! Profiles in files: Docker's format, of which the OCI format is a part.

use serde::Deserialize;

use super::{Arch, Machine};
use crate::capabilities;
use crate::error::{Error, Result};
use crate::oci::{Seccomp, SyscallRule, null_is_default};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(flatten)]
    base: Base,
    #[serde(default, deserialize_with = "null_is_default")]
    arch_map: Vec<ArchMap>,
    #[serde(default, deserialize_with = "null_is_default")]
    syscalls: Vec<Rule>,
}

/// [`Seccomp`] without its rules.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Base {
    default_action: crate::oci::Action,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_default")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    listener_metadata: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default, deserialize_with = "null_is_default")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// Obsolete: one name instead of a list.
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    names: Vec<String>,
    action: crate::oci::Action,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_default")]
    args: Vec<crate::oci::ArgCondition>,
    #[serde(default, deserialize_with = "null_is_default")]
    includes: Selector,
    #[serde(default, deserialize_with = "null_is_default")]
    excludes: Selector,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    #[serde(deserialize_with = "null_is_default")]
    caps: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    arches: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    min_kernel: String,
}

/// Reads a profile's text, and takes of it what holds for this machine and
/// these capabilities.
pub fn parse_profile(name: &str, text: &[u8], machine: &Machine) -> Result<Seccomp> {
    let failed = |reason: String| Error::Profile { name: name.to_owned(), reason };
    if text.len() > corten_base::limits::SECCOMP_PROFILE_BYTES_MAX {
        return Err(failed("it is too large".into()));
    }
    let profile: Profile =
        serde_json::from_slice(text).map_err(|error| failed(error.to_string()))?;
    let base = profile.base;
    if !base.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(failed("it has both `architectures` and `archMap`; use one".into()));
    }
    let mut architectures = base.architectures;
    let native = |entry: &&ArchMap| Arch::from_profile(&entry.architecture) == Some(Arch::NATIVE);
    if let Some(entry) = profile.arch_map.iter().find(native) {
        architectures.push(entry.architecture.clone());
        architectures.extend(entry.sub_architectures.iter().cloned());
    }
    let mut syscalls = Vec::new();
    for mut rule in profile.syscalls {
        if !rule.name.is_empty() {
            if !rule.names.is_empty() {
                return Err(failed(format!(
                    "the rule of {:?} has both `name` and `names`; use one",
                    rule.name
                )));
            }
            rule.names.push(std::mem::take(&mut rule.name));
        }
        if includes(&rule.includes, machine).map_err(failed)?
            && !excludes(&rule.excludes, machine).map_err(failed)?
        {
            syscalls.push(SyscallRule {
                names: rule.names,
                action: rule.action,
                errno_ret: rule.errno_ret,
                args: rule.args,
            });
        }
    }
    Ok(Seccomp {
        default_action: base.default_action,
        default_errno_ret: base.default_errno_ret,
        architectures,
        flags: base.flags,
        listener_path: base.listener_path,
        listener_metadata: base.listener_metadata,
        syscalls,
    })
}

/// Everything that is named holds.
fn includes(selector: &Selector, machine: &Machine) -> std::result::Result<bool, String> {
    let caps = selector.caps.iter().all(|cap| held(cap, machine));
    let arch = selector.arches.is_empty() || selector.arches.iter().any(|arch| is_native(arch));
    Ok(caps && arch && (selector.min_kernel.is_empty() || kernel_is(selector, machine)?))
}

/// Anything that is named holds.
fn excludes(selector: &Selector, machine: &Machine) -> std::result::Result<bool, String> {
    let caps = selector.caps.iter().any(|cap| held(cap, machine));
    let arch = selector.arches.iter().any(|arch| is_native(arch));
    Ok(caps || arch || (!selector.min_kernel.is_empty() && kernel_is(selector, machine)?))
}

fn held(cap: &str, machine: &Machine) -> bool {
    capabilities::bit(cap).is_some_and(|bit| machine.capabilities & bit != 0)
}

fn is_native(arch: &str) -> bool {
    arch == Arch::NATIVE.go_name()
}

fn kernel_is(selector: &Selector, machine: &Machine) -> std::result::Result<bool, String> {
    let text = &selector.min_kernel;
    let parsed = text.split_once('.').and_then(|(major, minor)| {
        Some((major.parse::<u32>().ok()?, minor.split('.').next()?.parse::<u32>().ok()?))
    });
    let wanted = parsed.ok_or_else(|| format!("minKernel {text:?} is no version like \"4.8\""))?;
    Ok(machine.kernel >= wanted)
}
