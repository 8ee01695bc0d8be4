"""What an inbox's folder is like: whether it is there, what is mounted in it, what in it is no export."""
