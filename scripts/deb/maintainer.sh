# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # names of the others
# maintainer.sh - for all scripts of both packages, after scripts/service.sh. They may be run again after a failure.
# scripts/build-deb fills in what stands between @.

package=@PACKAGE@
# What ran when the files were about to be replaced, and has to run again afterwards. It goes with a reboot.
stopped=/run/$package.upgrade
keeping=/run/systemd/system/dicomwatchd.service.d/upgrade.conf

say() { printf '%s: %s\n' "$package" "$*"; }

# It starts faster with bytecode, and works without.
compile_modules() {
  py3compile -p "$package" "/usr/lib/$package" || say "not all modules could be compiled"
}

# Stops what runs of the units: no process may import modules of two versions. A stop is a drain; the queue is on the disk.
# Folders that users have handed in are open in systemd's store of the daemon, and often nothing else leads to them (homes): it
# keeps them over this stop.
stop_for_upgrade() {
  systemd_runs || return 0
  for unit in "$@"; do
    case $(systemctl is-active "$unit" || true) in
      active | activating | reloading | refreshing) echo "$unit" >>"$stopped" ;;
    esac
  done
  [ -s "$stopped" ] || return 0
  if grep -qxF dicomwatchd.service "$stopped"; then
    mkdir -p "$(dirname $keeping)"
    printf '[Service]\nFileDescriptorStorePreserve=yes\n' >$keeping
  fi
  systemctl daemon-reload
  # shellcheck disable=SC2046 # one unit a line
  systemctl stop $(sort -u "$stopped")
}

# Starts what stop_for_upgrade has stopped, and nothing else. If that fails the package is installed all the same: systemd
# tries again, and its journal says why.
start_after_upgrade() {
  systemd_runs || return 0
  systemctl daemon-reload
  [ -s "$stopped" ] || return 0
  # shellcheck disable=SC2013 # a unit is a word
  for unit in $(sort -u "$stopped"); do
    systemctl start "$unit" || say "$unit has not started: see journalctl -u $unit"
  done
  if grep -qxF dicomwatchd.service "$stopped"; then
    rm -f $keeping
    rmdir "$(dirname $keeping)" 2>/dev/null || true
  fi
  rm -f "$stopped"
  systemctl daemon-reload
}
