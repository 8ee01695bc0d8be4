"""The state's file: how it is opened, its tables a step for each version, what leaves it."""
