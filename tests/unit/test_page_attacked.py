"""Ways in which an upload through the page could come to be called safe although not all of it was handed in: two tabs,
two discs in one upload, contents that change, requests that are late, a disc that is nearly full."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.errors import DicomwatchdError, StateFailed
from dicomwatchd.web.pages.limits import LIMITS
from dicomwatchd.web.pages.staging import room as module
from dicomwatchd.web.pages.staging.book import Announced, Book, FileState, NotOpen, Stage
from dicomwatchd.web.pages.staging.custody import Custody
from dicomwatchd.web.pages.staging.room import NotAsAnnounced, Room, sum_of
from tests.page import Browser, Daemon, page
from tests.pieces import FakeClock, Log
from tests.unit.test_page_uploads import ANNA

UPLOAD = "1" * 20


@pytest.fixture
def anna(tmp_path: Path) -> Iterator[Browser]:
    with page(tmp_path, Daemon(runs=False)) as client:
        yield Browser(client, ANNA)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "uploads.db")
    book.begin(UPLOAD, "anna", 0.0)
    yield book
    book.close()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    room = Room(tmp_path)
    room.make(UPLOAD)
    return room


def announced(name: str, data: bytes) -> Announced:
    return Announced(name, len(data), hashlib.sha256(data).hexdigest(), 1)


# -- what is called whole -----------------------------------------------------------------------------------------


def test_another_disc_in_the_same_upload_does_not_make_the_first_one_whole(anna: Browser) -> None:
    """Of the first disc the browser was closed between two lots: what was announced of it is there, the rest is not."""
    upload = anna.begin()
    anna.send(upload, {f"A/IM{n}": b"first %d" % n for n in range(3)})  # of 500
    second = {f"B/IM{n}": b"second %d" % n for n in range(2)}
    anna.send(upload, second)
    refused = anna.finish(upload, len(second))
    assert refused.status_code == 409 and "3 files that are not among those chosen now" in refused.json()["message"]
    assert anna.state(upload)["stage"] == "open"


def test_a_second_tab_does_not_end_what_the_first_one_is_at(anna: Browser) -> None:
    upload = anna.begin()
    anna.send(upload, {"A/IM1": b"1", "A/IM2": b"2"})
    assert anna.finish(upload, 1).status_code == 409
    [place] = anna.announce(upload, {"A/IM3": b"3"})
    assert anna.put(upload, place["number"], 0, b"3").json()["there"] is True
    assert anna.finish(upload, 3).status_code == 200


@pytest.mark.parametrize("said", [0, -1, -(10**30), True])
def test_no_number_of_files_makes_an_empty_upload_whole(anna: Browser, said: Any) -> None:
    upload = anna.begin()
    answer = anna.client.post(f"/uploads/{upload}/finish", content=json.dumps({"files": said}), headers=ANNA)
    assert answer.status_code in (400, 409) and anna.state(upload)["stage"] == "open"


def test_nothing_is_announced_in_what_is_whole(book: Book) -> None:
    """A tab that asked before the other one has ended it is told that its files do not come along."""
    [row] = book.announce(UPLOAD, [announced("IM1", b"1")], 0.0)
    book.is_there(UPLOAD, row.number, 0.0)
    assert book.close_if_whole(UPLOAD, 1, 0.0) is None
    with pytest.raises(NotOpen):
        book.announce(UPLOAD, [announced("IM2", b"2")], 0.0)
    with pytest.raises(NotOpen):
        book.close_if_whole(UPLOAD, 1, 0.0)
    assert book.sums(UPLOAD).files == 1


def test_images_of_another_disc_with_the_same_name_size_and_time_are_not_taken_for_there(anna: Browser) -> None:
    """Whose hash is not known: discs whose burner writes no times have nothing else that differs."""
    upload = anna.begin()
    assert anna.send(upload, {"IM1": b"one patient"}, hashed=False) == 1
    [place] = anna.announce(upload, {"IM1": b"the other's"}, hashed=False)
    assert place["there"] is False and place["offset"] == 0
    anna.put(upload, place["number"], 0, b"the o")
    [again] = anna.announce(upload, {"IM1": b"a third one"}, hashed=False)
    assert again["offset"] == 0 and again["number"] != place["number"], "nor is it gone on with"


# -- what lies under a name -------------------------------------------------------------------------------------------


def test_what_was_to_be_copied_from_a_file_that_has_changed_comes_by_itself(anna: Browser, tmp_path: Path) -> None:
    upload = anna.begin()
    anna.announce(upload, {"IM1": b"same", "IM2": b"same"})
    anna.send(upload, {"IM1": b"changed"})
    assert anna.finish(upload, 2).status_code == 409, "the second was never sent"
    assert anna.send(upload, {"IM1": b"changed", "IM2": b"same"}) == 1
    assert anna.finish(upload, 2).status_code == 200
    files = tmp_path / "staging" / upload / "files"
    assert ((files / "IM1").read_bytes(), (files / "IM2").read_bytes()) == (b"changed", b"same")


def test_a_late_request_of_an_older_content_does_not_pass_for_the_newer_one(book: Book, room: Room) -> None:
    [old] = book.announce(UPLOAD, [announced("IM1", b"older")], 0.0)
    room.append(UPLOAD, old.number, 0, b"older")
    [new] = book.announce(UPLOAD, [announced("IM1", b"newer")], 0.0)
    room.finish(UPLOAD, old.number, old.place, old.size_bytes, old.sha256)  # it had looked before
    book.is_there(UPLOAD, old.number, 0.0)
    assert book.sums(UPLOAD).there == 0, "it is not of this upload any more"
    room.append(UPLOAD, new.number, 0, b"newer")
    with pytest.raises(StateFailed, match="is not what was announced"):
        room.finish(UPLOAD, new.number, new.place, new.size_bytes, new.sha256)


def test_a_copy_is_compared_too(book: Book, room: Room) -> None:
    one = announced("IM1", b"content")
    room.append(UPLOAD, 1, 0, b"content")
    room.finish(UPLOAD, 1, "IM1", one.size_bytes, one.sha256)
    (room.files(UPLOAD) / "IM1").write_bytes(b"contend")
    with pytest.raises(StateFailed, match="is not what was announced"):
        room.copy(UPLOAD, 2, "IM2", "IM1", one.size_bytes, one.sha256)
    assert not (room.files(UPLOAD) / "IM2").exists()


def test_a_disc_that_takes_half_of_what_is_written_loses_nothing_of_a_copy(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(300_000)
    one, write = announced("IM1", data), os.write
    room.append(UPLOAD, 1, 0, data)
    room.finish(UPLOAD, 1, "IM1", one.size_bytes, one.sha256)
    monkeypatch.setattr(os, "write", lambda fd, piece: write(fd, piece[: max(1, len(piece) // 2)]))
    room.copy(UPLOAD, 2, "IM2", "IM1", one.size_bytes, one.sha256)
    assert (room.files(UPLOAD) / "IM2").read_bytes() == data


@pytest.mark.parametrize("size_bytes", [1, 7 << 20, 8 << 20, (8 << 20) + 1, 11 << 20, 16 << 20])
def test_a_large_file_is_compared_by_the_sums_of_its_pieces(room: Room, size_bytes: int, tmp_path: Path) -> None:
    """As upload.js hashes what it does not have in memory as a whole."""
    data = os.urandom(1 << 20) * (size_bytes >> 20) + b"x" * (size_bytes % (1 << 20))
    sums = [hashlib.sha256(data[at : at + (8 << 20)]).digest() for at in range(0, len(data), 8 << 20)]
    said = "pieces-" + hashlib.sha256(b"".join(sums)).hexdigest()
    room.append(UPLOAD, 1, 0, data)
    with (tmp_path / UPLOAD / "parts" / "0000001").open("rb") as file:
        assert sum_of(file.fileno(), said) == said
    room.append(UPLOAD, 2, 0, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(NotAsAnnounced):
        room.finish(UPLOAD, 2, "IM2", len(data), said)
    room.finish(UPLOAD, 1, "IM1", len(data), said)


def test_large_files_are_announced_by_such_sums(anna: Browser) -> None:
    upload, data = anna.begin(), b"a large file"
    said = "pieces-" + hashlib.sha256(hashlib.sha256(data).digest()).hexdigest()
    one = {"path": "IM1", "size": len(data), "sha256": said, "modified": 1}

    def announce() -> dict[str, Any]:
        answer = anna.client.post(f"/uploads/{upload}/files", content=json.dumps({"files": [one]}), headers=ANNA)
        found: dict[str, Any] = answer.json()["files"][0]
        return found

    number = announce()["number"]
    anna.put(upload, number, 0, data[:5])
    assert announce()["offset"] == 5, "it goes on"
    assert anna.put(upload, number, 5, b"another").json() == {"error": "again", "offset": 0}
    assert anna.put(upload, number, 0, data).json()["there"] is True and announce()["there"] is True
    script = anna.client.get("/page-static/upload.js").text
    assert f"HASHED_PIECE_BYTES = {module.PIECE_BYTES >> 20} * 1024 * 1024" in script and '"pieces-"' in script


# -- what is said later, and what stays -------------------------------------------------------------------------------

RESULT: dict[str, Any] = {
    "done": True,
    "outcome": "finished",
    "complete": True,
    "files": 2,
    "verified": 1,
    "ignored": 1,
    "not_dicom": 1,
    "deleted": 1,
    "failed": [],
    "failed_files": 0,
    "ended_at": "2026-03-01T12:00:00.000Z",
}


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_the_headline_does_not_call_everything_safe_when_only_the_images_are(tmp_path: Path) -> None:
    daemon = Daemon()
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.whole({"IM1": b"1", "Report.pdf": b"%PDF-"})
        daemon.result = RESULT
        until(lambda: anna.state(upload)["ended"] is True)
        html = anna.page(upload)
    assert "Other files, which are not in the archive: 1." in html and "Everything is verified" not in html
    assert "2026-03-01" in html[html.index('id="as-of"') :], "it says of when it is"


@pytest.mark.parametrize("others", [0, 1])
def test_what_is_verified_and_held_is_no_reason_to_throw_a_disc_away(tmp_path: Path, others: int) -> None:
    daemon = Daemon()
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.whole({"IM1": b"1", "IM2": b"2"})
        daemon.result = {
            **RESULT,
            "verified": 2 - others,
            "ignored": others,
            "not_dicom": others,
            "deleted": 0,
            "held": 1,
        }
        until(lambda: anna.state(upload)["ended"] is True)
        html, listed = anna.page(upload), client.get("/uploads", headers=ANNA).text
    assert 'class="held"' in html and 'class="good"' not in html + listed
    assert "All DICOM files are verified in the archive, but a study is held." in html
    assert "What was not archived" not in html and "until an administrator has decided" in html
    assert "but a study is held" in listed


def test_a_person_may_throw_away_what_is_left_and_no_name_stays(tmp_path: Path) -> None:
    """As after an erasure: what the daemon did not archive would name its patient for another thirty days."""
    daemon = Daemon()
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.whole({"MEIER.dcm": b"1", "MEIER.zip": b"2"})
        until(lambda: bool(daemon.handed))
        names = {path.suffix: path.name for path in daemon.handed[0].iterdir()}
        failed = {"failed": [{"name": names[".dcm"], "reason": "damaged"}], "failed_files": 1}
        daemon.result = {**RESULT, **failed, "complete": False, "not_opened": [names[".zip"]]}
        until(lambda: anna.state(upload)["ended"] is True)
        assert "MEIER.dcm" in anna.page(upload)
        assert client.post(f"/uploads/{upload}/drop", headers={**ANNA, "X-Person": "otto:upload"}).status_code == 404
        assert client.post(f"/uploads/{upload}/drop", headers=ANNA).status_code == 200
        until(lambda: not (tmp_path / "staging" / upload).exists())
        until(lambda: "Nothing of this upload is left" in anna.page(upload))
        assert "MEIER" not in anna.page(upload)
        assert "Not everything is in the archive." in anna.page(upload)
        left = [path for path in (tmp_path / "staging").rglob("*") if path.is_file()]
        until(lambda: all(b"MEIER" not in path.read_bytes() for path in left if path.exists()), seconds=10)


def test_what_the_daemon_works_at_is_not_thrown_away_by_anybody(tmp_path: Path) -> None:
    daemon = Daemon()
    with page(tmp_path, daemon) as client:
        anna = Browser(client, ANNA)
        upload = anna.whole({"IM1": b"1"})
        until(lambda: anna.state(upload)["stage"] == "handed in")
        client.post(f"/uploads/{upload}/drop", headers=ANNA)
        time.sleep(0.5)
        assert (daemon.handed[0] / "IM1").exists() and anna.state(upload)["stage"] == "handed in"


# -- giving up, and handing in ----------------------------------------------------------------------------------------


class Slow(Daemon):
    """Takes a folder in, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def call(self, command: str, *, descriptor: int | None = None, **arguments: Any) -> Any:
        said = super().call(command, descriptor=descriptor, **arguments)
        if command == "upload-folder":
            self.asked.set()
            assert self.may_answer.wait(120)
        return said


def test_what_the_daemon_is_just_taking_in_is_not_thrown_away(tmp_path: Path, book: Book, room: Room) -> None:
    daemon = Slow()
    custody = Custody(book, room, daemon, LIMITS, Log(), FakeClock())
    [row] = book.announce(UPLOAD, [announced("IM1", b"1")], 0.0)
    room.append(UPLOAD, row.number, 0, b"1")
    room.finish(UPLOAD, row.number, row.place, 1, row.sha256)
    book.is_there(UPLOAD, row.number, 0.0)
    assert book.close_if_whole(UPLOAD, 1, 0.0) is None
    upload = book.upload(UPLOAD)
    assert upload is not None
    handing_in = threading.Thread(target=custody.tick)
    handing_in.start()
    assert daemon.asked.wait(120)
    dropping = threading.Thread(target=custody.drop, args=(upload,))
    dropping.start()
    dropping.join(1)
    daemon.may_answer.set()
    handing_in.join(120)
    dropping.join(120)
    custody.tick()
    now = book.upload(UPLOAD)
    assert now is not None and now.stage is Stage.HANDED_IN
    assert (room.files(UPLOAD) / "IM1").exists()


def test_what_was_given_up_before_is_not_handed_in(book: Book, room: Room) -> None:
    daemon = Daemon()
    custody = Custody(book, room, daemon, LIMITS, Log(), FakeClock())
    [row] = book.announce(UPLOAD, [announced("IM1", b"1")], 0.0)
    book.is_there(UPLOAD, row.number, 0.0)
    assert book.close_if_whole(UPLOAD, 1, 0.0) is None
    listed = book.upload(UPLOAD)
    assert listed is not None
    custody.drop(listed)
    with suppress(DicomwatchdError):
        custody._hand_in(listed)
    assert daemon.handed == []
    assert book.files(UPLOAD, FileState.COMING) == []
