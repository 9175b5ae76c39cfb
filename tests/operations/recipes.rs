//! README's section on systemd, typed as it stands there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::readme::{block, blocks, quoted, typed};
use super::systemd_root::SystemdRoot;
use crate::support::brep::{Brep, Setup};
use crate::support::host::{Host, task};
use crate::support::{isolated, run};

const WITH_SYSTEMD: &str = "### With systemd";

/// An editor that replaces the option file by /host/options, and puts /host/drop-in
/// into a drop-in: systemctl takes the text between two lines of its template. From
/// version 257 it names a line, `+4`, before the file.
const EDITOR: &str = r#"#!/bin/sh
for file; do :; done
case $file in *.options) cp /host/options "$file"; exit ;; esac
{
  sed -n '1,/^### Anything between/p' "$file"
  cat /host/drop-in
  sed -n '/^### [A-Z][a-z]* below this comment/,$p' "$file"
} >/tmp/edited
cat /tmp/edited >"$file"
"#;

/// Adds an editor, and makes the timer elapse at once.
fn prepare(install: &Path) {
    let local = install.join("usr/local");
    let drop_in = local.join("lib/systemd/system/bbot-agent-once@.timer.d");
    fs::create_dir(&drop_in).unwrap();
    let text = "[Timer]\nOnActiveSec=100ms\nRandomizedDelaySec=0\nAccuracySec=10ms\n";
    fs::write(drop_in.join("test.conf"), text).unwrap();
    let editor = local.join("bin/editor");
    fs::write(&editor, EDITOR).unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_agent_does_under_systemd_what_readme_says() {
    isolated(|| {
        if !SystemdRoot::is_possible(&["script", "openssl"]) {
            return;
        }
        let Some(host) = Host::new() else { return };
        let root = SystemdRoot::new(&host);
        prepare(&root.dir.join("install"));

        // A controller that gives nothing to agents that have no key.
        let private = root.dir.join("key.pem");
        let public = root.dir.join("public.pem");
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
        root.options(&brep.url());
        let drop_in = block(WITH_SYSTEMD, "[Service]").join("\n") + "\n";
        fs::write(root.dir.join("drop-in"), drop_in).unwrap();

        let start = typed(&blocks(WITH_SYSTEMD)[0]).join("\n");
        let edit = quoted(WITH_SYSTEMD, "systemctl edit");
        let edit_once = edit.replace("bbot-agent@", "bbot-agent-once@");
        let timer = quoted(WITH_SYSTEMD, "systemctl enable --now bbot-agent-once");
        let drain = quoted(WITH_SYSTEMD, "systemctl kill --kill-whom=main -s USR1");
        let again = quoted(WITH_SYSTEMD, "systemctl kill --kill-whom=main -s HUP");
        let stop = quoted(WITH_SYSTEMD, "systemctl stop");
        let said = root.run(&format!(
            "mkdir -p /srv/controller /etc/bbot-agent
             cp /host/key.pem /etc/bbot-agent/auth-key.pem
             script -qec '{edit}' /dev/null
             {start}
             await StatusText 'idle: no task'
             {again}
             await NRestarts 1
             await ActiveState active
             await StatusText 'idle: no task'
             {drain}
             await ActiveState inactive
             await Result success
             systemctl start $unit
             {stop}
             await ActiveState inactive
             await Result success
             script -qec '{edit_once}' /dev/null
             {timer}
             unit=bbot-agent-once@default.service
             while [ -z \"$(property ExecMainExitTimestamp)\" ]; do sleep 0.1; done
             await Result success
             systemctl stop bbot-agent-once@default.timer
             journalctl --no-pager -o cat -u 'bbot-agent*'"
        ));
        let state = brep.state();
        assert!(state.builds[0].challenge.is_some(), "{said}");
        let result = state.builds[0].result.clone().expect(&said);
        assert!(result.contains("status: success\n"), "{result}");
        assert!(said.contains(": success in "), "{said}");
    });
}
