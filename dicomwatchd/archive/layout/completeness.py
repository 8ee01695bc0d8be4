"""What a manifest has of its instances' signs, and the verdict on the study that it makes of them.

A series is on record there if what every instance of it says is in its signs. One of which an earlier version, or a
program that knows nothing of this, has recorded an instance is not, and stays so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dicomwatchd.archive.documents import dumps
from dicomwatchd.model import Uid
from dicomwatchd.study_completeness import OfDicomdir, SeriesContent, StudyCompleteness, judged
from dicomwatchd.study_signs import SeriesSigns, numbers_in

if TYPE_CHECKING:
    from dicomwatchd.archive.layout.instance import ManifestInstance

#: The signs of a series as JSON (`SeriesSigns.document`), by its UID.
SignsDocument = dict[Uid, dict[str, Any]]

#: Of a study's signs so much is on record, and read: those of 100,000 slices at irregular distances take 1 MB.
LIMIT_BYTES = 4 * 1024**2
LIMIT_NUMBERS = 1_000_000


def next_signs(
    recorded: SignsDocument,
    before: Iterable[ManifestInstance],
    after: Iterable[ManifestInstance],
    added: Mapping[Uid, SeriesSigns],
) -> SignsDocument:
    """The signs of a revision that lists ``after`` where the one below it lists ``before``. ``added`` has those of the
    series of which all new instances' are known."""
    after = tuple(after)
    known = {item.content for item in before}
    present = {str(item.sop_instance_uid) for item in after}
    of_before = {series for series, _, _ in known}
    of_added = {item.series_uid for item in after if item.content not in known}
    found: SignsDocument = {}
    for uid in sorted(of_before | of_added):
        if (uid in of_before and uid not in recorded) or (uid in of_added and uid not in added):
            continue
        if uid not in of_added:
            found[uid] = recorded[uid]
            continue
        signs = SeriesSigns()
        if uid in of_before:
            there = _read(recorded[uid])
            if there is None:
                continue
            signs.add(there)
        signs.add(added[uid])
        signs.references -= present
        found[uid] = signs.document()
    return _within_limits(found)


def judged_by(
    signs: SignsDocument, instances: Iterable[ManifestInstance], listed: Sequence[OfDicomdir] = ()
) -> StudyCompleteness:
    content: dict[str, dict[str, set[str]]] = {}
    for item in instances:
        of_class = content.setdefault(item.series_uid, {}).setdefault(item.sop_class_uid, set())
        of_class.add(item.sop_instance_uid)
    return judged({uid: SeriesContent(one) for uid, one in content.items()}, _Read(signs), listed)


def unchanged(
    signs: SignsDocument, before: Iterable[ManifestInstance], after: Iterable[ManifestInstance]
) -> SignsDocument:
    """The signs of those series of which both list the same."""
    changed = {series for series, _, _ in {item.content for item in before} ^ {item.content for item in after}}
    return {uid: one for uid, one in signs.items() if uid not in changed}


def _within_limits(signs: SignsDocument) -> SignsDocument:
    left_bytes, left_numbers = LIMIT_BYTES, LIMIT_NUMBERS
    kept: SignsDocument = {}
    for uid, one in signs.items():
        left_bytes -= len(dumps(one))
        left_numbers -= numbers_in(one)
        if left_bytes < 0 or left_numbers < 0:
            break
        kept[uid] = one
    return kept


def _read(raw: dict[str, Any]) -> SeriesSigns | None:
    """None where it is damaged, or somebody else's idea of signs."""
    try:
        return SeriesSigns.of(raw) if numbers_in(raw) <= LIMIT_NUMBERS else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


class _Read(Mapping[str, SeriesSigns]):
    """Reads the signs of a series when it is asked for: a few words may stand for 100,000 numbers."""

    def __init__(self, signs: SignsDocument) -> None:
        within = _within_limits(signs)
        self._signs: dict[str, dict[str, Any]] = {uid: one for uid, one in within.items() if _read(one) is not None}

    def __getitem__(self, uid: str) -> SeriesSigns:
        found = _read(self._signs[uid])
        assert found is not None  # noqa: S101  it was read before
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._signs)

    def __len__(self) -> int:
        return len(self._signs)
