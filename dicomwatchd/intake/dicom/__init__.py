"""What is in a file: its UIDs, whether it is whole, the attributes that are kept."""
