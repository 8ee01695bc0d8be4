"""`dicomwatchctl top`: what the daemon is doing, from second to second."""
