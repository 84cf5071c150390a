//! `-p`: `[address:]host:container[/protocol]`, single ports or ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use corten_api::corten::{PortMapping, Protocol};

use crate::limits::PORT_RANGE_MAX;

/// The mappings of one `-p`, as many as its ranges have ports.
#[derive(Debug, Clone, PartialEq)]
pub struct Ports(pub Vec<PortMapping>);

/// Takes `8080:80`, `127.0.0.1:8080:80/udp`, `[::1]:8080:80`,
/// `8000-8002:80-82` apart.
pub fn parse(text: &str) -> Result<Ports, String> {
    let (rest, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, name)) => (rest, protocol(name)?),
    };
    let (address, ports) = address(rest)?;
    let (host, container) = match ports.split_once(':') {
        Some((host, container)) if !host.is_empty() => (range(host)?, range(container)?),
        _ => {
            let port = ports.trim_start_matches(':');
            return Err(format!(
                "the host's port is missing (Corten picks none): write it as in 8080:{port}"
            ));
        }
    };
    if host.clone().count() != container.clone().count() {
        return Err("both ranges must have the same number of ports".to_owned());
    }
    if host.clone().count() > PORT_RANGE_MAX {
        return Err(format!("a range has up to {PORT_RANGE_MAX} ports"));
    }
    let mapping = |(host_port, container_port): (u16, u16)| PortMapping {
        protocol: protocol.into(),
        container_port: container_port.into(),
        host_port: host_port.into(),
        host_ip: address.map(|address| address.to_string()).unwrap_or_default(),
    };
    Ok(Ports(host.zip(container).map(mapping).collect()))
}

/// The address, if there is one, and what follows it.
fn address(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, ports) = rest
            .split_once("]:")
            .ok_or("an IPv6 address stands in brackets, as in [::1]:8080:80")?;
        let address: Ipv6Addr =
            inside.parse().map_err(|_| format!("{inside:?} is no IPv6 address"))?;
        return Ok((Some(address.into()), ports));
    }
    match text.matches(':').count() {
        0 | 1 => Ok((None, text)),
        2 => {
            let (inside, ports) = text.split_once(':').unwrap_or_default();
            let address: Ipv4Addr = inside.parse().map_err(|_| {
                format!("{inside:?} is no address of the host: write it as in 127.0.0.1:8080:80")
            })?;
            Ok((Some(address.into()), ports))
        }
        _ => Err("an IPv6 address stands in brackets, as in [::1]:8080:80".to_owned()),
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("the range {text} runs backwards"));
    }
    Ok(first..=last)
}

/// A port.
pub fn number(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is no port from 1 to 65535")),
    }
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(format!("{name:?} is no protocol: it is tcp, udp or sctp")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(Ports(ports)) => ports.iter().map(crate::output::port).collect::<Vec<_>>().join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn ports_are_taken_apart() {
        for (text, expected) in [
            ("8080:80", "8080->80/tcp"),
            ("8080:80/tcp", "8080->80/tcp"),
            ("53:53/UDP", "53->53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("[::1]:8080:80/sctp", "[::1]:8080->80/sctp"),
            ("8000-8001:80-81", "8000->80/tcp 8001->81/tcp"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (text, part) in [
            ("80", "8080:80"),
            ("127.0.0.1::80", "missing"),
            ("", "missing"),
            (":80", "missing"),
            ("0:80", "1 to 65535"),
            ("8080:70000", "1 to 65535"),
            ("8080:", "1 to 65535"),
            ("8080:80/icmp", "protocol"),
            ("localhost:8080:80", "no address"),
            ("::1:8080:80", "brackets"),
            ("[::1]8080:80", "brackets"),
            ("[1.2.3.4]:8080:80", "no IPv6"),
            ("2-1:80-81", "backwards"),
            ("1-3:80-81", "same number"),
            ("1-60000:1-60000", "up to"),
        ] {
            let said = shown(text);
            assert!(said.starts_with("error: ") && said.contains(part), "{text}: {said}");
        }
    }
}
