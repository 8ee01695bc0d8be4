"""A catalogue in one SQLite file."""
