"""Clause by clause: what a last look must not pass over, and what must not be called complete."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.intake import final_scan
from dicomwatchd.intake.final_scan import FinalScan, Findings
from dicomwatchd.intake.folder.mounts import root_of
from dicomwatchd.intake.folder.own_trees import OWN_TREE
from dicomwatchd.localfiles import open_root
from dicomwatchd.model import FileIdentity, FileState
from dicomwatchd.queue.rows import UNREADABLE, Root, Source, TrackedFile, identity_text
from dicomwatchd.queue.uploads import Upload, UploadProgress
from dicomwatchd.upload_result import CANCELLED, FINISHED, GONE, of_ended
from dicomwatchd.upload_text import all_verified, sentences
from tests.unit.uploading import unlistable

FILES = (b"IM1", b"A/IM2", b"A/B/IM3")


class Bench:
    """A folder of three files, all of them on record as archived."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[bytes, dict[bytes, TrackedFile]] = {}
        for number, path in enumerate(FILES):
            place = folder / os.fsdecode(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path)
            self.record(path, number=number)
        self.gone: list[tuple[bytes, str]] = []
        self.unread: dict[bytes, int] = {}
        fd = open_root(os.fsencode(folder))
        self.root = root_of(fd)
        os.close(fd)

    def record(
        self, path: bytes, state: FileState = FileState.KEPT, *, code: str | None = None, number: int = 9
    ) -> None:
        parent, _, name = path.rpartition(b"/")
        found = (self.folder / os.fsdecode(path)).lstat()
        self.records.setdefault(parent, {})[name] = TrackedFile(
            number, identity_text(FileIdentity.of(found)), state, code
        )

    def look(self, meanwhile: Callable[[], object] = lambda: None, *, through: Path | None = None) -> Findings:
        """``through``: another folder that was opened in place of this one."""

        def directories() -> list[bytes]:
            meanwhile()
            return sorted(self.records)

        look = FinalScan(
            os.fsencode(self.folder),
            self.root,
            lambda parent: self.records.get(parent, {}),
            directories,
            lambda limit: (len(self.gone), self.gone[:limit]),
            lambda: self.unread,
        )
        fd = open_root(os.fsencode(through or self.folder))
        try:
            look(fd, lambda: None)
        finally:
            os.close(fd)
        assert look.findings is not None and not look.failed
        return look.findings


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "stick")


def odd(findings: Findings) -> list[bytes]:
    assert not findings.accounted_for
    return [path for path, _ in findings.named]


def test_all_in_order(bench: Bench) -> None:
    findings = bench.look()
    assert findings.accounted_for and findings.archived == 3 and not findings.news


def test_a_file_without_a_record(bench: Bench) -> None:
    (bench.folder / "A" / "LATE").touch()
    assert odd(findings := bench.look()) == [b"A/LATE"] and findings.news


@pytest.mark.parametrize("state", [FileState.READY, FileState.STORED, FileState.DELETING])
def test_a_file_that_has_come_to_no_end(state: FileState, bench: Bench) -> None:
    bench.record(b"A/IM2", state)
    assert odd(bench.look()) == [b"A/IM2"]


def test_a_file_in_quarantine_is_named_by_the_queue(bench: Bench) -> None:
    bench.record(b"A/IM2", FileState.QUARANTINED, code="no-dicom")
    findings = bench.look()
    assert not findings.accounted_for and not findings.named and (findings.archived, findings.barred) == (2, 1)


def test_a_file_that_could_not_be_read(bench: Bench) -> None:
    bench.record(b"A/IM2", FileState.QUARANTINED, code=UNREADABLE)
    assert odd(bench.look()) == [b"A/IM2"]
    del bench.records[b"A"][b"IM2"]
    bench.unread[b"A/IM2"] = 5
    findings = bench.look()
    assert odd(findings) == [b"A/IM2"] and "EIO" in findings.named[0][1]


def test_a_table_of_contents(bench: Bench) -> None:
    bench.record(b"A/IM2", FileState.IGNORED, code="dicomdir")
    findings = bench.look()
    assert findings.accounted_for and (findings.archived, findings.ignored) == (2, 1)


@pytest.mark.parametrize("field", range(5))
def test_a_file_that_is_another_one_in_any_respect(field: int, bench: Bench) -> None:
    known = bench.records[b"A"][b"IM2"]
    parts = known.identity.split(":")
    parts[field] = str(int(parts[field]) + 1)
    bench.records[b"A"][b"IM2"] = known._replace(identity=":".join(parts))
    assert odd(bench.look()) == [b"A/IM2"]


def test_a_record_without_its_file(bench: Bench) -> None:
    (bench.folder / "A" / "IM2").unlink()
    assert odd(findings := bench.look()) == [b"A/IM2"] and findings.news


def test_a_record_without_its_folder(bench: Bench) -> None:
    shutil.rmtree(bench.folder / "A")
    assert set(odd(bench.look())) == {b"A/IM2", b"A/B/IM3"}


def test_what_the_queue_knows_to_have_vanished(bench: Bench) -> None:
    bench.gone = [(b"A/OLD", "seen"), (b"A/OLDER", "verified"), (b"A/OLDEST", "unknown")]
    assert odd(bench.look()) == [path for path, _ in bench.gone]


def test_more_than_are_listed_count(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_scan, "LISTED", 2)
    bench.gone = [(b"%d" % number, "seen") for number in range(5)]
    findings = bench.look()
    assert findings.odd == 5 and len(findings.named) == 2


def test_another_folder_than_the_one_handed_in(bench: Bench) -> None:
    bench.root = Root(bench.root.device, bench.root.inode + 1, bench.root.file_system)
    assert odd(findings := bench.look()) == [b""] and findings.archived == 0


def test_another_folder_mounted_over_it_in_the_end(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's name of the open folder is as before; where the path leads now is another folder."""
    (tmp_path / "over").mkdir()
    monkeypatch.setattr(final_scan, "open_root", lambda path: open_root(os.fsencode(tmp_path / "over")))
    assert odd(findings := bench.look()) == [b""] and findings.archived == 3 and findings.news


def test_another_folder_that_was_there_for_a_moment(bench: Bench, tmp_path: Path) -> None:
    for parent, known in bench.records.items():
        for name in known:
            (tmp_path / "other" / os.fsdecode(parent)).mkdir(parents=True, exist_ok=True)
            os.link(
                *(folder / os.fsdecode(parent) / os.fsdecode(name) for folder in (bench.folder, tmp_path / "other"))
            )
            bench.record(b"/".join(part for part in (parent, name) if part))  # a link moves the ctime
    assert bench.look().accounted_for
    assert odd(bench.look(through=tmp_path / "other")) == [b""]


@pytest.mark.parametrize("instead", [False, True])
def test_a_folder_that_is_taken_away_while_it_is_looked_at(instead: bool, bench: Bench) -> None:
    def take_away() -> None:
        bench.folder.rename(bench.folder.with_name("gone"))
        if instead:
            shutil.copytree(bench.folder.with_name("gone"), bench.folder)

    assert odd(bench.look(take_away)) == [b""]


def test_a_folder_that_cannot_be_listed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with unlistable(monkeypatch, b"A"):
        findings = bench.look()
    assert b"A" in odd(findings) and "read access" in dict(findings.named)[b"A"]


def test_an_entry_that_cannot_be_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    class Entry:
        name = "BAD"

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            raise OSError(errno.EIO, "I/O error")

    @contextmanager
    def scan(fd: int) -> Iterator[Iterable[object]]:
        with real(fd) as entries:
            yield [*entries, Entry()]

    monkeypatch.setattr(os, "scandir", scan)
    assert odd(bench.look()) == [b"BAD", b"A/BAD", b"A/B/BAD"]


def test_what_lies_too_deep(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_scan, "MAX_DEPTH", 1)
    (bench.folder / "A" / "B" / "C").mkdir()
    assert odd(bench.look()) == [b"A/B"]


def test_private_names(bench: Bench) -> None:
    (bench.folder / ".dicomwatchd-aside" / "A").mkdir(parents=True)
    assert bench.look().accounted_for, "empty folders are nothing"
    (bench.folder / ".dicomwatchd-aside" / "A" / "IM9").touch()
    assert odd(bench.look()) == [b".dicomwatchd-aside/A/IM9"]


def test_an_archives_own_folder(bench: Bench) -> None:
    (bench.folder / "A" / ".dicomwatchd-archive").touch()
    assert odd(findings := bench.look())[0] == b"A" and findings.news
    bench.records = {
        b"": bench.records[b""],
        b"A": {b".dicomwatchd-archive": TrackedFile(7, "1:2:0:0:0", FileState.QUARANTINED, OWN_TREE)},
    }
    findings = bench.look()
    assert not findings.accounted_for and (findings.barred, findings.named) == (1, [])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Root(1, 2, "f"), Root(9, 2, "f"), True),  # the same stick under another device number
        (Root(1, 2, "f"), Root(1, 2, "g"), False),  # another stick under the same
        (Root(1, 2, "f"), Root(1, 3, "f"), False),
        (Root(1, 2, ""), Root(1, 2, ""), True),
        (Root(1, 2, ""), Root(9, 2, ""), False),
        (Root(1, 2, ""), Root(1, 3, ""), False),
        (Root(1, 2, "f"), Root(1, 2, ""), True),
        (Root(1, 2, "f"), Root(9, 2, ""), False),
        (Root(1, 2, "f", "1/5"), Root(9, 2, "f", "1/5"), True),
        (Root(1, 2, "f", "1/5"), Root(1, 2, "f", "1/6"), False),  # the inode was given again
        (Root(1, 2, "", "1/5"), Root(1, 2, "", "2/5"), False),
        (Root(1, 2, "f", "1/5"), Root(1, 2, "f"), True),  # of an older state
    ],
)
def test_which_folder_is_the_same(one: Root, other: Root, same: bool) -> None:
    assert one.is_same(other) == other.is_same(one) == same


# -- the word ---------------------------------------------------------------------------------------------------------

UPLOAD = Upload(Source(1, "upload-1", b"/stick", "upload", False), Root(1, 2, ""), 1_800_000_000.0, "running")
DONE = UploadProgress(
    files=4, size_bytes=30, verified=3, verified_size_bytes=30, deleted=1, ignored=1, waiting=0, failed=0, deleting=0
)
FOUND = Findings(archived=2, ignored=1)


def test_nothing_is_deletable_while_the_archive_would_end_its_objects() -> None:
    result = of_ended(UPLOAD, DONE, [], FINISHED, FOUND, 1_800_000_001.0, "a rule of the bucket ends objects")
    assert not result["complete"] and not result["deletable"] and not all_verified(result)
    said = "\n".join(sentences(result, delete=False))
    assert "may now" not in said and "Do not delete what is left: a rule of the bucket ends objects." in said


def test_complete() -> None:
    result = of_ended(UPLOAD, DONE, [], FINISHED, FOUND, 1_800_000_001.0)
    assert result["complete"] and result["deletable"] and all_verified(result)


@pytest.mark.parametrize(
    ("progress", "findings", "outcome"),
    [
        (DONE, FOUND, CANCELLED),
        (DONE, FOUND, GONE),
        (DONE, None, FINISHED),
        (DONE, replace(FOUND, odd=1), FINISHED),
        (DONE, replace(FOUND, barred=1), FINISHED),
        (replace(DONE, failed=1), FOUND, FINISHED),
        (replace(DONE, verified=4, files=5), FOUND, FINISHED),
        (replace(DONE, ignored=2, files=5), FOUND, FINISHED),
        (replace(DONE, files=5), FOUND, FINISHED),
        (DONE, replace(FOUND, archived=3), FINISHED),
        (DONE, replace(FOUND, ignored=0), FINISHED),
        (replace(DONE, files=1, verified=0, deleted=0), replace(FOUND, archived=0), FINISHED),
    ],
)
def test_not_complete(progress: UploadProgress, findings: Findings | None, outcome: str) -> None:
    result = of_ended(UPLOAD, progress, [], outcome, findings, 1_800_000_001.0)
    assert not result["complete"] and not result["deletable"] and not all_verified(result)
    assert "may now" not in "\n".join(sentences(result, delete=False))
