//! The programs under test, built once for each run of the tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use xtask::build::{Variant, build};

/// Where the programs are, if somebody has built them already.
const PROGRAMS: &str = "CORTEN_PROGRAMS";

/// The directory with `cortend`, `corten` and `corten-shim`.
pub fn directory() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os(PROGRAMS) {
        Some(directory) => directory.into(),
        None => build(Variant::Dev).expect("the programs can be built"),
    })
}
