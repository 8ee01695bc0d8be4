"""`fetch --send`: what arrives is what was archived, each instance has a result, and only what failed is sent again."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID
from pynetdicom import AE, evt

from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.config import loading
from dicomwatchd.errors import ConfigError, Misconfigured, Permanent
from dicomwatchd.fetch import by_uid, look_up
from dicomwatchd.fetch.destination import (
    Channel,
    Destination,
    Lost,
    NotAccepted,
    Refused,
    TlsFiles,
    Unreachable,
    parse_destination,
)
from dicomwatchd.fetch.handing import NotTaken
from dicomwatchd.fetch.send import Confirmed, SendReport, send_study
from tests.dcmtk import dcmtk
from tests.dicom_peer import command, item, p_data
from tests.servers.tls import Certificate, make_certificate
from tests.synthetic import JPEG_2000_LOSSLESS, RLE_LOSSLESS, Maker
from tests.unit.memory_archive import STUDY, MemoryStore, archive
from tests.unit.test_cli_archive import Site, bare, elsewhere, site

__all__ = ["bare", "elsewhere", "site"]  # fixtures

CT, US, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.88.11"
EXPLICIT = "1.2.840.10008.1.2.1"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Peer:
    """A storage SCP that answers as it is told: ``answers`` holds a status for each instance that comes, or None to end
    the association there; Success when they have run out."""

    port: int
    answers: list[int | None] = field(default_factory=list)
    got: list[str] = field(default_factory=list)
    data: dict[str, bytes] = field(default_factory=dict)
    associations: int = 0
    server: Any = None

    def end(self) -> None:
        """Every association, as a peer does that has waited for too long."""
        for one in self.server.active_associations:
            one.abort()
        time.sleep(0.2)

    @property
    def destination(self) -> Destination:
        return Destination("PEER", "127.0.0.1", self.port)

    def store(self, event: Any) -> int:
        sop = str(event.request.AffectedSOPInstanceUID)
        self.got.append(sop)
        status = self.answers.pop(0) if self.answers else 0
        if status is None:
            event.assoc.abort()
            return 0xC000
        if status == 0 or status & 0xF000 == 0xB000:
            self.data[sop] = event.request.DataSet.getvalue()
        return status

    def accepted(self, _event: Any) -> None:
        self.associations += 1


@contextmanager
def peer(*pairs: tuple[str, str], context: ssl.SSLContext | None = None, title: str = "PEER") -> Iterator[Peer]:
    application = AE(title)
    for abstract, transfer in pairs or ((CT, EXPLICIT), (US, RLE_LOSSLESS), (SR, EXPLICIT)):
        application.add_supported_context(abstract, transfer)
    application.require_called_aet = True
    found = Peer(free_port())
    handlers: list[Any] = [(evt.EVT_C_STORE, found.store), (evt.EVT_ACCEPTED, found.accepted)]
    server: Any = application.start_server(
        ("127.0.0.1", found.port), block=False, evt_handlers=handlers, ssl_context=context
    )
    found.server = server
    try:
        yield found
    finally:
        server.shutdown()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(chunk_bytes=100_000)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """CT slices, an RLE clip and a report, by SOP Instance UID."""
    maker = Maker(seed=5)
    made = [
        *maker.ct_series(tmp_path / "ct", slices=5, rows=32, columns=32, study=0),
        *maker.us_multiframe(tmp_path / "us", frames=2, study=0),
        *maker.structured_report(tmp_path / "sr", study=0),
    ]
    return {one.sop_instance_uid: one.path.read_bytes() for one in made}


@pytest.fixture
def study(store: MemoryStore, files: dict[str, bytes]) -> Manifest:
    headers = {sop: pydicom.dcmread(BytesIO(data)) for sop, data in files.items()}
    manifest = archive(store, [(headers[sop].SeriesInstanceUID, sop, data) for sop, data in files.items()])
    items = tuple(
        replace(
            item,
            sop_class_uid=str(headers[item.sop_instance_uid].SOPClassUID),
            transfer_syntax_uid=str(headers[item.sop_instance_uid].file_meta.TransferSyntaxUID),
        )
        for item in manifest.instances
    )
    manifest = replace(manifest, instances=items)
    store.versions[manifest.key] = [manifest.to_bytes()]
    return manifest


def data_set(file: bytes) -> bytes:
    """What follows the file meta information."""
    return file[132 + 12 + int.from_bytes(file[140:144], "little") :]


def pairs_of(manifest: Manifest) -> list[tuple[str, str]]:
    return [(item.sop_class_uid, item.transfer_syntax_uid) for item in manifest.instances]


def sent(
    store: MemoryStore,
    manifest: Manifest,
    to: Destination,
    tmp_path: Path,
    *,
    resume: Path | None = None,
    pauses: list[float] | None = None,
) -> SendReport:
    channel = Channel(to, pairs_of(manifest))
    waited = pauses if pauses is not None else []
    try:
        with Confirmed.opened(resume, to) as confirmed:
            return send_study(
                store,
                look_up(store, None, STUDY),
                by_uid(manifest.instances),
                channel,
                confirmed,
                tmp_path,
                threads=2,
                sleep=waited.append,
            )
    finally:
        channel.close()


def test_what_arrives_is_what_was_archived(
    store: MemoryStore, study: Manifest, files: dict[str, bytes], tmp_path: Path
) -> None:
    with peer() as one:
        done = sent(store, study, one.destination, tmp_path)
    assert done.report.complete and done.attempts == 1
    assert {result.status for result in done.results} == {"0000"} and len(done.results) == len(files)
    assert one.data == {sop: data_set(file) for sop, file in files.items()}
    assert one.associations == 1


def test_storescp_of_dcmtk_takes_it(
    store: MemoryStore, study: Manifest, files: dict[str, bytes], tmp_path: Path
) -> None:
    with storescp(tmp_path / "inbox") as (_, destination):
        done = sent(store, study, destination, tmp_path)
    assert done.report.complete
    received = (tmp_path / "inbox").iterdir()
    assert sorted(data_set(p.read_bytes()) for p in received) == sorted(map(data_set, files.values()))


@contextmanager
def storescp(inbox: Path) -> Iterator[tuple[subprocess.Popen[bytes], Destination]]:
    """DCMTK's, which stores what comes bit for bit, in whatever transfer syntax."""
    port = free_port()
    inbox.mkdir()
    running = subprocess.Popen([dcmtk("storescp"), "-aet", "PEER", "-od", str(inbox), "+B", "+xa", str(port)])
    try:
        _answers(port)
        yield running, Destination("PEER", "127.0.0.1", port)
    finally:
        running.kill()
        running.wait()


def _answers(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("storescp does not answer")


def test_only_what_failed_is_sent_again(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    pauses: list[float] = []
    with peer() as one:
        one.answers = [0, 0xA700, 0, 0, 0xC001, 0, 0, 0xA700, 0]
        done = sent(store, study, one.destination, tmp_path, pauses=pauses)
    assert done.report.complete and done.attempts == 3 and len(pauses) == 2
    assert len(one.got) == 7 + 2 + 1 and len(set(one.got)) == 7


def test_of_two_contents_of_one_instance_only_the_one_that_failed_is_sent_again(
    store: MemoryStore, tmp_path: Path
) -> None:
    made = Maker(seed=6).ct_series(tmp_path / "ct", slices=1, rows=16, columns=16)[0].path.read_bytes()
    other = made[:-1] + bytes([made[-1] ^ 1])
    header = pydicom.dcmread(BytesIO(made))
    both = [(header.SeriesInstanceUID, str(header.SOPInstanceUID), data) for data in (made, other)]
    manifest = archive(store, both)
    with peer() as one:
        one.answers = [0, 0xA700]
        done = sent(store, manifest, one.destination, tmp_path)
    assert done.report.complete and done.attempts == 2 and len(one.got) == 3


def test_what_fails_three_times_has_failed_with_its_status(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    with peer() as one:
        one.answers = [0xA700, *[0] * 6, 0xA700, 0xA701]
        done = sent(store, study, one.destination, tmp_path)
    [failed] = done.report.failed
    assert not done.report.complete and done.report.fetched == 6
    assert failed.code == "refused" and "A701" in failed.reason and "out of resources" in failed.reason
    assert sum(result.status == "" for result in done.results) == 1


def test_a_warning_is_a_confirmation(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    with peer() as one:
        one.answers = [0xB000]
        done = sent(store, study, one.destination, tmp_path)
    assert done.report.complete and sorted(result.status for result in done.results)[-1] == "B000"


def test_an_association_that_is_lost_is_made_again(
    store: MemoryStore, study: Manifest, files: dict[str, bytes], tmp_path: Path
) -> None:
    with peer() as one:
        one.answers = [0, 0, None]
        done = sent(store, study, one.destination, tmp_path)
    assert done.report.complete and done.attempts == 2 and one.associations == 2
    assert one.data == {sop: data_set(file) for sop, file in files.items()}


def test_nothing_is_transcoded_and_what_is_not_accepted_is_said_by_name(
    store: MemoryStore, study: Manifest, tmp_path: Path
) -> None:
    with peer((CT, EXPLICIT), (US, EXPLICIT), (SR, EXPLICIT)) as one:
        done = sent(store, study, one.destination, tmp_path)
    [failed] = done.report.failed
    assert failed.code == "not-accepted" and done.attempts == 1, "asking again changes nothing"
    assert "Ultrasound Multi-frame Image Storage" in failed.reason and "RLE Lossless" in failed.reason
    assert len(one.data) == 6


def test_a_destination_that_takes_none_of_it(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    with peer(("1.2.840.10008.5.1.4.1.1.481.2", EXPLICIT)) as one:
        done = sent(store, study, one.destination, tmp_path)
    assert {failed.code for failed in done.report.failed} == {"not-accepted"} and len(done.report.failed) == 7


def test_nobody_there_and_a_wrong_title(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    nowhere = Destination("PEER", "127.0.0.1", free_port())
    done = sent(store, study, nowhere, tmp_path)
    assert done.report.fetched == 0 and len(done.report.failed) == 7 and done.attempts == 3
    assert (
        "cannot be reached"
        in {failed.reason for failed in done.report.failed if failed.code == "destination-lost"}.pop()
    )
    with peer(title="OTHER") as one:
        done = sent(store, study, one.destination, tmp_path)
    assert "rejects the association" in next(f.reason for f in done.report.failed if f.code == "destination-lost")
    assert one.got == []


def test_more_pairs_than_an_association_has_contexts() -> None:
    pairs = [(f"1.2.840.10008.5.1.4.1.1.{n}", EXPLICIT) for n in range(300)]
    channel = Channel(Destination("PEER", "127.0.0.1", 1), pairs)
    assert [sum(channel.group_of(pair) == group for pair in pairs) for group in range(3)] == [128, 128, 44]
    assert channel.group_of(("1.2.3", "1.2.4")) == -1


def test_several_associations_one_after_the_other(
    store: MemoryStore, study: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomwatchd.fetch.destination.CONTEXTS_LIMIT", 1)
    with peer() as one:
        assert sent(store, study, one.destination, tmp_path).report.complete
    assert one.associations == 3


def test_a_second_run_sends_what_was_not_confirmed(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    resume = tmp_path / "sent"
    with peer() as one:
        one.answers = [0, 0, 0, *[0xA700] * 12]
        assert sent(store, study, one.destination, tmp_path, resume=resume).report.fetched == 3
        assert resume.stat().st_mode & 0o777 == 0o600
        one.got.clear()
        one.answers.clear()
        done = sent(store, study, one.destination, tmp_path, resume=resume)
        assert done.report.complete and (done.report.fetched, done.report.already_there) == (4, 3)
        assert len(one.got) == 4 and sum(result.earlier for result in done.results) == 3
        one.got.clear()
        again = sent(store, study, one.destination, tmp_path, resume=resume)
        assert again.report.complete and one.got == []
        with peer() as other:
            assert sent(store, study, other.destination, tmp_path, resume=resume).report.fetched == 7


def test_a_line_that_was_cut_off_confirms_nothing(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    resume = tmp_path / "sent"
    with peer() as one:
        sent(store, study, one.destination, tmp_path, resume=resume)
        resume.write_bytes(resume.read_bytes()[:-10])
        one.got.clear()
        assert sent(store, study, one.destination, tmp_path, resume=resume).report.complete
        assert len(one.got) == 1
        one.got.clear()
        assert sent(store, study, one.destination, tmp_path, resume=resume).report.complete and one.got == []


@pytest.mark.parametrize("content", [b"something of somebody's\n", b"\xff\xfe"])
def test_a_file_of_somebodys_is_not_written_to(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(Permanent), Confirmed.opened(path, Destination("A", "b", 1)):
        pass
    assert path.read_bytes() == content
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(Permanent), Confirmed.opened(link, Destination("A", "b", 1)):
        pass


def test_a_file_without_meta_information_cannot_be_sent_as_it_is(store: MemoryStore, tmp_path: Path) -> None:
    made = Maker(seed=6).ct_series(tmp_path / "ct", slices=1, rows=16, columns=16)[0].path.read_bytes()
    manifest = archive(store, [(STUDY, "1.2.1", data_set(made))])
    with peer() as one:
        done = sent(store, manifest, one.destination, tmp_path)
    assert [failed.code for failed in done.report.failed] == ["not-taken"] and done.attempts == 1
    assert "as it is" in done.report.failed[0].reason


def test_a_large_instance_is_not_held_in_memory(tmp_path: Path) -> None:
    Maker(seed=7).sparse_multiframe(tmp_path, size_bytes=40_000_000, name="one.dcm")
    pair = ("1.2.840.10008.5.1.4.1.1.7.3", JPEG_2000_LOSSLESS)
    with storescp(tmp_path / "inbox") as (_, destination):
        channel = Channel(destination, [pair])
        tracemalloc.start()
        try:
            assert channel.send(pair, tmp_path / "one.dcm") == 0
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        channel.close()
    assert peak < 2_000_000
    assert sum(path.stat().st_size for path in (tmp_path / "inbox").iterdir()) > 40_000_000


def test_a_destination_that_takes_nothing_any_more_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped keeps its connections, and reads nothing."""
    monkeypatch.setattr("dicomwatchd.fetch.destination._STALLED_SECONDS", 0.5)
    Maker(seed=7).sparse_multiframe(tmp_path, size_bytes=60_000_000, name="one.dcm")
    pair = ("1.2.840.10008.5.1.4.1.1.7.3", JPEG_2000_LOSSLESS)
    with storescp(tmp_path / "inbox") as (running, destination):
        channel = Channel(destination, [pair])
        channel._association(0)
        running.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(Lost):
            channel.send(pair, tmp_path / "one.dcm")
        assert time.monotonic() - begun < 20
        running.send_signal(signal.SIGCONT)
        assert channel.send(pair, tmp_path / "one.dcm") == 0
        channel.close()


# --- what a peer may answer, byte by byte

PAIR = (CT, EXPLICIT)


def accepting(pdu_bytes: int = 16384, contexts: Sequence[tuple[int, int]] = ((1, 0),)) -> bytes:
    """A-ASSOCIATE-AC of these contexts with these results."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for context_id, result in contexts:
        items += item(0x21, bytes((context_id, 0, result, 0)) + item(0x40, EXPLICIT.encode()))
    items += item(0x50, item(0x51, pdu_bytes.to_bytes(4, "big")) + item(0x52, b"2.25.1"))
    body = struct.pack(">HH16s16s32x", 1, 0, b"PEER".ljust(16), b"US".ljust(16)) + items
    return struct.pack(">BBL", 2, 0, len(body)) + body


def stored(message_id: int = 1, status: int = 0, field: int = 0x8001) -> bytes:
    elements = {0x0100: field, 0x0120: message_id, 0x0800: 0x0101, 0x0900: status}
    return command({tag: value.to_bytes(2, "little") for tag, value in elements.items()})


class ByHand:
    """A peer that takes what comes, and answers what it was given: after the request, and after each message."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.destination = Destination("PEER", "127.0.0.1", self._server.getsockname()[1])
        self._answers = list(answers)
        self.lengths: list[int] = []
        self.values: list[tuple[int, int, bytes]] = []
        self.kinds: list[int] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, suppress(OSError, EOFError), connection.makefile("rb") as incoming:
            while True:
                header = incoming.read(6)
                if len(header) < 6:
                    return
                kind, length = struct.unpack(">BxL", header)
                body = incoming.read(length)
                self.kinds.append(kind)
                if kind == 4:
                    self.lengths.append(length)
                    self.values.append((body[4], body[5], body[6:]))
                    if body[5] != 2:
                        continue
                if kind == 5:
                    connection.sendall(bytes((6, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
                elif self._answers:
                    answer = self._answers.pop(0)
                    for start in range(len(answer)):  # byte by byte: no PDU comes as one
                        connection.sendall(answer[start : start + 1])
                    if not answer:
                        return

    def close(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._server.close()


@pytest.fixture
def slice_file(tmp_path: Path) -> Path:
    return Maker(seed=6).ct_series(tmp_path / "ct", slices=1, rows=300, columns=300)[0].path


@pytest.mark.parametrize("pdu_bytes", [128, 4096, 16384, 0, 1 << 31])
def test_pdus_are_as_long_as_the_peer_takes_them(slice_file: Path, pdu_bytes: int) -> None:
    hand = ByHand([accepting(pdu_bytes), p_data(1, 3, stored(1)), p_data(1, 3, stored(2, 0xB000))])
    channel = Channel(hand.destination, [PAIR])
    assert channel.send(PAIR, slice_file) == 0 and channel.send(PAIR, slice_file) == 0xB000
    channel.close()
    hand.close()
    assert hand.kinds[0] == 1 and hand.kinds[-1] == 5, "released"
    longest = max(hand.lengths)
    assert longest <= (pdu_bytes or 1 << 30)
    if pdu_bytes in (128, 4096):
        assert longest == pdu_bytes, "as long as it may be"
    data = b"".join(value for _, control, value in hand.values if not control & 1)
    assert data == data_set(slice_file.read_bytes()) * 2
    commands = b"".join(value for _, control, value in hand.values if control & 1)
    assert commands.count(CT.encode()) == 2 and {context for context, _, _ in hand.values} == {1}


@pytest.mark.parametrize(
    "answer",
    [
        b"",  # the connection ends
        bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0)),  # A-ABORT
        bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0)),  # A-RELEASE-RQ in the midst of it
        p_data(1, 3, stored(7)),  # of another message
        p_data(1, 3, stored(1, field=0x8030)),  # of another service
        p_data(1, 3, b""),
        p_data(1, 3, command({0x0100: b"\x01\x80", 0x0120: b"\x01\0"})),  # without a status
        p_data(1, 2, stored()),  # as a data set
        bytes((4, 0, 0, 0, 0, 3, 0, 0, 0)),  # a value that is cut off
        bytes((4, 0, 0, 0, 0, 6, 0, 0, 0, 200, 1, 3)),  # and one longer than its PDU
        bytes((4, 0, 0xFF, 0xFF, 0xFF, 0xFF)),  # 4 GiB
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_no_answer_is_no_confirmation(slice_file: Path, answer: bytes) -> None:
    hand = ByHand([accepting(), answer])
    channel = Channel(hand.destination, [PAIR])
    with pytest.raises(Lost):
        channel.send(PAIR, slice_file)
    channel.close()
    hand.close()
    assert 5 not in hand.kinds, "nothing is released in the midst of a message"


def test_an_answer_in_pieces(slice_file: Path) -> None:
    whole = stored(1, 0xA701)
    hand = ByHand([accepting(), p_data(1, 1, whole[:5]) + p_data(1, 1, whole[5:30]) + p_data(1, 3, whole[30:])])
    channel = Channel(hand.destination, [PAIR])
    with pytest.raises(Refused, match="A701"):
        channel.send(PAIR, slice_file)
    channel.close()
    hand.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0)),
        accepting()[:-8] + b"\xff" * 8,
        struct.pack(">BBL", 2, 0, 5) + b"short",
        accepting(pdu_bytes=6),
        b"SSH-2.0-OpenSSH_10.0\r\n",
    ],
)
def test_no_association(slice_file: Path, answer: bytes) -> None:
    hand = ByHand([answer])
    with pytest.raises(Unreachable):
        Channel(hand.destination, [PAIR]).send(PAIR, slice_file)
    hand.close()


def test_contexts_that_are_refused_or_that_nobody_asked_for(slice_file: Path) -> None:
    hand = ByHand([accepting(contexts=[(1, 3), (3, 0), (255, 0)]), p_data(3, 3, stored())])
    channel = Channel(hand.destination, [PAIR, (US, EXPLICIT)])  # in this order: CT, then US
    with pytest.raises(NotAccepted, match="CT Image Storage"):
        channel.send(PAIR, slice_file)
    with pytest.raises(NotTaken, match="is not of the recorded"):
        channel.send((US, EXPLICIT), slice_file)
    channel.close()
    hand.close()
    assert hand.kinds == [1, 5]


def test_a_peer_that_has_ended_it_between_two_instances(slice_file: Path) -> None:
    """Nothing was lost: it is asked for another association, and no attempt is spent on that."""
    with peer() as one:
        channel = Channel(one.destination, [PAIR])
        assert channel.send(PAIR, slice_file) == 0
        one.end()
        assert channel.send(PAIR, slice_file) == 0
        channel.close()
    assert one.associations == 2


# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def server_context(authority: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.cert_file, authority.key_file)
    return context


def test_tls(store: MemoryStore, study: Manifest, tmp_path: Path, authority: Certificate) -> None:
    with peer(context=server_context(authority)) as one:
        trusting = replace(one.destination, tls=TlsFiles(authority.ca_file))
        assert sent(store, study, trusting, tmp_path).report.complete
        Channel(trusting, []).close()
        for other in (one.destination, replace(one.destination, tls=TlsFiles())):
            done = sent(store, study, other, tmp_path)
            assert done.report.fetched == 0 and len(done.report.failed) == 7
    assert len(one.got) == 7


def test_tls_that_asks_for_our_certificate(
    store: MemoryStore, study: Manifest, tmp_path: Path, authority: Certificate
) -> None:
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    ours_in = tmp_path / "client.pem", tmp_path / "client-key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3",
         "-subj", "/CN=us", "-out", str(ours_in[0]), "-keyout", str(ours_in[1])],
        check=True, capture_output=True,
    )  # fmt: skip
    context.load_verify_locations(ours_in[0])
    with peer(context=context) as one:
        ours = replace(one.destination, tls=TlsFiles(authority.ca_file, *ours_in))
        assert sent(store, study, ours, tmp_path).report.complete
        assert sent(store, study, replace(ours, tls=TlsFiles(authority.ca_file)), tmp_path).report.fetched == 0


def test_tls_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    for files in (TlsFiles(tmp_path / "ca"), TlsFiles(tmp_path / "none"), TlsFiles(None, tmp_path / "ca")):
        with pytest.raises(Misconfigured):
            files.context()


def test_echo() -> None:
    with peer(("1.2.840.10008.1.1", "1.2.840.10008.1.2")) as one:
        Channel(one.destination, []).echo()
    with pytest.raises(Unreachable):
        Channel(one.destination, []).echo()


ECHO = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")


def test_the_doctor_tries_each_destination(
    site: Site, authority: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_certificate(tmp_path / "other")
    with peer(ECHO) as plain, peer(ECHO, context=server_context(authority)) as safe:
        lines = [
            f"{{name: plain, ae_title: PEER, address: '127.0.0.1:{plain.port}'}}",
            f"{{name: safe, ae_title: PEER, address: '127.0.0.1:{safe.port}', tls: {{ca_file: {authority.ca_file}}}}}",
            f"{{name: other-ca, ae_title: PEER, address: '127.0.0.1:{safe.port}', tls: {{ca_file: {other.ca_file}}}}}",
            f"{{name: title, ae_title: OTHER, address: '127.0.0.1:{plain.port}'}}",
            f"{{name: nobody, ae_title: PEER, address: '127.0.0.1:{free_port()}'}}",
        ]
        site.config.write_text(site.config.read_text() + "destinations:\n" + "".join(f"  - {one}\n" for one in lines))
        result = site.ctl("doctor", "--json")
    found = {one["subject"].partition(" ")[2]: one for one in json.loads(result.stdout)["findings"]}
    outcomes = {name: found[name]["outcome"] for name in ("plain", "safe", "other-ca", "title", "nobody")}
    assert outcomes == {"plain": "good", "safe": "note", "other-ca": "note", "title": "note", "nobody": "note"}
    assert "unencrypted" in found["plain"]["detail"] and "29 more days" in found["safe"]["detail"]
    assert "not trusted" in found["other-ca"]["detail"] and "rejects" in found["title"]["detail"]
    assert "reached" in found["nobody"]["detail"]


# --- words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("PACS@10.0.0.1:104", Destination("PACS", "10.0.0.1", 104)),
        ("MY PACS@pacs.example.org:11112", Destination("MY PACS", "pacs.example.org", 11112)),
        ("A@B@host:1", Destination("A@B", "host", 1)),
        ("PACS@[fd12::3]:104", Destination("PACS", "fd12::3", 104)),
        ("PACS@host", None),
        ("PACS@host:0", None),
        ("PACS@host:65536", None),
        ("@host:104", None),
        ("    @host:104", None),
        ("A TITLE THAT IS TOO LONG@host:104", None),
        ("BACK\\SLASH@host:104", None),
        ("PACS@ho st:104", None),
        ("pacs", None),
    ],
)
def test_destinations_in_words(text: str, found: Destination | None) -> None:
    assert parse_destination(text) == found
    if found is not None:
        assert parse_destination(str(found)) == found


def test_names_of_what_is_sent_are_known() -> None:
    assert UID(CT).name == "CT Image Storage"


# --- the command


def add(site: Site, files: dict[str, bytes]) -> None:
    """Its CT slices: archived with the class that the tests' manifests have."""
    headers = {sop: pydicom.dcmread(BytesIO(data)) for sop, data in files.items()}
    site.add([(h.SeriesInstanceUID, sop, files[sop]) for sop, h in headers.items() if h.SOPClassUID == CT])


def test_the_command(site: Site, files: dict[str, bytes]) -> None:
    add(site, files)
    with peer() as one:
        answer = site.json("fetch", STUDY, "--send", str(one.destination))
        said = site.ctl("fetch", STUDY, "--send", str(one.destination))
    assert answer["complete"] and answer["directory"] is None and answer["fetched"] == 5
    assert answer["sent"]["to"] == f"PEER@127.0.0.1:{one.port}" and answer["sent"]["attempts"] == 1
    assert [result["status"] for result in answer["sent"]["results"]] == ["0000"] * 5
    assert said.exit_code == 0 and "has confirmed all 5 files" in said.stdout
    assert set(one.data.values()) <= {data_set(file) for file in files.values()}


def test_what_was_refused_makes_the_answer_no(
    site: Site, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomwatchd.fetch.send.PAUSE_SECONDS", 0)
    add(site, files)
    with peer() as one:
        one.answers = [0xA700] * 15
        answer = site.json("fetch", STUDY, "--send", str(one.destination), code=1)
        assert not answer["complete"] and len(answer["failed"]) == 5
        said = site.ctl("fetch", "--patient", "CANARY-ID", "--all", "--send", str(one.destination))
    assert said.exit_code == 0


def test_a_named_destination(site: Site, files: dict[str, bytes], tmp_path: Path, authority: Certificate) -> None:
    add(site, files)
    with peer(context=server_context(authority)) as one:
        site.config.write_text(
            site.config.read_text()
            + f"""
destinations:
  - {{name: pacs, ae_title: PEER, address: "127.0.0.1:{one.port}", tls: {{ca_file: {authority.ca_file}}}}}
"""
        )
        resume = tmp_path / "sent"
        assert site.json("fetch", STUDY, "--send", "pacs", "--resume", str(resume))["fetched"] == 5
        again = site.json("fetch", STUDY, "--send", "pacs", "--resume", str(resume), "--calling", "US")
        assert (again["fetched"], again["already_there"]) == (0, 5)
    unknown = site.ctl("fetch", STUDY, "--send", "other")
    assert unknown.exit_code == 2 and "it has: pacs" in unknown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--send", "A@b"),
        ("--send", "A@b:104", "-o", "x"),
        ("--send", "A@b:104", "--zip", "x"),
        ("--send", "A@b:104", "--dicomdir"),
        ("--send", "A@b:104", "--calling", "TOO LONG FOR A TITLE"),
        ("--resume", "x"),
        ("--calling", "A"),
    ],
)
def test_wrong_usage(site: Site, arguments: tuple[str, ...]) -> None:
    assert site.ctl("fetch", STUDY, *arguments).exit_code == 2
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"name": "a", "ae_title": "A", "address": "b"}, "destinations[0].address"),
        ({"name": "a", "ae_title": "", "address": "b:1"}, "destinations[0].ae_title"),
        ({"name": "a b", "ae_title": "A", "address": "b:1"}, "destinations[0].name"),
        (
            {"name": "a", "ae_title": "A", "address": "b:1", "tls": {"ca_file": "relative"}},
            "destinations[0].tls.ca_file",
        ),
    ],
)
def test_what_is_wrong_with_a_destination_is_named(given: dict[str, Any], place: str) -> None:
    archive_of = {"store": {"kind": "directory", "path": "/a"}, "catalogue": {"kind": "sqlite", "path": "/b"}}
    with pytest.raises(ConfigError) as caught:
        loading.parse({"archive": archive_of, "destinations": [given]})
    assert [where for where, _ in caught.value.problems] == [place]


def test_a_name_is_one_destinations() -> None:
    archive_of = {"store": {"kind": "directory", "path": "/a"}, "catalogue": {"kind": "sqlite", "path": "/b"}}
    one = {"name": "a", "ae_title": "A", "address": "b:1"}
    with pytest.raises(ConfigError) as caught:
        loading.parse({"archive": archive_of, "destinations": [one, one]})
    assert [where for where, _ in caught.value.problems] == ["destinations[1].name"]
