//! AppArmor on this node: whether it is on, our own profile loaded, and
//! whether the profile that somebody asks for is there.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_base::limits::APPARMOR_LIST_BYTES_MAX;
use corten_spec::apparmor;
use corten_spec::container::NodePolicy;
use corten_spec::request::Profile;

use crate::error::{Error, Result};
use crate::runtimes;

/// What the kernel has loaded.
const LIST: &str = "/sys/kernel/security/apparmor/profiles";
/// Compiling our profile takes a moment; a parser that hangs is not waited for.
const PARSER_TIMEOUT: Duration = Duration::from_secs(30);
/// Where distributions have the parser.
const PARSER_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];

/// Whether the kernel confines by AppArmor.
pub fn is_on() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

/// Loads our own profile where AppArmor is on: its name, or none if that
/// cannot be done, which is logged. The state directory keeps what was loaded
/// in this boot, so that a restart costs nothing.
pub async fn load_default(policy: &NodePolicy, state_dir: &Path) -> Option<String> {
    if !policy.apparmor {
        return None;
    }
    match load(&state_dir.join("apparmor-profile")).await {
        Ok(()) => Some(apparmor::DEFAULT_NAME.to_owned()),
        Err(error) => {
            tracing::warn!(%error, "containers are not confined by AppArmor, unless they name a profile");
            None
        }
    }
}

async fn load(copy: &Path) -> Result<()> {
    let text = apparmor::default_profile();
    let loaded = listed().is_some_and(|list| apparmor::is_listed(&list, apparmor::DEFAULT_NAME));
    if loaded && std::fs::read_to_string(copy).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let parser = parser().ok_or_else(|| {
        Error::precondition("unable to load our AppArmor profile: there is no apparmor_parser on this node; install the package apparmor")
    })?;
    let failed = |error: std::io::Error| {
        Error::internal(format!("unable to write {}: {error}", copy.display()))
    };
    // Only what was loaded may be taken for it later.
    let fresh = copy.with_extension("new");
    std::fs::write(&fresh, &text).map_err(failed)?;
    let words = ["--replace", "--skip-cache"].map(str::to_owned);
    let words = [&words[..], &[fresh.display().to_string()]].concat();
    runtimes::run(&parser, &words, PARSER_TIMEOUT).await?;
    std::fs::rename(&fresh, copy).map_err(failed)
}

fn parser() -> Option<PathBuf> {
    PARSER_DIRS.iter().map(|dir| Path::new(dir).join("apparmor_parser")).find(|path| path.is_file())
}

/// What the kernel lists; none where that cannot be read (securityfs is not
/// mounted), and then the launch itself fails for want of a profile.
fn listed() -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(LIST).ok()?;
    file.take(APPARMOR_LIST_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Refuses a profile that the kernel does not have: at Create, where whoever
/// asked for it still looks.
pub fn check(policy: &NodePolicy, wanted: Option<&Profile>) -> Result<()> {
    let Some(Profile::Localhost(name)) = wanted else { return Ok(()) };
    // Of another policy namespace the list says nothing.
    if !policy.apparmor || name == "unconfined" || name.starts_with(':') {
        return Ok(());
    }
    match listed() {
        Some(list) if !apparmor::is_listed(&list, name) => Err(Error::invalid(format!(
            "unable to confine the container by AppArmor profile {name:?}: it is not loaded on this node; load it with apparmor_parser"
        ))),
        Some(_) | None => Ok(()),
    }
}
