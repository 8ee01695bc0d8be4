"""OHIF, which opens studies: its files as `scripts/viewer` has installed them, under the program's own settings."""

from __future__ import annotations

from dicomwatchd.web.viewer.files import address, routes
from dicomwatchd.web.viewer.installed import folder_of

__all__ = ["address", "folder_of", "routes"]
