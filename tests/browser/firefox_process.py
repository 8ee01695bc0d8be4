"""Starts Debian's Firefox: on an X server without a screen, for it has WebGL there and has none without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.browser.chromium import PATIENCE_SECONDS
from tests.browser.firefox import Firefox
from tests.browser.marionette import Marionette

_PREFERENCES: Final[dict[str, str | int]] = {
    # Any that is free; it stands in the profile then.
    "marionette.port": 0,
    # What is to leave the machine ends at a port where nobody listens.
    "network.proxy.type": 1,
    **dict.fromkeys(("network.proxy.http", "network.proxy.ssl", "network.proxy.socks"), "127.0.0.1"),
    **dict.fromkeys(("network.proxy.http_port", "network.proxy.ssl_port", "network.proxy.socks_port"), 9),
    # Whether a whole folder is meant can be answered at once, and a page be clicked as soon as it is there.
    "security.dialog_enable_delay": 0,
    **dict.fromkeys(("nglayout.initialpaint.delay", "nglayout.initialpaint.delay_in_oopif"), 0),
    "intl.accept_languages": "en-GB, en",
    "browser.download.folderList": 2,
}


@contextmanager
def firefox(folder: Path, origin: str, downloads: Path) -> Iterator[Firefox]:
    """With a new profile in ``folder``; what is downloaded is put into ``downloads``."""
    profile = folder / "profile"
    profile.mkdir()
    preferences = {**_PREFERENCES, "browser.download.dir": str(downloads)}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
    (profile / "user.js").write_text("".join(lines))
    with _screen() as display, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["firefox-esr", "--marionette", "--remote-allow-system-access", "--no-remote", "--profile", str(profile)],
            env={**os.environ, "DISPLAY": display, "HOME": str(folder), "MOZ_CRASHREPORTER_DISABLE": "1", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            marionette = Marionette(_port(profile, process), PATIENCE_SECONDS * 2)
            yield Firefox(marionette, origin)
            marionette.close()
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    place = profile / "MarionetteActivePort"
    end = time.monotonic() + PATIENCE_SECONDS
    while not (place.exists() and place.read_text()):
        assert process.poll() is None, f"Firefox has ended: {process.returncode}"
        assert time.monotonic() < end, "Firefox does not start"
        time.sleep(0.05)
    return int(place.read_text())


@contextmanager
def _screen() -> Iterator[str]:
    """Its name. It takes a number that is free, and listens on no network."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as said:
            number = said.readline().strip()
        assert number, "Xvfb does not start"
        yield f":{number}"
    finally:
        server.terminate()
        server.wait(60)
