"""What of an inbox cannot be looked at: counted, named among what is in quarantine, told once to the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dicomwatchd.intake.scan import Listing
from dicomwatchd.model import FileIdentity, FileState
from dicomwatchd.ports import Log
from dicomwatchd.queue.rows import UNREADABLE, Arrival

NOT_TO_BE_READ = "it cannot be read: the disk or the share reports an error; it is tried again at each scan"
NOT_TO_BE_LISTED = "this folder cannot be listed completely; files in it may be missed"

#: Of what does not say what it is.
_NO_IDENTITY = FileIdentity(0, 0, 0, 0, 0)


class Unreadable:
    """Of one inbox; looked at by any thread, changed by its own."""

    def __init__(self, inbox: str, log: Log) -> None:
        self._inbox, self._log = inbox, log
        self._folders: set[bytes] = set()
        self._entries: dict[bytes, int] = {}
        self._told = 0

    def __len__(self) -> int:
        """How many folders and entries of folders, as far as the last looks went."""
        return len(self._folders) + sum(dict(self._entries).values())

    def add_folder(self, path: bytes) -> None:
        self._folders.add(path)

    def names_in(self, parent: bytes, listing: Listing) -> set[bytes]:
        """What stands directly in this folder and cannot be looked at: such a name is not gone."""
        if listing.unreadable:
            self._entries[parent] = len(listing.unreadable)
        else:
            self._entries.pop(parent, None)
        if not (self._folders or listing.unreadable):
            return set()
        return {*listing.unreadable, *(name for above, name in map(parent_and_name, self._folders) if above == parent)}

    def end_scan(self, seen: Iterable[bytes], failed: Mapping[bytes, int | None]) -> set[bytes]:
        """A whole look has ended: it went through the folders ``seen``, and ``failed`` (folder to errno) at these.
        Returns the folders that can be listed by now."""
        healed, self._folders = self._folders - set(failed), set(failed)
        self._entries = {parent: count for parent in seen if (count := self._entries.get(parent))}
        count = len(self)
        if count and count != self._told:
            self._log.warning(
                "intake-unreadable",
                "some folders or entries of the inbox cannot be read; all others are archived",
                inbox=self._inbox,
                unreadable_count=count,
                errno=next(iter(failed.values()), None),
            )
        elif self._told and not count:
            self._log.info("intake-readable", "the unreadable entries can be read again", inbox=self._inbox)
        self._told = count
        return healed


def unreadable(parent: bytes, name: bytes, reason: str) -> Arrival:
    return Arrival(parent, name, _NO_IDENTITY, FileState.QUARANTINED, code=UNREADABLE, reason=reason)


def parent_and_name(path: bytes) -> tuple[bytes, bytes]:
    """(folder, name) of a folder below the inbox; the inbox itself is "." in itself."""
    parent, _, name = path.rpartition(b"/")
    return parent, name or b"."
