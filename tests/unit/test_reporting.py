"""Reports of storage commitment to modalities that do not behave: each is tried again, and holds up nobody else."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicomwatchd.commitments import MOST_INSTANCES, CommitmentFolder, Kind, Reason, Reference, Request, Result
from dicomwatchd.config.destinations import Destination
from dicomwatchd.config.receivers import Receiver
from dicomwatchd.dicom_tls import client_context
from dicomwatchd.model import Uid
from dicomwatchd.receiver import calling
from dicomwatchd.receiver.reporting import Reporting
from tests.dicom_peer import command
from tests.pieces import FakeClock, Log
from tests.servers.tls import make_certificate
from tests.system.receiving import free_port

PUSH_MODEL = b"1.2.840.10008.1.20.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


class Desk:
    """The folder, with requests that were judged, and who reports them."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.clock, self.log = FakeClock(), Log()
        self.folder = CommitmentFolder(root)
        self.reporting = self.reporter()

    def reporter(self, tls: ssl.SSLContext | None = None) -> Reporting:
        commitment = {"folder": str(self.root), "report_to": ["ct1"], "wait_seconds": 60}
        return Reporting(
            Receiver.model_validate({"name": "ct", "ae_title": "ARCHIVE", "inbox": "inbox", "commitment": commitment}),
            Destination.model_validate({"name": "ct1", "ae_title": "CT1", "address": f"127.0.0.1:{self.port}"}),
            tls,
            self.folder,
            self.clock,
            self.log,
            lambda: 1,
        )

    def judged(self, transaction: str = "1.2.3", instances: int = 1, failed: int = 0, receiver: str = "ct") -> str:
        references = tuple(Reference(Uid("1.2"), Uid(f"1.2.3.{number}")) for number in range(instances))
        now = self.clock.now()
        request_id = self.folder.keep_request("ct1", Request(receiver, Uid(transaction), now, references))
        self.folder.keep_result(request_id, Result(now, dict.fromkeys(range(failed), Reason.NO_SUCH_INSTANCE)))
        return request_id

    def renew(self) -> None:
        for request_id, kinds in self.folder.requests().items():
            if Kind.REPORTED not in kinds:
                (self.root / f"{request_id}.result").unlink()
                self.folder.keep_result(request_id, Result(self.clock.now(), {}))

    def is_reported(self, request_id: str) -> bool:
        return Kind.REPORTED in self.folder.requests()[request_id]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.folder.close()


# --- who behaves


class Modality:
    def __init__(
        self,
        desk: Desk,
        *,
        status: Callable[[str], int] = lambda _: 0,
        syntaxes: tuple[str, ...] = (IMPLICIT,),
        answers_roles: bool = True,
        pdu_bytes: int = 16382,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.told: list[tuple[str, int, int, int]] = []
        self._status = status
        application = AE("CT1")
        application.maximum_pdu_size = pdu_bytes
        roles: dict[str, Any] = {"scu_role": True, "scp_role": True} if answers_roles else {}
        application.add_supported_context(StorageCommitmentPushModel, [*syntaxes], **roles)
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        self._server: Any = application.start_server(
            ("127.0.0.1", desk.port), block=False, evt_handlers=handlers, ssl_context=tls
        )

    def _on_report(self, event: Any) -> tuple[int, None]:
        said = event.event_information
        transaction = str(said.TransactionUID)
        if status := self._status(transaction):
            return status, None
        committed, failed = len(said.get("ReferencedSOPSequence", [])), len(said.get("FailedSOPSequence", []))
        self.told.append((transaction, event.event_type, committed, failed))
        return 0, None

    def __enter__(self) -> Modality:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"answers_roles": False},
        {"syntaxes": (EXPLICIT,)},
        {"syntaxes": (EXPLICIT, IMPLICIT)},
        {"pdu_bytes": 512},
        {"pdu_bytes": 0},
    ],
)
def test_whoever_takes_it(desk: Desk, kind: dict[str, Any]) -> None:
    asked = desk.judged(instances=1000, failed=300)
    with Modality(desk, **kind) as modality:
        desk.reporting.step()
        assert modality.told == [("1.2.3", 2, 700, 300)] and desk.is_reported(asked)


def test_by_tls_and_to_nobody_else(desk: Desk) -> None:
    theirs, others = make_certificate(desk.root / "theirs"), make_certificate(desk.root / "others")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(theirs.cert_file, theirs.key_file)
    asked = desk.judged()
    with Modality(desk, tls=server) as modality:
        for reporting in (desk.reporting, desk.reporter(client_context(others.ca_file, None, None))):
            reporting.step()
            assert modality.told == [] and not desk.is_reported(asked)
        desk.reporter(client_context(theirs.ca_file, None, None)).step()
        assert modality.told and desk.is_reported(asked)


def test_the_most_instances(desk: Desk) -> None:
    asked = desk.judged(instances=MOST_INSTANCES)
    with Modality(desk) as modality:
        began = time.monotonic()
        desk.reporting.step()
        assert modality.told == [("1.2.3", 1, MOST_INSTANCES, 0)] and desk.is_reported(asked)
        assert time.monotonic() - began < 150


def test_one_that_is_refused_for_ever_holds_up_no_other(desk: Desk) -> None:
    refused = desk.judged("1.1")
    others = [desk.judged(f"1.2.{number}") for number in range(3)]
    with Modality(desk, status=lambda transaction: 0x0112 if transaction == "1.1" else 0) as modality:
        for _ in range(6):
            desk.reporting.step()
            desk.clock.advance(20)
        assert sorted(one[0] for one in modality.told) == ["1.2.0", "1.2.1", "1.2.2"]
    assert not desk.is_reported(refused) and all(map(desk.is_reported, others))


@pytest.mark.parametrize("status", [0x0110, 0x0115, 0xA700, 0x0107, 0xB000, 0xFFFF])
def test_no_other_status_is_success(desk: Desk, status: int) -> None:
    asked, said = desk.judged(), [status]
    with Modality(desk, status=lambda _: said.pop() if said else 0) as modality:
        desk.reporting.step()
        assert not desk.is_reported(asked)
        desk.clock.advance(10)
        desk.reporting.step()
        assert modality.told and desk.is_reported(asked)


# --- who does not


def associated(connection: socket.socket, length: bytes = struct.pack(">L", 16384)) -> None:
    """Answers the A-ASSOCIATE-RQ; ``length`` is the maximum length that is named."""
    header = connection.recv(6, socket.MSG_WAITALL)
    connection.recv(int.from_bytes(header[2:]), socket.MSG_WAITALL)

    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(value)) + value

    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    items += item(0x21, b"\1\0\0\0" + item(0x40, IMPLICIT.encode()))
    items += item(0x50, item(0x51, length) + item(0x52, b"1.2.3"))
    body = struct.pack(">HH16s16s32s", 1, 0, b"CT1".ljust(16), b"ARCHIVE".ljust(16), b"") + items
    connection.sendall(struct.pack(">BBL", 2, 0, len(body)) + body)


def pdv(data: bytes, control: int = 3) -> bytes:
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, 1, control) + data


def answering(field: int = 0x8100, answered: int = 1, status: bytes | None = b"\0\0") -> bytes:
    elements = {
        0x0002: PUSH_MODEL,
        0x0100: field.to_bytes(2, "little"),
        0x0120: answered.to_bytes(2, "little"),
        0x0800: b"\1\1",
    }
    return pdv(command(elements | ({} if status is None else {0x0900: status})))


def flood(connection: socket.socket) -> None:
    with suppress(OSError):
        for _ in range(512):
            connection.sendall(bytes(1 << 20))


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def reset_when_associated(connection: socket.socket) -> None:
    associated(connection)
    reset(connection)


def drip(connection: socket.socket) -> None:
    associated(connection)
    with suppress(OSError):
        for byte in answering() * 20:
            connection.sendall(bytes([byte]))
            time.sleep(0.3)


def then(
    *data: bytes, flooded: bool = False, length: bytes = struct.pack(">L", 16384)
) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        associated(connection, length)
        with suppress(OSError):
            for one in data:
                connection.sendall(one)
            if flooded:
                flood(connection)
            connection.settimeout(5)
            while connection.recv(65536):
                pass

    return behave


def begins(data: bytes, *, flooded: bool = False) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(data)
            if flooded:
                flood(connection)
            time.sleep(1)

    return behave


HUGE = struct.pack(">BBL", 4, 0, 0xFFFFFFFF)
BEHAVIOURS: dict[str, Callable[[socket.socket], None]] = {
    "says nothing": lambda _: time.sleep(4),
    "resets": reset,
    "resets when associated": reset_when_associated,
    "drips": drip,
    "an endless AC": begins(struct.pack(">BBL", 2, 0, 0xFFFFFFFF), flooded=True),
    "an empty AC": begins(struct.pack(">BBL", 2, 0, 0)),
    "an AC of nonsense": begins(struct.pack(">BBL", 2, 0, 200) + bytes(range(200))),
    "rejects": begins(b"\3\0\0\0\0\4\0\1\1\7"),
    "rejects shortly": begins(b"\3\0\0\0\0\0"),
    "aborts": begins(b"\7\0\0\0\0\4\0\0\0\0"),
    "asks itself": begins(struct.pack(">BBL", 1, 0, 0)),
    "HTTP": begins(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "PDUs of nothing": then(length=struct.pack(">L", 6)),
    "PDUs of less than nothing": then(length=struct.pack(">L", 1)),
    "PDUs of one byte": then(length=struct.pack(">L", 7)),
    "a length of no length": then(length=b""),
    "an endless PDU": then(HUGE, flooded=True),
    "endless fragments": then(*[pdv(b"", 1)] * 10_000),
    "an endless command": then(*[pdv(b"x" * 1000, 1)] * 100),
    "a data set": then(pdv(b"x", 2)),
    "releases": then(b"\5\0\0\0\0\4\0\0\0\0"),
    "aborts when associated": then(b"\7\0\0\0\0\4\0\0\0\0"),
    "answers another": then(answering(answered=2)),
    "answers something else": then(answering(field=0x8001)),
    "asks instead": then(answering(field=0x0100)),
    "answers without a status": then(answering(status=None)),
    "answers with a long status": then(answering(status=bytes(4))),
    "an empty answer": then(pdv(b"")),
    "an answer of nonsense": then(pdv(b"nonsense")),
}


@pytest.mark.parametrize("what", BEHAVIOURS)
def test_a_modality_that_does_not_behave(desk: Desk, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = desk.judged(instances=100)
    with socket.create_server(("127.0.0.1", desk.port)) as server, monkeypatch.context() as hasty:
        for name in ("_CONNECT_SECONDS", "_ASSOCIATE_SECONDS", "_ANSWER_SECONDS", "_RELEASE_SECONDS"):
            hasty.setattr(calling, name, 1.0)

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                BEHAVIOURS[what](connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        tracemalloc.start()
        began = time.monotonic()
        desk.reporting.step()
        took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        thread.join(20)
    assert not desk.is_reported(asked) and desk.log.events("commitment-unreported")
    assert took < 30 and peak < 16 << 20
    desk.clock.advance(10)
    with Modality(desk) as modality:  # it has come to its senses
        desk.reporting.step()
        assert modality.told and desk.is_reported(asked)


def test_answered_and_never_released(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "_RELEASE_SECONDS", 1.0)
    asked = desk.judged()
    with socket.create_server(("127.0.0.1", desk.port)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                then(answering())(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        desk.reporting.step()
        assert desk.is_reported(asked)
        thread.join(20)


# --- when, and how often


def test_what_is_too_old_is_not_told_until_it_is_renewed(desk: Desk) -> None:
    asked = desk.judged()
    with Modality(desk) as modality:
        desk.clock.advance(880)
        desk.reporting.step()
        assert modality.told == [], "it would be too old when it is there"
        desk.clock.advance(3600)
        desk.reporting.step()
        desk.renew()
        desk.clock.advance(15)
        desk.reporting.step()
        assert modality.told and desk.is_reported(asked)


def test_a_clock_that_was_set_back_makes_nothing_young(desk: Desk) -> None:
    asked = desk.judged()
    desk.clock.advance(-100)
    with Modality(desk) as modality:
        desk.reporting.step()
        assert modality.told == [] and not desk.is_reported(asked)


def test_given_up_after_a_week_and_not_when_the_clock_leaps(desk: Desk) -> None:
    asked = desk.judged()
    before = time.monotonic
    desk.clock.monotonic = lambda: before()  # type: ignore[method-assign]
    desk.clock.advance(365 * 86400)
    desk.reporting.step()
    desk.renew()
    desk.reporting.step()
    assert not desk.is_reported(asked) and not desk.log.events("commitment-given-up")
    del desk.clock.monotonic
    desk.reporting.step()
    assert desk.is_reported(asked) and len(desk.log.events("commitment-given-up")) == 1


def test_nothing_is_read_while_nobody_can_be_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A modality is away, and 50 reports wait for it; another receiver has as many in the same folder."""
    for number in range(50):
        desk.judged(receiver="ct" if number % 2 else "other")
    reads: list[str] = []
    original = CommitmentFolder.request

    def counted(self: CommitmentFolder, request_id: str) -> Request:
        reads.append(request_id)
        return original(self, request_id)

    monkeypatch.setattr(CommitmentFolder, "request", counted)
    for _ in range(300):
        desk.reporting.step()
        desk.clock.advance(1)
    assert len(reads) < 100


@pytest.mark.parametrize("failed", ['{"5": 272}', '{"-1": 272}', '{"x": 272}', '{"0": 1}', "[]", "7"])
def test_a_result_of_nonsense(desk: Desk, failed: str) -> None:
    asked = desk.judged()
    path = desk.root / f"{asked}.result"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "failed": json.loads(failed)}))
    other = desk.judged("1.2.4")
    with Modality(desk):
        desk.reporting.step()
        assert desk.is_reported(other)
