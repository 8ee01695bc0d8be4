"""A folder on the command line, looked at without waiting for a file system that does not answer."""

from __future__ import annotations

from pathlib import Path

import click

from dicomwatchd.errors import Transient


class RealFolder(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """Becomes the folder's real path, links followed: a str, whose undecodable bytes are surrogates. Raises Transient
    where its file system does not answer."""

    name = "folder"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from dicomwatchd import resolved_paths

        path = Path.cwd() / value
        place = resolved_paths.resolve([path])[path]
        if not place.answers:
            raise Transient("the folder's file system does not answer", code="folder-silent", path=value)
        if not place.is_folder:
            self.fail("no such folder", param, ctx)
        return str(place.real)
