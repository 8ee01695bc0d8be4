"""The restore drill: whether what the archive holds comes back, tried out on studies chosen at random."""
