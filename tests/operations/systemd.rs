//! The unit under a real systemd: ready, with a status, started again when the
//! watchdog starves and after SIGHUP, stopped without complaint.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bbot_agent::units;
use nix::mount::{MntFlags, umount2};

use super::super::support::{Process, eventually, isolated, require, require_programs};
use super::Host;

/// The cgroup of the experiment, removed with what systemd made in it.
pub(super) struct Cgroup(pub(super) PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Ok(path) = fs::read_to_string(self.0.join("cgroup")) {
            remove(Path::new(path.trim()));
        }
        let _ = umount2(&self.0.join("cgroups"), MntFlags::MNT_DETACH);
    }
}

/// Removes a tree of cgroups: only directories can and must be removed. Dead
/// processes leave theirs after a moment.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    for _ in 0..100 {
        if fs::remove_dir(cgroup).is_ok() || !cgroup.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn systemd_starts_the_unit_and_starts_it_again_when_it_starves() {
    isolated(|| {
        let systemd = Path::new("/lib/systemd/systemd").exists();
        if !require(systemd, "systemd") || !require_programs(&["unshare", "systemctl"]) {
            return;
        }
        let Some(host) = Host::new() else { return };
        let dir = host.dir.path().canonicalize().unwrap();
        let units_dir = dir.join("units");
        let drop_in = units_dir.join("bbot-agent@default.service.d");
        fs::create_dir_all(&drop_in).unwrap();
        // As the unit says: what is not under /build needs a drop-in.
        let text = "[Service]\nReadWritePaths=/srv\nWatchdogSec=2\nTimeoutAbortSec=2\n\
                    RestartSec=100ms\nStandardError=append:/srv/console\n";
        fs::write(drop_in.join("test.conf"), text).unwrap();
        let unit = units::service().replace(units::BIN_DIR, "/srv/bin");
        fs::write(units_dir.join("bbot-agent@.service"), unit).unwrap();
        for (name, wants) in [
            ("test", "Wants=bbot-agent@default.service\n"),
            // Every service depends on these.
            ("sysinit", ""),
            ("basic", ""),
            ("shutdown", ""),
        ] {
            let text = format!("[Unit]\nDescription={name}\n{wants}");
            fs::write(units_dir.join(format!("{name}.target")), text).unwrap();
        }
        let options = "--machines /srv/machines\n--tftp /srv/dir/tftp\n--min-free 1M\n\
                       --agent-name a\n--accel tcg\n/srv/dir/spool\n";
        fs::write(dir.join("default.options"), options).unwrap();

        let log = dir.join("log");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operations/systemd.sh");
        let _cgroup = Cgroup(dir.clone());
        let child = Command::new("/bin/sh")
            .arg(script)
            .arg(env!("CARGO_BIN_EXE_bbot-agent"))
            .args([
                &units_dir,
                &host.volume.path().canonicalize().unwrap(),
                &dir,
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut systemd = Process(child);
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let mut over = false;
        eventually("systemd has done it all", || {
            over = said().ends_with("done\n") || systemd.0.try_wait().unwrap().is_some();
            over || said().contains(" is not ")
        });
        systemd.kill();
        assert!(said().ends_with("done\n"), "{}", said());
        assert!(
            said().contains("default-1: idle: no task"),
            "--status inside: {}",
            said()
        );
        assert!(said().contains("<6>info: idle: no task"), "{}", said());
        // It was delegated, so that the agent moved to a cgroup below it.
        let leaf = "/bbot-agent@default.service/agent\n";
        assert!(said().contains(leaf), "{}", said());
        // --check in units that can write there, and that cannot.
        for line in [
            "ok       cgroups            one for each guest, with",
            "warning  cgroups            unable to write /sys/fs/cgroup/system.slice/check-yes",
            " to let the agent write there, in its unit: ReadWritePaths=/sys/fs/cgroup/system.slice/check-yes",
        ] {
            assert!(said().contains(line), "{line}: {}", said());
        }
    });
}
