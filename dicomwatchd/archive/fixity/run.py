"""The whole archive, a study at a time: first what is seen in the store, then what the catalogue names beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.fixity.progress import Progress, Totals
from dicomwatchd.archive.fixity.seen import Seen, Source
from dicomwatchd.archive.fixity.study import Judge
from dicomwatchd.archive.records import Query
from dicomwatchd.errors import CatalogueEntryDamaged, CredentialsRefused, InvalidUid
from dicomwatchd.model import Uid


def run(
    source: Source,
    catalogue: Catalogue | None,
    judge: Judge,
    progress: Progress,
    shown: Callable[[Totals], None] = lambda _totals: None,
) -> None:
    """Goes on where ``progress`` is, to the end. ``shown`` is called after each study. Raises Transient and Fatal, and
    whatever interrupts it; what was done until then is done."""
    if progress.run.after is not None:
        for study, seen in _by_study(source, progress):
            progress.add(judge.study(study, seen))
            progress.reached(_behind(study))
            shown(progress.run.totals)
        progress.reached(None)
    if catalogue is not None:
        for study in _recorded(catalogue):
            if progress.has(study):
                continue
            verdict = judge.absent(study)
            if verdict is not None:
                progress.add(verdict)
            progress.reached(None)
            shown(progress.run.totals)
    progress.finish()


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


def _by_study(source: Source, progress: Progress) -> Iterator[tuple[Uid, Iterator[Seen]]]:
    for name, seen in groupby(source.below_studies(progress.run.after or ""), key=lambda one: _folder(one.key)):
        study = _study(name)
        if study is not None:
            yield study, seen
            continue
        for one in seen:
            progress.run.totals.other_keys += 1
            progress.reached(one.key)


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
