"""Which other studies the archive has a copy of a study's DICOMDIRs with: such a list names every patient of its
medium, and is archived with each study of it."""

from __future__ import annotations

import os

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.exports import LIMIT_EXPORTS
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.archive.stores.reading import at_most
from dicomwatchd.errors import InvalidUid, Permanent, SourceChanged, Unarchivable
from dicomwatchd.intake.dicom.dicomdir import LIMIT_BYTES, read_dicomdir
from dicomwatchd.model import Uid


def with_the_same_dicomdir(store: ObjectStore, study: Uid) -> list[Uid]:
    """Of the studies that the study's DICOMDIRs list, those that the archive has one of the same DICOMDIRs with. One
    that cannot be read is passed over. Raises Transient, Permanent."""
    found: set[Uid] = set()
    exports = {
        sha256: seen.key
        for seen in store.listing(f"{keys.study_prefix(study)}exports/")
        if (sha256 := keys.export_sha256(seen.key, study)) is not None
    }
    for sha256, key in list(exports.items())[:LIMIT_EXPORTS]:
        for other in _listed(store, key) - {study} - found:
            prefix = keys.export(other, sha256).removesuffix(".dicomdir")
            if any(keys.export_sha256(seen.key, other) == sha256 for seen in store.listing(prefix)):
                found.add(other)
    return sorted(found)


def _listed(store: ObjectStore, key: str) -> set[Uid]:
    data = at_most(store, key, LIMIT_BYTES)
    fd = os.memfd_create("dicomdir", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        studies = read_dicomdir(fd, len(data)).studies
    except (Unarchivable, SourceChanged):
        return set()
    finally:
        os.close(fd)
    uids = set()
    for one in studies:
        try:
            uids.add(Uid(one))
        except (InvalidUid, Permanent):
            continue
    return uids
