"""How much people can hand in, and for how long it lies there."""

from __future__ import annotations

from dataclasses import dataclass

from dicomwatchd.config.inboxes import MAX_FILE_BYTES

DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """``piece_bytes``: what is sent in one request, and so in memory at once. ``bytes_in_all``: of all uploads of all
    people together. ``free_bytes`` of the file system are left free. ``open_seconds``: an upload that nobody goes on
    with is thrown away after so long, ``ended_seconds``: one that has ended, with what was not archived of it."""

    piece_bytes: int = 8 << 20
    file_bytes: int = MAX_FILE_BYTES
    files: int = 100_000
    bytes_in_all: int = 1 << 40
    free_bytes: int = 2 << 30
    open_of_one: int = 4
    path_characters: int = 1024
    listed_at_once: int = 500
    open_seconds: float = 3 * DAY_SECONDS
    ended_seconds: float = 30 * DAY_SECONDS


LIMITS = UploadLimits()
