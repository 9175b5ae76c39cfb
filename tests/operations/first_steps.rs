//! README from an empty file system to the first result, typed as it stands there.

use super::readme::{block, blocks, typed};
use super::systemd_root::SystemdRoot;
use crate::support::btrfs::Volume;
use crate::support::{TempDir, guest, isolated, skip};

/// The bridge and the guests' network of README, for the test guest, which does not
/// use DHCP.
const NETWORK: &str = "bridge=192.168.123.1\nprefix=24\nbits=192.168.123\n";

/// The host is online without a guest. A DHCP client on the bridge, beside the guests.
const DHCP: &str = r#"
tries=0
until ip -4 addr show br1 2>/dev/null | grep -q 192.168.123.1/24; do
  tries=$((tries + 1))
  [ $tries -le 300 ] || { unit=systemd-networkd; failed "no br1: $(ip addr 2>&1)"; }
  sleep 0.1
done
/lib/systemd/systemd-networkd-wait-online --timeout=30 || { unit=systemd-networkd; failed "not online"; }
printf '#!/bin/sh\necho "dhcp $1 $ip $router"\n' >/tmp/bound
chmod +x /tmp/bound
ip link add port0 type veth peer name port1
ip link set port0 master br1 up
ip link set port1 up
busybox udhcpc -f -n -q -t 20 -T 1 -i port1 -s /tmp/bound
ip link del port0
"#;

#[test]
fn the_first_steps_of_readme_lead_to_a_result() {
    isolated(|| {
        let programs = ["mkfs.btrfs", "btrfs", "mount", "ip", "busybox"];
        if !SystemdRoot::is_possible(&programs) {
            return;
        }
        // The recipe makes a volume of its own; this one shows that btrfs and loop
        // devices are there.
        let Some(_volume) = Volume::new(110) else {
            return;
        };
        if let Err(why) = guest::image() {
            return skip(why);
        }
        let dir = TempDir::new();
        let root = SystemdRoot::bare(dir.path().join("systemd"));
        guest::install(&root.dir, NETWORK);
        guest::offer_worker(&root.dir.join("toolchain"));

        let machine: Vec<&str> = blocks("## Machines and volumes")
            .iter()
            .flat_map(|block| typed(block))
            .collect();
        let of = |heading, beginning| typed(&block(heading, beginning)).join("\n");
        let running = "## Running it";
        let check = block(running, "# bbot-agent --check");
        let without = block("### Without a network", "# head");
        let said = root.run(&format!(
            "cp -R --sparse=always /host/disk.img /host/toolchain /root\n\
             {}\n{}\n{DHCP}\n{}\n\
             # KVM is not everywhere where the tests run.\n\
             export BBOT_AGENT_OPTIONS='--accel tcg'\n\
             {}\n{}\n{}\nls -l /build/machines/default/*",
            machine.join("\n"),
            of(running, "# cat >/etc/systemd/network/br1.netdev"),
            of(running, "# cat >/etc/bbot-agent/default.options"),
            typed(&check).join("\n"),
            of("### With systemd", "# bbot-agent --print-unit needrestart"),
            typed(&without).join("\n"),
        ));

        assert!(said.contains("dhcp bound 192.168.123."), "{said}");
        // All that README shows as examined is examined, and is as shown.
        for line in check.iter().filter(|line| line.starts_with("ok ")) {
            let name = line[..28].trim_end();
            assert!(said.contains(&format!("\n{name}")), "{name}: {said}");
        }
        let bootstrapped = "x86_64-linux_debian_12-gcc_12-default";
        assert!(said.contains(bootstrapped), "{said}");
        let head = without.iter().rposition(|line| line.starts_with("# head"));
        let result = without[head.unwrap() + 1..].join("\n");
        assert!(said.contains(&result), "{said}");
    });
}
