"""Deleting waits while the store would end the archive's objects by itself, and goes on by itself afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import Buffer, Capabilities
from dicomwatchd.archive.stores.s3 import probe
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.expiry import ExpiryWatch, judge
from dicomwatchd.config.archive import AcceptExpiry, ExpiryAfter, ObjectTag, S3Settings
from dicomwatchd.model import StudyState, Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion import batch, evidence
from dicomwatchd.pipeline.deletion.vetoes import expiring
from dicomwatchd.pipeline.deletion.vetoes.expiring import CHECK_SECONDS, WAITING_CHECK_SECONDS
from dicomwatchd.pipeline.shipment import AfterArchive
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryStore
from tests.unit.test_ranges import answer, answering, both_ways

STUDY = Uid("1.2.1")
DATA = [instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number) for number in range(1, 4)]
WHY = "a rule expires objects"

# -- the rules of a bucket --------------------------------------------------------------------------------------------

DAYS = {"Expiration": {"Days": 30}}
ENDS: dict[str, dict[str, Any]] = {
    "the whole bucket": {"Filter": {}},
    "no filter at all": {},
    "an older form": {"Prefix": ""},
    "the archive": {"Filter": {"Prefix": "p/"}},
    "the archive, in an older form": {"Prefix": "p/"},
    "a beginning of the prefix": {"Filter": {"Prefix": "p"}},
    "the studies": {"Filter": {"Prefix": "p/studies/"}},
    "some studies": {"Filter": {"Prefix": "p/studies/1.2.840"}},
    "the audit": {"Filter": {"Prefix": "p/audit/heads/"}},
    "the identity": {"Filter": {"Prefix": "p/archive.json"}},
    "large ones": {"Filter": {"And": {"Prefix": "p/", "ObjectSizeGreaterThan": 1000}}},
    "small ones": {"Filter": {"ObjectSizeLessThan": 1000}},
}
HARMLESS: dict[str, dict[str, Any]] = {
    "disabled": {"Status": "Disabled", "Filter": {"Prefix": "p/"}},
    "no status": {"Status": None, "Filter": {"Prefix": "p/"}},
    "another prefix": {"Filter": {"Prefix": "q/"}},
    "another prefix below And": {"Filter": {"And": {"Prefix": "q/", "ObjectSizeGreaterThan": 1000}}},
    "another prefix, in an older form": {"Prefix": "q/"},
    "a name that begins alike": {"Filter": {"Prefix": "p/studies2/"}},
    "the probe": {"Filter": {"Prefix": "p/probe/"}},
    "markers with nothing under them": {"Filter": {}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
    "versions": {"Filter": {}, "Expiration": None, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
    "uploads": {"Filter": {}, "Expiration": None, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
    "tagged ones": {"Filter": {"Tag": {"Key": "a", "Value": "b"}}},
    "tagged ones below": {"Filter": {"And": {"Prefix": "p/", "Tags": [{"Key": "a", "Value": "b"}]}}},
    "cold storage": {"Filter": {}, "Expiration": None, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]},
}


def rule(changes: dict[str, Any]) -> dict[str, Any]:
    return {"ID": "CANARY^RULE", "Status": "Enabled", **DAYS, **changes}


@pytest.mark.parametrize("changes", ENDS.values(), ids=ENDS.keys())
def test_a_rule_that_ends_objects_of_the_archive(changes: dict[str, Any]) -> None:
    found = judge([rule(HARMLESS["another prefix"]), rule(changes)], "p/", accepts=False)
    assert found.unaccepted is not None and "30 days" in found.unaccepted
    assert "CANARY" not in found.unaccepted and "1.2.840" not in found.unaccepted
    dated = judge([rule({**changes, "Expiration": {"Date": datetime(2030, 1, 2, tzinfo=UTC)}})], "p/", accepts=False)
    assert dated.unaccepted is not None and "2030-01-02" in dated.unaccepted
    accepted = judge([rule(changes)], "p/", accepts=True)
    assert accepted.unaccepted is None and "30 days" in accepted.notes[0]


@pytest.mark.parametrize("changes", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_rule_that_does_not(changes: dict[str, Any]) -> None:
    assert judge([rule(changes)], "p/", accepts=False).unaccepted is None


OURS = ObjectTag(key="archive", value="images")
OUR_TAG = {"Key": "archive", "Value": "images"}
ANOTHER = {"Key": "archive", "Value": "other"}
FOR_OURS: dict[str, dict[str, Any]] = {
    "by itself": {"Filter": {"Tag": OUR_TAG}},
    "below And": {"Filter": {"And": {"Prefix": "p/", "Tags": [OUR_TAG]}}},
    "of some size": {"Filter": {"And": {"Tags": [OUR_TAG], "ObjectSizeGreaterThan": 1000}}},
}
NOT_FOR_OURS: dict[str, dict[str, Any]] = {
    "another value": {"Filter": {"Tag": ANOTHER}},
    "another one as well": {"Filter": {"And": {"Tags": [OUR_TAG, {"Key": "patient", "Value": "x"}]}}},
    "another place": {"Filter": {"And": {"Prefix": "q/", "Tags": [OUR_TAG]}}},
}


@pytest.mark.parametrize("changes", FOR_OURS.values(), ids=FOR_OURS.keys())
def test_a_rule_for_the_tag_of_instances_ends_them(changes: dict[str, Any]) -> None:
    """With the tag that they are stored with, it is a rule for them and no longer for somebody else's objects."""
    assert judge([rule(changes)], "p/", accepts=False).unaccepted is None
    assert judge([rule(changes)], "p/", False, OURS).unaccepted is not None
    assert judge([rule(changes)], "p/", ExpiryAfter(after_days=31), OURS).unaccepted is not None
    assert judge([rule(changes)], "p/", ExpiryAfter(after_days=30), OURS).unaccepted is None
    bucket = Bucket()
    bucket.watch = ExpiryWatch("p/", False, NOW.timestamp, OURS)
    bucket.rules = [rule(changes)]
    assert bucket.look()


@pytest.mark.parametrize("changes", NOT_FOR_OURS.values(), ids=NOT_FOR_OURS.keys())
def test_a_rule_for_other_tags_does_not(changes: dict[str, Any]) -> None:
    assert judge([rule(changes)], "p/", False, OURS).unaccepted is None


def test_a_rule_for_tags_is_known_to_end_some_objects() -> None:
    """Those that were stored with another tag, earlier or by another site."""
    others = [rule(changes) for changes in (HARMLESS["tagged ones"], NOT_FOR_OURS["another value"])]
    assert all(judge([one], "p/", False, OURS).is_by_tag for one in others)
    assert not judge(others, "p/", True, OURS).is_by_tag
    assert not judge(others, "p/", ExpiryAfter(after_days=30), OURS).is_by_tag
    assert not any(judge([rule(changes)], "p/", False, None).is_by_tag for changes in ENDS.values())
    moving = {"Expiration": None, "Transitions": [{"Days": 1, "StorageClass": "GLACIER_IR"}]}
    assert not judge([rule({**HARMLESS["tagged ones"], **moving})], "p/", False, OURS).is_by_tag
    bucket = Bucket()
    bucket.rules = others
    assert bucket.look() is None and bucket.watch.found.is_by_tag


def test_a_rule_that_moves_manifests_is_told_from_one_that_spares_them() -> None:
    cold = {"Expiration": None, "Transitions": [{"Days": 30, "StorageClass": "DEEP_ARCHIVE"}]}
    [of_all] = judge([rule({"Filter": {}, **cold})], "p/", False, OURS).notes
    moved, of_ours = judge([rule({**FOR_OURS["below And"], **cold})], "p/", False, OURS).notes
    assert moved == "a rule moves instances and bundles to DEEP_ARCHIVE 30 days after they were stored"
    assert "manifests with them" in of_all and "--lifecycle" in of_all
    assert "manifests" not in of_ours and "--restore" in of_ours
    assert judge([rule({**NOT_FOR_OURS["another value"], **cold})], "p/", False, OURS).notes == ()


def test_what_else_is_worth_knowing() -> None:
    said = " ".join(judge(map(rule, HARMLESS.values()), "p/", accepts=False).notes)
    assert "delete markers" in said and "cold storage" in said and "tags" in said


def test_an_archive_without_a_prefix() -> None:
    assert judge([rule({"Filter": {"Prefix": "stud"}})], "", accepts=False).unaccepted
    assert judge([rule({"Filter": {"Prefix": "other/"}})], "", accepts=False).unaccepted is None


@pytest.mark.parametrize(("days", "waits"), [(29, True), (30, False), (31, False)])
def test_an_end_so_many_days_after_is_one_that_is_meant(days: int, waits: bool) -> None:
    accepts = ExpiryAfter(after_days=30)
    found = judge([rule({"Filter": {}, "Expiration": {"Days": days}})], "p/", accepts)
    assert (found.unaccepted is not None) is waits
    at_a_date = rule({"Filter": {}, "Expiration": {"Date": datetime(2090, 1, 1, tzinfo=UTC)}})
    assert judge([at_a_date], "p/", accepts).unaccepted, "what is stored on the day before lives for a day"


# -- what answers say -------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = 'expiry-date="Sat, 31 Jan 2026 00:00:00 GMT", rule-id="CANARY^RULE"'
KEY = f"studies/{STUDY}/series/1/1/x.dcm"


class Bucket:
    """Answers about lifecycle rules and about objects, by key: x-amz-expiration, or None; what is not there is gone."""

    def __init__(self, accepts: AcceptExpiry = False) -> None:
        self.rules: list[dict[str, Any]] | Exception = []
        self.objects: dict[str, str | None] = {keys.IDENTITY: None}
        self.watch = ExpiryWatch("p/", accepts, NOW.timestamp)

    def get_bucket_lifecycle_configuration(self, **_: object) -> dict[str, Any]:
        if isinstance(self.rules, Exception):
            raise self.rules
        return {"Rules": self.rules}

    def look(self) -> str | None:
        self.watch.ask(self, "bucket", self._exists)
        return self.watch.found.unaccepted

    def _exists(self, key: str) -> bool:
        if key in self.objects:
            self.watch.noted(key, self.objects[key], NOW)
        return key in self.objects


def refused(code: str, status: int) -> Exception:
    import botocore.exceptions

    details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(details, "GetBucketLifecycleConfiguration")


UNKNOWN = [refused("AccessDenied", 403), refused("NotImplemented", 501), refused("InternalError", 500)]


def test_before_the_first_answer_nothing_is_deleted() -> None:
    bucket = Bucket()
    assert bucket.watch.found.unaccepted is not None
    assert bucket.look() is None and bucket.watch.found.rules_known
    bucket.rules = refused("NoSuchLifecycleConfiguration", 404)
    assert bucket.look() is None and bucket.watch.found.rules_known


@pytest.mark.parametrize("why", UNKNOWN, ids=lambda error: error.response["Error"]["Code"])
def test_rules_that_are_not_told_are_unknown_and_answers_count(why: Exception) -> None:
    bucket = Bucket()
    bucket.rules = why
    assert bucket.look() is None and not bucket.watch.found.rules_known
    bucket.watch.noted(KEY, HEADER, NOW)
    said = bucket.watch.found.unaccepted
    assert said is not None and "2026-01-31" in said and "CANARY" not in said and str(STUDY) not in said


@pytest.mark.parametrize("why", UNKNOWN, ids=lambda error: error.response["Error"]["Code"])
def test_rules_that_are_known_are_not_forgotten_for_a_refusal(why: Exception) -> None:
    bucket = Bucket()
    bucket.rules = [rule({"Filter": {}})]
    assert bucket.look()
    bucket.rules = why
    assert bucket.look()
    bucket.rules = []
    assert bucket.look() is None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_store_that_has_no_time_has_not_answered(status: int) -> None:
    """Else a daemon that starts in a storm would delete, for as long as it does not look again."""
    bucket = Bucket()
    bucket.rules = refused("SlowDown", status)
    with pytest.raises(type(bucket.rules)):
        bucket.look()
    assert bucket.watch.found.unaccepted is not None
    bucket.rules = [rule({"Filter": {}})]
    assert bucket.look()


def test_an_answer_about_the_identity_is_asked_for_at_each_look() -> None:
    bucket = Bucket()
    bucket.rules = UNKNOWN[0]
    bucket.objects[keys.IDENTITY] = HEADER
    assert bucket.look()
    bucket.objects[keys.IDENTITY] = None
    assert bucket.look() is None


def test_what_answers_said_counts_until_they_say_so_no_more() -> None:
    bucket = Bucket()
    bucket.rules = UNKNOWN[0]
    bucket.objects[KEY] = HEADER
    for number in range(10):
        bucket.watch.noted(f"{KEY}{number}", HEADER, NOW)
        bucket.objects[f"{KEY}{number}"] = HEADER
    assert bucket.look()
    for key in bucket.objects:
        bucket.objects[key] = None
    assert bucket.look() is None


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_that_names_a_rule_for_noncurrent_versions_says_nothing(known: bool) -> None:
    """Ceph 18 answers so; where the rules are not known it counts all the same."""
    bucket = Bucket()
    bucket.rules = [rule(HARMLESS["versions"])] if known else UNKNOWN[0]
    bucket.look()
    bucket.watch.noted(KEY, HEADER, NOW)
    assert (bucket.watch.found.unaccepted is None) is known
    bucket.watch.noted(f"{KEY}2", HEADER.replace("CANARY", "ANOTHER"), NOW)
    assert bucket.watch.found.unaccepted is not None


def test_an_object_that_has_ended_is_no_sign_that_the_rule_is_gone() -> None:
    bucket = Bucket()
    bucket.rules = UNKNOWN[0]
    bucket.watch.noted(KEY, HEADER, NOW)
    assert bucket.look(), "it is not there any more"
    bucket.rules = []
    assert bucket.look() is None, "the rules say that nothing ends"


@pytest.mark.parametrize("key", [f"{keys.PROBE}x/plain", "elsewhere"])
def test_what_is_made_to_expire_says_nothing(key: str) -> None:
    bucket = Bucket()
    bucket.look()
    bucket.watch.noted(key, HEADER, NOW)
    assert bucket.watch.found.unaccepted is None


@pytest.mark.parametrize(("after_days", "waits"), [(10, False), (30, False), (31, False), (32, True), (365, True)])
def test_an_answer_of_an_end_that_is_meant(after_days: int, waits: bool) -> None:
    """The day more is for two clocks that differ, and for midnight."""
    bucket = Bucket(ExpiryAfter(after_days=after_days))
    bucket.look()
    bucket.watch.noted(KEY, HEADER, NOW)
    assert (bucket.watch.found.unaccepted is not None) is waits
    bucket.watch.noted(KEY, HEADER, None)  # stored just now, as the answer to a creation says
    assert (bucket.watch.found.unaccepted is not None) is waits


@pytest.mark.parametrize("header", ["", "?", 'expiry-date="soon"', 'expiry-date=""', 'rule-id="x"'])
def test_an_answer_that_cannot_be_read_says_enough(header: str) -> None:
    for accepts, waits in ((False, True), (ExpiryAfter(after_days=1), True), (True, False)):
        bucket = Bucket(accepts)
        bucket.look()
        bucket.watch.noted(KEY, header, NOW)
        assert (bucket.watch.found.unaccepted is not None) is waits


EXPIRES = (f"x-amz-expiration: {HEADER}", "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT")


@both_ways
def test_every_answer_about_an_object_is_listened_to(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool) -> None:
    def asked(*headers: str) -> Iterator[tuple[str, str | None]]:
        for name, ask in (
            ("put", lambda store: store.put(KEY, Buffer.of(b"x"))),
            ("head", lambda store: store.head(KEY)),
            ("read", lambda store: list(store.read(KEY))),
            ("part", lambda store: list(store.read(KEY, offset_bytes=0, length_bytes=1))),
            ("version", lambda store: list(store.read(KEY, "v1"))),
        ):
            body = b"" if name in ("head", "put") else b"x"
            with answering(monkeypatch, with_fast_path, answer("200 OK", body, *headers)) as (store, _):
                store._capabilities = Capabilities(creates_only=True)
                store._bucket.expiry._asked = True
                ask(store)
                yield name, store.expiry.unaccepted

    said = dict(asked(*EXPIRES))
    assert [name for name, why in said.items() if why] == ["put", "head", "read", "part"]
    assert [name for name, why in asked() if why] == []


def test_the_probe_asks_for_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor, too, has an answer then; and the daemon before its first deletion."""
    rule_of_30_days = (
        b"<LifecycleConfiguration><Rule><ID>x</ID><Status>Enabled</Status><Filter/><Expiration><Days>30</Days>"
        b"</Expiration></Rule></LifecycleConfiguration>"
    )
    monkeypatch.setattr(probe, "probe", lambda *_: Capabilities())
    monkeypatch.setattr(S3Bucket, "encrypts", lambda _: None)
    answers = (answer("200 OK", rule_of_30_days), answer("200 OK", b""))
    with answering(monkeypatch, False, *answers) as (store, _):
        store.probe("probe/")
        assert store.expiry.rules_known and "30 days" in (store.expiry.unaccepted or "")


def test_what_the_configuration_says_yes_to() -> None:
    def settings(**changes: Any) -> S3Settings:
        return S3Settings.model_validate({"kind": "s3", "bucket": "abc", **changes})

    assert settings().accept_expiry is False
    assert settings(accept_expiry=True).accept_expiry is True
    assert settings(accept_expiry={"after_days": 3650}).accept_expiry == ExpiryAfter(after_days=3650)
    wrong: Any
    for wrong in ("yes", 1, None, {"after_days": 0}, {"after_days": "10"}, {"days": 3}, []):
        with pytest.raises(ValueError, match="accept_expiry"):
            settings(accept_expiry=wrong)


# -- the daemon -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def drop(pieces: Pieces, count: int = len(DATA)) -> None:
    for number, data in enumerate(DATA[:count]):
        (pieces.inbox / f"IM{number}").write_bytes(data)


def look(pieces: Pieces, after_seconds: float = WAITING_CHECK_SECONDS) -> None:
    pieces.parts.expiring.step()
    pieces.clock.advance(after_seconds)
    pieces.parts.expiring.step()


def state(pieces: Pieces) -> str | None:
    shown = pieces.queue.reports.show(STUDY)
    return None if shown is None else str(shown["state"])


def test_files_are_archived_and_kept_and_go_when_the_rule_is_gone(pieces: Pieces) -> None:
    pieces.memory.expires = WHY
    drop(pieces)
    pieces.run(rounds=2)
    look(pieces)
    assert len(pieces.left()) == len(DATA) and len(pieces.archived()) == len(DATA)
    assert set(pieces.states().values()) == {"kept:expiring"}
    assert state(pieces) == StudyState.ARCHIVED
    shown = pieces.queue.reports.show(STUDY)
    assert shown is not None
    assert shown["kept"] == [{"code": "expiring", "reason": expiring.REASON, "files": len(DATA)}]
    assert pieces.parts.expiring.stops_deleting() == WHY
    for _ in range(3):
        look(pieces)
        pieces.ship()
    assert len(pieces.log.events("archive-expires")) == 1, "told once"
    assert len(pieces.left()) == len(DATA)
    pieces.memory.expires = None
    look(pieces)
    pieces.ship()
    assert pieces.left() == []
    assert pieces.parts.expiring.stops_deleting() is None
    assert pieces.log.events("archive-stays") == [{"files": len(DATA)}]


def test_it_goes_on_after_a_restart_too(pieces: Pieces) -> None:
    pieces.memory.expires = WHY
    drop(pieces)
    pieces.run(rounds=2)
    pieces.restart()
    pieces.ship()
    assert len(pieces.left()) == len(DATA)
    pieces.memory.expires = None
    pieces.restart()
    pieces.ship()
    assert pieces.left() == []


def test_what_is_proven_afresh_is_what_goes(pieces: Pieces) -> None:
    """The rule has ended some objects meanwhile: these files are sent again before they go."""
    pieces.memory.expires = WHY
    drop(pieces)
    pieces.run(rounds=2)
    for key in [key for key in pieces.memory.versions if ".dcm" in key][:2]:
        del pieces.memory.versions[key]
    pieces.memory.expires = None
    look(pieces)
    pieces.run()
    assert pieces.left() == [] and len(pieces.archived()) == len(DATA)


def test_a_rule_that_comes_while_a_study_is_on_its_way(pieces: Pieces) -> None:
    """An answer to the verification may be what tells of it."""
    drop(pieces)
    pieces.settle()
    with at(stages, "purge", lambda: setattr(pieces.memory, "expires", WHY)):
        pieces.ship()
    assert len(pieces.left()) == len(DATA)


def test_a_rule_that_comes_in_the_middle_of_a_purge_stops_the_rest(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "PAGE", 1)
    drop(pieces)
    pieces.settle()
    with at(batch, "delete_on_proof", lambda: setattr(pieces.memory, "expires", WHY), after=True):
        pieces.ship()
    assert len(pieces.left()) == len(DATA) - 1


def test_files_that_fall_due_wait_as_well(pieces: Pieces) -> None:
    pieces.after_archive = AfterArchive(delete=False, keep_seconds=1000.0)
    drop(pieces)
    pieces.run(rounds=2)
    assert set(pieces.states().values()) == {"kept"}
    pieces.memory.expires = WHY
    pieces.clock.advance(1000.0)
    pieces.ship()
    assert set(pieces.states().values()) == {"kept:expiring"}
    pieces.memory.expires = None
    look(pieces)
    pieces.ship()
    assert pieces.left() == []


def test_files_that_shall_stay_anyhow_stay_for_their_own_reason(pieces: Pieces) -> None:
    pieces.after_archive = AfterArchive(delete=False)
    pieces.memory.expires = WHY
    drop(pieces)
    pieces.run(rounds=2)
    pieces.memory.expires = None
    look(pieces)
    pieces.ship()
    assert set(pieces.states().values()) == {"kept"}


def test_the_store_is_asked_at_intervals_and_left_alone_while_it_does_not_answer(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    class Asked(MemoryStore):
        def refresh_expiry(self) -> Any:
            looks.append(pieces.clock.now())
            return super().refresh_expiry()

    monkeypatch.setattr(pieces.memory, "__class__", Asked)
    started = pieces.clock.now()
    for _ in range(int(4 * CHECK_SECONDS / 30)):
        pieces.clock.advance(30)
        pieces.parts.expiring.step()
    assert len(looks) == 4 and looks[0] >= started + CHECK_SECONDS
    pieces.memory.expires = WHY
    looks.clear()
    for _ in range(60):
        pieces.clock.advance(10)
        pieces.parts.expiring.step()
    assert 9 <= len(looks) <= 11
    looks.clear()
    monkeypatch.setattr(type(pieces.dispatcher.backoff), "is_to_be_left_alone", property(lambda _: True))
    look(pieces, 1000)
    assert looks == []


def test_a_store_that_cannot_be_asked_now_is_told_of(pieces: Pieces) -> None:
    from dicomwatchd.errors import OutOfReach

    pieces.memory.fault = OutOfReach("down", endpoint="store")
    look(pieces, CHECK_SECONDS)
    assert len(pieces.log.events("expiry-unknown")) == 1
    assert pieces.parts.expiring.problem is None, "what was known before is known still"


def test_the_record_of_deletions_does_not_go_where_it_would_end(pieces: Pieces) -> None:
    drop(pieces)
    pieces.run()
    assert pieces.left() == []
    pieces.clock.advance(2 * 86400)
    pieces.parts.checkpoints.step()
    pieces.memory.expires = WHY
    look(pieces)
    while pieces.parts.sealing.step():
        pass
    assert [key for key in pieces.memory.versions if "segment" in key] == []
    pieces.memory.expires = None
    look(pieces)
    while pieces.parts.sealing.step():
        pass
    assert len([key for key in pieces.memory.versions if "segment" in key]) == 1
