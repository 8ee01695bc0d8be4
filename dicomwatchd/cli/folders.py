"""A folder on the command line, looked at without waiting for a file system that does not answer."""

from __future__ import annotations

from pathlib import Path

import click

from dicomwatchd.errors import Transient


class RealFolder(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """Becomes the folder's real path, links followed: a str, whose undecodable bytes are surrogates. Raises Transient
    where its file system does not answer."""

    name = "folder"
    takes_files = False

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from dicomwatchd import resolved_paths

        path = Path.cwd() / value
        place = resolved_paths.resolve([path])[path]
        if not place.answers:
            raise Transient("the folder's file system does not answer", code="folder-silent", path=value)
        if not (place.is_folder or (self.takes_files and place.exists)):
            self.fail(f"no such {self.name}", param, ctx)
        return str(place.real)


class FolderOrDiscImage(RealFolder):
    """Or a file, which may be the image of a disc."""

    name = "folder or disc image"
    takes_files = True
