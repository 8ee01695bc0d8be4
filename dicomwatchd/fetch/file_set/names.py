"""Names of the files of a file-set (PS3.10 section 8.2): eight capitals and digits, in folders of the same kind."""

from __future__ import annotations

from collections.abc import Iterable

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.errors import Permanent
from dicomwatchd.fetch.plan import Placed

DICOMDIR = "DICOMDIR"
FOLDER = "DICOM"
_SERIES_LIMIT = _INSTANCES_LIMIT = 999_999


def media_names(instances: Iterable[ManifestInstance], study: int = 1) -> list[Placed]:
    """DICOM/ST000001/SE000001/IM000001, counted in the manifest's order, which is by UID. Raises Permanent for more
    than have a number."""
    placed: list[Placed] = []
    series: dict[str, tuple[int, int]] = {}
    for item in instances:
        number, count = series.get(item.series_uid, (len(series) + 1, 0))
        count += 1
        series[item.series_uid] = number, count
        if number > _SERIES_LIMIT or count > _INSTANCES_LIMIT:
            raise Permanent("there are more files than 8.3 names", code="too-many-files")
        placed.append((item, f"{FOLDER}/ST{study:06}/SE{number:06}/IM{count:06}"))
    return placed
