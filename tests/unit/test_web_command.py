"""The command without the packages that only the page needs, as the daemon alone is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(missing: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from dicomwatchd.web.command import main\n"
        "sys.exit(main(['--version']))\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("missing", ["starlette", "jinja2"])
def test_what_is_missing_is_named_with_what_to_do(missing: str) -> None:
    done = run(missing)
    assert done.returncode == 2 and done.stdout == ""
    assert f"the package {missing} is missing" in done.stderr
    assert "Traceback" not in done.stderr and "dicomwatchd[web]" in done.stderr


def test_a_fault_of_our_own_is_told_as_what_it_is() -> None:
    done = run("dicomwatchd.web.app")
    assert done.returncode == 1 and "Traceback" in done.stderr and "is missing" not in done.stderr


def test_with_all_of_them_it_starts() -> None:
    assert run("no_such_package").stdout.startswith("dicomwatchd-web ")
