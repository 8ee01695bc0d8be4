"""Storage classes, tags and cold storage at Amazon, as its documentation has them (`tests/servers/amazon`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.verification import verify
from dicomwatchd.archive.stores.port import Buffer, Restoring, Transition
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.cli.app import root
from dicomwatchd.config.archive import ObjectTag
from dicomwatchd.errors import ArchiveRefused, ColdObject
from dicomwatchd.fetch.cold import NOTHING_COLD, Asked, ask_back, find
from tests.conformance.test_amazon_store import BIG, PREFIX, Place, at_amazon, examined, place
from tests.conformance.test_store import MIB, Source, bytes_of
from tests.unit.memory_archive import SERIES, STUDY, MemoryStore, archive, content

__all__ = ["at_amazon", "place"]

TAG = ObjectTag(key="archive", value="images/ct")
WARM: Any = {"storage_class": "GLACIER_IR", "tag": TAG}
INSTANCE = keys.instance(STUDY, SERIES, SERIES, "0" * 64)


def kept(place: Place, key: str) -> tuple[str | None, dict[str, str]]:
    seen = place.s3.head_object(**place.of(key))
    tags = place.s3.get_object_tagging(**place.of(key)).get("TagSet", [])
    return seen.get("StorageClass"), {one["Key"]: one["Value"] for one in tags}


def settings(place: Place, **changes: Any) -> Any:
    return place.settings.model_copy(update=changes)


@pytest.fixture
def study(place: Place) -> Manifest:
    """Three instances, with what the store says of them on record."""
    return stored(place.ready())


def stored(store: S3Store) -> Manifest:
    model = MemoryStore()
    manifest = archive(model, [(SERIES, f"1.2.{n}", content(n)) for n in range(3)])
    seen = {}
    for item in manifest.instances:
        store.put(item.key, Source(model.versions[item.key][0]))
        seen[item.key] = store.head(item.key)
    items = [replace(item, etag=seen[item.key].etag) for item in manifest.instances]  # type: ignore[union-attr]
    manifest = replace(manifest, instances=tuple(items))
    store.put(manifest.key, Buffer.of(manifest.to_bytes()))
    return manifest


# -- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_direct", [False, True])
def test_instances_are_stored_in_their_class_with_their_tag(place: Place, is_direct: bool) -> None:
    """By botocore, and by the fast path, as at an endpoint with a private name; in one piece, and in parts."""
    endpoint: Any = {"endpoint_url": place.amazon.direct_endpoint} if is_direct else {}
    store = place.ready(**BIG, settings=settings(place, **WARM, **endpoint))
    assert store.capabilities.details["storage class of instances"] == "GLACIER_IR"
    bundle, manifest = keys.bundle(STUDY, "0" * 64), keys.manifest(STUDY, 1)
    begun: list[Any] = []
    store._bucket.client.meta.events.register(
        "before-call.s3.CreateMultipartUpload", lambda params, **_: begun.append(params["headers"])
    )
    store.put(INSTANCE, Source(b"small"))
    store.put(bundle, Source(bytes(9 * MIB)))
    store.put(manifest, Buffer.of(b"{}"))
    assert kept(place, INSTANCE) == ("GLACIER_IR", {"archive": "images/ct"})
    # The gateway behind forgets the tag of what comes in parts; it is looked for where it is sent.
    assert kept(place, bundle)[0] == "GLACIER_IR"
    assert [one["x-amz-tagging"] for one in begun] == ["archive=images%2Fct"]
    assert kept(place, manifest) == (None, {})
    assert {seen.key: seen.storage_class for seen in store.listing(keys.STUDIES)} == {
        INSTANCE: "GLACIER_IR",
        bundle: "GLACIER_IR",
        manifest: None,
    }
    assert bytes_of(store, INSTANCE) == b"small"


def test_a_class_that_the_store_does_not_have_is_refused(place: Place) -> None:
    place.open().initialise()
    store = place.open(settings=settings(place, storage_class="FREEZER"))
    with pytest.raises(ArchiveRefused, match="storage class or tag"):
        store.probe("probe/fixture/")


# -- what is cold ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kms", [False, True])
def test_what_is_cold_is_proven_without_a_read(at_amazon: Callable[..., Place], kms: bool) -> None:
    place = at_amazon(kms=kms)
    store = place.ready()
    receipts = [store.put(keys.instance(STUDY, SERIES, SERIES, f"{n:064x}"), Source(b"%d" % n)) for n in range(12)]
    place.amazon.storage.transition(place.bucket, PREFIX + keys.STUDIES, "DEEP_ARCHIVE")
    place.amazon.forget()
    verdicts = examined(store, *receipts) + examined(store, receipts[0])
    assert all(verdict.holds for verdict in verdicts)
    assert {verdict.verified_by for verdict in verdicts} == {evidence.Method.ANSWERED_ETAG}
    assert "GetObject" not in place.amazon.requests()
    with pytest.raises(ColdObject):
        bytes_of(store, receipts[0].key)
    assert place.amazon.requests().count("ListObjectsV2") <= 1, "none to learn whether it is there"


def test_a_cold_study_is_held(place: Place, study: Manifest) -> None:
    store = place.open()
    place.amazon.storage.transition(place.bucket, PREFIX + keys.series_prefix(STUDY, SERIES), "GLACIER")
    place.amazon.forget()
    found = verify(store, study)
    assert found.holds and (found.held, found.cold) == (3, 0) and "GetObject" not in place.amazon.requests()
    deep = verify(store, study, deep=True)
    assert deep.holds and (deep.held, deep.cold, deep.read_back) == (3, 3, 0)


def test_what_was_asked_back_is_found_again(place: Place, study: Manifest) -> None:
    store = place.open()
    assert store.restore(study.instances[0].key, "bulk", 7) is Restoring.READABLE, "it is warm"
    place.amazon.storage.transition(place.bucket, PREFIX + keys.series_prefix(STUDY, SERIES), "GLACIER")
    place.amazon.forget()
    frozen = find(store, STUDY, study.instances)
    assert len(frozen.instances) == 3 and sorted(place.amazon.requests()) == ["HeadObject"] * 3 + ["ListObjectsV2"]
    assert ask_back(store, frozen, "bulk", 7) == Asked(started=3)
    assert ask_back(store, frozen, "bulk", 7) == Asked(under_way=3)
    again = find(store, STUDY, study.instances)
    assert again.under_way == 3
    assert ask_back(store, again, "standard", 7) == Asked(under_way=3)
    assert place.amazon.storage.overridden == 0, "which would be charged for"
    place.amazon.storage.finish_restores(place.bucket)
    assert find(store, STUDY, study.instances) == NOTHING_COLD
    assert ask_back(store, frozen, "bulk", 7) == Asked(readable=3)
    seen = store.head(study.instances[0].key)
    assert seen is not None and not seen.is_cold and seen.restore is not None and seen.restore.until == 2145916800.0


def test_a_cold_study_comes_back_by_the_command(
    place: Place, study: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--bucket", place.bucket, "--prefix", PREFIX, "--region", "us-east-1"]
    where += ["--ca-file", str(place.amazon.ca_file)]

    def fetch(*words: str) -> Any:
        result = CliRunner().invoke(root, ["fetch", STUDY, "-o", str(tmp_path / "out"), *words, *where, "--json"])
        return result.exit_code, json.loads(result.stdout)

    def sleep(seconds: float) -> None:
        place.amazon.storage.finish_restores(place.bucket)

    monkeypatch.setattr("dicomwatchd.cli.studies.cold.time", SimpleNamespace(sleep=sleep))
    cold = study.instances[0]
    assert place.amazon.storage.transition(place.bucket, PREFIX + cold.key, "GLACIER") == 1
    place.amazon.forget()
    code, found = fetch()
    assert (code, found["fetched"]) == (1, 2) and found["cold"]["objects"] == 1
    read = {e.key for e in place.amazon.exchanges() if e.operation == "GetObject"}
    assert read == {PREFIX + key for key in (study.key, *(item.key for item in study.instances[1:]))}
    shown = json.loads(CliRunner().invoke(root, ["show", STUDY, *where, "--json"]).stdout)["archive"]["storage"]
    assert [(one["storage_class"], one["objects"]) for one in shown] == [(None, 2), ("GLACIER", 1)]
    code, found = fetch("--restore", "--wait")
    assert (code, found["fetched"], found["already_there"]) == (0, 1, 2)


# -- lifecycle -------------------------------------------------------------------------------------------------------


def test_a_rule_for_the_tag_stands_beside_the_others(place: Place) -> None:
    store = place.ready(settings=settings(place, tag=TAG))
    name: Any = {"Bucket": place.bucket}
    before = place.s3.get_bucket_lifecycle_configuration(**name)["Rules"]
    step = store.add_transitions([Transition(90, "GLACIER")])
    if step.outcome == "not supported":
        pytest.skip(f"the gateway behind does not take such a rule: {step.detail}")
    after = place.s3.get_bucket_lifecycle_configuration(**name)["Rules"]
    assert all(rule in after for rule in before) and len(after) == len(before) + 1
    assert store.add_transitions([Transition(90, "GLACIER")]).outcome == "present"
    assert store.add_transitions([Transition(30, "GLACIER")]).outcome == "not supported"
    assert place.s3.get_bucket_lifecycle_configuration(**name)["Rules"] == after
    assert store.refresh_expiry().unaccepted is None


def test_a_rule_that_ends_what_has_the_tag_ends_the_archive(place: Place) -> None:
    store = place.ready(settings=settings(place, tag=TAG))
    assert store.expiry.unaccepted is None
    rules: list[Any] = list(place.s3.get_bucket_lifecycle_configuration(Bucket=place.bucket)["Rules"])
    tagged = {"Tag": {"Key": TAG.key, "Value": TAG.value}}
    rules.append({"ID": "x", "Status": "Enabled", "Filter": tagged, "Expiration": {"Days": 90}})
    place.s3.put_bucket_lifecycle_configuration(Bucket=place.bucket, LifecycleConfiguration={"Rules": rules})
    assert store.refresh_expiry().unaccepted is not None
    assert place.ready().refresh_expiry().unaccepted is None, "without that tag it is a rule for somebody else's"
