"""The record of deletions outside the state: its head published, its segments sealed, and what both prove."""
