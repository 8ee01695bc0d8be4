"""Real clients at dicomwatchd-web as it is started: dicomweb-client, and Orthanc with its DICOMweb plug-in."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.orthanc import Orthanc
from tests.synthetic import Made, Maker, Patient
from tests.system.site import Site
from tests.system.test_journey_s3 import archive_of
from tests.system.web_process import WebProcess

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebProcess, list[Made]]]:
    """A study with images, a compressed clip and a report, in bundles; and the process."""
    site = Site(tmp_path_factory.mktemp("dicomweb"))
    site.config["archive"]["layout"] = {"kind": "bundled"}
    site.write_config()
    site.init()
    maker = Maker(seed=21)
    made = maker.mr_study(site.inbox / "mr", series=2, slices=5, study=0)
    made += maker.us_multiframe(site.inbox / "us", frames=5, study=0)
    made += maker.structured_report(site.inbox / "sr", study=0)
    assert site.once() == 0 and site.left() == []
    web = WebProcess(site)
    web.start()
    yield web, made
    web.close()
    site.close()


def test_dicomweb_client_with_a_token(archived: tuple[WebProcess, list[Made]]) -> None:
    web, made = archived
    headers = {"Authorization": f"Bearer {web.token('client', 'read')}"}
    client = DICOMwebClient(f"{web.url}/dicom-web", headers=headers)
    [study] = client.search_for_studies(search_filters={"PatientName": "DOE^*"})
    uid = study["0020000D"]["Value"][0]
    assert {one["00080018"]["Value"][0] for one in client.retrieve_study_metadata(uid)} == {
        one.sop_instance_uid for one in made
    }
    assert len(client.retrieve_study(uid)) == len(made)
    first = client.retrieve_instance_metadata(uid, made[0].series_uid, made[0].sop_instance_uid)
    [pixels] = client.retrieve_bulkdata(first["7FE00010"]["BulkDataURI"])
    assert client.retrieve_instance_frames(uid, made[0].series_uid, made[0].sop_instance_uid, [1]) == [pixels]
    logged = web.log()
    assert '"dicomweb-files"' in logged and uid not in logged and "DOE" not in logged


def test_a_thousand_frames_in_one_request(archived: tuple[WebProcess, list[Made]]) -> None:
    """As many as there may be, each by its number: the address is long, and no layer before DICOMweb refuses it."""
    web, _ = archived
    site = web.site
    maker = Maker(seed=23, patient=Patient("ROE^RICHARD", "P0023"))
    clip = maker.us_multiframe(site.inbox / "long", frames=1000, rows=4, columns=4, compressed=False)[0]
    pixels = pydicom.dcmread(clip.path).PixelData
    assert site.once() == 0
    headers = {"Authorization": f"Bearer {web.token('frames', 'read')}"}
    client = DICOMwebClient(f"{web.url}/dicom-web", headers=headers)
    numbers = [*range(1, 1001)]
    frames = client.retrieve_instance_frames(clip.study_uid, clip.series_uid, clip.sop_instance_uid, numbers)
    assert len(frames) == 1000 and b"".join(frames) == pixels
    with web.client(web.token("too-many", "read")) as asking:
        place = f"/dicom-web/studies/{clip.study_uid}/series/{clip.series_uid}/instances/{clip.sop_instance_uid}"
        refused = asking.get(f"{place}/frames/{','.join(map(str, range(1, 1002)))}")
        assert (refused.status_code, refused.json()["error"]) == (413, "too-much")
        alone = asking.get(f"{place}/bulkdata/7FE00010", headers={"Accept": "application/octet-stream"})
        assert alone.status_code == 200 and alone.content == pixels, "what is one value is to be had alone"
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            refused = asking.request(method, "/dicom-web/studies")
            assert (refused.status_code, refused.json()["error"]) == (405, "method-not-allowed")
            assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_orthanc_pulls_a_study(archived: tuple[WebProcess, list[Made]], tmp_path: Path) -> None:
    """Its plug-in finds the study, asks for it, and has the very bytes afterwards."""
    web, made = archived
    server = {
        "Url": f"{web.url}/dicom-web/",
        "HttpHeaders": {"Authorization": f"Bearer {web.token('orthanc', 'read')}"},
    }
    with Orthanc(
        tmp_path / "orthanc", {}, Plugins=[str(PLUGIN)], DicomWeb={"Enable": True, "Servers": {"archive": server}}
    ) as orthanc:
        found = orthanc.post(
            "/dicom-web/servers/archive/qido", '{"Uri": "/studies", "Arguments": {"PatientID": "P0001"}}'
        )
        assert [one["0020000D"]["Value"] for one in found] == [made[0].study_uid]
        orthanc.post(
            "/dicom-web/servers/archive/retrieve",
            f'{{"Resources": [{{"Study": "{made[0].study_uid}"}}], "Synchronous": true}}',
        )
        files = [orthanc.get_bytes(f"/instances/{one}/file") for one in orthanc.get("/instances")]
    assert sorted(hashlib.sha256(one).hexdigest() for one in files) == sorted(one.sha256 for one in made)


@pytest.mark.parametrize("layout", ["instance", "bundled"])
def test_on_s3_and_dynamodb(
    tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str, layout: str
) -> None:
    """A real gateway over TLS: searches by the table's indexes, files, and frames as ranges of objects."""
    archive = {**archive_of(rgw, dynamodb, bucket, table_name), "layout": {"kind": layout}}
    site = Site(tmp_path, archive, environment=rgw.env())
    site.init()
    maker = Maker(seed=22)
    made = maker.mr_study(site.inbox / "mr", series=2, slices=4, study=0)
    made += maker.us_multiframe(site.inbox / "us", frames=5, study=0)
    originals = {one.sop_instance_uid: one.path.read_bytes() for one in made}
    web = WebProcess(site)
    try:
        assert site.once() == 0 and site.left() == []
        web.start()
        client = DICOMwebClient(
            f"{web.url}/dicom-web", headers={"Authorization": f"Bearer {web.token('client', 'read')}"}
        )
        for filters in ({"PatientID": "P0001"}, {"PatientName": "*JANE*"}, {"StudyDate": "20240101-20241231"}):
            [study] = client.search_for_studies(search_filters=filters)
            assert study["00201206"]["Value"] == [3] and study["00201208"]["Value"] == [9]
        uid = made[0].study_uid
        assert len(client.search_for_series(uid, search_filters={"Modality": "MR"})) == 2
        assert len(client.search_for_instances(uid)) == 9
        assert len(client.retrieve_study_metadata(uid)) == 9
        for one in made:
            original = pydicom.dcmread(io.BytesIO(originals[one.sop_instance_uid]))
            count = int(original.get("NumberOfFrames", 1))
            frames = client.retrieve_instance_frames(
                uid, one.series_uid, one.sop_instance_uid, list(range(1, count + 1))
            )
            stored = (
                list(pydicom.encaps.generate_frames(original.PixelData, number_of_frames=count))
                if count > 1
                else [original.PixelData]
            )
            assert frames == stored
            assert client.retrieve_instance(uid, one.series_uid, one.sop_instance_uid) == original
    finally:
        web.close()
        site.close()
