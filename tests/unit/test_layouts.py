"""Where files go below a fetch's folder: whatever a file says of itself, each has one name, below that folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.fetch import Fetcher, by_uid
from dicomwatchd.fetch.layouts import LAYOUTS, Layout, placed
from dicomwatchd.fetch.safe_names import LIMIT_BYTES, folded, safe
from dicomwatchd.model import DicomJson, Uid
from tests.unit.memory_archive import OTHER_SERIES, SERIES, STUDY, MemoryStore, archive, content

NASTY = st.text(st.sampled_from("aA.\u00e9E\u0301/\\:*\0\n\x1b[ -~\u202e\u200d\ud800\u00df\uff0fCON1%"), max_size=40)
TEXTS = NASTY | st.text(max_size=300)


def element(vr: str, value: Any) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("IM0001", "IM0001"),
        ("..", ""),
        (".", ""),
        ("", ""),
        ("   ", ""),
        ("../../etc/passwd", "_._.._etc_passwd"),
        (".bashrc", "_bashrc"),
        ("-rf", "_rf"),
        ("~root", "_root"),
        ("a\tb\n c", "a_b_ c"),
        ("evil\u202egnp.exe", "evil_gnp.exe"),
        ("half\ud800", "half_"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("Lpt1", "_Lpt1"),
        ("COM\u00b2.dcm", "_COM\u00b2.dcm"),
        ("CONTRAST", "CONTRAST"),
        ("name. . .", "name"),
        ("C:\\a|b?", "C__a_b_"),
        ("M\u00fcller", "M\u00fcller"),
        ("Mu\u0308ller", "M\u00fcller"),
        ("\u5c71\u7530^\u592a\u90ce", "\u5c71\u7530^\u592a\u90ce"),
    ],
)
def test_names_made_safe(text: str, name: str) -> None:
    assert safe(text) == name


def test_what_is_cut_stays_apart_and_keeps_its_extension() -> None:
    one, other = safe("\u00e9" * 300 + "1.dcm"), safe("\u00e9" * 300 + "2.dcm")
    assert one != other and one.endswith(".dcm")
    assert len(one.encode()) <= LIMIT_BYTES and one.startswith("\u00e9" * 40)


@given(TEXTS)
@example("CON.")
@example("\u0340\u0301")
@settings(max_examples=500, deadline=None)
def test_a_safe_name_is_one_plain_name(text: str) -> None:
    name = safe(text)
    assert len(name.encode()) <= LIMIT_BYTES + 1
    assert name.isprintable() and not set(name) & set('<>:"/\\|?*')
    assert name == name.strip() and not name.endswith(".") and not name.startswith((".", "-", "~"))
    assert name.split(".")[0].rstrip().upper() not in ("CON", "PRN", "AUX", "NUL", "COM1", "LPT9")


def made(*instances: tuple[Uid, str, str], attributes: DicomJson | None = None, **series: DicomJson) -> Manifest:
    """A manifest of ``(series, SOP Instance UID, original path)``."""
    manifest = archive(
        MemoryStore(), [(one, sop, content(n)) for n, (one, sop, _) in enumerate(instances)], attributes=attributes
    )
    paths = {(one, sop): path for one, sop, path in instances}
    items = tuple(replace(i, original_path=paths[i.series_uid, i.sop_instance_uid]) for i in manifest.instances)
    return replace(manifest, instances=items)


def paths(layout: Layout, manifest: Manifest, **others: bool) -> list[str]:
    return [path for _, path in placed(layout, manifest, manifest.instances, **others)]


def test_uid_is_what_fetch_has_always_done() -> None:
    manifest = made((SERIES, "1.2.1", "a"), (OTHER_SERIES, "1.2.2", "b"))
    assert placed("uid", manifest, manifest.instances) == by_uid(manifest.instances)
    assert paths("uid", manifest) == [f"{SERIES}/1.2.1.dcm", f"{OTHER_SERIES}/1.2.2.dcm"]


def test_readable() -> None:
    manifest = made((SERIES, "1.2.1", "a"), (OTHER_SERIES, "1.2.2", "b"))
    manifest = replace(
        manifest,
        attributes={
            "00100010": element("PN", {"Alphabetic": "Doe^Jane^^Dr."}),
            "00100020": element("LO", "4711/../7"),
            "00080020": element("DA", "20260131"),
            "00081030": element("LO", "CT Abdomen: mit KM"),
        },
        series={
            SERIES: {
                "00080060": element("CS", "CT"),
                "00200011": element("IS", "2"),
                "0008103E": element("LO", "Leber 5mm"),
            },
            OTHER_SERIES: {"00080060": element("CS", "SR")},
        },
    )
    study = "Doe Jane Dr (4711_.._7)/20260131-CT Abdomen_ mit KM"
    assert paths("readable", manifest) == [f"{study}/002-CT-Leber 5mm/1.2.1.dcm", f"{study}/SR/1.2.2.dcm"]
    beside = paths("readable", manifest, beside_others=True)[0]
    assert beside.startswith(f"{study}-") and beside.endswith("/002-CT-Leber 5mm/1.2.1.dcm")


def test_readable_where_nothing_is_said() -> None:
    manifest = replace(made((SERIES, "1.2.1", "a")), attributes={}, series={})
    assert paths("readable", manifest) == ["unnamed/undated-study/series/1.2.1.dcm"]
    odd: DicomJson = {"00100010": {"vr": "PN", "Value": [None]}, "00080020": {"vr": "DA", "Value": "x"}}
    assert paths("readable", replace(manifest, attributes=odd)) == ["unnamed/undated-study/series/1.2.1.dcm"]


def test_two_series_of_one_name_are_two_folders_whichever_is_fetched() -> None:
    manifest = made((SERIES, "1.2.1", "a"), (OTHER_SERIES, "1.2.1", "b"))
    same: dict[Uid, DicomJson] = {
        SERIES: {"0008103E": element("LO", "Scout")},
        OTHER_SERIES: {"0008103E": element("LO", "SCOUT")},
    }
    manifest = replace(manifest, series=same)
    both = paths("readable", manifest)
    assert len({folded(path) for path in both}) == 2
    alone = [i for i in manifest.instances if i.series_uid == OTHER_SERIES]
    assert [path for _, path in placed("readable", manifest, alone)] == [path for path in both if "SCOUT" in path]


def test_original_is_as_below_the_inbox() -> None:
    manifest = made(
        (SERIES, "1.2.1", "DOE^J/ST1/IM1"), (SERIES, "1.2.2", "DOE^J/ST1/IM2.dcm"), (SERIES, "1.2.3", "IM3")
    )
    assert paths("original", manifest) == ["DOE^J/ST1/IM1", "DOE^J/ST1/IM2.dcm", "IM3"]
    assert paths("original", manifest, beside_others=True)[2] == f"{STUDY}/IM3"


def test_original_without_a_path_or_with_one_too_deep_goes_by_uid() -> None:
    manifest = made(
        (SERIES, "1.2.1", ""), (SERIES, "1.2.2", "a/" * 50 + "b"), (SERIES, "1.2.3", "long" * 25 + "/" + "l" * 110)
    )
    assert paths("original", manifest) == [f"{SERIES}/1.2.{n}.dcm" for n in (1, 2, 3)]


def test_original_names_that_some_system_takes_for_one() -> None:
    manifest = made(
        (SERIES, "1.2.1", "A/IM1.dcm"),
        (SERIES, "1.2.2", "a/im1.DCM"),
        (SERIES, "1.2.3", "a/x"),
        (SERIES, "1.2.4", "A/x/y"),
    )
    found = paths("original", manifest)
    digits = [item.sha256[:8] for item in manifest.instances]
    assert found == [f"A/IM1-{digits[0]}.dcm", f"A/im1-{digits[1]}.DCM", f"A/x-{digits[2]}", "A/x/y"]


def test_original_of_two_inboxes() -> None:
    manifest = made((SERIES, "1.2.1", "IM1"), (OTHER_SERIES, "1.2.1", "IM1"))
    assert len(set(paths("original", manifest))) == 2


@given(st.lists(TEXTS, min_size=1, max_size=6), TEXTS, TEXTS, TEXTS)
@settings(max_examples=200, deadline=None)
def test_no_text_leads_out_of_the_folder_or_to_one_name_twice(
    originals: list[str], patient: str, description: str, number: str
) -> None:
    manifest = made(*((SERIES if n % 2 else OTHER_SERIES, f"1.2.{n}", path) for n, path in enumerate(originals)))
    manifest = replace(
        manifest,
        attributes={"00100010": element("PN", {"Alphabetic": patient}), "00081030": element("LO", description)},
        series={SERIES: {"00200011": element("IS", number)}, OTHER_SERIES: {"0008103E": element("LO", description)}},
    )
    for layout in LAYOUTS:
        found = paths(layout, manifest)
        assert len({folded(path) for path in found}) == len(originals)
        folders = {folded(path.rsplit("/", n)[0]) for path in found for n in range(1, path.count("/") + 1)}
        assert not folders & {folded(path) for path in found}, "no file stands where a folder has to"
        for part in (part for path in found for part in path.split("/")):
            assert part and part.isprintable() and part == part.strip(" ") and part.strip(".")
            assert len(part.encode()) <= 255


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_second_fetch_finds_what_the_first_has_brought(layout: Layout, tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(3)])
    places = placed(layout, manifest, manifest.instances)
    assert Fetcher(store).fetch(manifest, tmp_path, places=places).complete
    expected = {str(tmp_path / path): content_of(store, item) for item, path in places}
    assert {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == expected
    again = Fetcher(store).fetch(manifest, tmp_path, places=places)
    assert again.complete and (again.fetched, again.already_there) == (0, 3)


def content_of(store: MemoryStore, item: ManifestInstance) -> bytes:
    return store.versions[item.key][-1]


def test_a_link_in_place_of_a_folder_on_the_way_is_not_followed(tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = archive(store, [(SERIES, "1.2.1", content(1))])
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (target / "a").symlink_to(outside)
    report = Fetcher(store).fetch(manifest, target, places=[(manifest.instances[0], "a/b/IM1")])
    assert [one.code for one in report.failed] == ["target-occupied"]
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("path", ["../IM1", "a/../../IM1", "./IM1", "a//IM1"])
def test_a_path_that_is_not_plain_is_refused_whoever_made_it(path: str, tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = archive(store, [(SERIES, "1.2.1", content(1))])
    target = tmp_path / "in" / "target"
    report = Fetcher(store).fetch(manifest, target, places=[(manifest.instances[0], path)])
    assert len(report.failed) == 1
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
