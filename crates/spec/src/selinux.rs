//! SELinux labels: who a container is to the policy, and whose its files are.
//!
//! Two pods are kept apart by their categories: a pair that no other pod has.

use crate::container::Labels;
use crate::error::{Error, Result};
use crate::request::SelinuxOptions;

/// Categories of the usual policies, `c0` to `c1023`.
pub const CATEGORIES: u16 = 1024;
/// What a privileged container is, whose containers may do anything.
const PRIVILEGED_TYPE: &str = "spc_t";
/// The level of who is kept apart from nobody.
const PLAIN_LEVEL: &str = "s0";

/// A context, in its four parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    user: String,
    role: String,
    kind: String,
    level: String,
}

/// What containers and their files are when nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    process: Context,
    file: Context,
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}:{}", self.user, self.role, self.kind, self.level)
    }
}

impl Context {
    fn new(role: &str, kind: &str) -> Self {
        let [user, role, kind, level] = ["system_u", role, kind, PLAIN_LEVEL].map(str::to_owned);
        Self { user, role, kind, level }
    }

    /// `user:role:type:level`; the level may hold colons itself.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(4, ':').map(str::to_owned);
        let mut next = || parts.next().filter(|part| !part.is_empty());
        Some(Self { user: next()?, role: next()?, kind: next()?, level: next()? })
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            process: Context::new("system_r", "container_t"),
            file: Context::new("object_r", "container_file_t"),
        }
    }
}

impl Defaults {
    /// By what a policy says in its `contexts/lxc_contexts`: lines of
    /// `key = "context"`.
    pub fn read(text: &str) -> Self {
        let value = |wanted: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                let context = Context::parse(value.trim().trim_matches('"'))?;
                (key.trim() == wanted).then_some(context)
            })
        };
        let usual = Self::default();
        Self {
            process: value("process").unwrap_or(usual.process),
            file: value("file").unwrap_or(usual.file),
        }
    }

    /// The labels of a container without wishes, in a pod of this level.
    pub fn labels(&self, level: &str) -> Labels {
        let process = Context { level: level.to_owned(), ..self.process.clone() };
        let file = Context { level: level.to_owned(), ..self.file.clone() };
        Labels { process: process.to_string(), mount: file.to_string() }
    }

    /// The labels of a container: what its pod wants, and over that what it
    /// wants itself. `level` is its pod's own.
    pub fn of_container(
        &self,
        level: &str,
        pod: Option<&SelinuxOptions>,
        container: Option<&SelinuxOptions>,
        privileged: bool,
    ) -> Result<Labels> {
        let mut process = Context { level: level.to_owned(), ..self.process.clone() };
        let mut file = Context { level: level.to_owned(), ..self.file.clone() };
        if privileged && container.is_none() {
            process.kind = PRIVILEGED_TYPE.to_owned();
            process.level = PLAIN_LEVEL.to_owned();
        }
        for options in pod.into_iter().filter(|_| !privileged).chain(container) {
            let set = |part: &mut String, wanted: &String| {
                if !wanted.is_empty() {
                    part.clone_from(wanted);
                }
            };
            set(&mut process.user, &options.user);
            set(&mut file.user, &options.user);
            set(&mut process.role, &options.role);
            set(&mut process.kind, &options.kind);
            set(&mut process.level, &options.level);
            set(&mut file.level, &options.level);
        }
        for context in [&process, &file] {
            check(context)?;
        }
        Ok(Labels { process: process.to_string(), mount: file.to_string() })
    }
}

/// The level of a pod, by two categories.
pub fn level(categories: (u16, u16)) -> String {
    let (low, high) = (categories.0.min(categories.1), categories.0.max(categories.1));
    format!("{PLAIN_LEVEL}:c{low},c{high}")
}

/// Two different categories, out of any four bytes.
pub fn categories(random: [u8; 4]) -> (u16, u16) {
    let first = u16::from_le_bytes([random[0], random[1]]) % CATEGORIES;
    let step = u16::from_le_bytes([random[2], random[3]]) % (CATEGORIES - 1);
    (first, (first + 1 + step) % CATEGORIES)
}

fn check(context: &Context) -> Result<()> {
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    let Context { user, role, kind, level } = context;
    for (field, text) in [("SELinux user", user), ("SELinux role", role), ("SELinux type", kind)] {
        if !word(text) {
            return Err(Error::invalid(field, text, "it is one word of letters, digits and _"));
        }
    }
    if is_level(level) {
        return Ok(());
    }
    Err(Error::invalid("SELinux level", level, "it has the form s0, s0:c1,c2 or s0-s1:c0.c1023"))
}

/// `s0`, `s0-s15`, and with categories `s0:c1,c2` or `s0-s0:c0.c1023`.
fn is_level(text: &str) -> bool {
    let number = |text: &str, letter: char| -> Option<u16> {
        let digits = text.strip_prefix(letter)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let category = |text: &str| number(text, 'c').filter(|number| *number < CATEGORIES);
    let range = |text: &str| match text.split_once('.') {
        Some((from, to)) => category(from).zip(category(to)).is_some_and(|(from, to)| from < to),
        None => category(text).is_some(),
    };
    let side = |text: &str| match text.split_once(':') {
        Some((sensitivity, list)) => {
            number(sensitivity, 's').is_some() && list.split(',').all(range)
        }
        None => number(text, 's').is_some(),
    };
    text.split('-').all(side) && text.split('-').count() <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: &str, level: &str) -> SelinuxOptions {
        SelinuxOptions { kind: kind.into(), level: level.into(), ..SelinuxOptions::default() }
    }

    #[test]
    fn a_container_is_of_its_pod() {
        let labels = Defaults::default().of_container("s0:c1,c2", None, None, false).unwrap();
        assert_eq!(labels.process, "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(labels.mount, "system_u:object_r:container_file_t:s0:c1,c2");
        assert_eq!(labels, Defaults::default().labels("s0:c1,c2"));
    }

    #[test]
    fn wishes_of_the_container_come_before_those_of_the_pod() {
        let (pod, own) = (options("pod_t", "s0:c5,c6"), options("own_t", ""));
        let defaults = Defaults::default();
        let labels = defaults.of_container("s0:c1,c2", Some(&pod), Some(&own), false).unwrap();
        assert_eq!(labels.process, "system_u:system_r:own_t:s0:c5,c6");
        assert_eq!(labels.mount, "system_u:object_r:container_file_t:s0:c5,c6");
        let all = SelinuxOptions {
            user: "u_u".into(),
            role: "r_r".into(),
            ..options("svirt_lxc_net_t", "s0:c4,c5")
        };
        let labels = defaults.of_container("s0", None, Some(&all), true).unwrap();
        assert_eq!(labels.process, "u_u:r_r:svirt_lxc_net_t:s0:c4,c5");
        assert_eq!(labels.mount, "u_u:object_r:container_file_t:s0:c4,c5");
    }

    #[test]
    fn a_privileged_container_is_kept_from_nothing() {
        let pod = options("pod_t", "s0:c5,c6");
        let labels = Defaults::default().of_container("s0:c5,c6", Some(&pod), None, true).unwrap();
        assert_eq!(labels.process, "system_u:system_r:spc_t:s0");
        assert_eq!(labels.mount, "system_u:object_r:container_file_t:s0:c5,c6");
    }

    #[test]
    fn what_no_policy_takes_is_refused() {
        let asked = |options: SelinuxOptions| {
            Defaults::default().of_container("s0", None, Some(&options), false)
        };
        for level in ["s0,c4,c5", "c4", "s0:", "s0:c1024", "s0:c3.c2", "s0:c1\n", "s0-s1-s2", "s"] {
            assert!(asked(options("", level)).is_err(), "{level:?}");
        }
        for level in ["s0", "s0:c1", "s0:c0.c1023", "s0-s15:c1,c3.c9"] {
            assert!(asked(options("", level)).is_ok(), "{level:?}");
        }
        assert!(asked(options("a:b", "")).is_err());
    }

    #[test]
    fn the_policys_own_words_are_read() {
        let text = "process = \"system_u:system_r:svirt_t:s0\"\n content=\"x\"\n\
            file = \"system_u:object_r:svirt_file_t:s0\"\n";
        let labels = Defaults::read(text).labels("s0:c1,c2");
        assert_eq!(labels.process, "system_u:system_r:svirt_t:s0:c1,c2");
        assert_eq!(labels.mount, "system_u:object_r:svirt_file_t:s0:c1,c2");
        assert_eq!(Defaults::read("process = nonsense"), Defaults::default());
    }

    #[test]
    fn categories_are_always_two() {
        for random in [[0; 4], [255; 4], [255, 3, 255, 3], [1, 0, 254, 3], [9, 9, 9, 9]] {
            let (one, other) = categories(random);
            assert!(one != other && one < CATEGORIES && other < CATEGORIES);
        }
        assert_eq!(level((7, 3)), "s0:c3,c7");
    }
}
