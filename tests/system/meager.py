"""The daemon on file systems with fewer talents: python -m tests.system.meager TALENT ... -- ARGUMENTS OF dicomwatchd

TALENT is what is taken away: "strict-renames" (as NFS: renameat2 refuses its flag), "links", "locks".
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from dicomwatchd import localfiles


def without(talents: list[str]) -> None:
    if "strict-renames" in talents:

        def refuse_rename(*_: object) -> None:
            raise localfiles.NoStrictRename(errno.EINVAL, "no strict rename")

        localfiles._renameat2 = refuse_rename  # type: ignore[assignment]
    if "links" in talents:

        def refuse_link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links")

        os.link = refuse_link
    if "locks" in talents:
        real = fcntl.flock

        def refuse_lock(fd: int, operation: int) -> None:
            if os.readlink(f"/proc/self/fd/{fd}").endswith(".dicomwatchd-lock"):
                raise OSError(errno.ENOLCK, "no locks")
            real(fd, operation)

        fcntl.flock = refuse_lock  # type: ignore[assignment]


if __name__ == "__main__":
    at = sys.argv.index("--")
    without(sys.argv[1:at])
    from dicomwatchd.daemon.process import main

    sys.argv = ["dicomwatchd", *sys.argv[at + 1 :]]
    sys.exit(main())
