//! Kernel modules with all that they need, in the order of loading.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// A module, unpacked.
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// The modules named and those they depend on, these first. What the kernel
/// has not as a module is built in, or not there: passed over.
pub fn closure(directory: &Path, names: &[String]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    if !names.is_empty() {
        find(&directory.join("kernel"), &mut files)?;
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names {
        add(name, &files, &mut seen, &mut found)?;
    }
    Ok(found)
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    seen: &mut BTreeSet<String>,
    found: &mut Vec<Module>,
) -> Result<()> {
    let name = name.replace('-', "_");
    let Some(path) = files.get(&name).filter(|_| seen.insert(name.clone())) else {
        return Ok(());
    };
    let content = unpack(path)?;
    for needed in depends(&content) {
        add(&needed, files, seen, found)?;
    }
    found.push(Module { name, content });
    Ok(())
}

fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let what = || format!("unable to list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(what)? {
        let path = entry.with_context(what)?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some((name, _)) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once(".ko"))
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Newer Debian packs modules.
fn unpack(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("unable to read {}", path.display())),
    };
    let output = shell::program(tool, ["-dc"]).arg(path).output();
    let output = output.with_context(|| format!("unable to start {tool}"))?;
    if !output.status.success() {
        bail!("unable to unpack {} with {tool}", path.display());
    }
    Ok(output.stdout)
}

/// The module's own words on what it needs: `depends=a,b` in its `.modinfo`.
fn depends(content: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = content.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let list = content[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list).into_owned();
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn what_a_module_needs() {
        assert_eq!(depends(b"\x7fELF\0license=GPL\0depends=a,b\0name=c\0"), ["a", "b"]);
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
