"""The command dicomwatchd-web. What it needs beside the daemon's packages may not be installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        from dicomwatchd.web import process
    except ModuleNotFoundError as error:
        package = (error.name or __package__ or "").partition(".")[0]
        if package == "dicomwatchd":
            raise
        sys.stderr.write(
            f"dicomwatchd-web: the package {package} is missing. What the page needs is installed by `scripts/install"
            " --with-web`, by the Debian package dicomwatchd-web, or by pip install 'dicomwatchd[web]'.\n"
        )
        return _USAGE
    return process.main(arguments)
