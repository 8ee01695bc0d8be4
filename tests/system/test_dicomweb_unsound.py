"""What is damaged, conflicting, of two patients, altered, erased, cold or out of reach is never shown as if it were
sound, and an answer that cannot be ended is not ended."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import Chunk
from dicomwatchd.errors import OutOfReach, StateUnavailable
from dicomwatchd.model import Uid
from tests.synthetic import Made, Maker, Patient
from tests.system.dicomweb_served import Served, served, served_from
from tests.system.site import Site
from tests.system.test_dicomweb import part_bodies
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore
from tests.unit.memory_archive import archive as archive_in_memory
from tests.unit.test_cold_storage import freeze

FILES = 'multipart/related; type="application/dicom"'


@pytest.fixture(scope="module", params=["instances", "bundles"])
def unsound(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, Served, dict[str, list[Made]]]]:
    """Studies of three slices each. Of one the first is cut off, of one it was archived with other pixels, too, of one
    it was altered in the store; one names two patients; one is erased."""
    site = Site(tmp_path_factory.mktemp("unsound"))
    if request.param == "bundles":
        site.config["archive"]["layout"] = {"kind": "bundled"}
        site.write_config()
    site.init()
    maker = Maker(seed=31)
    made = {
        name: maker.ct_series(site.inbox / name, slices=3, rows=32, columns=32, study=number)
        for number, name in enumerate(("damaged", "conflicting", "altered", "erased"))
    }
    first = made["damaged"][0].path
    first.write_bytes(first.read_bytes()[:-8])
    one = made["conflicting"][0].path
    (one.parent / "again").write_bytes(one.read_bytes()[:-8] + bytes(8))
    made["two patients"] = [
        file
        for number, patient in enumerate((Patient(), Patient("ROE^JOHN", "P2", "19510213", "M")), 1)
        for file in Maker(seed=32, patient=patient).ct_series(
            site.inbox / f"two{number}", slices=2, study=0, series=number, rows=16, columns=16
        )
    ]
    pixels = made["altered"][0].path.read_bytes()[-64:]
    assert site.once() in (0, 1)
    [path] = [path for path in (site.root / "archive").rglob("*") if path.is_file() and pixels in path.read_bytes()]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(pixels, bytes(64)))
    erased = made["erased"][0].study_uid
    site.ctl("archive", "erase", erased, "--because", "asked for", "--yes", erased, "--no-wait")
    with served(site.config["archive"]) as running:
        yield site, running, made
    site.close()


def ways(one: Made) -> Iterator[tuple[str, str | None]]:
    """Everything by which something of an instance is handed out."""
    place = f"/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_instance_uid}"
    yield place, FILES
    yield place, "application/dicom"
    yield f"{place}/frames/1", None
    yield f"{place}/frames/1", "application/octet-stream"
    yield f"{place}/frames/1/rendered", None
    yield f"{place}/rendered", "image/png"
    yield f"{place}/thumbnail", None
    yield f"{place}/bulkdata/7FE00010", None


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("damaged", 409, "damaged-instance"),
        ("conflicting", 409, "conflicting-instance"),
        ("two patients", 409, "two-patients"),
        ("altered", 502, "bad-object"),
        ("erased", 410, "study-erased"),
    ],
)
def test_it_is_refused_in_every_way(
    unsound: tuple[Site, Served, dict[str, list[Made]]], name: str, status: int, code: str
) -> None:
    _, running, made = unsound
    one = made[name][0]
    place = f"/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_instance_uid}"
    for path, accept in (*ways(one), (f"{place}/metadata", None)):
        answer = running.get(path, accept)
        assert (answer.status_code, answer.json()["error"]) == (status, code), path
        assert "DOE" not in answer.text and "ROE" not in answer.text
        assert answer.headers["Cache-Control"] == "no-store"
    if name in ("damaged", "conflicting", "altered"):
        for path, accept in ways(made[name][1]):
            assert running.get(path, accept).status_code == 200, path


@pytest.mark.parametrize("name", ["damaged", "conflicting"])
def test_what_is_beside_it_is_shown_and_it_is_said(
    unsound: tuple[Site, Served, dict[str, list[Made]]], name: str
) -> None:
    _, running, made = unsound
    study, series = made[name][0].study_uid, made[name][0].series_uid
    sound = {one.sop_instance_uid for one in made[name][1:]}
    for path in (f"/studies/{study}", f"/studies/{study}/series/{series}"):
        files = running.get(path, FILES)
        assert files.status_code == 206 and "left out" in files.headers["Warning"]
        assert len(part_bodies(files)) == len(sound)
        assert not any(uid.encode() in files.content for uid in {made[name][0].sop_instance_uid})
        for answer in (running.get(f"{path}/metadata"), running.get(f"{path}/instances")):
            assert answer.status_code == 200 and "left out" in answer.headers["Warning"]
            assert {one["00080018"]["Value"][0] for one in answer.json()} == sound


def test_what_is_left_out_is_told_by_itself(unsound: tuple[Site, Served, dict[str, list[Made]]]) -> None:
    _, running, made = unsound
    for name, expected in {
        "damaged": {"instances": 3, "left_out": {"damaged": 1}, "two_patients": False},
        "conflicting": {"instances": 3, "left_out": {"conflicting": 1}, "two_patients": False},
        "altered": {"instances": 3, "left_out": {}, "two_patients": False},
        "two patients": {"instances": 4, "left_out": {}, "two_patients": True},
    }.items():
        running.audit.entries.clear()
        path = f"/studies/{made[name][0].study_uid}/left-out"
        answer = running.get(path)
        assert (answer.status_code, answer.json()) == (200, expected), name
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert running.audit.entries == [("reader", "metadata", made[name][0].study_uid)]
        assert running.get(path, "text/html").status_code == 406
    assert running.get(f"/studies/{made['erased'][0].study_uid}/left-out").status_code == 410
    assert running.get("/studies/1.2.3/left-out").status_code == 404


def test_an_altered_one_refuses_the_short_study_that_it_is_in(
    unsound: tuple[Site, Served, dict[str, list[Made]]],
) -> None:
    _, running, made = unsound
    assert running.get(f"/studies/{made['altered'][0].study_uid}", FILES).status_code == 502


def test_a_study_of_two_patients_is_found_by_either(unsound: tuple[Site, Served, dict[str, list[Made]]]) -> None:
    _, running, made = unsound
    for name, patient_id in (("ROE^JOHN", "P2"), ("DOE^JANE", "P0001")):
        answer = running.get(
            "/studies", params={"PatientName": name, "StudyInstanceUID": made["two patients"][0].study_uid}
        )
        assert "two patients" in answer.headers["Warning"]
        [study] = answer.json()
        assert study["00100010"]["Value"] == [{"Alphabetic": name}] and study["00100020"]["Value"] == [patient_id]


# -- an archive in memory: what a real one does seldom ----------------------------------------------------------------


class Slow(MemoryStore):
    """Takes a moment for each read of an instance."""

    @property
    def instances_read(self) -> int:
        return sum(keys.parse_instance(key) is not None for key in self.reads)

    def read(self, key: str, *arguments: Any, **options: Any) -> Iterator[Chunk]:
        if keys.parse_instance(key):
            time.sleep(0.01)
        yield from super().read(key, *arguments, **options)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[tuple[Slow, MemoryCatalogue, Served, list[Made]]]:
    """Sixty slices of half a megabyte."""
    made = Maker(seed=33).ct_series(tmp_path / "ct", slices=60)
    store, catalogue = Slow(chunk_bytes=65536), MemoryCatalogue()
    manifest = archive_in_memory(
        store,
        [(Uid(one.series_uid), one.sop_instance_uid, one.path.read_bytes()) for one in made],
        study=Uid(made[0].study_uid),
    )
    catalogue.put(manifest.record())
    with served_from(store, catalogue, current_seconds=0.0) as running:
        yield store, catalogue, running, made


def test_whoever_goes_away_stops_the_reading(
    in_memory: tuple[Slow, MemoryCatalogue, Served, list[Made]],
) -> None:
    store, _, running, made = in_memory
    host, port = running.url.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"GET /dicom-web/studies/{made[0].study_uid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    seen, until = -1, time.monotonic() + 60
    while store.instances_read != seen:  # what is under way, ends
        assert time.monotonic() < until
        seen = store.instances_read
        time.sleep(0.5)
    assert 0 < seen < 60


def test_an_altered_one_ends_a_long_answer_in_its_middle(
    in_memory: tuple[Slow, MemoryCatalogue, Served, list[Made]],
) -> None:
    store, _, running, made = in_memory
    altered = max(made, key=lambda one: one.sop_instance_uid)
    [key] = [key for key in store.versions if keys.parse_instance(key) and altered.sha256 in key]
    store.versions[key] = [store.versions[key][0][:-64] + bytes(64)]
    path = f"{running.url}/studies/{made[0].study_uid}"
    with requests.get(path, headers={"Accept": FILES}, stream=True, timeout=60) as answer:
        assert answer.status_code == 200
        mark = answer.headers["Content-Type"].partition("boundary=")[2].encode()
        chunks: list[bytes] = []
        with pytest.raises(requests.exceptions.RequestException):
            chunks.extend(answer.iter_content(65536))
    came = b"".join(chunks)
    assert 0 < came.count(b"--" + mark) <= 60 and b"--" + mark + b"--" not in came
    assert altered.sop_instance_uid.encode() not in came


def test_what_is_cold_says_so(in_memory: tuple[Slow, MemoryCatalogue, Served, list[Made]]) -> None:
    store, _, running, made = in_memory
    freeze(store)
    for path, accept in ways(made[0]):
        answer = running.get(path, accept)
        assert (answer.status_code, answer.json()["error"]) == (503, "cold-storage"), path
        assert answer.headers["Retry-After"] == "14400"
    assert running.get(f"/studies/{made[0].study_uid}", FILES).status_code == 503
    assert len(running.get("/studies").json()) == 1


def test_nothing_goes_out_that_is_not_on_record(
    in_memory: tuple[Slow, MemoryCatalogue, Served, list[Made]],
) -> None:
    _, _, running, made = in_memory
    running.audit.refusal = StateUnavailable("the disk is full", code="state-access")
    series = f"/studies/{made[0].study_uid}/series/{made[0].series_uid}"
    for path, accept in (*ways(made[0]), (f"{series}/metadata", None), (f"{series}/instances", None)):
        answer = running.get(path, accept)
        assert (answer.status_code, answer.json()["error"]) == (503, "state-access"), path
    running.audit.refusal = None
    assert running.get(f"{series}/metadata").status_code == 200
    assert running.audit.entries == [("reader", "metadata", made[0].study_uid)]


def test_out_of_reach(in_memory: tuple[Slow, MemoryCatalogue, Served, list[Made]]) -> None:
    _, catalogue, running, _ = in_memory
    catalogue.fault = OutOfReach("the table at secret.example.org does not answer", retry_after_seconds=7)
    answer = running.get("/studies")
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "7"
    assert answer.json() == {"error": "out-of-reach", "message": "the archive cannot answer this now"}
    assert [type(one) for one in running.failures] == [OutOfReach]


def test_what_a_client_has_is_not_sent_again(in_memory: tuple[Slow, MemoryCatalogue, Served, list[Made]]) -> None:
    store, _, running, made = in_memory
    one = made[0]
    place = f"/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_instance_uid}"
    for path, accept in (*ways(one), (f"{place}/metadata", None)):
        headers = {"Accept": accept} if accept else {}
        first = requests.get(running.url + path, headers=headers, timeout=60)
        assert first.status_code == 200 and "private" in first.headers["Cache-Control"], path
        again = requests.get(
            running.url + path, headers={**headers, "If-None-Match": first.headers["ETag"]}, timeout=60
        )
        assert again.status_code == 304 and not again.content and again.headers["ETag"] == first.headers["ETag"]
        before = store.instances_read
        head = requests.head(running.url + path, headers=headers, timeout=60)
        assert head.status_code == 200 and head.headers["ETag"] == first.headers["ETag"]
        assert "metadata" in path or "rendered" in path or "thumbnail" in path or store.instances_read == before
    whole = requests.head(running.url + place, headers={"Accept": "application/dicom"}, timeout=60)
    assert int(whole.headers["Content-Length"]) == one.size_bytes
    files = running.get(f"/studies/{one.study_uid}", FILES)
    assert int(files.headers["Content-Length"]) == len(files.content) and len(part_bodies(files)) == 60
    plain = requests.get(f"{running.url}/studies", headers={"Accept-Encoding": "identity"}, timeout=60)
    assert "Content-Encoding" not in plain.headers and plain.json() == running.get("/studies").json()
