"""A file system that does what shares and dying disks do: hang, fail on one entry, be slow, come back anew."""
