"""scripts/bench --send: `dicomwatchctl fetch --send` beside DCMTK's senders."""
