"""What the state is bound to: its archive, the folders of its inboxes, the file systems they are on."""
