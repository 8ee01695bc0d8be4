"""Storage Commitment (PS3.4 Annex J), with pynetdicom as the modality: it is told that the archive holds an image when
that is so, and at no other time, whatever happens to whom."""

from __future__ import annotations

import json
import queue
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.committing_modality import Modality, Pair
from tests.servers.amazon import Amazon
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import CT_IMAGE, MR_IMAGE, Made, Maker, Patient
from tests.system.receiving import Receiving
from tests.system.site import Site
from tests.system.test_journey_s3 import archive_of

FAILED, NO_SUCH_INSTANCE, CONFLICT = 0x0110, 0x0112, 0x0119


class Ward:
    """A site with a receiver that is asked for commitment by one modality."""

    def __init__(
        self, root: Path, archive: dict[str, Any] | None = None, *, wait_seconds: float = 600, **settings: Any
    ) -> None:
        self.site = Site(root, archive, inbox={"settle_seconds": 0, **settings.pop("inbox", {})}, **settings)
        self.folder = root / "commitments"
        self.folder.mkdir()
        self.receiving = Receiving(self.site)
        self.modality = Modality(self.receiving.port)
        self.site.config["destinations"] = [{"name": "ct1", "ae_title": "CT1", "address": self.modality.address}]
        self.commitment = {"folder": str(self.folder), "report_to": ["ct1"], "wait_seconds": wait_seconds}
        self.receiving.configure(commitment=self.commitment)
        self.maker = Maker(seed=5, patient=Patient.marked("CANARY^JANE"))

    def made(self, slices: int = 3) -> list[Made]:
        return self.maker.ct_series(self.site.root / "scanner", slices=slices, rows=32, columns=32)

    def begin(self) -> None:
        self.site.init()
        self.receiving.start()
        self.site.start()

    def close(self) -> None:
        self.modality.close()
        self.receiving.close()
        self.site.close()

    def files(self) -> int:
        """That the daemon knows of."""
        return sum(self.site.ctl_json("status")["files"].values())

    def is_settled(self) -> bool:
        return not list(self.folder.iterdir())


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    ward = Ward(tmp_path)
    yield ward
    ward.close()


def pairs(made: list[Made]) -> list[Pair]:
    return [(CT_IMAGE, one.sop_instance_uid) for one in made]


def paths(made: list[Made]) -> list[Path]:
    return [one.path for one in made]


def nothing_is_reported(modality: Modality, seconds: float) -> bool:
    try:
        modality.report(seconds)
    except queue.Empty:
        return True
    return False


def test_committed_once_it_is_archived_and_deleted(ward: Ward) -> None:
    ward.begin()
    made = ward.made()
    with ward.modality as modality:
        modality.store(paths(made))
        assert modality.ask(pairs(made), transaction_uid="1.2.3.4") == 0
        report = modality.report()
        assert (report.transaction_uid, report.event_type, report.calling) == ("1.2.3.4", 1, "ARCHIVE")
        assert (report.committed, report.failed) == (set(pairs(made)), {})
        ward.site.wait_until_empty()
        # What is long gone from here is found in the archive.
        assert modality.ask(pairs(made)) == 0
        assert modality.report().committed == set(pairs(made))
        ward.site.wait_for(ward.is_settled, 60, "the folder to be tidied")
    [first, _] = ward.site.events("commitment-reported")
    assert (first["receiver"], first["calling_ae_title"], first["instances"], first["failed_instances"]) == (
        "ct",
        "CT1",
        3,
        0,
    )
    log = ward.site.log_file.read_text()
    assert "CANARY" not in log and str(ward.folder) not in log


def test_what_the_archive_does_not_hold(ward: Ward) -> None:
    ward.begin()
    made = ward.made()
    with ward.modality as modality:
        modality.store(paths(made))
        wrong, unknown = (MR_IMAGE, made[0].sop_instance_uid), (CT_IMAGE, "1.2.3.4.5")
        assert modality.ask([*pairs(made)[1:], wrong, unknown]) == 0
        report = modality.report()
        assert (report.event_type, report.committed) == (2, set(pairs(made)[1:]))
        assert report.failed == {wrong: CONFLICT, unknown: NO_SUCH_INSTANCE}


def test_what_is_on_its_way_is_waited_for(tmp_path: Path) -> None:
    ward = Ward(tmp_path, inbox={"quiet_seconds": 6})
    try:
        ward.begin()
        made = ward.made()
        with ward.modality as modality:
            modality.store(paths(made))
            assert modality.ask(pairs(made)) == 0
            assert nothing_is_reported(modality, 4)
            assert modality.report().committed == set(pairs(made))
            assert ward.site.events("study-archived")
    finally:
        ward.close()


def test_what_does_not_get_there_in_time_has_failed(tmp_path: Path) -> None:
    ward = Ward(tmp_path, wait_seconds=3, inbox={"quiet_seconds": 600})
    try:
        ward.begin()
        made = ward.made()
        with ward.modality as modality:
            modality.store(paths(made))
            assert modality.ask(pairs(made)) == 0
            assert modality.report().failed == dict.fromkeys(pairs(made), FAILED)
    finally:
        ward.close()


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_an_object_that_the_archive_has_lost(ward: Ward, harm: str, tmp_path: Path) -> None:
    """It was there when the local file was deleted; now it is not, and nobody is told that it were."""
    ward.receiving.configure(commitment={**ward.commitment, "wait_seconds": 5})
    ward.begin()
    made = ward.made()
    with ward.modality as modality:
        modality.store(paths(made))
        ward.site.wait_for(lambda: bool(ward.site.events("study-archived")), 60, "the study to be archived")
        ward.site.wait_until_empty()
        [stored] = [
            path
            for path in (tmp_path / "archive").rglob("*")
            if path.is_file() and made[0].path.read_bytes()[-1000:] in path.read_bytes()
        ]
        if harm == "gone":
            stored.unlink()
        else:
            stored.chmod(0o644)
            stored.write_bytes(stored.read_bytes()[:-1] + b"\x7f")
        assert modality.ask(pairs(made)) == 0
        report = modality.report()
        assert report.committed == set(pairs(made)[1:]) and report.failed == {pairs(made)[0]: FAILED}


def test_another_content_that_is_not_archived_yet(ward: Ward) -> None:
    """The archive has the instance as it was first sent. What the modality has now is the second, which must not be
    told to be safe for that."""
    ward.receiving.configure(commitment={**ward.commitment, "wait_seconds": 20})
    ward.begin()
    made = ward.made(1)
    with ward.modality as modality:
        modality.store(paths(made))
        assert modality.ask(pairs(made)) == 0
        assert modality.report().committed == set(pairs(made))
        ward.site.wait_until_empty()
        assert ward.site.stop() == 0
        data = made[0].path.read_bytes()
        (ward.site.root / "corrected.dcm").write_bytes(data[:-2] + bytes(2))
        modality.store([ward.site.root / "corrected.dcm"])
        assert modality.ask(pairs(made)) == 0
        ward.site.start()
        # Both are archived, and held until somebody has looked at them.
        ward.site.wait_for(lambda: bool(ward.site.events("versions-held")), 60, "both to be held")
        assert modality.report().failed == {pairs(made)[0]: FAILED}
        ward.site.ctl("release", made[0].study_uid, "--because", "corrected")
        assert modality.ask(pairs(made)) == 0
        assert modality.report().committed == set(pairs(made))


def test_one_that_was_taken_out_of_the_inbox(tmp_path: Path) -> None:
    """Seen, and gone before it was sent: nobody has it but the modality."""
    ward = Ward(tmp_path, inbox={"quiet_seconds": 600, "send_while_arriving": False})
    try:
        ward.begin()
        made = ward.made(1)
        with ward.modality as modality:
            modality.store(paths(made))
            ward.site.wait_for(lambda: ward.files() == 1, 60, "the file to be seen")
            (ward.site.inbox / f"{made[0].sop_instance_uid}.dcm").unlink()
            ward.site.wait_for(lambda: ward.files() == 0, 60, "the file to be missed")
            assert modality.ask(pairs(made)) == 0
            assert modality.report().failed == {pairs(made)[0]: FAILED}
    finally:
        ward.close()


def test_files_that_are_kept_are_committed_to_as_well(tmp_path: Path) -> None:
    ward = Ward(tmp_path, inbox={"after_archive": "keep"})
    try:
        ward.begin()
        made = ward.made()
        with ward.modality as modality:
            modality.store(paths(made))
            assert modality.ask(pairs(made)) == 0
            assert modality.report().committed == set(pairs(made))
    finally:
        ward.close()


def test_a_modality_that_is_away_and_restarts_in_between(ward: Ward) -> None:
    ward.begin()
    made = ward.made()
    modality = ward.modality
    modality.store(paths(made))
    assert modality.ask(pairs(made)) == 0
    ward.site.wait_for(lambda: bool(ward.site.events("commitment-unreported")), 60, "a report that nobody takes")
    ward.receiving.process.kill()  # type: ignore[union-attr]
    ward.receiving.close()
    ward.site.stop(signal.SIGKILL)
    ward.receiving.start()
    ward.site.start()
    time.sleep(2)
    modality.answers = [0x0110]  # it has no time for the first
    with modality:
        assert modality.report().committed == set(pairs(made))
        ward.site.wait_for(ward.is_settled, 60, "the folder to be tidied")
        assert nothing_is_reported(modality, 3)


def test_a_result_that_has_grown_old_is_found_out_anew(ward: Ward, tmp_path: Path) -> None:
    """What was true when the modality was first called need not be when it answers at last."""
    ward.receiving.configure(commitment={**ward.commitment, "wait_seconds": 1})
    ward.begin()
    made = ward.made(1)
    ward.modality.store(paths(made))
    ward.site.wait_for(lambda: bool(ward.site.events("study-archived")), 60, "the study to be archived")
    assert ward.modality.ask(pairs(made)) == 0
    ward.site.wait_for(lambda: any(ward.folder.glob("*.result")), 60, "a result")
    ward.receiving.close()
    ward.site.stop()
    [result] = ward.folder.glob("*.result")
    said = json.loads(result.read_text())
    assert said["failed"] == {}
    said["judged_at"] -= 3600
    result.write_text(json.dumps(said))
    shutil.rmtree(next(path for path in (tmp_path / "archive").rglob("*") if path.name == made[0].study_uid))
    with ward.modality as modality:
        ward.receiving.start()
        assert nothing_is_reported(modality, 3)
        ward.site.start()
        assert modality.report().failed == {pairs(made)[0]: FAILED}


def test_while_no_daemon_runs_the_request_waits(ward: Ward) -> None:
    ward.site.init()
    ward.receiving.start()
    made = ward.made()
    with ward.modality as modality:
        modality.store(paths(made))
        assert modality.ask(pairs(made)) == 0
        assert nothing_is_reported(modality, 3)
        ward.site.start()
        assert modality.report().committed == set(pairs(made))


def test_at_amazon_under_kms_nothing_is_read_back(tmp_path: Path, amazon: Amazon, bucket: str, table_name: str) -> None:
    place = {"region": "us-east-1", "ca_file": str(amazon.ca_file)}
    key = amazon.keys.create("alias/dicom")
    archive = {
        "store": {"kind": "s3", "bucket": bucket, "encryption": {"mode": "aws:kms", "key_id": key}, **place},
        "catalogue": {"kind": "dynamodb", "table": table_name, **place},
    }
    ward = Ward(tmp_path, archive, environment=amazon.env(), wait_seconds=20)
    try:
        ward.begin()
        made = ward.made(12)
        with ward.modality as modality:
            modality.store(paths(made))
            ward.site.wait_for(lambda: bool(ward.site.events("study-archived")), 90, "the study to be archived")
            amazon.forget()
            assert modality.ask(pairs(made)) == 0
            assert modality.report().committed == set(pairs(made))
            asked = [(one.operation, one.key.endswith(".dcm")) for one in amazon.exchanges()]
            assert ("GetObject", True) not in asked and ("HeadObject", True) not in asked
            # Whoever deletes an object there leaves a delete marker: it is not what anybody would be served.
            [victim] = [
                one["Key"]
                for one in amazon.s3().list_objects_v2(Bucket=bucket)["Contents"]
                if made[0].sop_instance_uid in one["Key"]
            ]
            amazon.s3().delete_object(Bucket=bucket, Key=victim)
            assert modality.ask(pairs(made)) == 0
            report = modality.report()
            assert report.failed == {pairs(made)[0]: FAILED} and report.committed == set(pairs(made)[1:])
    finally:
        ward.close()


def test_on_a_gateway_in_bundles(
    tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str
) -> None:
    archive = archive_of(rgw, dynamodb, bucket, table_name)
    archive["layout"] = {"kind": "bundled"}
    ward = Ward(tmp_path, archive, environment=rgw.env())
    try:
        ward.begin()
        made = ward.made(12)
        with ward.modality as modality:
            modality.store(paths(made))
            assert modality.ask(pairs(made)) == 0
            assert modality.report().committed == set(pairs(made))
    finally:
        ward.close()
