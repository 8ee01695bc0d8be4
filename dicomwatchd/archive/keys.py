"""Names of the objects in the store: the layout that `fetch`, a rebuild and a person with the aws CLI rely on.

    studies/<StudyUID>/series/<SeriesUID>/<SOPInstanceUID>/<sha256>.dcm
    studies/<StudyUID>/bundles/<sha256 of the bundle>.tar
    studies/<StudyUID>/exports/<sha256>.dicomdir    a DICOMDIR that lists images of the study
    studies/<StudyUID>/index/<SeriesUID>/<sha256>.json.gz  what viewers read of a series: headers, where frames are.
                                                    Derived (see series.document): whoever lacks it makes it again
    studies/<StudyUID>/manifests/<revision, 8 digits>.json
    erased/<StudyUID>/<number, 8 digits>.json       that all of it was erased, when and why (see erasures)
    erased/<StudyUID>/<number, 8 digits>.ended.json  that this erasure has ended, and deletes nothing any more
    archive.json
    audit/chains/<chain>.json                       an audit chain of a daemon, and when it was first seen
    audit/heads/<chain>/<8 digits>/<12 digits>.json its head at some time; the newest comes first (see audit_checkpoint)
    audit/segments/<chain>/<first>-<last>-<sha256 of its text>.jsonl.gz  entries of it (see audit_segments)

All keys are relative to the store's prefix. UIDs come in as Uid, so nothing unchecked becomes part of a key.
"""

from __future__ import annotations

import re

from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Uid

IDENTITY = "archive.json"
STUDIES = "studies/"
PROBE = "probe/"
#: Apart from the studies: whoever may archive need not be able to create anything here.
ERASED = "erased/"
AUDIT = "audit/"
AUDIT_CHAINS = "audit/chains/"

HIGHEST_REVISION = 99_999_999
HIGHEST_ERASURE = 99_999_999
HIGHEST_SERIES_INDEX_ATTEMPT = 99
HIGHEST_SEQUENCE = 999_999_999_999

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_REPAIR = re.compile(r"(?:-(?:[2-9]|[1-9][0-9]{1,5}))?\.dcm\Z")
_BUNDLE = re.compile(r"studies/([0-9.]+)/bundles/([0-9a-f]{64})(?:-(?:[2-9]|[1-9][0-9]{1,5}))?\.tar\Z")
_EXPORT = re.compile(r"studies/([0-9.]+)/exports/([0-9a-f]{64})(?:-(?:[2-9]|[1-9][0-9]{1,5}))?\.dicomdir\Z")
_INSTANCE = re.compile(r"studies/([0-9.]+)/series/([0-9.]+)/([0-9.]+)/([0-9a-f]{64})(?:-[0-9]{1,6})?\.dcm\Z")
_SERIES_INDEX = re.compile(r"studies/([0-9.]+)/index/([0-9.]+)/([0-9a-f]{64})(?:-([2-9]|[1-9][0-9]))?\.json\.gz\Z")
_CHAIN = re.compile(r"[0-9a-f]{32}\Z")
_AUDIT_CHAIN = re.compile(r"audit/chains/([0-9a-f]{32})\.json\Z")
_AUDIT_CHECKPOINT = re.compile(r"audit/heads/[0-9a-f]{32}/([0-9]{8})/(\1[0-9]{4})\.json\Z")
_AUDIT_SEGMENT = re.compile(
    r"audit/segments/([0-9a-f]{32})/([0-9]{12})-([0-9]{12})-([0-9a-f]{64})(?:-([2-9]|[1-9][0-9]))?\.jsonl\.gz\Z"
)
_ERASURE = re.compile(r"erased/([0-9.]+)/([0-9]{8})\.json\Z")
_STUDY = re.compile(r"studies/([0-9.]+)/\Z")
_MANIFEST = re.compile(r"studies/([0-9.]+)/manifests/([0-9]{8})\.json\Z")


def study_prefix(study: Uid) -> str:
    return f"{STUDIES}{study}/"


def parse_study(prefix: str) -> Uid | None:
    """The study whose objects are below ``prefix``, or None if that is no study's."""
    match = _STUDY.match(prefix)
    if match is None:
        return None
    try:
        return Uid(match[1])
    except InvalidUid:
        return None


def series_prefix(study: Uid, series: Uid) -> str:
    return f"{STUDIES}{study}/series/{series}/"


def manifests_prefix(study: Uid) -> str:
    return f"{STUDIES}{study}/manifests/"


def instance(study: Uid, series: Uid, sop_instance: Uid, sha256: str, attempt: int = 1) -> str:
    """The key of an instance's bytes. ``attempt`` above 1 is the repair of a key found to hold other bytes."""
    return f"{series_prefix(study, series)}{sop_instance}/{_stem(sha256, attempt)}.dcm"


def is_instance(key: str, study: Uid, series: Uid, sop_instance: Uid, sha256: str) -> bool:
    """Whether ``key`` is this instance's, whatever the attempt. Raises ValueError for a malformed ``sha256``."""
    stem = instance(study, series, sop_instance, sha256).removesuffix(".dcm")
    return key.startswith(stem) and _REPAIR.match(key, len(stem)) is not None


def parse_instance(key: str) -> tuple[Uid, Uid, Uid, str] | None:
    """(study, series, SOP instance, SHA-256) of an instance's key, whatever the attempt; None if it is no such key."""
    match = _INSTANCE.match(key)
    if match is None:
        return None
    try:
        found = Uid(match[1]), Uid(match[2]), Uid(match[3]), match[4]
    except InvalidUid:
        return None
    return found if is_instance(key, *found) else None


def bundles_prefix(study: Uid) -> str:
    return f"{STUDIES}{study}/bundles/"


def bundle(study: Uid, sha256: str, attempt: int = 1) -> str:
    """The key of a bundle of instances, by the SHA-256 of the whole bundle; ``attempt`` as for an instance."""
    return f"{bundles_prefix(study)}{_stem(sha256, attempt)}.tar"


def bundle_sha256(key: str, study: Uid) -> str | None:
    """The SHA-256 that ``key`` names, whatever the attempt, or None if it is no key of a bundle of this study."""
    match = _BUNDLE.match(key)
    return match[2] if match is not None and match[1] == study else None


def is_bundle(key: str) -> bool:
    """Whether ``key`` is a bundle's, of whatever study."""
    return _BUNDLE.match(key) is not None


def holds_instances(key: str) -> bool:
    """Whether ``key`` is an instance's or a bundle's, of whatever study: all else is a document, which is read again
    and again and stays as it is, wherever those are moved to."""
    return is_bundle(key) or _INSTANCE.match(key) is not None


def export(study: Uid, sha256: str, attempt: int = 1) -> str:
    """The key of a DICOMDIR that lists images of the study; ``attempt`` as for an instance."""
    return f"{study_prefix(study)}exports/{_stem(sha256, attempt)}.dicomdir"


def export_sha256(key: str, study: Uid) -> str | None:
    """The SHA-256 that ``key`` names, whatever the attempt, or None if it is no key of a DICOMDIR of this study."""
    match = _EXPORT.match(key)
    return match[2] if match is not None and match[1] == study else None


def series_index_prefix(study: Uid, series: Uid) -> str:
    return f"{study_prefix(study)}index/{series}/"


def series_index(study: Uid, series: Uid, sha256: str, attempt: int = 1) -> str:
    """The key of what is derived of a series, by the SHA-256 over what its instances are; ``attempt`` as for an
    instance, up to 99."""
    if attempt > HIGHEST_SERIES_INDEX_ATTEMPT:
        raise ValueError("attempts run from 1 to 99")
    return f"{series_index_prefix(study, series)}{_stem(sha256, attempt)}.json.gz"


def parse_series_index(key: str) -> tuple[Uid, Uid, str, int] | None:
    """(study, series, SHA-256, attempt) of such a key; None if it is none. What is under it is derived: nothing is
    lost with it."""
    match = _SERIES_INDEX.match(key)
    if match is None:
        return None
    try:
        return Uid(match[1]), Uid(match[2]), match[3], int(match[4] or 1)
    except InvalidUid:
        return None


def manifest(study: Uid, revision: int) -> str:
    if not 1 <= revision <= HIGHEST_REVISION:
        raise ValueError("manifest revisions run from 1 to 99999999")
    return f"{manifests_prefix(study)}{revision:08d}.json"


def parse_manifest(key: str) -> tuple[Uid, int] | None:
    """(study, revision) of a manifest's key, or None if the key is no manifest's."""
    match = _MANIFEST.match(key)
    if match is None or int(match[2]) == 0:
        return None
    try:
        return Uid(match[1]), int(match[2])
    except InvalidUid:
        return None


def erasures_prefix(study: Uid) -> str:
    return f"{ERASED}{study}/"


def erasure(study: Uid, number: int) -> str:
    """The key of the record of a study's erasure: the first has number 1."""
    if not 1 <= number <= HIGHEST_ERASURE:
        raise ValueError("erasures are numbered from 1 to 99999999")
    return f"{erasures_prefix(study)}{number:08d}.json"


def erasure_end(study: Uid, number: int) -> str:
    return f"{erasure(study, number).removesuffix('.json')}.ended.json"


def parse_erasure(key: str) -> tuple[Uid, int] | None:
    """(study, number) of an erasure's key, or None if the key is none's."""
    match = _ERASURE.match(key)
    if match is None or int(match[2]) == 0:
        return None
    try:
        return Uid(match[1]), int(match[2])
    except InvalidUid:
        return None


def audit_chain(chain_id: str) -> str:
    return f"{AUDIT_CHAINS}{_checked_chain(chain_id)}.json"


def parse_audit_chain(key: str) -> str | None:
    """The chain's id, or None if the key is no chain's."""
    match = _AUDIT_CHAIN.match(key)
    return match and match[1]


def audit_checkpoints_prefix(chain_id: str) -> str:
    return f"{AUDIT}heads/{_checked_chain(chain_id)}/"


def audit_checkpoint(chain_id: str, sequence: int) -> str:
    """The key of an audit checkpoint. It counts down, so that the newest head of a chain is the first that is
    listed."""
    if not 1 <= sequence <= HIGHEST_SEQUENCE:
        raise ValueError("the entries of an audit chain are numbered from 1 to 999999999999")
    left = f"{HIGHEST_SEQUENCE - sequence:012d}"
    return f"{audit_checkpoints_prefix(chain_id)}{left[:8]}/{left}.json"


def parse_audit_checkpoint(key: str) -> int | None:
    """The sequence number in the key of an audit checkpoint, or None if the key is none's."""
    match = _AUDIT_CHECKPOINT.match(key)
    sequence = HIGHEST_SEQUENCE - int(match[2]) if match else 0
    return sequence or None


def audit_segments_prefix(chain_id: str) -> str:
    return f"{AUDIT}segments/{_checked_chain(chain_id)}/"


def audit_segment(chain_id: str, first: int, last: int, sha256: str, attempt: int = 1) -> str:
    """The key of a finished segment of a chain, by its entries and the SHA-256 of its text; ``attempt`` as for an
    instance, up to 99. A listing gives a chain's segments in their order."""
    if not 1 <= first <= last <= HIGHEST_SEQUENCE:
        raise ValueError("the entries of an audit chain are numbered from 1 to 999999999999")
    if not _SHA256.match(sha256):
        raise ValueError("not a lower-case hexadecimal SHA-256")
    if not 1 <= attempt <= 99:
        raise ValueError("attempts run from 1 to 99")
    suffix = f"-{attempt}" if attempt > 1 else ""
    return f"{audit_segments_prefix(chain_id)}{first:012d}-{last:012d}-{sha256}{suffix}.jsonl.gz"


def parse_audit_segment(key: str) -> tuple[str, int, int, str, int] | None:
    """(chain, first entry, last entry, SHA-256, attempt) of a segment's key; None if the key is no segment's."""
    match = _AUDIT_SEGMENT.match(key)
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        return None
    return match[1], int(match[2]), int(match[3]), match[4], int(match[5] or 1)


def _checked_chain(chain_id: str) -> str:
    if not _CHAIN.match(chain_id):
        raise ValueError("an audit chain is named by 32 lower-case hexadecimal digits")
    return chain_id


def _stem(sha256: str, attempt: int) -> str:
    """What the name of an object begins with that is named by its content."""
    if not _SHA256.match(sha256):
        raise ValueError("not a lower-case hexadecimal SHA-256")
    if attempt < 1:
        raise ValueError("the first attempt is number 1")
    return f"{sha256}-{attempt}" if attempt > 1 else sha256
