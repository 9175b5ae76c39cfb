#!/bin/sh
# Runs a test in a Linux of its own, see own_linux.rs.
#
#   own-linux.sh <cache> <qemu> <variable> <test> <directory> <tests> <instant-guest> <agent>
#              [<image> <worker>]
#
# The test runs in /sys/fs/cgroup/unit, with <variable>=yes. <cache> is that of tests/guest/build.
# With an image, which is /disk.img there, and /worker, there is a QEMU, too.

set -eu
cache=$(cd "$1" && pwd) qemu=$2 variable=$3 test=$4
cd "$5"
tests=$6 instant=$7 agent=$8 image=${9:-}
programs="bash ip mkfs.btrfs nft" memory=768 limit=180
PATH=$PATH:/usr/sbin:/sbin

# In the order of their dependencies. What is built into the kernel is not found.
modules="crc32c_generic libcrc32c blake2b_generic xor raid6_pq zstd_compress btrfs loop tun
         llc stp bridge nfnetlink nf_tables nft_meta_bridge"
mkdir -p package root/usr/bin root/dev root/usr/examples root/modules root/proc root/sys root/tmp
ln -s usr/bin root/bin
if [ -n "$image" ]; then
  shift 8
  cp "$image" root/disk.img
  cp "$2" root/worker
  programs="$programs $qemu" memory=2048 limit=900
  for dir in /usr/share/qemu /usr/share/seabios /usr/lib/*/qemu; do
    [ ! -d $dir ] || { mkdir -p root$dir && cp -R $dir/. root$dir; }
  done
fi
set -- --wildcards './boot/vmlinuz-*'
for m in $modules; do set -- "$@" "*/$m.ko*"; done
dpkg-deb --fsys-tarfile "$(ls -t "$cache"/linux-image-*.deb | head -n 1)" |
  tar -x -C package "$@" 2>/dev/null || true
i=10
for m in $modules; do
  ko=$(find package -name "$m.ko*")
  [ -n "$ko" ] || continue
  case $ko in *.xz) unxz "$ko"; ko=${ko%.xz};; esac
  mv "$ko" root/modules/$i.ko
  i=$((i + 1))
done
for program in $programs; do
  program=$(command -v $program)
  for file in $(ldd "$program" | grep -o '/[^ ]*'); do
    mkdir -p "root${file%/*}"
    cp -L "$file" "root$file"
  done
  cp -L "$program" root/bin/
done
cp -L "$(command -v busybox)" root/bin/busybox
strip -o root/bin/tests "$tests"
strip -o root/bin/bbot-agent "$agent"
strip -o root/usr/examples/instant-guest "$instant"
cat >root/init <<EOF
#!/bin/busybox sh
/bin/busybox --install /bin 2>/dev/null
export PATH=/bin $variable=yes BBOT_AGENT_TEST_BINARY=/bin/bbot-agent CI=true RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for ko in /modules/*; do insmod \$ko; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/unit
ip link set lo up
sh -c 'echo \$\$ >/sys/fs/cgroup/unit/cgroup.procs; exec tests --exact $test --include-ignored --nocapture' 2>&1
poweroff -f
EOF
chmod 755 root/init
(cd root && find . | cpio -o -H newc -R 0:0 --quiet) >initrd
exec timeout $limit "$qemu" -accel tcg -cpu max -m $memory -nodefaults -no-user-config -no-reboot \
  -display none -serial stdio -kernel package/boot/vmlinuz-* -initrd initrd \
  -append "console=ttyS0 panic=-1 loglevel=3 nokaslr mitigations=off cryptomgr.notests" </dev/null
