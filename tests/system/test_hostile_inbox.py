"""Hostile inboxes, met by the real daemon: whatever lies in one, studies arrive and nothing else is touched."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dicomwatchd.ports import SystemClock
from dicomwatchd.queue import open_queue
from tests.synthetic import Made, Maker, Patient
from tests.system import invariants
from tests.system.invariants import Embedded
from tests.system.site import PYTHON, Site

TIB = 1 << 40
MARKER = "KANARIENVOGEL"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.init()
    yield site
    site.close()


def archive_of(site: Site) -> Embedded:
    return Embedded(site.root / "archive")


def small_study(folder: Path, *, slices: int = 2, seed: int = 3, maker: Maker | None = None) -> list[Made]:
    return (maker or Maker(seed)).ct_series(folder, slices=slices, rows=16, columns=16)


def left_names(site: Site) -> set[bytes]:
    """The names of all that is left and no folder; a link to one is none."""
    return {
        os.fsencode(name)
        for parent, folders, names in os.walk(site.inbox)
        for name in (*names, *(f for f in folders if os.path.islink(os.path.join(parent, f))))
    }


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


# -- all of it at once ------------------------------------------------------------------------------------------------


def test_everything_at_once(site: Site) -> None:
    inbox = site.inbox
    made = small_study(inbox / "GOOD", slices=4)
    content = {m.sha256 for m in made}
    # Good files under bad names.
    os.rename(made[0].path, os.path.join(os.fsencode(inbox), b"\xff\xfe\n\x01"))
    made[1].path.rename(inbox / ("ä" * 127))
    deep = inbox
    for _ in range(100):
        deep /= "d"
    deep.mkdir(parents=True)
    made[2].path.rename(deep / "IM")
    outside = site.root / "outside"
    outside.mkdir()
    os.link(made[3].path, outside / "hard-link")
    # What is none.
    [secret] = small_study(outside, slices=1, seed=9)
    (inbox / "link").symlink_to(secret.path)
    (inbox / "linked-folder").symlink_to(outside)
    os.mkfifo(inbox / "fifo")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(inbox / "socket"))
    special = {b"link", b"linked-folder", b"fifo", b"socket"}
    if os.geteuid() == 0:
        os.mknod(inbox / "zero", 0o644 | stat.S_IFCHR, os.makedev(1, 5))
        special.add(b"zero")
    # Sparse files of a terabyte: nothing but a hole, a cut-off header, a whole instance with a hole behind it.
    sparse = {b"hole": b"", b"cut": secret.path.read_bytes()[:1500], b"tail": secret.path.read_bytes()}
    for name, start in sparse.items():
        with open(os.path.join(os.fsencode(inbox), name), "wb") as file:
            file.write(start)
            file.truncate(TIB)
    began = time.monotonic()
    assert site.once() == 1
    seconds = time.monotonic() - began
    assert left_names(site) == special | sparse.keys()
    assert seconds < 60, "a terabyte was read"
    archive_of(site).require_whole(made[0].study_uid, content)
    assert secret.sha256 not in invariants.objects(site.root / "archive").values()
    assert secret.path.exists() and (outside / "hard-link").stat().st_nlink == 1
    quarantine = {Path(q["path"]).name: q["code"] for q in site.ctl_json("quarantine")["files"]}
    assert quarantine.keys() == {os.fsdecode(name) for name in special | sparse.keys()}
    assert {quarantine[name] for name in ("link", "linked-folder", "fifo", "socket")} == {"not-a-file"}
    server.close()
    tried = len(special | sparse.keys())
    invariants.report("hostile-inbox", "kinds of entries in an inbox that are not part of a study", tried=tried)


def test_a_medium_with_a_dicomdir(site: Site) -> None:
    maker = Maker(3)
    made = maker.media(site.inbox / "CD", small_study(site.root / "made", maker=maker))
    assert site.once() == 0, "a DICOMDIR is no fault"
    assert left_names(site) == {b"DICOMDIR"}
    archive_of(site).require_whole(made[0].study_uid, [m.sha256 for m in made[:-1]])


# -- rights -----------------------------------------------------------------------------------------------------------


#: Everything is imported before the user changes: the other one may not be able to look into the installation.
_AS_USER = """
import os, sys, _strptime, encodings.idna
import dicomwatchd.daemon.process, dicomwatchd.daemon.supervisor
from pathlib import Path
from dicomwatchd.queue import open_queue
from dicomwatchd.ports import SystemClock
os.setgroups([])
os.setgid({group})
os.setuid({user})
if sys.argv[1] == "retry":
    queue = open_queue(Path(sys.argv[2]), SystemClock(), lambda _: None)
    assert queue.claims.retry(sys.argv[3])
    queue.close()
else:
    sys.exit(dicomwatchd.daemon.process.main(sys.argv[1:]))
"""


class OtherUser:
    """Runs the daemon as a user who owns the state, the archive and the inbox, but nothing of the files."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.user = pwd.getpwnam("nobody")
        self.give(site.root, site.inbox, *site.state.rglob("*"), site.state)
        self.give(site.root / "archive", *(site.root / "archive").rglob("*"))
        for folder in site.root.parents:
            if folder.stat().st_uid == os.geteuid() and folder.is_relative_to(Path(tempfile.gettempdir())):
                folder.chmod(folder.stat().st_mode | 0o011)

    def give(self, *paths: Path) -> None:
        for path in paths:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def once(self) -> int:
        return self._run("--config", str(self.site.config_file), "--once")

    def retry(self, study: str) -> None:
        assert self._run("retry", str(self.site.state), study) == 0

    def _run(self, *arguments: str) -> int:
        code = _AS_USER.format(user=self.user.pw_uid, group=self.user.pw_gid)
        with self.site.log_file.open("ab") as log:
            return subprocess.run(
                [PYTHON, "-c", code, *arguments], env=self.site.environment, stdout=log, stderr=log, timeout=120
            ).returncode


@pytest.fixture
def other(site: Site) -> OtherUser:
    needs_root()
    return OtherUser(site)


def test_files_of_somebody_else_without_leases(other: OtherUser) -> None:
    """Readable, and the folder is the daemon's own: all works, on hashes alone."""
    made = small_study(other.site.inbox / "DOE", slices=3)
    other.give(made[0].path.parent)
    assert other.once() == 0, other.site.log_tail()
    assert other.site.left() == []
    archive_of(other.site).require_whole(made[0].study_uid, [m.sha256 for m in made])


def test_what_may_not_be_read_is_quarantined_and_comes_once_it_may(other: OtherUser) -> None:
    made = small_study(other.site.inbox / "DOE", slices=3)
    other.give(made[0].path.parent)
    made[1].path.chmod(0o600)
    hidden = small_study(other.site.inbox / "HIDDEN", slices=1, seed=5)
    hidden[0].path.parent.chmod(0o700)
    assert other.once() == 1
    assert {p.name for p in other.site.left()} == {"IM0002", "IM0001"}
    archive_of(other.site).require_whole(made[0].study_uid, [made[0].sha256, made[2].sha256])
    made[1].path.chmod(0o644)
    assert other.once() == 1, "a folder that cannot be looked into is not all done"
    assert [p.name for p in other.site.left()] == ["IM0001"]
    archive_of(other.site).require_whole(made[0].study_uid, [m.sha256 for m in made], revision=2)
    hidden[0].path.parent.chmod(0o755)
    other.give(hidden[0].path.parent)
    assert other.once() == 0
    assert other.site.left() == []


def test_where_no_lease_is_to_be_had_an_inbox_may_keep_its_files(other: OtherUser) -> None:
    """Files of another user, no CAP_LEASE: a program that has had one open all the time writes once all is over."""
    site = other.site
    site.config["inboxes"][0]["without_lease"] = "keep"
    site.write_config()
    made = small_study(site.inbox / "DOE", slices=3)
    other.give(made[0].path.parent)
    fd = os.open(made[1].path, os.O_RDWR)
    assert other.once() == 0
    assert len(site.left()) == 3
    assert site.events("kept-without-lease")[0]["files"] == 3
    archive_of(site).require_whole(made[0].study_uid, [m.sha256 for m in made])
    data = os.pread(fd, 1 << 20, 0)
    os.pwrite(fd, b"II*\0", 0)  # in the preamble: another file, and no other version of the image
    os.close(fd)
    late = made[1].path.read_bytes()
    assert late == b"II*\0" + data[4:], "it wrote into nothing"
    assert other.once() == 0
    assert len(site.left()) == 3
    archive_of(site).require_whole(
        made[0].study_uid, [*(m.sha256 for m in made), hashlib.sha256(late).hexdigest()], revision=2
    )
    assert len(site.events("kept-without-lease")) == 2, "those that were kept are not tried again"
    site.config["inboxes"][0]["without_lease"] = "delete"
    site.write_config()
    assert other.once() == 0
    assert site.left() == []


@pytest.mark.parametrize("why", ["folder not writable", "sticky folder", "immutable file"])
def test_what_may_not_be_deleted_stays_and_is_said(why: str, other: OtherUser) -> None:
    site = other.site
    made = small_study(site.inbox / "DOE", slices=3)
    folder = made[0].path.parent
    immutable = why == "immutable file"
    if immutable:
        other.give(folder)
        if subprocess.run(["chattr", "+i", made[1].path], capture_output=True).returncode:
            pytest.skip("no immutable files here")
    elif why == "sticky folder":
        folder.chmod(0o1777)
    try:
        assert other.once() == 1
        assert len(site.left()) == (1 if immutable else 3)
        archive_of(site).require_whole(made[0].study_uid, [m.sha256 for m in made])
        [study] = site.ctl_json("queue")["studies"]
        assert (study["state"], study["code"]) == ("parked", "cannot-delete")
        assert other.once() == 1, "and again"
    finally:
        if immutable:
            subprocess.run(["chattr", "-i", made[1].path], check=True)
    other.give(folder)
    folder.chmod(0o755)
    other.retry(made[0].study_uid)
    assert other.once() == 0, site.log_tail()
    assert site.left() == []
    archive_of(site).require_whole(made[0].study_uid, [m.sha256 for m in made])


# -- at work ----------------------------------------------------------------------------------------------------------


def test_a_writer_that_keeps_its_file_open_and_pauses(site: Site) -> None:
    """Longer than the settling takes: the file is whole as it stands, and is left alone until it is closed."""
    [made] = small_study(site.root / "made", slices=1)
    data = made.path.read_bytes()
    final = data + b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0padding!"
    site.start()
    target = site.inbox / "IM0001"
    with target.open("wb", buffering=0) as file:
        file.write(data)
        time.sleep(3)
        assert target.read_bytes() == data
        assert invariants.objects(site.root / "archive") == {}
        file.write(final[len(data) :])
    site.wait_until_empty()
    site.stop()
    stored = set(invariants.objects(site.root / "archive").values())
    target.write_bytes(final)
    assert stored == {invariants.digest(target)}


def _went_away(site: Site, times: int) -> bool:
    return len(site.events("inbox-unavailable")) == times


def _exchanged(site: Site, times: int) -> bool:
    return len(site.events("inbox-exchanged")) == times


def test_the_inbox_is_removed_and_made_anew_under_a_running_daemon(site: Site) -> None:
    first = small_study(site.inbox / "DOE")
    site.start()
    site.wait_until_empty()
    for turn in range(2):
        shutil.rmtree(site.inbox)
        site.wait_for(partial(_went_away, site, turn + 1), 60, "the loss to be noticed")
        site.inbox.mkdir()
        made = small_study(site.inbox / "ROE", seed=10 + turn)
        site.wait_for(partial(_exchanged, site, turn + 1), 60, "the other folder to be noticed")
        assert all(one.path.exists() for one in made)
        assert site.ctl_json("inbox", "list")["inboxes"][0]["folder"] == "exchanged"
        assert any("inbox confirm" in problem for problem in site.ctl_json("status")["problems"])
        site.ctl("inbox", "confirm", site.inbox.name)
        site.wait_until_empty()
        archive_of(site).require_whole(made[0].study_uid, [m.sha256 for m in made])
    assert site.stop() == 0
    archive_of(site).require_whole(first[0].study_uid, [m.sha256 for m in first])


def test_twenty_thousand_files_at_once_overflow_the_queue_of_events(site: Site) -> None:
    """Whatever the events miss, the scan finds. One in a hundred is an instance, the rest junk of a few bytes."""
    site.config["scan_interval_seconds"] = 3
    site.config["log_level"] = "INFO"
    site.write_config()
    made = Maker(3).ct_series(site.root / "made", slices=200, rows=16, columns=16)
    site.start()
    for number in range(20_000):
        name = site.inbox / f"F{number % 40:02d}"
        if number < 40:
            name.mkdir()
        if number % 100 == 57:
            shutil.copyfile(made[number // 100].path, name / f"{number}")
        else:
            (name / f"{number}").write_bytes(b"junk")
    began = time.monotonic()
    site.wait_for(lambda: len(invariants.objects(site.root / "archive")) == 200, 100, "all instances to arrive")
    seconds = time.monotonic() - began

    def all_known() -> bool:
        status = site.ctl_json("status")
        return bool(status["files"].get("quarantined") == 19_800)

    site.wait_for(all_known, 60, "all junk to be known")
    site.wait_for(lambda: len(site.left()) == 19_800, 60, "the instances to be gone")
    assert site.stop() == 0
    archive_of(site).require_whole(made[0].study_uid, [m.sha256 for m in made], revision=None)
    invariants.report(
        "inotify-overflow",
        "files created at once in a watched inbox",
        tried=20_000,
        seconds_until_archived=round(seconds),
        overflows=sum(str(e.get("logger")).startswith("watchdog") for e in site.events("library")),
    )


# -- nobody learns a name from a log ----------------------------------------------------------------------------------

#: Faults forced on the daemon, each with the marker in its words, by a few lines run before it.
FORCED = {
    "none": "",
    "header": "import dicomwatchd.intake.take as m\nm.read_header = fail",
    "put": "from dicomwatchd.archive.stores.directory.store import DirectoryStore as m\nm.put = fail",
    "read": "from dicomwatchd.archive.stores.directory.store import DirectoryStore as m\nm.read = fail",
    "catalogue": "from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue as m\nm.put = fail",
    "delete": "import dicomwatchd.pipeline.deletion.batch as m\nm.delete_on_proof = fail",
    "queue": "from dicomwatchd.queue.shipments import Shipments as m\nm.stored = fail",
    "intake": "from dicomwatchd.queue.arrivals import Arrivals as m\nm.add = fail",
    "thread": "from dicomwatchd.intake.inbox import InboxIntake as m\nm._scan = fail",
    "dispatcher": "from dicomwatchd.queue.claims import Claims as m\nm.claim = fail",
    "main": "from dicomwatchd.queue.reports import Reports as m\nm.unfinished = fail",
    "warning": "import warnings\nwarnings.warn(MARKER + ' is ill')",
    "logging": "import logging\nlogging.getLogger('botocore').error(MARKER)",
}

_RUNNER = """
import sys
MARKER = {marker!r}
def fail(*_, **__):
    try:
        open("/" + MARKER + "^JANE/IM1")
    except OSError as error:
        raise ValueError(f"cannot work with {{MARKER}}") from error
def patched():
{patch}
import dicomwatchd.daemon.process
if {late!r}:
    import dicomwatchd.daemon.process as d
    real = d.Process.run
    def run(self):
        patched()
        return real(self)
    d.Process.run = run
sys.exit(d.main(sys.argv[1:]) if {late!r} else dicomwatchd.daemon.process.main(sys.argv[1:]))
"""


def _once_with(site: Site, patch: str) -> int:
    body = "\n".join("    " + line for line in (patch or "pass").splitlines())
    code = _RUNNER.format(marker=MARKER, patch=body, late=True)
    with site.log_file.open("ab") as log:
        return subprocess.run(
            [sys.executable, "-c", code, "--config", str(site.config_file), "--once", "--give-up-after", "2"],
            env=site.environment,
            stdout=log,
            stderr=log,
            timeout=100,
        ).returncode


def test_no_patient_and_no_path_in_anything_that_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path, log_level="DEBUG")
    site.init()
    maker = Maker(3, Patient.marked(MARKER))
    made: list[Made] = []
    for number, (name, patch) in enumerate(FORCED.items()):
        folder = site.inbox / f"{MARKER}^{number}"
        made += maker.ct_series(folder, slices=2, rows=16, columns=16)
        made += maker.structured_report(folder / MARKER)
        maker.junk(folder / f"JUNK-{MARKER}")
        (folder / f"link-{MARKER}").symlink_to("/nowhere")
        status = _once_with(site, patch)
        assert status in (0, 1, 4), f"{name}: status {status}"
        for study in {m.study_uid for m in made}:
            _retry_if_parked(site, study)
        shutil.rmtree(folder / f"JUNK-{MARKER}")
        (folder / f"link-{MARKER}").unlink()
    _forget_faults(site)
    site.start()
    site.wait_until_empty(60)
    told = {
        "status": site.ctl("status").stdout + site.ctl("status", "--json").stdout,
        "queue": site.ctl("queue").stdout + site.ctl("queue", "--json").stdout,
        "stats": site.ctl("stats").stdout + site.ctl("stats", "--json").stdout,
    }
    assert site.stop() == 0
    wanted = {m.sha256 for m in made}
    assert wanted <= set(invariants.objects(site.root / "archive").values())
    keys = [os.fsencode(path) for path in (site.root / "archive").rglob("*")]
    told["object keys"] = b"\n".join(path.removeprefix(os.fsencode(site.root)) for path in keys).decode()
    told["log"] = site.log_file.read_text()
    assert len(told["log"]) > 20_000 and '"level": "DEBUG"' in told["log"]
    for what, text in told.items():
        for word in (MARKER, MARKER.lower(), MARKER.encode("utf-16-le").decode("latin-1"), "JANE", str(site.inbox)):
            at = text.find(word)
            assert at < 0, f"{what} holds {word}: ...{text[max(0, at - 300) : at + 50]}"
    for line in told["log"].splitlines():
        json.loads(line)
    invariants.report(
        "canary", "faults forced while every attribute and path has a marker to find it in logs", tried=len(FORCED),
        bytes_of_log=len(told["log"]),
    )  # fmt: skip


def _retry_if_parked(site: Site, study: str) -> None:
    queue = open_queue(site.state, SystemClock(), lambda _: None)
    queue.claims.retry(study)
    queue.close()


def _forget_faults(site: Site) -> None:
    """Files quarantined for a fault of the program come again when they are touched."""
    for path in site.left():
        os.utime(path)


def test_a_device_is_not_read_even_for_a_moment(site: Site) -> None:
    """Opening a FIFO for reading would let a waiting writer go on: nobody may."""
    os.mkfifo(site.inbox / "fifo")
    opened = threading.Event()

    def write() -> None:
        with open(site.inbox / "fifo", "wb"):
            opened.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert site.once() == 1
    assert not opened.is_set()
    os.close(os.open(site.inbox / "fifo", os.O_RDONLY | os.O_NONBLOCK))
    thread.join(5)
