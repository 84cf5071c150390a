//! A network card for the machine of a test: without one it has an address on
//! loopback alone, and no route to anywhere.

use std::process::Command;

/// Its address.
pub const ADDRESS: &str = "192.0.2.10";

/// Gives the machine a card with [`ADDRESS`], which the default route leads to.
///
/// # Panics
/// If it has one already.
pub fn plug_in() {
    for line in [
        "link set lo up".to_owned(),
        "link add card type veth peer name cable".to_owned(),
        format!("addr add {ADDRESS}/24 dev card"),
        "link set card up".to_owned(),
        "link set cable up".to_owned(),
        "route add default dev card".to_owned(),
    ] {
        ip(&line);
    }
}

/// Takes the card away.
///
/// # Panics
/// If there is none.
pub fn unplug() {
    ip("link del card");
}

/// `ip` with these arguments.
///
/// # Panics
/// If it fails.
pub fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output().expect("ip is installed");
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}
