"""Uploads through the page, without a daemon or with one that only says what it is told: what a browser, an impolite
one and another person get."""

from __future__ import annotations

import json
import os
import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from dicomwatchd.web.pages.limits import LIMITS
from dicomwatchd.web.pages.staging.book import Announced, Book, FileState, Stage
from dicomwatchd.web.pages.staging.custody import Custody
from dicomwatchd.web.pages.staging.places import as_it_is, folders_of, made_up
from dicomwatchd.web.pages.staging.room import NoRoom, Room
from dicomwatchd.web.people import Person
from tests.page import READ, UPLOAD, Browser, Daemon, as_, page
from tests.pieces import FakeClock, Log

ANNA, OTTO = as_("anna", UPLOAD), as_("otto", UPLOAD)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def daemon() -> Daemon:
    return Daemon(runs=False)


@pytest.fixture
def anna(tmp_path: Path, daemon: Daemon) -> Iterator[Browser]:
    with page(tmp_path, daemon) as client:
        yield Browser(client, ANNA)


def staged(root: Path) -> list[str]:
    files = root / "staging"
    return sorted(
        str(path.relative_to(files)).split("/", 2)[2] for path in files.glob("*/files/**/*") if path.is_file()
    )


def on_disk(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("uploads.db")]


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_name_is_a_path_only_where_it_is_a_file_id() -> None:
    for path in ("DICOMDIR", "DICOM/ST1/IM000001", "a/b/c/d/e/f/g/h", "_"):
        assert as_it_is(path) == path
    for path in (
        "../x", "a/../b", "/etc/passwd", "a//b", "", "a/", ".", "..", "IM1.dcm", "TOOLONGNAME", "a\\b", "a\0b", "a b",
        "ä", "a/b/c/d/e/f/g/h/i", "IM1\n", "٣",
    ):  # fmt: skip
        assert as_it_is(path) is None


def test_a_made_up_name_keeps_what_the_verdict_depends_on_and_leads_nowhere() -> None:
    assert made_up("VIEWER/LUT_table.DAT", 1) == "VIEWER/x-aaaaab.DAT"
    assert made_up("Meier, Rosa/IM 1.dcm", 17) == "x-aaaabb0.dcm"
    assert made_up(".hidden", 2) == ".x-aaaaac" and made_up("DONE really", 3) == "x-aaaaad"
    assert made_up("a/System Volume Information/x y", 4) == "a/System Volume Information/x-aaaaae"
    assert made_up("IM1.DCM;1", 5) == "x-aaaaaf0.DCM"
    for path in ("../../etc/cron.d/x", "/etc/passwd", "a/../../b", "..", ".", "a/..", "x.\0", "x.a/b", "..\\..\\x.ini"):
        place = made_up(path, 9)
        assert not place.startswith("/") and not {"", ".", ".."} & set(place.split("/")) and "\0" not in place
        assert as_it_is(place) is None, "it can be no other file's own name"
    assert folders_of("A/B/C") == ["A", "A/B"] and folders_of("A") == []


def test_names_that_lead_elsewhere_are_data(anna: Browser, tmp_path: Path) -> None:
    upload = anna.begin()
    names = ["../../../../tmp/x", "/etc/passwd", "a/../../b.dcm", "C:\\x\\y", "..", "<script>alert(1)</script>", "a/b"]
    anna.send(upload, {name: name.encode() for name in names})
    assert staged(tmp_path) == sorted(
        ["a/b", *(one for one in staged(tmp_path) if one.rpartition("/")[2].startswith(("x-", ".x-")))]
    )
    assert sorted(path.read_bytes().decode() for path in on_disk(tmp_path)) == sorted(names)
    inside = (tmp_path / "staging" / upload / "files").resolve()
    assert all(path.resolve().is_relative_to(inside) for path in on_disk(tmp_path))


def test_a_file_and_a_folder_of_one_name_get_along(anna: Browser, tmp_path: Path) -> None:
    upload = anna.begin()
    files = {"A": b"1", "A/B": b"2", "A/B/C": b"3", "D/E": b"4", "D": b"5"}
    anna.send(upload, files)
    assert sorted(path.read_bytes() for path in on_disk(tmp_path)) == [b"1", b"2", b"3", b"4", b"5"]


# -- what a browser says ----------------------------------------------------------------------------------------------


def test_what_was_there_is_not_sent_again_and_what_is_cut_off_goes_on(anna: Browser, tmp_path: Path) -> None:
    upload, data = anna.begin(), os.urandom(50_000)
    [place] = anna.announce(upload, {"IM1": data})
    assert anna.put(upload, place["number"], 0, data[:20_000]).json() == {"there": False, "offset": 20_000}
    [again] = anna.announce(upload, {"IM1": data})
    assert again == {"number": place["number"], "there": False, "offset": 20_000}
    assert anna.send(upload, {"IM1": data, "IM2": b"new"}) == 2
    assert anna.send(upload, {"IM1": data, "IM2": b"new"}) == 0
    assert (tmp_path / "staging" / upload / "files" / "IM1").read_bytes() == data


def test_what_is_twice_in_a_folder_is_sent_once_and_is_there_twice(tmp_path: Path) -> None:
    daemon = Daemon()
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.begin()
        assert anna.send(upload, {"IM1": b"same", "COPY": b"same", "IM2": b"other"}) == 2
        assert anna.finish(upload, 3).status_code == 200
        _until(lambda: bool(daemon.handed))
        assert staged(tmp_path) == ["COPY", "IM1", "IM2"] and daemon.deletes == [True]
        assert (daemon.handed[0] / "COPY").read_bytes() == b"same"


def test_a_file_that_has_changed_meanwhile_takes_the_place_of_what_was_begun(anna: Browser, tmp_path: Path) -> None:
    upload = anna.begin()
    [place] = anna.announce(upload, {"IM1": b"old and long"})
    anna.put(upload, place["number"], 0, b"old")
    assert anna.send(upload, {"IM1": b"new"}) == 1
    assert staged(tmp_path) == ["IM1"] and (tmp_path / "staging" / upload / "files" / "IM1").read_bytes() == b"new"
    assert anna.put(upload, place["number"], 3, b"!").status_code == 404
    assert anna.finish(upload, 1).status_code == 200


def test_lies_about_sizes_offsets_and_contents(anna: Browser, tmp_path: Path) -> None:
    upload = anna.begin()
    [place] = anna.announce(upload, {"IM1": b"12345"})
    number = place["number"]
    assert anna.put(upload, number, 0, b"123456").status_code == 400, "more than was announced"
    assert anna.put(upload, number, 6, b"").status_code == 400
    assert anna.put(upload, number, -1, b"1").status_code == 400
    assert anna.put(upload, number, 10**30, b"1").status_code == 400
    assert anna.put(upload, number, 3, b"45").json() == {"error": "offset", "offset": 0}, "a gap"
    answer = anna.client.put(
        f"/uploads/{upload}/files/{number}?offset=0",
        content=b"12345",
        headers={**ANNA, "Content-Digest": "sha-256=:" + "A" * 43 + "=:"},
    )
    assert answer.status_code == 422 and staged(tmp_path) == []
    assert anna.put(upload, number, 0, b"54321").json() == {"error": "again", "offset": 0}, "other bytes than hashed"
    assert staged(tmp_path) == [] and anna.finish(upload, 1).status_code == 409
    assert anna.put(upload, number, 0, b"12345").json()["there"] is True
    assert anna.put(upload, number, 0, b"xxxxx").json()["there"] is True
    assert (tmp_path / "staging" / upload / "files" / "IM1").read_bytes() == b"12345", "it is never changed again"
    assert anna.put(upload, 99, 0, b"").status_code == 404
    assert anna.finish(upload, 2).status_code == 409, "one that was never announced"


@pytest.mark.parametrize(
    "said",
    [
        "no json",
        "[" * 100_000,
        "[]",
        "{}",
        '{"files": []}',
        '{"files": [1]}',
        '{"files": [{"path": "", "size": 1, "sha256": "", "modified": 0}]}',
        '{"files": [{"path": "a", "size": -1, "sha256": "", "modified": 0}]}',
        '{"files": [{"path": "a", "size": 1.5, "sha256": "", "modified": 0}]}',
        '{"files": [{"path": "a", "size": true, "sha256": "", "modified": 0}]}',
        '{"files": [{"path": "a", "size": 1, "sha256": "xyz", "modified": 0}]}',
        '{"files": [{"path": "a", "size": 1, "sha256": "", "modified": 1e99}]}',
        '{"files": [{"path": "\\ud800", "size": 1, "sha256": "", "modified": 0}]}',
        '{"files": [{"path": "a\\u0000b", "size": 1, "sha256": "", "modified": 0}]}',
        json.dumps({"files": [{"path": "a" * 1025, "size": 1, "sha256": "", "modified": 0}]}),
        json.dumps({"files": [{"path": "a", "size": 1, "sha256": "", "modified": 0}] * 501}),
    ],
)
def test_what_is_no_list_of_files_is_refused(anna: Browser, said: str) -> None:
    upload = anna.begin()
    answer = anna.client.post(f"/uploads/{upload}/files", content=said, headers=ANNA)
    assert answer.status_code == 400


def test_too_much_is_refused(tmp_path: Path, daemon: Daemon) -> None:
    limits = replace(
        LIMITS, piece_bytes=1000, file_bytes=5000, bytes_in_all=8000, open_of_one=2, files=3, listed_at_once=2
    )
    with page(tmp_path, daemon, limits=limits) as client:
        anna = Browser(client, ANNA, 1000)
        upload = anna.begin()

        def announce(size: int, name: str = "IM1") -> httpx.Response:
            one = {"path": name, "size": size, "sha256": "", "modified": 0}
            return client.post(f"/uploads/{upload}/files", content=json.dumps({"files": [one]}), headers=ANNA)

        assert announce(5001).status_code == 413
        assert announce(5000).status_code == 200
        assert announce(3001, "IM2").status_code == 507 and "no room" in announce(3001, "IM2").json()["message"]
        assert anna.put(upload, 1, 0, bytes(1001)).status_code == 413
        anna.begin()
        refused = client.post("/uploads", content=b"{}", headers={**ANNA, "Accept-Language": "de"})
        assert refused.status_code == 409 and "unfertige" in refused.json()["message"]
        assert Browser(client, OTTO).begin(), "which is nothing to anybody else"


def test_a_disk_that_is_full_is_told_and_costs_nothing(
    anna: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = anna.begin()
    [place] = anna.announce(upload, {"IM1": b"12345"})
    with monkeypatch.context() as full:
        full.setattr(Room, "free_bytes", lambda _self: 1)
        assert anna.put(upload, place["number"], 0, b"123").status_code == 507
    with monkeypatch.context() as full:

        def no_room(*_: Any) -> int:
            raise NoRoom("the disk for uploads is full")

        full.setattr(Room, "append", no_room)
        assert anna.put(upload, place["number"], 0, b"123").status_code == 507
    assert anna.put(upload, place["number"], 0, b"12345").json()["there"] is True


def test_two_tabs_that_send_one_file_do_not_mix_it(anna: Browser, tmp_path: Path) -> None:
    data = os.urandom(400_000)
    upload = anna.begin()
    [place] = anna.announce(upload, {"IM1": data})

    def send() -> None:
        offset = 0
        while offset < len(data):
            said = anna.put(upload, place["number"], offset, data[offset : offset + 10_000]).json()
            offset = said["offset"]

    tabs = [threading.Thread(target=send) for _ in range(4)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join(120)
    assert (tmp_path / "staging" / upload / "files" / "IM1").read_bytes() == data


# -- who may what -----------------------------------------------------------------------------------------------------


def test_of_another_persons_upload_nothing_is_to_be_seen_or_had(anna: Browser) -> None:
    upload = anna.begin()
    [place] = anna.announce(upload, {"IM1": b"1"})
    client = anna.client
    requests = [
        ("GET", f"/uploads/{upload}", b""),
        ("GET", f"/uploads/{upload}/state", b""),
        ("POST", f"/uploads/{upload}/files", b'{"files": []}'),
        ("PUT", f"/uploads/{upload}/files/{place['number']}?offset=0", b"1"),
        ("POST", f"/uploads/{upload}/finish", b'{"files": 1}'),
        ("POST", f"/uploads/{upload}/drop", b""),
    ]
    unknown = "0" * 20
    for method, path, body in requests:
        theirs = client.request(method, path, content=body, headers=OTTO)
        nobodys = client.request(method, path.replace(upload, unknown), content=body, headers=OTTO)
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace(upload, unknown) == nobodys.text
        assert client.request(method, path, content=body, headers=as_("anna", READ)).status_code == 403
    assert upload not in client.get("/uploads", headers=OTTO).text
    assert upload in client.get("/uploads", headers=ANNA).text
    for path in ("/uploads/%2e%2e", f"/uploads/{upload.upper()}x", "/uploads/" + "a" * 5000):
        assert client.get(path, headers=ANNA).status_code in (400, 404)


def test_who_may_not_upload_may_not(anna: Browser) -> None:
    for method, path in (("GET", "/upload"), ("GET", "/uploads"), ("POST", "/uploads")):
        assert anna.client.request(method, path, headers=as_("rosa", READ)).status_code == 403
    home = anna.client.get("/", headers=ANNA)
    assert home.url.path == "/uploads", "who may not read is not shown a search"


# -- to the daemon, and its words -------------------------------------------------------------------------------------


def test_it_waits_for_the_daemon_and_says_so(tmp_path: Path, daemon: Daemon) -> None:
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.whole({"IM1": b"1", "IM2": b"2"})
        _until(lambda: "the daemon is not running" in anna.state(upload)["text"])
        assert anna.client.post(f"/uploads/{upload}/drop", headers=ANNA).status_code == 200
        assert "given up" in anna.page(upload)


def test_its_words_are_shown_word_for_word_with_the_names_from_where_the_files_come(tmp_path: Path) -> None:
    name = "Meier, Rosa/<img src=x onerror=alert(1)>.dcm"
    daemon = Daemon()
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.whole({"IM1": b"1", name: b"2"})
        _until(lambda: anna.state(upload)["stage"] == "handed in")
        [place] = [one for one in staged(tmp_path) if one != "IM1"]
        daemon.result = {
            "done": True,
            "outcome": "finished",
            "complete": False,
            "files": 2,
            "verified": 1,
            "ignored": 0,
            "deleted": 1,
            "failed": [{"name": place, "reason": "damaged <b>here</b>"}],
            "failed_files": 1,
            "path": "/somewhere",
        }
        _until(lambda: anna.state(upload)["ended"] is True)
        html = anna.page(upload)
        assert "1 of 2 files is verified in the archive." in html
        assert "Do not delete what is left: the archive does not hold all of it." in html
        assert "Meier, Rosa/&lt;img src=x onerror=alert(1)&gt;.dcm" in html and "<img" not in html and "<b>" not in html
        assert place not in html and "/somewhere" not in html and "Not everything is in the archive." in html
        german = client.get(f"/uploads/{upload}", headers=as_("anna", UPLOAD, "de")).text
        assert "Nicht alles ist im Archiv." in german and "1 of 2 files is verified in the archive." in german


def test_an_answer_that_was_lost_hands_nothing_in_twice(tmp_path: Path) -> None:
    daemon = Daemon(loses_the_answer=True)
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.whole({"IM1": b"1"})
        _until(lambda: anna.state(upload)["stage"] == "handed in")
        assert len(daemon.handed) == 1
        assert client.post(f"/uploads/{upload}/drop", headers=ANNA).status_code == 200
        assert anna.state(upload)["stage"] == "handed in", "what the daemon has is the daemon's"


def test_a_daemon_that_has_no_place_is_asked_again(tmp_path: Path) -> None:
    daemon = Daemon(refuses=True)
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.whole({"IM1": b"1"})
        _until(lambda: "too many folders" in anna.state(upload)["text"])
        daemon.refuses = False
        _until(lambda: anna.state(upload)["stage"] == "handed in")


@contextmanager
def custody(root: Path, daemon: Daemon, clock: FakeClock) -> Iterator[tuple[Custody, Book, Room]]:
    (root / "staging").mkdir(exist_ok=True)
    with ExitStack() as stack:
        book = Book(root / "staging" / "uploads.db")
        stack.callback(book.close)
        room = Room(root / "staging")
        yield Custody(book, room, daemon, LIMITS, Log(), clock), book, room


def test_what_nobody_goes_on_with_goes_and_what_the_daemon_has_stays(tmp_path: Path) -> None:
    clock, daemon = FakeClock(), Daemon()
    with custody(tmp_path, daemon, clock) as (keeper, book, room):
        for upload_id in ("1" * 20, "2" * 20):
            room.make(upload_id)
            book.begin(upload_id, "anna", clock.now())
            [row] = book.announce(upload_id, [Announced("IM1", 1, "", 0)], clock.now())
            room.append(upload_id, row.number, 0, b"1")
        room.finish("2" * 20, 1, "IM1", 1, "")
        book.is_there("2" * 20, 1, clock.now())
        assert book.step("2" * 20, Stage.OPEN, Stage.WHOLE, clock.now())
        keeper.tick()
        assert len(daemon.handed) == 1 and len(on_disk(tmp_path)) == 2
        clock.advance(LIMITS.open_seconds + 1)
        keeper.tick()
        left = book.upload("1" * 20)
        assert left is not None and left.stage is Stage.DROPPED and left.removed_at is not None
        assert book.files("1" * 20, FileState.COMING) == [] and len(on_disk(tmp_path)) == 1
        clock.advance(100 * LIMITS.ended_seconds)
        keeper.tick()
        assert len(on_disk(tmp_path)) == 1, "as long as the daemon has not said that it has ended"
        daemon.result = {
            "done": True,
            "files": 1,
            "verified": 0,
            "failed": [],
            "failed_files": 1,
            "outcome": "finished",
        }
        keeper.tick()
        assert len(on_disk(tmp_path)) == 1
        clock.advance(LIMITS.ended_seconds + 1)
        keeper.tick()
        assert on_disk(tmp_path) == []


def test_what_the_page_shows_of_an_unfinished_one(anna: Browser) -> None:
    upload = anna.begin()
    anna.announce(upload, {"IM1": b"1", "IM2": b"2"})
    anna.send(upload, {"IM1": b"1"})
    html = anna.page(upload)
    assert "1 of 2 files have arrived" in html and f'data-upload="{upload}"' in html
    assert '<label for="folder">' in html and 'role="status"' in html


def test_no_script_or_style_stands_in_a_page(anna: Browser) -> None:
    for path in ("/upload", "/uploads", f"/uploads/{anna.begin()}"):
        html = anna.client.get(path, headers=ANNA).text
        assert "<style" not in html and " style=" not in html and " onclick=" not in html
        assert all(one.startswith(' src="/page-static/') for one in html.split("<script")[1:])
        assert anna.client.get(path, headers=ANNA).headers["cache-control"] == "no-store"
    for name in ("page.css", "upload.js", "state.js"):
        assert anna.client.get(f"/page-static/{name}", headers=ANNA).status_code == 200


def test_the_language_is_remembered_and_the_way_back_is_ours(anna: Browser) -> None:
    def choose(back: str) -> httpx.Response:
        return anna.client.post(
            "/language", data={"language": "de", "back": back}, headers=ANNA, follow_redirects=False
        )

    answer = choose("/uploads")
    assert answer.headers["location"] == "/uploads" and "page_language=de" in answer.headers["set-cookie"]
    assert "Meine Uploads" in anna.client.get("/uploads", headers=ANNA).text
    for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/x\r\nA: b"):
        assert choose(elsewhere).headers["location"] == "/"


def _until(condition: Any) -> None:
    import time

    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_person_has_a_role() -> None:
    assert Person("anna", UPLOAD).roles == UPLOAD


def test_folders_that_the_daemon_has_left_empty_are_nothing_of_an_upload(tmp_path: Path) -> None:
    with custody(tmp_path, Daemon(), FakeClock()) as (_keeper, _book, room):
        room.make("1" * 20)
        assert room.is_empty("1" * 20)
        room.append("1" * 20, 1, 0, b"1")
        room.finish("1" * 20, 1, "A/B/C", 1, "")
        assert not room.is_empty("1" * 20)
        (room.files("1" * 20) / "A" / "B" / "C").unlink()
        assert room.is_empty("1" * 20) and room.is_empty("2" * 20)
