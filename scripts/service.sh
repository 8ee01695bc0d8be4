# shellcheck shell=sh
# shellcheck disable=SC2034 # some of the names are for those who read this file in
# service.sh - what scripts/install and the scripts of the Debian package both have to know and do. For any POSIX shell: the
# first reads it in, scripts/build-deb puts it before each of the others. Needs their say().

user=dicomwatchd
receiver=dicomwatchd-receiver
units="dicomwatchd.service dicomwatchd-receiver.service"
# The page and DICOMweb: a unit of this name, there only if they are installed.
web=dicomwatchd-web
config=/etc/dicomwatchd/config.yaml
default_state=/var/lib/dicomwatchd
web_state=/var/lib/dicomwatchd-web
# Of the administrator, and of scripts/install. A unit here takes precedence over that of a package.
own_units=/etc/systemd/system

systemd_runs() { [ -d /run/systemd/system ]; }

# Makes the users of the file $1 (sysusers.d) that are missing, and the folder of the state.
make_users() {
  systemd-sysusers "$1"
  install -d -m 0750 -o $user -g $user $default_state
}

# Makes the user of the page, of the file $1, and the folder of the tokens' hashes and the record of access. One that is there
# keeps its mode: with another the daemon's entry in its ACL would be masked (docs/web.md).
make_web_user() {
  systemd-sysusers "$1"
  [ -d $web_state ] || install -d -m 0700 -o $web -g $web $web_state
}

# Prints the state directory that the configuration names, or the default.
configured_state() {
  named=$(sed -n "/^[\"']\{0,1\}state_directory[\"']\{0,1\}[[:space:]]*:/ { s/^[^:]*:[[:space:]]*//; s/[[:space:]]#.*//; s/^[\"']//; s/[\"'[:space:]]*\$//; p; q; }" \
    $config 2>/dev/null) || named=
  printf '%s\n' "${named:-$default_state}"
}

# Prints the state of the web process as dicomwatchd-folders has told its unit, or the default.
web_state_in_use() {
  named=$(sed -n 's/^ReadWritePaths="-\(\/.*\)"$/\1/p' "$own_units/$web.service.d/folders.conf" 2>/dev/null) || named=
  printf '%s\n' "${named:-$web_state}"
}

# Whether scripts/install has installed the service.
installed_by_script() {
  grep -qs '^# Installed by scripts/install' $own_units/dicomwatchd.service
}

# Whether the Debian package has.
installed_by_package() {
  command -v dpkg-query >/dev/null || return 1
  # shellcheck disable=SC2016 # dpkg-query's
  case $(dpkg-query --show --showformat='${db:Status-Status}' dicomwatchd 2>/dev/null || true) in
    "" | not-installed | config-files) return 1 ;;
  esac
}

# Removes what dicomwatchd-folders has written.
remove_folder_drop_ins() {
  for one in $units $web.service; do
    rm -f "$own_units/$one.d/folders.conf"
    rmdir "$own_units/$one.d" 2>/dev/null || true
  done
}
