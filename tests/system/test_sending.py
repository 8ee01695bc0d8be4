"""`fetch --send` to real applications: what was archived is there afterwards, all of it, each data set bit for bit."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import skip_unless_available
from tests.dicom_peer import data_set_of
from tests.servers.orthanc import AE_TITLE, Orthanc
from tests.servers.tls import make_certificate
from tests.synthetic import Made, Maker, Patient
from tests.system.receiving import Receiving
from tests.system.receiving_fixtures import receiving, site
from tests.system.site import CTL, Site
from tests.unit.test_send import storescp

__all__ = ["receiving", "site"]  # fixtures, of the destination


@pytest.fixture(params=["instance", "bundled"])
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Whose archive is sent from, in both layouts."""
    source = Site(tmp_path / "source", log_level="INFO")
    source.config["archive"]["layout"] = {"kind": request.param}
    source.write_config()
    source.init()
    yield source
    source.close()


def archive_all_kinds(source: Site) -> list[Made]:
    """One study of everything: CT slices, a compressed clip, a report with sequences."""
    maker = Maker(seed=61, patient=Patient.marked("CANARY^JANE"))
    made = maker.ct_series(source.inbox / "ct", slices=12, rows=64, columns=64, study=0)
    made += maker.us_multiframe(source.inbox / "us", frames=3, study=0)  # RLE Lossless
    made += maker.structured_report(source.inbox / "sr", study=0)
    contents = [(one, one.path.read_bytes()) for one in made]
    assert source.once() == 0, source.log_tail()
    assert source.left() == []
    for one, content in contents:  # for whoever compares: the inbox is empty by now
        one.path.parent.mkdir(parents=True, exist_ok=True)
        one.path.write_bytes(content)
    return made


def by_uid(made: Sequence[Made]) -> dict[str, bytes]:
    return {one.sop_instance_uid: data_set_of(one.path) for one in made}


def send(source: Site, study: str, to: str, *options: str, code: int = 0) -> dict[str, Any]:
    result = source.ctl("fetch", study, "--send", to, *options, "--json", check=False)
    assert result.returncode == code, (result.stdout, result.stderr)
    answer: dict[str, Any] = json.loads(result.stdout)
    assert answer["complete"] is (code == 0)
    return answer


def test_from_one_archive_to_another(source: Site, site: Site, receiving: Receiving) -> None:
    """By TLS, each side with a certificate of its own, into the inbox of another daemon and its archive."""
    theirs, ours = make_certificate(site.root / "server"), make_certificate(source.root / "us", purpose="clientAuth")
    receiving.configure(
        allow=[{"ae_title": "HOUSE-A"}],
        tls={
            "certificate_file": str(theirs.cert_file),
            "key_file": str(theirs.key_file),
            "client_ca_file": str(ours.ca_file),
        },
    )
    source.config["destinations"] = [
        {
            "name": "house-b",
            "ae_title": "ARCHIVE",
            "address": f"localhost:{receiving.port}",
            "calling_ae_title": "HOUSE-A",
            "tls": {
                "ca_file": str(theirs.ca_file),
                "certificate_file": str(ours.cert_file),
                "key_file": str(ours.key_file),
            },
        }
    ]
    source.write_config()
    made = archive_all_kinds(source)
    receiving.start()
    answer = send(source, made[0].study_uid, "house-b")
    assert [one["status"] for one in answer["sent"]["results"]] == ["0000"] * len(made)
    assert {path.stem: data_set_of(path) for path in receiving.stored()} == by_uid(made)
    site.init()
    site.start()
    site.wait_until_empty()
    site.wait_for(lambda: bool(site.events("study-archived")), 60, "the study to be archived there")
    assert site.stop() == 0
    site.ctl("fetch", made[0].study_uid, "-o", str(site.root / "out"))
    fetched = {path.stem: data_set_of(path) for path in (site.root / "out").rglob("*.dcm")}
    assert fetched == by_uid(made)
    assert "CANARY" not in site.log_file.read_text() + source.log_file.read_text()


def test_a_destination_that_is_killed_meanwhile(source: Site, site: Site, receiving: Receiving) -> None:
    """The rest is sent when it is back, and nothing twice but what was never confirmed."""
    made = Maker(seed=62).ct_series(source.inbox, slices=400, rows=256, columns=256, study=0)
    wanted = by_uid(made)
    assert source.once() == 0, source.log_tail()
    receiving.start()
    to, resume = f"ARCHIVE@127.0.0.1:{receiving.port}", source.root / "sent"
    sending = subprocess.Popen(
        [CTL, "--config", str(source.config_file), "fetch", made[0].study_uid, "--send", to, "--resume", str(resume)],
        env=source.environment,
        stdout=subprocess.PIPE,
    )
    site.wait_for(lambda: len(receiving.stored()) >= 20, 60, "the first objects")
    receiving.stop(signal.SIGKILL)
    there, confirmed = len(receiving.stored()), len(resume.read_text().splitlines()) - 1
    assert confirmed <= there < len(made), "it was killed in the midst of it"
    receiving.start()
    said, _ = sending.communicate(timeout=120)
    assert sending.returncode == 0, said
    stored = receiving.stored()
    assert {path.stem: data_set_of(path) for path in stored if path.stem in wanted} == wanted
    again = [path for path in stored if path.stem not in wanted]
    assert len(again) <= there - confirmed, "what was there and was not confirmed, and nothing else"
    assert len(resume.read_text().splitlines()) - 1 == len(made)
    before = time.monotonic()
    answer = send(source, made[0].study_uid, to, "--resume", str(resume))
    assert (answer["fetched"], answer["already_there"]) == (0, len(made)) and time.monotonic() - before < 60
    assert receiving.stored() == stored


def test_storescp_of_dcmtk(source: Site, tmp_path: Path) -> None:
    made = archive_all_kinds(source)
    with storescp(tmp_path / "received") as (_, destination):
        send(source, made[0].study_uid, str(destination))
    received = sorted(data_set_of(path) for path in (tmp_path / "received").iterdir())
    assert received == sorted(by_uid(made).values())


def test_orthanc_says_that_it_holds_them(source: Site) -> None:
    skip_unless_available("orthanc")
    made = archive_all_kinds(source)
    with Orthanc(source.root / "orthanc", {"us": ("DICOMWATCHD", 104)}, dicom=True) as orthanc:
        send(source, made[0].study_uid, f"{AE_TITLE}@127.0.0.1:{orthanc.dicom_port}")
        [study] = [orthanc.get(f"/studies/{one}") for one in orthanc.get("/studies")]
        assert study["MainDicomTags"]["StudyInstanceUID"] == made[0].study_uid
        held: dict[str, bytes] = {}
        for one in orthanc.get(f"/studies/{study['ID']}/instances"):
            attachment = f"/instances/{one['ID']}/attachments/dicom"
            content = orthanc.get_bytes(f"{attachment}/data")
            assert orthanc.get_bytes(f"{attachment}/md5").decode() == hashlib.md5(content).hexdigest()
            assert int(orthanc.get_bytes(f"{attachment}/size")) == len(content)
            held[one["MainDicomTags"]["SOPInstanceUID"]] = data_set_of(content)
        assert orthanc.get("/statistics")["CountInstances"] == len(made)
    assert held == by_uid(made)
