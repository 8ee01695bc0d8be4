"""What people hand in through the page, until the daemon has it.

`book` knows whose upload it is, and of each file its name, size and how far it is; `room` keeps the bytes, under
numbers; `custody` hands whole uploads to the daemon, follows them, and throws away what nobody goes on with.
"""
