"""What DICOMweb answers, request by request, over an archive in memory: who may, what is on record before anything goes
out, what is refused and how, and what a cache may keep of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.routing import Router

from dicomwatchd.archive import keys
from dicomwatchd.errors import DicomwatchdError, OutOfReach, StateUnavailable
from dicomwatchd.model import Uid
from dicomwatchd.patients import Identity
from dicomwatchd.web.dicomweb import qido, rendered, routes, sending, wado
from dicomwatchd.web.dicomweb.errors import Unsound
from dicomwatchd.web.dicomweb.reading import ArchiveReader
from dicomwatchd.web.people import Person, Role
from tests.asgi import Answer, Inline, asked
from tests.page import Recorded
from tests.synthetic import Maker
from tests.unit.memory_archive import MemoryCatalogue, instance
from tests.unit.test_dicomweb_searches import record
from tests.unit.test_series import Shelf, erased, frames_by_pydicom, shelved

READER = Person("müller", frozenset({Role.READ}))
FILES = 'multipart/related; type="application/dicom"'
RLE = "1.2.840.10008.1.2.5"


@dataclass
class Web:
    """``shelf`` may be changed between two requests."""

    shelf: Shelf
    folder: Path = Path()
    audit: Recorded = field(default_factory=Recorded)
    catalogue: MemoryCatalogue = field(default_factory=MemoryCatalogue)
    failures: list[DicomwatchdError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = Router(
            routes(
                self.shelf.reader(),
                self.catalogue,
                self.audit,
                reading=Inline(),
                pictures=Inline(),
                random=lambda count: b"\7" * count,
                failed=self.failures.append,
                base_url="https://images.example.org/",
            )
        )

    @property
    def uids(self) -> list[Uid]:
        return sorted(self.shelf.files)

    def path(self, number: int = 0, below: str = "") -> str:
        """Of an instance."""
        return f"{self.study(f'/series/{self.shelf.series}/instances/{self.uids[number]}')}{below}"

    def series(self, below: str = "") -> str:
        return self.study(f"/series/{self.shelf.series}{below}")

    def study(self, below: str = "") -> str:
        return f"/dicom-web/studies/{self.shelf.study}{below}"

    def get(
        self,
        target: str,
        accept: str | None = None,
        method: str = "GET",
        person: Person | None = READER,
        etag: str | None = None,
        encoding: str | None = None,
    ) -> Answer:
        """``etag`` is what the client has, ``encoding`` what it takes."""
        may_be = {"Accept": accept, "If-None-Match": etag, "Accept-Encoding": encoding}
        said = {name: value for name, value in may_be.items() if value is not None}
        answer = asked(self.app, target, method, headers=said, state={} if person is None else {"person": person})
        if answer.status == 0 and isinstance(answer.torn, HTTPException):  # the layers around the rooms answer so
            return Answer(answer.torn.status_code)
        return answer

    def actions(self) -> list[str]:
        return [action for _, action, _ in self.audit.entries]

    def listed(self, **changes: Any) -> None:
        """In the catalogue, as searches find it."""
        of_series = replace(record(1).series[0], series_uid=self.shelf.series, instances=len(self.uids))
        self.catalogue.put(record(1, study_uid=self.shelf.study, series=(of_series,), **changes))

    def alter(self, number: int = 0) -> None:
        """The stored bytes of an instance, from here on."""
        uid = self.uids[number]

        def other(key: str, _number: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
            for chunk in chunks:
                yield bytes(len(chunk)) if uid in key else chunk

        self.shelf.store.tampering = other


@pytest.fixture
def web(tmp_path: Path) -> Web:
    """Of a series of four slices of 16 x 16."""
    return Web(shelved(Maker().ct_series(tmp_path, slices=4, rows=16, columns=16)), tmp_path)


@pytest.fixture
def clip(tmp_path: Path) -> Web:
    """Of one instance of six frames, as RLE."""
    clip = Web(shelved(Maker().us_multiframe(tmp_path / "clip", frames=6)), tmp_path)
    clip.shelf.replaced(*(replace(one, transfer_syntax_uid=RLE) for one in clip.shelf.manifest.instances))
    return clip


def ways(web: Web, number: int = 0) -> Iterator[tuple[str, str | None, str]]:
    """Everything by which something of an instance is handed out, and what the record calls it."""
    yield web.path(number), FILES, "file"
    yield web.path(number), "application/dicom", "file"
    yield web.path(number, "/metadata"), None, "metadata"
    yield web.path(number, "/frames/1"), None, "frames"
    yield web.path(number, "/frames/1"), "application/octet-stream", "frames"
    yield web.path(number, "/frames/1/rendered"), None, "rendered"
    yield web.path(number, "/rendered"), "image/png", "rendered"
    yield web.path(number, "/thumbnail"), None, "rendered"
    yield web.path(number, "/bulkdata/7FE00010"), None, "bulkdata"


def parts(answer: Answer) -> list[bytes]:
    mark = answer.headers["content-type"].partition("boundary=")[2].encode()
    first, *found, end = answer.body.split(b"--" + mark)
    assert first == b"" and end == b"--\r\n"
    return [one.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for one in found]


# -- who may, and what is on record -----------------------------------------------------------------------------------


def test_it_is_for_readers_alone(web: Web) -> None:
    web.listed()
    others = Person("x", frozenset({Role.UPLOAD, Role.ADMINISTRATE}))
    for path, accept in [(path, accept) for path, accept, _ in ways(web)] + [
        (web.study(), None),
        (web.study("/metadata"), None),
        (web.study("/series"), None),
        ("/dicom-web/studies", None),
        ("/dicom-web/instances", None),
    ]:
        assert web.get(path, accept, person=None).status == 401
        assert web.get(path, accept, person=others).status == 403
        assert web.get(path, accept).status == 200, path
    assert {person for person, _, _ in web.audit.entries} == {"müller"}


def test_what_is_handed_out_is_on_record_first(web: Web) -> None:
    for path, accept, action in ways(web):
        web.audit.entries.clear()
        answer = web.get(path, accept)
        assert answer.status == 200 and len(answer.body) > 0
        assert set(web.audit.entries) == {("müller", action, web.shelf.study)}, path
        again = web.get(path, accept, etag=answer.headers["etag"])
        assert again.status == 304 and again.body == b""
        assert web.actions() == [action] * 2, "who shows what he has already looks at it, too"


def test_what_cannot_be_put_on_record_is_not_handed_out(web: Web) -> None:
    web.listed()
    etags = {path: web.get(path, accept).headers["etag"] for path, accept, _ in ways(web)}
    web.audit.error = StateUnavailable("the disk is full: MEIER", code="state-access")
    for path, accept, _ in ways(web):
        for kept in (None, etags[path]):
            answer = web.get(path, accept, etag=kept)
            assert answer.status == 503 and "MEIER" not in answer.text and len(answer.body) < 300
            assert answer.headers["retry-after"] == "5" and answer.headers["cache-control"] == "no-store"
    for path in (web.study("/series"), web.study("/instances"), "/dicom-web/series", "/dicom-web/instances"):
        assert web.get(path).status == 503
    assert web.get("/dicom-web/studies").status == 200, "a list of studies is no look at one"
    assert {one.code for one in web.failures} == {"state-access"}


def test_it_is_on_record_before_the_first_byte(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_STRETCH_BYTES", 100)
    web.audit.error = StateUnavailable("the disk is full", code="state-access")
    web.shelf.store.reads.clear()
    for path, accept, action in ways(web):
        assert web.get(path, accept).status == 503, path
        if action == "file":
            assert not any(keys.holds_instances(key) for key in web.shelf.store.reads)


def test_a_search_within_a_study_is_a_look_at_it(web: Web) -> None:
    web.listed()
    for path in (web.study("/series"), web.study("/instances"), "/dicom-web/series", "/dicom-web/instances"):
        web.audit.entries.clear()
        assert web.get(path).status == 200
        assert web.audit.entries == [("müller", "search", web.shelf.study)]
    web.audit.entries.clear()
    assert web.get(web.study("/series?Modality=XX")).status == 204
    assert web.actions() == ["search"], "that there is none of it is told of the study, too"
    web.audit.entries.clear()
    assert web.get("/dicom-web/studies").status == 200 and web.actions() == []


# -- what is not shown ------------------------------------------------------------------------------------------------


def unsound(web: Web, **changes: Any) -> None:
    first, *rest = web.shelf.manifest.instances
    web.shelf.replaced(replace(first, **changes), *rest)


def refused(web: Web, status: int, code: str, *, paths: Iterator[tuple[str, str | None, str]] | None = None) -> None:
    for path, accept, _ in paths or ways(web):
        answer = web.get(path, accept)
        assert (answer.status, json.loads(answer.body)["error"]) == (status, code), path
        assert answer.headers["cache-control"] == "no-store" and "etag" not in answer.headers


def test_the_damaged_and_the_unknown_are_refused_and_what_is_beside_them_is_shown(web: Web) -> None:
    for changes, code in (
        ({"damage": "cut off"}, "damaged-instance"),
        ({"damage": "", "repairs": ("found-in-the-store",)}, "unknown-instance"),
    ):
        unsound(web, **changes)
        web.audit.entries.clear()
        refused(web, 409, code)
        assert web.actions() == [], "nobody has seen anything"
        for path, accept, _ in ways(web, 1):
            assert web.get(path, accept).status == 200, path
        for path in (web.study(), web.study(f"/series/{web.shelf.series}")):
            answer = web.get(path, FILES)
            assert answer.status == 206 and qido.UNSOUND_LEFT_OUT in answer.headers["warning"]
            assert parts(answer) == [web.shelf.files[uid] for uid in web.uids[1:]]
            metadata = web.get(f"{path}/metadata")
            assert len(json.loads(metadata.body)) == 3
            assert metadata.headers["warning"] == wado.warning(qido.UNSOUND_LEFT_OUT)
        web.listed()
        found = web.get(web.study("/instances"))
        assert len(json.loads(found.body)) == 3 and qido.UNSOUND_LEFT_OUT in found.headers["warning"]


def test_several_versions_are_refused(web: Web) -> None:
    first, *rest = web.shelf.manifest.instances
    other = web.shelf.files[web.uids[0]][:-2] + b"\1\2"
    twin = instance(web.shelf.series, web.uids[0], other, study=web.shelf.study)
    web.shelf.store.versions[twin.key] = [other]
    web.shelf.replaced(first, twin, *rest)
    refused(web, 409, "conflicting-instance")
    assert web.get(web.study(), FILES).status == 206


def test_a_whole_one_stands_for_its_damaged_twin(web: Web) -> None:
    first, *rest = web.shelf.manifest.instances
    cut = web.shelf.files[web.uids[0]][:-2]
    twin = replace(
        instance(web.shelf.series, web.uids[0], cut, study=web.shelf.study), damage="cut off", stored_at="2027"
    )
    web.shelf.store.versions[twin.key] = [cut]
    web.shelf.replaced(first, twin, *rest)
    assert web.get(web.path(), "application/dicom").body == web.shelf.files[web.uids[0]]


def test_what_an_instance_is_worth_counts_to_the_last_moment(web: Web) -> None:
    reader = ArchiveReader(web.shelf.reader())
    study = reader.study(web.shelf.study)
    held = study.by_name[web.shelf.series, web.uids[0]]
    assert b"".join(next(reader.frames(study, held, [1]))) != b""
    unsound(web, damage="cut off")
    for way in (reader.header, reader.frame_count):
        with pytest.raises(Unsound):
            way(study, held)


def test_a_study_of_two_patients_is_not_shown(web: Web) -> None:
    two = (Identity("P1", name="MEIER"), Identity("P2", name="MUELLER"))
    web.shelf.manifest = replace(web.shelf.manifest, identities=two)
    web.shelf.replaced(*web.shelf.manifest.instances)
    refused(web, 409, "two-patients")
    refused(web, 409, "two-patients", paths=iter([(web.study(), FILES, ""), (web.study("/metadata"), None, "")]))
    assert "MEIER" not in web.get(web.path()).text and web.actions() == []
    web.listed(identities=two)
    assert web.get(web.study("/instances")).status == 204
    assert qido.SEVERAL_PATIENTS in web.get("/dicom-web/studies").headers["warning"]


def test_what_was_erased_is_gone(web: Web) -> None:
    assert web.get(web.path()).status == 200
    erased(web.shelf)
    web.shelf.store.versions = {key: one for key, one in web.shelf.store.versions.items() if "/series/" not in key}
    del web.shelf.store.versions[web.shelf.manifest.key]
    refused(web, 410, "study-erased")
    answer = web.get(web.study("/series"))
    assert answer.status == 410 and "asked for" not in answer.text
    assert web.failures == []


def test_other_bytes_than_the_recorded_ones_are_not_handed_out(web: Web) -> None:
    assert web.get(web.path(0, "/metadata")).status == 200
    web.alter()
    for path, accept, action in ways(web):
        if action != "metadata":
            answer = web.get(path, accept)
            assert (answer.status, json.loads(answer.body)["error"]) == (502, "bad-object"), path
    assert web.get(web.path(1)).body.find(web.shelf.files[web.uids[1]]) > 0


def test_without_its_bytes_an_instance_has_no_metadata_and_the_others_say_so(web: Web) -> None:
    web.alter()
    assert web.get(web.path(0, "/metadata")).status == 502
    web.listed()
    for path in (web.study("/metadata"), web.study("/instances")):
        answer = web.get(path)
        assert answer.status == 200 and len(json.loads(answer.body)) == 3
        assert answer.headers["warning"] == wado.warning(qido.UNREADABLE_LEFT_OUT) and "etag" not in answer.headers


def test_why_something_is_left_out_is_told_apart(web: Web) -> None:
    """The unreadable are in no count of what is unsound: whoever has that would not miss them."""
    unsound(web, damage="cut off")
    web.alter(1)
    web.listed()
    for path in (web.study("/metadata"), web.study("/instances")):
        answer = web.get(path)
        assert answer.status == 200 and len(json.loads(answer.body)) == 2
        assert answer.headers["warning"] == ", ".join(
            map(wado.warning, (qido.UNSOUND_LEFT_OUT, qido.UNREADABLE_LEFT_OUT))
        )


def test_an_answer_that_cannot_be_ended_is_torn(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_STRETCH_BYTES", 100)
    web.alter(2)
    answer = web.get(web.study(), FILES)
    assert answer.status == 200 and answer.torn is not None
    assert not answer.body.endswith(b"--\r\n") and len(answer.body) < int(answer.headers["content-length"])


def test_cold_or_out_of_reach_is_for_later(web: Web) -> None:
    [key] = [one.key for one in web.shelf.manifest.instances if one.sop_instance_uid == web.uids[0]]
    assert web.get(web.path(0, "/metadata")).status == 200
    web.shelf.store.cold[key] = "GLACIER"
    answer = web.get(web.path())
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 3600
    assert json.loads(answer.body)["error"] == "cold-storage"
    fresh = Web(web.shelf)
    assert fresh.get(fresh.study("/metadata")).status == 503, "what is cold is not left out"
    web.shelf.store.fault = OutOfReach("the bucket of MEIER", endpoint="s3", hint="see MEIER's bucket")
    answer = web.get(web.path(1))
    assert answer.status == 503 and int(answer.headers["retry-after"]) <= 600
    assert "MEIER" not in answer.text and web.failures[-1].message == "the bucket of MEIER"


# -- what is not there ------------------------------------------------------------------------------------------------


def test_what_is_not_there_or_no_name_is_said(web: Web) -> None:
    for path, status in (
        ("/dicom-web/studies/1.2.3/metadata", 404),
        ("/dicom-web/studies/../metadata", 400),
        ("/dicom-web/studies/1.02.x/metadata", 400),
        (web.study("/series/1.2.3"), 404),
        (web.study(f"/series/{web.shelf.series}/instances/1.2.3"), 404),
        (web.study(f"/series/1.2.3/instances/{web.uids[0]}"), 404),
        (web.path(0, "/frames/2"), 404),
        (web.path(0, "/frames/0"), 400),
        (web.path(0, "/frames/1,x"), 400),
        (web.path(0, "/frames/-1"), 400),
        (web.path(0, "/frames/" + ",".join(["1"] * (wado.MOST_FRAMES + 1))), 413),
        (web.path(0, "/frames/1,1/rendered"), 406),
        (web.path(0, "/bulkdata/00100010"), 404),
        (web.path(0, "/bulkdata/etc/passwd"), 404),
    ):
        answer = web.get(path)
        assert answer.status == status, (path, answer.text)
        assert "passwd" not in answer.text
    assert web.get(web.path(), "text/html").status == 406
    assert web.get(web.path(), f"{FILES}; transfer-syntax=1.2.840.10008.1.2.4.80").status == 406
    assert web.get(web.path(), method="POST").status == 405
    assert web.get(web.path(), method="OPTIONS").status == 204
    assert web.failures == []


def test_frames_are_the_ones_that_were_asked_for(clip: Web) -> None:
    frames = frames_by_pydicom(clip.shelf.files[clip.uids[0]])
    answer = clip.get(clip.path(0, "/frames/3,1"))
    assert parts(answer) == [frames[2], frames[0]]
    assert answer.body.count(f"Content-Type: image/dicom-rle; transfer-syntax={RLE}\r\n".encode()) == 2
    assert parts(clip.get(clip.path(0, "/bulkdata/7FE00010"))) == frames
    assert clip.get(clip.path(0, "/frames/2,3"), "application/octet-stream").status == 406
    assert clip.get(clip.path(0, "/frames/7")).status == 404


# -- what may be kept -------------------------------------------------------------------------------------------------


def test_what_a_browser_keeps_nobody_else_does_and_no_list_of_it(web: Web) -> None:
    for path, accept, action in ways(web):
        said = web.get(path, accept).headers["cache-control"]
        assert said.startswith("private"), path
        assert ("immutable" in said) == (action != "metadata")
    for path, accept in ((web.study(), FILES), (web.study("/metadata"), None), (web.series("/thumbnail"), None)):
        assert web.get(path, accept).headers["cache-control"] == "private, no-cache"
    web.listed()
    for path in ("/dicom-web/studies", web.study("/series"), web.study("/instances")):
        assert web.get(path).headers["cache-control"] == "private, no-cache"
        assert web.get(path).headers["vary"] == "Accept, Accept-Encoding"


def test_another_answer_has_another_etag(web: Web, clip: Web) -> None:
    asked_for = [
        (web.path(), FILES),
        (web.path(), "application/dicom"),
        (web.path(1), FILES),
        (web.study(), FILES),
        (web.path(0, "/frames/1"), None),
        (web.path(0, "/frames/1"), "application/octet-stream"),
        (web.path(0, "/rendered"), "image/png"),
        (web.path(0, "/rendered"), "image/jpeg"),
        (web.path(0, "/rendered?viewport=8,8"), "image/png"),
        (web.path(0, "/rendered?window=40,400,LINEAR"), "image/png"),
        (web.path(0, "/rendered?quality=7"), "image/jpeg"),
        (web.path(0, "/thumbnail"), "image/png"),
        (web.path(0, "/metadata"), None),
        (web.study("/metadata"), None),
        (web.path(0, "/bulkdata/7FE00010"), None),
        (web.path(1, "/frames/1"), None),
        (web.path(1, "/rendered"), "image/png"),
        (web.path(1, "/bulkdata/7FE00010"), None),
    ]
    etags = [web.get(path, accept).headers["etag"] for path, accept in asked_for]
    of_clip = [(f"/frames/{numbers}", None) for numbers in ("1", "2", "1,2", "2,1")] + [
        (f"/frames/{number}/rendered", accept) for number in (1, 2) for accept in ("image/png", "image/jpeg")
    ]
    etags += [clip.get(clip.path(0, below), accept).headers["etag"] for below, accept in of_clip]
    assert len(set(etags)) == len(etags)


def test_the_etag_of_what_is_listed_tells_what_it_is_worth(web: Web) -> None:
    before = web.get(web.study("/metadata")).headers["etag"]
    assert web.get(web.study("/metadata"), etag=f'"x", {before}').status == 304
    unsound(web, damage="cut off")
    after = web.get(web.study("/metadata"), etag=before)
    assert after.status == 200 and after.headers["etag"] != before


def test_the_etag_tells_that_something_is_left_out_now(web: Web) -> None:
    before = web.get(web.study("/metadata")).headers["etag"]
    late = Maker().ct_series(web.folder / "late", slices=1, first=9, study=0, series=1, rows=16, columns=16)[0]
    data = late.path.read_bytes()
    one = instance(web.shelf.series, late.sop_instance_uid, data, study=web.shelf.study)
    web.shelf.store.versions[one.key] = [data]
    web.shelf.replaced(*web.shelf.manifest.instances, replace(one, damage="cut off"))
    after = web.get(web.study("/metadata"), etag=before)
    assert after.status == 200 and qido.UNSOUND_LEFT_OUT in after.headers["warning"]


def test_a_head_tells_and_hands_out_nothing(web: Web) -> None:
    file = web.get(web.path(), "application/dicom")
    for path, accept, _ in ways(web):
        head = web.get(path, accept, "HEAD")
        if head.status == 200 and "etag" in head.headers:
            assert head.headers["etag"] == web.get(path, accept).headers["etag"]
    head = web.get(web.path(), "application/dicom", "HEAD")
    assert head.body == b"" and head.headers["content-length"] == file.headers["content-length"] == str(len(file.body))


# -- how it is sent ---------------------------------------------------------------------------------------------------


def test_files_are_the_archived_bytes_in_parts_with_a_boundary_of_its_own(web: Web) -> None:
    whole = web.get(web.study(), FILES)
    assert whole.status == 200 and "warning" not in whole.headers
    assert parts(whole) == [web.shelf.files[uid] for uid in web.uids]
    assert int(whole.headers["content-length"]) == len(whole.body)
    assert f"boundary=dicomwatchd-{'07' * 16}" in whole.headers["content-type"]
    one = web.get(web.path(2), "application/dicom")
    assert one.body == web.shelf.files[web.uids[2]] and one.headers["content-type"] == "application/dicom"
    assert one.headers["x-content-type-options"] == "nosniff"


def test_json_is_packed_for_who_takes_that_and_is_no_markup(web: Web) -> None:
    web.listed()
    web.catalogue.records = {
        uid: replace(one, attributes={**one.attributes, "00081030": {"vr": "LO", "Value": ["</script><b>"]}})
        for uid, one in web.catalogue.records.items()
    }
    plain = web.get("/dicom-web/studies")
    assert "content-encoding" not in plain.headers and b"<" not in plain.body
    assert json.loads(plain.body)[0]["00081030"]["Value"] == ["</script><b>"]
    packed = web.get("/dicom-web/studies", encoding="br, gzip")
    assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(packed.body) == plain.body
    assert "content-encoding" not in web.get("/dicom-web/studies", encoding="gzip;q=0").headers


def test_urls_are_ours_and_lead_to_what_they_say(web: Web) -> None:
    web.listed()
    [study] = json.loads(web.get("/dicom-web/studies").body)
    assert study["00081190"]["Value"] == [f"https://images.example.org{web.study()}"]
    [metadata] = json.loads(web.get(web.path(0, "/metadata")).body)
    url = metadata["7FE00010"]["BulkDataURI"]
    assert url == f"https://images.example.org{web.path(0, '/bulkdata/7FE00010')}"
    [pixels] = parts(web.get(url.removeprefix("https://images.example.org")))
    assert web.shelf.files[web.uids[0]].endswith(pixels) and len(pixels) == 16 * 16 * 2


def test_a_frame_that_is_too_large_is_not_read_for_a_picture(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    assert web.get(web.path(0, "/metadata")).status == 200
    monkeypatch.setattr(rendered, "MOST_FRAME_BYTES", 511)
    web.shelf.store.reads.clear()
    answer = web.get(web.path(0, "/rendered"))
    assert answer.status == 406 and json.loads(answer.body)["error"] == "not-renderable"
    assert not any(keys.holds_instances(key) for key in web.shelf.store.reads)


def test_what_a_search_asks_wrongly_is_said_and_not_repeated(web: Web) -> None:
    web.listed()
    for query, status in (("PatientNam=MEIER", 400), ("limit=-1", 400), ("offset=30000", 413)):
        answer = web.get(f"/dicom-web/studies?{query}")
        assert answer.status == status and "MEIER" not in answer.text
    assert web.get("/dicom-web/studies?PatientID=nobody").status == 204
    assert web.get("/dicom-web/studies", "text/html").status == 406
