//! Which devices a group may touch.

use super::file::Directory;
use crate::Result;

/// The kind of device that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both kinds.
    Any,
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

/// One rule. For each right that is asked for, the last rule that names the
/// device and the right decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// The kind.
    pub kind: DeviceKind,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// To read.
    pub read: bool,
    /// To write.
    pub write: bool,
    /// To make a node of it.
    pub mknod: bool,
}

impl DeviceRule {
    /// The rule that allows, or denies, everything.
    pub fn everything(allow: bool) -> Self {
        Self {
            allow,
            kind: DeviceKind::Any,
            major: None,
            minor: None,
            read: true,
            write: true,
            mknod: true,
        }
    }

    /// Whether the rule names every right to every device.
    pub(super) fn is_total(&self) -> bool {
        Self { allow: true, ..*self } == Self::everything(true)
    }

    /// `c 1:3 rwm`, as v1's files take it.
    fn v1_text(&self, kind: char) -> String {
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        let mut text = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        for (set, letter) in [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')] {
            if set {
                text.push(letter);
            }
        }
        text
    }
}

/// The rules from the last total one on: it makes all before it void.
pub(super) fn effective(rules: &[DeviceRule]) -> &[DeviceRule] {
    let start = rules.iter().rposition(DeviceRule::is_total).unwrap_or(0);
    &rules[start..]
}

/// Writes the rules to a v1 group. The v1 controller knows exceptions to one
/// rule that holds for all; a later rule that narrows a wider exception is
/// taken by it only when it names the very same device.
pub(super) fn set_v1(directory: &Directory, rules: &[DeviceRule]) -> Result<()> {
    for rule in effective(rules) {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        // `a` means everything whatever comes after it.
        if rule.is_total() {
            directory.write(file, "a")?;
            continue;
        }
        let kinds: &[char] = match rule.kind {
            DeviceKind::Any => &['c', 'b'],
            DeviceKind::Character => &['c'],
            DeviceKind::Block => &['b'],
        };
        for kind in kinds {
            directory.write(file, &rule.v1_text(*kind))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_rule() {
        let mut rule = DeviceRule::everything(true);
        assert_eq!(rule.v1_text('c'), "c *:* rwm");
        rule = DeviceRule { major: Some(1), minor: Some(3), mknod: false, ..rule };
        assert_eq!(rule.v1_text('b'), "b 1:3 rw");
        assert!(!rule.is_total());
    }

    #[test]
    fn a_total_rule_voids_what_came_before() {
        let null = DeviceRule { major: Some(1), ..DeviceRule::everything(true) };
        let rules = [null, DeviceRule::everything(false), null];
        assert_eq!(effective(&rules), &rules[1..]);
        assert_eq!(effective(&rules[..1]), &rules[..1]);
    }
}
