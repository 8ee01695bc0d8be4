"""What somebody who may only create objects in the archive tries with manifests, and what the commands make of it: no
image that an honest manifest lists is hidden, and nothing is passed over without a word and an exit code of 1."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.layout.bundle import Bundle
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.errors import StudyNotFound
from dicomwatchd.model import Uid
from tests.unit.memory_archive import PATIENT, SERIES, STUDY, content
from tests.unit.memory_archive import instance as listed
from tests.unit.test_cli_archive import Site, bare, fetched, site

__all__ = ["bare", "site"]

FILES = [(SERIES, f"1.2.{n}", content(n)) for n in range(5)]
EXPECTED = {f"{SERIES}/1.2.{n}.dcm": content(n) for n in range(5)}
OTHER_PATIENT = {**PATIENT, "00100020": {"vr": "LO", "Value": ["SOMEBODY-ELSE"]}}

Forge = Callable[[list[Manifest]], list[tuple[str, bytes]]]


def at(manifest: Manifest, revision: int, **changes: object) -> tuple[str, bytes]:
    forged = replace(manifest, revision=revision, **changes)  # type: ignore[arg-type]
    return forged.key, forged.to_bytes()


def one_of_five(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    top = honest[-1]
    return [at(top, top.revision + 1, previous_sha256=None, instances=top.instances[:1])]


def the_right_hash(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    top = honest[-1]
    return [at(top, top.revision + 1, previous_sha256=top.sha256, instances=top.instances[:1])]


def a_chain_of_its_own(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    """The two newest agree with each other."""
    first = replace(honest[-1], revision=3, previous_sha256=None, instances=honest[-1].instances[:1])
    second = replace(first, revision=4, previous_sha256=first.sha256, created_at="later")
    return [(one.key, one.to_bytes()) for one in (first, second)]


def past_the_newest(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    """It goes on from revision 1, as if 2 had never been."""
    return [at(honest[0], 3, previous_sha256=honest[0].sha256, created_at="later")]


def past_the_newest_with_an_image_more(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    """No revision lists everything then, and this one is the highest that goes on from another."""
    more = (*honest[0].instances, listed(SERIES, "1.2.99", b"never archived", study=honest[0].study_uid))
    return [at(honest[0], 3, previous_sha256=honest[0].sha256, instances=more)]


def past_the_newest_as_damaged(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    return [at(honest[0], 3, previous_sha256=honest[0].sha256, damaged_keys=(honest[1].key,))]


def with_a_flag_of_the_catalogue(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    """A record with it vouches for nothing: taken over, the study would be without the catalogue's word for ever."""
    return [at(honest[-1], 3, previous_sha256=honest[-1].sha256, flags=(lineage.DISPUTED,))]


def an_absurd_revision(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    return [at(honest[-1], keys.HIGHEST_REVISION, previous_sha256=None, instances=honest[-1].instances[:1])]


def an_absurd_revision_with_the_right_hash(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    return [at(honest[-1], keys.HIGHEST_REVISION, previous_sha256=honest[-1].sha256, created_at="later")]


def another_patient(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    return [at(honest[-1], 3, previous_sha256=honest[-1].sha256, attributes=OTHER_PATIENT)]


def another_size(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    first, *others = honest[-1].instances
    wrong = (replace(first, size_bytes=first.size_bytes + 1, object_bytes=first.size_bytes + 1), *others)
    return [at(honest[-1], 3, previous_sha256=honest[-1].sha256, instances=wrong)]


def junk_above(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    return [(keys.manifest(honest[0].study_uid, 3), b"{}")]


def absurd_junk(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    return [(keys.manifest(honest[0].study_uid, keys.HIGHEST_REVISION), b"{}")]


def of_a_newer_program(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    return [(keys.manifest(honest[0].study_uid, 3), b'{"format": "dicomwatchd-manifest/9"}')]


def an_image_more(honest: list[Manifest]) -> list[tuple[str, bytes]]:
    """That is not in the archive, in a revision that names nobody."""
    study = honest[0].study_uid
    more = (*honest[-1].instances, listed(SERIES, "1.2.99", b"never archived", study=study))
    return [at(honest[-1], 3, previous_sha256=None, instances=more)]


FORGED: list[Forge] = [
    one_of_five,
    the_right_hash,
    a_chain_of_its_own,
    past_the_newest,
    past_the_newest_as_damaged,
    past_the_newest_with_an_image_more,
    an_absurd_revision,
    an_absurd_revision_with_the_right_hash,
    another_patient,
    another_size,
    junk_above,
    absurd_junk,
    of_a_newer_program,
    an_image_more,
    with_a_flag_of_the_catalogue,
]


@pytest.fixture
def honest(site: Site) -> list[Manifest]:
    first = site.add(FILES[:3])
    return [first, site.add(FILES[3:], before=first)]


def plant(site: Site, forged: list[tuple[str, bytes]]) -> None:
    store = site.store()
    for key, data in forged:
        assert store.put(key, Buffer.of(data)).created


@pytest.mark.parametrize("without", [(), ("--no-catalogue",)], ids=["catalogue", "no-catalogue"])
@pytest.mark.parametrize("forge", FORGED)
def test_no_command_is_misled(
    site: Site, honest: list[Manifest], tmp_path: Path, forge: Forge, without: tuple[str, ...]
) -> None:
    plant(site, forge(honest))
    out = tmp_path / "out"
    answer = site.json("fetch", STUDY, "-o", str(out), *without, code=1)
    assert answer["complete"] is False
    assert answer["unreadable_revisions"] or answer["disregarded_revisions"]
    assert fetched(out) == EXPECTED
    answer = site.json("verify", STUDY, *without, code=1)
    assert answer["holds"] is False and answer["held"] == 5
    shown = site.json("show", STUDY, *without, code=1)
    assert shown["archive"]["instances"] >= 5
    assert shown["archive"]["patient_id"] == "CANARY-ID"
    said = site.ctl("fetch", STUDY, "-o", str(tmp_path / "again"), *without)
    assert said.exit_code == 1 and "revision" in said.stderr


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("forge", FORGED)
def test_a_rebuilt_catalogue_is_not_misled(
    site: Site, honest: list[Manifest], tmp_path: Path, forge: Forge, lost: bool
) -> None:
    plant(site, forge(honest))
    if lost:
        site.catalogue_file.unlink()
        assert site.ctl("archive", "init").exit_code == 0
    answer = site.json("catalogue", "rebuild", code=1)
    assert answer["problems"]
    record = site.catalogue().get(STUDY)
    assert record is not None and record.instances >= 5 and record.patient_id == "CANARY-ID"
    # And what it has recorded vouches for nothing that hides an image.
    out = tmp_path / "out"
    site.json("fetch", STUDY, "-o", str(out), code=1)
    assert fetched(out) == EXPECTED


def test_a_forged_first_revision_below_a_gap(site: Site, tmp_path: Path) -> None:
    """The store was lost once: the study begins at revision 6."""
    first = site.add(FILES, record=False)
    site.path_of(first.key).unlink()
    begun = replace(first, revision=6)
    plant(site, [(begun.key, begun.to_bytes()), at(first, 1, instances=first.instances[:1], attributes=OTHER_PATIENT)])
    site.catalogue().put(begun.record())
    answer = site.json("fetch", STUDY, "-o", str(tmp_path / "out"))
    assert (answer["revision"], answer["files"]) == (6, 5)
    answer = site.json("fetch", STUDY, "-o", str(tmp_path / "bare"), "--no-catalogue", code=1)
    assert fetched(tmp_path / "bare") == EXPECTED and answer["disregarded_revisions"]


@pytest.mark.parametrize("without", [(), ("--no-catalogue",)], ids=["catalogue", "no-catalogue"])
def test_an_honest_study_is_no_matter(
    site: Site, honest: list[Manifest], tmp_path: Path, without: tuple[str, ...]
) -> None:
    answer = site.json("fetch", STUDY, "-o", str(tmp_path / "out"), *without)
    assert (answer["revision"], answer["files"]) == (2, 5)
    assert answer["disregarded_revisions"] == answer["unreadable_revisions"] == []
    assert site.json("verify", STUDY, *without)["holds"] is True
    assert site.json("show", STUDY, *without)["archive"]["revision"] == 2
    assert site.json("catalogue", "rebuild")["unchanged"] == 1


# -- objects that no manifest lists ----------------------------------------------------------------------------------


def aged(site: Site, key: str, hours: float) -> str:
    when = time.time() - hours * 3600
    os.utime(site.path_of(key), (when, when))
    return key


def test_an_object_that_no_manifest_lists_is_named(site: Site, honest: list[Manifest]) -> None:
    """Early sending leaves such objects for a while; what is a day old is in a manifest, or was put there."""
    planted = listed(SERIES, "1.2.77", b"planted").key
    bundle = keys.bundle(STUDY, "b" * 64)
    copy = honest[0].instances[0].key.replace(".dcm", "-2.dcm")
    special = keys.manifests_prefix(STUDY) + "latest.json"
    plant(site, [(planted, b"planted"), (bundle, b"no bundle"), (copy, b"copy"), (special, b"{}")])
    answer = site.json("verify", STUDY)
    assert answer["unlisted"] == [bundle, special, planted] and answer["stray"] == [] and answer["unrecorded"] == 4
    for key in (planted, bundle, copy, special):
        aged(site, key, 23)
    assert site.json("verify", STUDY)["stray"] == []
    for key in (planted, copy):
        aged(site, key, 25)
    answer = site.json("verify", STUDY, code=1)
    assert answer["holds"] is False and answer["stray"] == [planted] and answer["held"] == 5
    said = site.ctl("verify", STUDY)
    assert said.exit_code == 1 and planted in said.stdout and copy not in said.stdout


def test_a_bundle_of_copies_is_nothing_to_tell_of(site: Site, honest: list[Manifest]) -> None:
    """What a crash has left between two ways to put the same files together."""
    key, data = packed({"1.2.0": content(0), "1.2.1": content(1)})
    plant(site, [(key, data)])
    aged(site, key, 100)
    assert site.json("verify", STUDY)["unlisted"] == []
    key, data = packed({"1.2.0": content(0), "1.2.55": content(1)})
    plant(site, [(key, data)])
    aged(site, key, 100)
    assert site.json("verify", STUDY, code=1)["stray"] == [key]


def packed(files: dict[str, bytes]) -> tuple[str, bytes]:
    made = Bundle(map(len, files.values()))
    for uid, data in files.items():
        made.buffer(len(data))[:] = data
        made.add(SERIES, Uid(uid))
    buffer = made.finish()
    return keys.bundle(STUDY, buffer.digest.sha256), bytes(buffer.data)


@pytest.mark.parametrize("state", ["arriving", "parked", "archived", None])
def test_a_study_on_its_way_here(
    site: Site, honest: list[Manifest], monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    planted = listed(SERIES, "1.2.77", b"planted").key
    plant(site, [(planted, b"planted")])
    aged(site, planted, 100)

    def ask(*_: object, **__: object) -> dict[str, object]:
        if state is None:
            raise StudyNotFound("unknown here")
        return {"state": state}

    monkeypatch.setattr("dicomwatchd.cli.studies.verify.ask", ask)
    on_its_way = state in ("arriving", "parked")
    assert site.json("verify", STUDY, code=0 if on_its_way else 1)["unlisted"] == [planted]


# -- credentials that may write records, too --------------------------------------------------------------------------


@pytest.mark.parametrize("forge", [one_of_five, the_right_hash])
def test_a_forged_record_hides_nothing_from_who_does_not_ask_the_catalogue(
    site: Site, honest: list[Manifest], tmp_path: Path, forge: Forge
) -> None:
    """Whoever has a daemon's credentials can have the catalogue vouch for a manifest of his own. `fetch` goes by that;
    `verify`, `fetch --no-catalogue` and a rebuild go by the store, and the rebuild ends it."""
    [(key, data)] = forge(honest)
    plant(site, [(key, data)])
    site.catalogue().put(Manifest.from_bytes(data).record())
    answer = site.json("verify", STUDY, code=1)
    assert answer["instances"] == 5 and answer["disregarded_revisions"]
    out = tmp_path / "out"
    site.json("fetch", STUDY, "-o", str(out), "--no-catalogue", code=1)
    assert fetched(out) == EXPECTED
    assert site.json("catalogue", "rebuild", code=1)["problems"]
    answer = site.json("fetch", STUDY, "-o", str(tmp_path / "again"), code=1)
    assert fetched(tmp_path / "again") == EXPECTED and answer["disregarded_revisions"]
