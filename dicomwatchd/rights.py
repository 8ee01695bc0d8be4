"""What another user may do with a file or a folder, judged by what the kernel would judge: mode, owner, group, ACL.

The daemon acts for whoever has handed a folder in, with rights of its own that may go further. So each folder and file
is looked at on an open descriptor, which nobody can exchange, before anything is done with it for somebody else.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass
from typing import Any

READ, WRITE, ENTER = 4, 2, 1

_ACL = "system.posix_acl_access"
#: What is made in a folder later begins with this one (acl(5), default ACLs).
_ACL_BY_DEFAULT = "system.posix_acl_default"
#: What getxattr(2) says where there is no ACL, or the file system knows none.
_NO_ACL = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTSUP)
_ACL_VERSION = 2
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


class NotForTheAsker(PermissionError):
    """Whoever has asked may not do that himself."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who has asked for something: a process's user, group and further groups when it connected. ``login`` is for
    people to read, "" where the system has no name."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    login: str = ""

    def may(self, fd: int, wanted: int) -> bool:
        """Whether all of ``wanted`` is allowed on what ``fd`` is open on (not O_PATH). Raises OSError."""
        return self._may(fd, os.fstat(fd), wanted)

    def may_remove(self, directory_fd: int, found: os.stat_result) -> bool:
        """Whether an entry of an open directory may be removed or renamed that was ``found`` in it. Raises OSError."""
        directory = os.fstat(directory_fd)
        if not self._may(directory_fd, directory, WRITE | ENTER):
            return False
        is_sticky = bool(directory.st_mode & stat.S_ISVTX)
        return not is_sticky or self.uid in (0, found.st_uid, directory.st_uid)

    def require_entered(self, directory_fd: int) -> None:
        """Raises NotForTheAsker where the directory may not be listed and entered."""
        if not self.may(directory_fd, READ | ENTER):
            raise NotForTheAsker(errno.EACCES, "whoever has asked may not list it")

    @property
    def runs_the_daemon(self) -> bool:
        """Root, or the daemon's own user."""
        return self.uid in (0, os.geteuid())

    def described(self) -> dict[str, Any]:
        """For the record of what was asked for: a user of this system, and nothing of a patient."""
        return {"uid": self.uid, "login": self.login}

    def _may(self, fd: int, found: os.stat_result, wanted: int) -> bool:
        if self.uid == 0:
            return True
        mine = {self.gid, *self.groups}
        # Where the group's bits, an ACL's mask, are all off, the kernel asks no ACL.
        if found.st_mode & stat.S_IRWXG and (acl := _acl_of(fd)) is not None:
            return _by_acl(acl, found, self.uid, mine, wanted)
        if self.uid == found.st_uid:
            allowed = found.st_mode >> 6
        elif found.st_gid in mine:
            allowed = found.st_mode >> 3
        else:
            allowed = found.st_mode
        return allowed & wanted == wanted


def hands_down(directory_fd: int, uid: int, wanted: int) -> bool:
    """Whether what is made in a directory later gives this user all of ``wanted`` by an entry of its own in the default
    ACL. Raises OSError."""
    acl = _acl_of(directory_fd, _ACL_BY_DEFAULT) or []
    mask = next((allowed for tag, allowed, _ in acl if tag == _MASK), 7)
    return any(tag == _USER and who == uid and allowed & mask & wanted == wanted for tag, allowed, who in acl)


def _acl_of(fd: int, name: str = _ACL) -> list[tuple[int, int, int]] | None:
    """(tag, permissions, id) of each entry; None where the mode says it all. Raises OSError."""
    try:
        raw = os.getxattr(fd, name)
    except OSError as error:
        if error.errno in _NO_ACL:
            return None
        raise
    if len(raw) < 4 or int.from_bytes(raw[:4], "little") != _ACL_VERSION or (len(raw) - 4) % _ENTRY.size:
        raise OSError(errno.EACCES, "an ACL of an unknown form")
    return list(_ENTRY.iter_unpack(raw[4:]))


def _by_acl(acl: list[tuple[int, int, int]], found: os.stat_result, uid: int, groups: set[int], wanted: int) -> bool:
    """As acl(5) has it."""
    mask = next((allowed for tag, allowed, _ in acl if tag == _MASK), 7)
    if uid == found.st_uid:
        return any(tag == _USER_OBJ and allowed & wanted == wanted for tag, allowed, _ in acl)
    for tag, allowed, who in acl:
        if tag == _USER and who == uid:
            return allowed & mask & wanted == wanted
    of_groups = [
        allowed
        for tag, allowed, who in acl
        if (tag == _GROUP_OBJ and found.st_gid in groups) or (tag == _GROUP and who in groups)
    ]
    if of_groups:
        return any(allowed & mask & wanted == wanted for allowed in of_groups)
    return any(tag == _OTHER and allowed & wanted == wanted for tag, allowed, _ in acl)
