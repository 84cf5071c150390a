//! The programs under test, built once for each run of the tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The directory with `cortend`, `corten` and `corten-shim`.
pub fn directory() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| xtask::build::programs().expect("the programs can be built"))
}
