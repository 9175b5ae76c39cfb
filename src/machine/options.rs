//! The `options` of a machine manifest: QEMU's options by the operator, in which the
//! tap and the MAC address are substituted.
//!
//! `mac=?` gets the address. `ifname=?` gets the name of the tap, but QEMU could
//! not open it by that name: the agent made the tap, which is not persistent. Where QEMU would open it (`-netdev tap,...,ifname=?`, also
//! `-net` and `-nic`), the option is therefore rewritten to the descriptor that
//! QEMU gets: `fd=<n>` takes the place of `ifname=?`, and the values that QEMU
//! refuses beside a descriptor are left out.

use std::ffi::OsString;

use crate::network::Mac;

/// Values that `-netdev tap` does not accept together with `fd=`. Scripts would attach
/// the tap to a bridge; it is attached already.
const NOT_WITH_FD: &[&str] = &[
    "ifname",
    "script",
    "downscript",
    "helper",
    "br",
    "vnet_hdr",
    "queues",
    "fds",
    "vhostfds",
];

/// The options that ask for UEFI by the host's firmware. QEMU has no firmware of that name.
pub(super) const UEFI: [&str; 2] = ["-bios", "uefi"];

/// The options for the tap `name`, which QEMU opens by `tap` (`fd=<n>`), and a MAC
/// address.
pub fn substituted(options: &[String], name: &str, mac: Mac, tap: &str) -> Vec<OsString> {
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    // QEMU gets what they stand for.
    while let Some(at) = options.windows(2).position(|pair| pair == UEFI) {
        options.drain(at..at + 2);
    }
    options
        .into_iter()
        .map(|option| {
            let option = option.replace("mac=?", &format!("mac={mac}"));
            let option = with_tap(&option, tap).unwrap_or(option);
            option.replace("ifname=?", &format!("ifname={name}")).into()
        })
        .collect()
}

/// The option with `tap` if it is one by which QEMU opens the tap.
fn with_tap(option: &str, tap: &str) -> Option<String> {
    let parts: Vec<&str> = option.split(',').collect();
    let is_tap =
        matches!(parts.first(), Some(&("tap" | "type=tap"))) || parts.contains(&"type=tap");
    if !is_tap || !parts.contains(&"ifname=?") {
        return None;
    }
    let rewritten: Vec<String> = parts
        .iter()
        .filter_map(|part| match part.split('=').next() {
            _ if *part == "ifname=?" => Some(tap.to_owned()),
            Some(key) if NOT_WITH_FD.contains(&key) => None,
            _ => Some((*part).to_owned()),
        })
        .collect();
    Some(rewritten.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(option: &str) -> String {
        let mut all = substituted(
            &[option.to_owned()],
            "bb1",
            Mac([0x52, 0x54, 0, 0, 0, 1]),
            "fd=9",
        );
        all.remove(0).into_string().unwrap()
    }

    #[test]
    fn the_address_is_put_in() {
        assert_eq!(
            one("virtio-net-pci,netdev=net0,mac=?"),
            "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01"
        );
    }

    #[test]
    fn the_tap_becomes_a_descriptor() {
        assert_eq!(one("tap,id=net0,ifname=?,script=no"), "tap,id=net0,fd=9");
        assert_eq!(
            one("tap,ifname=?,id=n,script=no,downscript=no,vhost=off,vnet_hdr=on"),
            "tap,fd=9,id=n,vhost=off"
        );
        assert_eq!(
            one("tap,ifname=?,mac=?,model=e1000"),
            "tap,fd=9,mac=52:54:00:00:00:01,model=e1000"
        );
        assert_eq!(one("type=tap,id=n,ifname=?"), "type=tap,id=n,fd=9");
    }

    #[test]
    fn elsewhere_the_name_is_put_in() {
        assert_eq!(one("x,ifname=?"), "x,ifname=bb1");
        assert_eq!(
            one("{\"type\":\"tap\",ifname=?}"),
            "{\"type\":\"tap\",ifname=bb1}"
        );
    }

    #[test]
    fn a_tap_of_the_operator_is_left_alone() {
        let own = "tap,id=net0,ifname=tap7,script=/etc/qemu-ifup";
        assert_eq!(one(own), own);
    }
}
