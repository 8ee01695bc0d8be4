"""The daemon as a process: its parts put together, supervised, asked and told of."""
