"""What the archive holds just now: evidence of objects, the final check, the verification of a study."""
