"""scripts/bench --scale: what grows with the backlog, and must not."""
