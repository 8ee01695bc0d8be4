"""dicomwatchd: archives DICOM studies out of watched folders and deletes the originals only on proof."""

__version__ = "0.1.0"
