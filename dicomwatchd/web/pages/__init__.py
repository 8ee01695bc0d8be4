"""The page for people who read images: search, a study, uploads. Rendered here; no script is needed but to upload."""

from dicomwatchd.web.pages.parts import PageParts, parts_of
from dicomwatchd.web.pages.routing import opened

__all__ = ["PageParts", "opened", "parts_of"]
