"""What the systemd unit's drop-in says for a configuration, and whether that is still true."""
