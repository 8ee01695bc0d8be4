"""The daemons of one archive know of each other: what each says of itself in the catalogue, and who has fallen silent.

Nothing depends on it. What cannot be written or read is tried again with the next heartbeat.
"""
