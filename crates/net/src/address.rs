//! An address with its prefix length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and the length of its network's prefix: `10.89.0.5/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpNet {
    /// The address.
    pub address: IpAddr,
    /// Bits of the network's prefix.
    pub prefix: u8,
}

impl IpNet {
    /// The bits of an address of this family.
    pub fn bits(self) -> u8 {
        match self.address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// The first address of the network.
    pub fn network(self) -> IpAddr {
        from_number(self.address, number(self.address) & self.mask())
    }

    /// The address with this number within the network, counted from its first.
    pub fn host(self, index: u128) -> IpAddr {
        from_number(self.address, (number(self.address) & self.mask()) | (index & !self.mask()))
    }

    /// The number of an address within the network, or none if it is outside.
    pub fn index_of(self, address: IpAddr) -> Option<u128> {
        let inside = address.is_ipv4() == self.address.is_ipv4()
            && number(address) & self.mask() == number(self.address) & self.mask();
        inside.then(|| number(address) & !self.mask() & family_mask(self.bits()))
    }

    /// How many addresses the network has (saturating).
    pub fn size(self) -> u128 {
        1u128.checked_shl(u32::from(self.bits() - self.prefix)).unwrap_or(u128::MAX)
    }

    fn mask(self) -> u128 {
        let host_bits = u32::from(self.bits() - self.prefix);
        u128::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

fn family_mask(bits: u8) -> u128 {
    if bits == 128 { u128::MAX } else { (1 << bits) - 1 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_number(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address with prefix, like 10.89.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let net = Self {
            address: address.parse().map_err(|_| wrong())?,
            prefix: prefix.parse().map_err(|_| wrong())?,
        };
        if net.prefix > net.bits() {
            return Err(wrong());
        }
        Ok(net)
    }
}

impl TryFrom<String> for IpNet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<IpNet> for String {
    fn from(net: IpNet) -> String {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_within_a_network() {
        let net: IpNet = "10.89.3.4/16".parse().unwrap();
        assert_eq!(net.network().to_string(), "10.89.0.0");
        assert_eq!(net.host(258).to_string(), "10.89.1.2");
        assert_eq!(net.index_of("10.89.1.2".parse().unwrap()), Some(258));
        assert_eq!(net.index_of("10.90.1.2".parse().unwrap()), None);
        assert_eq!(net.index_of("fd00::1".parse().unwrap()), None);
        assert_eq!(net.size(), 65536);
        let net: IpNet = "fdc0:7e4::/64".parse().unwrap();
        assert_eq!(net.host(258).to_string(), "fdc0:7e4::102");
        assert_eq!(net.index_of("fdc0:7e4::102".parse().unwrap()), Some(258));
        assert_eq!(net.size(), 1 << 64);
        for bad in ["10.0.0.1", "10.0.0.1/33", "x/8", "fd00::/129", ""] {
            assert!(bad.parse::<IpNet>().is_err(), "{bad}");
        }
    }
}
