"""The receiver, with DCMTK's programs as its peers: from C-STORE to the archive, and nothing lost on the way."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.dcmtk import dcmtk
from tests.dicom_peer import Gone, Modality, c_store_rq, data_set_of, p_data
from tests.servers.tls import make_certificate
from tests.synthetic import CT_IMAGE, EXPLICIT_LITTLE_ENDIAN, Maker, Patient
from tests.system.receiving import Receiving
from tests.system.receiving_fixtures import receiving, site
from tests.system.site import Site

__all__ = ["receiving", "site"]  # fixtures

PRIVATE_CLASS, PRIVATE_SYNTAX = "1.3.12.2.1107.5.9.1", "1.2.840.113619.5.2"


def data_sets(paths: list[Path]) -> list[bytes]:
    return sorted(data_set_of(path) for path in paths)


def test_from_a_modality_to_the_archive(site: Site, receiving: Receiving) -> None:
    site.init()
    maker = Maker(seed=3, patient=Patient.marked("CANARY^JANE"))
    made = maker.ct_series(site.root / "scanner", slices=5, rows=32, columns=32)
    made += maker.us_multiframe(site.root / "us", frames=3)  # RLE Lossless
    receiving.start()
    site.start()
    assert receiving.peer("echoscu").returncode == 0
    assert receiving.peer("storescu", "+sd", files=[site.root / "scanner"]).returncode == 0
    assert receiving.peer("dcmsend", files=[made[-1].path]).returncode == 0
    site.wait_for(lambda: len(site.events("study-archived")) == 2, 60, "both studies to be archived")
    site.wait_until_empty()
    [inbox] = [one for one in site.ctl_json("status")["inboxes"] if one["kind"] == "inbox"]
    listen = f"127.0.0.1:{receiving.port}"
    assert inbox["receivers"] == [{"name": "ct", "ae_title": "ARCHIVE", "listen": listen, "listening": True}]
    assert "ct (ARCHIVE)" in site.ctl("status").stdout
    assert receiving.stop() == 0
    said = site.ctl_json("status", "--check", check=False)
    [inbox] = [one for one in said["inboxes"] if one["kind"] == "inbox"]
    assert inbox["receivers"][0]["listening"] is False
    assert [problem for problem in said["problems"] if problem.startswith(f"receiver ct: nobody listens at {listen}")]
    assert site.stop() == 0
    for event in site.events("study-archived"):
        assert (event["inbox"], event["receiver"]) == (site.inbox.name, "ct")
    assert [day["receivers"] for day in site.ctl_json("stats")["days"]] == [["ct"]]  # by the state alone
    for study, count in ((made[0].study_uid, 5), (made[-1].study_uid, 1)):
        site.ctl("fetch", study, "-o", str(site.root / "out" / study))
        fetched = list((site.root / "out" / study).rglob("*.dcm"))
        assert data_sets(fetched) == data_sets([one.path for one in made if one.study_uid == study])
        assert len(fetched) == count
    ends = [event for event in site.events("association-ended") if event["files"]]
    assert [(end["receiver"], end["calling_ae_title"], end["files"], end["reason"]) for end in ends] == [
        ("ct", "STORESCU", 5, "released"),
        ("ct", "DCMSEND", 1, "released"),
    ]
    assert "CANARY" not in site.log_file.read_text() and str(site.inbox) not in site.log_file.read_text()


def test_every_class_and_every_syntax(site: Site, receiving: Receiving) -> None:
    """What is private, unknown or compressed is taken as it comes, in the syntax that the peer has put first."""
    receiving.start()
    contexts = [
        (CT_IMAGE, ["1.2.840.10008.1.2.4.90", EXPLICIT_LITTLE_ENDIAN]),
        (CT_IMAGE, ["1.2.840.10008.1.2"]),
        (PRIVATE_CLASS, [PRIVATE_SYNTAX]),
        ("1.2.840.10008.5.1.4.1.1.999.7", ["1.2.840.10008.1.2.2"]),
        ("1.2.840.10008.5.1.4.31", ["1.2.840.10008.1.2"]),  # Modality Worklist: no storage
    ]
    with Modality(receiving.port, contexts) as modality:
        assert modality.accepted == {
            1: "1.2.840.10008.1.2.4.90",
            3: "1.2.840.10008.1.2",
            5: PRIVATE_SYNTAX,
            7: "1.2.840.10008.1.2.2",
        }
        for context_id in modality.accepted:
            sop_class = contexts[context_id // 2][0]
            body = b"not looked into " * context_id * 1000
            assert modality.send(f"1.2.3.{context_id}", body, context_id=context_id, sop_class=sop_class) == 0
            stored = site.inbox / f"1.2.3.{context_id}.dcm"
            assert data_set_of(stored) == body
            head = stored.read_bytes()[:400]
            assert modality.accepted[context_id].encode() in head and sop_class.encode() in head and b"CT1" in head
        modality.release()


#: In pydicom's package, with the transfer syntax each is in.
COMPRESSED = {
    "JPEG2000.dcm": "1.2.840.10008.1.2.4.91",
    "JPEG-LL.dcm": "1.2.840.10008.1.2.4.70",
    "MR_small_RLE.dcm": "1.2.840.10008.1.2.5",
    "MR_small_jpeg_ls_lossless.dcm": "1.2.840.10008.1.2.4.80",
    "image_dfl.dcm": "1.2.840.10008.1.2.1.99",
}


def test_compressed_files_stay_as_they_are(site: Site, receiving: Receiving) -> None:
    receiving.start()
    files = {name: get_testdata_file(name, download=False) for name in COMPRESSED}
    given = {name: pydicom.dcmread(path) for name, path in files.items() if path}
    assert len(given) >= 4
    done = receiving.peer("dcmsend", "--no-halt", files=[Path(str(files[name])) for name in given])
    assert done.returncode == 0, done.stderr
    found = {
        (str(one.file_meta.TransferSyntaxUID), str(one.SOPInstanceUID)): one
        for one in map(pydicom.dcmread, receiving.stored())
    }
    for name, data in given.items():
        stored = found[COMPRESSED[name], str(data.SOPInstanceUID)]
        assert stored.PixelData == data.PixelData, name


def test_objects_without_waiting_for_answers(receiving: Receiving) -> None:
    """A peer may not do so, and loses nothing if it does."""
    receiving.start()
    with Modality(receiving.port) as modality:
        for number in range(1, 6):
            modality.socket.sendall(p_data(1, 3, c_store_rq(CT_IMAGE, f"1.2.{number}".encode(), number)))
            modality.socket.sendall(p_data(1, 2, b"image%d" % number * 10_000))
        answers = [modality.answer() for _ in range(5)]
        modality.release()
    assert [(answer[0x0120][0], answer[0x0900]) for answer in answers] == [(n, b"\0\0") for n in range(1, 6)]
    assert data_sets(receiving.stored()) == [b"image%d" % number * 10_000 for number in range(1, 6)]


def test_all_addresses_of_the_machine(receiving: Receiving) -> None:
    """A peer's IPv4 address is the same one at a port of both kinds."""
    receiving.configure(listen=f"[::]:{receiving.port}", allow=[{"address": "127.0.0.1"}])
    receiving.start()
    Modality(receiving.port).release()
    with socket.create_connection(("::1", receiving.port)) as other, suppress(ConnectionError):
        assert other.recv(1) == b""


def test_one_instance_with_other_bytes(site: Site, receiving: Receiving) -> None:
    receiving.start()
    with Modality(receiving.port) as modality:
        for body in (b"first ", b"other ", b"other "):
            assert modality.send("1.2.3", body) == 0
    stored = [data_set_of(path) for path in receiving.stored()]
    assert data_set_of(site.inbox / "1.2.3.dcm") == b"first "
    assert sorted(stored) == [b"first ", b"other ", b"other "]


def test_fifty_associations_at_once(site: Site, receiving: Receiving) -> None:
    made = [Maker(seed=seed).mr_study(site.root / f"mr{seed}", series=1, slices=4, rows=16) for seed in range(50)]
    receiving.start()
    command = [dcmtk("storescu"), "-aec", "ARCHIVE", "+sd", "127.0.0.1", str(receiving.port)]
    running = [subprocess.Popen([*command, str(site.root / f"mr{seed}")]) for seed in range(50)]
    assert [one.wait(120) for one in running] == [0] * 50
    assert data_sets(receiving.stored()) == data_sets([one.path for study in made for one in study])


def takes_one_more(receiving: Receiving) -> bool:
    try:
        Modality(receiving.port).release()
    except Gone:
        return False
    return True


def test_too_many_associations(site: Site, receiving: Receiving) -> None:
    receiving.configure(max_associations=2)
    receiving.start()
    with Modality(receiving.port), Modality(receiving.port) as second:
        with pytest.raises(Gone) as refused:
            Modality(receiving.port)
        assert refused.value.pdu == bytes((3, 0, 2, 3, 2)), "for the time being, by the provider, local limit"
        second.release()
        site.wait_for(lambda: takes_one_more(receiving), 60, "the place to be free")


def is_storing(receiving: Receiving) -> bool:
    """Whether it has a file in the inbox open, which has no name yet."""
    assert receiving.process is not None
    for descriptor in Path(f"/proc/{receiving.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            file = descriptor.readlink()
            if file.parent == receiving.site.inbox and file.name.startswith("#"):
                return True
    return False


def test_a_peer_killed_in_the_middle(site: Site, receiving: Receiving) -> None:
    """What was not sent to its end has never been there, for nobody."""
    made = Maker(seed=4).ct_series(site.root / "scanner", slices=1, rows=3000, columns=3000)
    receiving.start()
    sending = subprocess.Popen(
        [
            dcmtk("storescu"),
            "-aec",
            "ARCHIVE",
            "--max-send-pdu",
            "4096",
            "127.0.0.1",
            str(receiving.port),
            str(made[0].path),
        ]
    )
    time.sleep(0.03)
    sending.kill()
    sending.wait()
    with Modality(receiving.port) as modality:
        modality.socket.sendall(p_data(1, 3, c_store_rq(CT_IMAGE, b"1.2.3")) + p_data(1, 0, b"x" * 16000))
    site.wait_for(lambda: len(site.events("association-ended")) >= 1, 60, "the end of the association")
    site.wait_for(lambda: not is_storing(receiving), 60, "both to be given up")
    assert [data_set_of(path) for path in receiving.stored()] in ([], [data_set_of(made[0].path)])
    assert not [path for path in site.inbox.iterdir() if path.suffix != ".dcm"]
    assert receiving.peer("storescu", files=[made[0].path]).returncode == 0


def test_who_may_send(site: Site, receiving: Receiving) -> None:
    receiving.configure(
        allow=[{"ae_title": "CT1", "address": "127.0.0.0/8"}, {"ae_title": "MR1", "address": "10.0.0.1"}]
    )
    receiving.start()
    for called, calling, reason in (("OTHER", "CT1", 7), ("ARCHIVE", "CT2", 3), ("ARCHIVE", "MR1", 3)):
        with pytest.raises(Gone) as refused:
            Modality(receiving.port, called=called, calling=calling)
        assert refused.value.pdu == bytes((3, 0, 1, 1, reason))
    Modality(receiving.port).release()
    receiving.configure(allow=[{"address": "10.0.0.0/8"}])
    assert receiving.process is not None
    receiving.process.send_signal(signal.SIGHUP)
    site.wait_for(lambda: bool(site.events("receiver-reloaded")), 60, "the reload")
    with pytest.raises((Gone, ConnectionError)):
        Modality(receiving.port)
    assert [event["reason"] for event in site.events("association-refused")] == [
        "called-ae-title",
        "calling-ae-title",
        "calling-ae-title",
        "address",
    ]


def test_tls(site: Site, receiving: Receiving, tmp_path: Path) -> None:
    made = Maker(seed=5).ct_series(site.root / "scanner", slices=2, rows=16, columns=16)
    ours = make_certificate(tmp_path / "server")
    theirs, strangers = (make_certificate(tmp_path / name, purpose="clientAuth") for name in ("client", "stranger"))
    receiving.configure(
        tls={
            "certificate_file": str(ours.cert_file),
            "key_file": str(ours.key_file),
            "client_ca_file": str(theirs.ca_file),
        }
    )
    receiving.start()
    for client, expected in ((theirs, True), (strangers, False)):
        done = receiving.peer(
            "storescu", "+tls", str(client.key_file), str(client.cert_file), "+cf", str(ours.ca_file),
            files=[one.path for one in made],
        )  # fmt: skip
        assert (done.returncode == 0) == expected, done.stderr
    assert receiving.peer("echoscu").returncode != 0, "plain"
    anonymous = ssl.create_default_context(cafile=str(ours.ca_file))
    with pytest.raises((Gone, OSError)):
        Modality(receiving.port, tls=anonymous)
    old = ssl.create_default_context(cafile=str(ours.ca_file))
    old.load_cert_chain(theirs.cert_file, theirs.key_file)
    old.set_ciphers("AES128-SHA:ECDHE+AES:@SECLEVEL=0")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    Modality(receiving.port, tls=old).release()  # it has ECDHE with GCM among others
    old.set_ciphers("AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    with pytest.raises((Gone, OSError)):
        Modality(receiving.port, tls=old)
    assert data_sets(receiving.stored()) == data_sets([one.path for one in made])


def test_a_reload_that_cannot_be(site: Site, receiving: Receiving, tmp_path: Path) -> None:
    """Neither a broken certificate nor a port that is taken ends what works; associations go on over a reload."""
    receiving.start()
    assert receiving.process is not None
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with socket.create_server(("127.0.0.1", 0)) as taken, Modality(receiving.port) as before:
        changes: list[dict[str, Any]] = [
            {"tls": {"certificate_file": str(broken), "key_file": str(broken)}},
            {"tls": None, "inbox": "none"},
            {"inbox": site.inbox.name, "listen": f"127.0.0.1:{taken.getsockname()[1]}"},
        ]
        for number, change in enumerate(changes):
            receiving.configure(**change)
            receiving.process.send_signal(signal.SIGHUP)
            site.wait_for(lambda n=number: len(site.events("receiver-reload-refused")) > n, 60, "the reload")  # type: ignore[misc]
            Modality(receiving.port).release()
        receiving.configure(listen=f"127.0.0.1:{receiving.port}")
        receiving.process.send_signal(signal.SIGHUP)
        site.wait_for(lambda: bool(site.events("receiver-reloaded")), 60, "the reload")
        assert before.send("1.2.3", b"an image") == 0
        before.release()
    codes = [event["code"] for event in site.events("receiver-reload-refused")]
    assert codes == ["receiver-tls", "config", "receiver-listen"]
    assert receiving.stop() == 0


def test_no_room(site: Site, receiving: Receiving) -> None:
    """Refused before the disk is full, with the status that has a modality try again; and taken when there is room."""
    receiving.configure(disk_free_min="100%")
    receiving.start()
    with Modality(receiving.port) as modality:
        assert modality.send("1.2.3", b"x" * 100_000) == 0xA700
        assert modality.send("1.2.4", b"x" * 100_000) == 0xA700, "the association goes on"
        modality.release()
    assert list(site.inbox.iterdir()) == []
    site.wait_for(lambda: bool(site.events("association-ended")), 60, "the end of the association")
    [end] = site.events("association-ended")
    assert (end["level"], end["code"], end["refused_files"]) == ("WARNING", "disk-short", 2)
    receiving.configure(disk_free_min="0%")
    assert receiving.process is not None
    receiving.process.send_signal(signal.SIGHUP)
    site.wait_for(lambda: bool(site.events("receiver-reloaded")), 60, "the reload")
    with Modality(receiving.port) as modality:
        assert modality.send("1.2.3", b"x" * 100_000) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "inbox1"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_fills_up(small_disk: Path, tmp_path: Path) -> None:
    """Also where nothing is to be left free: what does not fit is answered so, and nothing of it stays."""
    site = Site(tmp_path)
    receiving = Receiving(site, disk_free_min="0%")
    try:
        receiving.start()
        with Modality(receiving.port) as modality:
            assert modality.send("1.2.3", b"x" * 5_000_000) == 0xA700
            assert modality.send("1.2.4", b"x" * 2_000_000) == 0
            assert modality.send("1.2.5", b"x" * 5_000_000) == 0xA700
            assert modality.send("1.2.6", b"x" * 1_000_000) == 0
        assert [path.name for path in receiving.stored()] == ["1.2.4.dcm", "1.2.6.dcm"]
        # The folder that the receiver knows goes from under its path: what it would write nobody would find.
        subprocess.run(["umount", "-l", small_disk], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small_disk], check=True)
        with Modality(receiving.port) as modality:
            assert modality.send("1.2.7", b"x" * 1000) == 0xA700
        site.wait_for(lambda: len(site.events("association-ended")) == 2, 60, "the end")
        assert site.events("association-ended")[-1]["code"] == "inbox-replaced"
    finally:
        receiving.close()
        site.close()


def test_stopped_between_objects(site: Site, receiving: Receiving) -> None:
    """An object that is under way is stored and answered; then the association ends."""
    receiving.start()
    assert receiving.process is not None
    with Modality(receiving.port) as busy, Modality(receiving.port) as idle:
        busy.socket.sendall(p_data(1, 3, c_store_rq(CT_IMAGE, b"1.2.3")) + p_data(1, 0, b"x" * 1000))
        site.wait_for(lambda: is_storing(receiving), 60, "the object to be under way")
        receiving.process.send_signal(signal.SIGTERM)
        assert idle.pdu()[0] == 7
        busy.socket.sendall(p_data(1, 2, b"y" * 1000))
        assert busy.answer()[0x0900] == b"\0\0"
        assert busy.pdu()[0] == 7
    assert receiving.process.wait(20) == 0
    assert [data_set_of(path) for path in receiving.stored()] == [b"x" * 1000 + b"y" * 1000]
