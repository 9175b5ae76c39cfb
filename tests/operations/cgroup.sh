# Sourced by systemd.sh and systemd-root.sh: a cgroup of its own for a systemd, in the
# hierarchy of v2. Beside hierarchies of v1 it may have no controllers.

# Enters a new cgroup; <directory>/cgroup says which, for whoever removes it.
enter_cgroup () { # <directory>
  cgroups=$1/cgroups
  mkdir -p "$cgroups"
  mount -t cgroup2 cgroup2 "$cgroups"
  mkdir "$cgroups/bbot-agent-test.$$"
  echo $$ > "$cgroups/bbot-agent-test.$$/cgroup.procs"
  echo "$cgroups/bbot-agent-test.$$" > "$1/cgroup"
}

# Mounts it, as the root of the hierarchy, where systemd looks for it.
mount_cgroup () { # <sys>
  mount -t cgroup2 cgroup2 "$1/fs/cgroup"
}
