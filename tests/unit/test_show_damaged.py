"""`show`: the damaged instances that the archive holds, with what is wrong with each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomwatchd.archive.identity import read_identity
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import empty
from dicomwatchd.archive.stores.port import Buffer
from tests.unit.memory_archive import OTHER_SERIES, SERIES, STUDY, content, instance
from tests.unit.test_cli_archive import Site, bare, site

__all__ = ["bare", "site"]

REASON = "the file ends inside an element's value (from byte 812)"


def archived(site: Site, *items: ManifestInstance) -> None:
    store = site.store()
    identity = read_identity(store)
    assert identity is not None
    manifest = empty(identity.archive_id, STUDY).merged(
        items,
        attributes={},
        series={item.series_uid: {} for item in items},
        flags=(),
        damaged_keys=(),
        created_at="2026-01-31T12:00:00.000Z",
        created_by="tests",
    )
    store.put(manifest.key, Buffer.of(manifest.to_bytes()))
    site.catalogue().put(manifest.record())


def item(number: int, sop: str = "", damage: str = "") -> ManifestInstance:
    series = OTHER_SERIES if number % 2 else SERIES
    return replace(instance(series, sop or f"1.2.{number}", content(number)), damage=damage)


def test_each_has_its_reason_and_those_with_a_whole_copy_are_counted(site: Site) -> None:
    archived(site, item(0), item(1, damage=REASON), item(2, "1.2.9", REASON), item(4, "1.2.9"), item(6, damage="x\x1b"))
    said = site.json("show", STUDY)["archive"]
    assert said["flags"] == ["damaged-instances", "sop-instance-uid-repeated"]
    assert said["damaged_instances"] == {
        "instances": [
            {"series_uid": SERIES, "sop_instance_uid": "1.2.6", "reason": "x\x1b"},
            {"series_uid": OTHER_SERIES, "sop_instance_uid": "1.2.1", "reason": REASON},
        ],
        "number": 2,
        "superseded": 1,
    }
    lines = [line.split(None, 1) for line in site.ctl("show", STUDY).stdout.splitlines()]
    assert ["Damaged", "2 instances of which no whole copy is archived:"] in lines
    assert ["1.2.1:", REASON] in lines and ["1.2.6:", "x\ufffd"] in lines
    assert ["Superseded", "1 damaged copy is archived beside a whole one"] in lines


@pytest.mark.parametrize("arguments", [(), ("--no-catalogue",)])
def test_of_many_the_first_are_named(site: Site, arguments: tuple[str, ...]) -> None:
    archived(site, *(item(number, damage=REASON) for number in range(130)))
    said = site.json("show", STUDY, *arguments)["archive"]["damaged_instances"]
    assert (len(said["instances"]), said["number"], said["superseded"]) == (100, 130, 0)
    shown = site.ctl("show", STUDY, *arguments).stdout
    assert shown.count(REASON) == 100 and "and 30 more" in shown and "Superseded" not in shown


def test_a_whole_study_has_none(site: Site) -> None:
    archived(site, item(0), item(1))
    assert site.json("show", STUDY)["archive"]["damaged_instances"]["number"] == 0
    assert "Damaged" not in site.ctl("show", STUDY).stdout
