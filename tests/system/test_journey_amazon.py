"""The main job at Amazon, as documented: by Amazon's own names, in a bucket with versions, under SSE-KMS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.amazon import Amazon
from tests.synthetic import Maker
from tests.system.site import Site
from tests.system.test_journey_s3 import expected, fetched


@pytest.fixture
def site(tmp_path: Path, amazon: Amazon, bucket: str, table_name: str) -> Iterator[Site]:
    key = amazon.keys.create("alias/dicom")
    place = {"region": "us-east-1", "ca_file": str(amazon.ca_file)}
    site = Site(
        tmp_path,
        {
            "store": {
                "kind": "s3",
                "bucket": bucket,
                "prefix": "radiology/",
                "encryption": {"mode": "aws:kms", "key_id": key},
                **place,
            },
            "catalogue": {"kind": "dynamodb", "table": table_name, **place},
        },
        environment=amazon.env(),
    )
    site.init()
    yield site
    site.close()


def test_a_study_with_a_large_object_goes_there_and_comes_back(site: Site, amazon: Amazon, bucket: str) -> None:
    staging, maker = site.root / "staging", Maker(seed=300)
    small = maker.ct_series(staging / "A", slices=12, rows=64, columns=64)
    large = maker.ct_series(staging / "B", slices=1, rows=3200, columns=3200)
    assert large[0].path.stat().st_size > 16 * 1024 * 1024, "sent in parts"
    amazon.forget()
    site.start()
    for made in (*small, *large):
        made.path.rename(site.inboxes[0] / f"{made.sop_instance_uid}.dcm")
    site.wait_until_empty(90)
    asked = amazon.requests()
    objects = [e.key for e in amazon.exchanges() if e.operation == "GetObject" and e.key.endswith(".dcm")]
    assert objects == [], "all of it was proven by its checksum, and nothing read back"
    assert asked.count("CompleteMultipartUpload") >= 1
    for study in (small, large):
        uid = study[0].study_uid
        amazon.forget()
        found = site.ctl_json("verify", uid)
        assert (found["holds"], found["read_back"]) == (True, 0)
        assert site.ctl_json("verify", uid, "--deep")["holds"]
        assert fetched(site, uid) == expected(study)
    status = site.ctl_json("status")
    assert status["capabilities"]["checksum_of_parts"] and status["capabilities"]["S3 Bucket Key"] == "yes"
    assert amazon.s3().get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert site.stop() == 0
