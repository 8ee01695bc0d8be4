"""What state and record of deletions grow to in months of work: in virtual time, on the real database."""
