"""`dicomwatchctl archive`: set up the archive; what it costs is in a file of its own."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies.cost import cost
from dicomwatchd.cli.terminal import output
from dicomwatchd.errors import ArchiveRefused, Fatal, NotInitialised

if TYPE_CHECKING:
    from dicomwatchd.archive.catalogues.port import Catalogue
    from dicomwatchd.archive.stores.port import InitStep, ObjectStore


@click.group()
def archive() -> None:
    """Set up the archive, and estimate its cost."""


archive.add_command(cost)


@archive.command()
@click.option(
    "--new-archive", is_flag=True, help="Use this archive although the daemon's state belongs to another one."
)
@output.json_option
@click.pass_obj
def init(invocation: Invocation, new_archive: bool, as_json: bool) -> None:
    """Create the missing parts of the archive.

    Creates the bucket or folder, the table or catalogue file with their settings, and the archive's identity. Prints
    line by line what it did and what the store does not support. A second run changes nothing. The inboxes need not
    exist yet.

    It is refused if the daemon's state belongs to an archive and this is another one, or an empty place: most often
    a share that is not mounted or a mistyped bucket. Use --new-archive if the change is intended; the daemon must
    then not be running, and will send or verify again whatever it has not deleted yet.
    """
    from dicomwatchd import config
    from dicomwatchd.archive import factory

    loaded = config.load(invocation.config_path)
    known = _known_archive_id(loaded.state_directory)
    store = factory.open_store(loaded.archive.store, connections=2)
    try:
        catalogue = factory.open_catalogue(loaded.archive.catalogue)
        try:
            done = initialise(store, catalogue, None if new_archive else known)
            if new_archive and known not in (None, done.archive_id):
                _rebind(loaded.state_directory, done.archive_id, f"{store.destination} {catalogue.name}")
                done.steps.append(("state", "the daemon's state", "set", "now belongs to this archive"))
        finally:
            catalogue.close()
    finally:
        store.close()
    if as_json:
        steps = [dict(zip(("part", "what", "outcome", "detail"), step, strict=True)) for step in done.steps]
        output.document({"archive_id": done.archive_id, "changed": done.changed, "steps": steps})
        return
    for part, what, outcome, detail in done.steps:
        output.say(output.clean(f"{outcome:<14} {part}: {what}{f' ({detail})' if detail else ''}"))
    state = "is ready" if done.changed else "was already set up; nothing was changed"
    output.say(f"Archive {done.archive_id} {state}.")


@dataclass(frozen=True, slots=True)
class Initialised:
    """``steps`` are (part, what, outcome, detail), outcomes as in InitStep."""

    archive_id: str
    steps: list[tuple[str, str, str, str]]

    @property
    def changed(self) -> bool:
        return any(outcome in ("created", "set") for _, _, outcome, _ in self.steps)


def initialise(store: ObjectStore, catalogue: Catalogue, known_archive_id: str | None) -> Initialised:
    """Create what is missing of store, identity and catalogue, unless the place looks like the wrong one.

    Raises ArchiveRefused, before anything is created, where ``known_archive_id`` or the catalogue speak of another
    archive than the store holds; NotInitialised, Transient.
    """
    from dicomwatchd.archive.identity import ArchiveIdentity, write_identity
    from dicomwatchd.ports import SystemClock, timestamp

    held = _held_id(store)
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
    wanted = ArchiveIdentity(str(uuid.uuid4()), timestamp(SystemClock().now()))
    identity = write_identity(store, wanted)
    outcome = "created" if identity == wanted else "present"
    steps.append(("store", "the archive's identity", outcome, identity.archive_id))
    steps += [_line("catalogue", step) for step in catalogue.initialise(identity.archive_id)]
    return Initialised(identity.archive_id, steps)


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
