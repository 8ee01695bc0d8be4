"""From an archived file to none: the proof, the place aside, the one unlink, and what a crash has left of it."""
