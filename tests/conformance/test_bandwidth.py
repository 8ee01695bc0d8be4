"""The limit on sending at a real store, over http and TLS: it is kept, and what arrives is what was sent, at once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicomwatchd.archive.aws import deadlines
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.archive.stores.uplink import Uplink
from dicomwatchd.config.bandwidth import schedule_of
from dicomwatchd.ports import SystemClock
from tests.conformance.conftest import BucketPlace
from tests.conformance.test_store import MIB, Source
from tests.conformance.test_store_fast_path import Altered, probed

KEY = "studies/1.2/series/1.3/1.4/{}.dcm"


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https-kms"])
def test_objects_and_parts_at_a_limit(
    rgw_place: Callable[[bool], BucketPlace], tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rgw_place(tls)
    place.open().initialise()
    uplink = Uplink(SystemClock())
    store = probed(place, single_put_bytes=2 * MIB, part_bytes=5 * MIB, uplink=uplink)
    altered = Altered(store)
    uplink.follow(schedule_of({"default": "4MB/s"}))
    # Each of 32 objects shares the line with the others for longer than that.
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(deadlines, "BODY_BYTES_PER_SECOND", 1 << 30)
    small = [os.urandom(500_000) for _ in range(32)]
    large = os.urandom(12 * MIB)
    with ThreadPoolExecutor(32) as workers:
        began = time.monotonic()
        list(workers.map(lambda data: store.put(KEY.format(hashlib.sha256(data).hexdigest()), Buffer.of(data)), small))
        seconds = time.monotonic() - began
        assert 16 / 4 - 0.2 < seconds < 16 / 4 + 20
    began = time.monotonic()
    store.put(KEY.format("large"), Source(large))
    seconds = time.monotonic() - began
    assert 12 * MIB / 4e6 - 0.2 < seconds < 12 * MIB / 4e6 + 20
    # None was given up and sent again by botocore.
    assert len(altered.responses) == 32 + 3
    assert all(response is not None and response.status == 200 for response in altered.responses)
    for data in small:
        assert b"".join(store.read(KEY.format(hashlib.sha256(data).hexdigest()))) == data
    assert b"".join(store.read(KEY.format("large"))) == large


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https-kms"])
def test_the_probe_finds_the_same_at_a_limit(rgw_place: Callable[[bool], BucketPlace], tls: bool) -> None:
    """A daemon that is started with a limit must not take the store for one that compares nothing."""
    place = rgw_place(tls)
    place.open().initialise()
    uplink = Uplink(SystemClock())
    uplink.follow(schedule_of({"default": "20MB/s"}))
    free, limited = probed(place).capabilities, probed(place, uplink=uplink).capabilities
    assert limited.details["body altered after signing"] == "refused"
    assert limited == free and limited.etag_follows_content and limited.etag_follows_parts
