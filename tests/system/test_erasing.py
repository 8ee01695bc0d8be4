"""A study is erased from the archive, with the real programs: it stays away, until somebody says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.synthetic import Maker, Patient
from tests.system.site import Site

CANARY = Patient("CANARY^NAME", "CANARY-ID", "19700101")
BECAUSE = "request 17 of 2026"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_what_was_erased_stays_away(site: Site) -> None:
    site.init()
    maker, others = Maker(seed=3, patient=CANARY), Maker(seed=4)
    made = maker.ct_series(site.inbox / "first", slices=4, study=0, rows=16, columns=16)
    neighbour = others.ct_series(site.inbox / "other", slices=2, study=0, rows=16, columns=16)
    study, other = made[0].study_uid, neighbour[0].study_uid
    site.start()
    site.wait_until_empty()
    site.wait_for(lambda: len(site.events("study-archived")) == 2, 60, "both studies")

    erase = ("archive", "erase", study, "--because", BECAUSE, "--no-wait")
    assert site.ctl(*erase, check=False).returncode == 2, "nobody can be asked here"
    found = site.ctl_json("archive", "erase", study, "--dry-run")["found"]
    assert found["instances"] == 4 and found["manifests"] >= 1
    site.stop()  # as --no-wait demands
    done = site.ctl_json(*erase, "--yes", study)
    site.start()
    assert done["complete"] and done["deleted"] == found["versions"]
    names = [path for path in (site.root / "archive").rglob("*") if study in str(path)]
    assert {path.name for path in names} == {study, "00000001.json", "00000001.ended.json"}
    assert "erased" in str(names[0])
    assert b"CANARY" not in (site.root / "archive" / "catalogue.db").read_bytes()
    for command in ("fetch", "verify", "show"):
        refused = site.ctl(command, study, check=False)
        assert refused.returncode == 1 and "was erased" in refused.stderr and BECAUSE in refused.stderr
    assert site.ctl("verify", other, "--deep").returncode == 0

    late = maker.ct_series(site.inbox / "late", slices=3, study=0, series=2, rows=16, columns=16)

    def waiting() -> list[int]:  # the first file is enough for the daemon to notice
        return [one["files"] for one in site.ctl_json("attention", check=False)["held"]]

    site.wait_for(lambda: waiting() == [3], 60, "the daemon to notice")
    assert site.events("study-erased")
    [held] = site.ctl_json("attention", check=False)["held"]
    assert held["code"] == "erased" and held["erasure"]["because"] == BECAUSE
    assert "neither archived again nor deleted" in site.ctl("attention", check=False).stdout
    more = others.ct_series(site.inbox / "more", slices=1, study=1, rows=16, columns=16)
    site.wait_for(lambda: not more[0].path.exists(), 60, "another study")
    site.stop()
    site.start()
    site.ctl("catalogue", "rebuild")
    assert all(one.path.exists() for one in late)
    assert not list((site.root / "archive" / "studies").glob(f"{study}/**/*.dcm"))
    assert site.ctl("show", study, check=False).stdout.count("it was erased") == 1

    site.ctl("release", study, "--because", "a new consent")
    site.wait_for(lambda: not any(one.path.exists() for one in late), 60, "the study to be archived again")
    assert site.ctl("verify", study, "--deep").returncode == 0
    proofs = site.ctl_json("prove", study)
    assert [one["because"] for one in proofs["erasures"]] == [BECAUSE]
    assert [one["hold"] for one in proofs["releases"]] == ["erased"]
    assert len([one for one in proofs["files"] if one["outcome"] == "deleted"]) == 7
    log = site.log_file.read_text()
    assert "CANARY" not in log and BECAUSE not in log and "a new consent" not in log
    assert site.stop() == 0
