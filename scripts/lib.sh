# shellcheck shell=bash
# lib.sh - what the scripts share. Sourced, not run; the caller has set -euo pipefail.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
me=$(basename "$0")

say() { printf '%s: %s\n' "$me" "$*"; }
die() {
  printf '%s: %s\n' "$me" "$*" >&2
  exit 1
}

# Whether $1 is a Python that can make a virtual environment for us.
usable_python() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Prints the first usable Python among the arguments.
first_usable_python() {
  local candidate path
  for candidate in "$@"; do
    path=$(command -v "$candidate") || continue
    if usable_python "$path"; then
      echo "$path"
      return
    fi
  done
  return 1
}

# Prints a Python for a service, which must not lie in a home folder: the service cannot see those.
find_service_python() {
  local path real names=(python3 python3.14 python3.13 python3.12 python3.11) candidates=()
  for path in /usr/bin /usr/local/bin /opt/*/bin; do
    for name in "${names[@]}"; do candidates+=("$path/$name"); done
  done
  for path in "${candidates[@]}"; do
    real=$(readlink -f "$path") || continue
    case $real in /root/* | /home/* | /run/user/*) continue ;; esac
    if [ -x "$path" ] && usable_python "$path"; then
      echo "$path"
      return
    fi
  done
  return 1
}

# Makes a virtual environment with the package in it, or brings it up to date when pyproject.toml has changed.
#   bootstrap [NAME [REQUIREMENT]]   by default .venv, with the development tools
bootstrap() {
  local name=${1:-.venv} requirement=${2:-.[dev]} python venv stamp wanted
  venv=$root/$name stamp=$root/$name/.dicomwatchd-stamp
  wanted=$(sha256sum <"$root/pyproject.toml")
  if [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi
  if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if ! python=$(first_usable_python ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11); then
      if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "no Python >= 3.11 with venv here; installing Debian's python3-venv"
        DEBIAN_FRONTEND=noninteractive apt-get update -q || say "the package lists could not be refreshed"
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv
      fi
      python=$(first_usable_python python3 /usr/bin/python3) ||
        die "Python >= 3.11 with venv is needed (on Debian and Ubuntu: apt install python3-venv)"
    fi
    say "making the virtual environment $name with $python"
    "$python" -m venv --clear "$venv"
  fi
  say "installing $requirement into $name (once, and when pyproject.toml has changed)"
  rm -f "$stamp"
  (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check -q -e "$requirement")
  echo "$wanted" >"$stamp"
}
