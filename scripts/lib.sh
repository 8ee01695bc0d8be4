# shellcheck shell=bash
# lib.sh - shared functions of the scripts. Sourced, not run; the caller has set -euo pipefail.

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

# Prints a Python for a service, which must not be in a home folder: the service cannot read those.
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

# Installs what requirements/$2.txt lists, and only files with the SHA-256 given there. Packages that are built here (see the
# top of the file) are built with requirements/build.txt.
#   install_locked PYTHON NAME [OPTION OF PIP...]   NAME may also be the path of a list
install_locked() {
  local list=$root/requirements/$2.txt
  case $2 in */*) list=$2 ;; esac
  local pip=("$1" -m pip install --disable-pip-version-check --no-warn-script-location -q --no-deps --no-build-isolation)
  "${pip[@]}" "${@:3}" -r "$root/requirements/build.txt" && "${pip[@]}" "${@:3}" -r "$list"
}

# Installs the program itself, from a copy: a build leaves files owned by root in its folder.
#   install_project PYTHON [OPTION OF PIP...]
install_project() (
  python=$1
  shift
  source=$(mktemp -d) || exit
  trap 'rm -rf "$source"' EXIT
  cp -r "$root/pyproject.toml" "$root/LICENSE" "$root/dicomwatchd" "$source/" || exit
  if [ -e "$root/README.md" ]; then cp "$root/README.md" "$source/" || exit; fi
  "$python" -m pip install --disable-pip-version-check --no-warn-script-location -q --upgrade --no-deps --no-build-isolation \
    "$@" "$source"
)

# Prints dicomwatchd-folders for a program in $1.
folders_program() { sed "1s|.*|#!$1/bin/python|" "$root/scripts/dicomwatchd-folders"; }

# Prints the unit $1 (without .service) for a program in $2 that was installed by $3.
unit_text() { sed -E -e "1s#Installed by scripts/install( --with-web)?#Installed by $3#" -e "s|/opt/dicomwatchd/|$2/|" "$root/systemd/$1.service"; }

# Creates a virtual environment with the package in it, or updates it after a change of its requirements.
#   bootstrap [NAME [LIST]]   by default .venv, with the development tools (requirements/dev.txt)
bootstrap() {
  local name=${1:-.venv} list=${2:-dev} python venv stamp wanted
  venv=$root/$name stamp=$root/$name/.dicomwatchd-stamp
  wanted=$(cat "$root/pyproject.toml" "$root/requirements/build.txt" "$root/requirements/$list.txt" | sha256sum)
  if [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi
  if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if ! python=$(first_usable_python ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11); then
      if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "no Python >= 3.11 with venv found; installing Debian's python3-venv"
        DEBIAN_FRONTEND=noninteractive apt-get update -q || say "could not update the package lists"
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv
      fi
      python=$(first_usable_python python3 /usr/bin/python3) ||
        die "Python >= 3.11 with venv is needed (on Debian and Ubuntu: apt install python3-venv)"
    fi
    say "creating the virtual environment $name with $python"
    "$python" -m venv --clear "$venv"
  fi
  say "installing requirements/$list.txt into $name (the first time, and when it or pyproject.toml has changed)"
  rm -f "$stamp"
  install_locked "$venv/bin/python" "$list" || die "pip failed; see its output above"
  (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .)
  echo "$wanted" >"$stamp"
}

# The virtual environment of the tests: .venv or, for another interpreter, a separate one. Sets $venv to its name.
#   test_environment [PYTHON]
test_environment() {
  local python=${1:-}
  venv=.venv
  if [ -n "$python" ]; then
    usable_python "$python" || die "$python is not a Python >= 3.11 with venv"
    python=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    venv=.venv-$("$python" -c 'import platform; print(platform.python_version())')
    # Two builds of the same version share one environment: the last one replaces it.
    [ "$(readlink -f "$root/$venv/bin/python")" = "$python" ] || rm -rf "${root:?}/$venv"
  fi
  PYTHON=${python:-${PYTHON:-}} bootstrap "$venv" dev
  say "$("$root/$venv/bin/python" -c 'import os, platform, sys; print("Python", platform.python_version(), "at", os.path.realpath(sys.executable))'), in $venv"
}
