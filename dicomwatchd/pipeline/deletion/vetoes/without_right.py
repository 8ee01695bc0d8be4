"""Files that whoever has asked for their deletion may not delete himself: they are archived, and stay."""

from __future__ import annotations

import os
from contextlib import suppress

from dicomwatchd.answering import Inboxes
from dicomwatchd.errors import SourceChanged, Transient, Unarchivable
from dicomwatchd.pipeline.deletion.port import Policy
from dicomwatchd.pipeline.local import Folders, by_folder
from dicomwatchd.ports import Map
from dicomwatchd.queue.rows import LocalFile

REASON = "archived; kept because the user who started the upload may not delete it"


def among(files: list[LocalFile], run: Map, policy: Policy, inboxes: Inboxes) -> list[LocalFile]:
    """Found before they are put on record, like those without a lease. What cannot be looked at now is met again before
    it is touched."""

    def look(group: list[LocalFile]) -> list[LocalFile]:
        found = policy.source(group[0])
        barred: list[LocalFile] = []
        with Folders(inboxes) as folders:
            for file in group:
                with (
                    suppress(SourceChanged, Unarchivable, Transient),
                    folders.opened(found, file) as (directory_fd, fd),
                ):
                    if found.asker is not None and not found.asker.may_remove(directory_fd, os.fstat(fd)):
                        barred.append(file)
        return barred

    judged = [file for file in files if (asker := policy.source(file).asker) is not None and asker.uid != 0]
    return [file for barred in run(look, by_folder(judged)) for file in barred]
