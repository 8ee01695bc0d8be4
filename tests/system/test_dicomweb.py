"""DICOMweb on real archives, over a socket: dicomweb-client's calls, OHIF's requests, and what is never shown."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from PIL import Image

from tests.synthetic import Made, Maker, Patient
from tests.system.dicomweb_served import Served, served
from tests.system.site import Site

OCTETS_AS_STORED = "multipart/related; type=application/octet-stream; transfer-syntax=*"


@pytest.fixture(scope="module", params=["instances", "bundles"])
def archived(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, Served, list[Made], dict[str, bytes]]]:
    """A CT of six slices, an MR of two series, an RLE clip, a report; two patients, in either layout. And the bytes, by
    SOP Instance UID."""
    site = Site(tmp_path_factory.mktemp("dicomweb"))
    if request.param == "bundles":
        site.config["archive"]["layout"] = {"kind": "bundled"}
        site.write_config()
    site.init()
    maker = Maker(seed=11)
    made = maker.ct_series(site.inbox / "ct", slices=6, rows=64, columns=48)
    made += maker.us_multiframe(site.inbox / "us", frames=4, study=0)
    other = Maker(seed=12, patient=Patient("Müller^Käthe", "P0002", "19811231", "F"))
    made += other.mr_study(site.inbox / "mr", series=2, slices=3, rows=32)
    made += other.structured_report(site.inbox / "sr", study=0)
    originals = {one.sop_instance_uid: one.path.read_bytes() for one in made}
    assert site.once() == 0 and site.left() == []
    with served(site.config["archive"]) as running:
        yield site, running, made, originals
    site.close()


def part_bodies(answer: requests.Response) -> list[bytes]:
    """Read by hand, as RFC 2387 has it, so that no client's leniency counts."""
    kind = answer.headers["Content-Type"]
    assert kind.startswith("multipart/related; type=")
    mark = kind.partition("boundary=")[2].strip('"').encode()
    assert answer.content.startswith(b"--" + mark + b"\r\n")
    assert answer.content.endswith(b"\r\n--" + mark + b"--\r\n")
    inner = answer.content[len(mark) + 4 : -len(mark) - 8]
    return [part.partition(b"\r\n\r\n")[2] for part in inner.split(b"\r\n--" + mark + b"\r\n")]


def test_the_calls_of_dicomweb_client(archived: tuple[Site, Served, list[Made], dict[str, bytes]]) -> None:
    _, running, made, originals = archived
    client: DICOMwebClient = running.client()
    ct = made[0]
    # Searches.
    studies = client.search_for_studies()
    assert {one["0020000D"]["Value"][0] for one in studies} == {made[0].study_uid, made[-1].study_uid}
    [study] = client.search_for_studies(search_filters={"PatientID": "P0001"})
    assert study["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "DOE^JANE"}]}
    assert study["00201206"]["Value"] == [2] and study["00201208"]["Value"] == [7]
    assert study["00080061"]["Value"] == ["CT", "US"]
    assert study["00081190"]["Value"] == [f"{running.url}/studies/{ct.study_uid}"]
    series = client.search_for_series(ct.study_uid, search_filters={"Modality": "CT"})
    assert [one["0020000E"]["Value"] for one in series] == [[ct.series_uid]]
    instances = client.search_for_instances(ct.study_uid, ct.series_uid, fields=["SliceThickness"])
    assert {one["00080018"]["Value"][0] for one in instances} == {one.sop_instance_uid for one in made[:6]}
    assert all(one["00280010"]["Value"] == [64] and one["00180050"]["Value"] == [2] for one in instances)
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    # Files, as they were.
    retrieved = client.retrieve_instance(ct.study_uid, ct.series_uid, ct.sop_instance_uid)
    assert retrieved == pydicom.dcmread(io.BytesIO(originals[ct.sop_instance_uid]))
    for uid in {one.study_uid for one in made}:
        want = {one.sop_instance_uid for one in made if one.study_uid == uid}
        files = part_bodies(running.get(f"/studies/{uid}", 'multipart/related; type="application/dicom"'))
        assert sorted(files) == sorted(originals[one] for one in want)
        assert {one.SOPInstanceUID for one in client.retrieve_study(uid)} == want
    assert len(client.retrieve_series(ct.study_uid, ct.series_uid)) == 6
    # Metadata: what pydicom reads of the original.
    for one in client.retrieve_series_metadata(ct.study_uid, ct.series_uid):
        its = pydicom.dcmread(io.BytesIO(originals[one["00080018"]["Value"][0]])).to_json_dict(
            bulk_data_threshold=1, bulk_data_element_handler=lambda _: "url"
        )
        assert one["7FE00010"].pop("BulkDataURI").endswith("/bulkdata/7FE00010") and its["7FE00010"].pop("BulkDataURI")
        assert one == its
    # Frames, rendered, bulk data.
    original = pydicom.dcmread(io.BytesIO(originals[ct.sop_instance_uid]))
    [frame] = client.retrieve_instance_frames(ct.study_uid, ct.series_uid, ct.sop_instance_uid, [1])
    assert frame == original.PixelData
    picture = client.retrieve_instance_rendered(
        ct.study_uid, ct.series_uid, ct.sop_instance_uid, media_types=("image/png",)
    )
    assert Image.open(io.BytesIO(picture)).size == (48, 64)
    uri = client.retrieve_instance_metadata(ct.study_uid, ct.series_uid, ct.sop_instance_uid)["7FE00010"]["BulkDataURI"]
    [bulk] = client.retrieve_bulkdata(uri)
    assert bulk == original.PixelData
    assert {action for _, action, _ in running.audit.entries} >= {"file", "metadata", "frames", "rendered", "bulkdata"}
    assert {name for name, _, _ in running.audit.entries} == {"reader"}


def test_a_search_through_all_studies_is_a_look_into_those_that_it_finds(
    archived: tuple[Site, Served, list[Made], dict[str, bytes]],
) -> None:
    _, running, made, _ = archived
    client: DICOMwebClient = running.client()
    for ask in (client.search_for_series, client.search_for_instances):
        running.audit.entries.clear()
        before = running.audit.writes
        assert {one["0020000D"]["Value"][0] for one in ask()} == {one.study_uid for one in made}
        assert running.audit.writes == before + 1, "all studies with one write"
        assert running.audit.entries == [("reader", "search", uid) for uid in sorted({one.study_uid for one in made})]
    running.audit.entries.clear()
    assert client.search_for_studies() and not running.audit.entries, "a list of studies is a look at none"


def test_what_ohif_asks(archived: tuple[Site, Served, list[Made], dict[str, bytes]]) -> None:
    """Its list, its search, the series of a study, metadata, and each frame as stored."""
    _, running, made, originals = archived
    mr = made[7]
    for query in (
        {"limit": "101", "offset": "0", "fuzzymatching": "false", "includefield": "00081030,00080060"},
        {"PatientName": "*mül*", "00100020": "", "limit": "101", "offset": "0", "fuzzymatching": "false"},
        {"PatientName": "*MÜL*", "00100020": "*P0002*", "00080050": "*", "StudyDescription": "*follow*"},
        {"StudyInstanceUID": mr.study_uid, "ModalitiesInStudy": "MR", "StudyDate": "20200101-20301231"},
    ):
        answer = running.get("/studies", "application/dicom+json", params=query)
        assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/dicom+json", answer.text
        found = [one["0020000D"]["Value"][0] for one in answer.json()]
        assert found == [mr.study_uid] or ("PatientName" not in query and mr.study_uid in found)
    answer = running.get(f"/studies/{mr.study_uid}/series", "application/dicom+json")
    assert {one["0008103E"]["Value"][0] for one in answer.json()} >= {"MR series 1", "MR series 2"}
    answer = running.get(f"/studies/{mr.study_uid}/series/{mr.series_uid}/metadata", "application/dicom+json")
    assert answer.headers["Content-Encoding"] == "gzip" and len(answer.json()) == 3
    for one in answer.json():
        uid = one["00080018"]["Value"][0]
        frame = running.get(
            f"/studies/{mr.study_uid}/series/{mr.series_uid}/instances/{uid}/frames/1", OCTETS_AS_STORED
        )
        assert "Content-Encoding" not in frame.headers
        assert part_bodies(frame) == [pydicom.dcmread(io.BytesIO(originals[uid])).PixelData]
    us = made[6]
    place = f"/studies/{us.study_uid}/series/{us.series_uid}/instances/{us.sop_instance_uid}/frames"
    clip = pydicom.dcmread(io.BytesIO(originals[us.sop_instance_uid]))
    stored = list(pydicom.encaps.generate_frames(clip.PixelData, number_of_frames=4))
    answer = running.get(f"{place}/3,1", OCTETS_AS_STORED)
    assert 'transfer-syntax="1.2.840.10008.1.2.5"' in answer.headers["Content-Type"]
    assert part_bodies(answer) == [stored[2], stored[0]]
    png = running.get(f"{place}/2/rendered", "image/png")
    shown = np.asarray(Image.open(io.BytesIO(png.content)))
    assert (shown == _windowed_by_hand(clip.pixel_array[1])).all()


def _windowed_by_hand(pixels: Any) -> Any:
    least, most = int(pixels.min()), int(pixels.max())
    return np.clip((pixels.astype(np.float32) - least) / (most - least) * 255 + 0.5, 0, 255).astype(np.uint8)


def test_what_there_is_not(archived: tuple[Site, Served, list[Made], dict[str, bytes]]) -> None:
    _, running, made, _ = archived
    ct = made[0]
    place = f"/studies/{ct.study_uid}/series/{ct.series_uid}/instances/{ct.sop_instance_uid}"
    for path, accept, status in (
        ("/studies/1.2.3", None, 404),
        ("/studies/no.uid", None, 400),
        (f"/studies/{ct.study_uid}/series/1.2.3", None, 404),
        (f"/studies/{ct.study_uid}/series/1.2.3/instances/1.2.4/frames/1", None, 404),
        (f"{place}/frames/2", None, 404),
        (f"{place}/frames/0", None, 400),
        (f"{place}/frames/1,x", None, 400),
        (f"{place}/frames/" + ",".join(["1"] * 1001), None, 413),
        (f"{place}/bulkdata/00100010", None, 404),
        (f"{place}/bulkdata/../../../../etc/passwd", None, 404),
        (f"{place}/frames/1", "image/jls", 406),
        (
            f"{place}/frames/1",
            "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2",
            406,
        ),
        (f"{place}/metadata", "application/dicom+xml", 406),
        (f"{place}/rendered", "video/mp4", 406),
        ("/studies?limit=-1", None, 400),
        ("/studies?PatientNam=x", None, 400),
        ("/studies?StudyDate=yesterday", None, 400),
        ("/studies?offset=99999999999", None, 413),
        (f"/studies/{made[-1].study_uid}/series/{made[-1].series_uid}/thumbnail", None, 406),
    ):
        answer = running.get(path, accept)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        if answer.headers["Content-Type"] == "application/json":
            assert set(answer.json()) <= {"error", "message", "hint"}
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert requests.post(f"{running.url}/studies", timeout=60).status_code == 405
    assert requests.options(f"{running.url}{place}", timeout=60).headers["Allow"] == "GET, HEAD, OPTIONS"
    for who in ("nobody", "uploader"):
        for path in ("/studies", place, f"{place}/frames/1", f"{place}/rendered"):
            answer = requests.get(running.url + path, headers={"X-Test-Person": who}, timeout=60)
            assert answer.status_code == (401 if who == "nobody" else 403)
