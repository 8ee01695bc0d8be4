"""What setup finds on the machine that it runs on: who runs it, systemd, the daemon's user, and the programs' names."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicomwatchd.cli.app import DEFAULT_CONFIG
from dicomwatchd.rights import Asker

#: Of the service, whom scripts/install makes.
USER = "dicomwatchd"
SERVICE = "dicomwatchd.service"
_SYSTEMD_RUNS = Path("/run/systemd/system")
_ASK_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Machine:
    """``daemon`` is the service's user, None where there is none; ``home`` has this person's own profile and keys.
    Programs are named as they are typed here."""

    config_path: Path
    uid: int
    has_systemd: bool
    has_unit: bool
    daemon: Asker | None
    home: Path
    environment: Mapping[str, str] = field(repr=False)  # there may be keys in it
    service_is_active: bool = False
    service_is_enabled: bool = False
    ctl_name: str = "dicomwatchctl"
    daemon_name: str = "dicomwatchd"
    folders_name: str = "dicomwatchd-folders"
    has_setfacl: bool = True

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    @property
    def ctl(self) -> tuple[str, ...]:
        """dicomwatchctl with this configuration."""
        return (self.ctl_name, *self._config_option())

    @property
    def daemon_command(self) -> tuple[str, ...]:
        return (self.daemon_name, *self._config_option())

    def _config_option(self) -> tuple[str, ...]:
        return () if self.config_path == DEFAULT_CONFIG else ("--config", str(self.config_path))

    def lacks(self, *, service: bool) -> list[str]:
        """What is missing for the service, a sentence each."""
        if not service:
            return []
        found = []
        if self.config_path != DEFAULT_CONFIG:
            found.append(f"the service reads {DEFAULT_CONFIG} and no other configuration")
        if not self.is_root:
            found.append(
                "owner and ACLs of the folders, the configuration below /etc, dicomwatchd-folders and systemctl need"
                " root: sudo dicomwatchctl setup"
            )
        if not self.has_systemd:
            found.append("systemd does not run here: dicomwatchd-folders and systemctl need it")
        elif not self.has_unit:
            found.append(f"there is no unit {SERVICE}: scripts/install installs it")
        if self.daemon is None:
            found.append(f"there is no user {USER}: scripts/install creates it")
        return found


def look(config_path: Path, environment: Mapping[str, str]) -> Machine:
    """This machine as it is now. ``config_path`` is made absolute."""
    has_systemd = _SYSTEMD_RUNS.is_dir()
    return Machine(
        config_path=config_path.absolute(),
        uid=os.geteuid(),
        has_systemd=has_systemd,
        has_unit=has_systemd and _systemctl("cat", SERVICE),
        daemon=user(USER),
        home=Path(environment.get("HOME") or "/nonexistent"),
        environment=environment,
        service_is_active=has_systemd and _systemctl("is-active", SERVICE),
        service_is_enabled=has_systemd and _systemctl("is-enabled", SERVICE),
        ctl_name=_program("dicomwatchctl"),
        daemon_name=_program("dicomwatchd"),
        folders_name=_program("dicomwatchd-folders"),
        has_setfacl=shutil.which("setfacl") is not None,
    )


def user(name: str) -> Asker | None:
    """A user of this system with all groups; None where there is none of that name."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = frozenset(os.getgrouplist(name, found.pw_gid))
    return Asker(found.pw_uid, found.pw_gid, groups, name)


def _program(name: str) -> str:
    """The short name where it leads to the program beside this one, otherwise its path."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found is not None:
        with suppress(OSError):
            if not beside.exists() or beside.samefile(found):
                return name
    return str(beside) if beside.exists() else name


def _systemctl(*asked: str) -> bool:
    """What systemctl answers by its exit status. It is a question: it changes nothing."""
    try:
        done = subprocess.run(
            ["systemctl", *asked], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
