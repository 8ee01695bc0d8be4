"""The archive's identity, where the store has lost it, or a copy of the store was made without it: its manifests name
it."""

from __future__ import annotations

import re

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import manifests
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import ArchiveRefused, Permanent
from dicomwatchd.model import Uid

#: So many studies are asked, and so many more are passed over of which no manifest can be read.
_ASKED, _PASSED_OVER = 20, 200
_FOLDER = re.compile(rf"{keys.STUDIES}([^/]+)/")


def named_by_manifests(store: ObjectStore) -> str | None:
    """The archive that the manifests of the first studies name; None where there are none. Raises ArchiveRefused where
    they name several, for then a person has to know which; Transient."""
    named: set[str] = set()
    asked, after = 0, ""
    for _ in range(_ASKED + _PASSED_OVER):
        first = next(iter(store.listing(keys.STUDIES, after)), None)
        if first is None or asked == _ASKED:
            break
        folder = _FOLDER.match(first.key)
        if folder is None:
            after = first.key
            continue
        after = f"{keys.STUDIES}{folder[1]}0"  # behind all of the study: "0" is the next after "/"
        study = keys.parse_study(folder[0])
        archive_id = None if study is None else _of_study(store, study)
        if archive_id is not None:
            asked += 1
            named.add(archive_id)
    if len(named) > 1:
        raise ArchiveRefused("the manifests in the store name several archives", hint="is this the right place?")
    return named.pop() if named else None


def _of_study(store: ObjectStore, study: Uid) -> str | None:
    for listed in store.listing(keys.manifests_prefix(study)):
        try:
            return manifests.load(store, listed.key, etag=listed.etag).archive_id
        except Permanent:
            return None
    return None
