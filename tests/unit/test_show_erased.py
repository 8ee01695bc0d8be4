"""What is said of a study that was erased to a person who asks for it by its UID, and to a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import api
from dicomwatchd.archive.identity import read_identity
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.errors import CredentialsRefused, StudyErased, StudyNotFound
from tests.unit.memory_archive import OTHER_SERIES, SERIES, STUDY, content
from tests.unit.test_cli_archive import Site, bare, site

__all__ = ["bare", "site"]

AT = "2026-11-30T09:15:00.000Z"
BECAUSE = "request 17/2026\x1b[2J"


@pytest.fixture
def erased(site: Site) -> Site:
    """Nothing is left of the study."""
    put_on_record(site, through=101)
    return site


def put_on_record(site: Site, *, through: int) -> None:
    store = site.store()
    identity = read_identity(store)
    assert identity is not None
    erasure = Erasure(identity.archive_id, STUDY, 1, AT, BECAUSE, 1000, "eraser", through)
    assert erasures.create(store, erasure)


def test_show_says_when_by_whom_and_why(erased: Site) -> None:
    result = erased.ctl("show", STUDY)
    assert result.exit_code == 1
    lines = [line.split(None, 1) for line in result.stdout.splitlines()]
    assert ["Archive", "does not hold it any more: it was erased"] in lines
    assert ["Erased", f"{AT}, by eraser"] in lines and ["Because", "request 17/2026\ufffd[2J"] in lines


def test_show_says_it_to_a_program(erased: Site) -> None:
    said = erased.json("show", STUDY, code=1)
    assert said["archive"] is None and said["local"] is None
    assert said["erased"] == {
        "number": 1,
        "erased_at": AT,
        "because": BECAUSE,
        "erased_by": {"uid": 1000, "login": "eraser"},
    }


def test_show_of_a_study_that_was_not_erased(site: Site) -> None:
    site.add([(SERIES, "1.2.1", content(1))])
    assert site.json("show", STUDY)["erased"] is None and "rased" not in site.ctl("show", STUDY).stdout
    unknown = site.ctl("show", "1.2.3")
    assert unknown.exit_code == 1 and unknown.stdout == "" and "not known here" in unknown.stderr


def test_a_study_that_is_there_again(site: Site) -> None:
    """Archived once more since, above what counts as erased: that it was erased before is said beside."""
    put_on_record(site, through=0)
    site.add([(SERIES, "1.2.1", content(1)), (OTHER_SERIES, "1.2.2", content(2))])
    said = site.json("show", STUDY)
    assert said["archive"]["revision"] == 1 and said["erased"]["erased_at"] == AT
    lines = [line.split(None, 1) for line in site.ctl("show", STUDY).stdout.splitlines()]
    assert ["Erased", f"{AT}, by eraser, and archived again since"] in lines


@pytest.mark.parametrize("command", ["fetch", "verify", "show"])
def test_the_commands_agree(erased: Site, tmp_path: Path, command: str) -> None:
    more = ("-o", str(tmp_path / "out")) if command == "fetch" else ()
    result = erased.ctl(command, STUDY, *more)
    assert result.exit_code == 1
    assert f"study {STUDY} was erased from the archive at {AT}" in result.stderr
    assert "the reason given: request 17/2026\ufffd[2J" in result.stderr


@pytest.mark.parametrize("command", ["fetch", "verify", "show"])
def test_an_erasure_that_was_interrupted(site: Site, tmp_path: Path, command: str) -> None:
    """Nothing that is left of the patient is shown."""
    site.add([(SERIES, "1.2.1", content(1))])
    put_on_record(site, through=101)
    more = ("-o", str(tmp_path / "out")) if command == "fetch" else ()
    result = site.ctl(command, STUDY, *more)
    assert result.exit_code == 1 and "was erased from the archive" in result.stderr
    assert "canary" not in result.output.lower()
    if command == "verify":
        assert "archive erase" in result.stderr and "the reason given: request 17/2026\ufffd[2J" in result.stderr


def test_who_may_not_list_erasures_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add([(SERIES, "1.2.1", content(1))])

    def refused(*_: Any) -> Any:
        raise CredentialsRefused("no")

    monkeypatch.setattr("dicomwatchd.archive.layout.erasures.newest", refused)
    said = site.json("show", STUDY)
    assert said["erased"] is None and any("may not list what was erased" in text for text in said["notes"])


def test_a_search_asks_for_no_erasure(erased: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.archive.stores.directory.store.DirectoryStore.listing", lambda *_: 1 / 0)
    assert erased.json("search")["studies"] == []


def test_a_script_is_told(erased: Site) -> None:
    with api.open_archive(erased.config) as archive:
        for ask in (archive.study, archive.manifest):
            with pytest.raises(StudyErased) as refused:
                ask(STUDY)
            assert refused.value.code == "study-erased" and AT in refused.value.message
            assert refused.value.because == BECAUSE and BECAUSE not in str(refused.value)
        with pytest.raises(StudyNotFound) as unknown:
            archive.study("1.2.3")
        assert unknown.value.code == "study-not-found"


def test_a_script_asks_for_no_erasure_of_what_is_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add([(SERIES, "1.2.1", content(1))])
    monkeypatch.setattr("dicomwatchd.archive.stores.directory.store.DirectoryStore.listing", lambda *_: 1 / 0)
    with api.open_archive(site.config) as archive:
        assert archive.study(STUDY).study_uid == STUDY
