"""Listings that are well-formed and no answer to what was asked: another request's, or without end. That something is
not listed decides nothing by itself, but for one thing: where no record of an erasure is listed, none is obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pytest

from dicomwatchd.archive.stores.s3 import fast_path
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.listed import ListedPage, Paging
from dicomwatchd.config.archive import Encryption
from dicomwatchd.errors import Transient
from tests.unit.test_aws_responses import HEAD, bucket
from tests.unit.test_data_plane import talking, whole

_EMPTY = (
    HEAD + b"<ListBucketResult><Name>b</Name><Prefix>%s</Prefix><IsTruncated>false</IsTruncated></ListBucketResult>"
)
_NO_VERSIONS = _EMPTY.replace(b"ListBucketResult", b"ListVersionsResult")
Ask = Callable[[S3Bucket], Iterable[object]]
ASKED: dict[str, tuple[bytes, Ask]] = {
    "objects": (_EMPTY, lambda bucket: bucket.listing("erased/1.2/")),
    "versions": (_NO_VERSIONS, lambda bucket: bucket.current_versions("erased/1.2/")),
    "common prefixes": (_EMPTY, lambda bucket: bucket.common_prefixes("erased/1.2/")),
}


@pytest.mark.parametrize(("empty", "ask"), ASKED.values(), ids=ASKED.keys())
def test_an_empty_listing_of_another_study_says_nothing_of_this_one(
    monkeypatch: pytest.MonkeyPatch, empty: bytes, ask: Ask
) -> None:
    """As a gateway gives it that has mixed up two requests."""
    with bucket(monkeypatch) as (server, asked):
        server.body = empty % b"p/erased/1.2/"
        assert list(ask(asked)) == []
        server.body = empty % b"p/erased/1.3/"
        with pytest.raises(Transient) as caught:
            list(ask(asked))
        assert caught.value.endpoint == asked.endpoint


def test_nor_does_it_on_the_data_plane() -> None:
    asked = "p/a+b/erased/1.2/"
    others = [whole(body % b"p/erased/1.3/") for body in (_EMPTY, _NO_VERSIONS)]
    plain = [whole(body % asked.encode()) for body in (_EMPTY, _NO_VERSIONS)]
    coded = [whole(body % b"p/a%2Bb/erased/1.2/") for body in (_EMPTY, _NO_VERSIONS)]
    silent = [whole((body % b"").replace(b"<Prefix></Prefix>", b"")) for body in (_EMPTY, _NO_VERSIONS)]
    with talking(*others, *plain, *coded, *silent) as (made, _):
        ways: list[Callable[[], object]] = [
            partial(fast_path.list_objects, made, asked, Paging()),
            partial(fast_path.list_versions, made, asked, None),
        ]
        found = [way() is not None for _ in range(4) for way in ways]
    assert found == [False, False, True, True, True, True, True, True]


@pytest.mark.parametrize("way", ["listing", "common_prefixes"])
def test_pages_that_lead_to_themselves_end(way: str) -> None:
    """Without an object in it, of which could be told that it was there before."""
    pages = iter([*[ListedPage([], "again")] * 5, ListedPage([], None)])
    bucket = S3Bucket(None, "b", "p/", "s3 at test", Encryption(mode="store-default"))  # type: ignore[arg-type]
    with pytest.raises(Transient):
        list(getattr(bucket, way)("erased/1.2/", "", lambda *_: next(pages)))
