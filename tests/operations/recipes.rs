//! The recipes of README, typed as they stand there: what is in its code blocks
//! and tables is what these tests run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bbot_agent::units;

use super::systemd::Cgroup;
use crate::support::brep::{Brep, Setup};
use crate::support::host::{AGENT, Host, task};
use crate::support::{Process, guest, isolated, require, require_programs, run};

const README: &str = include_str!("../../README.md");

/// The lines below a heading, up to the next one.
fn section(heading: &str) -> Vec<&'static str> {
    let mut lines = README.lines().skip_while(|line| *line != heading);
    assert_eq!(lines.next(), Some(heading));
    let mut code = false;
    lines
        .take_while(|line| {
            code ^= line.starts_with("```");
            code || !line.starts_with('#')
        })
        .collect()
}

/// The blocks of code in a section.
fn blocks(heading: &str) -> Vec<Vec<&'static str>> {
    section(heading)
        .split(|line| line.starts_with("```"))
        .skip(1)
        .step_by(2)
        .map(<[_]>::to_vec)
        .collect()
}

/// What is typed in a block: the lines with root's prompt.
fn typed(block: &[&'static str]) -> Vec<&'static str> {
    block
        .iter()
        .filter_map(|line| line.strip_prefix("# "))
        .collect()
}

/// The first command in code font that begins so.
fn quoted(heading: &str, beginning: &str) -> String {
    let text = section(heading).join(" ");
    let found = text.split('`').find(|part| part.starts_with(beginning));
    found.expect(beginning).to_owned()
}

/// Puts there what `make install` does.
fn install(to: &Path) {
    let unit = |name: &str| to.join("lib/systemd/system").join(name);
    for dir in ["bin", "lib/systemd/system"] {
        fs::create_dir_all(to.join(dir)).unwrap();
    }
    fs::copy(AGENT, to.join("bin/bbot-agent")).unwrap();
    for (name, text) in [
        ("bbot-agent@.service", units::service()),
        ("bbot-agent-once@.service", units::once()),
        ("bbot-agent-once@.timer", units::timer()),
    ] {
        fs::write(unit(name), text).unwrap();
    }
    // Sooner than a host would like it.
    let drop_in = unit("bbot-agent-once@.timer.d");
    fs::create_dir(&drop_in).unwrap();
    let text = "[Timer]\nOnActiveSec=100ms\nRandomizedDelaySec=0\nAccuracySec=10ms\n";
    fs::write(drop_in.join("test.conf"), text).unwrap();
    // The editor puts prepared text in place.
    let editor = to.join("bin/editor");
    // systemctl takes what is between two lines of its template. From version 257 it
    // gives the line, +4, before the file.
    let script = r#"#!/bin/sh
for file; do :; done
case $file in *.options) cp /host/options "$file"; exit ;; esac
{
  sed -n '1,/^### Anything between/p' "$file"
  cat /host/drop-in
  sed -n '/^### [A-Z][a-z]* below this comment/,$p' "$file"
} >/tmp/edited
cat /tmp/edited >"$file"
"#;
    fs::write(&editor, script).unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_agent_does_under_systemd_what_readme_says() {
    isolated(|| {
        let overlay = fs::read_to_string("/proc/filesystems").unwrap();
        let ready = require(Path::new("/lib/systemd/systemd").exists(), "systemd")
            && require(overlay.contains("\toverlay\n"), "overlayfs")
            && require_programs(&["unshare", "systemctl", "script", "openssl", guest::QEMU]);
        if !ready {
            return;
        }
        let Some(host) = Host::new() else { return };
        host.add_bootstrapped("linux-gcc", "");
        let machines = host.machine("linux-gcc");
        let machines = machines.ancestors().nth(2).unwrap();
        let dir = host.path("systemd");
        let with_systemd = "### With systemd";
        let blocks = blocks(with_systemd);
        let drop_in = blocks.iter().find(|block| block[0] == "[Service]").unwrap();

        // A controller that gives nothing to agents that have no key.
        fs::create_dir_all(dir.join("install")).unwrap();
        install(&dir.join("install"));
        let private = dir.join("key.pem");
        let public = dir.join("public.pem");
        run(&format!("openssl genrsa -out {} 2048", private.display()));
        run(&format!(
            "openssl pkey -in {} -pubout -out {}",
            private.display(),
            public.display()
        ));
        let brep = Brep::start(Setup {
            keys: vec![public],
            ..Setup::default()
        });
        brep.queue(task("linux-gcc", "").trim_start_matches(": 1\n"));
        let options = format!(
            "--accel tcg\n--ram 262144\n--min-free 1M\n--agent-name a\n--toolchain-ver 0.17.0\n{}\n",
            brep.url()
        );
        fs::write(dir.join("options"), options).unwrap();
        fs::write(dir.join("drop-in"), drop_in.join("\n") + "\n").unwrap();

        let start = typed(&blocks[0]).join("\n");
        let edit = quoted(with_systemd, "systemctl edit");
        let edit_once = edit.replace("bbot-agent@", "bbot-agent-once@");
        let timer = quoted(with_systemd, "systemctl enable --now bbot-agent-once");
        let drain = quoted(with_systemd, "systemctl kill --kill-whom=main -s USR1");
        let again = quoted(with_systemd, "systemctl kill --kill-whom=main -s HUP");
        let stop = quoted(with_systemd, "systemctl stop");
        let driver = format!(
            "set -eu\nexport PATH=/usr/local/bin:$PATH EDITOR=editor PAGER=cat\n\
             unit=bbot-agent@default.service\n\
             property () {{ systemctl show \"$unit\" -p \"$1\" --value 2>/dev/null || true; }}\n\
             await () {{\n\
               tries=0\n\
               while [ \"$(property \"$1\")\" != \"$2\" ]; do\n\
                 tries=$((tries + 1))\n\
                 if [ $tries -gt 900 ]; then\n\
                   echo \"$1 is not $2 but $(property \"$1\")\"\n\
                   systemctl status \"$unit\" --no-pager -l -n 100 || true\n\
                   exit 1\n\
                 fi\n\
                 sleep 0.1\n\
               done\n\
               echo \"$1=$2\"\n\
             }}\n\
             await LoadState loaded\n\
             mkdir -p /srv/controller\n\
             mkdir -p /etc/bbot-agent\ncp /host/key.pem /etc/bbot-agent/auth-key.pem\n\
             script -qec '{edit}' /dev/null\n\
             {start}\n\
             await StatusText 'idle: no task'\n\
             {again}\n\
             await NRestarts 1\nawait ActiveState active\nawait StatusText 'idle: no task'\n\
             {drain}\n\
             await ActiveState inactive\nawait Result success\n\
             systemctl start $unit\n\
             {stop}\n\
             await ActiveState inactive\nawait Result success\n\
             script -qec '{edit_once}' /dev/null\n\
             {timer}\n\
             unit=bbot-agent-once@default.service\n\
             while [ -z \"$(property ExecMainExitTimestamp)\" ]; do sleep 0.1; done\n\
             await Result success\n\
             systemctl stop bbot-agent-once@default.timer\n\
             journalctl --no-pager -o cat -u 'bbot-agent*'\n\
             echo done\n"
        );
        fs::write(dir.join("driver"), driver).unwrap();

        let _turn = guest::turn();
        let _cgroup = Cgroup(dir.clone());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operations/recipes.sh");
        let child = Command::new("/bin/sh")
            .arg(script)
            .args([&dir, machines, &host.path("tftp")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut systemd = Process(child);
        let log = dir.join("log");
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let deadline = std::time::Instant::now() + crate::support::host::TURN;
        while !said().ends_with("done\n")
            && !said().contains(" is not ")
            && systemd.0.try_wait().unwrap().is_none()
            && std::time::Instant::now() < deadline
        {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        systemd.kill();
        let said = said();
        let console = fs::read_to_string(dir.join("console")).unwrap_or_default();
        assert!(said.ends_with("done\n"), "{said}{console}");
        let state = brep.state();
        assert!(state.builds[0].challenge.is_some(), "{said}");
        let result = state.builds[0].result.clone().expect(&said);
        assert!(result.contains("status: success\n"), "{result}");
        assert!(said.contains("): success in "), "{said}");
    });
}
