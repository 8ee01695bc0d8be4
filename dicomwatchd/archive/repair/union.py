"""What a new revision is made from where the ones in the store do not go on from one another: all that any of them
lists, each content at a place that holds it, and so that it can be read again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from dicomwatchd.archive.layout.instance import Content, ManifestInstance
from dicomwatchd.archive.layout.lineage import Lineage
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.proof.verification import read_items
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.archive.stores.withheld import without_withheld
from dicomwatchd.ports import Map

#: So many of the places that a content is said to have are read, the newest revision's and then the oldest's first.
_PLACES = 8


def recovered(found: Lineage, current: Manifest, store: ObjectStore, map: Map) -> Manifest:
    """``current`` with all that the others list; ``current`` itself where that is nothing more. Where revisions say
    different things of where a content lies, and nobody vouches for one of them, the bytes decide. Raises Transient."""
    own = {item.content for item in current.instances} if _is_vouched(found, current) else set()
    doubtful = {content: places for content, places in found.elsewhere.items() if content not in own}
    whole = found.whole
    if whole is None or (found.current is not None and whole is found.current and not doubtful):
        return current
    items = {item.content: item for item in whole.instances}
    store = without_withheld(store)
    _settle(items, doubtful, store, map)
    fitting = _fitting(items.values(), {item.content for item in current.instances}, store, map)
    instances = tuple(sorted(fitting, key=lambda item: item.content))
    return current if instances == current.instances else current.listing(instances)


def _is_vouched(found: Lineage, current: Manifest) -> bool:
    return found.vouched is not None and found.vouched.revision == current.revision


def _settle(
    items: dict[Content, ManifestInstance],
    doubtful: dict[Content, tuple[ManifestInstance, ...]],
    store: ObjectStore,
    map: Map,
) -> None:
    candidates = {content: (items[content], *places)[:_PLACES] for content, places in doubtful.items()}
    for number in range(_PLACES):
        ask = [places[number] for places in candidates.values() if number < len(places)]
        for item, problem in read_items(store, ask, map):
            if not problem:
                items[item.content] = item
                del candidates[item.content]


def _fitting(
    items: Iterable[ManifestInstance], own: set[Content], store: ObjectStore, map: Map
) -> list[ManifestInstance]:
    """Those that can stand in one manifest: no two share bytes of a bundle, or give it two sizes. Where they would, the
    bytes tell which go first."""
    fitting = []
    of_object: dict[str, list[ManifestInstance]] = {}
    for item in items:
        of_object.setdefault(item.key, []).append(item)
    for members in of_object.values():
        members.sort(key=lambda item: item.content not in own)
        taken = _disjoint(members)
        if len(taken) < len(members):
            held = {item for item, problem in read_items(store, members, map) if not problem}
            taken = _disjoint(sorted(members, key=lambda item: item not in held))
        fitting += taken
    return fitting


def _disjoint(members: list[ManifestInstance]) -> list[ManifestInstance]:
    """As many as fit beside those before them."""
    taken: list[ManifestInstance] = []
    spans: list[tuple[int, int]] = []
    for item in members:
        begin, end = item.offset_bytes, item.span.end_bytes
        at = bisect_left(spans, (begin, end))
        clear = (at == 0 or spans[at - 1][1] <= begin) and (at == len(spans) or end <= spans[at][0])
        if clear and (not taken or taken[0].object_bytes == item.object_bytes):
            spans.insert(at, (begin, end))
            taken.append(item)
    return taken
