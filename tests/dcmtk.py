"""DCMTK's programs, and not those of the same names, with other options, that pynetdicom puts beside this Python: that
is first in the path of whoever runs the tests."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def dcmtk(program: str) -> str:
    """Where it is. Raises FileNotFoundError."""
    beside = Path(sys.executable).parent
    elsewhere = [one for one in os.get_exec_path() if Path(one) != beside]
    found = shutil.which(program, path=os.pathsep.join(elsewhere))
    if found is None:
        raise FileNotFoundError(
            f"{program} is not installed: scripts/setup-test-machine installs it (Debian's package dcmtk)"
        )
    return found
