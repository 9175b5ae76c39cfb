#!/bin/sh
# A real systemd with nothing but our unit, in namespaces of its own; run by
# systemd.rs.
#
#   systemd.sh <program> <units> <machines> <directory>
#
# Stage 1 makes a cgroup and the namespaces, stage 2 the root that systemd finds
# (all that it or the unit would write is on file systems of this mount
# namespace), and then a driver watches the unit from inside while systemd runs
# as process 1. <directory>/log ends with "done" or with why not.

set -eu
stage=${STAGE:-1}

case $stage in
1)
  . "${0%/*}/cgroup.sh"
  enter_cgroup "$4"
  export STAGE=2
  exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup --uts --ipc \
    /bin/sh "$0" "$@"
  ;;

2)
  . "${0%/*}/cgroup.sh"
  mount -t tmpfs tmpfs /srv
  mkdir /srv/bin /srv/units /srv/machines /srv/dir /srv/etc
  cp "$1" /srv/bin/bbot-agent
  cp "$0" /srv/driver
  cp -R "$2/." /srv/units
  mount --bind "$3" /srv/machines
  mount --bind "$4" /srv/dir
  cp -R /etc/. /srv/etc 2>/dev/null || true
  mkdir -p /srv/etc/bbot-agent
  cp "$4/default.options" /srv/etc/bbot-agent
  mount --bind /srv/etc /etc
  : > /srv/console
  mount --bind /srv/console /dev/console
  for dir in /run /tmp /var/tmp /var/lib; do
    mount -t tmpfs tmpfs "$dir"
  done
  mkdir /run/systemd
  mount_cgroup /sys
  STAGE=3 /bin/sh /srv/driver > /srv/dir/log 2>&1 &
  export container=test SYSTEMD_UNIT_PATH=/srv/units
  exec /lib/systemd/systemd --system --unit=test.target \
    --log-target=console --log-level=info --show-status=0
  ;;

3)
  unit=bbot-agent@default.service
  property () { systemctl show "$unit" -p "$1" --value 2>/dev/null; }
  await () { # <property> <value>
    tries=0
    while [ "$(property "$1")" != "$2" ]; do
      tries=$((tries + 1))
      if [ $tries -gt 200 ]; then
        echo "$1 is not $2 but $(property "$1")"
        systemctl status "$unit" --no-pager -l || true
        cat /srv/console
        exit 1
      fi
      sleep 0.1
    done
    echo "$1=$2"
  }
  await ActiveState active
  await StatusText "idle: no task"
  /srv/bin/bbot-agent --status
  cat "/proc/$(property MainPID)/cgroup"
  for protect in no yes; do
    printf '%s\n' '[Service]' Type=oneshot Delegate=yes ProtectControlGroups=$protect \
      StandardOutput=append:/srv/check \
      'ExecStart=-/srv/bin/bbot-agent --check --qemu /none --options-file /etc/bbot-agent/default.options' \
      > /srv/units/check-$protect.service
    systemctl start check-$protect.service
  done
  cat /srv/check
  first=$(property MainPID)
  kill -STOP "$first"
  await NRestarts 1
  await ActiveState active
  await StatusText "idle: no task"
  [ "$(property MainPID)" != "$first" ] || { echo "the same process"; exit 1; }
  kill -HUP "$(property MainPID)"
  await NRestarts 2
  await ActiveState active
  systemctl stop "$unit"
  await ActiveState inactive
  await Result success
  cat /srv/console
  echo done
  ;;
esac
