"""The receiver is asked for commitment by who may not, for what is none, and by more than it holds; and whoever is at
work on a request is killed again and again."""

from __future__ import annotations

import queue
import signal
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from dicomwatchd.commitments import PUSH_MODEL, PUSH_MODEL_INSTANCE
from dicomwatchd.receiver.commitment import MOST_BYTES, MOST_OPEN
from tests.dicom_peer import Gone, command, p_data
from tests.dicom_peer import Modality as Bytes
from tests.synthetic import CT_IMAGE
from tests.system import invariants
from tests.system.site import PYTHON
from tests.system.test_commitment import Ward, pairs, paths

IMPLICIT = "1.2.840.10008.1.2"
RESOURCE_LIMITATION, INVALID_ARGUMENT, NO_SUCH_ACTION, NO_SUCH_INSTANCE = 0x0213, 0x0115, 0x0123, 0x0112


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    ward = Ward(tmp_path)
    yield ward
    ward.close()


def element(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def item(sop_class: str, instance: str) -> bytes:
    inner = element(0x0008, 0x1150, uid(sop_class)) + element(0x0008, 0x1155, uid(instance))
    return element(0xFFFE, 0xE000, inner)


def action(items: bytes, transaction: str = "1.2.3") -> bytes:
    return element(0x0008, 0x1195, uid(transaction)) + element(0x0008, 0x1199, items)


ONE = action(item(CT_IMAGE, "1.2.3.4"))


def n_action(ward: Ward, data_set: bytes, *, instance: str = PUSH_MODEL_INSTANCE, action_type: int = 1) -> int:
    """The status. Raises Gone."""
    rq = command(
        {
            0x0003: uid(PUSH_MODEL),
            0x0100: b"\x30\x01",
            0x0110: b"\1\0",
            0x0800: b"\1\0" if data_set else b"\1\1",
            0x1001: uid(instance),
            0x1008: action_type.to_bytes(2, "little"),
        }
    )
    with Bytes(ward.receiving.port, [(PUSH_MODEL, [IMPLICIT])]) as modality:
        modality.socket.sendall(p_data(1, 3, rq))
        for start in range(0, len(data_set), 16000):
            last = start + 16000 >= len(data_set)
            modality.socket.sendall(p_data(1, 2 if last else 0, data_set[start : start + 16000]))
        return int.from_bytes(modality.answer()[0x0900], "little")


def test_what_is_no_request(ward: Ward) -> None:
    ward.receiving.start()
    deep = b""
    for _ in range(20_000):
        deep += struct.pack("<HHLHHL", 0x0008, 0x1199, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    for data_set, status in (
        (b"", INVALID_ARGUMENT),
        (b"garbage that is nothing", INVALID_ARGUMENT),
        (action(b""), INVALID_ARGUMENT),
        (action(item(CT_IMAGE, "../../etc")), INVALID_ARGUMENT),
        (action(item(CT_IMAGE, "1" * 65)), INVALID_ARGUMENT),
        (action(item(CT_IMAGE, "1.2"), transaction=""), INVALID_ARGUMENT),
        # Half a UID is another instance's.
        (action(item(CT_IMAGE, "1.2.3.45"))[:-2], INVALID_ARGUMENT),
        (action(item(CT_IMAGE, "1.2") + item(CT_IMAGE, "1.2.3.45"))[:-2], INVALID_ARGUMENT),
        (
            action(item(CT_IMAGE, "1.2") + item(CT_IMAGE, "1.2.3.45"))[: -len(item(CT_IMAGE, "1.2.3.45"))],
            INVALID_ARGUMENT,
        ),
        (deep, INVALID_ARGUMENT),
        (action(item(CT_IMAGE, "1.2.3") * 20_001), RESOURCE_LIMITATION),
        (action(bytes(MOST_BYTES)), RESOURCE_LIMITATION),
    ):
        assert n_action(ward, data_set) == status, data_set[:40]
    assert n_action(ward, ONE, action_type=2) == NO_SUCH_ACTION
    assert n_action(ward, ONE, instance="1.2.3") == NO_SUCH_INSTANCE
    assert ward.is_settled(), "nothing of all that is kept"
    assert n_action(ward, ONE) == 0
    assert not ward.is_settled()
    assert {event["reason"] for event in ward.site.events("commitment-refused")} == {
        "invalid-request",
        "too-many-instances",
        "no-such-action",
        "no-such-instance",
    }
    assert ward.receiving.rss_bytes < 300 << 20


def test_a_request_in_crumbs(ward: Ward) -> None:
    """A data set in 75,000 fragments costs what it costs in ten."""
    ward.receiving.start()
    data_set = action(item(CT_IMAGE, "1.2.3.4")) + element(0x4009, 0x0010, bytes(3_000_000))
    rq = command(
        {
            0x0003: uid(PUSH_MODEL),
            0x0100: b"\x30\x01",
            0x0110: b"\1\0",
            0x0800: b"\1\0",
            0x1001: uid(PUSH_MODEL_INSTANCE),
            0x1008: b"\1\0",
        }
    )
    crumbs = [data_set[start : start + 40] for start in range(0, len(data_set), 40)]
    with Bytes(ward.receiving.port, [(PUSH_MODEL, [IMPLICIT])]) as modality:
        began = ward.receiving.processor_seconds
        modality.socket.sendall(p_data(1, 3, rq))
        modality.socket.sendall(b"".join(p_data(1, 2 if one is crumbs[-1] else 0, one) for one in crumbs))
        assert modality.answer()[0x0900] == b"\0\0"
    assert ward.receiving.processor_seconds - began < 5


def test_who_may_ask(ward: Ward) -> None:
    ward.receiving.start()
    contexts = [(PUSH_MODEL, [IMPLICIT]), (CT_IMAGE, [IMPLICIT])]
    with Bytes(ward.receiving.port, contexts, calling="OTHER") as modality:
        assert modality.accepted == {3: IMPLICIT}
    with Bytes(ward.receiving.port, contexts) as modality:
        assert modality.accepted == {1: IMPLICIT, 3: IMPLICIT}
    with Bytes(ward.receiving.port, [(PUSH_MODEL, ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"])]) as modality:
        assert modality.accepted == {1: "1.2.840.10008.1.2.1"}
    # Nor is anything stored where commitment was agreed on, or asked for where storage was.
    with Bytes(ward.receiving.port, contexts) as modality:
        assert modality.send("1.2.3", b"x" * 100, context_id=1) == 0x0122
    ward.receiving.configure(commitment=None)
    ward.receiving.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    ward.site.wait_for(lambda: bool(ward.site.events("receiver-reloaded")), 60, "the reload")
    with Bytes(ward.receiving.port, contexts) as modality:
        assert modality.accepted == {3: IMPLICIT}


def test_reloaded_again_and_again(ward: Ward) -> None:
    """Nothing of what was in use before stays open."""
    ward.receiving.start()
    process = ward.receiving.process
    assert process is not None

    def is_open() -> int:
        links = [link for link in Path(f"/proc/{process.pid}/fd").iterdir() if link.is_symlink()]
        return sum(link.resolve() == ward.folder.resolve() for link in links)

    for number in range(8):
        process.send_signal(signal.SIGHUP)
        ward.site.wait_for(lambda: len(ward.site.events("receiver-reloaded")) == number + 1, 60, "a reload")  # noqa: B023
        assert n_action(ward, ONE) == 0
    ward.site.wait_for(lambda: is_open() <= 2, 60, "what is not in use to be closed")


def test_nobody_goes_on_who_cannot_report(ward: Ward) -> None:
    """A thread that has crashed would be missed by nobody but the modality: the process ends, and is started anew."""
    crash = "Reporting.step = lambda *_: 1 / 0"
    code = f"import sys; from dicomwatchd.receiver.reporting import Reporting; {crash};"
    code += " from dicomwatchd.receiver.process import main; sys.exit(main())"
    ward.receiving.program = (PYTHON, "-c", code)
    ward.receiving.start()
    assert ward.receiving.process is not None and ward.receiving.process.wait(20) == 1


def test_more_requests_than_are_kept(ward: Ward) -> None:
    ward.receiving.start()
    for _ in range(MOST_OPEN):
        assert n_action(ward, ONE) == 0
    assert n_action(ward, ONE) == RESOURCE_LIMITATION
    assert ward.site.events("commitment-refused")[0]["reason"] == "too-many-requests"
    assert ward.receiving.peer("echoscu", "-aet", "CT1").returncode == 0


def test_the_folder_is_taken_away(ward: Ward) -> None:
    ward.receiving.start()
    ward.folder.rmdir()
    assert n_action(ward, ONE) == 0x0110
    assert ward.site.events("commitment-refused")[0]["reason"] == "folder-unwritable"


def test_killed_again_and_again(ward: Ward) -> None:
    """Receiver and daemon in turn, at whatever they are: each request that was answered with Success is reported, and
    no report says more than is true."""
    ward.begin()
    made = ward.made(4)
    random = Random(3)
    asked: list[str] = []
    stopping = threading.Event()

    def ask() -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            transaction = f"1.2.3.{number}"
            try:
                if ward.modality.ask(pairs(made), transaction_uid=transaction) == 0:
                    asked.append(transaction)
            except (AssertionError, AttributeError, RuntimeError, ValueError, OSError, Gone):
                pass  # it was killed meanwhile
            stopping.wait(0.1)

    with ward.modality as modality:
        modality.store(paths(made))
        asking = threading.Thread(target=ask)
        asking.start()
        kills = 10
        for number in range(kills):
            time.sleep(random.uniform(0.2, 2.0))
            if number % 2:
                ward.site.stop(signal.SIGKILL)
                ward.site.start()
            else:
                ward.receiving.close()
                ward.receiving.start()
        stopping.set()
        asking.join()
        told: set[str] = set()
        end = time.monotonic() + 120
        while not set(asked) <= told and time.monotonic() < end:
            try:
                report = modality.report(5)
            except queue.Empty:
                continue
            assert report.committed == set(pairs(made)) and not report.failed
            told.add(report.transaction_uid)
        assert len(asked) > kills and set(asked) <= told
        ward.site.wait_for(ward.is_settled, 60, "the folder to be tidied")
    assert ward.site.left() == []
    invariants.report(
        "commitment-kills",
        "requests for storage commitment that were answered with Success, receiver and daemon killed in turn: each is"
        " reported, and truly",
        tried=len(asked),
        kills=kills,
    )
