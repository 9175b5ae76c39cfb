#!/bin/sh
# Runs a test of this binary in a Linux whose cgroups (v2) have all controllers; run by
# limits.rs.
#
#   limits.sh <image> <qemu> <program> <test> <directory>
#
# The kernel is that of the test guest's image, the root is in memory: busybox, bash and
# the program. The test runs in /sys/fs/cgroup/unit, with BBOT_AGENT_TEST_LIMITS=yes.

set -eu
image=$1 qemu=$2 program=$3 test=$4
cd "$5"
export MTOOLS_SKIP_CHECK=1
mcopy -i "$image@@1048576" ::vmlinuz vmlinuz
mkdir -p root/bin root/dev root/proc root/sys root/tmp
bash=$(command -v bash)
# shellcheck disable=SC2046
for file in $(ldd "$bash" | grep -o '/[^ ]*'); do
  mkdir -p "root${file%/*}"
  cp -L "$file" "root$file"
done
cp -L "$bash" root/bin/bash
cp -L "$(command -v busybox)" root/bin/busybox
strip -o root/bin/tests "$program"
cat >root/init <<EOF
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin BBOT_AGENT_TEST_LIMITS=yes CI=true RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/unit
sh -c 'echo \$\$ >/sys/fs/cgroup/unit/cgroup.procs; exec tests --exact $test --nocapture' 2>&1
poweroff -f
EOF
chmod 755 root/init
(cd root && find . | cpio -o -H newc -R 0:0 --quiet) >initrd
exec timeout 100 "$qemu" -accel tcg -m 512 -nodefaults -no-user-config -no-reboot \
  -display none -serial stdio -kernel vmlinuz -initrd initrd \
  -append "console=ttyS0 panic=-1 loglevel=3 nokaslr mitigations=off cryptomgr.notests" </dev/null
