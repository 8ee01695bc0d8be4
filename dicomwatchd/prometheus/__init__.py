"""The daemon's figures for Prometheus: counted as things happen, read from the status, served at a port."""
