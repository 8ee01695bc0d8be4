"""Orthanc as the modality that asks for storage commitment and is told: an implementation of Annex J by others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import skip_unless_available
from tests.servers.orthanc import AE_TITLE, Orthanc
from tests.synthetic import CT_IMAGE, Maker, Patient
from tests.system.receiving import Receiving
from tests.system.site import Site

_NO_SUCH_INSTANCE = 0x0112


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    skip_unless_available("orthanc")
    site = Site(tmp_path, inbox={"settle_seconds": 0})
    yield site
    site.close()


@pytest.fixture
def receiving(site: Site) -> Iterator[Receiving]:
    receiving = Receiving(site)
    yield receiving
    receiving.close()


def told(orthanc: Orthanc, transaction: str) -> Any:
    """What Orthanc has been told of this transaction."""
    end = time.monotonic() + 60
    while (found := orthanc.get(f"/storage-commitment/{transaction}"))["Status"] == "Pending":
        assert time.monotonic() < end, "nothing is reported"
        time.sleep(0.2)
    return found


def test_orthanc_is_told_what_the_archive_holds(site: Site, receiving: Receiving) -> None:
    site.init()
    made = Maker(seed=31, patient=Patient.marked("CANARY^JANE")).ct_series(site.root / "ct", slices=4, rows=32)
    folder = site.root / "commitments"
    folder.mkdir()
    modalities = {"archive": ("ARCHIVE", receiving.port)}
    with Orthanc(site.root / "orthanc", modalities, dicom=True) as orthanc:
        address = f"127.0.0.1:{orthanc.dicom_port}"
        site.config["destinations"] = [{"name": "orthanc", "ae_title": AE_TITLE, "address": address}]
        receiving.configure(commitment={"folder": str(folder), "report_to": ["orthanc"], "wait_seconds": 600})
        receiving.start()
        for one in made:
            orthanc.post("/instances", one.path.read_bytes())
        [study] = orthanc.get("/studies")
        assert orthanc.post("/modalities/archive/store", study)["FailedInstancesCount"] == 0
        wanted = {(CT_IMAGE, one.sop_instance_uid) for one in made}

        # Nobody archives yet: nothing is said.
        asked = orthanc.post("/modalities/archive/storage-commitment", json.dumps({"Resources": [study]}))["ID"]
        time.sleep(3)
        assert orthanc.get(f"/storage-commitment/{asked}")["Status"] == "Pending"
        site.start()
        found = told(orthanc, asked)
        assert (found["Status"], found["RemoteAET"], found["Failures"]) == ("Success", "ARCHIVE", [])
        assert {(one["SOPClassUID"], one["SOPInstanceUID"]) for one in found["Success"]} == wanted

        # One that never came, among those that did.
        instances = [{"SOPClassUID": a, "SOPInstanceUID": b} for a, b in [*wanted, (CT_IMAGE, "1.2.3.4")]]
        body = json.dumps({"DicomInstances": instances})
        found = told(orthanc, orthanc.post("/modalities/archive/storage-commitment", body)["ID"])
        assert found["Status"] == "Failure"
        assert {(one["SOPClassUID"], one["SOPInstanceUID"]) for one in found["Success"]} == wanted
        [failure] = found["Failures"]
        assert (failure["SOPInstanceUID"], failure["FailureReason"]) == ("1.2.3.4", _NO_SUCH_INSTANCE)

        # On that word it may delete what it has.
        assert orthanc.post(f"/storage-commitment/{asked}/remove", "") == {}
        assert orthanc.get("/instances") == []
    site.wait_for(lambda: not list(folder.iterdir()), 60, "the folder to be tidied")
    site.wait_until_empty()
    assert "CANARY" not in site.log_file.read_text()
