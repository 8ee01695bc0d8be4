"""The benchmark behind scripts/bench: the daemon and the tools people would use instead, on the same real servers."""
