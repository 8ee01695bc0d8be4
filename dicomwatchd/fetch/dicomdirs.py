"""Brings back the DICOMDIRs that are archived with a study. They describe the export that the images came from and not
the folder that is made here, so no program is to find one under the name DICOMDIR."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd.archive.layout.exports import Export
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Fatal, NoSuchObject
from dicomwatchd.fetch.folder import PRIVATE, SeriesFolder, TargetFolder
from dicomwatchd.fetch.sources import BadObject
from dicomwatchd.model import Digest

#: In the study's folder, where series have names of digits.
FOLDER = "dicomdirs"


@dataclass(frozen=True, slots=True)
class FetchedDicomdir:
    """``name`` is below the study's folder; ``reason`` says why it is not there, "" if it is."""

    name: str
    sha256: str
    reason: str = ""


def fetch_dicomdirs(
    store: ObjectStore,
    manifest: Manifest,
    directory: Path,
    *,
    mode: int = PRIVATE,
    token: Callable[[], str] = lambda: secrets.token_hex(8),
) -> list[FetchedDicomdir]:
    """To ``directory``/dicomdirs/<SHA-256>.dicomdir, each hashed before it gets its name. What is there already with
    the right bytes is kept. Raises Permanent where the folder cannot be used, and Fatal."""
    if not manifest.exports:
        return []
    found = []
    with TargetFolder.opened(directory, token, mode) as folder:
        with folder.below(FOLDER) as target:
            target.remove_leftovers()
            for one in manifest.exports:
                reason = ""
                try:
                    _bring(store, one, target)
                except Fatal:
                    raise
                except DicomwatchdError as error:
                    reason = error.message
                found.append(FetchedDicomdir(f"{FOLDER}/{_name(one)}", one.sha256, reason))
            target.flush()
        folder.flush()
    return found


def _name(one: Export) -> str:
    return f"{one.sha256}.dicomdir"


def _bring(store: ObjectStore, one: Export, target: SeriesFolder) -> None:
    if target.holds(_name(one), Digest(one.sha256, one.size_bytes), lambda: None):
        return
    digest, came_in = hashlib.sha256(), 0
    with target.temporary() as file:
        try:
            for chunk in store.read(one.key):
                came_in += len(chunk)
                if came_in > one.size_bytes:
                    break
                digest.update(chunk)
                file.write(chunk)
        except NoSuchObject as error:
            raise BadObject("the object is missing from the store") from error
        if (came_in, digest.hexdigest()) != (one.size_bytes, one.sha256):
            raise BadObject("the stored object's bytes are not the recorded ones")
        file.publish(_name(one))
