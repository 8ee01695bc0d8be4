"""Somebody else on the machine, who may write to an inbox, builds what he likes into it: the daemon starts in time, and
does its work beside it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.synthetic import Maker
from tests.system.site import PYTHON, Site

if os.geteuid() != 0 or shutil.which("setpriv") is None:
    pytest.skip("another user is needed", allow_module_level=True)

SOMEBODY = 12345
AS_SOMEBODY = ("setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups")
#: 1,500 deep in the first release's private directory; 6,000 ordinary folders, each in the one before; many at once
#: in another private directory.
PLANT = """
import os, sys
def nest(names):
    fd = os.open(sys.argv[1], os.O_RDONLY)
    for name in names:
        os.mkdir(name, 0o755, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
nest([".dicomwatchd-aside", *["a"] * 1500])
nest(["CANARY", *["b"] * 6000])
nest([".dicomwatchd-aside-0000"])
for number in range(3000):
    open(f"{sys.argv[1]}/.dicomwatchd-aside-0000/{number}", "w").close()
"""


@pytest.fixture
def site() -> Iterator[Site]:
    # Not below pytest's own folder, which is closed to others again by each pytest that begins.
    top = Path(tempfile.mkdtemp(prefix="planted-"))
    top.chmod(0o755)
    site = Site(top / "site")
    site.inbox.chmod(0o777)
    site.init()
    yield site
    site.close()
    # What is so deep neither pytest nor shutil.rmtree can take away.
    subprocess.run(["rm", "-rf", "--", str(top)], check=True)


def test_what_is_planted_stops_no_start_and_no_deletion(site: Site) -> None:
    subprocess.run([*AS_SOMEBODY, PYTHON, "-c", PLANT, str(site.inbox)], check=True, cwd="/")
    made = Maker(seed=3).ct_series(site.inbox / "DOE", slices=3, rows=16, columns=16)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(site.root / "notify"))
    listening.settimeout(60)
    site.environment["NOTIFY_SOCKET"] = str(site.root / "notify")
    began, heard = time.monotonic(), ""
    site.start()
    while "READY=1" not in heard:
        heard += listening.recv(4096).decode()
    assert time.monotonic() - began < 90
    assert "EXTEND_TIMEOUT_USEC=" in heard.partition("READY=1")[0]
    listening.close()
    site.wait_for(lambda: not any(one.path.exists() for one in made), 60, "the exports to be archived and gone")
    told = {row["code"] for row in site.ctl_json("quarantine")["files"]}
    assert "not-ours" in told
    assert len(os.listdir(site.inbox / ".dicomwatchd-aside-0000")) == 3000
    assert site.stop() == 0
    assert "CANARY" not in site.log_file.read_text()
