//! The systemd units: what systemd thinks of them, and what is linked in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bbot_agent::{licenses, units};

use super::support::skip;

/// The units in a directory, with a program that exists.
struct Units(PathBuf);

impl Units {
    fn new(name: &str) -> Units {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("units-{name}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in [
            ("bbot-agent@.service", units::service()),
            ("bbot-agent-once@.service", units::once()),
            ("bbot-agent-once@.timer", units::timer()),
        ] {
            assert!(!text.contains("@BINDIR@") && !text.contains("@HARDENING@"));
            let program = format!("{}/bbot-agent ", units::BIN_DIR);
            let text = text.replace(&program, concat!(env!("CARGO_BIN_EXE_bbot-agent"), " "));
            fs::write(dir.join(name), text).unwrap();
        }
        Units(dir)
    }

    fn analyze(&self, arguments: &[&str], unit: &str) -> Option<Output> {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(self.0.join(unit))
            .env("SYSTEMD_COLORS", "0")
            .output();
        match output {
            Ok(output) => Some(output),
            Err(_) => {
                skip("no systemd-analyze");
                None
            }
        }
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let units = Units::new("verify");
    for unit in [
        "bbot-agent@.service",
        "bbot-agent-once@.service",
        "bbot-agent-once@.timer",
    ] {
        let Some(output) = units.analyze(&["verify", "--man=no"], unit) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("bbot-agent"))
            .collect();
        assert!(output.status.success() && ours.is_empty(), "{unit}: {said}");
    }
}

#[test]
fn exposure_of_the_services_is_at_most_4() {
    let units = Units::new("security");
    for unit in ["bbot-agent@.service", "bbot-agent-once@.service"] {
        // The threshold is in tenths; above it the status is an error.
        let arguments = ["security", "--offline=yes", "--threshold=40", "--no-pager"];
        let Some(output) = units.analyze(&arguments, unit) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let exposure = said
            .lines()
            .find_map(|line| line.split_once("exposure level for ")?.1.split(' ').nth(1))
            .and_then(|level| level.parse::<f32>().ok())
            .expect(&said);
        assert!(output.status.success() && exposure <= 4.0, "{said}");
    }
}

#[test]
fn every_crate_that_is_linked_in_is_listed_with_its_license() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges=normal",
            "--prefix=none",
            "--format={p}|{l}",
            "--target=x86_64-unknown-linux-musl",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut linked: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .filter(|line| !line.starts_with("bbot-agent "))
        .collect();
    linked.sort();
    linked.dedup();
    let listed: Vec<String> = licenses::crates()
        .map(|(name, version, license)| format!("{name} v{version}|{license}"))
        .collect();
    assert_eq!(listed, linked);
}
