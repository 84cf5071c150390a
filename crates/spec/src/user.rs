//! Who a process is: user texts resolved against the image's passwd and group.
//!
//! The files come as bytes from the image, which nobody vouches for: their size
//! is bounded, and what is taken from them (a home directory becomes a variable
//! of the environment) is checked.

use corten_base::limits::PASSWD_BYTES_MAX;

use crate::error::{Error, Result};
use crate::request::{GroupsPolicy, RunAs};

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one first.
    pub additional_gids: Vec<u32>,
    /// Home directory, absolute and printable; `/` where none is known.
    pub home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves who runs: what was asked for, else what the image says (`user`,
/// `uid`, `user:group`), else root. `passwd` and `group` are the image's files,
/// empty where it has none.
pub fn resolve_user(
    run_as: &RunAs,
    image_user: &str,
    passwd: &[u8],
    group: &[u8],
) -> Result<ResolvedUser> {
    let passwd_text = text(passwd, "/etc/passwd")?;
    let group_text = text(group, "/etc/group")?;
    let (passwd, group): (&str, &str) = (&passwd_text, &group_text);
    let asked = asked_user(run_as);
    if let (None, Some(gid)) = (&asked, run_as.gid) {
        return Err(Error::GroupWithoutUser { gid });
    }
    let (image_name, image_group) = match image_user.split_once(':') {
        Some((user, group)) => (user, group),
        None => (image_user, ""),
    };
    let user = asked.as_deref().unwrap_or(image_name);
    let entry = find_user(user, passwd, run_as.uid.is_some())?;
    let uid = entry.as_ref().map_or_else(|| number(user).unwrap_or(0), |entry| entry.uid);

    // The kubelet sends the image's own user back to us, without its group:
    // the group that the image gives to that user still counts.
    let from_image = user == image_name;
    let gid = match (run_as.gid, from_image && !image_group.is_empty()) {
        (Some(gid), _) => gid,
        (None, true) => find_group(image_group, group)?,
        (None, false) => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut additional_gids = vec![gid];
    let name = entry.as_ref().map(|entry| entry.name);
    if let (GroupsPolicy::Merge, Some(name)) = (run_as.groups_policy, name) {
        additional_gids.extend(groups_of(name, group));
    }
    additional_gids.extend(&run_as.supplemental_groups);
    let mut seen = std::collections::BTreeSet::new();
    additional_gids.retain(|gid| seen.insert(*gid));
    let home = entry.map_or("/", |entry| entry.home);
    Ok(ResolvedUser { uid, gid, additional_gids, home: clean_home(home).to_owned() })
}

fn asked_user(run_as: &RunAs) -> Option<String> {
    match run_as.uid {
        Some(uid) => Some(uid.to_string()),
        None if run_as.username.is_empty() => None,
        None => Some(run_as.username.clone()),
    }
}

fn text<'a>(bytes: &'a [u8], file: &'static str) -> Result<std::borrow::Cow<'a, str>> {
    if bytes.len() > PASSWD_BYTES_MAX {
        return Err(Error::invalid("file of the image", file, "it is too large"));
    }
    Ok(String::from_utf8_lossy(bytes))
}

/// The entry of a user; none for a number that the file does not have (or for
/// no user at all, which is root).
fn find_user<'a>(
    user: &str,
    passwd: &'a str,
    only_number: bool,
) -> Result<Option<PasswdEntry<'a>>> {
    let wanted = if user.is_empty() { "0" } else { user };
    let by_name = (!only_number).then(|| entries(passwd).find(|entry| entry.name == wanted));
    if let Some(Some(entry)) = by_name {
        return Ok(Some(entry));
    }
    match number(wanted) {
        Some(uid) => Ok(entries(passwd).find(|entry| entry.uid == uid)),
        None => {
            Err(Error::UnknownName { kind: "user", name: user.to_owned(), file: "/etc/passwd" })
        }
    }
}

fn find_group(name: &str, group: &str) -> Result<u32> {
    if let Some(entry) = group_entries(group).find(|entry| entry.name == name) {
        return Ok(entry.gid);
    }
    number(name).ok_or_else(|| Error::UnknownName {
        kind: "group",
        name: name.to_owned(),
        file: "/etc/group",
    })
}

fn groups_of<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group_entries(group)
        .filter(move |entry| entry.members.split(',').any(|member| member.trim() == user))
        .map(|entry| entry.gid)
}

/// An id: decimal, and not the one that means "no id".
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

fn entries(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim_end_matches('\r').split(':');
        let name = fields.next()?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(group: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim_end_matches('\r').split(':');
        let name = fields.next()?;
        let gid = number(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// An image must not smuggle a second variable in by its home directory.
fn clean_home(home: &str) -> &str {
    let fine = home.starts_with('/') && !home.chars().any(char::is_control);
    if fine { home } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n\
        evil:x:1002:1002::/tmp\tLD_PRELOAD=x:/bin/sh\n\
        4242:x:7:7::/seven:/bin/sh\n\
        broken\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:app,other\naudio:x:29:other\nextra:x:60: app\n";

    fn resolve(run_as: &RunAs, image: &str) -> Result<ResolvedUser> {
        resolve_user(run_as, image, PASSWD, GROUP)
    }

    fn uid(uid: u32) -> RunAs {
        RunAs { uid: Some(uid), ..RunAs::default() }
    }

    #[test]
    fn nothing_said_is_root() {
        let user = resolve(&RunAs::default(), "").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (0, 0, "/root"));
        let bare = resolve_user(&RunAs::default(), "", b"", b"").unwrap();
        assert_eq!((bare.uid, bare.gid, bare.home.as_str()), (0, 0, "/"));
    }

    #[test]
    fn users_by_name_and_by_number() {
        let by_name = resolve(&RunAs::default(), "app").unwrap();
        assert_eq!((by_name.uid, by_name.gid), (1000, 1001));
        assert_eq!(by_name.additional_gids, [1001, 50, 60]);
        assert_eq!(resolve(&uid(1000), "").unwrap(), by_name);
        let unknown = resolve(&uid(4000), "app").unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.home.as_str()), (4000, 0, "/"));
        // A name of digits wins in an image's text, never for a number asked for.
        assert_eq!(resolve(&RunAs::default(), "4242").unwrap().uid, 7);
        assert_eq!(resolve(&uid(4242), "").unwrap().uid, 4242);
    }

    #[test]
    fn groups_of_the_image() {
        let user = resolve(&RunAs::default(), "app:audio").unwrap();
        assert_eq!(user.gid, 29);
        assert_eq!(resolve(&RunAs::default(), "app:777").unwrap().gid, 777);
        // What the kubelet makes of an image with `USER 1000:2000`.
        assert_eq!(resolve(&uid(1000), "1000:2000").unwrap().gid, 2000);
        let other = RunAs { uid: Some(1000), gid: Some(5), ..RunAs::default() };
        assert_eq!(resolve(&other, "1000:2000").unwrap().gid, 5);
    }

    #[test]
    fn supplemental_groups_merge_or_not() {
        let mut run_as =
            RunAs { uid: Some(1000), supplemental_groups: vec![7, 50], ..RunAs::default() };
        assert_eq!(resolve(&run_as, "").unwrap().additional_gids, [1001, 50, 60, 7]);
        run_as.groups_policy = GroupsPolicy::Strict;
        assert_eq!(resolve(&run_as, "").unwrap().additional_gids, [1001, 7, 50]);
    }

    #[test]
    fn what_cannot_be_resolved() {
        let group_only = RunAs { gid: Some(5), ..RunAs::default() };
        assert_eq!(resolve(&group_only, "app"), Err(Error::GroupWithoutUser { gid: 5 }));
        assert!(resolve(&RunAs::default(), "nobody-here").is_err());
        assert!(resolve(&RunAs::default(), "app:nogroup").is_err());
        assert!(resolve(&RunAs::default(), "4294967295").is_err());
        let long = vec![b'x'; PASSWD_BYTES_MAX + 1];
        assert!(resolve_user(&RunAs::default(), "", &long, b"").is_err());
    }

    #[test]
    fn a_home_with_control_characters_is_not_taken() {
        assert_eq!(resolve(&RunAs::default(), "evil").unwrap().home, "/");
    }
}
