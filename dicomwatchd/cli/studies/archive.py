"""`dicomwatchctl archive`: set up the archive; its cost, its verification and erasing are in files of their own."""

from __future__ import annotations

import re
import sys
import uuid
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies.cost import cost
from dicomwatchd.cli.studies.erase import erase, erased
from dicomwatchd.cli.studies.index import index
from dicomwatchd.cli.studies.verify_archive import verify
from dicomwatchd.cli.terminal import output
from dicomwatchd.errors import ArchiveRefused, Fatal, NotInitialised, NotThere, Transient

if TYPE_CHECKING:
    from dicomwatchd.archive.catalogues.port import Catalogue
    from dicomwatchd.archive.stores.port import InitStep, ObjectStore, Transition
    from dicomwatchd.config.archive import StoreSettings


@click.group()
def archive() -> None:
    """Set up and verify the archive, and erase studies from it."""


archive.add_command(cost)
archive.add_command(erase)
archive.add_command(erased)
archive.add_command(index)
archive.add_command(verify)


class TransitionType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """DAYS:CLASS."""

    name = "transition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Transition:
        from dicomwatchd.archive.stores.port import Transition

        if isinstance(value, Transition):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,4}):([A-Z_]+)", value)
        if found is None or found[2] not in _CLASSES:
            self.fail(f"must be DAYS:CLASS, such as 90:GLACIER; the classes are {', '.join(_CLASSES)}", param, ctx)
        return Transition(int(found[1]), found[2])


#: Where objects may move to, each to those behind it.
_CLASSES = ("INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")
_COLD = ("GLACIER", "DEEP_ARCHIVE")


@archive.command()
@click.option(
    "--new-archive", is_flag=True, help="Use this archive although the daemon's state belongs to another one."
)
@click.option(
    "--restore-identity",
    is_flag=True,
    help="Write the archive's identity again, where it was deleted or not copied; the manifests name it.",
)
@click.option(
    "--lifecycle",
    "transitions",
    metavar="DAYS:CLASS",
    type=TransitionType(),
    multiple=True,
    help="Also add a lifecycle rule to the bucket: instances and bundles move to a cheaper storage class after so many"
    " days. May be given repeatedly. The rule is shown first, and needs archive.store.tag.",
)
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask before the lifecycle rule is added.")
@output.json_option
@click.pass_obj
def init(
    invocation: Invocation,
    new_archive: bool,
    restore_identity: bool,
    transitions: tuple[Transition, ...],
    is_confirmed: bool,
    as_json: bool,
) -> int:
    """Create the missing parts of the archive.

    Creates the bucket or folder, the table or catalogue file with their settings, and the archive's identity. Prints
    line by line what it did and what the store does not support. A second run changes nothing. The inboxes need not
    exist yet.

    It is refused if the daemon's state belongs to an archive and this is another one, or an empty place: most often
    a share that is not mounted or a mistyped bucket. Use --new-archive if the change is intended; the daemon must
    then not be running, and will send or verify again whatever it has not deleted yet.

    With --lifecycle the bucket gets a rule that moves what has the tag of archive.store.tag, which manifests do not
    have. It expires nothing and replaces no other rule. The exit code is 1 if it could not be added.
    """
    from dicomwatchd.archive import factory
    from dicomwatchd.config import loading

    loaded = loading.load(invocation.config_path)
    _confirm(loaded.archive.store, transitions, is_confirmed=is_confirmed, may_ask=not as_json)
    known = _known_archive_id(loaded.state_directory)
    store = factory.open_store(loaded.archive.store, connections=2)
    try:
        catalogue = factory.open_catalogue(loaded.archive.catalogue)
        try:
            done = initialise(store, catalogue, None if new_archive else known, restore_identity=restore_identity)
            if transitions:
                done.steps.append(_line("store", store.add_transitions(sorted(transitions, key=lambda one: one.days))))
            if new_archive and known not in (None, done.archive_id):
                _rebind(loaded.state_directory, done.archive_id, f"{store.destination} {catalogue.name}")
                done.steps.append(("state", "the daemon's state", "set", "now belongs to this archive"))
        finally:
            catalogue.close()
    finally:
        store.close()
    code = exits.NO if transitions and done.steps[-1][2] == "not supported" else exits.OK
    if as_json:
        steps = [dict(zip(("part", "what", "outcome", "detail"), step, strict=True)) for step in done.steps]
        output.document({"archive_id": done.archive_id, "changed": done.changed, "steps": steps})
        return code
    for part, what, outcome, detail in done.steps:
        output.say(output.clean(f"{outcome:<14} {part}: {what}{f' ({detail})' if detail else ''}"))
    state = "is ready" if done.changed else "was already set up; nothing was changed"
    output.say(f"Archive {done.archive_id} {state}.")
    if done.lacks_records:
        output.note(
            "the catalogue is new and the store holds studies: record them with `dicomwatchctl catalogue rebuild`"
        )
    return code


def _may_be_asked() -> bool:
    return sys.stdin.isatty()


def _confirm(store: StoreSettings, transitions: tuple[Transition, ...], *, is_confirmed: bool, may_ask: bool) -> None:
    """Show the rule, and ask. Raises click.UsageError, and click.exceptions.Exit where the answer is no."""
    if not transitions:
        return
    from dicomwatchd.config.archive import S3Settings

    if not isinstance(store, S3Settings) or store.tag is None:
        raise click.UsageError(
            "--lifecycle needs an S3 store and archive.store.tag, by which the rule tells instances from manifests"
        )
    ordered = sorted(transitions, key=lambda one: one.days)
    ranks = [_CLASSES.index(one.storage_class) for one in ordered]
    if sorted(set(ranks)) != ranks or len({one.days for one in ordered}) != len(ordered):
        raise click.UsageError(
            f"--lifecycle: objects move from left to right among {', '.join(_CLASSES)}, later each time"
        )
    moves = ", ".join(f"to {one.storage_class} {one.days:,} days after they were stored" for one in ordered)
    tag = f"{store.tag.key}={store.tag.value}"
    where = f"objects below {store.prefix}studies/ with the tag {tag}"
    text = f"lifecycle rule of the bucket: {where} move {moves}. Nothing expires, and other rules stay as they are."
    if any(one.storage_class in _COLD for one in ordered):
        text += " What is in GLACIER or DEEP_ARCHIVE must be restored before it can be fetched, which takes hours."
    output.note(text)
    if is_confirmed:
        return
    if not may_ask or not _may_be_asked():
        raise click.UsageError("--lifecycle asks before it adds the rule; where nobody can be asked, give --yes, too")
    if not click.confirm("Add this rule?", err=True):
        output.note("nothing was done")
        raise click.exceptions.Exit(exits.NO)


@dataclass(frozen=True, slots=True)
class Initialised:
    """``steps`` are (part, what, outcome, detail), outcomes as in InitStep. ``lacks_records``: the catalogue was made
    for an archive that had studies already."""

    archive_id: str
    steps: list[tuple[str, str, str, str]]
    lacks_records: bool = False

    @property
    def changed(self) -> bool:
        return any(outcome in ("created", "set") for _, _, outcome, _ in self.steps)


def initialise(
    store: ObjectStore, catalogue: Catalogue, known_archive_id: str | None, *, restore_identity: bool = False
) -> Initialised:
    """Create what is missing of store, identity and catalogue, unless the place looks like the wrong one.

    Raises ArchiveRefused, before anything is created, where ``known_archive_id`` or the catalogue speak of another
    archive than the store holds, or where the store holds studies without an identity, unless that is to be restored;
    NotInitialised, Transient.
    """
    from dicomwatchd.archive.identity import ArchiveIdentity, write_identity
    from dicomwatchd.ports import SystemClock, timestamp

    held = _held_id(store)
    lost = None
    if held is None:
        held = lost = _lost_id(store, restore_identity=restore_identity)
    if known_archive_id is not None and held != known_archive_id:
        raise ArchiveRefused(
            "the daemon's state belongs to another archive than the one found here"
            if held
            else "the daemon's state belongs to an archive, and there is none here",
            hint="is the share mounted, and is it the right bucket? If the change is intended, use --new-archive",
        )
    catalogued = _catalogued_id(catalogue)
    if catalogued is not None and held != catalogued:
        raise ArchiveRefused(
            "the catalogue belongs to another archive than the one found here"
            if held
            else "the catalogue belongs to an archive, and there is none here",
            hint="is the share mounted, and is it the right bucket? A new archive needs a catalogue of its own",
        )
    steps = [_line("store", step) for step in store.initialise()]
    wanted = ArchiveIdentity(lost or str(uuid.uuid4()), timestamp(SystemClock().now()))
    identity = write_identity(store, wanted)
    outcome = "created" if identity == wanted else "present"
    steps.append(("store", "the archive's identity", outcome, identity.archive_id))
    steps += [_line("catalogue", step) for step in catalogue.initialise(identity.archive_id)]
    return Initialised(identity.archive_id, steps, held is not None and catalogued is None and _has_studies(store))


def _has_studies(store: ObjectStore) -> bool:
    """Whoever may set up an archive may not be allowed to list it; then nothing is known of studies."""
    from dicomwatchd.archive import keys

    try:
        return any(True for _ in islice(store.listing(keys.STUDIES), 1))
    except Transient:
        return False


def _line(part: str, step: InitStep) -> tuple[str, str, str, str]:
    return part, step.what, step.outcome, step.detail


def _held_id(store: ObjectStore) -> str | None:
    from dicomwatchd.archive.identity import read_identity

    try:
        store.check()
    except NotInitialised:
        return None
    identity = read_identity(store)
    return None if identity is None else identity.archive_id


def _lost_id(store: ObjectStore, *, restore_identity: bool) -> str | None:
    """Of a store without an identity: the one that it had, which is to be written again."""
    from dicomwatchd.archive.repair.lost_identity import named_by_manifests

    try:
        named = named_by_manifests(store)
    except NotThere:
        named = None
    if named is None and restore_identity:
        raise ArchiveRefused("no manifest here names an archive", hint="is it the right bucket or folder?")
    if named is not None and not restore_identity:
        raise ArchiveRefused(
            f"the store holds studies of archive {named}, and not the archive's identity",
            hint="it was deleted, or not copied to this place; archive init --restore-identity writes it again",
        )
    return named


def _catalogued_id(catalogue: Catalogue) -> str | None:
    try:
        return catalogue.identity()
    except NotInitialised:
        return None


def _known_archive_id(state_directory: Path) -> str | None:
    from dicomwatchd.queue import known_archive_id

    try:
        return known_archive_id(state_directory)
    except OSError as error:
        raise _closed(state_directory) from error


def _rebind(state_directory: Path, archive_id: str, destination: str) -> None:
    from dicomwatchd.ports import SystemClock
    from dicomwatchd.queue import open_queue

    try:
        queue = open_queue(state_directory, SystemClock(), lambda _transition: None)
    except OSError as error:
        raise _closed(state_directory) from error
    try:
        queue.binding.bind(archive_id, destination)
    finally:
        queue.close()


def _closed(state_directory: Path) -> Fatal:
    return Fatal(
        "the daemon's state cannot be opened",
        code="state-closed",
        hint="run this as root or as the daemon's user",
        path=str(state_directory),
    )
