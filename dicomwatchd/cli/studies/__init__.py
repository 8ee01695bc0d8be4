"""The commands that read the archive, and those that set it up."""
