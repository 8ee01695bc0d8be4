"""From an archived file to none: the proof, the staging, the one unlink, and what a crash has left of it."""
