"""What `fetch` says and does about files in cold storage."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli.studies.access import Noting
from dicomwatchd.cli.terminal import output, progress
from dicomwatchd.errors import ColdObject, DicomwatchdError, Permanent, Transient

if TYPE_CHECKING:
    from dicomwatchd.archive.layout.instance import ManifestInstance
    from dicomwatchd.archive.stores.port import ObjectStore, Speed
    from dicomwatchd.fetch.cold import Cold
    from dicomwatchd.fetch.plan import Found
    from dicomwatchd.fetch.report import FetchReport
    from dicomwatchd.ports import Map


class SpeedType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """How fast objects come back from cold storage."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in ("bulk", "standard", "expedited"):
            self.fail("the speed is bulk, standard or expedited, given as --restore=SPEED", param, ctx)
        return str(value)


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line says of restoring."""

    speed: Speed
    days: int
    is_to_wait: bool


def find(store: ObjectStore, found: Found, items: Iterable[ManifestInstance], restore: Order | None, map: Map) -> Cold:
    """What of these instances is in cold storage. A store that does not say is found out about by the fetch, unless
    something is to be restored. Raises Transient, Permanent, Fatal."""
    from dicomwatchd.fetch import cold

    study, is_wanted = found.manifest.study_uid, restore is not None
    try:
        return cold.find(store, study, items, found.elsewhere, thorough=is_wanted, map=map)
    except (Transient, Permanent):
        if is_wanted:
            raise
        return cold.NOTHING_COLD


def restored(store: ObjectStore, frozen: Cold, order: Order, note: Noting, map: Map, *, with_bar: bool) -> Cold:
    """Ask for what is cold, and wait for it if that is wanted; what is cold afterwards. Raises KeyboardInterrupt,
    Transient, Permanent, Fatal."""
    from dicomwatchd.fetch import cold

    if not frozen.objects:
        return frozen
    asked = cold.ask_back(store, frozen, order.speed, order.days, map=map)
    for reason in asked.refused:
        note(f"objects that are not restored: {reason}")
    how_long = f"it takes {frozen.takes(order.speed)}"
    if asked.under_way and not asked.started and order.speed != "expedited":
        how_long = "they come back at the speed that they were requested with"
    note(
        f"restoring {output.count(len(frozen.objects), 'object')} ({output.size(frozen.size_bytes)}):"
        f" {asked.started:,} requested now, {asked.under_way:,} under way already, {asked.readable:,} readable;"
        f" {how_long}"
    )
    if order.is_to_wait and frozen.may_expire_while_waiting(order.speed, order.days):
        note("the first copies may expire before the last are restored: --restore-days 3 keeps them for longer")
    if order.is_to_wait and not asked.refused:
        _wait(store, frozen, order, note, map, with_bar=with_bar)
    return cold.look_again(store, frozen, map=map)


def _wait(store: ObjectStore, frozen: Cold, order: Order, note: Noting, map: Map, *, with_bar: bool) -> None:
    from dicomwatchd.fetch.cold import wait_until_back

    said: set[str] = set()

    def trouble(error: DicomwatchdError) -> None:
        if error.message not in said:
            said.add(error.message)
            note(f"while waiting: {error}")

    with progress.bar(wanted=with_bar) as update:
        try:
            wait_until_back(
                store,
                frozen,
                order.speed,
                order.days,
                told=lambda done, size: update(done, len(frozen.objects), size, frozen.size_bytes, "Restoring"),
                trouble=trouble,
                sleep=time.sleep,
                map=map,
            )
        except KeyboardInterrupt:
            output.note("interrupted; the store goes on restoring. Run the same command again to fetch the files")
            raise


def document(report: FetchReport, frozen: Cold) -> dict[str, Any]:
    return {
        "files": _files(report),
        "objects": len(frozen.objects),
        "bytes": frozen.size_bytes,
        "under_way": frozen.under_way,
    }


def say(report: FetchReport, frozen: Cold, *, is_asked_for: bool) -> None:
    files = _files(report)
    beneath = max(0, files - len(frozen.instances)) if is_asked_for else 0
    files -= beneath
    if beneath:
        output.say(
            f"{output.count(beneath, 'file')} {'is' if beneath == 1 else 'are'} in cold storage as an older version,"
            " under a delete marker or another object, and not restored by this command:"
            f" `dicomwatchctl verify {report.study_uid}` names the objects."
        )
    if not files:
        return
    what = f"{output.count(files, 'file')} {'is' if files == 1 else 'are'} in cold storage"
    if frozen.objects:
        what += f" ({output.count(len(frozen.objects), 'object')}, {output.size(frozen.size_bytes)})"
    if frozen.objects and frozen.under_way == len(frozen.objects):
        output.say(f"{what}, being restored: repeat the command later, or with --restore --wait.")
    elif is_asked_for:
        output.say(f"{what}: repeat the command when they are restored.")
    else:
        output.say(
            f"{what} and must be restored first, which is charged for: repeat the command with --restore"
            f" ({frozen.takes('standard')}) or --restore=bulk ({frozen.takes('bulk')}, the cheapest); with --wait, too,"
            " it fetches them as soon as they are readable."
        )


def _files(report: FetchReport) -> int:
    return sum(failure.code == ColdObject.code for failure in report.failed)
