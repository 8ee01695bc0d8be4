"""What is raised where a header cannot be read on."""

from __future__ import annotations


class Unreadable(Exception):
    """Its text is plain English without any value of the file."""
