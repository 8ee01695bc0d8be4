"""The main job on a real S3 gateway and DynamoDB, over TLS, with SSE-KMS: dropped slowly, late, twice, large."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from tests.servers.ceph import KMS_KEY_ID, CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Made, Maker
from tests.system.site import Site
from tests.tools import needed


def archive_of(rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table: str) -> dict[str, Any]:
    return {
        "store": {
            "kind": "s3",
            "bucket": bucket,
            "prefix": "radiology/",
            "endpoint_url": rgw.https_endpoint,
            "ca_file": str(rgw.ca_file),
            "region": rgw.region,
            "encryption": {"mode": "aws:kms", "key_id": KMS_KEY_ID},
        },
        "catalogue": {
            "kind": "dynamodb",
            "table": table,
            "endpoint_url": dynamodb.https_endpoint,
            "ca_file": str(dynamodb.ca_file),
            "region": dynamodb.region,
        },
    }


@pytest.fixture
def site(tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str) -> Iterator[Site]:
    site = Site(
        tmp_path,
        archive_of(rgw, dynamodb, bucket, table_name),
        environment=rgw.env(),
        inboxes=2,
        inbox={"settle_seconds": 0.5, "quiet_seconds": 4},
    )
    site.environment.pop("AWS_CA_BUNDLE", None)  # what the configuration says must be enough
    site.init()
    yield site
    site.close()


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fetched(site: Site, study: str, *options: str) -> dict[tuple[str, str], str]:
    """(series, file name) to SHA-256 of a study brought back into a fresh folder."""
    folder = site.root / f"out-{time.monotonic_ns()}"
    site.ctl("fetch", study, "-o", str(folder), *options, timeout=300)
    return {(path.parent.name, path.name): sha256(path) for path in folder.rglob("*") if path.is_file()}


def expected(made: list[Made]) -> dict[tuple[str, str], str]:
    return {(m.series_uid, f"{m.sop_instance_uid}.dcm"): m.sha256 for m in made}


def slowly(files: list[Made], staging: Path, inbox: Path, pause_seconds: float) -> None:
    """Copy files into an inbox as a modality does: one after the other, in bursts with pauses between."""
    for number, made in enumerate(files):
        target = inbox / made.path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made.path, target)
        if number % 50 == 49:
            time.sleep(pause_seconds)


def revision(site: Site, study: str) -> int:
    return int(site.ctl_json("show", study)["archive"]["revision"])


def test_three_studies_dropped_slowly_late_slices_and_the_same_again(site: Site, dynamodb: DynamoDBLocal) -> None:
    staging, maker = site.root / "staging", Maker(seed=200)
    a = maker.ct_series(staging / "A", slices=200, rows=64, columns=64)
    b = maker.mr_study(staging / "B", series=4, slices=50, rows=64)
    c = maker.ct_series(staging / "C", slices=200, rows=64, columns=64)
    site.start()
    drops = [
        threading.Thread(target=slowly, args=arguments)
        for arguments in (
            (a, staging, site.inboxes[0], 2.5),
            (b, staging, site.inboxes[0], 2.5),
            (c[:100], staging, site.inboxes[0], 2.5),
            (c[100:], staging, site.inboxes[1], 3.0),
        )
    ]
    for drop in drops:
        drop.start()
    for drop in drops:
        drop.join()
    site.wait_until_empty(90)
    for made in (a, b, c):
        assert fetched(site, made[0].study_uid) == expected(made)
        assert revision(site, made[0].study_uid) == 1, "pauses shorter than the quiet time must not close a study"
    assert not (site.inboxes[0] / "A").exists() and site.inboxes[0].is_dir() and site.inboxes[1].is_dir()

    late = maker.ct_series(staging / "late", slices=7, study=0, series=1, first=201, rows=64, columns=64)
    slowly(late, staging, site.inboxes[1], 0)
    site.wait_until_empty(60)
    site.wait_for(lambda: revision(site, a[0].study_uid) == 2, 60, "revision 2")
    assert fetched(site, a[0].study_uid) == expected([*a, *late])

    sent_before = sum(entry["sent_files"] for entry in site.events("study-archived"))
    slowly(b, staging, site.inboxes[0], 0)
    site.wait_until_empty(60)
    assert revision(site, b[0].study_uid) == 1, "the same files again change nothing"
    assert sum(entry["sent_files"] for entry in site.events("study-archived")) == sent_before == 607
    assert fetched(site, b[0].study_uid) == expected(b)
    assert site.ctl_json("verify", a[0].study_uid, "--deep")["holds"] is True
    assert site.stop() == 0

    _rebuild_gives_an_equal_catalogue(site, dynamodb, [a, b, c])
    _fetch_works_with_the_catalogue_down(site, dynamodb, b)


def _rebuild_gives_an_equal_catalogue(site: Site, dynamodb: DynamoDBLocal, studies: list[list[Made]]) -> None:
    table = _table(site, dynamodb)

    def catalogue() -> list[Any]:
        return [site.ctl_json("search"), *(site.ctl_json("show", made[0].study_uid)["archive"] for made in studies)]

    before = catalogue()
    assert len(before[0]["studies"]) == len(studies)
    with table.batch_writer() as batch:
        for item in table.scan(ConsistentRead=True)["Items"]:
            if item["pk"] != "ARCHIVE":
                batch.delete_item(Key={"pk": item["pk"], "sk": item["sk"]})
    assert site.ctl_json("search")["studies"] == []
    site.ctl("catalogue", "rebuild")
    assert catalogue() == before


def _fetch_works_with_the_catalogue_down(site: Site, dynamodb: DynamoDBLocal, made: list[Made]) -> None:
    dynamodb.stop()
    try:
        assert fetched(site, made[0].study_uid) == expected(made)
        one = made[0].series_uid
        assert fetched(site, made[0].study_uid, "--series", one) == expected([m for m in made if m.series_uid == one])
    finally:
        dynamodb.start()


def _table(site: Site, dynamodb: DynamoDBLocal) -> Any:
    credentials = {key: site.environment[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    resource = boto3.resource(
        "dynamodb",
        endpoint_url=dynamodb.http_endpoint,
        region_name=dynamodb.region,
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
    )
    return resource.Table(site.config["archive"]["catalogue"]["table"])


@pytest.mark.timeout(600)
def test_a_file_of_6_gb_goes_up_in_parts_and_comes_back_in_flat_memory(site: Site) -> None:
    [made] = Maker(seed=6).sparse_multiframe(site.root / "staging", size_bytes=6_000_000_000)
    original = sha256(made.path)
    site.config["sparse_files"] = "take"  # it is mostly holes, so that the test's disk need not hold it
    site.write_config()
    site.start()
    made.path.rename(site.inbox / made.path.name)
    assert site.daemon is not None
    watched = _Peak(site.daemon.pid)
    site.wait_until_empty(400)
    assert watched.stop() < 300e6
    assert site.stop() == 0
    fetch = subprocess.Popen(
        [site.ctl_program, "--config", str(site.config_file), "fetch", made.study_uid, "-o", str(site.root / "out")],
        env=site.environment,
    )
    watched = _Peak(fetch.pid)
    assert fetch.wait(300) == 0
    assert watched.stop() < 300e6
    back = site.root / "out" / made.series_uid / f"{made.sop_instance_uid}.dcm"
    assert back.stat().st_size == made.size_bytes > 6_000_000_000
    assert sha256(back) == original


class _Peak:
    """The largest resident memory of a process while it is watched."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            try:
                self._peak = max(self._peak, self._process.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        assert self._peak > 0
        return self._peak


def test_dcmtk_reads_every_fetched_file_as_it_reads_the_original(site: Site) -> None:
    needed("dcmftest", "dcmdump")
    staging, maker = site.root / "staging", Maker(seed=9)
    made = [*maker.study(staging / "mixed", "mixed", slices=3), *maker.mr_study(staging / "mr", series=2, slices=2)]
    shutil.copytree(staging, site.inbox, dirs_exist_ok=True)
    assert site.once() == 0
    for study in {m.study_uid for m in made}:
        site.ctl("fetch", study, "-o", str(site.root / "back"))
    for m in made:
        back = site.root / "back" / m.series_uid / f"{m.sop_instance_uid}.dcm"
        subprocess.run(["dcmftest", str(back)], check=True, capture_output=True)
        assert _dump(back) == _dump(m.path) != ""


def _dump(path: Path) -> str:
    done = subprocess.run(["dcmdump", "+L", str(path)], check=True, capture_output=True)
    return re.sub(r"^# .*$", "", done.stdout.decode("latin-1"), flags=re.MULTILINE)


@pytest.mark.parametrize("layout", ["instance", "bundled"])
def test_the_archive_is_readable_with_the_aws_cli_jq_and_sha256sum_alone(site: Site, layout: str) -> None:
    """docs/operations.md, run to the letter."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    block = re.search(r"<!-- ci:readable-without-us -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    made = Maker(seed=12).mr_study(site.inbox / "DOE", series=2, slices=3)
    site.config["archive"]["layout"] = {"kind": layout}
    site.write_config()
    assert site.once() == 0
    assert site.ctl_json("verify", made[0].study_uid, "--deep", "--json")["holds"]
    store = site.config["archive"]["store"]
    folder = site.root / "by-hand"
    folder.mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block[1]],
        cwd=folder,
        env={
            **site.environment,
            "PATH": f"{Path(site.ctl_program).parent}{os.pathsep}{site.environment['PATH']}",
            "AWS_ENDPOINT_URL": store["endpoint_url"],
            "AWS_CA_BUNDLE": store["ca_file"],
            "BUCKET": store["bucket"],
            "PREFIX": store["prefix"],
            "STUDY": made[0].study_uid,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    back = {(p.parent.name, p.name): sha256(p) for p in folder.rglob("*.dcm")}
    assert back == expected(made)
    assert len(list(folder.rglob("*.tar"))) == (layout == "bundled")


def test_five_minutes_to_a_real_bucket_as_the_readme_says(
    tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str
) -> None:
    """The README's block, with this machine's stores and an export put in."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    block = re.search(r"<!-- ci:bucket -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    made = Maker(seed=15).mr_study(tmp_path / "export", series=1, slices=3)
    script = block[1]
    key = re.search(r"--kms-key (arn:aws:kms:\S+)", block[1])
    assert key is not None
    for said, put_in in (
        (key[1], KMS_KEY_ID),
        (
            "--no-service",
            f"--no-service --quiet-seconds 1 --endpoint-url {rgw.https_endpoint} --ca-file {rgw.ca_file}"
            f" --catalogue-endpoint-url {dynamodb.https_endpoint}",
        ),
        ("my-dicom-archive", bucket),
        ("my-dicom-studies", table_name),
        ("eu-central-1", rgw.region),
        ("/path/to/an/export", str(tmp_path / "export")),
    ):
        assert said in script
        script = script.replace(said, put_in)
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, **rgw.env(), "HOME": str(home)}
    environment.pop("AWS_CA_BUNDLE", None)
    environment["PATH"] = f"{Path(Site.ctl_program).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert made[0].study_uid in done.stdout
    left = [path.name for path in (home / "pacs" / "inbox").rglob("*") if path.is_file()]
    assert [name[:11] for name in left] == ["TEST-SETUP-"], "kept, for nothing had been proven before it"
