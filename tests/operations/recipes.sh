#!/bin/sh
# A real systemd on a copy of this host, in namespaces of its own; run by
# recipes.rs.
#
#   recipes.sh <directory> <machines> <tftp>
#
# Whatever is written goes to a file system in memory over this host's. Of its
# units only the journal is there, and ours. <directory> is /host inside;
# /host/driver says what to do, in /host/log what came of it.

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
  for dir in host build/machines build/tftp old etc/bbot-agent; do
    rm -rf "${root:?}/$dir"
    mkdir -p "$root/$dir"
  done
  mount --bind "$1" "$root/host"
  mount --bind "$2" "$root/build/machines"
  mount --bind "$3" "$root/build/tftp"
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount_cgroup "$root/sys"
  mount --rbind /dev "$root/dev"
  for dir in run tmp var/tmp var/lib; do
    mount -t tmpfs tmpfs "$root/$dir"
  done
  : > "$root/host/console"
  mount --bind "$root/host/console" "$root/dev/console"
  cp -R "$root/host/install/." "$root/usr/local"
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
  /bin/sh /host/driver > /host/log 2>&1 < /dev/null &
  export container=test
  exec /lib/systemd/systemd --system --unit=test.target \
    --log-target=console --show-status=0 > /dev/console 2>&1 < /dev/null
  ;;
esac
