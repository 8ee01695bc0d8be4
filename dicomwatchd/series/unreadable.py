"""What is raised where a header cannot be read on, or is not to be."""

from __future__ import annotations


class Unreadable(Exception):
    """Its text is plain English without any value of the file."""


class TooManyFrames(Exception):
    """It has more frames, or pieces of frames, than whoever reads it has room for."""
