"""What somebody should hear of once when it begins, and once when it is over."""
