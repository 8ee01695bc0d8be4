"""Files that are staged for deletion: moved out of the way, moved back, found again after a crash."""
