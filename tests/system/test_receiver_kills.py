"""The receiver's kill matrix: SIGKILL at every system call of an association that does anything, and nothing that was
answered with Success is lost. strace does the killing, right before the call; the peer keeps the book."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from tests.dicom_peer import Gone, Modality, data_set_of
from tests.synthetic import Made, Maker
from tests.system import invariants
from tests.system.receiving import Receiving
from tests.system.site import Site

if shutil.which("strace") is None:
    pytest.skip("strace is not installed; scripts/setup-test-machine installs it", allow_module_level=True)

#: Each kind of call of an association's thread, on one architecture or another.
KINDS = {
    "open": ("openat",),
    "write": ("write",),
    "fsync": ("fsync",),
    "name": ("link", "linkat"),
    "close": ("close",),
    "answer": ("sendto",),  # right before Success
    "read": ("recvfrom",),  # right after Success, among others
}
CALLS = [name for names in KINDS.values() for name in names]
#: Reading is the same again and again; the others are killed at each.
READS_MOST = 12
#: Between the peer's end and the call that comes last, on a machine that does much else.
REACHED_SECONDS = 20.0


@dataclass
class Ground:
    root: Path
    made: list[Made]
    runs: int = 0
    seen: list[str] = field(default_factory=list)

    @property
    def bodies(self) -> dict[str, bytes]:
        return {one.sop_instance_uid: data_set_of(one.path) for one in self.made}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    root = tmp_path_factory.mktemp("receiver-kills")
    # Long enough for two blocks, so that there is a write in the middle of an object.
    made = Maker(seed=9).ct_series(root / "scanner", slices=3, rows=400, columns=400)
    ground = Ground(root, made)
    ground.seen = _run(ground, trace=True).trace
    return ground


@dataclass
class Run:
    site: Site
    acknowledged: list[str]
    trace: list[str]
    killed: bool


def _run(ground: Ground, inject: str = "", *, trace: bool = False) -> Run:
    """One association of three objects, with strace on the receiver from before it begins. ``acknowledged`` are the
    instances that were answered with Success."""
    ground.runs += 1
    site = Site(ground.root / f"{ground.runs}", inbox={"settle_seconds": 0, "quiet_seconds": 0}, log_level="INFO")
    receiving = Receiving(site)
    receiving.start()
    assert receiving.process is not None
    output = site.root / "trace"
    rules = ["-e", f"inject={inject}"] if inject else []
    tracing = subprocess.Popen(
        [
            "strace",
            "-f",
            "-qq",
            "-e",
            f"trace={','.join(CALLS)}",
            *rules,
            "-o",
            output,
            "-p",
            f"{receiving.process.pid}",
        ],
        stderr=subprocess.PIPE,
    )
    status = Path(f"/proc/{receiving.process.pid}/task")
    end = time.monotonic() + 60
    while not all("TracerPid:\t0" not in (one / "status").read_text() for one in status.iterdir()):
        assert time.monotonic() < end, "strace does not attach"
        time.sleep(0.005)
    acknowledged: list[str] = []
    try:
        with Modality(receiving.port) as modality:
            for uid, body in ground.bodies.items():
                assert modality.send(uid, body) == 0
                acknowledged.append(uid)
            modality.release()
    except (Gone, ConnectionError):
        pass
    try:
        killed = receiving.process.wait(REACHED_SECONDS if inject else 0) == -9
    except subprocess.TimeoutExpired:
        killed = False
    receiving.close()
    tracing.wait(60)
    return Run(site, acknowledged, output.read_text().splitlines() if trace else [], killed)


def _of_association(trace: list[str]) -> list[str]:
    """The calls of the thread that has made names, in order."""
    [thread] = {line.split()[0] for line in trace if re.search(r" link(?:at)?\(", line)}
    return [line.split(None, 1)[1] for line in trace if line.split()[0] == thread and "(" in line]


def test_in_which_order(ground: Ground) -> None:
    """What a power cut would test: the bytes are synced before the name is given, and the name before Success."""
    order = [
        re.sub(r"\W.*", "", call)
        for call in _of_association(ground.seen)
        if re.match(r"(?:write|fsync|link|linkat|sendto)\b", call) and not call.startswith("write(2,")
    ]
    # The answer to the association, three objects, the answer to its release.
    of_one = ["write", "write", "fsync", "link", "fsync", "sendto"]
    assert [name.replace("linkat", "link") for name in order] == ["sendto", *of_one * 3, "sendto"]


@pytest.mark.parametrize("kind", [*KINDS])
def test_killed_right_before(kind: str, ground: Ground) -> None:
    counts = Counter(re.sub(r"\W.*", "", call) for call in _of_association(ground.seen))
    points = [(name, number) for name in KINDS[kind] for number in range(1, counts[name] + 1)]
    if kind == "read":
        step = max(1, len(points) // READS_MOST)
        points = points[::step]
    assert points
    bodies, lost, acknowledged, hit, over_before = ground.bodies, 0, 0, 0, 0
    for name, number in points:
        run = _run(ground, f"{name}:signal=SIGKILL:when={number}")
        hit += run.killed
        over_before += not run.killed and len(run.acknowledged) == len(bodies)
        acknowledged += len(run.acknowledged)
        there = {path.name.removesuffix(".dcm"): data_set_of(path) for path in run.site.inbox.iterdir()}
        for uid, body in there.items():
            assert bodies[uid] == body, f"{name} {number}: an object is there by name and not whole"
        lost += sum(uid not in there for uid in run.acknowledged)
        shutil.rmtree(run.site.root)
    assert lost == 0
    if kind == "read":  # how many there are is the network's affair: what comes together is read together
        assert hit + over_before == len(points) and hit > len(points) / 2, "calls were not reached"
    else:
        assert hit == len(points), "a call was not reached"
    invariants.report(
        f"receiver-kills-{kind}",
        f"SIGKILL right before {'some' if kind == 'read' else 'every'} {kind} of the receiver: what was answered with"
        " Success is in the inbox",
        tried=len(points),
        acknowledged=acknowledged,
    )


def test_what_was_answered_is_archived(ground: Ground) -> None:
    """Killed in the middle, started again, sent again by a modality that did not hear: the archive has it all, once."""
    run = _run(ground, "linkat:signal=SIGKILL:when=2")
    assert run.killed and len(run.acknowledged) == 1
    receiving = Receiving(run.site)
    receiving.start()
    with Modality(receiving.port) as modality:
        for uid, body in ground.bodies.items():
            assert modality.send(uid, body) == 0
        modality.release()
    assert receiving.stop() == 0
    run.site.init()
    assert run.site.once() == 0
    assert run.site.left() == []
    study = ground.made[0].study_uid
    run.site.ctl("fetch", study, "-o", str(run.site.root / "out"))
    fetched = sorted(data_set_of(path) for path in (run.site.root / "out").rglob("*.dcm"))
    assert fetched == sorted(ground.bodies.values())


def _body(uid: str) -> bytes:
    """Of any length up to some blocks, and known by the UID."""
    return Random(uid).randbytes(Random(uid).choice((10, 3_000, 200_000, 700_000)))


def _killed_under_load(root: Path, times: int) -> tuple[int, int]:
    """Four modalities send as fast as they can; (what was answered with Success, what of it is not there)."""
    site = Site(root, log_level="INFO")
    receiving = Receiving(site)
    random = Random(7)
    acknowledged: list[str] = []

    def send(run: int, number: int) -> None:
        with suppress(Gone, OSError), Modality(receiving.port) as modality:
            for count in range(100_000):
                uid = f"2.25.{run}.{number}.{count}"
                if modality.send(uid, _body(uid)) == 0:
                    acknowledged.append(uid)

    for run in range(times):
        receiving.start()
        senders = [threading.Thread(target=send, args=(run, number)) for number in range(4)]
        for sender in senders:
            sender.start()
        time.sleep(random.uniform(0.05, 1.0))
        receiving.close()
        for sender in senders:
            sender.join()
    there = {path.name.removesuffix(".dcm"): path for path in site.inbox.iterdir()}
    assert all(data_set_of(path) == _body(uid) for uid, path in there.items()), "there by name and not whole"
    return len(acknowledged), len(set(acknowledged) - there.keys())


@pytest.mark.parametrize("times", [8, pytest.param(100, marks=pytest.mark.long)])
def test_killed_under_load(times: int, tmp_path: Path) -> None:
    acknowledged, lost = _killed_under_load(tmp_path, times)
    assert lost == 0 and acknowledged > 10 * times
    invariants.report(
        f"receiver-kills-load-{times}",
        "objects that a receiver has answered with Success to four modalities, killed again and again",
        tried=acknowledged,
        kills=times,
    )
