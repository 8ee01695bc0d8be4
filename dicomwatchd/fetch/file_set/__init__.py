"""A file-set (PS3.10 section 8): 8.3 names, and a DICOMDIR that lists the files, whose bytes stay what they are."""
