//! Which crate may use which: only those listed before it in the root
//! manifest.

use anyhow::{Context as _, Result};

use super::metadata::Metadata;
use crate::shell;

/// Crates that may use less than what stands before them, and why.
const NARROW: &[(&str, &[&str], &str)] = &[
    (
        "corten-shim",
        &["corten-base", "corten-kernel", "corten-protocol"],
        "it is as small as it can be",
    ),
    ("corten-api", &[], "it is the contract alone"),
    ("corten", &["corten-api"], "it is a client like any other"),
];

/// Foreign packages that stay in these crates, and why.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("tonic", GRPC, "gRPC stays in one place, so that it can be replaced"),
    ("prost", GRPC, "protobuf stays in one place, so that it can be replaced"),
    ("redb", &["corten-store"], "records have one door"),
    ("rustls", TLS, "TLS is for registries and for the streams of clients"),
];

const TLS: &[&str] = &["corten-image", "corten-cri", "corten-tests"];
const GRPC: &[&str] =
    &["corten-api", "corten-cri", "cortend", "corten", "corten-tests", "corten-bench"];

pub fn check(metadata: &Metadata) -> Result<Vec<String>> {
    let path = shell::root().join("Cargo.toml");
    let manifest = std::fs::read_to_string(&path).context("unable to read the root Cargo.toml")?;
    let members = members(&manifest)?;
    let mut findings = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let Some(package) = metadata.package(member) else { continue };
        for used in &package.dependencies {
            findings.extend(judge(&members, place, used));
        }
    }
    Ok(findings)
}

/// The names of the members' packages, in the order of the manifest.
fn members(manifest: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse().context("the root Cargo.toml is no TOML")?;
    let listed = manifest["workspace"]["members"].as_array().context("no workspace.members")?;
    let mut names = Vec::new();
    for member in listed.iter().filter_map(toml::Value::as_str) {
        let path = shell::root().join(member).join("Cargo.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("unable to read {}", path.display()))?;
        let table: toml::Table = text.parse().with_context(|| path.display().to_string())?;
        names.extend(table["package"]["name"].as_str().map(str::to_owned));
    }
    Ok(names)
}

fn judge(members: &[String], place: usize, used: &str) -> Option<String> {
    let member = members[place].as_str();
    if let Some((_, allowed, why)) = CONFINED.iter().find(|(name, ..)| *name == used) {
        return (!allowed.contains(&member))
            .then(|| format!("{member}: uses {used}; {why} ({})", allowed.join(", ")));
    }
    let used_place = members.iter().position(|name| name == used)?;
    if used_place > place {
        return Some(format!(
            "{member}: uses {used}, which comes after it; move what is shared down, or turn the \
             call around"
        ));
    }
    let (_, allowed, why) = NARROW.iter().find(|(name, ..)| *name == member)?;
    (!allowed.contains(&used) && used != member)
        .then(|| format!("{member}: uses {used}; {why}: it may use {allowed:?}"))
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn only_what_comes_before() {
        let members = ["corten-base", "corten-store", "corten-api", "corten"].map(str::to_owned);
        assert_eq!(judge(&members, 1, "corten-base"), None);
        assert_eq!(judge(&members, 1, "serde"), None);
        assert!(judge(&members, 0, "corten-store").is_some());
        assert!(judge(&members, 3, "corten-store").is_some());
        assert_eq!(judge(&members, 3, "corten-api"), None);
        assert!(judge(&members, 1, "tonic").is_some());
    }
}
