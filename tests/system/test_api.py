"""The Python API on a real archive: what docs/api.md shows, and what it promises beyond that."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import api
from dicomwatchd.api import open_archive, prove
from dicomwatchd.errors import DicomwatchdError, Permanent
from tests.synthetic import Made, Maker
from tests.system.site import Site

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture(scope="module", params=["instances", "bundles"])
def archived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Any]]:
    """Of one study, in either layout, what was archived, by its SHA-256."""
    site = Site(tmp_path_factory.mktemp("api"))
    if request.param == "bundles":
        site.config["archive"]["layout"] = {"kind": "bundled"}
        site.write_config()
    site.init()
    made = Maker(seed=3).ct_series(site.inbox, slices=5)
    originals = {hashlib.sha256(one.path.read_bytes()).hexdigest(): one for one in made}
    assert site.once() == 0 and site.left() == []
    yield site, originals
    site.close()


def settings(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.config["archive"]
    return found


def study_of(originals: dict[str, Made]) -> str:
    return next(iter(originals.values())).study_uid


def test_the_page_is_true(archived: tuple[Site, dict[str, Made]], tmp_path: Path) -> None:
    """Its examples, one after the other, with what a reader has to put in."""
    site, originals = archived
    made = next(iter(originals.values()))
    page = PAGE.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    names = {
        "settings": settings(site),
        "study_uid": made.study_uid,
        "series_uid": made.series_uid,
        "folder": tmp_path / "out",
    }
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 5
    assert all(f"`{name}" in page or f" {name}" in page for name in ("open_archive", "prove"))


def test_what_comes_back_is_what_was_written(archived: tuple[Site, dict[str, Made]]) -> None:
    site, originals = archived
    with open_archive(site.config_file) as archive:
        instances = list(archive.instances(study_of(originals)))
        assert {hashlib.sha256(one.read()).hexdigest() for one in instances} == set(originals)
        for one in instances:
            assert one.dataset().SOPInstanceUID == one.sop_instance_uid == originals[one.sha256].sop_instance_uid
            assert one.dataset().file_meta.TransferSyntaxUID == one.transfer_syntax_uid
        assert [record.study_uid for record in archive.find()] == [study_of(originals)]
        assert list(archive.find(patient_id="nobody")) == []
        verification = archive.verify(study_of(originals), deep=True)
        assert verification.holds and verification.read_back == 5
        with pytest.raises(Permanent) as caught:
            list(archive.instances(study_of(originals), series=["1.2.3"]))
        assert caught.value.code == "series-not-found"
        with pytest.raises(Permanent) as caught:
            archive.manifest("no/uid")
        assert caught.value.code == "invalid-uid"


def test_without_a_catalogue(archived: tuple[Site, dict[str, Made]]) -> None:
    site, originals = archived
    with open_archive({"store": settings(site)["store"]}) as archive:
        assert len(archive.manifest(study_of(originals)).instances) == 5
        for asked in (lambda: list(archive.find()), lambda: archive.study(study_of(originals))):
            with pytest.raises(Permanent) as caught:
                asked()
            assert caught.value.code == "no-catalogue"


def test_bytes_that_are_not_the_recorded_ones_are_never_handed_out(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.init()
    [made] = Maker(seed=4).ct_series(site.inbox, slices=1)
    assert site.once() == 0
    [path] = [p for p in (tmp_path / "archive").rglob("*.dcm") if p.is_file()]
    data = path.read_bytes()
    path.chmod(0o600)
    for wrong in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], b""):
        path.write_bytes(wrong)
        with open_archive(settings(site)) as archive:
            [one] = archive.instances(made.study_uid)
            with pytest.raises(Permanent) as caught:
                one.read()
            assert caught.value.code == "bad-object"
            assert not archive.verify(made.study_uid, deep=True).holds
    path.unlink()
    with open_archive(settings(site)) as archive:
        [one] = archive.instances(made.study_uid)
        with pytest.raises(Permanent):
            one.dataset()
    site.close()


def test_the_record_of_deletions(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.init()
    made = Maker(seed=5).ct_series(site.inbox, slices=2)
    with pytest.raises(DicomwatchdError):
        prove(made[0].study_uid, site.state / "control.sock")
    site.start()
    site.wait_for(lambda: bool(site.events("study-archived")), 60, "the study to be archived")
    said = prove(made[0].study_uid, site.state / "control.sock")
    assert [file["outcome"] for file in said["files"]] == ["deleted"] * 2 and said["chain_holds"]
    site.close()


def test_all_that_it_names_says_what_it_is() -> None:
    for name in api.__all__:
        thing = getattr(api, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing) and thing.__module__ == api.__name__:
            methods = [value for key, value in vars(thing).items() if inspect.isfunction(value) and key[0] != "_"]
            assert all(inspect.getdoc(method) for method in methods), name
