"""The probe before a store that is stricter than the gateway, one that lies, and one that goes wrong half-way: what it
concludes is what the store backs, or less; and what is shipped then is verified by what the store backs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.config.archive import Encryption
from dicomwatchd.errors import ArchiveRefused, DicomwatchdError, Transient
from dicomwatchd.model import Uid
from tests.faults import bench as benches
from tests.faults.bench import Bench
from tests.faults.figures import Figures
from tests.faults.liar import Liar
from tests.faults.rules import Fault, Match, Rule, applicable
from tests.faults.shipping import fetched
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Made

#: What may mislead the probe: a failure that looks like a refusal, or an answer that is none.
MISLEADING = (
    Fault.RESET_AFTER,
    Fault.CONFLICT,
    Fault.PRECONDITION,
    Fault.EXPIRED_TOKEN,
    Fault.REFUSED,
    Fault.NOT_FOUND,
)
ALL_DAY = 1_000_000

Open = Callable[..., Bench]


@pytest.fixture
def opened(rgw: CephRgw, dynamodb: DynamoDBLocal, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_one(ignores: tuple[str, ...] = (), *, of_parts_alone: bool = False, **options: Any) -> Bench:
            if ignores or of_parts_alone:
                options["liar"] = Liar(rgw.access_key, rgw.secret_key, rgw.region, ignores, of_parts_alone)
            figures = Figures("probe", "")
            return stack.enter_context(benches.bench(rgw, dynamodb, tmp_path, figures, **options))

        yield open_one


def ship(bench: Bench, *rules: Rule) -> tuple[list[Made], Manifest]:
    """Ship a study to its end; what was archived is what was there, by fetch. Returns its manifest."""
    shipping, made = bench.drop()
    with bench.store_proxy.during(*rules):
        shipping.run()
    assert (shipping.left(), shipping.parked(), shipping.fatal) == ([], [], None), shipping.why()
    study = Uid(made[0].study_uid)
    back = fetched(bench.archive.store, bench.archive.catalogue, study)
    assert back == {(m.series_uid, m.sop_instance_uid): m.sha256 for m in made}
    latest = lineage.current(bench.archive.store, study)
    assert latest is not None
    shipping.close()
    return made, latest


def methods(manifest: Manifest) -> set[str]:
    return {item.verified_by for item in manifest.instances}


def test_a_gateway_as_it_is_proves_by_etag(opened: Open) -> None:
    bench = opened()
    found = bench.archive.store.capabilities
    assert (found.etag_is_content, found.checksum_on_head, found.creates_only) == (True, False, True)
    assert found.etag_follows_content and not found.echoes_checksum and not found.lists_versions
    assert found.etag_follows_parts and not found.checksum_of_parts
    assert found.details["part altered after signing"] == found.details["wrong ETag of a part"] == "refused"
    made, manifest = ship(bench)
    assert methods(manifest) == {"etag-answered"}, "no MD5 is worked out here"
    in_parts = next(item for item in manifest.instances if item.size_bytes == made[-1].size_bytes)
    assert in_parts.etag is not None and in_parts.etag.endswith("-1"), "sent in parts"


def test_a_start_after_a_start_finds_the_same(opened: Open) -> None:
    bench = opened()
    first = bench.archive.store.capabilities
    assert bench.archive.store.probe("probe/") == first


def test_a_strict_store_whose_etag_says_nothing_proves_by_checksum(opened: Open) -> None:
    """Amazon S3 under SSE-KMS: the ETag is no MD5, the checksum is kept and enforced."""
    bench = opened(strict=True, always=[Rule(Fault.WRONG_ETAG, Match(without_query=("partNumber",)), times=ALL_DAY)])
    found = bench.archive.store.capabilities
    assert (found.etag_is_content, found.checksum_on_head) == (False, True)
    assert found.details["wrong SHA-256 checksum"] == "refused"
    made, manifest = ship(bench)
    by_size = {item.size_bytes: item.verified_by for item in manifest.instances}
    assert by_size.pop(made[-1].size_bytes) == "read-back", "sent in parts: no checksum over the whole is known of it"
    assert set(by_size.values()) == {"checksum"}


def test_an_etag_that_stays_when_the_content_changes_proves_nothing(opened: Open) -> None:
    bench = opened(strict=True, always=[Rule(Fault.ETAG_OF_KEY, Match(without_query=("partNumber",)), times=ALL_DAY)])
    found = bench.archive.store.capabilities
    assert found.details["ETag follows the content"] == "no"
    assert not found.etag_follows_content and not found.etag_is_content
    assert found.details["ETag of parts follows them"] == "no" and not found.etag_follows_parts
    assert methods(ship(bench)[1]) == {"checksum", "read-back"}


@pytest.mark.parametrize("fault", [Fault.WRONG_ETAG, Fault.ETAG_OF_KEY])
def test_an_etag_of_objects_in_parts_that_stays_proves_nothing(opened: Open, fault: Fault) -> None:
    """Of objects in one piece it is an honest store."""
    shown = [Match(method="POST", query={"uploadId": None}), Match(method="HEAD", path=r"/parts$")]
    bench = opened(always=[Rule(fault, match, times=ALL_DAY) for match in shown])
    found = bench.archive.store.capabilities
    assert found.etag_follows_content and not found.etag_follows_parts and not found.etag_is_content
    made, manifest = ship(bench)
    by_size = {item.size_bytes: item.verified_by for item in manifest.instances}
    assert by_size.pop(made[-1].size_bytes) == "read-back"
    assert set(by_size.values()) == {"etag-answered"}


def test_parts_that_are_not_compared_are_known_by_their_md5(opened: Open) -> None:
    """The store compares objects in one piece with what was signed, and parts with their MD5 alone."""
    bench = opened(of_parts_alone=True)
    found = bench.archive.store.capabilities
    assert found.details["part altered after signing"] == "accepted" != found.details["body altered after signing"]
    assert found.etag_follows_content and found.etag_is_content and not found.etag_follows_parts
    damage = Rule(Fault.CORRUPT_REQUEST, Match(query={"partNumber": None}))
    made, manifest = ship(bench, damage)
    assert damage.hits == 1
    by_size = {item.size_bytes: item.verified_by for item in manifest.instances}
    assert by_size.pop(made[-1].size_bytes) == "etag-md5", "the store has refused the damaged one"
    assert set(by_size.values()) == {"etag-answered"}


def test_parts_that_are_compared_with_nothing_are_read_back(opened: Open) -> None:
    bench = opened(("content-md5",), of_parts_alone=True)
    found = bench.archive.store.capabilities
    assert found.etag_follows_content and not found.etag_is_content and not found.etag_follows_parts
    damage = Rule(Fault.CORRUPT_REQUEST, Match(query={"partNumber": None}))
    _, manifest = ship(bench, damage)
    assert damage.hits == 1 and len(manifest.damaged_keys) == 1
    assert methods(manifest) == {"etag-answered", "read-back"}


def test_a_part_answered_with_the_etag_of_other_bytes_is_completed_by_its_own(opened: Open) -> None:
    """The completion that names it is refused; the next attempt finds the part there, and knows it by its MD5."""
    bench = opened()
    lie = Rule(Fault.WRONG_ETAG, Match(method="PUT", query={"partNumber": None}))
    made, manifest = ship(bench, lie)
    assert lie.hits == 1
    by_size = {item.size_bytes: item.verified_by for item in manifest.instances}
    assert by_size.pop(made[-1].size_bytes) == "etag-md5"
    refused = [r.status for r in bench.store_proxy.requests() if r.method == "POST" and "uploadId" in r.query]
    assert refused == [400, 200]


@pytest.mark.parametrize("fault", [Fault.WRONG_ETAG, Fault.ETAG_OF_KEY])
def test_a_completion_answered_with_another_etag_proves_nothing(opened: Open, fault: Fault) -> None:
    bench = opened()
    lie = Rule(fault, Match(method="POST", query={"uploadId": None}))
    made, manifest = ship(bench, lie)
    assert lie.hits == 1
    by_size = {item.size_bytes: item.verified_by for item in manifest.instances}
    assert by_size.pop(made[-1].size_bytes) == "read-back"
    assert set(by_size.values()) == {"etag-answered"}


@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.ERROR_IN_200])
def test_a_completion_whose_answer_tells_nothing_is_proven_by_md5(opened: Open, fault: Fault) -> None:
    bench = opened()
    lost = Rule(fault, Match(method="POST", query={"uploadId": None}), times=3)
    _, manifest = ship(bench, lost)
    assert lost.hits >= 1
    assert {item.verified_by for item in manifest.instances} <= {"etag-answered", "etag-md5"}


@pytest.mark.parametrize("refusal", [Fault.REFUSED, Fault.CONFLICT])
def test_where_nothing_may_be_overwritten_an_etag_is_not_believed_to_follow_the_content(
    opened: Open, refusal: Fault
) -> None:
    """Stores for records refuse it with 409: there the daemon starts and works as it did."""
    overwrites = Match(method="PUT", path=r"/changing$")
    bench = opened(strict=True, always=[Rule(refusal, overwrites, nth=2, times=ALL_DAY)])
    found = bench.archive.store.capabilities
    assert found.details["ETag follows the content"].startswith("not shown")
    assert found.etag_is_content and not found.etag_follows_content
    assert methods(ship(bench)[1]) == {"etag-md5"}


def test_a_checksum_that_is_not_echoed_leaves_the_etag_unproven(opened: Open) -> None:
    """Where the store's answers name what it has worked out, each answer has to."""
    instances = Match(method="PUT", path=r"\.dcm$", without_query=("partNumber",))
    bench = opened(strict=True)
    assert bench.archive.store.capabilities.echoes_checksum
    silent = Rule(Fault.NO_CHECKSUM_ECHO, instances)
    other = Rule(Fault.WRONG_CHECKSUM, instances, nth=2)
    _, manifest = ship(bench, silent, other)
    assert (silent.hits, other.hits) == (1, 1)
    found = [item.verified_by for item in manifest.instances]
    assert found.count("etag-md5") == 3, "those two, and what was sent in parts"
    assert found.count("etag-answered") == len(found) - 3 > 0


def test_an_answer_with_the_etag_of_other_bytes_proves_nothing(opened: Open) -> None:
    """The store is honest at its probe; then the answer to one creation names another object's ETag."""
    bench = opened(strict=True)
    lie = Rule(Fault.WRONG_ETAG, Match(method="PUT", path=r"\.dcm$", without_query=("partNumber",)))
    _, manifest = ship(bench, lie)
    assert lie.hits == 1
    assert [item.verified_by for item in manifest.instances].count("checksum") == 1


def test_an_etag_that_is_no_md5_means_reading_back(opened: Open) -> None:
    bench = opened(always=[Rule(Fault.WRONG_ETAG, Match(without_query=("partNumber",)), times=ALL_DAY)])
    assert not bench.archive.store.capabilities.etag_is_content
    assert methods(ship(bench)[1]) == {"read-back"}


def test_a_store_that_takes_a_wrong_md5_is_not_believed_its_etags(opened: Open) -> None:
    bench = opened(("content-md5",))
    found = bench.archive.store.capabilities
    assert not found.etag_is_content and not found.checksum_on_head and not found.etag_follows_content
    assert not found.etag_follows_parts and found.details["part altered after signing"] == "accepted"
    assert found.details["wrong Content-MD5"] == "accepted" == found.details["body altered after signing"]
    assert methods(ship(bench)[1]) == {"read-back"}


def test_bytes_that_such_a_store_keeps_damaged_are_sent_again_under_the_next_key(opened: Open) -> None:
    bench = opened(("content-md5", "x-amz-checksum"))
    damage = Rule(Fault.CORRUPT_REQUEST, Match(method="PUT", path=r"\.dcm$", without_query=("partNumber",)), nth=2)
    made, manifest = ship(bench, damage)
    assert damage.hits == 1
    [repaired] = [item for item in manifest.instances if item.key.endswith("-2.dcm")]
    assert manifest.damaged_keys == (repaired.key.replace("-2.dcm", ".dcm"),)
    assert len(bench.listed(made)) == len(made) + 2, "the damaged object is still there, untouched"
    in_parts = Rule(Fault.CORRUPT_REQUEST, Match(query={"partNumber": None}))
    made, manifest = ship(bench, in_parts)
    assert in_parts.hits == 1 and len(manifest.damaged_keys) == 1


def test_a_store_that_overwrites_is_never_made_to(opened: Open) -> None:
    bench = opened(("if-none-match",))
    assert not bench.archive.store.capabilities.creates_only
    # Without versions no local file would be deleted (tests/system/test_unprotected.py).
    bench.client.put_bucket_versioning(Bucket=bench.bucket, VersioningConfiguration={"Status": "Enabled"})
    bench.archive.store.refresh_expiry()
    made, _ = ship(bench)
    bench.store_proxy.forget()
    again, more = bench.drop()
    for one in made:
        target = again.inbox / one.path.name
        target.write_bytes(fetched_bytes(bench, one))
    again.run()
    again.close()
    assert len(more) == len(made)
    sent = [r for r in bench.store_proxy.requests() if r.method == "PUT" and made[0].study_uid in r.path]
    assert sent == [], "what is there is not sent again"


def fetched_bytes(bench: Bench, one: Made) -> bytes:
    [key] = [key for key in bench.listed([one]) if one.sha256 in key]
    return bench.client.get_object(Bucket=bench.bucket, Key=benches.PREFIX + key)["Body"].read()


def test_a_store_that_ignores_encryption_is_refused(opened: Open) -> None:
    with pytest.raises(ArchiveRefused):
        opened(always=[Rule(Fault.NO_ENCRYPTION_ECHO, times=ALL_DAY)])


def test_trouble_is_never_taken_for_a_refusal(opened: Open) -> None:
    """Before a store that checks nothing, each fault at each request of the probe: it is found out all the same."""
    bench = opened(("content-md5", "if-none-match", "x-amz-checksum"), encryption=Encryption())
    store, proxy = bench.archive.store, bench.store_proxy
    proxy.forget()
    store.probe("probe/")
    requests = proxy.requests()
    assert len(requests) > 15
    believed, tried = [], 0
    for number, request in enumerate(requests, 1):
        for fault in MISLEADING:
            if fault not in applicable(request):
                continue
            for times in (1, 3) if fault is Fault.RESET_AFTER else (1,):
                tried += 1
                proxy.set([Rule(fault, nth=number, times=times)])
                try:
                    found = store.probe("probe/")
                except DicomwatchdError:
                    continue  # nothing is concluded, and nothing shipped
                proves = found.etag_is_content or found.etag_follows_content or found.etag_follows_parts
                if proves or found.checksum_on_head or found.creates_only:
                    believed.append((str(fault), number, request.operation, found.details))
    proxy.clear()
    assert believed == [] and tried > 100
    Figures("probe", "faults at each request of the probe, before a store that checks nothing", tried=tried).write()


def test_an_honest_store_is_found_out_at_the_next_start_at_the_latest(opened: Open) -> None:
    bench = opened()
    store, proxy = bench.archive.store, bench.store_proxy
    truth = store.capabilities
    proxy.forget()
    store.probe("probe/")
    for number, request in enumerate(proxy.requests(), 1):
        rule = Rule(Fault.RESET_AFTER, nth=number)
        proxy.set([rule])
        try:
            found = store.probe("probe/")
        except Transient:
            pass
        else:
            assert not found.checksum_on_head, f"request {number}, {request.operation}"
        assert rule.hits == 1
    proxy.clear()
    assert store.probe("probe/") == truth
