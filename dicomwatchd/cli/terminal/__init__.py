"""What goes to a terminal, and identifiers that come from one."""
