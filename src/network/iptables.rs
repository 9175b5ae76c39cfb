//! The redirect by the `iptables` program, for kernels without `nf_tables`.
//!
//! Its rules do not go when we are killed. So what is needed to remove them is
//! written to a file of the run directory first ([`remove_recorded`]), and each
//! carries a comment that says whose it is.
//!
//! The kernel must pass bridged packets through iptables
//! (`bridge-nf-call-iptables`), else no rule matches.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use super::program::Program;
use super::{Bridge, PORT, SERVER, conntrack};
use crate::error::{Context as _, Result};
use crate::sys::net::Name;
use crate::trace;

/// The rules of one redirect.
#[derive(Debug)]
pub(super) struct Rules {
    program: Program,
    rules: Vec<Vec<String>>,
    record: PathBuf,
}

impl Rules {
    /// Writes the record, then installs the rules, or none. A record that is there
    /// is of rules that a sweep could not remove, and stays.
    pub(super) fn install(
        program: &Program,
        bridge: &Bridge,
        tap: &Name,
        server: SocketAddrV4,
        owner: &str,
        records: &Path,
    ) -> Result<Rules> {
        let installed = Rules {
            program: program.clone(),
            rules: rules(bridge, tap, server, owner),
            record: records.join(format!("{tap}.iptables")),
        };
        let text = render(&installed.program, &installed.rules);
        fs::File::create_new(&installed.record)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .context(|| format!("unable to write {}", installed.record.display()))?;
        for rule in &installed.rules {
            if let Err(error) = program.run("-I", rule) {
                // What did not get in is gone already.
                let _ = installed.remove();
                return Err(error);
            }
        }
        Ok(installed)
    }

    /// Removes the rules, then the record.
    pub(super) fn remove(&self) -> Result<()> {
        remove(&self.program, &self.rules, &self.record)
    }
}

fn remove(program: &Program, rules: &[Vec<String>], record: &Path) -> Result<()> {
    for rule in rules.iter().rev() {
        program.remove(rule)?;
    }
    // A courtesy to the next guest: entries expire by themselves.
    let server = rules.iter().find_map(|rule| rule.last()?.parse().ok());
    match server.map(conntrack::forget) {
        Some(Ok(count)) => trace!(4, "remove", "forgot {count} connections"),
        Some(Err(error)) => trace!(4, "remove", "unable to forget connections: {error}"),
        None => {}
    }
    match fs::remove_file(record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(|| format!("unable to remove {}", record.display()))
        }
        _ => Ok(()),
    }
}

/// The rules: table and chain first, then what is matched and done. The guard
/// comes first, so that there is no instant without it.
fn rules(bridge: &Bridge, tap: &Name, server: SocketAddrV4, owner: &str) -> Vec<Vec<String>> {
    let owner: String = owner
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(100)
        .collect();
    let comment = format!("bbot-agent:{owner}:{tap}");
    let split = |text: String| text.split(' ').map(str::to_owned).collect();
    vec![
        split(format!(
            "filter INPUT -p udp -d {} --dport {} -m physdev ! --physdev-in {tap} \
             -m comment --comment {comment} -j DROP",
            server.ip(),
            server.port()
        )),
        // Ports are isolated, but a host may route from one to another.
        split(format!(
            "filter FORWARD -i {0} -o {0} -m physdev --physdev-in {tap} \
             ! --physdev-is-bridged -m comment --comment {comment} -j DROP",
            bridge.name
        )),
        split(format!(
            "nat PREROUTING -i {} -p udp -d {SERVER} --dport {PORT} -m physdev --physdev-in {tap} \
             -m comment --comment {comment} -j DNAT --to-destination {server}",
            bridge.name
        )),
    ]
}

fn render(program: &Program, rules: &[Vec<String>]) -> String {
    let mut text = format!("{}\n", program.path().display());
    for rule in rules {
        text.push_str(&rule.join(" "));
        text.push('\n');
    }
    text
}

/// Removes the rules that a dead process recorded in `record`, and the record.
/// Rules that are gone already, and a record that is, are fine. Returns whether
/// there was one.
///
/// # Errors
///
/// When the record cannot be read or removed, or iptables fails.
pub fn remove_recorded(record: &Path) -> Result<bool> {
    let text = match fs::read_to_string(record) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context(|| format!("unable to read {}", record.display())),
    };
    // A record that was cut short by a crash: what it does not name had not
    // been installed, for it is written whole before the first rule.
    let mut lines = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    let program = Program::at(lines.next().unwrap_or_default());
    let rules: Vec<Vec<String>> = lines
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect();
    remove(&program, &rules, record)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<Vec<String>> {
        let bridge = Bridge {
            name: Name::new("br1").unwrap(),
            address: [192, 168, 123, 1].into(),
            networks: Vec::new(),
            calls_iptables: true,
        };
        let server = SocketAddrV4::new(bridge.address, 40000);
        rules(&bridge, &Name::new("tap1").unwrap(), server, "gcc 12")
    }

    #[test]
    fn rules_match_the_tap_and_say_whose_they_are() {
        let [guard, routed, redirect] = &example()[..] else {
            panic!("three rules")
        };
        assert_eq!(
            redirect.join(" "),
            "nat PREROUTING -i br1 -p udp -d 196.254.111.222 --dport 69 -m physdev \
             --physdev-in tap1 -m comment --comment bbot-agent:gcc_12:tap1 \
             -j DNAT --to-destination 192.168.123.1:40000"
        );
        for rule in [guard, routed] {
            assert!(rule.join(" ").ends_with("bbot-agent:gcc_12:tap1 -j DROP"));
        }
    }

    #[test]
    fn a_record_that_is_missing_or_cut_short_is_no_error() {
        let dir = std::env::temp_dir().join(format!("bbot-record-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let record = dir.join("tap1.iptables");
        assert!(!remove_recorded(&record).unwrap());
        fs::write(&record, "/usr/sbin/ipta").unwrap();
        assert!(remove_recorded(&record).unwrap());
        assert!(!record.exists());
        fs::remove_dir(&dir).unwrap();
    }
}
