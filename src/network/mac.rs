//! Hardware addresses.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::str::FromStr;

use crate::error::{Error, Result};

/// A 48-bit hardware address of one station, as `52:54:00:12:34:56`.
///
/// ```
/// use bbot_agent::network::Mac;
/// let mac: Mac = "de:ad:BE:ef:de:ad".parse()?;
/// assert_eq!(mac.to_string(), "de:ad:be:ef:de:ad");
/// # Ok::<(), bbot_agent::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A random address with the locally administered bit set and the multicast
    /// bit clear, so that it collides with no vendor's.
    pub fn random() -> Mac {
        // The standard library seeds this from getrandom(2); unpredictability
        // is not needed here, only that two hosts differ.
        let random = RandomState::new().build_hasher().finish().to_ne_bytes();
        let mut mac = [0; 6];
        mac.copy_from_slice(&random[..6]);
        mac[0] = (mac[0] & 0xfc) | 0x02;
        Mac(mac)
    }

    /// The address that an instance of the agent gives to a machine with this one.
    /// Instances run copies of one machine on one bridge, so every instance but the
    /// first counts its number into the last octets.
    pub fn of_instance(self, instance: u16) -> Mac {
        let Mac(mut octets) = self;
        let [high, low] = instance.saturating_sub(1).to_be_bytes();
        octets[3] ^= high;
        octets[4] ^= low;
        Mac(octets)
    }

    /// Whether it names a group and not a station.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Six groups of two hexadecimal digits between colons, in either case.
    fn from_str(text: &str) -> Result<Mac> {
        let wrong = || {
            Error::new(format!("invalid MAC address '{text}'"))
                .hint("six groups of two hexadecimal digits, as in 52:54:00:12:34:56")
        };
        let mut mac = [0; 6];
        let mut groups = text.split(':');
        for byte in &mut mac {
            let group = groups.next().ok_or_else(wrong)?;
            if group.len() != 2 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(group, 16).map_err(|_| wrong())?;
        }
        if groups.next().is_some() || Mac(mac).is_multicast() || mac == [0; 6] {
            return Err(wrong());
        }
        Ok(Mac(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_stations_parse() {
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52-54-00-12-34-56",
            "52:54:00:12:34:5",
            "+2:54:00:12:34:56",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "52:54:00:12:34:56 ",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_addresses_are_local_unicast_and_differ() {
        let macs: Vec<Mac> = (0..100).map(|_| Mac::random()).collect();
        for mac in &macs {
            assert_eq!(mac.0[0] & 3, 2, "{mac}");
            assert_eq!(mac.to_string().parse::<Mac>().unwrap(), *mac);
        }
        assert!(macs.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn instances_of_one_machine_have_addresses_of_their_own() {
        let mac = Mac([0x02, 0, 0, 0xaa, 0xbb, 0xcc]);
        assert_eq!(mac.of_instance(1), mac);
        let all: std::collections::HashSet<_> = (1..=99).map(|n| mac.of_instance(n)).collect();
        assert_eq!(all.len(), 99);
        assert!(all.iter().all(|mac| mac.0[..3] == [0x02, 0, 0]));
    }
}
