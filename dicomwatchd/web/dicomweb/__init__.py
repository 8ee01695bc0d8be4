"""DICOMweb, read-only (PS3.18): QIDO-RS and WADO-RS over the archive. docs/dicomweb.md has what is there."""

from dicomwatchd.web.dicomweb.routing import routes

__all__ = ["routes"]
