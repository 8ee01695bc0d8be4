#!/bin/bash
# systemd-lab.sh WORK STAGED LOWER - becomes the PID 1 of tests/servers/systemd.py's lab: a throw-away root, then systemd.
# Runs as the first process of fresh pid, mount, cgroup, ipc, uts and net namespaces. WORK is an empty directory to mount on;
# LOWER is the root that the lab is laid over. STAGED is created when the lab's root is ready to be prepared through
# /proc/PID/root; a line on stdin then starts systemd.
set -euo pipefail
work=$1 staged=$2 lower=$3 root=$1/root

if [ "$$" != 1 ]; then
  echo "not the first process of a pid namespace: this would pivot the root of a running machine" >&2
  exit 9
fi

# The root: what the machine (or another root) has, below a layer in memory that takes every write.
mount --make-rprivate /
mount -t tmpfs -o mode=0755,size=2g lab "$work"
mkdir "$work/upper" "$work/overlay" "$root"
mount -t overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/overlay" lab "$root"

# None of the machine's own services, mounts or journal.
rm -rf "$root/etc/systemd/system" "$root/etc/fstab" "$root/var/log/journal"
mkdir -p "$root/etc/systemd/system" "$root/var/log/journal"
# Nothing that sets up the kernel, which is the machine's.
masked=(
  systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service systemd-firstboot.service ldconfig.service
  proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount
  sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount
)
for unit in "${masked[@]}"; do
  ln -s /dev/null "$root/etc/systemd/system/$unit"
done
touch "$root/etc/.updated" "$root/var/.updated"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
echo lab >"$root/etc/hostname"

# Kernel file systems. Those that show the machine's kernel are read-only.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/sys"
if [ -e "$root/proc/sysrq-trigger" ]; then
  mount --bind /dev/null "$root/proc/sysrq-trigger"
fi
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=0755,nosuid,size=4m tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=0755,nosuid,nodev,size=64m tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=512m tmpfs "$root/tmp"

touch "$staged"
read -r _ # until the lab has been prepared; the end of stdin instead ends the lab

cd "$root"
mkdir .machine
pivot_root . .machine
umount --lazy /.machine
rmdir /.machine
mount --make-rshared / # as a real boot leaves it; without this LoadCredential= shows units an empty directory
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
  /lib/systemd/systemd --system --unit=multi-user.target </dev/null
