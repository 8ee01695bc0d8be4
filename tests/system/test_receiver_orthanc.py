"""Orthanc as the receiver's peer, from its store to the archive."""

from __future__ import annotations

from urllib.error import HTTPError

import pytest

from tests.conftest import skip_unless_available
from tests.dicom_peer import data_set_of
from tests.servers.orthanc import Orthanc
from tests.synthetic import Maker, Patient
from tests.system.receiving import Receiving
from tests.system.receiving_fixtures import receiving, site
from tests.system.site import Site

__all__ = ["receiving", "site"]  # fixtures


def test_orthanc_sends_a_study(site: Site, receiving: Receiving) -> None:
    skip_unless_available("orthanc")
    site.init()
    maker = Maker(seed=31, patient=Patient.marked("CANARY^JANE"))
    made = maker.ct_series(site.root / "ct", slices=4, rows=64, columns=64)
    made += maker.us_multiframe(site.root / "us", frames=3)  # RLE Lossless
    with Orthanc(site.root / "orthanc", {"archive": ("ARCHIVE", receiving.port)}) as orthanc:
        for one in made:
            orthanc.post("/instances", one.path.read_bytes())
        studies = orthanc.get("/studies")
        assert len(studies) == 2
        with pytest.raises(HTTPError):
            orthanc.post("/modalities/archive/store", studies[0])  # nobody listens yet, and it says so
        receiving.start()
        site.start()
        for study in studies:
            assert orthanc.post("/modalities/archive/store", study)["FailedInstancesCount"] == 0
        instances = [orthanc.get(f"/instances/{one}") for one in orthanc.get("/instances")]
        held = {
            one["MainDicomTags"]["SOPInstanceUID"]: data_set_of(orthanc.get_bytes(f"/instances/{one['ID']}/file"))
            for one in instances
        }
    assert held.keys() == {one.sop_instance_uid for one in made}
    site.wait_for(lambda: len(site.events("study-archived")) == 2, 60, "both studies to be archived")
    site.wait_until_empty()
    assert site.stop() == 0
    assert receiving.stop() == 0
    fetched: dict[str, bytes] = {}
    for study in {one.study_uid for one in made}:
        site.ctl("fetch", study, "-o", str(site.root / "out" / study))
        fetched |= {path.stem: data_set_of(path) for path in (site.root / "out" / study).rglob("*.dcm")}
    assert fetched == held
    assert "CANARY" not in site.log_file.read_text()
