"""The control socket: JSON lines, the server, the client, and who is at the other end."""
