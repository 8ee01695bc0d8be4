"""The archive in a browser: DICOMweb and the page, a process of its own that reads and never deletes."""
