"""Uploads through the page into archives of every kind and of studies in every state: in a real bucket, held, and in
cold storage. What is said at the end is compared with what the archive then has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dicomwatchd.archive import keys
from dicomwatchd.model import Uid
from tests.page import Browser, files_of
from tests.servers.amazon import Amazon
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Made, Maker, Patient
from tests.system.site import Site
from tests.system.test_journey_s3 import archive_of, expected, fetched
from tests.system.test_page import SECONDS, ended, page_of, person, staged, text_of

PREFIX = "radiology/"
GONE = "The local copies were deleted."


@pytest.fixture
def in_bucket(tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str) -> Iterator[Site]:
    """Ceph's gateway, by TLS and with a key of a key server."""
    archive = archive_of(rgw, dynamodb, bucket, table_name)
    yield from _site(Site(tmp_path, archive, environment=rgw.env()))


@pytest.fixture
def at_amazon(tmp_path: Path, amazon: Amazon, bucket: str, table_name: str) -> Iterator[Site]:
    place = {"region": "us-east-1", "ca_file": str(amazon.ca_file)}
    store = {"kind": "s3", "bucket": bucket, "prefix": PREFIX, **place}
    catalogue = {"kind": "dynamodb", "table": table_name, **place}
    yield from _site(Site(tmp_path, {"store": store, "catalogue": catalogue}, environment=amazon.env()))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from _site(Site(tmp_path))


def _site(site: Site) -> Iterator[Site]:
    site.init()
    site.start()
    yield site
    site.close()


@contextmanager
def anna_at(site: Site) -> Iterator[tuple[httpx.Client, Browser]]:
    with page_of(site) as web, person(web, "anna", "upload", "read") as client:
        yield client, Browser(client, {})


def archived(site: Site, made: list[Made]) -> list[Made]:
    """By the inbox; the files are gone from there then."""
    for one in made:
        shutil.copy(one.path, site.inbox / f"{one.sop_instance_uid}.dcm")
    site.wait_until_empty(SECONDS)
    return made


def with_other_pixels(one: Made) -> None:
    """The same SOP Instance UID, and another image."""
    one.path.write_bytes(one.path.read_bytes()[:-8] + bytes(8))


def freeze(site: Site, amazon: Amazon, bucket: str, made: list[Made]) -> None:
    """As a lifecycle rule for the tag of instances does: manifests stay where they are."""
    for one in made:
        prefix = keys.series_prefix(Uid(one.study_uid), Uid(one.series_uid))
        assert amazon.storage.transition(bucket, PREFIX + prefix, "GLACIER")


# -- a bucket ---------------------------------------------------------------------------------------------------------


def test_in_a_bucket_what_was_said_to_be_verified_comes_back(in_bucket: Site) -> None:
    site, maker = in_bucket, Maker(seed=401, patient=Patient.marked("MEIER^ROSA"))
    made = maker.ct_series(site.root / "stick", slices=4, rows=64, columns=64)
    made += maker.ct_series(site.root / "stick" / "BIG", slices=1, rows=2400, columns=2400, study=0)
    (site.root / "stick" / "READ.ME").write_bytes(b"not an image")
    files = files_of(site.root / "stick")
    with anna_at(site) as (client, browser):
        upload = browser.whole(files)
        said = text_of(ended(site, browser, upload))
        assert f"All 5 files are verified in the archive. {GONE}" in said, said
        assert "1 other file is not DICOM" in said and "Other files, which are not in the archive: 1." in said, said
        assert [path.read_bytes() for path in staged(site)] == [b"not an image"]
        assert "5 files" in text_of(client.get(f"/studies/{made[0].study_uid}").text)
        again = browser.whole(files)
        assert f"All 5 files are verified in the archive. {GONE}" in text_of(ended(site, browser, again))
    assert fetched(site, made[0].study_uid) == expected(made)
    assert site.ctl_json("verify", made[0].study_uid, "--deep")["holds"]
    assert site.stop() == 0


# -- held -------------------------------------------------------------------------------------------------------------


def is_held(client: httpx.Client, study_uid: str, reason: str) -> bool:
    page = text_of(client.get(f"/studies/{study_uid}").text)
    return "This study is held since" in page and reason in page


def test_another_image_of_the_same_uid_is_kept_and_told(site: Site) -> None:
    """Both are archived; which of the two is right nobody knows, and neither copy is called needless."""
    made = archived(site, Maker(seed=402).ct_series(site.root / "stick", slices=3, rows=32, columns=32))
    with_other_pixels(made[0])
    other = made[0].path.read_bytes()
    with anna_at(site) as (client, browser):
        page = ended(site, browser, browser.whole(files_of(site.root / "stick")))
        said = text_of(page)
        assert "All DICOM files are verified in the archive, but a study is held." in said, said
        assert "1 local copy is kept because a study is held" in said and GONE not in said, said
        assert [path.read_bytes() for path in staged(site)] == [other], "the others went"
        assert "What was not archived" not in said and "keep your own folder or disc until" in said, said
        assert 'id="verdict" role="status" class="held"' in page, "no green tick"
        assert is_held(client, made[0].study_uid, "several versions of some of its images")
        assert "verified in the archive, but a study is held" in text_of(client.get("/uploads").text)
    objects = [
        path for path in (site.root / "archive").rglob("*") if path.is_file() and other[-64:] in path.read_bytes()
    ]
    assert objects, "the other image is in the archive as well"
    assert site.stop() == 0


def test_a_folder_of_two_patients_in_one_study_is_kept_and_told(site: Site) -> None:
    made = []
    for number, patient in enumerate((Patient(), Patient("ROE^JOHN", "P2", "19510213", "M")), 1):
        maker = Maker(seed=403, patient=patient)
        folder = site.root / "stick" / str(number)
        made += maker.ct_series(folder, slices=2, study=0, series=number, rows=16, columns=16)
    files = files_of(site.root / "stick")
    with anna_at(site) as (client, browser):
        said = text_of(ended(site, browser, browser.whole(files)))
        assert "4 local copies are kept because a study is held" in said and GONE not in said, said
        assert "All DICOM files are verified in the archive, but a study is held." in said, said
        assert sorted(path.read_bytes() for path in staged(site)) == sorted(files.values())
        assert is_held(client, made[0].study_uid, "its files name two patients")
        # Again, now that it is held.
        said = text_of(ended(site, browser, browser.whole(files)))
        assert "4 local copies are kept because a study is held" in said and GONE not in said, said
    assert fetched(site, made[0].study_uid) == expected(made)
    assert site.stop() == 0


# -- cold -------------------------------------------------------------------------------------------------------------


def test_what_is_cold_already_is_verified_without_being_brought_back(
    at_amazon: Site, amazon: Amazon, bucket: str
) -> None:
    site = at_amazon
    maker = Maker(seed=404)
    made = archived(site, maker.ct_series(site.root / "stick", slices=3, rows=32, columns=32))
    freeze(site, amazon, bucket, made)
    made += maker.ct_series(site.root / "stick", slices=2, study=0, series=1, first=4, rows=32, columns=32)
    study = made[0].study_uid
    amazon.forget()
    with anna_at(site) as (client, browser):
        said = text_of(ended(site, browser, browser.whole(files_of(site.root / "stick"))))
        assert f"All 5 files are verified in the archive. {GONE}" in said, said
        assert "RestoreObject" not in amazon.requests(), "which would cost"
        assert "3 objects" in text_of(client.get(f"/studies/{study}").text)
        freeze(site, amazon, bucket, made)
        refused = client.post(f"/studies/{study}/download")
        assert refused.status_code == 409 and "cold" in text_of(refused.text)
    for place in amazon.memory.below(bucket, PREFIX + keys.STUDIES):
        place.storage_class = "STANDARD"
    assert fetched(site, study) == expected(made)
    assert site.stop() == 0


def test_what_is_no_longer_there_of_a_cold_study_is_stored_anew(at_amazon: Site, amazon: Amazon, bucket: str) -> None:
    """A listing of what is cold is no proof that it is there."""
    site = at_amazon
    made = archived(site, Maker(seed=405).ct_series(site.root / "stick", slices=3, rows=32, columns=32))
    freeze(site, amazon, bucket, made)
    s3 = amazon.s3()
    prefix = PREFIX + keys.series_prefix(Uid(made[0].study_uid), Uid(made[0].series_uid))
    [lost] = [
        one["Key"]
        for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
        if made[0].sop_instance_uid in one["Key"]
    ]
    s3.delete_object(Bucket=bucket, Key=lost)
    with anna_at(site) as (_, browser):
        said = text_of(ended(site, browser, browser.whole(files_of(site.root / "stick"))))
    assert f"All 3 files are verified in the archive. {GONE}" in said, said
    assert s3.get_object(Bucket=bucket, Key=lost)["Body"].read() == made[0].path.read_bytes()
    assert site.stop() == 0


def test_another_image_of_a_cold_one_is_kept_for_nobody_can_compare_them(
    at_amazon: Site, amazon: Amazon, bucket: str
) -> None:
    site = at_amazon
    made = archived(site, Maker(seed=406).ct_series(site.root / "stick", slices=3, rows=32, columns=32))
    freeze(site, amazon, bucket, made)
    with_other_pixels(made[0])
    other = made[0].path.read_bytes()
    with anna_at(site) as (client, browser):
        said = text_of(ended(site, browser, browser.whole(files_of(site.root / "stick"))))
        assert "1 local copy is kept because a study is held" in said and GONE not in said, said
        assert [path.read_bytes() for path in staged(site)] == [other]
        assert is_held(client, made[0].study_uid, "several versions of some of its images")
    assert site.stop() == 0
