"""The archive as DICOMweb sees it: studies with what may be shown of them, over the reader of series.

Which instances there are, and what each is worth, is told by the manifest alone, so that a study is fetched, and a
frame refused, without a look into its files; what is in their headers is told by the series.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.errors import ColdObject, DicomwatchdError, Permanent
from dicomwatchd.fetch.plan import Found
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.series.extract import Bulk
from dicomwatchd.series.grouping import Held
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.series.shown import Instance
from dicomwatchd.series.standing import Standing
from dicomwatchd.web.dicomweb import standing
from dicomwatchd.web.dicomweb.errors import NotFound, Unsound
from dicomwatchd.web.dicomweb.standing import HeldInstance, HeldStudy

_STUDIES_KEPT = 64


@dataclass(frozen=True, slots=True)
class Header:
    """All attributes of an instance, file meta information left out. ``bulk`` are the places of values that are too
    long for them (`series.extract`)."""

    instance: HeldInstance
    attributes: Mapping[str, dict[str, object]]
    bulk: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Seen:
    found: Found
    study: HeldStudy
    items: Mapping[HeldInstance, ManifestInstance]


class ArchiveReader:
    """Safe to use from many threads. Raises StudyNotFound, StudyErased, ColdObject, BadObject, Transient, Fatal. What
    it gives of an instance was compared with a recorded SHA-256 before: that of the file, or that of the frame."""

    def __init__(self, series: SeriesReader) -> None:
        self._series = series
        self._seen: OrderedDict[Uid, _Seen] = OrderedDict()
        self._lock = threading.Lock()

    def study(self, study_uid: Uid) -> HeldStudy:
        """As the archive has it now, or had it a few seconds ago."""
        return self._look(study_uid).study

    def study_at_hand(self, study_uid: Uid) -> HeldStudy | None:
        """The same, where it was looked at just now: no thread has to wait for that."""
        found = self._series.study_at_hand(study_uid)
        with self._lock:
            seen = self._seen.get(study_uid)
        return seen.study if found is not None and seen is not None and seen.found is found else None

    def headers(
        self, study: HeldStudy, instances: Sequence[HeldInstance]
    ) -> tuple[list[Header], dict[HeldInstance, DicomwatchdError]]:
        """In the order of ``instances``, and those that have none: the archive has other bytes now, or no header that
        can be read to its end. Raises ColdObject, Transient: then all of them can be had later."""
        found: list[Header] = []
        without: dict[HeldInstance, DicomwatchdError] = {}
        for one in instances:
            instance = self._instance(study, one)
            if instance.entry is None:
                trouble = instance.trouble or NotFound("the instance could not be read")
                if isinstance(trouble, ColdObject) or not isinstance(trouble, Permanent):
                    raise trouble
                without[one] = trouble
            elif instance.entry.unreadable:
                without[one] = Unsound("its header cannot be read to its end", code="unreadable-instance")
            else:
                found.append(Header(one, instance.entry.attributes, frozenset(_bulk_of(instance))))
        return found, without

    def header(self, study: HeldStudy, instance: HeldInstance) -> Header:
        """Of one; raises why it has none."""
        found, without = self.headers(study, [instance])
        if without:
            raise without[instance]
        return found[0]

    def frame_count(self, study: HeldStudy, instance: HeldInstance) -> int:
        """How many can be had one by one; 0 where none can."""
        return self._instance(study, instance).number_of_frames

    def frames(self, study: HeldStudy, instance: HeldInstance, numbers: Sequence[int]) -> Iterator[Iterable[bytes]]:
        """The bytes of frames as they are stored, from 1, each in pieces that are taken before the next is asked for.
        Raises NotFound before the first where there is no such frame, or they cannot be told apart."""
        return self._series.contents.frames(self._with_frames(study, instance, numbers), numbers)

    def held(self, study: HeldStudy, instance: HeldInstance, numbers: Sequence[int] | None) -> Held:
        """What is kept on this machine while `frames` are taken; None are all. Raises as `frames`."""
        whole = self._with_frames(study, instance, numbers or ())
        return self._series.contents.held(whole, numbers or range(1, whole.number_of_frames + 1))

    def frame_size_bytes(self, study: HeldStudy, instance: HeldInstance, number: int) -> int:
        """Of a frame as it is stored. Raises as `frames`."""
        whole = self._with_frames(study, instance, [number])
        assert whole.entry is not None and whole.entry.pixels is not None  # noqa: S101  it has the frame
        return whole.entry.pixels.frames[number - 1].size_bytes

    def _with_frames(self, study: HeldStudy, instance: HeldInstance, numbers: Sequence[int]) -> Instance:
        whole = self._instance(study, instance)
        if whole.number_of_frames == 0:
            raise whole.trouble or NotFound(whole.why_no_frames, code="no-frames")
        if any(not 1 <= number <= whole.number_of_frames for number in numbers):
            raise NotFound("the instance has no such frame", code="no-such-frame")
        return whole

    def file(self, study: HeldStudy, instance: HeldInstance) -> Generator[bytes, None, None]:
        """The bytes as they were archived; all of them were compared before the first is given."""
        seen = self._look(study.study_uid)
        item = seen.items.get(instance)
        if item is None:
            raise NotFound("the study has changed meanwhile")
        places = (item, *seen.found.elsewhere.get(item.content, ()))
        return self._series.contents.file(Instance(study.study_uid, item, instance.standing, None, places=places))

    def bulk(self, study: HeldStudy, instance: HeldInstance, place: str) -> tuple[int, Iterator[bytes]]:
        """How many bytes, and the bytes, that stand in a place of a header's ``bulk``; of encapsulated pixels all
        between the element's header and its end. Raises NotFound."""
        whole = self._instance(study, instance)
        if whole.entry is None and whole.trouble is not None:
            raise whole.trouble
        found = _bulk_of(whole).get(place)
        if found is None:
            raise NotFound("the instance has no bulk data there")
        return found.length_bytes, self._series.contents.bulk(whole, found)

    def _look(self, study_uid: Uid) -> _Seen:
        found = self._series.study(study_uid)
        with self._lock:
            seen = self._seen.get(study_uid)
        if seen is not None and seen.found is found:
            return seen
        items = dict(standing.entries(found.manifest))
        seen = _Seen(found, standing.of_manifest(found.manifest, items), items)
        with self._lock:
            self._seen[study_uid] = seen
            self._seen.move_to_end(study_uid)
            while len(self._seen) > _STUDIES_KEPT:
                self._seen.popitem(last=False)
        return seen

    def _instance(self, study: HeldStudy, held: HeldInstance) -> Instance:
        """With what is derived of it: of exactly the content that was chosen."""
        series = self._series.series(study.study_uid, held.series_uid)
        one = series.by_content.get((held.sop_instance_uid, held.sha256))
        if one is None:
            raise NotFound("the study has changed meanwhile")
        if one.standing is not Standing.SOUND:  # it was, when the study was looked at
            raise Unsound("the instance is not what it was taken for")
        return one


def _bulk_of(instance: Instance) -> dict[str, Bulk]:
    entry = instance.entry
    if entry is None:
        return {}
    found = dict(entry.bulk)
    if entry.pixels is not None:
        pixels = entry.pixels
        found[pixels.tag] = Bulk(pixels.vr, pixels.offset_bytes, pixels.length_bytes)
    return found


def with_urls(header: Header, prefix: str) -> DicomJson:
    """Its attributes with the URL of each value that is not in them."""
    found: DicomJson = dict(header.attributes)
    for place in header.bulk:
        _put(found, place.split("/"), f"{prefix}{place}")
    return found


def _put(attributes: DicomJson, way: list[str], url: str) -> None:
    """Into copies of what is on the way: the elements are shared with other instances'."""
    tag, *rest = way
    element = dict(attributes.get(tag, {}))
    if not rest:
        element.pop("Value", None)
        element["BulkDataURI"] = url
        attributes[tag] = element
        return
    items = element.get("Value")
    number = int(rest[0])
    if not isinstance(items, list) or number >= len(items) or not isinstance(items[number], dict):
        return
    item: DicomJson = dict(items[number])
    _put(item, rest[1:], url)
    element["Value"] = [*items[:number], item, *items[number + 1 :]]
    attributes[tag] = element
