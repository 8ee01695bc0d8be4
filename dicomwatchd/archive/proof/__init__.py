"""What the archive holds just now: evidence of objects, the last look, the verification of a study."""
