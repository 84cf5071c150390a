//! The texts of the files that a pod shares: resolv.conf, hosts, hostname.

use std::fmt::Write;
use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::request::Dns;

/// resolv.conf. An entry with a blank or a line break is refused: it would be
/// another entry, or another line.
pub fn resolv_conf(dns: &Dns) -> Result<String> {
    let mut text = String::new();
    let lists = [("search", &dns.searches), ("options", &dns.options)];
    for entry in dns.servers.iter().chain(lists.iter().flat_map(|(_, list)| list.iter())) {
        if entry.is_empty() || entry.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::invalid(
                "DNS entry",
                entry.as_str(),
                "it must be one word without blanks",
            ));
        }
    }
    if !dns.searches.is_empty() {
        text.push_str("search ");
        text.push_str(&dns.searches.join(" "));
        text.push('\n');
    }
    for server in &dns.servers {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        text.push_str("options ");
        text.push_str(&dns.options.join(" "));
        text.push('\n');
    }
    Ok(text)
}

/// /etc/hosts for a pod with these addresses.
pub fn hosts(hostname: &str, addresses: &[IpAddr]) -> Result<String> {
    check_hostname(hostname)?;
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for address in addresses {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    Ok(text)
}

/// /etc/hostname.
pub fn hostname(hostname: &str) -> Result<String> {
    check_hostname(hostname)?;
    Ok(format!("{hostname}\n"))
}

/// The kernel takes 64 bytes; a blank or control character would break files.
pub fn check_hostname(hostname: &str) -> Result<()> {
    const HOSTNAME_BYTES_MAX: usize = 64;
    if hostname.len() > HOSTNAME_BYTES_MAX {
        return Err(Error::invalid("host name", hostname, "it is longer than 64 bytes"));
    }
    if hostname.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid(
            "host name",
            hostname,
            "it must not hold blanks or control characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_as_resolvers_read_it() {
        let dns = Dns {
            servers: vec!["10.0.0.1".into(), "fd00::1".into()],
            searches: vec!["a.b".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        let expected = "search a.b b\nnameserver 10.0.0.1\nnameserver fd00::1\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns).unwrap(), expected);
        assert_eq!(resolv_conf(&Dns::default()).unwrap(), "");
    }

    #[test]
    fn entries_cannot_bring_lines() {
        let dns = Dns { servers: vec!["1.1.1.1\nsearch evil".into()], ..Dns::default() };
        assert!(resolv_conf(&dns).is_err());
        assert!(hosts("a\n6.6.6.6 bank", &[]).is_err());
        assert!(hostname(&"x".repeat(65)).is_err());
    }

    #[test]
    fn hosts_has_the_pod() {
        let text = hosts("web-0", &["10.1.2.3".parse().unwrap()]).unwrap();
        assert!(text.ends_with("10.1.2.3\tweb-0\n"), "{text}");
    }
}
