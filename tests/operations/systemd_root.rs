//! A real systemd as process 1 of a root of its own, with what `make install`
//! installs. A driver types commands there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::systemd::Cgroup;
use crate::support::host::{AGENT, Host, TURN};
use crate::support::{Process, guest, require, require_programs, run};

/// What each driver begins with: `await <property> <value>` waits for the state of
/// `$unit`.
const PRELUDE: &str = r#"set -eu
export PATH=/usr/local/bin:/usr/sbin:/sbin:$PATH EDITOR=editor PAGER=cat
unit=bbot-agent@default.service
property () { systemctl show "$unit" -p "$1" --value 2>/dev/null || true; }
failed () {
  echo "$1"
  systemctl status "$unit" --no-pager -l -n 100 || true
  exit 1
}
await () {
  tries=0
  while [ "$(property "$1")" != "$2" ]; do
    tries=$((tries + 1))
    [ $tries -le 900 ] || failed "$1 is not $2 but $(property "$1")"
    sleep 0.1
  done
  echo "$1=$2"
}
await LoadState loaded
"#;

/// A root in which systemd runs, until [`SystemdRoot::run`] returns.
pub struct SystemdRoot {
    /// The directory that is `/host` inside.
    pub dir: PathBuf,
    /// Machines and TFTP directory, which are below `/build` inside.
    build: Vec<PathBuf>,
}

impl SystemdRoot {
    /// Whether this machine has what it takes; else the test is skipped.
    pub fn is_possible(programs: &[&str]) -> bool {
        let file_systems = fs::read_to_string("/proc/filesystems").unwrap();
        require(Path::new("/lib/systemd/systemd").exists(), "systemd")
            && require(file_systems.contains("\toverlay\n"), "overlayfs")
            && require_programs(&["unshare", "systemctl", guest::QEMU])
            && require_programs(programs)
    }

    /// One on which the agent is installed; the file system has no `/build`.
    pub fn bare(dir: PathBuf) -> SystemdRoot {
        fs::create_dir_all(&dir).unwrap();
        run(&format!(
            "{}/tests/tools/install {AGENT} {} /usr/local /usr/local/lib/systemd/system /etc",
            env!("CARGO_MANIFEST_DIR"),
            dir.join("install").display()
        ));
        let build = Vec::new();
        SystemdRoot { dir, build }
    }

    /// One with the machine `linux-gcc` of a host, bootstrapped.
    pub fn new(host: &Host) -> SystemdRoot {
        host.add_bootstrapped("linux-gcc", "");
        let machine = host.machine("linux-gcc");
        let machines = machine.ancestors().nth(2).unwrap().to_owned();
        SystemdRoot {
            build: vec![machines, host.path("tftp")],
            ..SystemdRoot::bare(host.path("systemd"))
        }
    }

    /// The option file of the toolchain `default`.
    pub fn options(&self, controller: &str) {
        let text = format!(
            "--accel tcg\n--ram 262144\n--min-free 1M\n--agent-name a\n--toolchain-ver 0.17.0\n\
             --hold 0\n{controller}\n"
        );
        fs::write(self.dir.join("options"), text).unwrap();
    }

    /// Runs the driver, which has to end with "done"; its output.
    #[track_caller]
    pub fn run(&self, driver: &str) -> String {
        let driver = format!("{PRELUDE}{driver}\necho done\n");
        fs::write(self.dir.join("driver"), driver).unwrap();
        let _turn = guest::turn();
        let _cgroup = Cgroup(self.dir.clone());
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/operations/systemd-root.sh"
        );
        let child = Command::new("/bin/sh")
            .arg(script)
            .arg(&self.dir)
            .args(&self.build)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut systemd = Process(child);
        let log = self.dir.join("log");
        let deadline = Instant::now() + TURN;
        let over = self.dir.join("over");
        while !over.exists() && systemd.0.try_wait().unwrap().is_none() && Instant::now() < deadline
        {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        systemd.kill();
        let said = fs::read_to_string(&log).unwrap_or_default();
        let console = fs::read_to_string(self.dir.join("console")).unwrap_or_default();
        assert!(said.ends_with("done\n"), "{said}{console}");
        said
    }
}
