# Sourced by systemd.sh and systemd-root.sh: a cgroup of its own for a systemd, in the
# hierarchy that it keeps its processes in, v1's own or v2.

# Enters a new cgroup; <directory>/cgroup says which, for whoever removes it.
enter_cgroup () { # <directory>
  cgroups=$1/cgroups
  mkdir -p "$cgroups"
  if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ] &&
     mount -t cgroup -o none,name=systemd cgroup "$cgroups" 2>/dev/null; then
    export HIERARCHY=v1
  else
    mount -t cgroup2 cgroup2 "$cgroups"
    export HIERARCHY=v2
  fi
  mkdir "$cgroups/bbot-agent-test.$$"
  echo $$ > "$cgroups/bbot-agent-test.$$/cgroup.procs"
  echo "$cgroups/bbot-agent-test.$$" > "$1/cgroup"
}

# Mounts it, as the root of the hierarchy, where systemd looks for it.
mount_cgroup () { # <sys>
  if [ "$HIERARCHY" = v1 ]; then
    mount -t tmpfs tmpfs "$1/fs/cgroup"
    mkdir "$1/fs/cgroup/systemd"
    mount -t cgroup -o none,name=systemd cgroup "$1/fs/cgroup/systemd"
  else
    mount -t cgroup2 cgroup2 "$1/fs/cgroup"
  fi
}
