"""The receiver's parts by themselves: bytes to fragments, command sets, what is negotiated, and what an inbox gets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd import markers
from dicomwatchd.errors import Misconfigured
from dicomwatchd.model import Uid
from dicomwatchd.ports import SystemClock
from dicomwatchd.receiver import association, dimse, part10
from dicomwatchd.receiver.association import AssociationRequest, BadRequest
from dicomwatchd.receiver.folder import InboxFolder, Incoming, Limits, NoRoom, Unwritable
from dicomwatchd.receiver.upper_layer import ConnectionOver, UpperLayer
from tests.dicom_peer import VERIFICATION, associate_rq, c_store_rq, item, p_data
from tests.synthetic import CT_IMAGE, EXPLICIT_LITTLE_ENDIAN

PLENTY = Limits(free_share=0.0, object_bytes=1 << 30)


@pytest.mark.parametrize(
    ("program", "strangers"),
    [
        ("dicomwatchd.daemon.process, dicomwatchd.cli.app, dicomwatchd.api", {"pynetdicom"}),
        ("dicomwatchd.receiver.process", {"boto3", "botocore", "sqlite3", "watchdog"}),
    ],
)
def test_what_parses_the_network_and_what_deletes_are_not_in_one_process(program: str, strangers: set[str]) -> None:
    code = f"import sys, {program}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "dicomwatchd.config.loading" in loaded and not strangers & set(loaded)


# --- off the wire


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, UpperLayer]]:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield theirs, UpperLayer(ours, SystemClock(), pdu_bytes=16384, idle_seconds=0.3, stopping=lambda: False)


def test_fragments_however_they_are_cut(ends: tuple[socket.socket, UpperLayer]) -> None:
    theirs, wire = ends
    two = struct.pack(">LBB", 5, 1, 0) + b"abc" + struct.pack(">LBB", 4, 1, 2) + b"de"
    sent = p_data(1, 3, b"command") + struct.pack(">BBL", 4, 0, len(two)) + two + p_data(3, 2, b"")
    for at in range(0, len(sent), 7):
        theirs.sendall(sent[at : at + 7])
    theirs.sendall(bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
    found: list[tuple[int, bool, bytes, bool]] = []
    while (fragment := wire.next_fragment(between_messages=True)) is not None:
        found.append((fragment.context_id, fragment.is_command, bytes(fragment.data), fragment.last))
    assert found == [
        (1, True, b"command", True),
        (1, False, b"abc", False),
        (1, False, b"de", True),
        (3, False, b"", True),
    ]


def test_a_long_value_comes_in_pieces() -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        wire = UpperLayer(ours, SystemClock(), pdu_bytes=1 << 20, idle_seconds=5, stopping=lambda: False)
        data = os.urandom(200_000)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(p_data(1, 2, data))
        gathered, last = b"", False
        while not last:
            fragment = wire.next_fragment(between_messages=False)
            assert fragment is not None
            gathered, last = gathered + bytes(fragment.data), fragment.last
        assert gathered == data


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "idle"),
        (b"\4\0", "idle"),
        (p_data(1, 0, b"x" * 100)[:50], "idle"),
        (struct.pack(">BBL", 4, 0, 16384 + 4097), "pdu-too-long"),
        (struct.pack(">BBL", 4, 0, 0), "protocol"),
        (struct.pack(">BBLLBB", 4, 0, 6, 1, 1, 3), "protocol"),
        (struct.pack(">BBLLBB", 4, 0, 6, 3, 1, 3), "protocol"),
        (struct.pack(">BBL", 4, 0, 5), "protocol"),
        (struct.pack(">BBL", 9, 0, 4), "protocol"),
        (struct.pack(">BBL", 7, 0, 4) + b"\0" * 4, "aborted-by-peer"),
        (struct.pack(">BBL", 5, 0, 4) + b"\0" * 4, "released-too-early"),
    ],
)
def test_what_ends_a_connection(sent: bytes, reason: str, ends: tuple[socket.socket, UpperLayer]) -> None:
    theirs, wire = ends
    theirs.sendall(sent)
    with pytest.raises(ConnectionOver, match=f"^{reason}$"):
        to_the_end(wire)


def to_the_end(wire: UpperLayer) -> None:
    while fragment := wire.next_fragment(between_messages=False):
        assert not fragment.last


# --- command sets


def test_a_command_set_there_and_back() -> None:
    request = dimse.parsed(c_store_rq(CT_IMAGE, b"1.2.3", 513))
    assert (request.field, request.message_id, request.has_data_set) == (dimse.C_STORE_RQ, 513, True)
    assert (request.sop_class, request.sop_instance) == (CT_IMAGE.encode(), b"1.2.3")
    answer = pydicom.dcmread(
        pydicom.filebase.DicomBytesIO(dimse.response(request, 0xA700, "the disk is short")), force=True
    )
    assert answer.Status == 0xA700 and answer.ErrorComment == "the disk is short"
    assert (answer.CommandField, answer.MessageIDBeingRespondedTo) == (0x8001, 513)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (CT_IMAGE, "1.2.3")
    assert answer.CommandDataSetType == 0x0101


@given(st.binary(max_size=200))
def test_bytes_that_are_no_command_set(found: bytes) -> None:
    with contextlib.suppress(dimse.BadCommand):
        dimse.parsed(found)


# --- what is agreed on


@given(st.binary(max_size=400))
def test_bytes_that_are_no_request(found: bytes) -> None:
    with contextlib.suppress(BadRequest):
        AssociationRequest(struct.pack(">BBL", 1, 0, len(found)) + found).accepted(16384)


@given(st.data())
def test_a_request_with_bytes_changed(data: st.DataObject) -> None:
    request = bytearray(associate_rq([(CT_IMAGE, [EXPLICIT_LITTLE_ENDIAN]), (VERIFICATION, ["1.2.840.10008.1.2"])]))
    for _ in range(data.draw(st.integers(1, 4))):
        request[data.draw(st.integers(0, len(request) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadRequest):
        AssociationRequest(bytes(request)).accepted(16384)


def test_what_is_storage() -> None:
    storage = (CT_IMAGE, "1.2.840.10008.5.1.4.38.1", "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.9999", "2.25.7")
    assert all(map(association.is_storage, storage))
    others = (
        VERIFICATION,
        "1.2.840.10008.1.20.1",  # Storage Commitment
        "1.2.840.10008.1.3.10",  # the directory of a medium
        "1.2.840.10008.5.1.4.31",  # Modality Worklist
        "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root, FIND
        "1.2.840.10008.3.1.2.3.3",  # MPPS
        "1.2.840.10008.1.2.1",  # a transfer syntax
    )
    assert not any(map(association.is_storage, others))


def test_roles() -> None:
    """Who proposes to be sent to as well is told no; who proposes only that has nothing here."""

    def role(sop_class: str, as_scu: int, as_scp: int) -> bytes:
        return item(0x54, struct.pack(">H", len(sop_class)) + sop_class.encode() + bytes((as_scu, as_scp)))

    mr = "1.2.840.10008.5.1.4.1.1.4"
    request = associate_rq(
        [(CT_IMAGE, [EXPLICIT_LITTLE_ENDIAN]), (mr, [EXPLICIT_LITTLE_ENDIAN])],
        more=role(CT_IMAGE, 1, 1) + role(mr, 0, 1),
    )
    answer, contexts = AssociationRequest(request).accepted(16384)
    assert set(contexts) == {1}
    assert role(CT_IMAGE, 1, 0) in answer and mr.encode() not in answer


def test_titles_padded_with_nul() -> None:
    request = associate_rq([(CT_IMAGE, [EXPLICIT_LITTLE_ENDIAN])])
    found = AssociationRequest(request.replace(b"ARCHIVE         CT1             ", b"ARCHIVE".ljust(16, b"\0") * 2))
    assert (found.called, found.calling) == ("ARCHIVE", "ARCHIVE")


@pytest.mark.parametrize(
    ("title", "shown"),
    [("CT1", "CT1"), ("CT 1_a.b-c", "CT 1_a.b-c"), ("", None), ("DOE^JANE", None), ("A" * 17, None), ("CT1\n", None)],
)
def test_titles_in_the_log(title: str, shown: str | None) -> None:
    assert association.shown(title) == shown


# --- into an inbox


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[InboxFolder]:
    folder = InboxFolder(tmp_path, PLENTY)
    yield folder
    folder.close()


def kept(inbox: InboxFolder, uid: str, data: bytes) -> None:
    with Incoming(inbox) as incoming:
        incoming.write(data)
        incoming.keep(Uid(uid))


def test_a_file_has_a_name_when_it_is_whole(inbox: InboxFolder) -> None:
    with Incoming(inbox) as incoming:
        incoming.write(b"x" * 1_000_000)
        assert os.listdir(inbox.path) == []
        incoming.write(b"end")
        incoming.keep(Uid("1.2.3"))
    assert (inbox.path / "1.2.3.dcm").read_bytes() == b"x" * 1_000_000 + b"end"
    assert (inbox.path / "1.2.3.dcm").stat().st_mode & 0o007 == 0
    with Incoming(inbox) as incoming:
        incoming.write(b"never finished")
    assert os.listdir(inbox.path) == ["1.2.3.dcm"]


def test_no_name_is_ever_taken_from_another(inbox: InboxFolder, tmp_path: Path) -> None:
    (tmp_path / "1.2.4.dcm").symlink_to("/etc/passwd")
    for uid in ("1.2.3", "1.2.3", "1.2.4"):
        kept(inbox, uid, b"new")
    assert (tmp_path / "1.2.4.dcm").is_symlink()
    assert len(list(tmp_path.glob("1.2.3*.dcm"))) == 2 and len(list(tmp_path.glob("1.2.4*.dcm"))) == 2


def test_descriptors_are_closed(inbox: InboxFolder) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        kept(inbox, f"1.2.{number}", b"x")
        with pytest.raises(KeyError), Incoming(inbox):
            raise KeyError
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("call", ["fsync", "link", "write", "open"])
@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, NoRoom), (errno.EDQUOT, NoRoom), (errno.EIO, Unwritable)])
def test_a_call_that_fails_is_no_success(
    call: str, number: int, kind: type[Exception], inbox: InboxFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind):
        kept(inbox, "1.2.3", b"x" * 300_000)


def test_the_folder_is_synced_after_the_name(inbox: InboxFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second sync is the folder's; where it fails nobody hears Success, though the file is there."""
    real, calls = os.fsync, list[int]()

    def fsync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:
            assert os.listdir(inbox.path) == ["1.2.3.dcm"]
            raise OSError(errno.EIO, "no")
        assert os.listdir(inbox.path) == []
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Unwritable):
        kept(inbox, "1.2.3", b"x")
    assert calls[1] == inbox.fd


def test_writes_that_are_short(inbox: InboxFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:70_000]))
    data = os.urandom(600_000)
    kept(inbox, "1.2.3", data)
    assert (inbox.path / "1.2.3.dcm").read_bytes() == data


def test_too_long(tmp_path: Path) -> None:
    folder = InboxFolder(tmp_path, Limits(0.0, 1000))
    with pytest.raises(NoRoom):
        kept(folder, "1.2.3", b"x" * 1001)
    kept(folder, "1.2.3", b"x" * 1000)
    folder.close()


def test_a_folder_that_was_exchanged(tmp_path: Path) -> None:
    place = tmp_path / "inbox"
    place.mkdir()
    folder = InboxFolder(place, PLENTY)
    with Incoming(folder) as incoming:
        incoming.write(b"x")
        place.rename(tmp_path / "old")
        place.mkdir()
        with pytest.raises(Unwritable) as found:
            incoming.keep(Uid("1.2.3"))
    assert found.value.reason == "inbox-replaced"
    with pytest.raises(Unwritable):
        Incoming(folder)
    place.rmdir()
    with pytest.raises(Unwritable) as found:
        Incoming(folder)
    assert found.value.reason == "inbox-gone"
    folder.close()


@pytest.mark.parametrize("mark", [markers.ARCHIVE, markers.STATE])
def test_an_archive_is_no_inbox(mark: bytes, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(mark)).write_bytes(b"")
    (tmp_path / "below").mkdir()
    for place in (tmp_path, tmp_path / "below"):
        with pytest.raises(Misconfigured):
            InboxFolder(place, PLENTY)


def test_a_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured):
        InboxFolder(tmp_path / "none", PLENTY)

    def no_unnamed(*_: object, **__: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "no")

    with monkeypatch.context() as patched:
        patched.setattr("dicomwatchd.localfiles.open_root", lambda path: os.dup(0))
        patched.setattr(os, "open", no_unnamed)
        with pytest.raises(Misconfigured):
            InboxFolder(tmp_path, PLENTY)


# --- files


@pytest.mark.parametrize("title", ["", "CT1", "CT12"])
def test_what_stands_before_a_data_set(title: str, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    data_set = b"\x10\0\x10\0PN\4\0DOE "
    path.write_bytes(part10.beginning(Uid(CT_IMAGE), Uid("1.2.3"), Uid(EXPLICIT_LITTLE_ENDIAN), title) + data_set)
    found = pydicom.dcmread(path)
    meta = found.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT_IMAGE, "1.2.3")
    assert meta.TransferSyntaxUID == EXPLICIT_LITTLE_ENDIAN and meta.FileMetaInformationVersion == b"\0\1"
    assert meta.get("SourceApplicationEntityTitle", "") == title
    version = str(meta.ImplementationVersionName)
    assert version.startswith("DICOMWATCHD") and len(version) <= 16
    assert Uid(str(meta.ImplementationClassUID))
    assert found.PatientName == "DOE"
    assert path.read_bytes().endswith(data_set)
