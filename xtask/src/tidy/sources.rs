//! Rules about source files: size, documentation, `unsafe`, banned calls.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::text;
use crate::shell;

/// Lines of one file. Aim below 400.
const LINES_MAX: usize = 600;

/// The only crate that may contain `unsafe`.
const UNSAFE_HOME: &str = "crates/kernel/";

/// Something that is not written here: where it may be all the same, what to
/// write instead, and why.
struct Ban {
    pattern: &'static str,
    allowed: &'static [&'static str],
    instead: &'static str,
    /// Tests may do it.
    in_tests: bool,
}

const BANS: &[Ban] = &[
    Ban {
        pattern: "Command::new",
        allowed: &[
            "crates/net/",
            "crates/pods/src/runtimes.rs",
            "crates/corten/",
            "xtask/",
            "tests/",
            "bench/",
        ],
        instead: "the launcher of corten-kernel: programs are started with a deadline, in a \
                  cgroup, by those who supervise them",
        in_tests: true,
    },
    Ban {
        pattern: ".unwrap()",
        allowed: &[],
        instead: "`?`, or `expect` with the reason why it cannot fail; for locks \
                  `unwrap_or_else(PoisonError::into_inner)`",
        in_tests: true,
    },
    Ban { pattern: "dbg!", allowed: &["xtask/src/tidy/"], instead: "tracing", in_tests: false },
    Ban {
        pattern: "todo!",
        allowed: &["xtask/src/tidy/"],
        instead: "the thing itself",
        in_tests: false,
    },
    Ban {
        pattern: "unimplemented!",
        allowed: &["xtask/src/tidy/"],
        instead: "an error that says so",
        in_tests: false,
    },
    Ban {
        pattern: "static mut",
        allowed: &[],
        instead: "an atomic or a OnceLock",
        in_tests: false,
    },
];

/// Notes to oneself that must not stay, in comments as elsewhere.
const LEFTOVERS: &[&str] = &["FIXME", "XXX", "TODO"];

pub fn check() -> Result<Vec<String>> {
    let mut files = Vec::new();
    for directory in ["crates", "xtask", "tests", "bench"] {
        list(&shell::root().join(directory), &mut files)?;
    }
    let mut sources = Vec::new();
    for path in files {
        let name = path.strip_prefix(shell::root()).unwrap_or(&path).display().to_string();
        let source =
            std::fs::read_to_string(&path).with_context(|| format!("unable to read {name}"))?;
        sources.push((name, source));
    }
    let test_modules: Vec<String> =
        sources.iter().flat_map(|(name, source)| text::test_modules(name, source)).collect();
    let findings = sources.iter().flat_map(|(name, source)| {
        let is_test = test_modules.iter().any(|module| name.starts_with(module));
        check_file(name, source, is_test)
    });
    Ok(findings.collect())
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let what = || format!("unable to list {}", directory.display());
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory)
        .with_context(what)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .with_context(what)?;
    entries.sort_unstable();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                list(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// `is_test`: the whole file is compiled for tests only.
fn check_file(name: &str, source: &str, is_test: bool) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = source.lines().count();
    if lines > LINES_MAX {
        findings.push(format!("{name}: {lines} lines, more than {LINES_MAX}; split it by ideas"));
    }
    if !source.starts_with("//!") {
        findings.push(format!("{name}:1: no `//!` that says what the file is for"));
    }
    let is_root = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs");
    if is_root && !name.starts_with(UNSAFE_HOME) && !source.contains("#![forbid(unsafe_code)]") {
        findings.push(format!("{name}: no `#![forbid(unsafe_code)]`"));
    }
    let test_from = if is_test { 0 } else { text::tests_start(name, source) };
    for (at, (code, whole)) in text::code(source).iter().zip(source.lines()).enumerate() {
        let place = format!("{name}:{}", at + 1);
        if text::has_word(code, "unsafe") && !name.starts_with(UNSAFE_HOME) {
            findings.push(format!("{place}: unsafe; only corten-kernel has it: add a call there"));
        }
        for ban in BANS {
            let allowed = ban.allowed.iter().any(|prefix| name.starts_with(prefix))
                || ban.in_tests && at >= test_from;
            if !allowed && code.contains(ban.pattern) {
                findings.push(format!("{place}: {}; use {}", ban.pattern, ban.instead));
            }
        }
        let leftover = LEFTOVERS.iter().find(|word| text::has_word(whole, word));
        if let Some(word) = leftover.filter(|_| !name.starts_with("xtask/src/tidy/")) {
            findings.push(format!("{place}: {word}; do it, or open an issue"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check_file;

    #[test]
    fn findings() {
        let good = "//! Good.\n#![forbid(unsafe_code)]\nfn f() {} // .unwrap()\n\
                    #[cfg(test)]\nmod tests {\nfn g() { x.unwrap() }\n}\n";
        assert_eq!(check_file("crates/a/src/lib.rs", good, false), Vec::<String>::new());
        let bad = "fn f() { x.unwrap(); }\n// FIXME\nunsafe fn g() {}\n";
        let found = check_file("crates/a/src/lib.rs", bad, false);
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(
            check_file("crates/kernel/src/a.rs", "//! A.\nunsafe fn g() {}\n", false).is_empty()
        );
        let long = format!("//! Long.\n{}", "\n".repeat(600));
        assert_eq!(check_file("crates/a/src/b.rs", &long, false).len(), 1);
    }
}
