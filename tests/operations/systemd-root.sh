#!/bin/sh
# A real systemd on a copy of this host, in namespaces of its own; run by
# systemd_root.rs.
#
#   systemd-root.sh <directory> [<machines> <tftp>]
#
# All writes go to a file system in memory over this host's. The only units are the
# journal and those of <directory>/install, which is copied over the root.
# <directory> is /host inside. /host/driver is run as a shell script; /host/log has
# its output, and /host/over appears when it has ended.

set -eu
case ${STAGE:-1} in
1)
  . "${0%/*}/cgroup.sh"
  enter_cgroup "$1"
  export STAGE=2
  exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup --uts --ipc \
    /bin/sh "$0" "$@"
  ;;

2)
  . "${0%/*}/cgroup.sh"
  top=$1/root
  mkdir "$top"
  mount -t tmpfs tmpfs "$top"
  mkdir "$top/upper" "$top/work" "$top/root"
  mount -t overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" overlay "$top/root"
  root=$top/root
  rm -rf "$root/build" "$root/etc/bbot-agent"
  for dir in host old srv etc/needrestart/conf.d etc/systemd/network; do
    rm -rf "${root:?}/$dir"
    mkdir -p "$root/$dir"
  done
  : > "$root/etc/fstab"
  mount --bind "$1" "$root/host"
  if [ $# -gt 1 ]; then
    mkdir -p "$root/build/machines" "$root/build/tftp"
    mount --bind "$2" "$root/build/machines"
    mount --bind "$3" "$root/build/tftp"
  fi
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount_cgroup "$root/sys"
  # systemd-networkd waits for udev, which is not there, unless /sys is read-only.
  mount -o remount,bind,ro "$root/sys"
  mount --rbind /dev "$root/dev"
  for dir in run tmp var/tmp var/lib; do
    mount -t tmpfs tmpfs "$root/$dir"
  done
  : > "$root/host/console"
  mount --bind "$root/host/console" "$root/dev/console"
  cp -R "$root/host/install/." "$root"
  rm -rf "$root"/etc/systemd/system/* "$root"/lib/systemd/system/*.wants
  for target in sysinit basic shutdown timers network-online; do
    printf '[Unit]\nDescription=%s\n' $target > "$root/etc/systemd/system/$target.target"
  done
  printf '[Unit]\nWants=systemd-journald.service\n' > "$root/etc/systemd/system/test.target"
  # As on a host; credentials reach a service by a mount.
  cd "$root"
  pivot_root . old
  umount -l /old
  mount --make-rshared /
  { /bin/sh /host/driver > /host/log 2>&1 < /dev/null || true; : > /host/over; } &
  export container=test
  exec /lib/systemd/systemd --system --unit=test.target \
    --log-target=console --show-status=0 > /dev/console 2>&1 < /dev/null
  ;;
esac
