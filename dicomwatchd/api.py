"""The archive for scripts: find studies, read what is on record of them, verify them, and get them back, as files or as
pydicom data sets without touching the disk.

No daemon is needed, but for `prove`. What this module names stays valid within a major version; docs/api.md shows it at
work. Errors are those of `dicomwatchd.errors`: Transient heals by itself, Permanent is about one study or object, Fatal
about the archive as a whole. Each has a ``code``, and often a ``hint``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicomwatchd.archive import factory
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.proof.verification import InstanceProblem, Verification
from dicomwatchd.archive.proof.verification import verify as _verify
from dicomwatchd.archive.records import Query, SeriesRecord, StudyRecord
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.config import loading
from dicomwatchd.config.text import SOCKET_NAME, STATE_DIRECTORY
from dicomwatchd.control.client import ControlClient
from dicomwatchd.errors import CredentialsRefused, Permanent, StudyNotFound, Transient
from dicomwatchd.fetch import Doubts, Fetcher, FetchFailure, FetchProgress, FetchReport, by_uid, look_up
from dicomwatchd.fetch.cold import NOTHING_COLD, find, not_there_yet
from dicomwatchd.fetch.plan import Found, of_series
from dicomwatchd.fetch.sources import BadObject, Source, chunks, first_right
from dicomwatchd.model import Uid
from dicomwatchd.patients import Identity, Order

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "Archive",
    "FetchFailure",
    "FetchProgress",
    "FetchReport",
    "Identity",
    "Instance",
    "InstanceProblem",
    "Manifest",
    "ManifestInstance",
    "Order",
    "SeriesRecord",
    "StudyRecord",
    "Verification",
    "open_archive",
    "prove",
]


@contextmanager
def open_archive(
    archive: str | PathLike[str] | Mapping[str, Any] = loading.DEFAULT_PATH, *, connections: int = 8
) -> Iterator[Archive]:
    """The archive that a configuration file names, or one in the words of its ``archive:`` section, without a file:

        {"store": {"kind": "s3", "bucket": "images", "region": "eu-central-1"},
         "catalogue": {"kind": "dynamodb", "table": "images", "region": "eu-central-1"}}

    Without ``catalogue`` the store alone is read: all but `Archive.find` and `Archive.study` works. ``connections`` is
    how many threads it may be used from at once. Credentials are found as the AWS command line finds them.

    Raises ConfigError (with every problem), NotInitialised, ArchiveRefused, OutOfReach.
    """
    if isinstance(archive, Mapping):
        settings = loading.parse_archive(archive)
    else:
        loaded = loading.load(Path(archive)).archive
        settings = loaded.store, loaded.catalogue
    with factory.opened(*settings, connections=connections) as (store, catalogue):
        yield Archive(store, catalogue, connections)


def prove(study_uid: str, socket: str | PathLike[str] = STATE_DIRECTORY / SOCKET_NAME) -> dict[str, Any]:
    """What the running daemon's record of deletions says of a study, checked entry by entry, as
    ``dicomwatchctl prove --json`` gives it. Raises DaemonUnreachable, DaemonRefused, Permanent (no UID)."""
    found: dict[str, Any] = ControlClient(Path(socket)).call("prove", answer_seconds=300, study_uid=Uid(study_uid))
    return found


@dataclass(frozen=True, slots=True)
class Instance:
    """A SOP Instance as the archive holds it: its bytes are the ones that the modality wrote, transfer syntax and all
    (PS3.10). ``size_bytes`` and ``sha256`` are those of the whole file."""

    study_uid: Uid
    series_uid: Uid
    sop_instance_uid: Uid
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    sha256: str
    #: As the file was called below its inbox; may hold a patient's name.
    original_path: str
    _store: ObjectStore
    _places: tuple[ManifestInstance, ...]

    def read(self) -> bytes:
        """The whole file, in memory, its SHA-256 compared with the recorded one. What the key does not give any more is
        looked for under its recorded version and beside it, as `fetch` does.

        Raises Permanent (code "bad-object") where the store has these bytes nowhere, ColdObject (code "cold-storage")
        where they must be restored first, Transient.
        """

        def whole(source: Source) -> bytes:
            data = b"".join(chunks(self._store, source))
            if len(data) == source.item.size_bytes and hashlib.sha256(data).hexdigest() == self.sha256:
                return data
            raise BadObject("the stored object's bytes differ from the recorded ones")

        return first_right(self._store, self.study_uid, self._places, whole)

    def dataset(self) -> Dataset:
        """The same as a pydicom data set, file meta information included; pixels are decoded when they are asked for.

        Raises as `read`, and pydicom's own errors.
        """
        import pydicom

        return pydicom.dcmread(BytesIO(self.read()), force=True)


class Archive:
    """Safe to be used from as many threads as it was opened for. Study, series and instance UIDs may be given as plain
    text; Permanent (code "invalid-uid") for what is none (PS3.5 section 9.1)."""

    def __init__(self, store: ObjectStore, catalogue: Catalogue | None, connections: int) -> None:
        self._store, self._catalogue, self._connections = store, catalogue, connections

    def find(
        self,
        *,
        patient_id: str | None = None,
        accession_number: str | None = None,
        date_from: str = "",
        date_to: str = "",
        modality: str | None = None,
        issuer: str | None = None,
        name: str | None = None,
        birth_date: str | None = None,
        description: str | None = None,
        institution: str | None = None,
        archived_from: str = "",
        is_incomplete: bool = False,
    ) -> Iterator[StudyRecord]:
        """Studies for which all of it holds, newest study date first; all studies without a condition. Dates are
        "YYYYMMDD", both ends included. Patient ID and accession number are compared exactly, the ID's issuer in any
        case. ``name``, ``description`` and ``institution`` are patterns in whatever case, ``*`` and ``?`` as wildcards;
        without one, all of the text or its first words. ``archived_from`` is UTC, ISO 8601, or its beginning;
        ``is_incomplete`` asks for studies with gaps (`StudyRecord.completeness`). Of a study whose files name several
        patients (`StudyRecord.identities`) each is found. A record's ``series`` may be empty here: `study` has them.

        Raises Permanent (code "no-catalogue") where the archive was opened without one, NotInitialised, OutOfReach.
        """
        wanted = Query(
            patient_id=patient_id,
            accession_number=accession_number,
            date_from=date_from,
            date_to=date_to,
            modality=modality and modality.upper(),
            issuer=issuer,
            name=name,
            birth_date=birth_date,
            description=description,
            institution=institution,
            archived_from=archived_from,
            is_incomplete=is_incomplete,
        )
        yield from self._needed_catalogue().search(wanted)

    def study(self, study_uid: str) -> StudyRecord:
        """What the catalogue has of one study, with its series. Raises Permanent (codes "study-not-found",
        "study-erased" where the catalogue does not have it and it was erased on purpose, "no-catalogue"), Transient."""
        found = self._needed_catalogue().get(Uid(study_uid))
        if found is None:
            with suppress(CredentialsRefused):  # whoever reads may not be let see what was erased
                erasure = erasures.newest(self._store, Uid(study_uid))
                if erasure is not None:
                    raise erasure.error()
            raise StudyNotFound(f"study {study_uid} is not in the catalogue")
        return found

    def manifest(self, study_uid: str) -> Manifest:
        """What the archive holds of a study: its newest revision, and what any other lists beside.

        Raises Permanent: "study-not-found" ("study-erased", where it was erased on purpose), and "bad-manifest",
        "manifests-disagree" and their like where its manifests are not in order (``dicomwatchctl verify`` says how;
        `fetch` brings what there is).
        """
        return self._found(study_uid).manifest

    def instances(self, study_uid: str, *, series: Collection[str] = ()) -> Iterator[Instance]:
        """Every instance of a study, or of these series, by series and SOP Instance UID; nothing is read yet. Raises as
        `manifest`, and Permanent (code "series-not-found")."""
        found = self._found(study_uid)
        for item in of_series(found.manifest, {Uid(one) for one in series} or None):
            yield Instance(
                found.manifest.study_uid,
                item.series_uid,
                item.sop_instance_uid,
                item.sop_class_uid,
                item.transfer_syntax_uid,
                item.size_bytes,
                item.sha256,
                item.original_path,
                self._store,
                (item, *found.elsewhere.get(item.content, ())),
            )

    def verify(self, study_uid: str, *, deep: bool = False) -> Verification:
        """Whether the store holds every instance of the study, by its listing, or, ``deep``, by reading every byte
        back. ``holds`` of the answer says it in one word. Raises as `manifest`, Transient, Fatal."""
        with ThreadPoolExecutor(self._connections) as pool:
            found = look_up(self._store, self._catalogue, Uid(study_uid), below=True, map=pool.map)
            return _verify(self._store, found.manifest, deep=deep, elsewhere=found.elsewhere, map=pool.map)

    def fetch(
        self,
        study_uid: str,
        folder: str | PathLike[str],
        *,
        series: Collection[str] = (),
        mode: int = 0o600,
        on_doubt: Callable[[str], None] | None = None,
        on_progress: Callable[[FetchProgress], None] = lambda _: None,
    ) -> FetchReport:
        """Bring a study, or these series of it, to ``folder``/<Series UID>/<SOP Instance UID>.dcm, each file under its
        name only once its SHA-256 is right. What is there already is kept; a second call fetches what is missing.
        ``complete`` of the answer says whether all of it is there. What is in cold storage is not asked for, and is
        among ``failed`` (code "cold-storage"); ``dicomwatchctl fetch --restore`` restores it.

        A study whose manifests are not in order is fetched only with ``on_doubt``, which is told of each of them that
        is not, in a sentence; what any of them lists is brought then. ``on_progress`` is called from the working
        threads, one call at a time.

        Raises as `manifest`, Permanent ("series-not-found"; a folder that cannot be used), Fatal.
        """
        doubts = None
        if on_doubt is not None:
            told = on_doubt
            doubts = Doubts(lambda _revision, text: told(text), lambda _revision, text: told(text))
        wanted = {Uid(one) for one in series} or None
        with ThreadPoolExecutor(self._connections) as pool:
            found = look_up(self._store, self._catalogue, Uid(study_uid), doubts=doubts, map=pool.map)
            items = not_there_yet(by_uid(of_series(found.manifest, wanted)), Path(folder))
            cold = NOTHING_COLD
            with suppress(Transient, Permanent):  # which the fetch meets, if it is more than a moment's
                cold = find(self._store, found.manifest.study_uid, items, found.elsewhere, map=pool.map)
        return Fetcher(self._store, threads=self._connections).fetch(
            found.manifest,
            Path(folder),
            series=wanted,
            mode=mode,
            elsewhere=found.elsewhere,
            cold=cold.instances,
            progress=on_progress,
        )

    def _found(self, study_uid: str) -> Found:
        with ThreadPoolExecutor(self._connections) as pool:
            return look_up(self._store, self._catalogue, Uid(study_uid), map=pool.map)

    def _needed_catalogue(self) -> Catalogue:
        if self._catalogue is None:
            raise Permanent("a catalogue is needed, and the archive was opened without one", code="no-catalogue")
        self._catalogue.check()
        return self._catalogue
