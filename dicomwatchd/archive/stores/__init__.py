"""Where objects lie: the port that every store keeps, and what they share."""
