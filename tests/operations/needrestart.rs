//! The real needrestart under a real systemd, after the C library that QEMU uses was
//! replaced: the build goes on.

use super::systemd_root::SystemdRoot;
use crate::support::brep::{Brep, Setup};
use crate::support::host::{Host, task};
use crate::support::isolated;

/// Replaces a library while the guest works. Without the file of `make install`,
/// needrestart 3.6 (Debian 12) would restart the agent; with it, needrestart as
/// unattended upgrades run it does not. 3.11 (Debian 13) leaves alone what is in a PID
/// namespace of its own, as QEMU is, with the file or without it.
const DRIVER: &str = r#"
mkdir -p /etc/bbot-agent
cp /host/options /etc/bbot-agent/default.options
# <mode>: whether the agent is among the services that are restarted.
is_restarted () {
  needrestart -r "$1" -u NeedRestart::UI::stdio </dev/null >/tmp/needrestart 2>&1
  cat /tmp/needrestart
  sed '/deferred:/,$d' /tmp/needrestart | grep -q ' bbot-agent@default.service'
}
file=/etc/needrestart/conf.d/bbot-agent.conf
systemctl start $unit
tries=0
until case $(property StatusText) in building*) true ;; *) false ;; esac; do
  tries=$((tries + 1))
  [ $tries -le 300 ] || failed "no build: $(property StatusText)"
  sleep 0.1
done
agent=$(property MainPID)
qemu=$(pgrep -P "$agent" qemu)
library=$(awk '/libc\.so\.6/ { print $6; exit }' "/proc/$qemu/maps")
cp -p "$library" "$library.new"
mv "$library.new" "$library"

mv $file $file.away
is_restarted l && sees_qemu=true || sees_qemu=false
$sees_qemu || needrestart -v -r l -u NeedRestart::UI::stdio </dev/null 2>&1 |
  grep "$qemu is part of a PID namespace" || failed "needrestart does not see QEMU"
mv $file.away $file
! is_restarted a || failed "needrestart restarts the agent"
! $sees_qemu || grep bbot-agent@default.service /tmp/needrestart ||
  failed "the agent is not deferred"
[ "$(property MainPID)" = "$agent" ] || failed "the agent was restarted"
[ -d "/proc/$qemu" ] || failed "the guest was killed"
await StatusText 'idle: no task'
[ "$(property MainPID)" = "$agent" ] || failed "the agent was restarted"
journalctl --no-pager -o cat -u 'bbot-agent*'
"#;

#[test]
fn needrestart_leaves_a_build_alone_whose_qemu_uses_a_replaced_library() {
    isolated(|| {
        if !SystemdRoot::is_possible(&["needrestart", "ps"]) {
            return;
        }
        let Some(host) = Host::new() else { return };
        let root = SystemdRoot::new(&host);
        let brep = Brep::start(Setup::default());
        let slow = task("linux-gcc", "target-config: mode=slow\n");
        brep.queue(slow.trim_start_matches(": 1\n"));
        root.options(&brep.url());
        let said = root.run(DRIVER);
        let result = brep.state().builds[0].result.clone().expect(&said);
        assert!(result.contains("status: success\n"), "{result}{said}");
    });
}
