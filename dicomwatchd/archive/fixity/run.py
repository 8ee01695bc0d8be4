"""The whole archive, a study at a time: first what is seen in the store, then what the catalogue names beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.fixity.findings import StudyVerdict
from dicomwatchd.archive.fixity.progress import Progress, Totals
from dicomwatchd.archive.fixity.seen import Seen, Source
from dicomwatchd.archive.fixity.study import StudyVerifier
from dicomwatchd.archive.records import Query
from dicomwatchd.errors import CatalogueEntryDamaged, CredentialsRefused, InvalidUid
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map

#: Studies that are handed to `map` at once, and objects that are kept for them.
_BATCH_STUDIES = 64
_KEPT_OBJECTS = 20_000


def run(
    source: Source,
    catalogue: Catalogue | None,
    verifier: StudyVerifier,
    progress: Progress,
    shown: Callable[[Totals], None] = lambda _totals: None,
    map: Map = map,
) -> None:
    """Goes on where ``progress`` is, to the end. ``shown`` is called after each study, in this thread. Raises Transient
    and Fatal, and whatever interrupts it; what was done until then is done."""
    if progress.run.after is not None:
        for batch in _batches(_by_study(source, progress.run.after)):
            for part, verdict in zip(batch, map(lambda one: _verdict(verifier, one), batch), strict=True):
                if verdict is not None:
                    progress.add(verdict)
                progress.run.totals.other_keys += part.strangers
                progress.reached(part.after)
                shown(progress.run.totals)
        progress.reached(None)
    if catalogue is not None:
        for study in _recorded(catalogue):
            if progress.has(study):
                continue
            named = verifier.absent(study)
            if named is not None:
                progress.add(named)
            progress.reached(None)
            shown(progress.run.totals)
    progress.finish()


@dataclass(frozen=True, slots=True)
class _Part:
    """What is seen of a study; or so many keys that are no study's. ``after``: behind all of it."""

    study: Uid | None
    seen: Iterable[Seen]
    after: str
    strangers: int = 0


def _verdict(verifier: StudyVerifier, part: _Part) -> StudyVerdict | None:
    return None if part.study is None else verifier.study(part.study, part.seen)


def _batches(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    """Studies to be looked at side by side. What is seen of one that is too large to be kept is gone through as it
    comes, alone."""
    batch: list[_Part] = []
    kept = 0
    for part in parts:
        rest = iter(part.seen)
        first = list(islice(rest, _KEPT_OBJECTS))
        if len(first) == _KEPT_OBJECTS:
            if batch:
                yield batch
            yield [replace(part, seen=chain(first, rest))]
            batch, kept = [], 0
            continue
        batch.append(replace(part, seen=first))
        kept += len(first)
        if len(batch) == _BATCH_STUDIES or kept >= _KEPT_OBJECTS:
            yield batch
            batch, kept = [], 0
    if batch:
        yield batch


def _recorded(catalogue: Catalogue) -> Iterator[Uid]:
    """Every study that the catalogue names, by a search: whoever may read the archive may do that, and not go through a
    whole table. But an entry that cannot be read ends a search. Raises CatalogueEntryDamaged where nothing else is
    allowed."""
    try:
        yield from (record.study_uid for record in catalogue.search(Query()))
    except CatalogueEntryDamaged as error:
        try:
            yield from catalogue.study_uids()
        except CredentialsRefused:
            raise error from None


def _by_study(source: Source, after: str) -> Iterator[_Part]:
    for name, seen in groupby(source.below_studies(after), key=lambda one: _folder(one.key)):
        study = _study(name)
        if study is not None:
            yield _Part(study, seen, _behind(study))
            continue
        number, last = 0, ""
        for one in seen:
            number, last = number + 1, one.key
        yield _Part(None, (), last, number)


def _folder(key: str) -> str:
    """What stands below ``studies/``; "" where that is no folder."""
    name, slash, _ = key.removeprefix(keys.STUDIES).partition("/")
    return name if slash else ""


def _study(name: str) -> Uid | None:
    try:
        return Uid(name)
    except InvalidUid:
        return None


def _behind(study: Uid) -> str:
    """Behind every key of the study, and before every other one that comes later: "0" is the next after "/"."""
    return f"{keys.study_prefix(study).removesuffix('/')}0"
