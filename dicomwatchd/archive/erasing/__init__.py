"""Erasing a study from the archive: what a person with rights of their own does, and no daemon."""
