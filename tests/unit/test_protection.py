"""What of a bucket's settings deletion leans on: what is taken for a reason to wait, what is not, and that it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from dicomwatchd.archive.stores.s3 import protection, settings
from dicomwatchd.archive.stores.s3.expiry import aborts_after_days
from dicomwatchd.archive.stores.s3.protection import ProtectionWatch
from dicomwatchd.model import Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion.vetoes import expiring
from dicomwatchd.pipeline.deletion.vetoes.expiring import WAITING_CHECK_SECONDS
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance

STUDY = Uid("1.2.1")
DATA = [instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number) for number in range(1, 4)]
WHY = "the bucket is open to everybody"


def error(code: str, status: int) -> Exception:
    details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(details, "GetBucket")


DENIED = error("AccessDenied", 403)
NO_BLOCK = error("NoSuchPublicAccessBlockConfiguration", 404)
NO_POLICY = error("NoSuchBucketPolicy", 404)
WHOLE: dict[str, bool] = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)
OWNER = [{"Grantee": {"ID": "owner"}, "Permission": "FULL_CONTROL"}]


def for_everybody(group: str = "AllUsers") -> list[dict[str, Any]]:
    return [*OWNER, {"Grantee": {"URI": f"http://acs.amazonaws.com/groups/global/{group}"}, "Permission": "READ"}]


class Bucket:
    """Answers as a bucket does; an exception is raised. ``asked`` are the questions that came."""

    def __init__(self, **answers: Any) -> None:
        self.block: Any = NO_BLOCK
        self.policy: Any = NO_POLICY
        self.acl: Any = OWNER
        self.statements: Any = [{"Effect": "Allow", "Principal": "*"}]
        self.versions: Any = {}
        self.asked: list[str] = []
        self.watch = ProtectionWatch()
        self.__dict__.update(answers)

    def _say(self, what: str, as_told: dict[str, Any] | None = None) -> Any:
        self.asked.append(what)
        answer = getattr(self, what)
        if isinstance(answer, Exception):
            raise answer
        return answer if as_told is None else as_told

    def get_public_access_block(self, **_: object) -> Any:
        return {"PublicAccessBlockConfiguration": self._say("block")}

    def get_bucket_policy_status(self, **_: object) -> Any:
        return {"PolicyStatus": {"IsPublic": self._say("policy")}}

    def get_bucket_policy(self, **_: object) -> Any:
        statements = self._say("statements")
        return {"Policy": json.dumps({"Statement": statements})}

    def get_bucket_acl(self, **_: object) -> Any:
        return {"Grants": self._say("acl")}

    def get_bucket_versioning(self, **_: object) -> Any:
        return self._say("versions")

    def look(self, *, creates_only: bool = True) -> str | None:
        self.watch.ask(self, "bucket", creates_only=creates_only)
        return self.watch.why


# -- who else may reach it ---------------------------------------------------------------------------------------------


OPEN: list[dict[str, Any]] = [
    {"policy": True},
    {"acl": for_everybody()},
    {"acl": for_everybody("AuthenticatedUsers")},
    {"policy": True, "block": {**WHOLE, "RestrictPublicBuckets": False}},
    {"acl": for_everybody(), "block": {**WHOLE, "IgnorePublicAcls": False}},
    {"policy": True, "acl": DENIED},
    {"acl": for_everybody(), "policy": DENIED},
    {"policy": True, "block": error("NotImplemented", 501)},
]


@pytest.mark.parametrize("answers", OPEN, ids=range(8))
def test_a_bucket_that_is_open_to_everybody(answers: dict[str, Any]) -> None:
    bucket = Bucket(**answers)
    said = bucket.look()
    assert said is not None and "open to everybody" in said
    assert settings.exposure(bucket, "bucket").is_public is True


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"policy": False},
        {"policy": True, "acl": for_everybody(), "block": WHOLE},
        {"policy": True, "block": {"RestrictPublicBuckets": True}},
        {"acl": for_everybody(), "block": {"IgnorePublicAcls": True}},
        {"acl": [{"Grantee": {"URI": "http://acs.amazonaws.com/groups/s3/LogDelivery"}}]},
        {"block": DENIED},
        # Ceph 18 calls these public.
        {"policy": True, "statements": [{"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/ct1"]}}]},
        {"policy": True, "statements": [{"Effect": "Deny", "Principal": "*"}]},
    ],
    ids=range(9),
)
def test_a_bucket_that_is_not(answers: dict[str, Any]) -> None:
    bucket = Bucket(**answers)
    assert bucket.look() is None
    assert settings.exposure(bucket, "bucket").is_public is False


@pytest.mark.parametrize(
    "answers",
    [
        {"block": DENIED, "policy": True},  # a block may hold it up
        {"block": DENIED, "acl": for_everybody()},
        {"policy": DENIED},
        {"acl": DENIED},
        {"block": DENIED, "policy": DENIED, "acl": DENIED},
        {"policy": error("InternalError", 500)},
        {"policy": True, "statements": DENIED},
        {"policy": True, "statements": [{"Effect": "Allow", "Principal": "*", "Condition": {"IpAddress": {}}}]},
    ],
    ids=range(8),
)
def test_what_could_not_be_asked_is_no_reason_to_keep_anything(answers: dict[str, Any]) -> None:
    bucket = Bucket(**answers)
    assert bucket.look() is None
    found = settings.exposure(bucket, "bucket")
    assert found.is_public is None and found.unanswered


def test_a_whole_block_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(block=WHOLE)
    assert settings.exposure(bucket, "bucket").is_blocked
    assert bucket.asked == ["block"]
    half = Bucket(block={"IgnorePublicAcls": True, "RestrictPublicBuckets": True})
    assert not settings.exposure(half, "bucket").is_blocked and half.asked == ["block"]


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [{}, {"Status": "Suspended"}])
def test_a_store_that_overwrites_and_keeps_nothing(status: dict[str, str]) -> None:
    bucket = Bucket(versions=status)
    assert bucket.look(creates_only=False) == protection.OVERWRITTEN
    bucket.versions = {"Status": "Enabled"}
    assert bucket.look(creates_only=False) is None
    bucket.versions = status
    assert bucket.look(creates_only=True) is None, "where nothing is overwritten no versions are needed"


def test_versions_that_may_not_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bucket(versions=DENIED).look(creates_only=False) is None


# -- what is known, and until when -------------------------------------------------------------------------------------

LATER = [error("SlowDown", status) for status in (429, 502, 503, 504)]


@pytest.mark.parametrize("why", LATER, ids=["429", "502", "503", "504"])
@pytest.mark.parametrize("question", ["block", "policy", "acl", "versions"])
def test_before_the_first_answer_nothing_is_deleted(question: str, why: Exception) -> None:
    bucket = Bucket()
    assert bucket.watch.why == protection.UNTIL_THEN
    setattr(bucket, question, why)
    for _ in range(2):
        with pytest.raises(botocore.exceptions.ClientError):
            bucket.look(creates_only=False)
        assert bucket.watch.why == protection.UNTIL_THEN
    with pytest.raises(botocore.exceptions.ClientError):
        bucket.look(creates_only=False)
    assert bucket.watch.why is None, "a store that never has time for it does not know the question"


def test_looks_in_vain_count_in_a_row_alone() -> None:
    bucket = Bucket(block=LATER[2])
    for _ in range(2):
        with pytest.raises(botocore.exceptions.ClientError):
            bucket.look()
    assert bucket.watch.why == protection.UNTIL_THEN
    bucket.block, bucket.policy = NO_BLOCK, True
    assert bucket.look() is not None


@pytest.mark.parametrize("why", [DENIED, error("InternalError", 500), LATER[2]], ids=["denied", "500", "503"])
def test_what_was_known_is_not_forgotten(why: Exception) -> None:
    bucket = Bucket(policy=True, versions={})
    assert bucket.look(creates_only=False) == protection.OVERWRITTEN
    bucket.policy = bucket.versions = why
    for _ in range(4):
        try:
            bucket.look(creates_only=False)
        except botocore.exceptions.ClientError:
            assert why is LATER[2]
        assert bucket.watch.why == protection.OVERWRITTEN
    bucket.versions = {"Status": "Enabled"}
    if why is not LATER[2]:
        assert "open to everybody" in (bucket.look(creates_only=False) or "")
    bucket.policy = False
    assert bucket.look(creates_only=False) is None


# -- unfinished uploads ------------------------------------------------------------------------------------------------


def test_rules_that_end_unfinished_uploads() -> None:
    rule = {
        "Status": "Enabled",
        "Filter": {"Prefix": "p/"},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    assert aborts_after_days([rule], "p/") == 7
    assert aborts_after_days([rule], "p/q/") == 7
    assert aborts_after_days([rule, {**rule, "Filter": {}, "Prefix": ""}], "p/") == 7
    for harmless in (
        {"Status": "Disabled"},
        {"Filter": {"Prefix": "q/"}},
        {"Filter": {"Prefix": "p/studies/"}},
        {"Filter": {"And": {"Prefix": "p/", "Tags": [{"Key": "a", "Value": "b"}]}}},
        {"AbortIncompleteMultipartUpload": None},
    ):
        assert aborts_after_days([{**rule, **harmless}], "p/") is None


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def drop(pieces: Pieces) -> None:
    for number, data in enumerate(DATA):
        (pieces.inbox / f"IM{number}").write_bytes(data)


def look(pieces: Pieces) -> None:
    pieces.parts.expiring.step()
    pieces.clock.advance(WAITING_CHECK_SECONDS)
    pieces.parts.expiring.step()


def test_files_are_archived_and_kept_until_it_is_mended(pieces: Pieces) -> None:
    pieces.memory.unprotected = WHY
    drop(pieces)
    pieces.run(rounds=2)
    look(pieces)
    assert len(pieces.left()) == len(DATA) and len(pieces.archived()) == len(DATA)
    shown = pieces.queue.reports.show(STUDY)
    assert shown is not None and shown["kept"] == [{"code": "expiring", "reason": expiring.REASON, "files": len(DATA)}]
    assert pieces.parts.expiring.stops_deleting() == WHY
    for _ in range(3):
        look(pieces)
        pieces.ship()
    assert len(pieces.log.events("archive-unprotected")) == 1, "told once"
    assert not pieces.log.events("archive-expires")
    pieces.restart()
    pieces.ship()
    assert len(pieces.left()) == len(DATA)
    pieces.memory.unprotected = None
    look(pieces)
    pieces.ship()
    assert pieces.left() == []
    assert pieces.log.events("archive-stays") == [{"files": len(DATA)}]
    assert pieces.parts.expiring.problem is None


def test_one_of_two_reasons_is_mended(pieces: Pieces) -> None:
    pieces.memory.unprotected, pieces.memory.expires = WHY, "a rule expires objects"
    drop(pieces)
    pieces.run(rounds=2)
    look(pieces)
    for event in ("archive-unprotected", "archive-expires"):
        assert len(pieces.log.events(event)) == 1
    pieces.memory.expires = None
    look(pieces)
    pieces.ship()
    assert len(pieces.left()) == len(DATA) and not pieces.log.events("archive-stays")
    pieces.memory.unprotected = None
    look(pieces)
    pieces.ship()
    assert pieces.left() == []


def test_a_setting_that_changes_while_a_study_is_on_its_way(pieces: Pieces) -> None:
    drop(pieces)
    pieces.settle()
    with at(stages, "purge", lambda: setattr(pieces.memory, "unprotected", WHY)):
        pieces.ship()
    assert len(pieces.left()) == len(DATA)
