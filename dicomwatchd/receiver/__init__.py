"""Receives DICOM over the network into inboxes: a program of its own, which knows no archive, no queue and no state."""
