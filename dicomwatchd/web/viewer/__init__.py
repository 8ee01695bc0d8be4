"""OHIF, which opens studies: its files as `scripts/viewer` has installed them, under the program's own settings."""

from __future__ import annotations

from dicomwatchd.web.viewer.files import routes

__all__ = ["routes"]
