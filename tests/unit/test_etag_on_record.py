"""A manifest names the ETag by which an object is known again, whatever proved its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.proof.verification import verify
from dicomwatchd.archive.stores.port import Capabilities, Content, Receipt, StoredObject
from dicomwatchd.pipeline.shipment import Bundling
from tests.unit.memory_archive import MemoryStore
from tests.unit.test_final_check import STUDY, begin


@dataclass
class UnderKms(MemoryStore):
    """Its ETags are no MD5s, as Amazon's are not under SSE-KMS."""

    def put(self, key: str, content: Content) -> Receipt:
        receipt = super().put(key, content)
        return replace(receipt, expected_etag="0" * 32, expected_checksum=f"sha256:{receipt.sha256}")

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        found = super().head(key, version_id)
        if found is None:
            return None
        return replace(found, checksum=f"sha256:{hashlib.sha256(self.versions[key][-1]).hexdigest()}")

    def _shown(self, key: str, version_id: str | None = None) -> StoredObject:
        found = super()._shown(key, version_id)
        return replace(found, etag=f"kms-{found.etag}")


@pytest.mark.parametrize("bundling", [None, Bundling(1 << 16, 1 << 20)], ids=["instances", "bundles"])
def test_a_study_whose_etags_are_no_md5s_is_verified_by_a_listing(tmp_path: Path, bundling: Bundling | None) -> None:
    store = UnderKms(capabilities=Capabilities(checksum_on_head=True, creates_only=True))
    pieces = begin(tmp_path, store, 3, bundling=bundling)
    pieces.run(4)
    assert pieces.left() == []
    manifest = lineage.current(store, STUDY)
    assert manifest is not None
    for item in manifest.instances:
        seen = store.head(item.key)
        assert seen is not None and item.etag == seen.etag and item.verified_by == "checksum"
    store.reads.clear()
    found = verify(store, manifest)
    assert found.holds and (found.read_back, store.reads) == (0, [])
    key = manifest.instances[0].key
    store.versions[key][-1] = bytes(len(store.versions[key][-1]))
    assert not verify(store, manifest).holds
    pieces.close()
